"""OpenAPI dit, route par route, les erreurs que nos routes rendent vraiment ; ni moins, ni plus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_acl import ACLManager
from fastapi_acl.shared.exceptions import DatabaseRefusedError
from fastapi_acl.shared.http.problems import GUARDED, MEDIA_TYPE
from tests.support import byhand
from tests.support.app import ADMIN, ADMIN_PASSWORD, PASSWORD, Client, config, serve, starting

API = "/api/v1"
NOBODY = "00000000-0000-4000-8000-000000000000"
RULE = {"ptype": "p", "values": ["role:reader", "document", "read", "allow"]}
PAGE = {"params": {"limit": "beaucoup"}}
BROKEN = {"content": b"{", "headers": {"content-type": "application/json"}}

COMMON = {error.code for error in GUARDED} | {"invalid_request"}
"""Codes qui ne disent rien d'une route en particulier : chacune est mise en demeure de les rendre tous."""

Requests = dict[tuple[str, str], dict[str, Any]]

RIGHT: Requests = {
    ("POST", "/auth/register"): {"json": {"username": "eve", "email": "eve@example.com", "password": PASSWORD}},
    ("POST", "/auth/login"): {"json": {"username": ADMIN, "password": ADMIN_PASSWORD}},
    ("POST", "/auth/token"): {"data": {"username": ADMIN, "password": ADMIN_PASSWORD}},
    ("POST", "/auth/refresh"): {"json": {"refresh_token": "x"}},
    ("GET", "/auth/me"): {},
    ("GET", "/admin/auth/users"): {},
    ("PUT", "/admin/auth/users/{user_id}/activate"): {},
    ("PUT", "/admin/auth/users/{user_id}/deactivate"): {},
    ("DELETE", "/admin/auth/users/{user_id}"): {},
    ("POST", "/permissions/check"): {"json": {"checks": [{"resource": "document", "action": "read"}]}},
    ("GET", "/permissions/me"): {},
    ("GET", "/admin/permissions/rules"): {},
    ("POST", "/admin/permissions/rules"): {"json": {"rules": [RULE]}},
    ("PUT", "/admin/permissions/rules"): {"json": {"old": RULE, "new": RULE}},
    ("DELETE", "/admin/permissions/rules"): {"json": {"rules": [RULE]}},
    ("POST", "/admin/permissions/explain"): {"json": {"subject": "role:x", "resource": "document", "action": "read"}},
    ("POST", "/auth/logout"): {"json": {"everywhere": False}},
}
"""Une demande bien faite de chaque route ; la dernière ferme la session de qui la fait."""

WRONG: Requests = {
    ("GET", "/permissions/me"): {"params": {"domain": ""}},
    ("GET", "/admin/auth/users"): PAGE,
    ("GET", "/admin/permissions/rules"): PAGE,
    ("POST", "/auth/token"): {"data": {}},
}
"""Une demande mal faite, là où un corps illisible ne l'est pas."""


@pytest.fixture
async def visitor(sqlite_uri: str) -> AsyncIterator[Client]:
    async with serving(sqlite_uri) as client:
        yield client


@asynccontextmanager
async def serving(uri: str, **options: Any) -> AsyncIterator[Client]:
    """Sert nos seules routes, sans longue attente d'une révision."""
    app = FastAPI()
    settings = config(sqlite_uri=uri, revision_wait_ms=1, policy_poll_seconds=60, max_staleness_seconds=300)
    async with serve(app, ACLManager(settings, app=app, **options)) as client:
        yield client


def declared_in(client: Client) -> dict[tuple[str, str], set[tuple[int, str]]]:
    """Rend, par route, les statuts et les codes que dit OpenAPI."""
    assert client.manager.application is not None
    document = client.manager.application.openapi()
    return {
        (method.upper(), path.removeprefix(API)): {
            (int(status), code)
            for status, answer in operation["responses"].items()
            for code in answer.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
        }
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if path != f"{API}/acl/health"
    }


class Answers:
    """Ce que chaque route a répondu, demande après demande."""

    def __init__(self) -> None:
        self.codes: dict[tuple[str, str], set[tuple[int, str]]] = {route: set() for route in RIGHT}

    async def ask(self, client: Client, *, is_right: bool = True, **headers: str) -> None:
        """Fait une demande à chaque route, et retient les problèmes."""
        for (method, path), options in RIGHT.items():
            given = options if is_right else WRONG.get((method, path), BROKEN)
            place = API + path.replace("{user_id}", NOBODY if is_right else "personne")
            merged = {**given, "headers": {**given.get("headers", {}), **headers}}
            answer = await client.request(method, place, **merged)
            if answer.headers.get("content-type") == MEDIA_TYPE:
                self.codes[method, path].add((answer.status_code, answer.json()["code"]))


async def test_every_route_of_ours_is_asked_here(visitor: Client) -> None:
    assert set(RIGHT) == set(declared_in(visitor))


async def test_the_common_errors_of_a_route_are_those_that_openapi_tells(visitor: Client, sqlite_uri: str) -> None:
    answers, declared = Answers(), declared_in(visitor)
    admin, ada, ended = await visitor.admin(), await visitor.newcomer("ada"), await visitor.newcomer("bob")

    await answers.ask(visitor)
    await answers.ask(ada)
    await answers.ask(await visitor.admin(), is_right=False)
    await answers.ask(Client(visitor.http, visitor.manager, f"{ended.token}x"))
    await answers.ask(admin, **{"X-ACL-Min-Revision": "demain"})
    await answers.ask(admin, **{"X-ACL-Min-Revision": "999999"})
    await ask_without_a_decision(answers, sqlite_uri)
    await ask_without_a_policy(answers, sqlite_uri)
    await ask_without_a_base(answers, sqlite_uri)

    for route, told in declared.items():
        seen = answers.codes[route]
        assert seen <= told, route
        assert {one for one in seen if one[1] in COMMON} == {one for one in told if one[1] in COMMON}, route


async def ask_without_a_decision(answers: Answers, uri: str) -> None:
    """Demande à un processus dont aucune décision n'aboutit."""
    async with serving(uri, request_builder=unwritable) as client:
        await answers.ask(await client.admin())


def unwritable(_demand: object) -> dict[str, str]:
    """Donne une action vide, que rien ne peut nommer."""
    return {"act": ""}


async def ask_without_a_policy(answers: Answers, uri: str) -> None:
    """Demande à un processus dont la politique n'a pas pu être lue."""
    async with serving(uri) as client:
        admin, storage = await client.admin(), client.manager._parts.storage
        await byhand.write_row(storage, "p", ["role:x", "document", "read", "peut-être"])
    async with serving(uri) as client:
        await answers.ask(Client(client.http, client.manager, admin.token))


async def ask_without_a_base(answers: Answers, uri: str) -> None:
    """Demande à un processus dont la base ne répond pas, puis à un autre à qui la sienne refuse de démarrer."""
    async with starting(database_type="postgresql", postgresql_uri="postgresql://a:b@127.0.0.1:1/c") as client:
        await answers.ask(client)
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=uri), app=app)
    manager._lifecycle._start = refuse
    async with serve(app, manager) as client:
        await answers.ask(client)


async def refuse() -> None:
    raise DatabaseRefusedError
