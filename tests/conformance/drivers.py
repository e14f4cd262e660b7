"""Suites of drivers, as their authors publish them: PyPI's source archives, crates.io, Debian's packages of Go."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree

import postgres
from sides import SECRET, Side
from support.processes import HOST

SUITE_SECONDS_MAX = 1800
TEST_SECONDS_MAX = 300
NEEDED = ["pytest", "pytest-timeout", "pytest-mock", "pytest-asyncio", "pytz", "distro"]


PIP = [sys.executable, "-m", "pip", "--quiet"]


def source_of(name: str, version: str, folder: pathlib.Path) -> pathlib.Path:
    """A package's source archive, unpacked."""
    found = folder / f"{name}-{version}"
    if not found.exists():
        subprocess.run([*PIP, "download", "--no-deps", "--no-binary", name, f"{name}=={version}"], cwd=folder, check=True)
        with tarfile.open(folder / f"{name}-{version}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return found


def from_pypi(name: str, version: str):
    """Gives a function that fetches a package's source, and installs it beside what its tests need."""

    def fetch(folder: pathlib.Path) -> pathlib.Path:
        found = source_of(name, version, folder)
        if subprocess.run([sys.executable, "-c", f"import pytest_timeout, {name}"], capture_output=True).returncode:
            subprocess.run([*PIP, "install", *NEEDED, str(found)], check=True)
        return found

    return fetch


def pytest(*tests: str):
    """Gives a function that runs a package's tests by pytest."""

    def run(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
        # A copy without the package itself: the installed one is built.
        for name in {test.partition("/")[0] for test in tests}:
            shutil.copytree(source / name, out / name)
        report = out / "report.xml"
        environment = side.environment(
            PGDATABASE="postgres", PSYCOPG2_TESTDB="postgres", PSYCOPG2_TESTDB_HOST=HOST, LC_ALL="C.UTF-8",
            PSYCOPG2_TESTDB_PORT=str(side.port), PSYCOPG2_TESTDB_USER="postgres", PSYCOPG2_TESTDB_PASSWORD=SECRET)
        with open(out / "output", "w") as output:
            subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
                            f"--timeout={TEST_SECONDS_MAX}", "-o", "addopts=", *tests], cwd=out, env=environment,
                           stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=SUITE_SECONDS_MAX)
        return dict(map(verdict, xml.etree.ElementTree.parse(report).iter("testcase")))

    return run


def verdict(case) -> tuple[str, str]:
    """A test's name, and how it ended: in one word, and for failures their first line."""
    name = f"{case.get('classname')}.{case.get('name')}"
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            message = "" if kind == "skipped" else re.sub(r"0x[0-9a-f]+|\d{4,}", "N", found.get("message") or "")
            return name, f"{kind} {message.splitlines()[0] if message else ''}\n"
    return name, "passed\n"


def fetch_tokio_postgres(folder: pathlib.Path) -> pathlib.Path:
    """The crate's source from cargo's registry, its tests told where the server is."""
    found = folder / "tokio-postgres"
    if not found.exists():
        home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
        crates = sorted(home.glob("registry/src/*/tokio-postgres-*"))
        if not crates:
            raise RuntimeError("cargo has not fetched tokio-postgres. Run `cargo fetch`")
        shutil.copytree(crates[-1], found, ignore=shutil.ignore_patterns(".cargo-ok", "Cargo.lock"))
        with open(found / "Cargo.toml", "a") as manifest:
            manifest.write("\n[workspace]\n")
        main = found / "tests/test/main.rs"
        text = main.read_text()
        text = text.replace('"127.0.0.1:5433"', 'format!("127.0.0.1:{}", std::env::var("PGPORT").unwrap())')
        text = text.replace("s.parse::<Config>().unwrap();",
                            's.replace("user=postgres", concat!("user=postgres password=", "' + SECRET
                            + '")).parse::<Config>().unwrap();')
        # These need a server with fixed ports, sockets and passwords.
        text = text.replace('#[cfg(feature = "runtime")]\nmod runtime;', "")
        main.write_text(text)
    return found


def run_tokio_postgres(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    target = {"CARGO_TARGET_DIR": str(source / "target")}
    side.cluster.psql("create extension if not exists hstore; create extension if not exists ltree; "
                      "create extension if not exists citext")
    done = subprocess.run(["cargo", "test", "-j2", "--test", "test", "--", "--test-threads=4", "--skip", "password"],
                          cwd=source, env={**side.environment(), **target}, capture_output=True, text=True,
                          timeout=SUITE_SECONDS_MAX)
    (out / "output").write_text(done.stdout + done.stderr)
    return {name: f"{how}\n" for name, how in re.findall(r"^test (\S+) \.\.\. (\w+)$", done.stdout, re.M)}


GO = pathlib.Path("/usr/share/gocode")


def from_debian(path: str, *packages: str):
    """Gives a function that installs a Go library's source, which has its tests beside it"""

    def fetch(folder: pathlib.Path) -> pathlib.Path:
        found = GO / "src" / path
        if not found.exists() or not shutil.which("go"):
            subprocess.run(["apt-get", "install", "-y", "-qq", "golang-go", *packages], check=True)
        return found

    return fetch


def go_tests(dbname: str, *paths: str, setup: str = ""):
    """Gives a function that runs the tests of Go packages, one package after another."""

    def run(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
        if setup:
            side.cluster.psql(setup, dbname=dbname)
        dsn = f"host={HOST} port={side.port} user=postgres password={SECRET} dbname={dbname} sslmode=disable"
        names = ["PGX_TEST_DATABASE", "PGX_TEST_CONN_STRING", "PGX_TEST_TCP_CONN_STRING"]
        environment = side.environment(PGDATABASE=dbname, PGSSLMODE="disable", GO111MODULE="off", GOPATH=str(GO),
                                       GOFLAGS="-vet=off", **dict.fromkeys(names, dsn))
        results = {}
        for path in paths:
            done = subprocess.run(["go", "test", "-v", "-count=1", "-p=1", f"-timeout={SUITE_SECONDS_MAX}s", path],
                                  env=environment, capture_output=True, text=True, timeout=SUITE_SECONDS_MAX)
            (out / path.replace("/", "_")).write_text(done.stdout + done.stderr)
            verdicts = re.findall(r"^ *--- (\w+): (\S+)", done.stdout, re.M)
            results |= {f"{path}.{name}": f"{how}\n" for how, name in verdicts} or {path: done.stderr}
        return results

    return run


def fetch_dbd_pg(folder: pathlib.Path) -> pathlib.Path:
    """Perl's driver, built."""
    found = postgres.from_debian(folder, "libdbd-pg-perl", "DBD-Pg-*/Makefile.PL", newest=True).parent
    if not (found / "blib").exists():
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "libdbi-perl", "libpq-dev", "make", "gcc"],
                       check=True)
        subprocess.run(["perl", "Makefile.PL"], cwd=found, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["make", "-s"], cwd=found, check=True, stdout=subprocess.DEVNULL)
    return found


def run_dbd_pg(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    shutil.copytree(source, out / "source")
    environment = side.environment(DBI_DSN=f"dbi:Pg:dbname=dbd_pg;host={HOST};port={side.port}", DBI_USER="postgres",
                                   DBI_PASS=SECRET, DBDPG_TEST_ALWAYS_ENV="1", LC_ALL="C.UTF-8")
    done = subprocess.run(["prove", "-b", "-v", "t"], cwd=out / "source", env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=SUITE_SECONDS_MAX)
    (out / "output").write_text(done.stdout + done.stderr)
    results = {}
    for part in re.split(r"(?m)^(?=t/\S+ \.+)", done.stdout):
        name = part.partition(" ")[0]
        results |= {f"{name} {number} {what}": f"{how}\n" for how, number, what in re.findall(
            r"(?m)^((?:not )?ok) (\d+)(?: - )?(.*)$", part)}
    return results
