"""Le guetteur, sur de vrais serveurs : un changement passe à l'instant, et une panne du transport ne coûte que cela."""

from __future__ import annotations

import asyncio
import io
import itertools
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timezone
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from fastapi_acl import ACLManager
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.announcements import Announcement, Sealer
from fastapi_acl.shared.sync.changes import POLICY_CHANGED, Change
from fastapi_acl.shared.sync.postgresql_watcher import MAX_WAITING, PostgreSQLTransport
from fastapi_acl.shared.sync.replica import Position
from fastapi_acl.shared.sync.watcher import Watcher, WatcherError, channel_of
from tests.support.app import SECRET, config
from tests.support.proxy import before
from tests.support.servers import PostgreSQLServer, RedisServer
from tests.support.waits import PATIENCE_SECONDS, insisted, until

NEVER = 60
"""Temps entre deux regards sur la base, tel que seul le guetteur puisse porter un changement pendant un essai."""


def rule(number: int) -> PolicyRule:
    return PolicyRule("p", (f"role:r{number}", "document", "read", "allow"))


async def add(manager: ACLManager, *numbers: int) -> int:
    return await manager.get_policy_store().change(PolicyChange(added=tuple(map(rule, numbers))))


def holds(manager: ACLManager, number: int) -> Callable[[], bool]:
    return lambda: manager.get_policy().holds(rule(number))


def watcher_of(manager: ACLManager) -> Watcher:
    watcher = manager._parts.watcher
    assert watcher is not None
    return watcher


def scope_of(manager: ACLManager) -> str:
    scope = manager.get_replica().scope
    assert scope is not None
    return scope


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
            await until(lambda: manager.is_ready)
            if waits:
                await until(is_connected(manager))
            return manager

        yield started


async def test_a_change_reaches_the_others_without_a_look_at_the_base(watched: dict[str, Any], start: Start) -> None:
    first, second = await start(watched), await start(watched)

    revision = await add(first, 1)

    await until(holds(second, 1))
    assert second.get_replica().revision == revision


async def test_a_burst_arrives_whole_and_in_order(watched: dict[str, Any], start: Start) -> None:
    first, second = await start(watched), await start(watched)

    for number in range(60):
        await add(first, number)

    await until(lambda: second.get_replica().revision == first.get_replica().revision)
    assert second.get_policy().rules == first.get_policy().rules


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
    scope = scope_of(manager)
    (forged,) = Sealer(["une clé devinée"]).seal([Announcement(at, change)], 7_900, scope)

    for message in (forged.decode(), "", "n'importe quoi", "0" * 64 + "[]", "x" * 7_999):
        await _notify(watched["postgresql_uri"], channel_of(scope), message)
    await add(await start(watched), 2)

    await until(holds(manager, 2))
    assert not holds(manager, 1)()


async def test_an_announcement_replayed_or_of_another_log_does_nothing(watched: dict[str, Any], start: Start) -> None:
    manager = await start(watched)
    before = manager._parts.replica._at
    assert before is not None
    await add(manager, 1)
    replica, payload = manager._parts.replica, PolicyChange(added=(rule(2),)).as_json()
    revision = manager.get_replica().revision
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
    assert manager.get_replica().revision == revision


async def test_a_log_whose_identity_changes_is_listened_to_again(watched: dict[str, Any], start: Start) -> None:
    first, second = await start(watched), await start(watched)
    before = scope_of(second)
    await first.get_policy_history().renew()
    await asyncio.gather(*(manager.get_replica().refresh() for manager in (first, second)))
    await until(lambda: first.get_replica().scope == second.get_replica().scope != before)

    number = 0
    while not holds(second, number)():
        number += 1
        await add(first, number)
        await asyncio.sleep(0.05)

    assert number < 100


async def _is_delivered(connection: asyncpg.Connection) -> bool:
    """Dit si PostgreSQL a remis toutes les notifications à qui les écoute."""
    return not await connection.fetchval("SELECT pg_notification_queue_usage()")


async def test_a_flood_of_notifications_is_bounded(postgresql_uri: str) -> None:
    transport, sender = PostgreSQLTransport(postgresql_uri), await asyncpg.connect(postgresql_uri)
    async with transport.subscribe("flot") as messages:
        await sender.execute("SELECT pg_notify('flot', n::text) FROM generate_series(1, 5000) AS n")
        await until(lambda: _is_delivered(sender))
        await sender.close()
        await asyncio.sleep(0.5)

        kept = 0
        with suppress(asyncio.TimeoutError):
            while await asyncio.wait_for(anext(messages), 0.3):
                kept += 1

    assert kept == MAX_WAITING


async def test_a_frozen_server_does_not_hold_what_is_announced(own_postgresql: PostgreSQLServer) -> None:
    transport = PostgreSQLTransport(own_postgresql.uri())
    await transport.publish("gel", b"avant")

    own_postgresql.freeze()
    with pytest.raises(WatcherError):
        await asyncio.wait_for(transport.publish("gel", b"pendant"), PATIENCE_SECONDS)
    own_postgresql.thaw()

    await transport.publish("gel", b"ensuite")
    await transport.close()


async def test_a_server_restarted_is_listened_to_again(own_postgresql: PostgreSQLServer, start: Start) -> None:
    settings: dict[str, Any] = {"database_type": "postgresql", "postgresql_uri": own_postgresql.uri()}
    settings |= {"create_default_admin": False, "policy_poll_seconds": NEVER}
    first, second, numbers = await start(settings), await start(settings), itertools.count()

    async def is_told(number: int) -> bool:
        """Dit si un changement est arrivé, et en annonce un autre : la première annonce qui passe dit ce qui manque."""
        later = next(numbers)
        await insisted(partial(add, first, later))
        return holds(second, number)()

    for _ in range(2):
        await asyncio.to_thread(own_postgresql.stop, signal.SIGQUIT)
        await until(lambda: not is_connected(second)())
        await asyncio.to_thread(own_postgresql.start)
        await until(is_connected(second))
        await until(is_connected(first))

        written = next(numbers)
        await insisted(partial(add, first, written))

        await until(partial(is_told, written), pause=0.2)


@pytest.mark.slow
async def test_a_partition_without_a_word_is_noticed(watched: dict[str, Any], start: Start) -> None:
    name = f"{watched['watcher']}_{'url' if watched['watcher'] == 'redis' else 'uri'}"
    async with before(watched[name]) as (uri, proxy):
        cut = await start({**watched, name: uri})
        proxy.stalls = True

        await until(lambda: not is_connected(cut)())

        proxy.heal()
        proxy.reset()
        await until(is_connected(cut))
        other = await start(watched)
        await add(other, 1)
        await until(holds(cut, 1))


async def test_nothing_listens_any_more_once_closed(watched: dict[str, Any]) -> None:
    manager = ACLManager(config(**watched))
    await manager.initialize()
    await until(lambda: manager.is_ready)
    await until(is_connected(manager))
    await add(manager, 1)
    await manager.close()

    assert watcher_of(manager).status == "stopped"
    connection = await asyncpg.connect(watched["postgresql_uri"])
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ 'watcher' AND datname = current_database()"
    while await connection.fetchval(query):
        await asyncio.sleep(0.02)
    await connection.close()


async def _notify(uri: str, channel: str, message: str) -> None:
    connection = await asyncpg.connect(uri)
    await connection.execute("SELECT pg_notify($1, $2)", channel, message)
    await connection.close()


def _now() -> Any:
    return datetime.now(timezone.utc)


@asynccontextmanager
async def in_front_of(uri: str, answer: Callable[[bytes], bytes | None]) -> AsyncIterator[str]:
    """Un serveur qui passe les commandes à un vrai Redis, sauf celles auxquelles il répond lui-même."""
    url = urlsplit(uri)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while received := await reader.read(65_536):
                own = answer(received) if writer is not back else None
                (writer if own is None else back).write(received if own is None else own)
        writer.close()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, to_behind = await asyncio.open_connection(url.hostname, url.port)
        await asyncio.gather(pump(reader, to_behind, writer), pump(behind, writer, writer))

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    server.close()  # sans attendre ses connexions, que les processus gardent jusqu'à leur arrêt


def by_redis(uri: str, sqlite_uri: str) -> dict[str, Any]:
    return {"sqlite_uri": sqlite_uri, "redis_url": uri, "watcher": "redis", "create_default_admin": False}


async def test_an_answer_that_is_nonsense_ends_neither_sending_nor_listening(
    redis_server: RedisServer, sqlite_uri: str, start: Start
) -> None:
    async with in_front_of(redis_server.uri(), lambda said: b":x\r\n" if b"PUBLISH" in said else None) as uri:
        manager = await start(by_redis(uri, sqlite_uri))
        for number in range(3):
            await add(manager, number)
            await asyncio.sleep(0.05)

        assert not any(task.done() for task in watcher_of(manager)._tasks)


async def test_a_subscription_left_without_an_answer_is_tried_again(
    redis_server: RedisServer, sqlite_uri: str, start: Start
) -> None:
    refused: list[bytes] = []

    def swallow_the_first(said: bytes) -> bytes | None:
        if b"SUBSCRIBE" not in said or refused:
            return None
        refused.append(said)
        return b""

    async with in_front_of(redis_server.uri(), swallow_the_first) as uri:
        manager = await start(by_redis(uri, sqlite_uri), waits=False)
        await until(is_connected(manager))

    assert refused


async def test_a_message_larger_than_ours_is_not_even_read(redis_server: RedisServer, sqlite_uri: str) -> None:
    manager = ACLManager(config(**by_redis(redis_server.uri(), sqlite_uri)))
    await manager.load()
    watcher, replica, scope = watcher_of(manager), manager.get_replica(), scope_of(manager)
    assert replica._at is not None
    payload = PolicyChange(added=(rule(1),)).as_json()
    next_one = Change(revision=replica.revision + 1, at=_now(), actor="s", kind=POLICY_CHANGED, payload=payload)
    (sealed,) = watcher._sealer.seal([Announcement(replica._at, next_one)], watcher._transport.max_bytes, scope)

    watcher._transport.max_bytes = len(sealed) - 1
    watcher._receive(sealed, scope)

    assert (holds(manager, 1)(), replica.woken.is_set()) == (False, True)
    watcher._transport.max_bytes = len(sealed)
    watcher._receive(sealed, scope)
    assert holds(manager, 1)(), "le témoin : le même message, une fois admis, s'applique"
    await manager.close()


async def test_what_a_process_under_the_key_before_announces_is_believed(
    redis_server: RedisServer, sqlite_uri: str
) -> None:
    settings = {**by_redis(redis_server.uri(), sqlite_uri), "jwt_secret_key": "n" * 48, "jwt_previous_keys": [SECRET]}
    manager = ACLManager(config(**settings))
    await manager.load()
    scope, at = scope_of(manager), manager.get_replica()._at
    assert at is not None
    payload = PolicyChange(added=(rule(1),)).as_json()
    following = Change(revision=at.revision + 1, at=_now(), actor="s", kind=POLICY_CHANGED, payload=payload)
    (sealed,) = Sealer([SECRET]).seal([Announcement(at, following)], 7_900, scope)

    watcher_of(manager)._receive(sealed, scope)

    assert holds(manager, 1)()
    await manager.close()


async def test_who_listens_again_looks_at_the_base(redis_server: RedisServer, sqlite_uri: str) -> None:
    manager = ACLManager(config(**by_redis(redis_server.uri(), sqlite_uri)))
    await manager.load()
    watcher, replica = watcher_of(manager), manager.get_replica()
    assert not replica.woken.is_set()

    listening = asyncio.create_task(watcher._listen_at(scope_of(manager)))
    await until(lambda: watcher._is_connected)
    await until(replica.woken.is_set)

    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await manager.close()


LOST_LOOP = """
import asyncio, sys
from fastapi_acl import ACLManager
from tests.support.app import config

manager = ACLManager(config(sqlite_uri=sys.argv[1], redis_url=sys.argv[2], watcher="redis"))
enforcer = manager.get_enforcer()

async def write(number):
    await manager.initialize()
    while manager.health().watcher != "connected":
        await asyncio.sleep(0.01)
    await enforcer.add_policy("role:r", "document", f"lire{number}", "allow")
    await asyncio.sleep(0.3)

async def second():
    import redis.asyncio
    client = redis.asyncio.from_url(sys.argv[2])
    listener = client.pubsub()
    await listener.psubscribe("fastapi_acl:*")
    await write(2)
    said = [await listener.get_message(timeout=0.2) for _ in range(3)]
    print(sum(one is not None and one["type"] == "pmessage" for one in said), manager.health().watcher)
    await listener.aclose()
    await client.aclose()
    await manager.close()

asyncio.run(write(1))
asyncio.run(second())
"""


def test_changes_are_announced_from_the_next_event_loop_too(redis_server: RedisServer, sqlite_uri: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOST_LOOP, sqlite_uri, redis_server.uri()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout.split() == ["1", "connected"], done.stderr
