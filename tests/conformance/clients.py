"""What Python's clients, ORMs and schema readers ask of a catalog. `clients.py NAME` runs one; PGHOST and the like say where, with
objects.sql in the database. Prints what was found."""

import os
import sys

USER, HOST, PORT, DBNAME = (os.environ[name] for name in ("PGUSER", "PGHOST", "PGPORT", "PGDATABASE"))
PASSWORD = os.environ["PGPASSWORD"]
URL = f"postgresql+psycopg://{USER}:{PASSWORD}@{HOST}:{PORT}/{DBNAME}"
SPECIAL = "d l du dp ddp db dn dx dt dv dm ds di df dT dD dF sf dE".split()
PATTERNS = ["", "*", "shop.*", "customers", "shop.customers", '"Odd Schema"."Odd Table"', "events*", "total"]


def pgcli() -> None:
    from pgcli.pgexecute import PGExecute
    from pgcli.completion_refresher import CompletionRefresher
    from pgspecial.main import PGSpecial
    from pgcli.pgcompleter import PGCompleter
    execute = PGExecute(DBNAME, USER, PASSWORD, HOST, PORT, "")
    completer = PGCompleter(smart_completion=True, pgspecial=PGSpecial())
    for name, refresh in CompletionRefresher.refreshers.items():
        refresh(completer, execute)
        print(name)
    for name in ("schemata", "tables", "views", "table_columns", "view_columns", "databases", "foreignkeys", "functions", "datatypes", "casing",
                 "full_databases", "search_path"):
        answer = getattr(execute, name)()
        print(name, len(list(answer)))
    print(execute.view_definition("shop.names"), execute.function_definition("shop.total"))
    for command in (f"\\{name}{more} {pattern}" for name in SPECIAL for more in ("", "+") for pattern in PATTERNS):
        try:
            for title, rows, headers, status in PGSpecial().execute(execute.conn.cursor(), command):
                print(command, len(list(rows or [])))
        except Exception as error:
            print(command, type(error).__name__)


def pg_activity() -> None:
    import glob
    import psycopg
    import pgactivity
    from psycopg import sql
    connection = psycopg.connect(autocommit=True)
    given = {"min_duration": 1, "pid": 1, "dbname_filter": "o", "skip_db_size": False, "prev_total_size": 1, "using_rds": False}
    for path in sorted(glob.glob(os.path.dirname(pgactivity.__file__) + "/queries/*.sql")):
        for least in (0, 1):
            query = sql.SQL(open(path).read()).format(dbname_filter=sql.Literal("o" if least else None), min_duration=sql.Literal(least),
                                                      duration_column=sql.Identifier("query_start"))
            try:
                print(os.path.basename(path), connection.execute(query, given).statusmessage)
            except psycopg.Error as error:
                print(os.path.basename(path), type(error).__name__)


def sqlalchemy() -> None:
    import sqlalchemy
    engine = sqlalchemy.create_engine(URL)
    inspector = sqlalchemy.inspect(engine)
    kinds = sqlalchemy.engine.reflection.ObjectKind.ANY
    scopes = sqlalchemy.engine.reflection.ObjectScope.ANY
    for schema in (None, "shop", "Odd Schema", "information_schema", "pg_catalog"):
        for name in ("columns", "pk_constraint", "foreign_keys", "indexes", "unique_constraints", "check_constraints", "table_comment", "table_options"):
            try:
                print(schema, name, len(getattr(inspector, "get_multi_" + name)(schema=schema, kind=kinds, scope=scopes)))
            except Exception as error:
                print(schema, name, type(error).__name__)
        for name in ("get_table_names", "get_view_names", "get_materialized_view_names", "get_temp_table_names", "get_foreign_table_names", "get_sequence_names",
                     "get_enums", "get_domains"):
            print(schema, name, len(getattr(inspector, name)(**({} if "temp" in name else {"schema": schema}))))
        metadata = sqlalchemy.MetaData(schema=schema)
        if schema not in ("pg_catalog", "information_schema"):
            metadata.reflect(engine, views=True)
    with engine.begin() as connection:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True, "include_schemas": True})
        print(len(compare_metadata(context, metadata)))


def sqlacodegen() -> None:
    import sqlacodegen.cli
    for generator in ("declarative", "tables", "dataclasses"):
        sys.argv = ["sqlacodegen", "--generator", generator, "--schemas", "shop,public", "--outfile", "generated.py", URL]
        sqlacodegen.cli.main()


def schemainspect() -> None:
    import sqlalchemy
    import schemainspect
    engine = sqlalchemy.create_engine(URL.replace("+psycopg", "+psycopg2"))
    with engine.connect() as connection:
        inspected = schemainspect.get_inspector(connection)
        print(len(inspected.relations), len(inspected.selectables))


def django() -> None:
    import io
    import django
    from django.conf import settings
    settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": DBNAME, "HOST": HOST,
        "PORT": PORT, "USER": USER, "PASSWORD": PASSWORD,
        "OPTIONS": {"options": "-c search_path=shop,public"}}}, INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"])
    django.setup()
    from django.core.management import call_command
    out = io.StringIO()
    call_command("inspectdb", "--include-views", "--include-partitions", stdout=out)
    print(len(out.getvalue()) > 0)
    call_command("migrate", verbosity=0)
    call_command("sqlsequencereset", "auth", stdout=out)
    call_command("flush", "--noinput", verbosity=0)


def peewee() -> None:
    import peewee
    from playhouse.reflection import Introspector
    from playhouse.postgres_ext import PostgresqlExtDatabase
    database = peewee.PostgresqlDatabase(DBNAME, user=USER, password=PASSWORD, host=HOST, port=PORT)
    for schema in ("shop", "public", "Odd Schema"):
        print(len(Introspector.from_database(database, schema=schema).introspect().columns))
        print(database.get_tables(schema), database.get_views(schema))


CLIENTS = {each.__name__: each for each in (pgcli, pg_activity, sqlalchemy, sqlacodegen, schemainspect, django, peewee)}

if __name__ == "__main__":
    if sys.argv[1] == "--list":
        print("\n".join(CLIENTS))
    else:
        CLIENTS[sys.argv[1]]()
