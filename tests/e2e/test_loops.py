"""Des boucles d'événements qui se croisent, ou se suivent : une erreur qui dit quoi faire, et rien qui reste."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_acl import ACLManager
from fastapi_acl.shared.cache.base import CacheKey
from fastapi_acl.shared.exceptions import WrongLoopError
from tests.conftest import DATABASES
from tests.support.app import PASSWORD, config, serve
from tests.support.connections import connections
from tests.support.effort import effort
from tests.support.servers import RedisServer
from tests.support.waits import until_outside

RULE = ("role:r", "doc", "read", "allow")
RUNS = effort(20, 60)


async def test_a_thread_that_runs_its_own_loop_is_told_what_to_call(database_settings: dict[str, Any]) -> None:
    app, told = FastAPI(), list[str]()
    manager = ACLManager(config(**database_settings), app=app)
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: manager.get_enforcer().add_policy(*RULE),
        manager.get_replica().reload,
        manager.get_policy_history().changes,
        manager.ready,
        manager.close,
    ]

    @app.get("/wrong")
    def wrong() -> None:
        for call in calls:
            with pytest.raises(WrongLoopError) as caught:
                asyncio.run(_awaited(call))
            told.append(caught.value.detail)

    @app.get("/right")
    def right() -> bool:
        return anyio.from_thread.run(manager.get_enforcer().add_policy, *RULE)

    async with serve(app, manager) as client:
        answers = [(await client.get("/wrong")).status_code for _ in range(3)]

        assert answers == [200] * 3
        assert all("anyio.from_thread.run" in one for one in told)
        assert (await client.get("/right")).json() is True
        assert manager.get_enforcer().has_policy(*RULE)


async def _awaited(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # voulu ici
@pytest.mark.parametrize("sql_settings", [kind for kind in DATABASES if kind in {"postgresql", "mysql"}], indirect=True)
def test_loops_that_follow_each_other_leave_no_connection_behind(sql_settings: dict[str, Any]) -> None:
    manager = ACLManager(config(**sql_settings))
    others = asyncio.run(connections(sql_settings))

    for number in range(RUNS):
        asyncio.run(_written(manager, number))

    # La réserve de la dernière boucle, et son guet, restent jusqu'à l'arrêt.
    until_outside(lambda: asyncio.run(connections(sql_settings)) <= others + 2)
    asyncio.run(manager.close())
    until_outside(lambda: asyncio.run(connections(sql_settings)) <= others)
    _ = gc.collect()  # ce que des boucles finies ont laissé se plaint ici, et non dans un autre essai


async def _written(manager: ACLManager, number: int) -> None:
    await manager.load()
    assert await manager.get_enforcer().add_policy(f"role:r{number}", "doc", "read", "allow")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # voulu ici
def test_a_cache_follows_its_manager_from_one_loop_to_the_next(sqlite_uri: str, redis_server: RedisServer) -> None:
    manager = ACLManager(
        config(sqlite_uri=sqlite_uri, enable_cache=True, cache_backend="redis", redis_url=redis_server.uri())
    )
    cache, key = manager._parts.cache, CacheKey.of("boucle", sqlite_uri)

    async def used(value: str) -> tuple[Any, ...]:
        await manager.ready()
        before = await cache.get(key)
        await cache.set(key, value)
        return before, await cache.get(key), cache.status

    found = [asyncio.run(used(value)) for value in ("un", "deux", "trois")]
    asyncio.run(manager.close())
    _ = gc.collect()  # ce que des boucles finies ont laissé se plaint ici, et non dans un autre essai

    assert found == [(None, "un", "redis"), ("un", "deux", "redis"), ("deux", "trois", "redis")]


def test_a_base_in_memory_lives_as_long_as_its_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri="sqlite://"), app=app)
    client = TestClient(app)  # hors de « with » : chaque requête a sa boucle
    body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}

    made = client.post("/api/v1/auth/register", json=body)
    entered = client.post("/api/v1/auth/login", json={"username": "ada", "password": PASSWORD})
    me = client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {entered.json()['access_token']}"})

    assert [made.status_code, entered.status_code, me.status_code] == [201, 200, 200]
    assert me.json()["id"] == made.json()["id"]
    asyncio.run(manager.close())
    assert not list(tmp_path.iterdir())
