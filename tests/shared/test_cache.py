"""Le cache : une même suite pour la mémoire et pour Redis, puis ce qui arrive quand Redis ralentit, tombe ou ment."""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import random
import signal
import string
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from fastapi_acl.shared.cache.base import MAX_KEY_BYTES, MAX_VALUE_BYTES, CacheBackend, CacheKey, ValueSealer
from fastapi_acl.shared.cache.factory import CacheFactory
from fastapi_acl.shared.cache.memory_cache import MemoryCache
from fastapi_acl.shared.cache.redis_cache import MAX_COMMANDS, FallbackCache, RedisCache
from fastapi_acl.shared.config import ACLConfig
from fastapi_acl.shared.redis.breaker import COMMAND_TIMEOUT_SECONDS, Breaker
from fastapi_acl.shared.redis.client import create_redis
from fastapi_acl.shared.sync.redis_watcher import RedisTransport
from fastapi_acl.shared.sync.watcher import WatcherError
from tests.conftest import launched
from tests.support.proxy import before
from tests.support.servers import RedisServer, SentinelServer, TLSRedisServer
from tests.support.waits import PATIENCE_SECONDS, ends_first, until

PREFIX = "acl:essai:"
SEALER = ValueSealer(["secret"])
OPEN_SECONDS = 0.2
NEVER = 3_600
"""Un disjoncteur qui ne retente que quand l'essai le veut."""

KEY = CacheKey.of("essai", "clé")
VALUES: list[Any] = [True, False, 0, -7, 1.5, "", "é😀\x00\ud800", [], [1, None, "a"], {}, {"a": {"b": [None]}}]

parts = st.lists(st.text(alphabet="0123456789:ab\ud800é{}%", max_size=6), max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


class CountedBreaker(Breaker):
    """Un disjoncteur qui compte ce qu'il laisse partir, et qui retente quand l'essai le veut.

    Attributes:
        tries: commandes parties.
    """

    tries = 0

    async def _run(self, command: Callable[[], Awaitable[Any]]) -> Any:
        self.tries += 1
        return await super()._run(command)

    def try_now(self) -> None:
        self._until = float("-inf")


def breaker_of(cache: FallbackCache) -> CountedBreaker:
    breaker: Any = cache._redis._breaker
    return breaker


@asynccontextmanager
async def opened(
    url: str, open_seconds: float = OPEN_SECONDS, limit_seconds: float = 10
) -> AsyncIterator[FallbackCache]:
    """Un cache dans Redis, dont le disjoncteur retente vite ; une machine lente n'est pas une panne de Redis."""
    async with AsyncExitStack() as stack:
        breaker = CountedBreaker(open_seconds, limit_seconds=limit_seconds)
        redis = RedisCache(lambda: create_redis(url, command_timeout=limit_seconds), breaker, PREFIX, sealer=SEALER)
        cache = FallbackCache(redis, MemoryCache())
        stack.push_async_callback(cache.close)
        yield cache


@asynccontextmanager
async def administered(url: str) -> AsyncIterator[Redis]:
    """Un client qui voit Redis tel qu'il est."""
    client: Redis = Redis.from_url(url)
    yield client
    await client.aclose()


@pytest.fixture
async def raw(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """Le Redis de la session, vidé."""
    async with administered(redis_server.uri()) as client:
        await client.flushall()
        yield client


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, redis_server: RedisServer, raw: Redis) -> AsyncIterator[CacheBackend]:
    """Chacun des deux caches, vide."""
    async with opened(redis_server.uri()) as shared:
        yield shared if request.param == "redis" else MemoryCache()
    await raw.flushall()


@pytest.fixture
async def own(own_redis: RedisServer) -> AsyncIterator[FallbackCache]:
    """Un cache sur un Redis que l'essai peut abattre."""
    async with opened(own_redis.uri()) as found:
        yield found


async def returns(cache: FallbackCache) -> None:
    """Attend que Redis serve de nouveau."""

    async def is_back() -> bool:
        breaker_of(cache).try_now()
        await cache.get(CacheKey.of("retour"))
        return cache.status == "redis"

    await until(is_back)


# Les clés et les enveloppes


@settings(max_examples=600, deadline=None)
@given(st.text(max_size=4), parts, st.text(max_size=4), parts)
def test_two_keys_never_collide(one: str, ones: list[str], other: str, others: list[str]) -> None:
    first, second = CacheKey.of(one, *ones), CacheKey.of(other, *others)

    assert (first.encode_parts() == second.encode_parts()) == (first == second)


@settings(max_examples=300, deadline=None)
@given(parts, st.integers(0, 3))
def test_the_same_text_cut_elsewhere_is_another_key(pieces: list[str], where: int) -> None:
    text = "".join(pieces)
    cut = CacheKey.of("n", text[:where], text[where:])

    assert (cut.encode_parts() == CacheKey.of("n", *pieces).encode_parts()) == (cut.parts == tuple(pieces))


def test_a_million_dense_pairs_of_keys_never_collide() -> None:
    words = ["", "1", ":", "1:", "1:1", "a", "{a}", "a" * MAX_KEY_BYTES, "a" * (MAX_KEY_BYTES + 1), "\ud800", "sha256:"]
    keys = {CacheKey.of(*pieces) for count in (1, 2, 3) for pieces in itertools.product(words, repeat=count)}

    assert len(keys) ** 2 > 1_000_000
    assert len({key.encode_parts() for key in keys}) == len(keys)


def test_a_long_key_is_short_once_written() -> None:
    assert len(CacheKey.of("n", "x" * 1_000_000).encode_parts()) <= MAX_KEY_BYTES


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_a_value_reads_back_as_it_was(value: Any) -> None:
    assert SEALER.unseal(b"n", SEALER.seal(b"n", value)) == value


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_junk_is_a_miss(junk: bytes, has_a_version: bool) -> None:
    assert SEALER.unseal(b"n", b"acl2" + junk if has_a_version else junk) is None


def test_a_value_whose_name_lends_it_a_digit_is_a_miss() -> None:
    sealed = SEALER.seal(b"11", 2) or b""

    assert SEALER.unseal(b"1", sealed[:-1] + b"12") is None


def test_a_value_moved_to_another_key_is_a_miss() -> None:
    assert SEALER.unseal(b"b", SEALER.seal(b"a", "x")) is None


def test_a_value_sealed_with_another_secret_is_a_miss_and_with_an_older_one_is_read() -> None:
    sealed = ValueSealer(["ancien"]).seal(b"n", "x")

    assert ValueSealer(["autre"]).unseal(b"n", sealed) is None
    assert ValueSealer().unseal(b"n", sealed) is None
    assert ValueSealer(["nouveau", "ancien"]).unseal(b"n", sealed) == "x"


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 60_000, b"\xff", b"9" * 5000, b"NaN x"])
def test_a_well_sealed_forgery_that_is_not_json_is_a_miss(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "dumps", lambda *_, **__: body.decode("latin-1"))
    forged = SEALER.seal(b"n", "x")

    assert SEALER.unseal(b"n", forged) is None


# Ce que les deux caches promettent


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_value_is_kept_as_it_is(cache: CacheBackend, value: Any) -> None:
    await cache.set(KEY, value)

    found = await cache.get(KEY)
    assert found == value
    assert type(found) is type(value)


async def test_what_was_never_kept_is_a_miss(cache: CacheBackend) -> None:
    assert await cache.get(KEY) is None
    assert await cache.take(KEY) is None
    await cache.delete(KEY)


async def test_a_value_read_and_changed_is_not_changed_in_the_cache(cache: CacheBackend) -> None:
    await cache.set(KEY, ["a"])
    found = await cache.get(KEY)
    assert isinstance(found, list)
    found.append("b")

    assert await cache.get(KEY) == ["a"]


async def test_a_value_lasts_its_time_and_no_more(cache: CacheBackend) -> None:
    async def is_gone() -> bool:
        return await cache.get(KEY) is None

    async def is_new() -> bool:
        return await cache.increment(CacheKey.of("compte"), 1, ttl=0.15) == 1

    await cache.set(CacheKey.of("long"), 1, ttl=3_600)
    await cache.increment(CacheKey.of("long compte"), 1, ttl=3_600)
    await cache.set(KEY, 1, ttl=0.15)
    assert await is_new()
    await until(is_gone)
    await until(is_new)

    assert await cache.take(KEY) is None
    assert await cache.get(CacheKey.of("long")) == 1
    assert await cache.increment(CacheKey.of("long compte"), 1, ttl=3_600) == 2


async def test_a_deleted_value_is_gone(cache: CacheBackend) -> None:
    await cache.set(KEY, 1)
    await cache.increment(CacheKey.of("compte"), 5, ttl=9)

    await cache.delete(KEY)
    await cache.delete(CacheKey.of("compte"))

    assert await cache.get(KEY) is None
    assert await cache.increment(CacheKey.of("compte"), 1, ttl=9) == 1


async def test_a_value_too_large_is_not_kept_nor_the_one_before(cache: CacheBackend) -> None:
    await cache.set(KEY, "avant")

    await cache.set(KEY, "x" * MAX_VALUE_BYTES)

    assert await cache.get(KEY) is None
    await cache.set(KEY, "x" * (MAX_VALUE_BYTES - 100))
    assert await cache.get(KEY) is not None


def test_a_value_too_large_is_not_even_sealed() -> None:
    sealer = ValueSealer(["secret"])

    assert sealer.seal(b"nom", "x" * MAX_VALUE_BYTES) is None
    assert sealer.seal(b"nom", "x" * (MAX_VALUE_BYTES - 100)) is not None


@pytest.mark.parametrize("value", [{1, 2}, b"x", float("nan"), float("inf")])
async def test_what_is_not_json_is_refused(cache: CacheBackend, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        await cache.set(KEY, value)

    assert cache.status in {"memory", "redis"}


async def test_additions_made_at_once_are_all_counted(cache: CacheBackend) -> None:
    totals = await asyncio.gather(*(cache.increment(KEY, 1, ttl=30) for _ in range(300)))

    assert sorted(totals) == list(range(1, 301))
    assert cache.status in {"memory", "redis"}


async def test_an_addition_does_not_make_a_counter_last_longer(cache: CacheBackend) -> None:
    assert await cache.increment(KEY, 1, ttl=0.3) == 1

    async def starts_again() -> bool:
        return await cache.increment(KEY, 1, ttl=0.3) == 1

    await until(starts_again, pause=0.02)  # prolongé à chaque addition, il ne finirait jamais


async def test_of_fifty_takers_exactly_one_gets_it(cache: CacheBackend) -> None:
    for round_ in range(10):
        await cache.set(KEY, round_ + 1)

        taken = await asyncio.gather(*(cache.take(KEY) for _ in range(50)))

        assert [found for found in taken if found is not None] == [round_ + 1]


async def test_a_value_and_a_counter_of_one_key_replace_one_another(cache: CacheBackend) -> None:
    await cache.set(KEY, "valeur")
    assert await cache.increment(KEY, 3, ttl=9) == 3
    assert await cache.get(KEY) is None
    assert await cache.increment(KEY, 3, ttl=9) == 6

    await cache.set(KEY, "valeur")

    assert await cache.get(KEY) == "valeur"


# La mémoire est bornée


async def test_a_full_memory_loses_what_was_unused_the_longest() -> None:
    cache = MemoryCache(max_entries=3)
    for name in "abc":
        await cache.set(CacheKey.of(name), name)
    await cache.get(CacheKey.of("a"))

    await cache.set(CacheKey.of("d"), "d")

    assert [await cache.get(CacheKey.of(name)) for name in "abcd"] == ["a", None, "c", "d"]


async def test_a_flood_of_values_erases_no_counter() -> None:
    cache = MemoryCache(max_entries=100)
    await cache.increment(KEY, 7, ttl=60)

    for number in range(1000):
        await cache.set(CacheKey.of("flot", str(number)), number)

    assert await cache.increment(KEY, 1, ttl=60) == 8
    assert len(cache) == 100


async def test_a_flood_of_counters_stays_within_the_bound_and_spares_the_one_in_use() -> None:
    cache = MemoryCache(max_entries=100)

    for number in range(1000):
        await cache.increment(KEY, 1, ttl=60)
        await cache.increment(CacheKey.of("flot", str(number)), 1, ttl=60)

    assert await cache.increment(KEY, 1, ttl=60) == 1001
    assert len(cache) == 100


# Redis partagé, abîmé, plein


@pytest.mark.usefixtures("raw")
async def test_two_processes_share_counters_and_challenges(redis_server: RedisServer) -> None:
    async with opened(redis_server.uri()) as one, opened(redis_server.uri()) as other:
        await one.set(KEY, "défi")
        taken = await asyncio.gather(*((one, other)[number % 2].take(KEY) for number in range(50)))
        totals = await asyncio.gather(*((one, other)[number % 2].increment(KEY, 1, 30) for number in range(100)))

    assert [found for found in taken if found is not None] == ["défi"]
    assert sorted(totals) == list(range(1, 101))


async def test_more_commands_than_connections_are_not_an_outage(redis_server: RedisServer, raw: Redis) -> None:
    async with opened(redis_server.uri()) as cache:
        await asyncio.gather(*(cache.increment(KEY, 1, 30) for _ in range(1000)))

        assert cache.status == "redis"
        assert await cache.increment(KEY, 1, 30) == 1001
        assert len(await raw.client_list()) <= MAX_COMMANDS + 2


async def test_a_counter_without_a_deadline_is_given_one(redis_server: RedisServer, raw: Redis) -> None:
    async with opened(redis_server.uri()) as cache:
        await raw.set(PREFIX.encode() + KEY.encode_parts(), 4)

        assert await cache.increment(KEY, 1, 30) == 5
        assert 0 < await raw.ttl(PREFIX.encode() + KEY.encode_parts()) <= 30


async def corrupt(raw: Redis, how: str, name: bytes, chance: random.Random) -> None:
    """Abîme une valeur dans Redis."""
    content = await raw.get(name) or b""
    place = chance.randrange(len(content))
    if how == "retype":
        await raw.delete(name)
        await RETYPED[place % len(RETYPED)](raw, name)
        return
    changed = {
        "flip": content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :],
        "truncate": content[:place],
        "version": b"acl1" + content[4:],
        "junk": chance.randbytes(1_048_576 if place == 0 else chance.randrange(200)),
        "move": await raw.get(PREFIX.encode() + KEY.encode_parts()) or b"",
    }
    await raw.set(name, changed[how])


CORRUPTIONS = ("flip", "truncate", "retype", "version", "junk", "move")
RETYPED: list[Callable[[Redis, bytes], Any]] = [
    lambda raw, name: raw.hset(name, "a", "b"),
    lambda raw, name: raw.zadd(name, {"a": 1}),
    lambda raw, name: raw.rpush(name, "a"),
    lambda raw, name: raw.sadd(name, "a"),
    lambda raw, name: raw.xadd(name, {"a": "b"}),
    lambda raw, name: raw.setbit(name, 4_000_000, 1),
]


@pytest.mark.parametrize("how", CORRUPTIONS)
async def test_a_corrupted_value_is_a_miss_and_never_an_error(redis_server: RedisServer, raw: Redis, how: str) -> None:
    chance = random.Random(how)
    async with opened(redis_server.uri()) as cache:
        await cache.set(KEY, "une autre valeur")
        for number in range(600):
            key = CacheKey.of("abîmée", str(number))
            await cache.set(key, {"numéro": number, "texte": "".join(chance.choices(string.printable, k=20))})
            await corrupt(raw, how, PREFIX.encode() + key.encode_parts(), chance)

            assert await (cache.get(key) if number % 2 else cache.take(key)) is None
            assert await cache.increment(key, 2, 30) == 2
            assert cache.status == "redis"


async def test_a_full_redis_is_as_an_absent_one(own: FallbackCache, own_redis: RedisServer) -> None:
    async with administered(own_redis.uri()) as raw:
        await own.set(CacheKey.of("avant"), 1)
        await raw.config_set("maxmemory-policy", "noeviction")
        await raw.config_set("maxmemory", 1)

        await own.set(KEY, "perdue")
        await own.set(KEY, "en mémoire")
        assert [await own.increment(CacheKey.of("compte"), 1, 30) for _ in range(50)] == list(range(1, 51))

        assert own.status == "redis_fallback"
        assert await own.get(KEY) == "en mémoire"
        await raw.config_set("maxmemory", 0)
        await returns(own)


# Redis lent, figé, abattu

STALLS: dict[str, Callable[[Any, RedisServer], None]] = {
    "latency": lambda proxy, _: setattr(proxy, "latency", 2),
    "blackhole": lambda proxy, _: setattr(proxy, "stalls", True),
    "stop": lambda _, server: server.freeze(),
}


@pytest.mark.parametrize("is_connected", [True, False])
@pytest.mark.parametrize("how", STALLS)
async def test_a_stalled_redis_costs_one_short_wait_then_nothing(
    own_redis: RedisServer, how: str, is_connected: bool
) -> None:
    async with before(own_redis.uri()) as (url, proxy), opened(url, NEVER, COMMAND_TIMEOUT_SECONDS) as cache:
        if is_connected:
            await returns(cache)
            await cache.set(KEY, "avant")
        STALLS[how](proxy, own_redis)
        breaker = breaker_of(cache)
        before_it = breaker.tries

        assert await ends_first(cache.get(KEY), 50 * COMMAND_TIMEOUT_SECONDS)
        for _ in range(200):
            await cache.get(KEY)
        await cache.set(KEY, "pendant")

        assert breaker.tries <= before_it + 1, "une attente, puis plus aucune"
        assert (cache.status, await cache.get(KEY)) == ("redis_fallback", "pendant")
        proxy.heal()
        own_redis.thaw()
        await returns(cache)
        assert await cache.get(KEY) is None


async def test_a_crowd_before_a_stalled_redis_waits_no_longer_than_one(own_redis: RedisServer) -> None:
    async with opened(own_redis.uri(), limit_seconds=COMMAND_TIMEOUT_SECONDS) as cache:
        await cache.set(KEY, "avant")
        own_redis.freeze()

        crowd = asyncio.gather(*(cache.increment(KEY, 1, 30) for _ in range(500)))
        assert await ends_first(crowd, 250 * COMMAND_TIMEOUT_SECONDS), "et non cinq cents fois"

        own_redis.thaw()


async def test_while_redis_is_down_one_command_at_a_time_tries_it(own_redis: RedisServer) -> None:
    async with before(own_redis.uri()) as (url, proxy), opened(url, NEVER, COMMAND_TIMEOUT_SECONDS) as cache:
        proxy.stalls = True
        await cache.get(KEY)
        breaker = breaker_of(cache)
        assert breaker.tries == 1
        breaker.try_now()

        await asyncio.gather(*(cache.get(KEY) for _ in range(50)))

        assert breaker.tries == 2


async def test_a_redis_killed_and_restarted_is_used_again_each_time(own: FallbackCache, own_redis: RedisServer) -> None:
    for round_ in range(5):
        await asyncio.gather(*(own.increment(CacheKey.of("compte", str(number)), 1, 30) for number in range(60)))
        assert own.status == "redis"
        own_redis.stop(signal.SIGKILL)

        totals = [await own.increment(KEY, 1, 30) for _ in range(20)]
        assert (own.status, totals) == ("redis_fallback", list(range(1, 21)))
        own_redis.start()
        await returns(own)

        await own.set(KEY, round_)
        assert await own.get(KEY) == round_
        await own.delete(KEY)


# Le repli, et le retour


@pytest.fixture
async def cut(own_redis: RedisServer) -> AsyncIterator[tuple[FallbackCache, Any]]:
    """Un cache dont l'essai coupe et rend Redis, qui garde ses valeurs."""
    async with before(own_redis.uri()) as (url, proxy), opened(url) as cache:
        yield cache, proxy


async def fall(cache: FallbackCache, proxy: Any) -> None:
    """Coupe Redis, et le fait remarquer."""
    proxy.refuses = True
    proxy.reset()
    await cache.get(CacheKey.of("chute"))
    assert cache.status == "redis_fallback"


async def test_what_memory_kept_meanwhile_is_forgotten_on_return(cut: tuple[FallbackCache, Any]) -> None:
    cache, proxy = cut
    await cache.set(CacheKey.of("avant"), "avant")
    await fall(cache, proxy)
    await cache.set(KEY, "pendant")
    assert await cache.get(KEY) == "pendant"

    proxy.heal()
    await returns(cache)

    assert await cache.get(KEY) is None
    assert await cache.get(CacheKey.of("avant")) == "avant"
    await fall(cache, proxy)
    assert await cache.get(KEY) is None, "une seconde panne ne retrouve pas ce que la première a gardé"


async def test_a_value_deleted_or_changed_while_redis_was_away_does_not_come_back(
    cut: tuple[FallbackCache, Any],
) -> None:
    cache, proxy = cut
    keys = [CacheKey.of("ancienne", str(number)) for number in range(1200)]
    for key in keys:
        await cache.set(key, "ancienne")
    await fall(cache, proxy)
    for key in keys[:600]:
        await cache.delete(key)
    for key in keys[600:]:
        await cache.set(key, "nouvelle")

    proxy.heal()
    await returns(cache)

    assert {await cache.get(key) for key in keys} == {None}


async def test_a_counter_goes_on_where_redis_left_it(cut: tuple[FallbackCache, Any]) -> None:
    cache, proxy = cut
    assert await cache.increment(KEY, 5, 60) == 5
    await fall(cache, proxy)
    assert await cache.increment(KEY, 1, 60) == 1

    proxy.heal()
    await returns(cache)

    assert await cache.increment(KEY, 1, 60) == 6


async def test_a_challenge_whose_writing_got_no_answer_is_never_taken_twice(own_redis: RedisServer) -> None:
    async with before(own_redis.uri()) as (url, proxy), opened(url) as cut_off, opened(own_redis.uri()) as other:
        await cut_off.get(KEY)
        proxy.arm(1, forwarded=True)
        await cut_off.set(KEY, "défi")

        taken = [await other.take(KEY), await cut_off.take(KEY), await cut_off.take(KEY)]

        assert taken == ["défi", None, None]


async def test_a_challenge_kept_while_redis_is_away_is_taken_once(cut: tuple[FallbackCache, Any]) -> None:
    cache, proxy = cut
    await fall(cache, proxy)
    await cache.set(KEY, "défi")

    taken = await asyncio.gather(*(cache.take(KEY) for _ in range(50)))

    assert [found for found in taken if found is not None] == ["défi"]
    proxy.heal()
    await returns(cache)
    assert await cache.take(KEY) is None


async def test_nothing_fails_while_redis_comes_and_goes(cut: tuple[FallbackCache, Any]) -> None:
    cache, proxy = cut
    ends = time.monotonic() + 1

    async def work(number: int) -> None:
        key = CacheKey.of("travail", str(number % 5))
        while time.monotonic() < ends:
            await cache.set(key, number % 5)
            assert await cache.get(key) in {None, number % 5}
            assert await cache.increment(CacheKey.of("compte"), 1, 60) > 0
            await cache.delete(key)
            await asyncio.sleep(0.005)

    async def trouble() -> None:
        while time.monotonic() < ends:
            proxy.refuses = not proxy.refuses
            proxy.reset()
            await asyncio.sleep(0.1)
        proxy.heal()

    await asyncio.gather(trouble(), *(work(number) for number in range(20)))
    await returns(cache)


async def test_suspect_keys_are_bounded_while_redis_is_away(
    cut: tuple[FallbackCache, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi_acl.shared.cache.redis_cache.MAX_SUSPECTS", 100)
    cache, proxy = cut
    await fall(cache, proxy)

    for number in range(300):
        await cache.delete(CacheKey.of("suspecte", str(number)))

    assert len(cache._suspects) == 100


# Toutes les formes de Redis, et la configuration


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[str]:
    """L'adresse d'une grappe d'un seul nœud."""
    for server in launched(request.config, lambda: RedisServer("--cluster-enabled", "yes")):
        with redis.Redis.from_url(server.uri()) as node:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            while node.cluster("INFO")["cluster_state"] != "ok":
                time.sleep(0.02)
        yield f"redis+cluster://127.0.0.1:{server.port}"


@pytest.fixture
def sentinel(request: pytest.FixtureRequest, own_redis: RedisServer) -> Iterator[str]:
    """L'adresse d'une sentinelle."""
    for server in launched(request.config, lambda: SentinelServer(own_redis.port)):
        yield f"redis+sentinel://127.0.0.1:{server.port}/service/0"


@pytest.fixture
def tls(request: pytest.FixtureRequest) -> Iterator[str]:
    """L'adresse d'un Redis derrière TLS."""
    for server in launched(request.config, TLSRedisServer):
        yield server.uri()


@pytest.fixture
def password(request: pytest.FixtureRequest) -> Iterator[str]:
    """L'adresse d'un Redis gardé par un mot de passe."""
    for server in launched(request.config, lambda: RedisServer("--requirepass", "se/cret")):
        yield f"redis://:se%2Fcret@127.0.0.1:{server.port}/0"


@pytest.fixture
def socket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """L'adresse d'un Redis sur une prise locale."""
    for _ in launched(request.config, lambda: RedisServer("--unixsocket", str(tmp_path / "s"))):
        yield f"unix://{tmp_path / 's'}"


@pytest.mark.parametrize("form", ["cluster", "sentinel", "tls", "password", "socket"])
async def test_each_form_of_redis_serves_the_cache(request: pytest.FixtureRequest, form: str) -> None:
    async with opened(request.getfixturevalue(form)) as cache:
        await cache.set(KEY, "valeur")

        assert await cache.get(KEY) == "valeur"
        totals = await asyncio.gather(*(cache.increment(CacheKey.of("compte"), 1, 30) for _ in range(9)))
        assert sorted(totals) == list(range(1, 10))
        assert [await cache.take(KEY), await cache.take(KEY)] == ["valeur", None]
        await cache.set(KEY, "valeur")
        await cache.delete(KEY)
        assert await cache.get(KEY) is None
        assert cache.status == "redis"


async def test_a_cluster_comes_back_and_forgets_what_changed(cluster: str) -> None:
    async with before(cluster.replace("+cluster", "")) as (_, proxy), opened(cluster) as cache:
        keys = [CacheKey.of("ancienne", str(number)) for number in range(50)]
        for key in keys:
            await cache.set(key, "ancienne")
        cache._redis._breaker._fail("essai")
        for key in keys:
            await cache.delete(key)
        assert (cache.status, proxy.chunks) == ("redis_fallback", 0)

        await returns(cache)

        assert {await cache.get(key) for key in keys} == {None}


async def test_announcements_travel_through_tls_too(tls: str) -> None:
    transport = RedisTransport(tls)
    transport._breaker = Breaker(limit_seconds=PATIENCE_SECONDS)

    async def travels() -> bool:
        with suppress(WatcherError):  # l'abonnement n'a qu'un battement, que qui écoute recommence
            async with transport.subscribe("essai") as messages:
                await transport.publish("essai", b"annonce")
                return await asyncio.wait_for(messages.__anext__(), PATIENCE_SECONDS) == b"annonce"
        return False

    await until(travels)
    await transport.close()


@pytest.mark.parametrize("query", ["", "?ssl_cert_reqs=required"])
async def test_a_certificate_of_nobody_we_know_is_refused(tls: str, query: str) -> None:
    async with opened(f"{tls.partition('?')[0]}{query}") as cache:
        await cache.get(KEY)

        assert cache.status == "redis_fallback"


@pytest.mark.parametrize(("query", "status"), [("", "redis_fallback"), ("&ssl_check_hostname=false", "redis")])
async def test_a_certificate_of_another_name_is_refused(tls: str, query: str, status: str) -> None:
    async with opened(tls.replace("127.0.0.1", "localhost") + query) as cache:
        await cache.get(KEY)

        assert cache.status == status


def test_the_cache_is_that_of_the_configuration() -> None:
    shared: dict[str, Any] = {"cache_backend": "redis", "redis_url": "redis://hote:6379/0"}

    assert CacheFactory(ACLConfig()).create().status == "memory"
    assert CacheFactory(ACLConfig(enable_cache=True)).create().status == "memory"
    assert CacheFactory(ACLConfig(**shared)).create().status == "memory"
    assert CacheFactory(ACLConfig(enable_cache=True, **shared)).create().status == "redis"


async def test_the_configured_cache_keeps_values_for_the_configured_time(redis_server: RedisServer, raw: Redis) -> None:
    given: dict[str, Any] = {"enable_cache": True, "cache_backend": "redis", "redis_url": redis_server.uri()}
    cache = CacheFactory(ACLConfig(cache_ttl=40, **given)).create()
    await cache.set(KEY, 1)
    (name,) = await raw.keys()

    assert 35 < await raw.ttl(name) <= 40
    await cache.close()


@pytest.mark.usefixtures("raw")
async def test_two_applications_in_one_redis_do_not_meet(redis_server: RedisServer) -> None:
    given: dict[str, Any] = {"enable_cache": True, "cache_backend": "redis", "redis_url": redis_server.uri()}
    given["jwt_secret_key"] = "s" * 48
    one, other = (
        CacheFactory(ACLConfig(_env_file=None, jwt_issuer=name, **given)).create() for name in ("une", "autre")
    )
    same = CacheFactory(ACLConfig(_env_file=None, jwt_issuer="une", **given)).create()

    await one.set(KEY, 1)
    counted = [await cache.increment(CacheKey.of("compte"), 1, 30) for cache in (one, other)]

    assert (await other.get(KEY), await same.get(KEY)) == (None, 1)
    assert counted == [1, 1]
    await same.close()
    await asyncio.gather(one.close(), other.close())


async def test_a_configured_redis_that_never_answered_is_replaced_by_memory() -> None:
    cache = CacheFactory(
        ACLConfig(enable_cache=True, cache_backend="redis", redis_url="redis://127.0.0.1:1/0")
    ).create()

    totals = [await cache.increment(KEY, 1, 30) for _ in range(3)]

    assert (totals, cache.status) == ([1, 2, 3], "redis_fallback")
    await cache.close()


NONSENSE = [b":x\r\n", b"$x\r\n", b"*1\r\n" * 3000 + b":1\r\n", b":5\r\n", b"*1\r\n$1\r\na\r\n", b"?\r\n", b"+OK\r\n"]


@pytest.mark.parametrize("reply", NONSENSE, ids=lambda reply: repr(reply[:8]))
async def test_what_answers_nonsense_in_place_of_redis_costs_no_error(reply: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(65_536):
            is_ours = any(command in received for command in (b"GETRANGE", b"EVAL", b"SET"))
            writer.write(reply if is_ours else b"+OK\r\n" * (received.count(b"\r\n*") + 1))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, opened(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as cache:
        await cache.set(KEY, "valeur")

        assert await cache.get(KEY) in {None, "valeur"}
        assert await cache.take(KEY) in {None, "valeur"}
        assert isinstance(await cache.increment(KEY, 1, 30), int)


TWO_LOOPS = """
import asyncio, sys
from fastapi_acl.shared.cache.base import CacheKey, ValueSealer
from fastapi_acl.shared.cache.memory_cache import MemoryCache
from fastapi_acl.shared.cache.redis_cache import FallbackCache, RedisCache
from fastapi_acl.shared.redis.breaker import Breaker
from fastapi_acl.shared.redis.client import create_redis

made, breaker = lambda: create_redis(sys.argv[1], command_timeout=60), Breaker(limit_seconds=60)
redis = RedisCache(made, breaker, "acl:essai:", sealer=ValueSealer(["secret"]))
cache, key = FallbackCache(redis, MemoryCache()), CacheKey.of("boucle")

async def crowd():
    await cache.set(key, "valeur")
    return {*await asyncio.gather(*(cache.get(key) for _ in range(100))), cache.status}

print(asyncio.run(crowd()))
cache.abandon()
print(asyncio.run(crowd()))
"""


def test_the_connections_of_a_loop_that_is_gone_are_left_behind(redis_server: RedisServer) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TWO_LOOPS, redis_server.uri()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert [set(ast.literal_eval(line)) for line in done.stdout.splitlines()] == [{"valeur", "redis"}] * 2
    assert (done.returncode, done.stderr) == (0, "")
