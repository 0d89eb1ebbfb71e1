"""Une base lente s'attend, une base muette se remarque, quoi qu'on y ait demandé."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import delete, text

from fastapi_acl.shared.database.mysql import MySQLDatabase
from fastapi_acl.shared.database.postgresql import PostgreSQLDatabase
from fastapi_acl.shared.database.sql import PoolSettings, SQLDatabase
from fastapi_acl.shared.database.tables import batches_table
from fastapi_acl.shared.exceptions import DatabaseRefusedError, DatabaseUnavailableError
from tests.conftest import launched
from tests.support.byhand import unpin
from tests.support.servers import MariaDBServer, PostgreSQLServer

KINDS: dict[str, tuple[type[PostgreSQLDatabase | MySQLDatabase], type[PostgreSQLServer | MariaDBServer], str]] = {
    "postgresql": (PostgreSQLDatabase, PostgreSQLServer, "SELECT pg_sleep({})"),
    "mysql": (MySQLDatabase, MariaDBServer, "SELECT SLEEP({})"),
}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(request: pytest.FixtureRequest, kind: str) -> Iterator[PostgreSQLServer | MariaDBServer]:
    yield from launched(request.config, KINDS[kind][1])


def opened(kind: str, uri: str) -> SQLDatabase:
    return KINDS[kind][0](uri)


async def sleep(database: SQLDatabase, kind: str, seconds: float) -> Any:
    async with database.session() as session:
        return await session.scalar(text(KINDS[kind][2].format(seconds)))


def unwatched(kind: str, uri: str) -> SQLDatabase:
    """Une base sur les commandes de laquelle rien ne veille : le témoin."""
    database = opened(kind, uri)
    database._watch_over = lambda _engine: None  # type: ignore[method-assign]
    return database


async def test_a_command_in_flight_when_the_base_freezes_ends_well_before_its_deadline(
    kind: str, server: PostgreSQLServer | MariaDBServer
) -> None:
    uri = server.uri("acl") if kind == "mysql" else server.uri()
    watched, control = opened(kind, uri), unwatched(kind, uri)
    for database in (watched, control):
        await sleep(database, kind, 0)
    waiting = {
        name: asyncio.create_task(sleep(database, kind, 3), name=name)
        for name, database in (("watched", watched), ("control", control))
    }
    await asyncio.sleep(0.2)

    server.freeze()
    done, left = await asyncio.wait(waiting.values(), return_when=asyncio.FIRST_COMPLETED)
    after = {task.get_name() for task in done}, {task.get_name() for task in left}
    server.thaw()

    assert after == ({"watched"}, {"control"})
    with pytest.raises(DatabaseUnavailableError):
        await waiting["watched"]
    await waiting["control"]
    await sleep(watched, kind, 0)
    for database in (watched, control):
        await database.close()


async def test_a_bulk_command_is_not_cut_by_a_silence(kind: str, server: PostgreSQLServer | MariaDBServer) -> None:
    uri = server.uri("acl") if kind == "mysql" else server.uri()
    database = opened(kind, uri)
    await database.migrate()
    pause = {"postgresql": "pg_sleep(2) IS NOT NULL", "mysql": "SLEEP(2) = 0"}[kind]
    await sleep(database, kind, 0)
    async with database.session() as session:
        await unpin(session)
        await session.execute(text("INSERT INTO acl_batches VALUES ('b', 'import', CURRENT_TIMESTAMP, false)"))

    async def clear() -> int:
        async with database.transaction() as transaction:
            return await database.bulk_execute(transaction, delete(batches_table).where(text(pause)))

    bulk, short = asyncio.create_task(clear()), asyncio.create_task(sleep(database, kind, 3))
    await asyncio.sleep(0.3)
    server.freeze()
    with pytest.raises(DatabaseUnavailableError):
        await short
    assert not bulk.done()
    server.thaw()

    assert await bulk == 1
    await database.close()


async def test_a_slow_command_is_waited_for_while_the_base_answers(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    knocks = 0
    database = opened(kind, str(request.getfixturevalue(f"{kind}_server").uri()))
    knock = database._vigil._knock

    async def counted() -> bool:
        nonlocal knocks
        knocks += 1
        return await knock()

    monkeypatch.setattr(database._vigil, "_knock", counted)

    await sleep(database, kind, 3)

    assert knocks >= 2
    assert not database._vigil._waits
    await database.close()


@pytest.mark.parametrize("held", [1.2, 1.7])
async def test_a_loop_held_while_it_knocks_cuts_nothing(
    kind: str, held: float, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = opened(kind, str(request.getfixturevalue(f"{kind}_server").uri()))
    await sleep(database, kind, 0)
    knock, answers = database._vigil._knock, []

    async def knock_late() -> bool:
        if not answers:
            asyncio.get_running_loop().call_soon(time.sleep, held)  # ce que fait une fonction qui bloque la boucle
        answers.append(await knock())
        return answers[-1]

    monkeypatch.setattr(database._vigil, "_knock", knock_late)

    await sleep(database, kind, 3)

    assert answers[0] is False
    await database.close()


async def test_a_full_reserve_waits_for_a_base_that_answers(kind: str, request: pytest.FixtureRequest) -> None:
    """Toutes les places attendent un même verrou : aucune commande n'aboutit, et la base va bien."""
    uri = str(request.getfixturevalue(f"{kind}_server").uri())
    database = KINDS[kind][0](uri, pool=PoolSettings(size=2, overflow=0))
    await sleep(database, kind, 0)
    holding = [asyncio.create_task(sleep(database, kind, 3)) for _ in range(2)]
    while len(database._vigil._waits) < len(holding):
        await asyncio.sleep(0.01)

    await sleep(database, kind, 0)

    await asyncio.gather(*holding)
    await database.close()


async def test_a_knock_that_fails_on_our_side_neither_cuts_nor_ends_the_vigil(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = opened(kind, str(request.getfixturevalue(f"{kind}_server").uri()))
    knocks = 0

    async def broken() -> bool:
        nonlocal knocks
        knocks += 1
        raise ValueError

    monkeypatch.setattr(database._vigil, "_knock", broken)

    await sleep(database, kind, 3)

    assert knocks >= 2
    await database.close()


async def test_nothing_waits_once_commands_are_over(kind: str, request: pytest.FixtureRequest) -> None:
    database = opened(kind, str(request.getfixturevalue(f"{kind}_server").uri()))
    asking = asyncio.create_task(sleep(database, kind, 30))
    while not database._vigil._waits:
        await asyncio.sleep(0.01)

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    with pytest.raises(DatabaseRefusedError):
        async with database.session() as session:
            await session.execute(text("SELECT nothing_of_the_kind"))
    await sleep(database, kind, 0)

    assert not database._vigil._waits
    await database.close()
