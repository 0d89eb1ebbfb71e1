"""Redis : des adresses de toutes les formes, des délais courts, et un disjoncteur qui ne fait attendre qu'une fois."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import SSLConnection

from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.redis import breaker as module
from fastapi_acl.shared.redis.breaker import (
    COMMAND_TIMEOUT_SECONDS,
    Breaker,
    RedisRefusedError,
    RedisUnavailableError,
)
from fastapi_acl.shared.redis.client import create_publisher, create_redis
from fastapi_acl.shared.sync.redis_watcher import RedisTransport
from tests.support.proxy import before
from tests.support.servers import RedisServer, SentinelServer
from tests.support.waits import PATIENCE_SECONDS, ends_first, until

FORMS: dict[str, type[Any]] = {
    "redis://hote:6379/0": Redis,
    "rediss://compte:secret@hote:6379/1": Redis,
    "unix:///run/redis.sock": Redis,
    "redis+sentinel://h1:26379,h2/service/2": Redis,
    "rediss+sentinel://:secret@h1:26379/service": Redis,
    "redis+cluster://h1:6379,h2:6380": RedisCluster,
    "rediss+cluster://compte:secret@h1": RedisCluster,
}


@pytest.mark.parametrize("url", FORMS)
def test_each_form_of_address_makes_a_client(url: str) -> None:
    assert isinstance(create_redis(url), FORMS[url])
    assert isinstance(create_publisher(url), Redis)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://hote",
        "redis://hote:port",
        "redis+sentinel://hote",
        "redis+sentinel://hote:x/s",
        "redis+cluster://",
        "redis+autre://h:tres-secret@h",
        "redis://:tres-secret/@h",
        "redis://:h:tres-secret@h:port",
        "redis://:tres-secret@h?inconnue=1",
        "rediss://:tres-secret@h?ssl_cert_reqs=peut-etre",
        "redis+sentinel://:tres-secret@h/service?inconnue=1",
        "redis+cluster://:tres-secret@h?inconnue=1",
        "redis://:tres-secret@h?decode_responses=1",
    ],
)
def test_an_address_of_no_form_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="redis\\+sentinel") as caught:
        create_redis(url)

    assert "tres" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["rediss://hote", "rediss+sentinel://hote/service"])
def test_the_name_of_a_tls_server_is_verified_unless_nothing_is(url: str) -> None:
    assert create_redis(url).connection_pool.make_connection().check_hostname
    assert not create_redis(f"{url}?ssl_cert_reqs=none").connection_pool.make_connection().check_hostname


def test_a_sentinel_is_asked_through_tls_too() -> None:
    manager = create_redis("rediss+sentinel://hote/service").connection_pool.sentinel_manager

    assert issubclass(manager.sentinels[0].connection_pool.connection_class, SSLConnection)


def test_an_address_of_several_servers_is_read_as_that_of_one() -> None:
    url = "redis+sentinel://compte:se%23cret@[::1]:26380,hote/service/2?health_check_interval=7"
    pool = create_redis(url).connection_pool

    assert [one.connection_pool.connection_kwargs["port"] for one in pool.sentinel_manager.sentinels] == [26380, 26379]
    assert {name: pool.connection_kwargs[name] for name in ("username", "password", "db", "health_check_interval")} == {
        "username": "compte",
        "password": "se#cret",
        "db": 2,
        "health_check_interval": 7,
    }


async def test_a_breaker_waits_once_then_answers_at_once_then_tries_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    breaker, calls = Breaker(open_seconds=1), list[int]()

    async def fail() -> None:
        calls.append(1)
        await asyncio.sleep(0)
        raise ConnectionError

    for _ in range(5):
        with pytest.raises(RedisUnavailableError):
            await breaker.call(fail)
    assert (len(calls), breaker.is_open) == (1, True)
    now.seconds = 1
    await asyncio.gather(*(breaker.call(fail) for _ in range(5)), return_exceptions=True)

    assert len(calls) == 2
    now.seconds = 2
    assert await breaker.call(lambda: asyncio.sleep(0, "réponse")) == "réponse"
    assert not breaker.is_open


async def test_a_cancelled_trial_lets_the_next_one_try() -> None:
    breaker = Breaker(open_seconds=0)
    with pytest.raises(RedisUnavailableError):
        await breaker.call(_raise)
    begun = asyncio.Event()

    async def last() -> None:
        begun.set()
        await asyncio.Event().wait()

    trial = asyncio.create_task(breaker.call(last))
    await begun.wait()
    trial.cancel()
    await asyncio.gather(trial, return_exceptions=True)

    assert await breaker.call(lambda: asyncio.sleep(0, "réponse")) == "réponse"


async def _raise() -> None:
    raise OSError


async def test_a_command_begun_before_the_outage_does_not_let_a_second_trial_in() -> None:
    breaker, trials = Breaker(open_seconds=0, limit_seconds=PATIENCE_SECONDS), list[int]()
    begun, fails, ends = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def late() -> None:
        begun.set()
        await fails.wait()
        raise OSError

    async def trial() -> None:
        trials.append(1)
        await ends.wait()

    calls = [asyncio.create_task(breaker.call(late))]
    await begun.wait()
    with pytest.raises(RedisUnavailableError):
        await breaker.call(_raise)
    calls.append(asyncio.create_task(breaker.call(trial)))
    await until(lambda: trials)
    fails.set()
    await asyncio.wait({calls[0]})
    for _ in range(10):
        with pytest.raises(RedisRefusedError):
            await breaker.call(trial)
    ends.set()
    await asyncio.gather(*calls, return_exceptions=True)

    assert trials == [1]


async def test_a_command_never_lasts_more_than_its_limit() -> None:
    with pytest.raises(RedisUnavailableError):
        await asyncio.wait_for(Breaker().call(asyncio.Event().wait), PATIENCE_SECONDS)


async def test_an_absent_cluster_is_an_outage() -> None:
    client = create_redis("redis+cluster://127.0.0.1:1")

    with pytest.raises(RedisUnavailableError):
        await Breaker().call(lambda: client.get("clé"))


async def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fastapi_acl")
    breaker = Breaker(open_seconds=0)
    for _ in range(5):
        with pytest.raises(RedisUnavailableError):
            await breaker.call(_raise)
    for _ in range(5):
        await breaker.call(lambda: asyncio.sleep(0))

    assert [record.getMessage() for record in caplog.records] == ["redis_unavailable: OSError", "redis_available"]


async def test_a_mistake_of_ours_is_not_an_outage() -> None:
    async def wrong() -> None:
        raise KeyError

    breaker = Breaker()
    with pytest.raises(KeyError):
        await breaker.call(wrong)

    assert not breaker.is_open


@pytest.fixture
async def frozen(own_redis: RedisServer) -> AsyncIterator[RedisTransport]:
    """Un transport dont le serveur accepte tout et ne répond plus à rien."""
    transport = RedisTransport(own_redis.uri())
    transport._breaker = Breaker(open_seconds=3_600)
    own_redis.freeze()
    yield transport
    own_redis.thaw()
    await transport.close()


async def test_a_frozen_server_costs_one_short_wait(frozen: RedisTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, run = list[int](), Breaker._run

    async def counted(self: Breaker, command: Callable[[], Awaitable[Any]]) -> Any:
        tries.append(1)
        return await run(self, command)

    monkeypatch.setattr(Breaker, "_run", counted)
    assert await ends_first(frozen.publish("essai", b"x"), 50 * COMMAND_TIMEOUT_SECONDS)
    await asyncio.gather(*(frozen.publish("essai", b"x") for _ in range(20)), return_exceptions=True)

    assert tries == [1], "une attente, puis plus aucune"


async def test_a_server_that_swallows_everything_costs_one_short_wait(own_redis: RedisServer) -> None:
    async with before(own_redis.uri()) as (uri, proxy):
        proxy.stalls = True
        transport = RedisTransport(uri)

        assert await ends_first(transport.publish("essai", b"x"), 50 * COMMAND_TIMEOUT_SECONDS)
        await transport.close()


@pytest.fixture
def cluster() -> Iterator[RedisServer]:
    """Une grappe d'un seul nœud."""
    server = RedisServer("--cluster-enabled", "yes")
    server.start()
    yield server
    server.close()


@pytest.fixture
def sentinel(own_redis: RedisServer) -> Iterator[RedisServer]:
    """Une sentinelle, qui connaît notre serveur."""
    server = SentinelServer(own_redis.port)
    server.start()
    yield server
    server.close()


async def test_a_cluster_carries_messages(cluster: RedisServer) -> None:
    node = create_publisher(cluster.uri())
    await node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
    await node.aclose()

    await _carries(f"redis+cluster://127.0.0.1:{cluster.port}")


async def test_a_sentinel_leads_to_the_master(sentinel: RedisServer) -> None:
    await _carries(f"redis+sentinel://127.0.0.1:{sentinel.port}/service/0")


async def _carries(url: str) -> None:
    """Vérifie qu'un message passe d'un transport à un autre."""
    transport = RedisTransport(url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(transport.close)
        messages = await stack.enter_async_context(transport.subscribe("essai"))
        await transport.publish("essai", b"bonjour")

        assert await asyncio.wait_for(anext(messages), PATIENCE_SECONDS) == b"bonjour"
