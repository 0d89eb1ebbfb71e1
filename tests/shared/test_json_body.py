"""Le corps JSON de nos routes : hostile, répété ou non annoncé, il est refusé, et rien n'en est rendu."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from fastapi_acl.auth.interface.admin.api import router as auth_admin_router
from fastapi_acl.auth.interface.api import router as auth_router
from fastapi_acl.permissions.interface.admin.api import router as permissions_admin_router
from fastapi_acl.permissions.interface.api import router as permissions_router
from fastapi_acl.shared.exceptions import InvalidRequestError
from fastapi_acl.shared.http.json_body import REPEATED, UNDECLARED, read_json
from fastapi_acl.shared.http.problems import ProblemRoute
from tests.support.app import PASSWORD, Client, protected

API = "/api/v1"
JSON = "application/json"
RULE = {"ptype": "p", "values": ["role:reader", "document", "read", "allow"]}
VALID: dict[tuple[str, str], Any] = {
    ("POST", "/auth/register"): {"username": "ada", "email": "ada@example.com", "password": PASSWORD},
    ("POST", "/auth/login"): {"username": "admin", "password": "administrateur-d-essai"},
    ("POST", "/auth/refresh"): {"refresh_token": "x"},
    ("POST", "/auth/logout"): {"everywhere": False},
    ("POST", "/permissions/check"): {"checks": [{"resource": "document", "action": "read"}]},
    ("POST", "/admin/permissions/rules"): {"rules": [RULE]},
    ("PUT", "/admin/permissions/rules"): {"old": RULE, "new": {"ptype": "p", "values": ["role:a", "b", "c", "allow"]}},
    ("DELETE", "/admin/permissions/rules"): {"rules": [RULE]},
}
"""Une demande bien faite pour chacune de nos routes qui lisent un corps."""

HOSTILE: dict[str, tuple[bytes, str]] = {
    "rien": (b"", JSON),
    "coupé": (b'{"username": "planted', JSON),
    "pas du JSON": (b"planted=1", JSON),
    "un texte": (b'"planted"', JSON),
    "une liste": (b"[]", JSON),
    "un nombre": (b"1", JSON),
    "nul": (b"null ", JSON),
    "hors d'UTF-8": (b'{"username": "\xff\xfe", "rules": "\xc3("}', JSON),
    "demi-codet en valeur": (rb'{"username": "\ud800", "password": "\udfff", "rules": ["\ud800"]}', JSON),
    "demi-codet en clé": (rb'{"\ud800": 1}', JSON),
    "caractère nul": (rb'{"username": "\u0000", "password": "\u0000", "checks": "\u0000"}', JSON),
    "NaN": (b'{"rules": NaN, "username": NaN}', JSON),
    "infini": (b'{"checks": -Infinity}', JSON),
    "réel trop grand": (b'{"username": 1e999, "rules": [1e999]}', JSON),
    "entier de 5 000 chiffres": (b'{"username": ' + b"9" * 5_000 + b"}", JSON),
    "entier de 4 000 chiffres": (b'{"username": ' + b"9" * 4_000 + b"}", JSON),
    "profond de 100 000 listes": (b"[" * 100_000, JSON),
    "profond de 100 000 listes fermées": (b"[" * 100_000 + b"]" * 100_000, JSON),
    "profond de 100 000 objets": (b'{"a":' * 100_000, JSON),
    **{
        f"profond de {depth}": (b'{"rules":' + b"[" * depth + b"]" * depth + b"}", JSON)
        for depth in (90, 600, 850, 900, 950, 3_000, 9_000)
    },
    "clé répétée": (b'{"planted": 1, "planted": 1}', JSON),
    "clé répétée au fond": (b'{"rules": [{"ptype": "p", "values": [{"planted": 1, "planted": 2}]}]}', JSON),
    "texte nu": (b"{}", "text/plain"),
    "formulaire": (b"{}", "application/x-www-form-urlencoded"),
    "type inconnu": (b"{}", "application/jsonx"),
    "type illisible": (b"{}", ";;;=/ json"),
    "type vide": (b"{}", ""),
    "autre codage": (json.dumps({"username": "x"}).encode("utf-16"), JSON),
}
"""Ce qu'un attaquant envoie : le corps, et le type qu'il annonce."""


@pytest.fixture
async def admin(sqlite_uri: str) -> AsyncIterator[Client]:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        yield await visitor.admin()


async def send(admin: Client, route: tuple[str, str], content: bytes, **headers: str) -> httpx.Response:
    """Envoie un corps tel quel, avec le jeton d'un administrateur."""
    method, path = route
    return await admin.request(method, f"{API}{path}", content=content, headers=headers)


def test_the_table_has_each_of_our_routes_that_reads_a_body() -> None:
    routers = (auth_router, auth_admin_router, permissions_router, permissions_admin_router)
    ours = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]

    assert {(method, route.path) for route in ours if route.body_field for method in route.methods} == set(VALID)
    assert all(isinstance(route, ProblemRoute) for route in ours)


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_a_hostile_body_is_the_callers_fault_on_each_route_with_a_key_or_without(
    admin: Client, hostile: str
) -> None:
    content, kind = HOSTILE[hostile]
    refusals = []

    for route in VALID:
        for more in ({}, {"Idempotency-Key": "k"}):
            answer = await send(admin, route, content, **{"Content-Type": kind, **more})
            if route != ("POST", "/auth/logout") or answer.status_code != 204:  # son corps est facultatif
                refusals.append((answer.status_code, answer.headers["content-type"]))
            assert "planted" not in answer.text
            admin = admin if answer.status_code != 204 else await admin.admin()

    assert set(refusals) == {(422, "application/problem+json")}
    assert len(refusals) >= 14


@pytest.mark.parametrize("route", VALID)
async def test_a_repeated_key_is_refused_and_not_named(admin: Client, route: tuple[str, str]) -> None:
    text, key = json.dumps(VALID[route]), next(iter(VALID[route]))

    answer = await send(admin, route, f'{{"{key}": null, {text[1:]}'.encode(), **{"Content-Type": JSON})

    assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (422, "invalid_request", REPEATED)


@pytest.mark.parametrize("kind", ["text/plain", "text/plain; charset=utf-8", "multipart/form-data; boundary=x", ""])
@pytest.mark.parametrize("route", VALID)
async def test_a_page_of_another_site_cannot_send_a_body_that_needs_no_permission(
    admin: Client, route: tuple[str, str], kind: str
) -> None:
    headers = {"Content-Type": kind} if kind else {}

    answer = await send(admin, route, json.dumps(VALID[route]).encode(), **headers)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert (await admin.get(f"{API}/admin/permissions/rules", params={"v0": "role:reader"})).json()["items"] == []


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/geo+json"])
async def test_a_body_announced_as_json_is_read(admin: Client, kind: str) -> None:
    route = ("POST", "/admin/permissions/rules")

    answers = [
        await send(admin, route, json.dumps(VALID[route]).encode(), **{"Content-Type": kind, **more})
        for more in ({"Idempotency-Key": "k"}, {"Idempotency-Key": "k"}, {})
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 409]
    assert answers[0].json() == answers[1].json()


async def test_one_body_spelled_two_ways_is_one_request(admin: Client) -> None:
    route, rule = ("POST", "/admin/permissions/rules"), '{"values":["role:a","document:é","read","allow"],"ptype":"p"}'
    headers = {"Content-Type": JSON, "Idempotency-Key": "k"}

    first = await send(admin, route, f'{{"rules":[{rule}]}}'.encode(), **headers)
    again = await send(admin, route, json.dumps(json.loads(f'{{"rules":[{rule}]}}'), indent=1).encode(), **headers)

    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())


@pytest.mark.parametrize("host", ["[", "a:b:c", "essai/x?y#z", "]["])
async def test_a_key_does_not_read_the_name_that_the_caller_gives_the_server(admin: Client, host: str) -> None:
    route = ("POST", "/admin/permissions/rules")
    headers = {"Content-Type": JSON, "Idempotency-Key": "k", "Host": host}

    answer = await send(admin, route, json.dumps(VALID[route]).encode(), **headers)

    assert answer.status_code == 201


async def test_a_field_of_the_form_given_twice_is_refused(admin: Client) -> None:
    twice = "username=admin&password=administrateur-d-essai&username=ada"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}

    answer = await admin.request("POST", f"{API}/auth/token", content=twice, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "ada" not in answer.text


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "\\u0061": 1}',
        b'[{"b": {"c": [{"a": 1, "x": 2, "a": 1}]}}]',
        b'{"": 1, "": 2}',
        b'{"a": {"x": 1}, "b": {"x": 1, "x": 1}}',
    ],
)
def test_a_key_repeats_itself_at_any_depth_and_in_any_spelling(content: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="répétée"):
        read_json(content, JSON)


def test_the_same_key_in_two_objects_is_no_repetition() -> None:
    found = read_json(b'{"a": {"x": 1}, "b": [{"x": 1}, {"x": 2}], "x": 3, "A": 4}', "application/json")

    assert found == {"a": {"x": 1}, "b": [{"x": 1}, {"x": 2}], "x": 3, "A": 4}


@pytest.mark.parametrize("kind", ["", "json", "text/json", "application", "application/jsonp", "a/+json"])
def test_what_is_not_announced_as_json_is_not_read(kind: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read_json(b"{}", kind)

    assert refused.value.detail == UNDECLARED


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_constant_that_json_has_not_is_not_read(constant: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_json(f'{{"size": {constant}}}'.encode(), JSON)
