"""Le guetteur, sur de vrais serveurs : un changement passe à l'instant, et une panne du transport ne coûte que cela."""

from __future__ import annotations

import asyncio
import io
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timezone
from typing import Any

import asyncpg
import pytest

from fastapi_acl import ACLManager
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.announcements import Announcement, Sealer
from fastapi_acl.shared.sync.changes import POLICY_CHANGED, Change
from fastapi_acl.shared.sync.replica import Position
from fastapi_acl.shared.sync.watcher import CHANNEL, Watcher
from tests.support.app import config
from tests.support.proxy import before
from tests.support.servers import PostgreSQLServer

NEVER = 60
"""Temps entre deux regards sur la base, tel que seul le guetteur puisse porter un changement pendant un essai."""


def rule(number: int) -> PolicyRule:
    return PolicyRule("p", (f"role:r{number}", "document", "read", "allow"))


async def add(manager: ACLManager, *numbers: int) -> int:
    return await manager.get_policy_store().change(PolicyChange(added=tuple(map(rule, numbers))))


def holds(manager: ACLManager, number: int) -> Callable[[], bool]:
    return lambda: manager.get_enforcer().holds(rule(number))


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), seconds)


def watcher_of(manager: ACLManager) -> Watcher:
    watcher = manager._parts.watcher
    assert watcher is not None
    return watcher


def is_connected(manager: ACLManager) -> Callable[[], bool]:
    return lambda: watcher_of(manager).status == "connected"


Start = Callable[..., Awaitable[ACLManager]]


@pytest.fixture(params=["redis", "postgresql"])
def watched(request: pytest.FixtureRequest, postgresql_uri: str) -> dict[str, Any]:
    """Réglages d'un processus que seul son guetteur tient au courant."""
    settings = {"database_type": "postgresql", "postgresql_uri": postgresql_uri, "watcher": request.param}
    if request.param == "redis":
        settings["redis_url"] = request.getfixturevalue("redis_server").uri()
    return {**settings, "policy_poll_seconds": NEVER, "create_default_admin": False}


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """De quoi démarrer des processus, qui s'arrêtent à la fin."""
    async with AsyncExitStack() as stack:

        async def started(settings: dict[str, Any], *, waits: bool = True) -> ACLManager:
            manager = ACLManager(config(**settings))
            stack.push_async_callback(manager.close)
            await manager.initialize()
            if waits:
                await until(is_connected(manager))
            return manager

        yield started


async def test_a_change_reaches_the_others_without_a_look_at_the_base(watched: dict[str, Any], start: Start) -> None:
    first, second = await start(watched), await start(watched)

    revision = await add(first, 1)

    await until(holds(second, 1))
    assert second.get_policy_store().revision == revision


async def test_a_burst_arrives_whole_and_in_order(watched: dict[str, Any], start: Start) -> None:
    first, second = await start(watched), await start(watched)

    for number in range(60):
        await add(first, number)

    await until(lambda: second.get_policy_store().revision == first.get_policy_store().revision)
    assert second.get_enforcer().rules == first.get_enforcer().rules


async def test_a_change_too_long_for_the_transport_is_read_from_the_log(watched: dict[str, Any], start: Start) -> None:
    first, second = await start(watched), await start(watched)

    await add(first, *range(3_000))

    await until(holds(second, 2_999))


async def test_an_import_is_announced_and_read_again(watched: dict[str, Any], start: Start) -> None:
    first, second = await start(watched), await start(watched)

    text = f"p, {', '.join(rule(1).values)}\n"
    await first.get_policy_transfer().import_rules(io.StringIO(text), "csv")

    await until(holds(second, 1))


async def test_a_message_lost_is_found_in_the_log(watched: dict[str, Any], start: Start) -> None:
    first, second = await start(watched), await start({**watched, "watcher": "none"}, waits=False)
    await add(second, 1)  # personne ne l'annonce

    await add(second, 2)
    await add(first, 3)
    third = await start(watched)
    await add(third, 4)

    await until(holds(first, 4))
    assert all(holds(first, number)() for number in (1, 2, 3))


async def test_a_forged_message_changes_no_decision(watched: dict[str, Any], start: Start) -> None:
    manager = await start(watched)
    at = manager._parts.replica._at
    assert at is not None
    payload = PolicyChange(added=(rule(1),)).as_json()
    change = Change(revision=at.revision + 1, at=_now(), actor="system", kind=POLICY_CHANGED, payload=payload)
    (forged,) = Sealer(["une clé devinée"]).seal([Announcement(at, change)], 7_900)

    for message in (forged.decode(), "", "n'importe quoi", "0" * 64 + "[]", "x" * 7_999):
        await _notify(watched["postgresql_uri"], message)
    await add(await start(watched), 2)

    await until(holds(manager, 2))
    assert not holds(manager, 1)()


async def test_an_announcement_replayed_or_of_another_log_does_nothing(watched: dict[str, Any], start: Start) -> None:
    manager = await start(watched)
    before = manager._parts.replica._at
    assert before is not None
    await add(manager, 1)
    replica, payload = manager._parts.replica, PolicyChange(added=(rule(2),)).as_json()
    revision = manager.get_policy_store().revision
    change = Change(revision=revision + 1, at=_now(), actor="system", kind=POLICY_CHANGED, payload=payload)

    assert replica._at is not None
    offers = {
        "autre journal": replica._at._replace(log_id="autre"),
        "autre entrée d'avant": replica._at._replace(change_id="autre"),
        "position passée": before,
        "position à venir": Position(before.log_id, revision + 7, "x"),
    }
    for position in offers.values():
        assert not replica.offer(position, change)

    assert not holds(manager, 2)()
    assert manager.get_policy_store().revision == revision


async def test_a_server_restarted_is_listened_to_again(own_postgresql: PostgreSQLServer, start: Start) -> None:
    settings: dict[str, Any] = {"database_type": "postgresql", "postgresql_uri": own_postgresql.uri()}
    settings |= {"create_default_admin": False, "policy_poll_seconds": NEVER}
    first, second = await start(settings), await start(settings)
    for turn in range(2):
        await asyncio.to_thread(own_postgresql.stop, signal.SIGQUIT)
        await until(lambda: not is_connected(second)())
        await asyncio.to_thread(own_postgresql.start)
        await until(is_connected(second), 15)
        await until(is_connected(first), 15)

        await add(first, turn)

        await until(holds(second, turn))


@pytest.mark.slow
async def test_a_partition_without_a_word_is_noticed(watched: dict[str, Any], start: Start) -> None:
    name = f"{watched['watcher']}_{'url' if watched['watcher'] == 'redis' else 'uri'}"
    async with before(watched[name]) as (uri, proxy):
        cut = await start({**watched, name: uri})
        proxy.stalls = True

        await until(lambda: not is_connected(cut)(), 6)

        proxy.heal()
        proxy.reset()
        await until(is_connected(cut), 15)
        other = await start(watched)
        await add(other, 1)
        await until(holds(cut, 1))


async def test_nothing_listens_any_more_once_closed(watched: dict[str, Any]) -> None:
    manager = ACLManager(config(**watched))
    await manager.initialize()
    await until(is_connected(manager))
    await add(manager, 1)
    await manager.close()

    assert watcher_of(manager).status == "stopped"
    connection = await asyncpg.connect(watched["postgresql_uri"])
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ 'watcher' AND datname = current_database()"
    while await connection.fetchval(query):
        await asyncio.sleep(0.02)
    await connection.close()


async def _notify(uri: str, message: str) -> None:
    connection = await asyncpg.connect(uri)
    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, message)
    await connection.close()


def _now() -> Any:
    return datetime.now(timezone.utc)
