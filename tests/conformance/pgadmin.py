"""pgAdmin's SQL templates, as its wheel carries them, rendered with what objects.sql made, and run.

Each template is rendered with everything known, and once more without each of its identifiers: templates look
whether they are there.
"""

import pathlib
import re
import zipfile

import jinja2
import jinja2.meta

VERSION_MAX = 15
WITHOUT_MAX = 12

# What templates call the oid of what they are about, and how it is found. `*` is of the template's own folder.
OIDS = {
    "did": "select oid from pg_database where datname = current_database()",
    "scid": "select 'shop'::regnamespace::oid",
    "tid": "select 'shop.customers'::regclass::oid",
    "vid": "select 'shop.names'::regclass::oid",
    "foid": "select 'shop.passwd'::regclass::oid",
    "seid": "select 'shop.numbers'::regclass::oid",
    "idx": "select 'shop.customers_lower'::regclass::oid",
    "ptid": "select 'shop.events_2025'::regclass::oid",
    "fnid": "select 'shop.total'::regproc::oid",
    "trid": "select oid from pg_trigger where tgname = 'touched'",
    "rid": "select oid from pg_rewrite where rulename = 'log_names'",
    "plid": "select oid from pg_policy where polname = 'own'",
    "cid": "select oid from pg_constraint where conname = 'named'",
    "coid": "select oid from pg_collation where collname = 'german'",
    "doid": "select 'shop.positive'::regtype::oid",
    "fid": "select oid from pg_foreign_data_wrapper where fdwname = 'file_fdw'",
    "fsid": "select oid from pg_foreign_server where srvname = 'elsewhere'",
    "umid": "select umid from pg_user_mappings limit 1",
    "pbid": "select oid from pg_publication where pubname = 'chosen'",
    "subid": "select oid from pg_subscription limit 1",
    "cfgid": "select oid from pg_ts_config where cfgname = 'searching'",
    "dcid": "select oid from pg_ts_dict where dictname = 'plain'",
    "pid": "select oid from pg_ts_parser where prsname = 'odd_parser'",
    "etid": "select oid from pg_event_trigger",
    "eid": "select oid from pg_extension where extname = 'hstore'",
    "lid": "select oid from pg_language where lanname = 'plpgsql'",
    "tsid": "select oid from pg_tablespace where spcname = 'pg_default'",
    "agid": "select 'shop.longest'::regproc::oid",
    "opid": "select oid from pg_operator where oprname = '>>>>' and oprcode <> 0",
    "relid": "select 'shop.orders'::regclass::oid",
}
OF_FOLDER = {
    "types": {"tid": "select 'shop.mood'::regtype::oid"},
    "catalog": {"scid": "select 'pg_catalog'::regnamespace::oid"},
    "roles": {"rid": "select 'reader'::regrole::oid"},
    "casts": {"cid": "select min(oid) from pg_cast"},
    "foreign_key": {"cid": "select oid from pg_constraint where conname = 'of_order'", "tid": "select 'shop.parts'::regclass::oid"},
    "index_constraint": {"cid": "select 'shop.customers_pkey'::regclass::oid"},
    "exclusion_constraint": {"cid": "select conindid from pg_constraint where contype = 'x'", "tid": "select 'shop.parts'::regclass::oid"},
    "columns": {"clid": "select 3"},
    "partitions": {"tid": "select 'shop.events'::regclass::oid"},
    "domain_constraints": {"coid": "select oid from pg_constraint where contypid = 'shop.positive'::regtype"},
}
# What else they ask for.
GIVEN = {
    "nspname": "shop", "schema": "shop", "schema_name": "shop", "table": "customers", "tbl": "customers", "table_name": "customers",
    "view_name": "names", "view_schema": "shop", "name": "customers", "relname": "customers", "rolname": "reader", "role": "reader",
    "clid": 2, "cols": ["id", "name"], "columns": ["id", "name"], "parent": "shop", "search_text": "cust", "obj_type": "all",
    "show_system_objects": True, "show_node_prefs": {}, "database": "objects", "server_id": 1, "session_id": 1, "type": "table",
    "datlastsysoid": 16383, "last_system_oid": 16383, "colname": "id", "attname": "name", "object_name": "customers", "seqname": "numbers",
    "in_schema": "shop", "nsp_name": "shop", "nspoid": 2200, "loc": 1, "indtype": "btree", "amname": "btree", "extname": "hstore",
    "row_id": 1, "limit": 100, "chart_names": ["session_stats", "tps_stats", "ti_stats", "to_stats", "bio_stats"], "hide_system": False,
    "server_type": "pg", "is_pgstattuple": False, "is_pgstatindex": False, "add_not_exists_clause": True, "cascade": True,
    "pub_name": "chosen", "pubname": "chosen", "server": "elsewhere", "fdw_name": "file_fdw", "tgname": "touched",
    "catalog_objects": True, "all_obj": True, "is_catalog": False, "like_relation": "shop.orders", "schemas": ["shop", "public"],
    "trigger_function": "touch", "data": {
        "name": "customers", "schema": "shop", "table": "customers", "relname": "customers", "nspname": "shop", "owner": "postgres",
        "is_sys_obj": False, "columns": [], "relowner": "postgres", "description": "said", "comment": "said", "id": 1, "oid": 1,
        "definition": "select id, name from shop.customers", "typname": "integer", "cltype": "integer", "basensp": "shop",
        "event": "update", "statements": "do nothing", "database": "objects", "limit": 100, "coll_inherits": "[]",
        "view": "names", "op": "VACUUM", "vacuum_full": True, "verbose": True, "primary_keys": {"id": "bigint"}, "priority": "0",
    },
}
QUIET = {"o_data": {}, "_": lambda text: text}


def templates(wheel: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    found = folder / "pgadmin-templates"
    if not found.exists():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(found, [name for name in archive.namelist() if "/templates/" in name and "/tests/" not in name])
    return found


def newest(folder: pathlib.Path) -> list[pathlib.Path]:
    """Of each template the one for the server's version."""
    best: dict[tuple, tuple[int, pathlib.Path]] = {}
    for path in sorted(folder.rglob("*.sql")):
        inner = str(path.relative_to(folder)).rpartition("/templates/")[2]
        if re.search(r"ppas|macros|pgd_|/v1/|pgagent|dbms_", str(path)):
            continue
        found = re.search(r"(\d+)_plus", inner)
        version = int(found.group(1)) if found else 0
        key = path.relative_to(folder).parts[:6], re.sub(r"\d+_plus|default", "VERSION", inner)
        if version <= VERSION_MAX and version >= best.get(key, (-1, path))[0]:
            best[key] = version, path
    return [path for _, path in best.values()]


def quoted(name) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", str(name)) else '"' + str(name).replace('"', '""') + '"'


def identifier(_, *names) -> str:
    return ".".join(quoted(name) for name in names if name)


def literal(value, *_) -> str:
    if isinstance(value, (int, float)) or value is None:
        return "NULL" if value is None else str(value)
    return "'" + str(value).replace("'", "''") + "'"


class Rendering:
    """Renders templates with the oids of a database: `ask` gives the only value of a query."""

    def __init__(self, folder: pathlib.Path, ask):
        self.folder = folder
        self.ask = ask
        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(sorted({*folder.rglob("templates"), folder})), undefined=jinja2.ChainableUndefined,
            extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols", "jinja2.ext.i18n"])
        self.environment.install_null_translations()
        self.environment.filters |= {"qtIdent": identifier, "qtTypeIdent": identifier, "qtLiteral": literal,
                                     "hasAny": lambda some, others: bool(set(some) & set(others))}
        self.known = {name: ask(query) for name, query in OIDS.items()}

    def texts(self, path: pathlib.Path) -> list[str]:
        source = path.read_text()
        values = {**GIVEN, **QUIET, **self.known}
        for name, queries in OF_FOLDER.items():
            if name in path.parts:
                values |= {each: self.ask(query) for each, query in queries.items()}
        try:
            names = sorted(jinja2.meta.find_undeclared_variables(self.environment.parse(source)))
        except jinja2.TemplateError:
            return []
        for name in names:
            if name not in values and name.endswith("id"):
                values[name] = values["tid"]
        without = [name for name in names if name in values and name not in QUIET][:WITHOUT_MAX]
        made = [self.rendered(source, values)]
        made += [self.rendered(source, {each: value for each, value in values.items() if each != name}) for name in without]
        return list(dict.fromkeys(text for text in made if text.strip()))

    def rendered(self, source: str, values: dict) -> str:
        try:
            return self.environment.from_string(source).render(values)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError):
            return ""
