"""A private PostgreSQL: its own folder, SCRAM passwords, a unix socket and one loopback port.

The server writes every statement it runs to its CSV log. That log is the tests' independent
account of what was executed, to which the gateway's records are compared.
"""

import csv
import glob
import os
import pathlib
import pwd
import shutil
import subprocess

from .processes import HOST, STOP_SECONDS_MAX, free_port

START_SECONDS_MAX = 60

# A logged statement may be megabytes long.
csv.field_size_limit(1 << 28)

# Big enough for every test at once; durability of the test data does not matter.
SETTINGS = """
listen_addresses = '127.0.0.1'
max_connections = 150
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
password_encryption = 'scram-sha-256'
logging_collector = on
log_directory = 'log'
log_filename = 'server.log'
log_file_mode = 0644
log_destination = 'csvlog'
log_rotation_age = 0
log_rotation_size = 0
log_statement = '{log_statement}'
timezone = 'UTC'
lc_messages = 'C'
"""

HBA = """
local all postgres trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""


def find_programs() -> pathlib.Path:
    """The folder with initdb and postgres, as `$PGWITNESS_PG_BIN` or the newest installed says."""
    named = os.environ.get("PGWITNESS_PG_BIN")
    found = [pathlib.Path(named)] if named else []
    found += sorted(map(pathlib.Path, glob.glob("/usr/lib/postgresql/*/bin")), key=lambda p: -int(p.parent.name))
    on_path = shutil.which("initdb")
    if on_path:
        found.append(pathlib.Path(on_path).parent)
    for folder in found:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise RuntimeError("found no PostgreSQL server programs. Install them: apt-get install postgresql")


class Cluster:
    """One PostgreSQL server. `passwords` holds the password of every login role made by `add_role`.

    `settings` is added to postgresql.conf.
    """

    def __init__(self, folder: pathlib.Path, log_statement: str = "all", settings: str = ""):
        self.folder = folder
        self.data = folder / "data"
        self.socket_dir = folder / "socket"
        self.port = free_port()
        self.passwords: dict[str, str] = {}
        self._programs = find_programs()
        self._as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        for each in (folder, self.socket_dir):
            each.mkdir(parents=True, exist_ok=True)
            self._hand_over(each)
        self._program("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
                      "--locale=C.UTF-8", "--no-sync")
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.write(SETTINGS.format(log_statement=log_statement))
            conf.write(f"port = {self.port}\nunix_socket_directories = '{self.socket_dir}'\n{settings}\n")
        (self.data / "pg_hba.conf").write_text(HBA)

    def _hand_over(self, path: pathlib.Path) -> None:
        if self._as_postgres:
            owner = pwd.getpwnam("postgres")
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def _program(self, name: str, *arguments: str) -> None:
        done = subprocess.run([*self._as_postgres, str(self._programs / name), *arguments], cwd="/",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=START_SECONDS_MAX + STOP_SECONDS_MAX)
        if done.returncode != 0:
            raise RuntimeError(f"{name} {' '.join(arguments)} failed:\n{done.stdout}")

    def start(self) -> None:
        # The output of pg_ctl goes to a file: a pipe would stay open with the server.
        self._program("pg_ctl", "-D", str(self.data), "-w", "-t", str(START_SECONDS_MAX),
                      "-l", str(self.data / "start.log"), "start")

    def stop(self, mode: str = "fast") -> None:
        self._program("pg_ctl", "-D", str(self.data), "-w", "-t", str(STOP_SECONDS_MAX), "-m", mode, "stop")

    def running(self) -> bool:
        return (self.data / "postmaster.pid").exists()

    def remove(self) -> None:
        if self.running():
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def dsn(self, role: str, dbname: str) -> str:
        """How a program reaches the database without the gateway."""
        return f"host={HOST} port={self.port} dbname={dbname} user={role} password={self.passwords[role]}"

    def psql(self, sql: str, dbname: str = "postgres") -> str:
        """Runs a script as the superuser; the result without decoration."""
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(self.socket_dir),
             "-p", str(self.port), "-U", "postgres", "-d", dbname, "-f", "-"],
            input=sql, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"psql failed: {done.stderr}")
        return done.stdout.strip()

    def add_role(self, name: str, password: str) -> None:
        self.passwords[name] = password
        self.psql(f"create role {name} login password '{password}'")

    def password_file(self, role: str) -> pathlib.Path:
        path = self.folder / f"{role}.password"
        path.write_text(self.passwords[role])
        path.chmod(0o600)
        return path

    def executed(self, mark: str) -> list[str]:
        """Every statement with `mark` in its text that the server began to execute, in its own words.

        `statement: …` is a simple query, `execute NAME: …` an Execute message. (Preparing alone is
        not logged by `log_statement`.)
        """
        texts = []
        with open(self.data / "log" / "server.csv", newline="", errors="replace") as log:
            for row in csv.reader(log):
                message = row[13]
                if mark not in message:
                    continue
                kind, colon, text = message.partition(": ")
                if colon and (kind == "statement" or kind.startswith("execute ")):
                    texts.append(text)
        return texts
