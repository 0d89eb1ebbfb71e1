"""Ce qu'une demande fautive reçoit : un problème clair, sans écho, sans 500."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_acl import ACLManager
from fastapi_acl.shared.exceptions import TransactionNotOwnedError
from fastapi_acl.shared.http.problems import problem_response
from tests.support.app import ADMIN, ADMIN_PASSWORD, PASSWORD, SECRET, Client, config, documents, protected

API = "/api/v1"


@pytest.fixture
async def visitor(sqlite_uri: str) -> AsyncIterator[Client]:
    async with protected(sqlite_uri=sqlite_uri) as client:
        yield client


BODIES: dict[str, bytes] = {
    "demi-codet": b'{"username": "planted\\ud800", "password": "planted-word", "email": "a@b.fr"}',
    "demi-codet dans un nom de champ": b'{"planted\\udfff": 1, "password": "planted-word"}',
    "champ inconnu": b'{"username": "a", "password": "planted-word", "email": "a@b.fr", "planted": true}',
    "type faux": b'{"username": 1, "password": ["planted-word"], "email": {}}',
    "mot de passe court": b'{"username": "planted1", "password": "planted-word", "email": "a@b.fr"}',
    "adresse fausse": b'{"username": "ada", "password": "planted-word plus long", "email": "planted"}',
    "liste": b'["planted-word"]',
    "texte": b'"planted-word"',
    "vide": b"",
    "pas du JSON": b"planted-word{",
    "NUL": b'{"username": "planted\\u0000", "password": "planted-word plus long", "email": "a@b.fr"}',
    "octets invalides": b'{"username": "\xff\xfe planted"}',
    "entier immense": b'{"username": ' + b"9" * 6000 + b"}",
    "profond": b"[" * 100_000,
    "NaN": b'{"username": NaN, "password": Infinity}',
}

ROUTES = [
    ("POST", "/auth/register"),
    ("POST", "/auth/login"),
    ("POST", "/auth/refresh"),
    ("POST", "/auth/logout"),
    ("POST", "/permissions/check"),
    ("POST", "/admin/permissions/rules"),
    ("PUT", "/admin/permissions/rules"),
    ("DELETE", "/admin/permissions/rules"),
    ("POST", "/admin/permissions/explain"),
]


@pytest.mark.parametrize("name", sorted(BODIES))
async def test_a_hostile_body_is_a_clear_refusal_on_every_route(visitor: Client, name: str) -> None:
    admin = await visitor.admin()

    for method, path in ROUTES:
        answer = await admin.request(
            method, API + path, content=BODIES[name], headers={"content-type": "application/json"}
        )
        if (path, name) == ("/auth/logout", "vide"):
            assert answer.status_code == 204
            admin = await visitor.admin()
            continue

        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert "planted" not in answer.text, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"]


MASS_ASSIGNED = ["id", "is_active", "is_verified", "roles", "session_version", "sv", "hashed_password", "created_at"]


@pytest.mark.parametrize("field", MASS_ASSIGNED)
async def test_no_field_of_the_account_may_be_assigned(visitor: Client, field: str) -> None:
    body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD, field: "x"}

    answer = await visitor.post(f"{API}/auth/register", json=body)

    assert answer.status_code == 422
    assert (await visitor.register("ada")).status_code == 201


async def test_unknown_name_and_wrong_password_answer_alike(visitor: Client) -> None:
    await visitor.register("ada")

    answers = [
        await visitor.post(f"{API}/auth/login", json={"username": name, "password": "un tout autre mot"})
        for name in ("ada", "inconnue", "a" * 200, "user:1")
    ]

    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}
    assert len({tuple(answer.headers.items()) for answer in answers}) == 1


async def test_headers_follow_rfc_6750(visitor: Client) -> None:
    ada = await visitor.newcomer("ada")
    cases = {
        None: "Bearer",
        "Basic YTpi": "Bearer",
        "Bearer": "Bearer",
        "Bearer x.y.z": 'Bearer error="invalid_token"',
        f"Bearer {ada.token}x": 'Bearer error="invalid_token"',
    }

    for header, challenge in cases.items():
        answer = await visitor.get("/documents", headers={"Authorization": header} if header else {})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, challenge), header
    denied = await ada.get("/documents")
    lower = await visitor.get(f"{API}/auth/me", headers={"Authorization": f"bearer {ada.token}"})
    query = await visitor.get(f"{API}/auth/me", params={"access_token": ada.token})

    assert denied.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
    assert (lower.status_code, query.status_code) == (200, 401)


async def test_the_token_form_serves_swagger_and_is_absent_in_production(visitor: Client, sqlite_uri: str) -> None:
    form = {"username": ADMIN, "password": ADMIN_PASSWORD}
    open_ = await visitor.post(f"{API}/auth/token", data=form)
    wrong = await visitor.post(f"{API}/auth/token", data={**form, "password": "planted"})
    empty = await visitor.post(f"{API}/auth/token", data={})
    async with protected(
        sqlite_uri=sqlite_uri, environment="production", bcrypt_rounds=10, jwt_secret_key=SECRET
    ) as production:
        closed = await production.post(f"{API}/auth/token", data=form)
        document = (await production.get("/openapi.json")).json()

    assert (open_.status_code, open_.json()["token_type"], open_.headers["cache-control"]) == (
        200,
        "bearer",
        "no-store",
    )
    assert (wrong.status_code, empty.status_code, closed.status_code) == (401, 422, 404)
    assert document["components"]["securitySchemes"]["fastapi-acl"]["type"] == "http"


async def test_every_guarded_operation_declares_its_security_and_problems(visitor: Client) -> None:
    document = (await visitor.get("/openapi.json")).json()

    public = {"/auth/register", "/auth/login", "/auth/token", "/auth/refresh", "/acl/health"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path.removeprefix(API) not in public), path
            if path.startswith(API):
                refused = operation["responses"].get("422", {"content": {"application/problem+json": {}}})
                assert "application/problem+json" in refused["content"], path
                assert operation["description"]
    flow = document["components"]["securitySchemes"]["fastapi-acl"]["flows"]["password"]
    assert flow["tokenUrl"] == "api/v1/auth/token"
    assert (await visitor.get("/docs")).status_code == 200
    json.dumps(document)


@pytest.mark.parametrize(
    ("switched", "gone", "kept"),
    [
        ({"enable_auth_feature": False}, f"{API}/auth/login", f"{API}/permissions/check"),
        ({"enable_permissions_feature": False}, f"{API}/permissions/check", f"{API}/auth/login"),
        ({"api_prefix": "/acl"}, f"{API}/auth/login", "/acl/auth/login"),
        ({"api_prefix": ""}, f"{API}/auth/login", "/auth/login"),
    ],
)
async def test_features_switch_on_and_off_and_decisions_remain(
    sqlite_uri: str, switched: dict[str, Any], gone: str, kept: str
) -> None:
    async with protected(sqlite_uri=sqlite_uri, **switched) as client:
        assert (await client.post(gone, json={})).status_code == 404
        assert (await client.post(kept, json={})).status_code in {401, 422}
        assert (await client.get("/documents")).status_code == 401


async def test_no_route_is_added_when_the_api_is_off(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, enable_api_routes=False) as client:
        paths = set((await client.get("/openapi.json")).json()["paths"])

    assert paths == {"/documents", "/documents/{name}"}


@pytest.mark.parametrize(("is_open", "local"), [(True, 200), (False, 401)])
async def test_a_local_request_without_a_token_is_the_administrator_in_development_only(
    sqlite_uri: str, is_open: bool, local: int
) -> None:
    settings = config(sqlite_uri=sqlite_uri, disable_auth_for_dev=is_open, create_default_admin=not is_open)
    app = FastAPI()
    acl = ACLManager(settings, app=documents(app))
    asked = [
        ("127.0.0.1", "http://localhost:8000", {}),
        ("::1", "http://[::1]:8000", {}),
        ("10.0.0.7", "http://localhost", {}),
        ("pas une adresse", "http://localhost", {}),
        ("127.0.0.1", "http://evil.example", {}),
        ("127.0.0.1", "http://localhost", {"X-Forwarded-For": "203.0.113.9"}),
        ("127.0.0.1", "http://localhost", {"Authorization": "Bearer x"}),
    ]
    answers = []
    for peer, url, headers in asked:
        transport = httpx.ASGITransport(app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url=url) as http:
            answers.append((await http.get("/documents", headers=headers)).status_code)
    await acl.close()

    assert answers == [local, local, 401, 401, 401, 401, 401]


def test_an_error_without_a_status_of_its_own_tells_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    answer = problem_response(TransactionNotOwnedError("planté", place="planté"))

    assert answer.status_code == 500
    assert json.loads(answer.body)["code"] == "acl_error"
    assert b"plant" not in answer.body
    assert "internal_error: transaction_not_owned" in caplog.text
