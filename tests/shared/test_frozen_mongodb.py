"""Une base MongoDB lente s'attend, une base muette se remarque : l'ordre des événements le dit, sans horloge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from fastapi_acl.shared.database.mongodb import OPTIONS, MongoDatabase
from fastapi_acl.shared.exceptions import DatabaseUnavailableError
from tests.support.proxy import before
from tests.support.servers import MongoDBServer
from tests.support.waits import insisted, until


@pytest.fixture(params=[AsyncIOMotorClient, AsyncMongoClient], ids=["motor", "pymongo"])
def client(request: pytest.FixtureRequest) -> Any:
    return request.param


@asynccontextmanager
async def opened(uri: str, client: Any) -> AsyncIterator[MongoDatabase]:
    database = MongoDatabase(uri, client=client)
    try:
        await database.migrate()
        yield database
    finally:
        await database.close()


async def write(database: MongoDatabase) -> None:
    async with database.transaction(log=True) as transaction:
        await database.write_head(transaction, transaction.check_ordered())


async def read(database: MongoDatabase) -> None:
    async with database.snapshot() as reading:
        await database.read_head(reading)


async def alone(database: MongoDatabase) -> None:
    async with database.session():
        await database.collection("acl_users").find_one({})


async def test_what_waits_when_the_base_freezes_ends_well_before_its_deadline(
    own_mongodb: MongoDBServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = own_mongodb.uri()
    async with opened(uri, client) as watched:
        monkeypatch.setitem(OPTIONS, "heartbeatFrequencyMS", 60_000)
        async with opened(uri, client) as control:
            for database in (watched, control):
                await write(database)
            own_mongodb.freeze()
            waiting = {
                asyncio.create_task(work(database), name=name)
                for name, database in (("watched", watched), ("control", control))
                for work in (write, write, read, alone)
            }

            failed: list[tuple[str, bool]] = []
            left = waiting
            while any(task.get_name() == "watched" for task in left):
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                failed += [(task.get_name(), type(task.exception()) is DatabaseUnavailableError) for task in done]
            own_mongodb.thaw()
            await asyncio.wait(left)

            assert failed == [("watched", True)] * 4
            await insisted(lambda: write(watched))


async def answers(database: MongoDatabase) -> bool:
    try:
        await read(database)
    except DatabaseUnavailableError:
        return False
    return True


async def test_nothing_is_asked_of_a_base_that_fell_silent_until_it_speaks_again(
    own_mongodb: MongoDBServer, client: Any
) -> None:
    async with before(own_mongodb.uri()) as (uri, proxy), opened(uri, client) as database:
        proxy.stalls = True
        await until(lambda: database._is_lost)

        with pytest.raises(DatabaseUnavailableError):
            await read(database)

        proxy.heal()
        await until(lambda: answers(database))


async def test_a_slow_command_is_waited_for_while_the_base_answers(own_mongodb: MongoDBServer, client: Any) -> None:
    async with before(own_mongodb.uri()) as (uri, proxy), opened(uri, client) as database:
        proxy.slow_on = {b"acl_revision": 4}

        await read(database)

        assert not database._is_lost
