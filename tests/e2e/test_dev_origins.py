"""`disable_auth_for_dev` : une page d'un autre site, ouverte dans le même navigateur, n'agit pas en administrateur."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket
from pydantic import ValidationError
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from fastapi_acl import ACLConfig, ACLManager, require
from tests.support.app import config, documents, living

HOST = "http://localhost:8000"
SOCKET = "ws://localhost:8000/ws"
RULES = "/api/v1/admin/permissions/rules"
RULE = {"rules": [{"ptype": "p", "values": ["role:reader", "document", "read", "allow"]}]}
LISTED = "http://localhost:5173"

OWN: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Origin": HOST},
    {"Origin": "HTTP://LOCALHOST:8000"},
    {"Origin": HOST, "Sec-Fetch-Site": "same-origin"},
]
"""Ce que disent un outil sans page, une adresse tapée, et nos propres pages."""

FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://localhost:8000"},
    {"Origin": "http://localhost"},
    {"Origin": LISTED},
    {"Origin": "http://127.0.0.1:8000"},
    {"Origin": f"{HOST}.evil.example"},
    {"Origin": f"{HOST}/"},
    {"Origin": f"{HOST}, https://evil.example"},
    {"Origin": "http://localhost:8000@evil.example"},
    {"Origin": "http://evil.example@localhost:8000"},
    {"Origin": "http://localhost:99999"},
    {"Origin": "http://[::1"},
    {"Origin": "localhost:8000"},
    {"Origin": HOST, "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "Same-Origin"},
    {"Sec-Fetch-Site": ""},
]


def developed(sqlite_uri: str, **settings: Any) -> tuple[FastAPI, ACLManager]:
    app = FastAPI()
    acl = ACLManager(
        config(sqlite_uri=sqlite_uri, disable_auth_for_dev=True, create_default_admin=False, **settings),
        app=documents(app),
    )

    @app.websocket("/ws", dependencies=[Depends(require("document:read"))])
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("bonjour")

    return app, acl


def client(app: FastAPI, url: str = HOST) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=("127.0.0.1", 1)), base_url=url)


async def test_only_our_own_pages_and_tools_without_a_page_are_the_administrator(sqlite_uri: str) -> None:
    app, _ = developed(sqlite_uri)
    async with living(app), client(app) as http:
        own = [(await http.get("/documents", headers=headers)).status_code for headers in OWN]
        foreign = [await http.get("/documents", headers=headers) for headers in FOREIGN]

    assert own == [200] * len(OWN)
    assert [answer.status_code for answer in foreign] == [401] * len(FOREIGN)
    assert all("ACL_DEV_ORIGINS" in answer.json()["detail"] for answer in foreign)
    assert all("evil" not in answer.text for answer in foreign)


async def test_two_origins_or_two_sites_are_all_to_be_ours(sqlite_uri: str) -> None:
    app, _ = developed(sqlite_uri)
    doubled = [
        [("Origin", HOST), ("Origin", "https://evil.example")],
        [("Origin", "https://evil.example"), ("Origin", HOST)],
        [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "same-origin")],
    ]
    async with living(app), client(app) as http:
        answers = [(await http.get("/documents", headers=headers)).status_code for headers in doubled]

    assert answers == [401, 401, 401, 200]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_page_of_another_site_writes_no_rule_whatever_type_it_announces(sqlite_uri: str, kind: str) -> None:
    app, acl = developed(sqlite_uri)
    body = httpx.Request("POST", HOST, json=RULE).content
    async with living(app), client(app) as http:
        foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        answer = await http.post(RULES, content=body, headers={**foreign, **({"Content-Type": kind} if kind else {})})
        own = await http.post(RULES, json=RULE, headers={"Origin": HOST, "Sec-Fetch-Site": "same-origin"})

    assert (answer.status_code, own.status_code) in {(401, 201), (422, 201)}
    assert "role:reader" in {rule.values[0] for rule in acl.get_policy().rules}


async def test_a_listed_origin_of_this_machine_is_admitted_and_no_other(sqlite_uri: str) -> None:
    app, _ = developed(sqlite_uri, dev_origins=f"{LISTED}, http://127.0.0.1:3000,http://[::1]:3000")
    asked = [LISTED, "http://127.0.0.1:3000", "http://[::1]:3000", "http://localhost:5174", "https://localhost:5173"]
    async with living(app), client(app) as http:
        answers = [
            (await http.get("/documents", headers={"Origin": origin, "Sec-Fetch-Site": site})).status_code
            for origin in asked
            for site in ("same-site", "cross-site")
        ]
        mixed = await http.get("/documents", headers=[("Origin", LISTED), ("Origin", "https://evil.example")])

    assert answers == [200] * 6 + [401] * 4
    assert mixed.status_code == 401


async def test_a_page_with_a_token_is_judged_by_its_token(sqlite_uri: str) -> None:
    app, acl = developed(sqlite_uri, default_admin_password="administrateur-d-essai")
    async with living(app), client(app) as http:
        login = {"username": "admin", "password": "administrateur-d-essai"}
        token = (await http.post("/api/v1/auth/login", json=login)).json()["access_token"]
        headers = {"Origin": "https://evil.example", "Authorization": f"Bearer {token}"}
        answer = await http.get("/documents", headers=headers)

    assert answer.status_code == 200
    assert not acl.is_ready


@pytest.mark.parametrize(
    ("origin", "opens"),
    [(HOST, True), (LISTED, True), ("https://evil.example", False), ("null", False), ("ws://localhost:8000", False)],
)
def test_a_websocket_is_judged_as_a_page(sqlite_uri: str, origin: str, opens: bool) -> None:
    app, _ = developed(sqlite_uri, dev_origins=LISTED)
    with TestClient(app, base_url=HOST, client=("127.0.0.1", 1)) as sync:
        if opens:
            with sync.websocket_connect(SOCKET, headers={"Origin": origin}) as socket:
                assert socket.receive_text() == "bonjour"
        else:
            with (
                pytest.raises(WebSocketDisconnect) as refused,
                sync.websocket_connect(SOCKET, headers={"Origin": origin}),
            ):
                pass
            assert refused.value.code in {1006, 1008}


@pytest.mark.parametrize(
    "origins",
    [
        "https://evil.example",
        "http://localhost:5173/chemin",
        "localhost:5173",
        "*",
        "null",
        "http://localhost:x",
        f"{LISTED},http://10.0.0.1:80",
        "ws://localhost:5173",
    ],
)
def test_only_origins_of_this_machine_can_be_listed(origins: str) -> None:
    with pytest.raises(ValidationError, match="http://localhost:5173"):
        ACLConfig(_env_file=None, dev_origins=origins)
