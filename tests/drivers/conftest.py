"""Fixtures: one database, one provider and one gateway for the whole run, and fresh ones for the
tests that break something.

Every test that may spoil the provider gets it reset afterwards, so order does not matter.
"""

import os
import pathlib
import shutil
import tempfile
import uuid

import psycopg
import pytest

from support import shop
from support.clients import Matrix, try_all
from support.cluster import Cluster
from support.gateway import Api, Gateway, email
from support.provider import Provider


@pytest.fixture(scope="session")
def ground():
    """A folder that user postgres can reach, removed at the end (kept with PGWITNESS_KEEP=1)."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pgwitness-tests-"))
    folder.chmod(0o755)
    yield folder
    if os.environ.get("PGWITNESS_KEEP") == "1":
        print(f"kept {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(ground):
    cluster = Cluster(ground / "postgres")
    cluster.start()
    shop.build(cluster)
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def running_provider(ground):
    provider = Provider(ground / "provider")
    yield provider
    provider.stop()


@pytest.fixture
def provider(running_provider):
    """The provider, well before and after the test."""
    running_provider.reset()
    yield running_provider
    running_provider.reset()


@pytest.fixture(scope="session")
def running_gateway(ground, cluster, running_provider):
    gateway = Gateway(ground / "gateway", cluster, running_provider).start()
    yield gateway
    if gateway.alive():
        gateway.stop()


@pytest.fixture
def gateway(running_gateway, provider):
    """The shared gateway: no test may stop it, and after each test it must still be up."""
    yield running_gateway
    assert running_gateway.alive(), f"the gateway ended:\n{running_gateway.said()}"


@pytest.fixture
def own_gateway(ground, request, cluster, provider):
    """Makes gateways that a test may kill: `own_gateway(log={...})`."""
    made = []

    def make(database=cluster, **settings) -> Gateway:
        gateway = Gateway(ground / f"{request.node.name}-{len(made)}", database, provider, **settings)
        made.append(gateway)
        return gateway.start()

    yield make
    for gateway in made:
        if gateway.alive():
            gateway.stop()


@pytest.fixture(scope="session")
def matrix(ground, cluster, running_provider) -> Matrix:
    """Every client logged in, in every way, through a gateway of its own that says all it can."""
    running_provider.reset()
    # A debug build takes its time for so many SCRAM logins at the database.
    gateway = Gateway(ground / "clients", cluster, running_provider, verbosity="trace", limits={"connect_timeout": "60s"}).start()
    try:
        yield try_all(gateway)
        assert gateway.alive(), f"the gateway ended:\n{gateway.said()}"
    finally:
        if gateway.alive():
            gateway.stop()


@pytest.fixture(scope="session")
def secrets_of(running_gateway):
    """One approved pairing secret for each person and user, made when first asked for."""
    made = {}

    def secret(person: str, user: str | None = None) -> str:
        key = (person, user or email(person))
        if key not in made:
            made[key] = running_gateway.pair(*key)
        return made[key]

    return secret


@pytest.fixture
def mark() -> str:
    """A word that no other test uses: put into a statement, it finds the record."""
    return f"mark{uuid.uuid4().hex[:12]}"


@pytest.fixture
def auditor(gateway) -> Api:
    return gateway.api("carol")


@pytest.fixture
def connect(gateway, secrets_of):
    """Opens psycopg connections as a person who has already approved."""
    opened = []

    def connect(person: str = "ann", role: str | None = None, **options) -> psycopg.Connection:
        dsn = gateway.secret_dsn(role or email(person), secrets_of(person, role))
        connection = psycopg.connect(dsn, **{"autocommit": True, **options})
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()
