"""What there is to run."""

import os
import pathlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import browsers
import drivers
import orms
import postgres
from support.cluster import find_programs

PROGRAMS = find_programs()


@dataclass
class Suite:
    """`fetch` gives its source below a folder, `run` the results by test."""

    fetch: Callable[[pathlib.Path], pathlib.Path]
    run: Callable
    names: list[str] | Callable[[pathlib.Path], list[str]] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    settings: str = ""
    # The folder of the server's programs, if it needs others than those that are installed.
    programs: Callable[[pathlib.Path], pathlib.Path] | None = None
    # Databases that it makes itself.
    made: list[str] = field(default_factory=list)
    # Tests that must differ, by a pattern of their names, and why.
    reasons: dict[str, str] = field(default_factory=dict)
    show: Callable[[str, str, str], str] = postgres.show

    def reason(self, test: str, through: str) -> str | None:
        """Why a test differs, if that is as it should be."""
        if "to log in, open http" in through:
            return "it logs in anew, which a person approves"
        return next((reason for pattern, reason in self.reasons.items() if re.fullmatch(pattern, test)), None)

    def use_programs(self, source: pathlib.Path) -> None:
        """Servers that start from now on are of the version that the suite needs."""
        os.environ["PGWITNESS_PG_BIN"] = str(self.programs(source) if self.programs else PROGRAMS)

    def databases(self, source: pathlib.Path) -> list[str]:
        return self.names(source) if callable(self.names) else self.names


SUITES = {
    "regress": Suite(postgres.fetch, postgres.run_regress, ["regression"]),
    "regress-18": Suite(postgres.fetch_18, postgres.run_regress_18, ["regression"], programs=postgres.programs_18),
    "plpgsql": Suite(postgres.fetch, postgres.run_plpgsql, ["plpgsql"]),
    "isolation": Suite(postgres.fetch, postgres.run_isolation, ["isolation"]),
    "contrib": Suite(postgres.fetch, postgres.run_contrib,
                     lambda source: [f"contrib_{name}" for name in postgres.contribs(source)],
                     # Foreign data wrappers connect to their own server where libpq looks for it.
                     settings="unix_socket_directories = '{socket}, /var/run/postgresql'"),
    "libpq_pipeline": Suite(postgres.fetch, postgres.run_pipeline, ["pipeline"]),
    "programs": Suite(postgres.fetch, postgres.run_programs, ["tools", "restored"]),
    "psycopg2": Suite(drivers.from_pypi("psycopg2", "2.9.13"), drivers.pytest("tests")),
    "asyncpg": Suite(drivers.from_pypi("asyncpg", "0.32.0"), drivers.pytest("tests"),
                     made=["testdb", "asyncpg_intro_test"],
                     reasons={r".*_failure_during_writes": "how much was sent when the error comes is chance"}),
    "pg8000": Suite(drivers.from_pypi("pg8000", "1.31.6"), drivers.pytest("test/native", "test/dbapi", "test/legacy"),
                    reasons={
                        r".*test_broken_pipe_read": "a reset may overtake a server's last words, not the gateway's",
                        r".*(test_gss|md5|[pP]assword(_bytes)?|[dD]atabase_?[nN]ame\w*)":
                            "which roles, passwords and databases there are, the gateway does not tell",
                    }),
    "tokio-postgres": Suite(drivers.fetch_tokio_postgres, drivers.run_tokio_postgres),
    "pq": Suite(drivers.from_debian("github.com/lib/pq", "golang-github-lib-pq-dev"),
                drivers.go_tests("pqgotest", "github.com/lib/pq"), ["pqgotest"]),
    "pgx": Suite(drivers.from_debian("github.com/jackc/pgx/v4", "golang-github-jackc-pgx-v4-dev",
                                     "golang-github-jackc-pgmock-dev", "golang-github-masterminds-semver-dev"),
                 drivers.go_tests("pgx_test", *(f"github.com/jackc/{name}" for name in (
                     "pgconn", "pgx/v4", "pgx/v4/pgxpool", "pgx/v4/stdlib")),
                     setup="create extension hstore; create domain uint64 as numeric(20,0)"), ["pgx_test"]),
    "dbd-pg": Suite(drivers.fetch_dbd_pg, drivers.run_dbd_pg, ["dbd_pg"]),
    "sqlalchemy": Suite(orms.from_pypi("sqlalchemy", "2.1.9", orms.SQLALCHEMY_NEEDS), orms.run_sqlalchemy, ["sqlalchemy"]),
    "django": Suite(orms.from_pypi("django", "5.2.9", orms.DJANGO_NEEDS), orms.run_django,
                    made=["django_main", "django_other"]),
    "sessions": Suite(browsers.fetch_nothing, browsers.run_sessions, ["objects"]),
    "sessions-18": Suite(postgres.fetch_18, browsers.run_sessions, ["objects"], programs=postgres.programs_18),
    "jdbc": Suite(browsers.fetch_jdbc, browsers.run_jdbc, ["objects"]),
    "psql": Suite(browsers.fetch_nothing, browsers.run_psql, ["objects"]),
    "pgadmin": Suite(browsers.fetch_pgadmin, browsers.run_pgadmin, ["objects"]),
    "python-clients": Suite(browsers.fetch_clients, browsers.run_clients, ["objects"]),
    "node-clients": Suite(browsers.fetch_node_clients, browsers.run_node_clients, ["objects"]),
}
