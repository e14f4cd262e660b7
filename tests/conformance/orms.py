"""Test suites of ORMs, from PyPI's source archives, against PostgreSQL."""

import pathlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree

from drivers import NEEDED, PIP, SUITE_SECONDS_MAX, TEST_SECONDS_MAX, source_of, verdict
from sides import SECRET, Side
from support.processes import HOST

# What the ORMs and their tests import.
SQLALCHEMY_NEEDS = [*NEEDED, "pytest-xdist"]
DJANGO_NEEDS = ["asgiref", "sqlparse", "tblib", "jinja2"]

# Of Django's own applications those that say much to the database.
DJANGO_TESTS = """
aggregation aggregation_regress annotations backends basic bulk_create custom_columns custom_pk dates datetimes
db_functions defer delete distinct_on_fields expressions expressions_case expressions_window extra_regress
filtered_relation foreign_object generic_relations get_or_create indexes inspectdb introspection lookup
many_to_many many_to_one migrations model_fields model_inheritance nested_foreign_keys null_queries or_lookups ordering
postgres_tests prefetch_related proxy_models queries raw_query reverse_lookup schema select_for_update
select_related transactions update update_only_fields
""".split()
SQLALCHEMY_TESTS = [
    "test/dialect/postgresql", "test/dialect/test_suite.py", "test/engine", "test/sql", "test/orm/inheritance",
    "test/orm/test_query.py", "test/orm/test_eager_relations.py", "test/orm/test_relationships.py",
    "test/orm/test_unitofwork.py", "test/orm/test_unitofworkv2.py", "test/orm/test_selectin_relations.py",
    "test/orm/dml", "test/ext",
]


def from_pypi(name: str, version: str, needs: list[str]):
    """Gives a function that fetches an ORM's source, and installs it with what its tests need."""

    def fetch(folder: pathlib.Path) -> pathlib.Path:
        found = source_of(name, version, folder)
        subprocess.run([*PIP, "install", *needs, f"{name}=={version}"], check=True)
        return found

    return fetch


def run_sqlalchemy(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    side.cluster.psql("create schema if not exists test_schema; create schema if not exists test_schema_2; "
                      "create extension if not exists hstore; create extension if not exists citext",
                      dbname="sqlalchemy")
    for name in ("lib", "test", "setup.cfg", "pyproject.toml"):
        copy = shutil.copytree if (source / name).is_dir() else shutil.copy
        copy(source / name, out / name)
    report = out / "report.xml"
    url = f"postgresql+psycopg://postgres:{SECRET}@{HOST}:{side.port}/sqlalchemy"
    with open(out / "output", "w") as output:
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
                        f"--timeout={TEST_SECONDS_MAX}", "-o", "addopts=", "--dburi", url, *SQLALCHEMY_TESTS], cwd=out,
                       env=side.environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                       timeout=2 * SUITE_SECONDS_MAX)
    return dict(map(verdict, xml.etree.ElementTree.parse(report).iter("testcase")))


DJANGO_SETTINGS = """
def database(name):
    return {{"ENGINE": "django.db.backends.postgresql", "HOST": "{host}", "PORT": {port}, "USER": "postgres",
            "PASSWORD": "{secret}", "NAME": "postgres", "TEST": {{"NAME": name}}}}

DATABASES = {{"default": database("django_main"), "other": database("django_other")}}
SECRET_KEY = "not secret"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
"""


def run_django(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    shutil.copytree(source / "tests", out / "tests")
    settings = DJANGO_SETTINGS.format(host=HOST, port=side.port, secret=SECRET)
    (out / "tests/conformance_settings.py").write_text(settings)
    known = [name for name in DJANGO_TESTS if (out / "tests" / name).is_dir()]
    done = subprocess.run([sys.executable, "runtests.py", "--settings=conformance_settings", "--parallel=1", "-v2",
                           "--noinput", *known], cwd=out / "tests", env=side.environment(), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=2 * SUITE_SECONDS_MAX)
    (out / "output").write_text(done.stdout + done.stderr)
    return {f"{place}.{name}": f"{how}\n" for name, place, how in re.findall(
        r"^(test\w*) \(([\w.]+)\)(?:\n.*)?? \.\.\. (ok|FAIL|ERROR|skipped|expected failure)", done.stderr, re.M)}
