"""Pannes : la base absente au démarrage, coupée en service, muette trop longtemps."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI

from fastapi_acl import ACLManager
from tests.support.app import Client, config, documents, living, serve
from tests.support.servers import PostgreSQLServer, free_port
from tests.support.waits import until


def settings(server: PostgreSQLServer, **more: Any) -> dict[str, Any]:
    return {"database_type": "postgresql", "postgresql_uri": server.uri(), **more}


async def answers(client: Client, path: str, status: int) -> None:
    """Attend qu'une route rende cette réponse."""

    async def is_so() -> bool:
        return (await client.get(path)).status_code == status

    await until(is_so)


async def test_a_database_down_at_start_is_a_clear_503_and_the_start_heals_itself(
    own_postgresql: PostgreSQLServer,
) -> None:
    own_postgresql.stop()
    app = documents(FastAPI())
    acl = ACLManager(config(**settings(own_postgresql)), app=app)

    async with serve(app, acl) as client:
        guarded, login = await client.get("/documents"), await client.register("ada")
        open_ = await client.get("/openapi.json")
        own_postgresql.start()
        await answers(client, "/documents", 401)
        admin = await client.admin()
        healed = await admin.get("/documents")

    assert (guarded.status_code, guarded.json()["code"]) == (503, "database_unavailable")
    assert guarded.headers["retry-after"] == "1"
    assert (login.status_code, open_.status_code) == (503, 200)
    assert healed.status_code == 200


async def both(admin: Client, ada: Client) -> tuple[int, int]:
    return (await admin.get("/documents")).status_code, (await ada.get("/documents")).status_code


async def test_guarded_routes_go_on_while_the_database_is_down_then_deny(own_postgresql: PostgreSQLServer) -> None:
    app = documents(FastAPI())
    acl = ACLManager(config(**settings(own_postgresql, max_staleness_seconds=4, policy_poll_seconds=0.2)), app=app)

    async with serve(app, acl) as client:
        ada, admin = await client.newcomer("ada"), await client.admin()
        own_postgresql.stop()
        meanwhile = []
        while 503 not in (pair := await both(admin, ada)):
            meanwhile.append(pair)
            await asyncio.sleep(0.05)
        login = await client.post("/api/v1/auth/login", json={"username": "ada", "password": "x"})
        write = await admin.add_rules(("p", "role:a", "b", "c", "allow"))
        await answers(admin, "/documents", 503)
        own_postgresql.start()
        await answers(admin, "/documents", 200)
        back = await admin.add_rules(("p", "role:a", "b", "c", "allow"))

    assert set(meanwhile) == {(200, 403)}
    assert (login.status_code, write.status_code, back.status_code) == (503, 503, 201)


async def test_a_start_without_lifespan_heals_too() -> None:
    uri = f"postgresql://acl@127.0.0.1:{free_port()}/absente"
    app = documents(FastAPI())
    acl = ACLManager(config(database_type="postgresql", postgresql_uri=uri), app=app)

    async with serve(app, acl, lifespan=False) as client:
        answers = await asyncio.gather(*(client.get("/documents") for _ in range(10)))

    assert {answer.status_code for answer in answers} == {503}


async def test_a_refused_configuration_without_lifespan_is_a_503_that_keeps_its_secret(sqlite_uri: str) -> None:
    app = documents(FastAPI())
    acl = ACLManager(config(sqlite_uri=sqlite_uri, default_admin_password="planted"), app=app)

    async with serve(app, acl, lifespan=False) as client:
        answers = [await client.get("/documents") for _ in range(2)]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "policy_unavailable")}
    assert all("planted" not in answer.text for answer in answers)


async def test_a_session_closed_on_one_process_is_closed_on_the_other(database_settings: dict[str, Any]) -> None:
    apps = [documents(FastAPI()), documents(FastAPI())]
    managers = [ACLManager(config(policy_poll_seconds=0.05, **database_settings), app=app) for app in apps]
    transports = [httpx.ASGITransport(app) for app in apps]

    async with (
        living(apps[0]),
        living(apps[1]),
        httpx.AsyncClient(transport=transports[0], base_url="http://un") as one,
        httpx.AsyncClient(transport=transports[1], base_url="http://deux") as two,
    ):
        here = await Client(one, managers[0]).newcomer("ada")
        there = Client(two, managers[1], here.token)
        before = await there.get("/api/v1/auth/me")
        await here.post("/api/v1/auth/logout")
        await answers(there, "/api/v1/auth/me", 401)

    assert before.status_code == 200
