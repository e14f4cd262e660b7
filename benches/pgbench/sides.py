"""The ways to the database: each a process of its own, whose CPU and memory can be asked for."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from support.cluster import Cluster, find_programs
from support.gateway import PASSWORD_PROMPT, Gateway
from support.processes import HOST, ROOT, Child, free_port, listening, until
from support.provider import Provider

ROLE = "app_write"
DATABASE = "shop"
TLS = ROOT / "tests" / "data" / "tls"
START_SECONDS_MAX = 15
SETTLE_SECONDS_MAX = 60
QUIET_SECONDS = 0.25
QUIET_CPU_SECONDS = 0.01

# Everything that a part can compare; the other durabilities and ways to log in only when asked for.
SIDES = ["direct", "pgbouncer", "pgwitness-paused", "pgwitness", "pgaudit"]
OPTIONAL = ["pgwitness-held", "pgwitness-strict", "pgwitness-token", "pgwitness-minted", "haproxy"]


class Side:
    """One way to the database: where clients connect, and whose CPU counts.

    `indexes` says that work goes on after the answers.
    """

    def __init__(self, name: str, port: int, password: str, pid: int | None = None, options: str = "",
                 indexes: bool = False, stop=lambda: None):
        self.name = name
        self.port = port
        self.password = password
        self.options = options
        self.pid = pid
        self.indexes = indexes
        self.stop = stop

    def environment(self, tls: str) -> dict:
        """libpq's environment; `tls` is `off` or `on`."""
        return {**os.environ, "PGPASSWORD": self.password, "PGOPTIONS": self.options,
                "PGSSLMODE": "require" if tls == "on" else "disable"}

    def cpu_seconds(self) -> float:
        """User and system time of all threads, those that ended included, to the nanosecond."""
        if self.pid is None:
            return 0.0
        return time.clock_gettime((~self.pid << 3) | 2)  # the kernel's name of that process's CPU clock

    def rss_kib(self) -> int:
        if self.pid is None:
            return 0
        lines = pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    def settle(self) -> None:
        """Waits until work that goes on after the answers (indexing) has ended."""
        end = time.monotonic() + SETTLE_SECONDS_MAX
        while self.indexes and time.monotonic() < end:
            before = self.cpu_seconds()
            time.sleep(QUIET_SECONDS)
            if self.cpu_seconds() - before <= QUIET_CPU_SECONDS:
                return


# What must be there

def install(package: str, hint: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit(f"{package} is not installed. Install it (apt-get install {package}) or leave it out with {hint}")
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], check=True,
                   stdout=sys.stderr, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def need(program: str, hint: str) -> str:
    """The path of a program that comes in the package of its name."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    if shutil.which(program, path=path) is None:
        install(program, hint)
    return shutil.which(program, path=path)


def need_pgaudit() -> None:
    programs = find_programs()
    libraries = subprocess.run([str(programs / "pg_config"), "--pkglibdir"], capture_output=True, text=True)
    folder = pathlib.Path(libraries.stdout.strip() or programs.parent / "lib")
    if not (folder / "pgaudit.so").exists():
        install(f"postgresql-{programs.parent.name}-pgaudit", "--sides")


def need_gateway() -> None:
    """The release build, unless PGWITNESS_BIN names another; the provider that approves its logins."""
    if "PGWITNESS_BIN" not in os.environ:
        subprocess.run(["cargo", "build", "--locked", "--release", "--bin", "pgwitness"], cwd=ROOT, check=True)
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        os.environ["PGWITNESS_BIN"] = str(target / "release" / "pgwitness")
    os.environ["PGWITNESS_BIN"] = str(pathlib.Path(os.environ["PGWITNESS_BIN"]).resolve())
    folder = ROOT / "tests" / "providers"
    if not (folder / "node_modules").exists():
        subprocess.run(["npm", "ci"], cwd=folder, check=True, stdout=sys.stderr)


# How each is started

def certificate(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A copy of the tests' certificate and key that only the servers' own user can read."""
    cert, key = folder / "server.crt", folder / "server.key"
    shutil.copy(TLS / "server.crt", cert)
    shutil.copy(TLS / "server.key", key)
    key.chmod(0o600)
    if os.geteuid() == 0:
        shutil.chown(key, "postgres")
    return cert, key


def database(folder: pathlib.Path, settings: str = "") -> Cluster:
    """A private PostgreSQL with the role and the database; TLS for those who ask for it."""
    cluster = Cluster(folder, log_statement="none", settings=settings)
    cert, key = certificate(folder)
    with open(cluster.data / "postgresql.conf", "a") as conf:
        conf.write(f"ssl = on\nssl_cert_file = '{cert}'\nssl_key_file = '{key}'\n")
    cluster.start()
    cluster.add_role(ROLE, "secret-of-app-write")
    cluster.psql(f"create database {DATABASE} owner {ROLE}")
    return cluster


def fill(cluster: Cluster, scale: int) -> None:
    """pgbench's own tables."""
    side = direct(cluster)
    subprocess.run(["pgbench", "-i", "-q", "-s", str(scale), "-h", HOST, "-p", str(side.port), "-U", ROLE, DATABASE],
                   env=side.environment("off"), check=True, capture_output=True)
    cluster.psql("vacuum analyze", DATABASE)


def direct(cluster: Cluster) -> Side:
    return Side("direct", cluster.port, cluster.passwords[ROLE])


def pgbouncer(name: str, cluster: Cluster, folder: pathlib.Path, clients: int = 150) -> Side:
    """Session mode, SCRAM towards clients and the database, TLS for those who ask for it."""
    binary = need("pgbouncer", "--sides")
    folder.mkdir()
    folder.chmod(0o755)
    port = free_port()
    password = cluster.passwords[ROLE]
    cert, key = certificate(folder)
    (folder / "users").write_text(f'"{ROLE}" "{password}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{DATABASE} = host={HOST} port={cluster.port} dbname={DATABASE}\n"
        f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {folder}/users\npool_mode = session\n"
        f"client_tls_sslmode = allow\nclient_tls_cert_file = {cert}\nclient_tls_key_file = {key}\n"
        f"server_tls_sslmode = disable\ndefault_pool_size = {clients}\nmax_client_conn = {clients + 50}\n"
        f"log_connections = 0\nlog_disconnections = 0\n")
    command = [binary, str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:  # it refuses to run as root; setpriv keeps the process id
        shutil.chown(folder, "postgres")
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
    child = serving(name, command, port, folder)
    # SIGINT would wait for clients.
    return Side(name, port, password, child.pid, stop=lambda: child.stop(signal.SIGTERM))


def haproxy(cluster: Cluster, folder: pathlib.Path) -> Side:
    """TCP mode: bytes both ways, nothing looked at."""
    binary = need("haproxy", "--parts")
    folder.mkdir()
    port = free_port()
    (folder / "haproxy.cfg").write_text(
        "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
        f"listen postgres\n  bind {HOST}:{port}\n  server database {HOST}:{cluster.port}\n")
    child = serving("haproxy", [binary, "-db", "-f", str(folder / "haproxy.cfg")], port, folder)
    return Side("haproxy", port, cluster.passwords[ROLE], child.pid, stop=lambda: child.stop(signal.SIGTERM))


def serving(name: str, command: list[str], port: int, folder: pathlib.Path) -> Child:
    child = Child(command, folder.parent / f"{folder.name}.out", cwd="/")
    until(name, lambda: listening(port) or not child.alive(), START_SECONDS_MAX)
    if not child.alive():
        raise SystemExit(f"{name} did not start: {child.said()}")
    return child


def pgwitness(name: str, cluster: Cluster, provider: Provider, folder: pathlib.Path, clients: int = 150) -> Side:
    """The gateway with its journal, and the index unless it is paused; a paired secret, approved, or a token."""
    paused = name.endswith(("-paused", "-token", "-minted"))
    gateway = Gateway(
        folder, cluster, provider,
        listen={"tls": "allow", "tls_cert": TLS / "server.crt", "tls_key_file": TLS / "server.key",
                "max_clients": clients + 50},
        log={"durability": next((mode for mode in ("held", "strict") if name.endswith(mode)), "batch")},
        # Written only where needed: an older binary, which cannot pause, can still be measured.
        index={"paused": True} if paused else {}).start()
    password = (provider.id_token("ann") if name.endswith("-token") else gateway.minted("ann") if name.endswith("-minted")
                else gateway.pair("ann", user=ROLE, dbname=DATABASE))
    return Side(name, gateway.port, password, gateway.pid, PASSWORD_PROMPT, not paused, gateway.stop)
