"""What there is to run."""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field

import drivers
import postgres


@dataclass
class Suite:
    """`fetch` gives its source below a folder, `run` the results by test."""

    fetch: Callable[[pathlib.Path], pathlib.Path]
    run: Callable
    names: list[str] | Callable[[pathlib.Path], list[str]] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    settings: str = ""
    show: Callable[[str, str, str], str] = postgres.show

    def databases(self, source: pathlib.Path) -> list[str]:
        return self.names(source) if callable(self.names) else self.names


SUITES = {
    "regress": Suite(postgres.fetch, postgres.run_regress, ["regression"]),
    "plpgsql": Suite(postgres.fetch, postgres.run_plpgsql, ["plpgsql"]),
    "isolation": Suite(postgres.fetch, postgres.run_isolation, ["isolation"]),
    "contrib": Suite(postgres.fetch, postgres.run_contrib,
                     lambda source: [f"contrib_{name}" for name in postgres.contribs(source)]),
    "libpq_pipeline": Suite(postgres.fetch, postgres.run_pipeline, ["pipeline"]),
    "programs": Suite(postgres.fetch, postgres.run_programs, ["tools", "restored"]),
    "psycopg2": Suite(drivers.from_pypi("psycopg2", "2.9.13"), drivers.pytest("tests")),
    "asyncpg": Suite(drivers.from_pypi("asyncpg", "0.32.0"), drivers.pytest("tests")),
    "pg8000": Suite(drivers.from_pypi("pg8000", "1.31.6"), drivers.pytest("test/native", "test/dbapi", "test/legacy")),
    "tokio-postgres": Suite(drivers.fetch_tokio_postgres, drivers.run_tokio_postgres),
}
