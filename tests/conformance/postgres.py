"""PostgreSQL's own suites: regress, plpgsql, isolation, contrib, the libpq pipeline tests, and its programs."""

import difflib
import pathlib
import re
import shutil
import subprocess

from sides import SUPERUSER, Side
from support.processes import HOST

MINUTES = 60
SUITE_SECONDS_MAX = 40 * MINUTES
PGXS = pathlib.Path("/usr/lib/postgresql/15/lib/pgxs/src/test")
BIN = pathlib.Path("/usr/lib/postgresql/15/bin")

# Tests to run instead of the whole schedule of regress and isolation; `run --only` sets it.
only: list[str] = []

# Not in Debian's packages as tests expect them, or a test of the build alone.
CONTRIB_LEFT_OUT = {"sepgsql", "start-scripts", "spi", "intagg", "pg_stat_statements", "auto_explain"}


def compiled(source: pathlib.Path, output: pathlib.Path, *flags: str) -> pathlib.Path:
    """A program or library of the suite, built once."""
    if not output.exists():
        server = subprocess.run([str(BIN / "pg_config"), "--includedir-server"], capture_output=True, text=True, check=True)
        include = subprocess.run([str(BIN / "pg_config"), "--includedir"], capture_output=True, text=True, check=True)
        subprocess.run(["gcc", "-O1", "-w", f"-I{include.stdout.strip()}", f"-I{server.stdout.strip()}",
                        f"-I{include.stdout.strip()}/postgresql/internal", "-o", str(output), str(source), *flags],
                       check=True)
    return output


def regress(side: Side, program: pathlib.Path, source: pathlib.Path, out: pathlib.Path, dbname: str,
            *arguments: str, programs: pathlib.Path = BIN) -> dict[str, str]:
    """Runs pg_regress or pg_isolation_regress; what each test printed.

    The server writes into the output folder too, under another user.
    """
    for folder in (out, out / "results", out / "testtablespace"):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
    done = subprocess.run(
        [str(program), "--use-existing", f"--dbname={dbname}", f"--host={HOST}", f"--port={side.port}",
         f"--user={SUPERUSER}", f"--bindir={programs}", f"--inputdir={source}", f"--outputdir={out}", *arguments],
        cwd=out, env=side.environment(LC_ALL="C", NO_LOCALE="1"), stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SUITE_SECONDS_MAX)
    (out / "summary").write_text(done.stdout)
    results = {path.stem: path.read_text(errors="replace") for path in sorted((out / "results").glob("*.out"))}
    verdicts = re.findall(r"^(?:test|    )? *(\S+) +\.\.\. +(ok|FAILED)", done.stdout, re.M)
    # As of 16.
    verdicts += [(name, "FAILED" if failed else "ok")
                 for failed, name in re.findall(r"^(not )?ok +\d+ +[-+] (\S+)", done.stdout, re.M)]
    return {**results, **{f"verdict of {name}": verdict for name, verdict in verdicts}}


def run_regress(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    folder = source / "src/test/regress"
    compiled(folder / "regress.c", folder / "regress.so", "-fPIC", "-shared")
    return regress(side, PGXS / "regress/pg_regress", folder, out, "regression", f"--dlpath={folder}",
                   "--max-concurrent-tests=20", "--max-connections=8", *(only or [f"--schedule={folder}/parallel_schedule"]))


def run_plpgsql(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    folder = source / "src/pl/plpgsql/src"
    return regress(side, PGXS / "regress/pg_regress", folder, out, "plpgsql", *tests_of(folder))


def run_isolation(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    folder = source / "src/test/isolation"
    return regress(side, PGXS / "isolation/pg_isolation_regress", folder, out, "isolation",
                   *(only or [f"--schedule={folder}/isolation_schedule"]))


def tests_of(folder: pathlib.Path, kind: str = "REGRESS") -> list[str]:
    """The tests that a Makefile names."""
    text = (folder / "Makefile").read_text().replace("\\\n", " ")
    return [name for line in re.findall(rf"^{kind}\s*\+?=(.*)$", text, re.M) for name in line.split()]


def contribs(source: pathlib.Path) -> list[str]:
    return [folder.name for folder in sorted((source / "contrib").iterdir())
            if folder.name not in CONTRIB_LEFT_OUT and (folder / "sql").is_dir() and tests_of(folder)]


def run_contrib(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    results = {}
    for name in contribs(source):
        found = regress(side, PGXS / "regress/pg_regress", source / "contrib" / name, out / name,
                        f"contrib_{name}", *tests_of(source / "contrib" / name))
        results |= {f"{name}/{test}": placeless(text, side) for test, text in found.items()}
    return results


def placeless(text: str, side: Side) -> str:
    """Without the server's port, and positions in its log of writes."""
    return re.sub(r"\b\d+/[0-9A-F]{6,8}\b", "LSN", text.replace(str(side.cluster.port), "PORT"))


def run_pipeline(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    """The libpq pipeline tests, with the trace of every message."""
    folder = source / "src/test/modules/libpq_pipeline"
    libdir = library_of(BIN)
    program = compiled(folder / "libpq_pipeline.c", folder / "libpq_pipeline", "-lpq", f"-L{libdir}", "-lpgcommon",
                       "-lpgport")
    tests = subprocess.run([str(program), "tests"], capture_output=True, text=True, check=True).stdout.split()
    results = {}
    for name in tests:
        trace = out / f"{name}.trace"
        done = subprocess.run([str(program), "-r", "700", "-t", str(trace), name, "dbname=pipeline"], cwd=out,
                              env=side.environment(), capture_output=True, text=True, timeout=5 * MINUTES)
        said = f"{done.returncode}\n{done.stdout}{done.stderr}"
        results[name] = said + (trace.read_text(errors="replace") if trace.exists() else "")
    return results


# The programs that come with the server, one after another on one database.
PROGRAMS = {
    "pgbench -i": ["pgbench", "-i", "-q", "-s", "2", "--foreign-keys", "--partitions=3"],
    "pgbench simple": ["pgbench", "-n", "--random-seed=1", "-M", "simple", "-c", "4", "-j", "2", "-t", "50"],
    "pgbench extended": ["pgbench", "-n", "--random-seed=1", "-M", "extended", "-c", "4", "-j", "2", "-t", "50"],
    "pgbench prepared": ["pgbench", "-n", "--random-seed=1", "-M", "prepared", "-c", "4", "-j", "2", "-t", "50"],
    "pgbench connect": ["pgbench", "-n", "--random-seed=1", "-C", "-S", "-c", "4", "-j", "2", "-t", "20"],
    "pgbench pipeline": ["pgbench", "-n", "--random-seed=1", "-M", "extended", "-c", "4", "-t", "20", "-f", "{out}/pipeline.sql"],
    "pgbench pipeline prepared": ["pgbench", "-n", "--random-seed=1", "-M", "prepared", "-c", "4", "-t", "20", "-f",
                                  "{out}/pipeline.sql"],
    "createuser": ["createuser", "--createdb", "--role=pg_read_all_data", "made_by_program"],
    "createdb": ["createdb", "--owner=made_by_program", "made_db"],
    "vacuumdb": ["vacuumdb", "--analyze", "--jobs=3", "tools"],
    "reindexdb": ["reindexdb", "--jobs=2", "tools"],
    "clusterdb": ["clusterdb", "tools"],
    "pg_dump plain": ["pg_dump", "--inserts", "--column-inserts", "-t", "pgbench_branches", "tools"],
    "pg_dump schema": ["pg_dump", "-s", "tools"],
    "pg_dump directory": ["pg_dump", "-Fd", "-j", "3", "-f", "{out}/dump.d", "tools"],
    "pg_dump custom": ["pg_dump", "-Fc", "-f", "{out}/dump.c", "tools"],
    "pg_restore directory": ["pg_restore", "-j", "3", "-d", "restored", "{out}/dump.d"],
    "pg_restore clean": ["pg_restore", "--clean", "--if-exists", "--single-transaction", "-d", "restored",
                         "{out}/dump.c"],
    "pg_dump restored": ["pg_dump", "-s", "restored"],
    "pg_dumpall globals": ["pg_dumpall", "--globals-only", "--no-role-passwords"],
    "pg_isready": ["pg_isready"],
    "psql single transaction": ["psql", "-X", "-1", "-d", "tools", "-c", "create table one (a int)", "-c",
                                "insert into one values (1); select * from one; select 1/0", "-c", "select 2"],
    "psql copy": ["psql", "-X", "-d", "tools", "-c", "\\copy (select * from pgbench_tellers order by 1) to stdout"],
    "psql script": ["psql", "-X", "-a", "-d", "tools", "-f", "{out}/script.sql"],
    "dropdb": ["dropdb", "made_db"],
    "dropuser": ["dropuser", "made_by_program"],
}

PIPELINE = """\\startpipeline
begin;
select count(*) from pgbench_branches;
update pgbench_tellers set tbalance = tbalance + 1 where tid = :client_id + 1;
insert into pgbench_history (tid, bid, aid, delta, mtime) values (1, 1, 1, 1, current_timestamp);
end;
select 1;
\\endpipeline
"""

# Strings of several statements, COPY in the middle of them, cursors, savepoints, large objects.
SCRIPT = r"""
create table t (a int primary key, b text);
select 1\; select 2\; select 3;
insert into t values (1, 'a;b')\; copy t from stdin\; select count(*) from t;
2	two
3	three
\.
copy t to stdout\; select 'between'\; copy (select a from t order by a) to stdout;
select 1\; select 1/0\; select 3;
select 1\; selec 2\; select 3;
begin\; insert into t values (4, 'x')\; rollback\; select count(*) from t;
begin; savepoint a; select 1/0; rollback to a; insert into t values (5, 'y'); release a; commit;
begin\; declare c cursor with hold for select * from t order by a\; fetch 2 from c\; commit;
fetch all from c; close c;
begin; prepare p (int) as select * from t where a = $1; execute p (1); deallocate p; end;
begin; insert into t values (6, 'z'); prepare transaction 'two'; rollback prepared 'two';
\lo_import /etc/hostname
\set oid :LASTOID
\lo_export :oid /dev/null
\lo_unlink :oid
listen channel; notify channel, 'payload'; unlisten *;
set standard_conforming_strings = off; select 'a\'; select 2 -- '; reset all;
do $$ begin for i in 1..500 loop raise notice 'n %', i; end loop; end $$;
set search_path = pg_catalog; select count(*) > 0 from pg_class; reset search_path;
select * from t where a = 1 \gdesc
select 'select 1' as a, 'select 2/0' as b, 'select 3' as c \gexec
\set FETCH_COUNT 2
select * from t order by a;
;
/* only a comment */;
"""


def run_programs(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    (out / "pipeline.sql").write_text(PIPELINE)
    (out / "script.sql").write_text(SCRIPT)
    results = {}
    for name, command in PROGRAMS.items():
        done = subprocess.run([word.format(out=out) for word in command], cwd=out,
                              env=side.environment(PGDATABASE="tools"), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=5 * MINUTES)
        results[name] = f"{done.returncode}\n{steady(done.stdout)}{steady(done.stderr)}"
    return results


def steady(text: str) -> str:
    """Without what differs from run to run: times, ports, folders."""
    text = re.sub(r"(?m)^(latency|initial connection time|tps|average connection time|done in).*$", r"\1", text)
    text = re.sub(r'port (=|\d+)[^\n]*|127\.0\.0\.1:\d+', "PORT", text)
    text = re.sub(r"process with PID \d+", "process with PID", text)
    return re.sub(r"\\(un)?restrict \w+|lo_import \d+|lo_unlink \d+", "", text)


def show(name: str, direct: str, through: str) -> str:
    return "".join(difflib.unified_diff(direct.splitlines(True), through.splitlines(True), f"{name} direct",
                                        f"{name} through", n=2))


def fetch_newest(folder: pathlib.Path, package: str) -> None:
    """The newest minor version that the mirror still has the source of."""
    known = subprocess.run(["apt-cache", "showsrc", package], capture_output=True, text=True, check=True).stdout
    versions = re.findall(r"^Version: (\S+)", known, re.MULTILINE)
    for version in sorted(versions, reverse=True):
        command = ["apt-get", "source", "--download-only", "--tar-only", "-qq", f"{package}={version}"]
        if subprocess.run(command, cwd=folder).returncode == 0:
            return
    raise RuntimeError(f"no source of {package} can be fetched; tried {', '.join(versions)}")


def fetch(folder: pathlib.Path, major: int = 15) -> pathlib.Path:
    """PostgreSQL's source: 15 is in Debian 12, what is newer in Debian's newest."""
    return from_debian(folder, f"postgresql-{major}", f"postgresql-{major}*/src/test/regress", newest=major > 15).parents[2]


def from_debian(folder: pathlib.Path, package: str, mark: str, newest: bool = False) -> pathlib.Path:
    """Unpacks a source package, by apt; what is found in it."""
    found = sorted(folder.glob(mark))
    if not found:
        given = pathlib.Path("/etc/apt/sources.list.d/debian.sources").read_text()
        asked = given.replace("Types: deb", "Types: deb-src")
        if newest:
            asked = re.sub(r"(?s)\n\n.*", "\n", re.sub(r"Suites: .*", "Suites: trixie sid", asked))
        path = pathlib.Path(f"/etc/apt/sources.list.d/conformance{'-newest' if newest else ''}.sources")
        if not path.exists() or path.read_text() != asked:
            path.write_text(asked)
            subprocess.run(["apt-get", "update", "-qq"], check=True)
        fetch_newest(folder, package)
        subprocess.run(["tar", "xf", next(folder.glob(f"{package}_*.orig.tar.*"))], cwd=folder, check=True)
        found = sorted(folder.glob(mark))
    return found[0]


def fetch_18(folder: pathlib.Path) -> pathlib.Path:
    """PostgreSQL 18, built beside its source."""
    source = fetch(folder, 18)
    if not (programs_18(source) / "initdb").exists():
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "flex", "bison"], check=True)
        build = source / "build"
        build.mkdir(exist_ok=True)
        subprocess.run(["../configure", "-q", f"--prefix={programs_18(source).parent}", "--without-icu", "--without-readline",
                        "--without-zlib", "CFLAGS=-O1 -w"], cwd=build, check=True)
        subprocess.run(["make", "-s", "-j2", "install-world-bin"], cwd=build, check=True)
        shutil.copy(build / "src/test/regress/regress.so", library_of(programs_18(source)))
    return source


def programs_18(source: pathlib.Path) -> pathlib.Path:
    return source / "installed/bin"


def library_of(programs: pathlib.Path) -> pathlib.Path:
    said = subprocess.run([str(programs / "pg_config"), "--pkglibdir"], capture_output=True, text=True, check=True)
    return pathlib.Path(said.stdout.strip())


def run_regress_18(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    folder = source / "src/test/regress"
    library = library_of(programs_18(source))
    return regress(side, library / "pgxs/src/test/regress/pg_regress", folder, out, "regression", f"--dlpath={library}",
                   "--max-concurrent-tests=20", "--max-connections=8", *(only or [f"--schedule={folder}/parallel_schedule"]),
                   programs=programs_18(source))
