"""Python's drivers and pools, as an application uses them. `python.py CLIENT CONNECTIONS WORD`; where and who stand in PGHOST and the like.

Each opens so many connections, at once where it can, reads the word over each of them, and only then lets them go. Whatever the driver
shows of notices and errors is left as it comes.
"""

import asyncio
import concurrent.futures
import os
import sys
import threading

HOST, PORT, DBNAME, USER = (os.environ[name] for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER"))
PASSWORD, OPTIONS = os.environ["PGPASSWORD"], os.environ["PGOPTIONS"]
APP = os.environ["PGAPPNAME"]
COUNT, WORD = int(sys.argv[2]), sys.argv[3]
READ = f"select '{WORD}', current_user"
TOGETHER_SECONDS_MAX = 100


def libpq(connect) -> None:
    """Connections of a DB-API driver, each in a thread of its own, all open until all have read."""
    everybody = threading.Barrier(COUNT)

    def one(_) -> None:
        connection = connect()
        try:
            cursor = connection.cursor()
            cursor.execute(READ)
            assert cursor.fetchall()[0][0] == WORD
            everybody.wait(TOGETHER_SECONDS_MAX)
        finally:
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(COUNT) as pool:
        tasks = [pool.submit(one, number) for number in range(COUNT)]
        for task in concurrent.futures.as_completed(tasks):
            if task.exception():
                everybody.abort()
        for task in sorted(tasks, key=lambda task: isinstance(task.exception(), threading.BrokenBarrierError)):
            task.result()


def psycopg2() -> None:
    import psycopg2
    libpq(lambda: psycopg2.connect(""))


def psycopg() -> None:
    import psycopg
    libpq(lambda: psycopg.connect(""))


def psycopg_pool() -> None:
    from psycopg_pool import ConnectionPool
    with ConnectionPool("", min_size=COUNT, max_size=COUNT, timeout=60, num_workers=COUNT) as pool:
        pool.wait(60)
        libpq(lambda: Borrowed(pool))


class Borrowed:
    """A connection that goes back to its pool."""

    def __init__(self, pool):
        self._pool, self._connection = pool, pool.getconn()
        self.cursor = self._connection.cursor

    def close(self) -> None:
        self._pool.putconn(self._connection)


def asyncpg() -> None:
    import asyncpg

    async def one(_):
        return await asyncpg.connect(server_settings={"options": OPTIONS, "application_name": APP})

    async def main() -> None:
        connections = await asyncio.gather(*(one(number) for number in range(COUNT)))
        for connection in connections:
            assert (await connection.fetch(READ))[0][0] == WORD
        for connection in connections:
            await connection.close()

    asyncio.run(main())


def asyncpg_pool() -> None:
    import asyncpg

    async def main() -> None:
        settings = {"options": OPTIONS, "application_name": APP}
        async with asyncpg.create_pool(min_size=COUNT, max_size=COUNT, server_settings=settings) as pool:
            connections = [await pool.acquire() for _ in range(COUNT)]
            for connection in connections:
                assert (await connection.fetch(READ))[0][0] == WORD
                await pool.release(connection)

    asyncio.run(main())


def pg8000() -> None:
    import pg8000.dbapi
    given = {"options": OPTIONS} if OPTIONS else {}
    libpq(lambda: pg8000.dbapi.connect(USER, host=HOST, port=int(PORT), database=DBNAME, password=PASSWORD, application_name=APP,
                                       startup_params=given))


def sqlalchemy() -> None:
    import sqlalchemy
    url = sqlalchemy.URL.create("postgresql+psycopg", USER, PASSWORD, HOST, int(PORT), DBNAME)
    engine = sqlalchemy.create_engine(url, pool_size=COUNT, max_overflow=0, pool_pre_ping=True,
                                      connect_args={"options": OPTIONS, "application_name": APP})
    try:
        libpq(engine.raw_connection)
    finally:
        engine.dispose()


def django() -> None:
    import django
    from django.conf import settings
    settings.configure(DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": DBNAME, "HOST": HOST, "PORT": PORT, "USER": USER, "PASSWORD": PASSWORD,
        "OPTIONS": {"options": OPTIONS, "application_name": APP}}})
    django.setup()
    from django.db import connection  # one for each thread

    def connect():
        connection.ensure_connection()
        return connection._connections[connection._alias]

    libpq(connect)


CLIENTS = {each.__name__: each for each in (psycopg2, psycopg, psycopg_pool, asyncpg, asyncpg_pool, pg8000, sqlalchemy, django)}

if __name__ == "__main__":
    CLIENTS[sys.argv[1]]()
