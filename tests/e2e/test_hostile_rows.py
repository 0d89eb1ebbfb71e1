"""Ce qu'une main a mis dans les tables, vu des routes et des outils : jamais un 500, et un redémarrage qui part."""

from __future__ import annotations

import io
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest
from bson.datetime_ms import DatetimeMS
from fastapi import FastAPI

from fastapi_acl import ACLManager
from fastapi_acl.runtime.storage import Storage
from fastapi_acl.shared.exceptions import ACLException, ConfigurationError
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from tests.conftest import DATABASES
from tests.storage.conftest import share_of
from tests.support.app import ADMIN, ADMIN_PASSWORD, PASSWORD, Client, config, documents, protected, serve
from tests.support.proxy import before
from tests.support.wounds import ABSENT, Wound

API = "/api/v1"
RULE = {"ptype": "p", "values": ["role:k", "doc", "read", "allow"]}
NOW = timedelta(seconds=-1)

WOUNDS = [
    Wound("acl_changes", "at", "pas une date"),
    Wound("acl_changes", "payload", "null", last=False),
    Wound("acl_revision", "revision", "x"),
    Wound("casbin_rule", "ptype", ABSENT),
    Wound("acl_users", "created_at", "0044-03-15 BC", last=False),
    Wound("acl_users", "session_version", 2**31 - 1, last=False),
    Wound("acl_sessions", "expires_at", ABSENT, last=False),
    Wound("acl_batch_rules", "v0", 7),
]
MORE = [
    Wound("acl_changes", "kind", "inconnue", last=False),
    Wound("acl_changes", "actor", ABSENT),
    Wound("acl_changes", "live_until", "hier"),
    Wound("acl_changes", "revision", 2**62),
    Wound("acl_revision", "rule_id", 2**63 - 1),
    Wound("acl_revision", "id", 7),
    Wound("casbin_rule", "v0", ABSENT),
    Wound("casbin_rule", "digest", ABSENT),
    Wound("casbin_rule", "id", 2**63 - 1),
    Wound("acl_users", "id", "pas-un-uuid"),
    Wound("acl_users", "is_active", 7, last=False),
    Wound("acl_users", "hashed_password", "n’importe quoi", last=False),
    Wound("acl_users", "username_key", ABSENT),
    Wound("acl_sessions", "user_id", ABSENT, last=False),
    Wound("acl_sessions", "refresh_digest", "é", last=False),
    Wound("acl_batches", "created_at", ABSENT, last=False),
    Wound("acl_batch_rules", "digest", ABSENT),
]


OLD, FAR = 1_234_567_890_123, 2**60
"""Une date, et une autre qu'aucun `datetime` ne contient, telles que BSON les écrit."""

OF_BSON = {
    "un texte de règle": (b"role:r", b"role:\xff"),
    "un nom de compte": (b"\x04\0\0\0ada\0", b"\x04\0\0\0\xffda\0"),
    "une date": (struct.pack("<q", OLD), struct.pack("<q", FAR)),
}


@pytest.mark.parametrize("database_settings", [kind for kind in DATABASES if kind == "mongodb"], indirect=True)
@pytest.mark.parametrize("name", OF_BSON)
async def test_what_bson_alone_can_keep_never_makes_a_500(database_settings: dict[str, Any], name: str) -> None:
    """Un texte qui n'est pas de l'UTF-8, une date d'après l'an 9999 : un mandataire les met dans les réponses."""
    async with before(database_settings["mongodb_uri"]) as (uri, proxy):

        async def lie(storage: Storage) -> None:
            for table, column in (("acl_users", "created_at"), ("acl_changes", "at"), ("acl_sessions", "expires_at")):
                await Wound(table, column, DatetimeMS(OLD)).inflict(storage)
            proxy.retold = dict([OF_BSON[name]])

        await hurt({**database_settings, "mongodb_uri": uri}, lie)


INFLICTED = [
    *(pytest.param(kind, wound, id=f"{kind}-{wound}") for kind in DATABASES for wound in WOUNDS),
    *(
        pytest.param(kind, wound, marks=pytest.mark.slow, id=f"{kind}-{wound}")
        for kind in DATABASES
        for wound in share_of(kind, MORE)
    ),
]
"""Sur chaque base les principales ; des autres, toutes sur SQLite, et une part sur chaque serveur."""


@pytest.mark.parametrize(("database_settings", "wound"), INFLICTED, indirect=["database_settings"])
async def test_what_a_hand_wrote_never_makes_a_500(database_settings: dict[str, Any], wound: Wound) -> None:
    await hurt(database_settings, wound.inflict)


async def hurt(given: dict[str, Any], inflict: Callable[[Storage], Awaitable[None]]) -> None:
    """Abîme une base sous une application, frappe partout, et redémarre."""
    settings = {**given, "policy_poll_seconds": 60}
    async with protected(**settings) as client:
        admin, ada = await client.admin(), await client.newcomer("ada")
        store, history = client.manager.get_policy_store(), client.manager.get_policy_history()
        await store.change(PolicyChange(added=(PolicyRule("p", ("role:r", "doc", "read", "allow")),)))
        await history.compact(older_than=NOW)
        await imported(client.manager)
        await inflict(client.manager._parts.storage)

        await call_all(client.manager)
        assert 500 not in (await ask_all(client, admin, ada)).values()

    app = FastAPI()
    manager = ACLManager(config(**settings), app=app)
    with suppress(ConfigurationError):  # un refus qui dit quoi faire
        async with serve(documents(app), manager) as client:
            renewed = Client(client.http, manager, admin.token, admin.refresh_token)
            assert 500 not in (await ask_all(client, renewed, renewed)).values()
            await call_all(manager)


async def ask_all(client: Client, admin: Client, someone: Client) -> dict[str, int]:
    """Frappe à chaque route, et rend les réponses."""
    visitor, users = Client(client.http, client.manager), f"{API}/admin/auth/users"
    check = {"checks": [{"resource": "document", "action": "read"}]}
    why = {"subject": "user:1", "resource": "document", "action": "read"}
    asked: dict[str, Callable[[], Awaitable[httpx.Response]]] = {
        "health": lambda: visitor.get(f"{API}/acl/health"),
        "login": lambda: login(visitor, ADMIN, ADMIN_PASSWORD),
        "login of another": lambda: login(visitor, "ada", PASSWORD),
        "register": lambda: visitor.register(f"eve{admin is someone}"),
        "me": lambda: admin.get(f"{API}/auth/me"),
        "check": lambda: admin.post(f"{API}/permissions/check", json=check),
        "mine": lambda: admin.get(f"{API}/permissions/me"),
        "explain": lambda: admin.post(f"{API}/admin/permissions/explain", json=why),
        "rules": lambda: admin.get(f"{API}/admin/permissions/rules"),
        "add": lambda: admin.post(
            f"{API}/admin/permissions/rules", json={"rules": [RULE]}, headers={"Idempotency-Key": "k"}
        ),
        "remove": lambda: admin.remove_rules(("p", *RULE["values"])),
        "users": lambda: admin.get(users),
        "deactivate": lambda: admin.put(f"{users}/{someone.id or admin.id}/deactivate"),
        "documents": lambda: admin.get("/documents"),
        "refresh": lambda: visitor.post(f"{API}/auth/refresh", json={"refresh_token": someone.refresh_token}),
        "refresh again": lambda: visitor.post(f"{API}/auth/refresh", json={"refresh_token": someone.refresh_token}),
        "logout": lambda: admin.post(f"{API}/auth/logout", json={"everywhere": True}),
    }
    return {name: (await ask()).status_code for name, ask in asked.items()}


async def login(visitor: Client, username: str, password: str) -> httpx.Response:
    return await visitor.post(f"{API}/auth/login", json={"username": username, "password": password})


async def imported(manager: ACLManager) -> None:
    text = io.StringIO("p, role:i, doc, read, allow\n")
    await manager.get_policy_transfer().import_rules(text, "csv")


async def call_all(manager: ACLManager) -> None:
    """Fait ce qu'un outil ferait ; une erreur de la bibliothèque est une réponse, toute autre est un défaut."""
    history = manager.get_policy_history()
    for call in (
        manager.get_replica().reload,
        manager._parts.replica.refresh,
        history.changes,
        lambda: history.rules_at(manager.get_replica().revision),
        lambda: exported(manager),
        lambda: imported(manager),
        lambda: history.rollback(manager.get_replica().revision - 1),
        lambda: history.compact(older_than=NOW),
        history.renew,
        manager._parts.replica.refresh,
        manager.get_policy_transfer().sweep,
        manager.adopt_model,
        manager.check_schema,
    ):
        with suppress(ACLException):
            await call()


async def exported(manager: ACLManager) -> None:
    async for _ in manager.get_policy_transfer().export_rules("csv"):
        pass
