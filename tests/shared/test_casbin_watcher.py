"""Un exécuteur nu, celui de pycasbin ou le nôtre, tenu à jour par le guetteur de Casbin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from casbin import AsyncEnforcer
from casbin.persist.adapters.asyncio import AsyncFileAdapter

from fastapi_acl.engine.casbin.enforcer import PolicyEnforcer
from fastapi_acl.engine.casbin.watcher import CasbinWatcher
from fastapi_acl.shared.sync.redis_watcher import RedisTransport
from tests.support.servers import RedisServer
from tests.support.waits import until

MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
"""


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.mark.parametrize("kind", [AsyncEnforcer, PolicyEnforcer])
async def test_what_one_changes_calls_the_others_back(
    kind: Any, own_redis: RedisServer, tmp_path: Path, stack: AsyncExitStack
) -> None:
    (tmp_path / "model.conf").write_text(MODEL)
    (tmp_path / "policy.csv").write_text("")
    heard: list[list[Any]] = [[], []]
    enforcers = []
    for place in range(2):
        enforcer = kind(str(tmp_path / "model.conf"), AsyncFileAdapter(str(tmp_path / "policy.csv")))
        await enforcer.load_policy()
        watcher = CasbinWatcher(RedisTransport(own_redis.uri()), "secret partagé")
        watcher.set_update_callback(heard[place].append)
        enforcer.set_watcher(watcher)
        await watcher.start()
        stack.push_async_callback(watcher.close)
        enforcers.append(enforcer)
    await until(lambda: heard == [[["subscribed"]]] * 2)

    await enforcers[0].add_policy("ada", "document", "read")
    await enforcers[0].remove_policy("ada", "document", "read")

    await until(lambda: len(heard[1]) == 3)
    assert [said[0] for said in heard[1]] == ["subscribed", "add_policy", "remove_policy"]
    assert heard[1][1][1:3] == ["p", "p"]
    assert heard[0] == [["subscribed"]]


async def test_a_message_of_another_secret_calls_nobody(own_redis: RedisServer, stack: AsyncExitStack) -> None:
    heard: list[Any] = []
    mine, other, friend = (
        CasbinWatcher(RedisTransport(own_redis.uri()), secret) for secret in ("le mien", "un autre", "le mien")
    )
    mine.set_update_callback(heard.append)
    for watcher in (mine, other, friend):
        stack.push_async_callback(watcher.close)
    await mine.start()
    await until(lambda: bool(heard))

    await other.update()
    await friend.update_for_add_policies("p", "p", [["x" * 300_000]])

    await until(lambda: len(heard) == 2)
    assert heard == [["subscribed"], ["update"]]


async def test_a_subscription_lost_and_found_calls_back(own_redis: RedisServer, stack: AsyncExitStack) -> None:
    calls: list[int] = []
    watcher = CasbinWatcher(RedisTransport(own_redis.uri()), "secret")
    stack.push_async_callback(watcher.close)

    async def load_policy() -> None:
        calls.append(1)

    watcher.set_update_callback(load_policy)
    await watcher.start()
    await until(lambda: len(calls) == 1)

    await asyncio.to_thread(own_redis.stop)
    await watcher.update()
    await asyncio.to_thread(own_redis.start)

    await until(lambda: len(calls) >= 2)
