"""What looks at catalogs: JDBC's metadata, psql's commands, pgcli, pgAdmin, and what reads a schema into a program."""

import os
import pathlib
import pty
import select
import subprocess
import sys

from drivers import PIP
from postgres import steady
from sides import SECRET, SUPERUSER, Side
from support.processes import HOST

HERE = pathlib.Path(__file__).resolve().parent
MINUTES = 60
SUITE_SECONDS_MAX = 40 * MINUTES
CLIENT_SECONDS_MAX = 5 * MINUTES
DBNAME = "objects"
PGADMIN = "9.18"
PYTHON_CLIENTS = ["pgcli==4.7.1", "pg_activity==3.6.2", "sqlacodegen==4.0.4", "alembic==1.20.1", "schemainspect", "peewee==4.5.3",
                  "psycopg2-binary", "django==5.2.9", "setuptools<81"]
NODE_CLIENTS = """
pg@8.23.1 pg-cursor@2.22.1 pg-query-stream@4.17.0 pg-introspection postgres@3.4.9 kysely@0.28.19 kysely-codegen@0.20.0 typescript@5
knex@3.3.0 knex-schema-inspector@3.1.0 objection@3.1.5 sequelize@6.37.8 sequelize-auto@0.8.8 typeorm@1.1.1 extract-pg-schema@5.8.2
@electric-sql/pglite drizzle-orm@0.45.4 drizzle-kit@0.31.11 @databases/pg@6.1.0 @databases/pg-schema-introspect@5.0.0
pg-structure@7.15.3 zapatos@6.6.1
""".split()
JAR = pathlib.Path("/usr/share/java/postgresql.jar")


def objects(side: Side) -> None:
    """Fills the database with objects of every kind, past the gateway."""
    subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(side.cluster.socket_dir), "-p", str(side.cluster.port),
                    "-U", SUPERUSER, "-d", DBNAME, "-f", str(HERE / "objects.sql")], capture_output=True, check=True)


def fetch_jdbc(folder: pathlib.Path) -> pathlib.Path:
    """Debian's driver, and the program compiled."""
    if not JAR.exists():
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "libpostgresql-jdbc-java",
                        "default-jdk-headless"], check=True)
    made = folder / "jdbc"
    subprocess.run(["javac", "-cp", str(JAR), "-d", str(made), str(HERE / "Jdbc.java")], check=True)
    return made


def run_jdbc(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    objects(side)
    done = subprocess.run(["java", "-cp", f"{JAR}:{source}", "Jdbc", f"jdbc:postgresql://{HOST}:{side.port}/{DBNAME}"], cwd=out,
                          env=side.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=SUITE_SECONDS_MAX)
    (out / "output").write_text(done.stdout)
    return {line.partition(": ")[0]: line for line in done.stdout.replace(f":{side.port}", ":PORT").splitlines()}


# psql's commands that ask the catalog, and what they are asked of. `S` and `+` are added to each.
COMMANDS = """
d da dA dAc dAf dAo dAp db dc dconfig dC dd dD ddp des det deu dew df dfa dfn dfp dft dfw dF dFd dFp dFt dg di dl dL dm dn
do dO dp dPi dPn dPt dP drds dRp dRs ds dt dT du dv dE dx dX dy l z
""".split()
PATTERNS = ["", "*", "shop.*", "customers", "shop.customers", "shop.cust?mers", '"Odd Schema"."Odd Table"',
            "*.orders|parts", "objects.shop.names",
            "events*", "total", "pg_class", "information_schema.tables", "shop.numbers", "shop.customers_tags", "btree",
            "integer", "no$body"]
SINGLE = r"""
\sf shop.total
\sf+ shop.restock(integer, integer)
\sv shop.names
\sv+ shop.counting
\lo_list
\encoding
\dfn shop.* integer
\do >>>> integer integer
\dAo btree integer
\crosstabview
\gdesc
\conninfo
\ddp shop
\dconfig *_timeout
\drds reader objects
\password_encryption
"""

# What typed.txt holds is typed, then two tabs ask what may follow.
TAB = b"\t\t"
NO_ERASE = b"n\x15"
ANSWER_SECONDS = 0.3


def fetch_nothing(folder: pathlib.Path) -> pathlib.Path:
    return folder


def run_psql(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    objects(side)
    asked = [f"\\{command}{more} {pattern}".strip() for command in COMMANDS for more in ("", "+", "S") for pattern in PATTERNS
             if more != "S" or pattern != "*"]
    asked += SINGLE.strip().splitlines()
    script = "".join(f"\\echo == {each[1:]}\n{each}\n" for each in asked)
    done = subprocess.run(["psql", "-X", "-d", DBNAME, "-f", "-"], input=script, cwd=out, env=side.environment(PAGER="cat"),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SUITE_SECONDS_MAX)
    (out / "output").write_text(done.stdout)
    complete(side, out)
    return {part.partition("\n")[0]: part.replace(str(side.port), "PORT") for part in done.stdout.split("== ")}


def complete(side: Side, out: pathlib.Path) -> None:
    """Types what it would to a person, with readline."""
    (out / "inputrc").write_text("set completion-query-items 0\nset page-completions off\nset bell-style none\n")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(out)
        os.execvpe("psql", ["psql", "-X", "-d", DBNAME], side.environment(INPUTRC=str(out / "inputrc"), TERM="dumb", PAGER="cat"))
    said = [told(terminal, 5)]
    for each in (HERE / "typed.txt").read_text().splitlines():
        os.write(terminal, each.encode() + TAB)
        said.append(told(terminal, ANSWER_SECONDS))
        os.write(terminal, NO_ERASE)
        said.append(told(terminal, ANSWER_SECONDS))
    os.write(terminal, b"\\q\n")
    said.append(told(terminal, 5))
    os.close(terminal)
    os.waitpid(process, 0)
    (out / "completions").write_bytes(b"".join(said))


def told(terminal: int, seconds: float) -> bytes:
    """What a terminal shows until it is silent."""
    parts = []
    while select.select([terminal], [], [], seconds)[0]:
        try:
            parts.append(os.read(terminal, 65536))
        except OSError:
            break
    return b"".join(parts)


def run_sessions(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    """Sessions with settings, temporary tables and changes of tables, by psql."""
    objects(side)
    results = {}
    for path in [HERE / "sessions.sql", *([HERE / "sessions_18.sql"] if int(side.cluster.psql("show server_version_num")) >= 180000 else [])]:
        done = subprocess.run(["psql", "-X", "-a", "-d", DBNAME, "-f", str(path)], cwd=out, env=side.environment(PAGER="cat"),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=10 * MINUTES)
        results[path.stem] = steady(done.stdout).replace(str(path), path.name)
        (out / f"{path.stem}.out").write_text(done.stdout)
    done = subprocess.run([sys.executable, str(HERE / "sessions.py")], cwd=out, env=side.environment(PGDATABASE=DBNAME),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10 * MINUTES)
    results["driver"] = done.stdout
    (out / "driver.out").write_text(done.stdout)
    return results


def fetch_pgadmin(folder: pathlib.Path) -> pathlib.Path:
    """The templates of its wheel."""
    if not list(folder.glob("pgadmin4-*.whl")):
        subprocess.run([*PIP, "download", "--no-deps", f"pgadmin4=={PGADMIN}"], cwd=folder, check=True)
    subprocess.run([*PIP, "install", "jinja2"], check=True)
    import pgadmin

    return pgadmin.templates(next(folder.glob("pgadmin4-*.whl")), folder)


def run_pgadmin(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    """Each text in a transaction of its own, that is rolled back."""
    import pgadmin
    import psycopg

    objects(side)
    results = {}
    ask = lambda query: int(side.cluster.psql(query, dbname=DBNAME) or 0)  # noqa: E731
    rendering = pgadmin.Rendering(source, ask)
    with psycopg.connect(f"host={HOST} port={side.port} dbname={DBNAME} user={SUPERUSER} password={SECRET} "
                         "application_name='pgAdmin 4 - DB:objects'") as connection:
        connection.execute("set statement_timeout = '20s'")
        connection.commit()
        for path in pgadmin.newest(source):
            for number, text in enumerate(rendering.texts(path)):
                name = f"{path.relative_to(source)} {number}"
                try:
                    results[name] = connection.execute(text.encode()).statusmessage or ""
                except psycopg.Error as error:
                    results[name] = str(error).partition("\n")[0]
                connection.rollback()
    (out / "output").write_text("".join(f"{name}: {said}\n" for name, said in results.items()))
    return results


def fetch_clients(folder: pathlib.Path) -> pathlib.Path:
    """Command line clients, and what makes programs of schemas, from PyPI."""
    subprocess.run([*PIP, "install", *PYTHON_CLIENTS], check=True)
    return folder


def run_clients(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    return each_client(side, out, [sys.executable, "-W", "ignore", str(HERE / "clients.py")])


def each_client(side: Side, out: pathlib.Path, program: list[str], **environment: str) -> dict[str, str]:
    """Runs each client that a program knows; what it said."""
    objects(side)
    given = side.environment(PGDATABASE=DBNAME, **environment)
    results = {}
    for name in subprocess.run([*program, "--list"], env=given, capture_output=True, text=True, check=True).stdout.split():
        with open(out / f"{name}.out", "w") as said:
            try:
                code = subprocess.run([*program, name], cwd=out, env=given, stdin=subprocess.DEVNULL, stdout=said,
                                      stderr=subprocess.STDOUT, timeout=CLIENT_SECONDS_MAX).returncode
            except subprocess.TimeoutExpired:
                code = "late"
        output = (out / f"{name}.out").read_text().replace(str(side.port), "PORT")
        results[name] = f"{code}\n{output}"
    return results


def fetch_node_clients(folder: pathlib.Path) -> pathlib.Path:
    """JavaScript's clients, from npm."""
    found = folder / "node-clients"
    found.mkdir(exist_ok=True)
    if not (found / "node_modules").exists():
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts",
                        "--legacy-peer-deps", *NODE_CLIENTS], cwd=found, check=True)
    return found


def run_node_clients(side: Side, source: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    modules = source / "node_modules"
    (out / "node_modules").symlink_to(modules)
    return each_client(side, out, ["node", str(HERE / "clients.mjs")], NODE_MODULES=str(modules), NODE_NO_WARNINGS="1")
