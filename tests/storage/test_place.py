"""L'endroit d'une base : le même pour tous ses processus, un autre pour une copie servie ailleurs."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from fastapi_acl import ACLManager
from fastapi_acl.runtime.composition import Composition
from fastapi_acl.shared.policy import PolicyChange
from tests.storage.conftest import Base, rule
from tests.support.app import config
from tests.support.servers import RedisServer


async def place_of(process: Composition) -> str:
    async with process.database.looking() as transaction:
        return await process.database.read_place(transaction)


async def test_all_the_processes_of_a_base_agree_on_its_place(
    base: Base, process: Composition, twin: Composition
) -> None:
    third = await base.process()

    assert len({await place_of(one) for one in (process, twin, third)}) == 1
    assert process.replica.scope == twin.replica.scope == third.replica.scope is not None


async def test_two_bases_are_not_at_the_same_place(process: Composition) -> None:
    other = Base("memory")
    stranger = await other.process()

    assert await place_of(process) != await place_of(stranger)
    await other.close()


async def test_a_copy_of_the_base_grants_nothing_through_the_same_redis(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    original, copied = tmp_path / "production.db", tmp_path / "copie.db"
    settings = {"redis_url": redis_server.uri(), "watcher": "redis", "create_default_admin": False}
    first = ACLManager(config(sqlite_uri=f"sqlite:///{original}", **settings))
    await first.migrate()
    await first.close()
    shutil.copy(original, copied)
    managers = [
        ACLManager(config(sqlite_uri=f"sqlite:///{path}", policy_poll_seconds=60, **settings))
        for path in (original, tmp_path / "." / "production.db", copied)
    ]
    for manager in managers:
        await manager.initialize()
        while manager.health().watcher != "connected":
            await asyncio.sleep(0.01)
    production, neighbour, copy = managers
    scopes = [manager.get_replica().scope for manager in managers]
    assert scopes[0] == scopes[1] != scopes[2], "production et sa copie ne s'entendent pas, fût-ce un instant"

    forged, true = (rule(f"role:{name}", "doc", "read", "allow") for name in ("copie", "vraie"))
    await copy.get_policy_store().change(PolicyChange(added=(forged,)))
    await production.get_policy_store().change(PolicyChange(added=(true,)))
    while not neighbour.get_policy().holds(true):
        await asyncio.sleep(0.01)

    assert [manager.get_policy().holds(forged) for manager in managers] == [False, False, True]
    assert not copy.get_policy().holds(true)
    for manager in managers:
        await manager.close()
