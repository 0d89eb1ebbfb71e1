"""Rien ne retient la boucle d'événements : ni appel bloquant, sur aucune route, ni pas trop long d'une garde."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_acl import ACLManager
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from tests.support.app import ADMIN, ADMIN_PASSWORD, PASSWORD, Client, config, protected, serve
from tests.support.blocking import blocking_calls, measured_steps
from tests.support.servers import RedisServer
from tests.support.steps import counted_calls
from tests.support.waits import until

API = "/api/v1"
RULE = {"ptype": "p", "values": ["role:r", "thing", "read", "allow"]}
OTHER = {"ptype": "p", "values": ["role:r", "thing", "write", "allow"]}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", f"{API}/auth/register"): {
        "json": {"username": "eve", "email": "eve@example.com", "password": PASSWORD},
    },
    ("post", f"{API}/auth/login"): {"json": {"username": ADMIN, "password": ADMIN_PASSWORD}},
    ("post", f"{API}/auth/token"): {"data": {"username": ADMIN, "password": ADMIN_PASSWORD}},
    ("post", f"{API}/permissions/check"): {"json": {"checks": [{"resource": "document", "action": "read"}]}},
    ("post", f"{API}/admin/permissions/explain"): {
        "json": {"subject": "user:1", "resource": "document", "action": "read"},
    },
    ("post", f"{API}/admin/permissions/rules"): {"json": {"rules": [RULE]}},
    ("put", f"{API}/admin/permissions/rules"): {"json": {"old": RULE, "new": OTHER}},
    ("delete", f"{API}/admin/permissions/rules"): {"json": {"rules": [OTHER]}},
}
"""Ce qu'il faut dire à une route pour qu'elle fasse son travail."""

ORDER = {"post": 0, "get": 1, "put": 2, "delete": 3}
LAST = "/logout"
"""Route après laquelle l'appelant n'est plus là."""

RULES = 10_000
"""Règles dont le parcours, compté dans l'essai, est un pas trop long."""


@pytest.fixture
def settings(database_settings: dict[str, Any], own_redis: RedisServer) -> dict[str, Any]:
    """Une base, quelle qu'elle soit, et un Redis qui guette et garde le cache."""
    redis = {"redis_url": own_redis.uri(), "enable_cache": True, "cache_backend": "redis"}
    return {**database_settings, **redis, "rate_limit_enabled": False}


def operations(client: Client) -> list[tuple[str, str]]:
    """Rend chaque opération de l'application, celle qui ferme la porte à la fin."""
    app: Any = client.http._transport.app  # type: ignore[attr-defined]
    found = [(method, path) for path, methods in app.openapi()["paths"].items() for method in methods]
    return sorted(found, key=lambda one: (one[1].endswith(LAST), ORDER[one[0]]))


async def call(client: Client, method: str, path: str, user_id: str) -> int:
    """Demande une opération à la place de l'appelant."""
    filled = path.replace("{user_id}", user_id).replace("{name}", "rapport")
    return (await client.request(method.upper(), filled, **BODIES.get((method, path), {}))).status_code


async def test_no_route_blocks_the_loop(settings: dict[str, Any]) -> None:
    async with protected(**settings) as client:
        ada, admin = await client.newcomer("ada"), await client.admin()
        with blocking_calls() as found:
            answers = {one: await call(admin, *one, ada.id) for one in operations(client)}
            renewed = await client.post(f"{API}/auth/refresh", json={"refresh_token": admin.refresh_token})
            again = await client.login(ADMIN, ADMIN_PASSWORD)
            renewal = await client.post(f"{API}/auth/refresh", json={"refresh_token": again.refresh_token})

        assert found == []
        refused = {one: status for one, status in answers.items() if status >= 400}
        assert refused == {("post", f"{API}/auth/refresh"): 422}
        assert (renewed.status_code, renewal.status_code) == (401, 200)


async def test_what_follows_the_log_never_blocks_the_loop(settings: dict[str, Any]) -> None:
    looking = {**settings, "watcher": "none", "policy_poll_seconds": 0.05}
    async with protected(**settings) as writer, protected(**settings) as hearing, protected(**looking) as reading:
        admin = await writer.admin()
        with blocking_calls() as found:
            added = await admin.add_rules(("p", "role:r", "thing", "read", "allow"))
            for follower in (hearing, reading):
                await reached(follower, added.json()["revision"])
            await hearing.manager.get_replica().reload()

    assert found == []


async def reached(client: Client, revision: int) -> None:
    await until(lambda: client.manager.revision >= revision)


async def test_a_route_that_blocks_is_seen(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    @app.get("/sleep")
    async def sleep() -> None:
        time.sleep(0)

    @app.get("/work")
    async def work() -> None:
        walk(2 * RULES)

    async with serve(app, manager) as client:
        with blocking_calls() as found:
            await client.get("/sleep")
        async with measured_steps() as steps:
            await client.get("/work")

    assert [call.partition(" ")[0] for call in found] == ["time.sleep"]
    assert max(steps) > cost_of_walking()


async def test_a_guarded_request_holds_the_loop_for_no_long_step(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, policy_poll_seconds=0.05) as client:
        admin = await client.admin()
        rules = (PolicyRule("p", (f"role:r{n}", f"thing{n}", "read", "allow")) for n in range(RULES))
        await client.manager.get_policy_store().change(PolicyChange(added=tuple(rules)))

        answers = [await stepped(admin)]  # la première compile, une fois pour toutes
        await client.manager.get_replica().refresh()  # un regard parti avant le changement le relirait
        async with measured_steps() as steps:
            answers += [await stepped(admin) for _ in range(100)]

    assert set(answers) == {200}
    assert max(steps) < cost_of_walking()


def walk(count: int) -> None:
    """Parcourt d'un trait autant de règles."""
    for n in range(count):
        PolicyRule("p", (f"role:r{n}", f"thing{n}", "read", "allow"))


def cost_of_walking() -> int:
    """Compte les appels que prend le parcours de toute la politique."""
    with counted_calls() as calls:
        walk(RULES)
    return calls[0]


async def stepped(client: Client) -> int:
    """Fait d'une requête un pas à elle seule : rien n'y attend."""
    await asyncio.sleep(0)
    return (await client.get("/documents")).status_code
