"""Redis : des adresses de toutes les formes, des délais courts, et un disjoncteur qui ne fait attendre qu'une fois."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.redis import Breaker, RedisUnavailableError, create_publisher, create_redis
from fastapi_acl.shared.sync.redis_watcher import RedisTransport
from tests.support.proxy import before
from tests.support.servers import RedisServer, SentinelServer

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
    ],
)
def test_an_address_of_no_form_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="redis\\+sentinel") as caught:
        create_redis(url)

    assert "tres-secret" not in str(caught.value)


async def test_a_breaker_waits_once_then_answers_at_once_then_tries_one() -> None:
    breaker, calls = Breaker(open_seconds=0.1), list[int]()

    async def fail() -> None:
        calls.append(1)
        await asyncio.sleep(0.01)
        raise ConnectionError

    for _ in range(5):
        with pytest.raises(RedisUnavailableError):
            await breaker.call(fail)
    assert (len(calls), breaker.is_open) == (1, True)
    await asyncio.sleep(0.12)
    await asyncio.gather(*(breaker.call(fail) for _ in range(5)), return_exceptions=True)

    assert len(calls) == 2
    await asyncio.sleep(0.12)
    assert await breaker.call(lambda: asyncio.sleep(0, "réponse")) == "réponse"
    assert not breaker.is_open


async def test_a_cancelled_trial_lets_the_next_one_try() -> None:
    breaker = Breaker(open_seconds=0)
    with pytest.raises(RedisUnavailableError):
        await breaker.call(_raise)
    trial = asyncio.create_task(breaker.call(lambda: asyncio.sleep(5)))
    await asyncio.sleep(0.01)
    trial.cancel()
    await asyncio.gather(trial, return_exceptions=True)

    assert await breaker.call(lambda: asyncio.sleep(0, "réponse")) == "réponse"


async def _raise() -> None:
    raise OSError


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
    await transport.publish(b"bonjour")
    own_redis.freeze()
    yield transport
    own_redis.thaw()
    await transport.close()


async def test_a_frozen_server_costs_one_short_wait(frozen: RedisTransport) -> None:
    durations = [await _timed(lambda: frozen.publish(b"x")) for _ in range(20)]

    assert durations[0] < 1.5
    assert sorted(durations)[10] < 0.05


async def test_a_server_that_swallows_everything_costs_one_short_wait(own_redis: RedisServer) -> None:
    async with before(own_redis.uri()) as (uri, proxy):
        proxy.stalls = True
        transport = RedisTransport(uri)

        assert await _timed(lambda: transport.publish(b"x")) < 2
        await transport.close()


async def _timed(work: Callable[[], Awaitable[Any]]) -> float:
    """Rend la durée d'un travail, qu'il échoue ou non."""
    started = time.monotonic()
    await asyncio.gather(work(), return_exceptions=True)
    return time.monotonic() - started


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
        messages = await stack.enter_async_context(transport.subscribed())
        await transport.publish(b"bonjour")

        assert await asyncio.wait_for(anext(messages), 5) == b"bonjour"
