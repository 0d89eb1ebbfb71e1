"""L'usage en trois lignes, dans chaque variante de lifespan."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient
from redis.asyncio import Redis
from starlette.websockets import WebSocket, WebSocketDisconnect

from fastapi_acl import ACLManager, ConfigurationError, require
from fastapi_acl.runtime import lifecycle
from fastapi_acl.shared.cache.base import CacheKey
from fastapi_acl.shared.tasks import stop_tasks
from tests.support.app import ADMIN, ADMIN_PASSWORD, Client, config, documents, serve, started
from tests.support.proxy import before
from tests.support.servers import PostgreSQLServer, RedisServer
from tests.support.waits import until


async def walks(client: Client, prefix: str = "") -> None:
    """Le compte sans droit est refusé, l'administrateur entre."""
    ada, admin = await client.newcomer("ada"), await client.admin()

    assert (await client.get(f"{prefix}/documents")).status_code == 401
    assert (await ada.get(f"{prefix}/documents")).status_code == 403
    assert (await admin.get(f"{prefix}/documents")).status_code == 200


async def test_without_any_lifespan_of_its_own(sqlite_uri: str) -> None:
    app = FastAPI()
    acl = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async with serve(documents(app), acl) as client:
        assert acl.is_ready
        await walks(client)

    assert not acl.is_ready


async def test_with_on_event(sqlite_uri: str) -> None:
    app, seen = FastAPI(), []
    acl = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    @app.on_event("startup")
    async def startup() -> None:
        await acl.initialize()
        seen.append("startup")

    @app.on_event("shutdown")
    async def shutdown() -> None:
        await acl.close()
        seen.append("shutdown")

    async with serve(documents(app), acl) as client:
        await walks(client)

    assert seen == ["startup", "shutdown"]


async def test_with_the_users_own_lifespan_and_its_state(sqlite_uri: str) -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        yield {"mine": "kept"}

    app = FastAPI(lifespan=lifespan)
    acl = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async with serve(documents(app), acl) as client:
        await walks(client)


async def test_with_a_lifespan_that_initializes_and_closes_too(sqlite_uri: str) -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await acl.initialize()
        yield
        await acl.close()

    app = FastAPI(lifespan=lifespan)
    acl = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async with serve(documents(app), acl) as client:
        await walks(client)


async def test_bare_asgi_transport_initializes_at_the_first_guarded_request(sqlite_uri: str) -> None:
    app = FastAPI()
    acl = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async with serve(documents(app), acl, lifespan=False) as client:
        assert not acl.is_ready
        await walks(client)


async def test_a_mounted_application_with_its_own_manager(sqlite_uri: str) -> None:
    inner, outer = FastAPI(), FastAPI()
    acl = ACLManager(config(sqlite_uri=sqlite_uri), app=documents(inner))
    outer.mount("/inner", inner)

    async with serve(outer, acl, lifespan=False) as client:
        registered = await client.post("/inner/api/v1/auth/login", json={"username": ADMIN, "password": ADMIN_PASSWORD})
        client.token = registered.json()["access_token"]

        assert (await client.get("/inner/documents")).status_code == 200


async def test_an_application_mounted_under_the_managers_is_guarded_by_it(sqlite_uri: str) -> None:
    outer = FastAPI()
    acl = ACLManager(config(sqlite_uri=sqlite_uri), app=outer)
    outer.mount("/inner", documents(FastAPI()))

    async with serve(outer, acl) as client:
        await walks(client, "/inner")
        refused = await client.get("/inner/documents")

    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["www-authenticate"] == "Bearer"


def test_plain_test_client_with_and_without_its_lifespan(sqlite_uri: str) -> None:
    app = documents(FastAPI())
    ACLManager(config(sqlite_uri=sqlite_uri), app=app)
    bare = TestClient(app)
    login = {"username": ADMIN, "password": ADMIN_PASSWORD}

    token = bare.post("/api/v1/auth/login", json=login).json()["access_token"]
    answers = [bare.get("/documents", headers={"Authorization": f"Bearer {token}"}).status_code for _ in range(3)]
    with TestClient(app) as managed:
        answers.append(managed.get("/documents", headers={"Authorization": f"Bearer {token}"}).status_code)

    assert answers == [200] * 4


async def test_two_managers_of_one_process_do_not_see_each_other(tmp_path: Path) -> None:
    first, second = documents(FastAPI()), documents(FastAPI())
    one = ACLManager(config(sqlite_uri=f"sqlite:///{tmp_path}/1.db"), app=first)
    two = ACLManager(config(sqlite_uri=f"sqlite:///{tmp_path}/2.db", api_prefix="/v2"), app=second)

    async with serve(first, one) as here, serve(second, two) as there:
        ada = await here.newcomer("ada")
        elsewhere = Client(there.http, two, ada.token)

        assert (await there.post("/v2/auth/login", json={"username": "ada", "password": "x"})).status_code == 401
        assert (await there.post("/api/v1/auth/login", json={})).status_code == 404
        assert (await elsewhere.get("/v2/auth/me")).status_code == 401


async def test_without_a_manager_the_answer_names_the_fix() -> None:
    app = documents(FastAPI())
    acl = ACLManager(config(sqlite_uri="sqlite://"))

    async with serve(app, acl, lifespan=False) as client:
        answer = await client.get("/documents")

    assert answer.status_code == 503
    assert "ACLManager(config, app=app)" in answer.text


def test_one_application_takes_one_manager(sqlite_uri: str) -> None:
    app = FastAPI()
    ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    with pytest.raises(ConfigurationError, match="déjà un ACLManager"):
        ACLManager(config(sqlite_uri=sqlite_uri), app=app)


async def test_included_routers_and_websockets_are_guarded(sqlite_uri: str) -> None:
    app, router, inner = FastAPI(), APIRouter(prefix="/a"), APIRouter(prefix="/b")
    acl = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    @inner.get("/c/{name}", dependencies=[Depends(require("thing:{name}:read"))])
    async def thing(name: str) -> str:
        return name

    @inner.websocket("/ws", dependencies=[Depends(require("thing:read"))])
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("bonjour")
        await socket.close()

    router.include_router(inner)
    app.include_router(router)

    async with serve(app, acl) as client:
        ada, admin = await client.newcomer("ada"), await client.admin()
        answers = [(await someone.get("/a/b/c/1")).status_code for someone in (client, ada, admin)]

    with TestClient(app) as sync:
        with pytest.raises(WebSocketDisconnect) as refused, sync.websocket_connect("/a/b/ws"):
            pass
        with sync.websocket_connect("/a/b/ws", headers={"Authorization": f"Bearer {admin.token}"}) as socket:
            assert socket.receive_text() == "bonjour"

    assert answers == [401, 403, 200]
    assert refused.value.code in {1006, 1008}


def test_a_refused_configuration_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    script = (
        "from fastapi import FastAPI; from fastapi_acl import *; import uvicorn;"
        "app = FastAPI(); ACLManager(ACLConfig(create_default_admin=True, default_admin_password='court'), app=app);"
        "uvicorn.run(app, port=0)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)

    assert done.returncode != 0
    assert "au moins 15 caractères" in done.stderr


async def test_without_a_lifespan_one_request_looks_for_all(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri, policy_poll_seconds=0.2), app=app)
    async with serve(documents(app), manager, lifespan=False) as client:
        admin, replica = await client.admin(), manager._parts.replica
        looks, refresh = list[int](), replica.refresh

        async def counted() -> None:
            looks.append(1)
            await refresh()

        replica.refresh = counted  # type: ignore[method-assign]  # un témoin, qui laisse tout faire
        await asyncio.sleep(0.3)

        started = time.monotonic()
        answers = await asyncio.gather(*(admin.get("/documents") for _ in range(100)))
        answers += [await admin.get("/documents") for _ in range(20)]  # une à une, nulle n'attend celle d'avant
        due = (time.monotonic() - started) / 0.2

        assert {answer.status_code for answer in answers} == {200}
        assert 1 <= len(looks) <= 1 + due, "un regard, et un de plus chaque fois que l'heure en revient"


async def test_without_a_lifespan_a_silent_base_holds_one_request_and_not_the_crowd(
    own_postgresql: PostgreSQLServer,
) -> None:
    async with before(own_postgresql.uri()) as (uri, proxy):
        app = FastAPI()
        settings = {"policy_poll_seconds": 30, "max_staleness_seconds": 300}
        manager = ACLManager(config(database_type="postgresql", postgresql_uri=uri, **settings), app=app)
        async with serve(documents(app), manager, lifespan=False) as client:
            admin, replica = await client.admin(), manager.get_replica()
            refresh, others = replica.refresh, asyncio.Event()

            async def held() -> None:
                await others.wait()
                await refresh()

            replica.refresh = held  # type: ignore[method-assign]  # un témoin, qui laisse tout faire
            proxy.stalls = True
            for _ in range(2):  # ce que l'on sait date de peu, puis la base ne répondait déjà plus
                replica._seen_at -= 40
                manager._lifecycle._next_look = float("-inf")
                others.clear()
                crowd = [asyncio.create_task(admin.get("/documents")) for _ in range(30)]
                first = await answered(crowd, 29)
                assert len(first) == 29, "l'une regarde, et les autres ne l'attendent pas"
                others.set()

                assert {answer.status_code for answer in await asyncio.gather(*crowd)} == {200}
            proxy.heal()


async def answered(crowd: list[asyncio.Task[Any]], count: int) -> set[asyncio.Task[Any]]:
    """Attend que tant de réponses soient venues, et rend celles qui le sont."""
    await until(lambda: sum(one.done() for one in crowd) >= count)
    return {one for one in crowd if one.done()}


async def test_without_a_lifespan_a_configuration_put_right_is_tried_again(empty_sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=empty_sqlite_uri, auto_migrate=False), app=app)
    async with serve(documents(app), manager, lifespan=False) as client:
        assert (await client.get("/documents")).status_code == 503
        await manager.migrate()
        await asyncio.sleep(0.6)

        assert (await client.get("/documents")).status_code == 401


async def test_an_interrupted_stop_closes_everything_all_the_same(sqlite_uri: str, own_redis: RedisServer) -> None:
    manager = ACLManager(
        config(sqlite_uri=sqlite_uri, enable_cache=True, cache_backend="redis", redis_url=own_redis.uri())
    )
    async with Redis.from_url(own_redis.uri()) as ours:
        await manager.initialize()
        await manager._parts.cache.set(CacheKey.of("essai"), "valeur")
        opened = (await ours.info("clients"))["connected_clients"]
        closing = asyncio.create_task(manager.close())
        await asyncio.sleep(0)

        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

        async def is_alone() -> bool:
            return bool((await ours.info("clients"))["connected_clients"] == 1)

        assert (manager.is_ready, opened > 1) == (False, True)
        await until(lambda: not any(task.get_name().startswith("fastapi_acl") for task in asyncio.all_tasks()))
        await until(is_alone, 30)


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 3:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            swallowed += 1

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(stop_tasks(task), 30)

    assert (swallowed, task.done()) == (3, True)


async def test_an_error_that_nobody_foresaw_does_not_end_the_looks(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(sqlite_uri=sqlite_uri, policy_poll_seconds=0.05) as manager:
        replica, looks, enough = manager.get_replica(), list[int](), asyncio.Event()
        refresh = replica.refresh

        async def failing_once() -> None:
            looks.append(len(looks))
            if len(looks) == 1:
                raise ArithmeticError
            await refresh()
            enough.set()

        monkeypatch.setattr(replica, "refresh", failing_once)
        await asyncio.wait_for(enough.wait(), 30)

    assert len(looks) >= 2


async def test_a_base_that_does_not_close_does_not_hold_the_stop(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lifecycle, "CLOSE_SECONDS", 0.05)
    async with started(sqlite_uri=sqlite_uri) as manager:
        database = manager._parts.database
        close = database.close
        monkeypatch.setattr(database, "close", asyncio.Event().wait)

        await asyncio.wait_for(manager.close(), 30)

        assert "database_close_timeout" in caplog.text
        await close()


async def test_a_faulty_guard_is_seen_before_the_base_is_touched_and_the_application_starts(
    empty_sqlite_uri: str,
) -> None:
    begun: list[str] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        begun.append("application")
        yield

    app = FastAPI(lifespan=lifespan)
    manager = ACLManager(config(sqlite_uri=empty_sqlite_uri), app=app)
    app.get("/{name}", dependencies=[Depends(require("document:{nom}:read"))])(lambda name: name)

    with pytest.raises(ConfigurationError, match="« nom »"):
        async with serve(app, manager):
            pass

    assert begun == []
    assert not Path(empty_sqlite_uri.removeprefix("sqlite:///")).exists()
