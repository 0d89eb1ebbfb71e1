"""Prendre une connexion : on attend son tour tant que la base répond à d'autres, et pas au-delà."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Update, text, update

from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.auth.infrastructure.mappers.auth_mappers import AuthUserMapper
from fastapi_acl.auth.infrastructure.models.auth_models import SQLAuthUserModel
from fastapi_acl.shared.database.factory import DatabaseFactory
from fastapi_acl.shared.database.mysql import MySQLDatabase
from fastapi_acl.shared.database.postgresql import PostgreSQLDatabase
from fastapi_acl.shared.database.postgresql_link import PostgreSQLLink
from fastapi_acl.shared.database.sql import CONNECT_TIMEOUT_SECONDS, PoolSettings, SQLDatabase
from fastapi_acl.shared.exceptions import DatabaseUnavailableError
from tests.support.app import config
from tests.support.proxy import before
from tests.support.waits import ends_first

KINDS: dict[str, type[PostgreSQLDatabase | MySQLDatabase]] = {
    "postgresql": PostgreSQLDatabase,
    "mysql": MySQLDatabase,
}
PATIENCE_SECONDS = 30.0
MOMENT_SECONDS = CONNECT_TIMEOUT_SECONDS


@pytest.fixture(params=sorted(KINDS))
def sql_uri(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_uri"))


@asynccontextmanager
async def narrow(uri: str, *, size: int, timeout: float = PATIENCE_SECONDS) -> AsyncIterator[SQLDatabase]:
    kind = KINDS[uri.partition(":")[0]]
    database = kind(uri, pool=PoolSettings(size=size, overflow=0, timeout=timeout))
    try:
        await database.migrate()
        yield database
    finally:
        await database.close()


async def ask(database: SQLDatabase) -> int:
    async with database.session() as session:
        return int((await session.execute(text("SELECT 1"))).scalar_one())


async def hold(database: SQLDatabase, held: asyncio.Event, over: asyncio.Event) -> None:
    async with database.session():
        held.set()
        await over.wait()


@asynccontextmanager
async def exhausted(database: SQLDatabase) -> AsyncIterator[asyncio.Event]:
    """Prend la seule connexion de la réserve ; rend ce qui la fera rendre."""
    held, over = asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(hold(database, held, over))
    await held.wait()
    try:
        yield over
    finally:
        over.set()
        await asyncio.gather(holding, return_exceptions=True)


async def test_the_reserve_is_as_large_as_is_set_and_no_larger(sql_uri: str) -> None:
    kind = sql_uri.partition(":")[0]
    sizes: dict[str, Any] = {"database_pool_size": 2, "database_max_overflow": 1, "database_timeout_seconds": 60}
    database = DatabaseFactory(config(database_type=kind, **{f"{kind}_uri": sql_uri}, **sizes)).create_sql()
    held = most = 0

    async def holding() -> None:
        nonlocal held, most
        async with database.session():
            held += 1
            most = max(most, held)
            await asyncio.sleep(0.1)
            held -= 1

    await asyncio.gather(*(holding() for _ in range(9)))
    await database.close()

    assert most == 3


async def test_two_works_that_cross_are_both_done(sql_uri: str) -> None:
    async with narrow(sql_uri, size=3) as database:
        ours, theirs = [await made_account(database, name) for name in ("ada", "bob")]
        met, tries = [asyncio.Event(), asyncio.Event()], list[int]()

        async def cross(place: int, first: str, second: str) -> None:
            tries.append(place)
            async with database.session() as session:
                await session.execute(touched(first))
                met[place].set()
                await met[1 - place].wait()
                await session.execute(touched(second))

        await asyncio.gather(
            database.retry(lambda: cross(0, ours, theirs)), database.retry(lambda: cross(1, theirs, ours))
        )

    assert sorted(tries) in ([0, 0, 1], [0, 1, 1]), "la base en annule un, qui se refait"


async def made_account(database: SQLDatabase, name: str) -> str:
    account = AuthUser(username=name, email=None, hashed_password="haché")
    async with database.session() as session:
        session.add(AuthUserMapper.to_model(account))
    return str(account.id)


def touched(account_id: str) -> Update:
    """Verrouille un compte, que l'on ne change pas vraiment."""
    return update(SQLAuthUserModel).where(SQLAuthUserModel.id == account_id).values(is_verified=True)


async def look(database: SQLDatabase) -> None:
    async with database.looking() as opened:
        await opened.connection.execute(text("SELECT 1"))


async def test_a_busy_pool_is_a_queue_while_the_database_answers_others(sql_uri: str) -> None:
    async with narrow(sql_uri, size=1) as database, exhausted(database) as over:
        waiting = asyncio.create_task(ask(database))
        deadline = time.monotonic() + 2.5 * MOMENT_SECONDS
        while time.monotonic() < deadline:
            await look(database)
            await asyncio.sleep(0.05)
        assert not waiting.done()

        over.set()

        assert await waiting == 1


async def test_a_queue_too_long_is_an_outage(sql_uri: str) -> None:
    async with narrow(sql_uri, size=1, timeout=0.1) as database, exhausted(database):
        await look(database)
        with pytest.raises(DatabaseUnavailableError):
            await ask(database)


async def test_a_silent_database_is_not_waited_for(sql_uri: str) -> None:
    async with before(sql_uri) as (uri, proxy), narrow(uri, size=1) as database, exhausted(database):
        proxy.stalls = True
        asking = asyncio.create_task(ask(database))
        assert await ends_first(asking, PATIENCE_SECONDS * 0.9), "qui attend la file attend toute la patience"
        assert isinstance(asking.exception(), DatabaseUnavailableError)


async def test_an_opening_that_takes_too_long_is_made_again(sql_uri: str) -> None:
    async with before(sql_uri) as (uri, proxy), narrow(uri, size=2) as database:
        await look(database)
        async with exhausted(database):
            proxy.stalls = True
            opening = asyncio.create_task(ask(database))
            while not proxy.swallowed:
                await asyncio.sleep(0.01)
            proxy.stalls = False
            while not opening.done():
                await look(database)
                await asyncio.sleep(0.05)

        assert await opening == 1


async def test_openings_at_once_look_for_a_pooler_once(postgresql_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0
    look_around = PostgreSQLLink._look_around

    async def counted(link: PostgreSQLLink) -> None:
        nonlocal looked
        looked += 1
        await look_around(link)

    monkeypatch.setattr(PostgreSQLLink, "_look_around", counted)
    async with before(postgresql_uri) as (uri, proxy):
        database = PostgreSQLDatabase(uri, pool=PoolSettings(size=10))
        proxy.refuses = True
        refused = await asyncio.gather(*(ask(database) for _ in range(10)), return_exceptions=True)
        assert {type(error) for error in refused} == {DatabaseUnavailableError}
        assert looked == 1

        proxy.refuses = False
        assert await asyncio.gather(*(ask(database) for _ in range(10))) == [1] * 10
        await database.close()

    assert looked == 2
