"""One suite's two ways to the database: directly, and through the gateway.

Each side has a fresh server with the same roles and passwords, so that a suite finds the same world
twice. The password is also the pairing secret, approved before: both sides get the same environment,
but for the port.
"""

import os
import pathlib

from support.cluster import Cluster
from support.gateway import Gateway
from support.processes import HOST
from support.provider import Provider

# Long enough for a pairing secret.
SECRET = "the-password-of-all-suites-0123456789"
SUPERUSER = "postgres"
PERSON = "ann"

# What the suites need beyond a server's defaults. autovacuum is off: plans and statistics must not
# depend on when it comes by.
SETTINGS = """
max_prepared_transactions = 20
max_replication_slots = 10
max_locks_per_transaction = 256
wal_level = logical
log_connections = on
"""


class Side:
    """Where a suite connects, and what it leaves behind. `gateway` is missing for the direct side. `made` are the
    databases that the suite makes itself: a secret that is known nowhere else is approved for each of them. `label` is
    the application_name that the database hears; usually the program's own, as directly: suites look for themselves
    by it."""

    def __init__(self, name: str, folder: pathlib.Path, provider: Provider | None, roles: list[str],
                 databases: list[str], settings: str = "", made: list[str] = (), label: str = "{app}"):
        self.name = name
        self.folder = folder
        self.label = label
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        more = settings.replace("{socket}", str(folder / "postgres/socket"))
        self.cluster = Cluster(folder / "postgres", settings=SETTINGS + more)
        self.gateway: Gateway | None = None
        try:
            self.cluster.start()
            self._fill(roles, [*databases, *(made if provider else ())])
            self.port = self.cluster.port
            if provider:
                self.gateway = self._gateway(provider, roles, [*databases, *made])
                for database in made:
                    self.cluster.psql(f'drop database "{database}"')
                self.port = self.gateway.port
        except BaseException:
            self.close()
            raise

    def _fill(self, roles: list[str], databases: list[str]) -> None:
        self.cluster.psql(f"alter role {SUPERUSER} password '{SECRET}'")
        self.cluster.passwords[SUPERUSER] = SECRET
        for role in roles:
            self.cluster.add_role(role, SECRET)
        for database in databases:
            self.cluster.psql(f'create database "{database}" template template0')
            # As pg_regress sets a database that it makes.
            for setting in ("lc_messages", "lc_monetary", "lc_numeric", "lc_time"):
                self.cluster.psql(f'alter database "{database}" set {setting} to \'C\'')
            self.cluster.psql(f'alter database "{database}" set bytea_output to \'hex\'')
            self.cluster.psql(f'alter database "{database}" set timezone_abbreviations to \'Default\'')

    def _gateway(self, provider: Provider, roles: list[str], databases: list[str]) -> Gateway:
        known = [SUPERUSER, *roles]
        gateway = Gateway(self.folder / "gateway", self.cluster, provider,
                          role_map=[{"groups": ["engineering"], "roles": known},
                                    {"groups": ["security"], "roles": known}],
                          login=[{"mode": "password"}], listen={"max_clients": 1000},
                          upstream={"application_name": self.label}).start()
        for role in known:
            for database in ["postgres", "template1", *databases]:
                gateway.pair(PERSON, user=role, dbname=database, secret=SECRET)
        return gateway

    def environment(self, **more: str) -> dict:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return {**clean, "PGHOST": HOST, "PGPORT": str(self.port), "PGUSER": SUPERUSER, "PGPASSWORD": SECRET, **more}

    def close(self) -> None:
        try:
            if self.gateway and self.gateway.alive():
                self.gateway.stop()
        finally:
            self.cluster.remove()
