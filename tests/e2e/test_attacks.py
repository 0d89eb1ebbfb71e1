"""Des attaques qui ont réussi une fois, et qui ne réussissent plus."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import Depends, FastAPI

from fastapi_acl import ACLManager, ConfigurationError, require
from fastapi_acl.engine.adapters.base import digest
from fastapi_acl.runtime.storage import create_storage
from fastapi_acl.shared.policy import PolicyRule
from tests.support.app import PASSWORD, Client, config, documents, living, protected, serve
from tests.support.byhand import advance_revision, lose_head, write_row

RULES = "/api/v1/admin/permissions/rules"
DENIED = UUID("12345678-1234-5678-1234-56781234abcd")


async def test_a_deny_on_an_object_holds_however_its_identifier_is_written(sqlite_uri: str) -> None:
    app = FastAPI()
    acl = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    @app.get("/d/{number}", dependencies=[Depends(require("document:{number}:read"))])
    async def by_number(number: int) -> int:
        return number

    @app.get("/u/{key}", dependencies=[Depends(require("document:{key}:read"))])
    async def by_key(key: UUID) -> UUID:
        return key

    async with serve(app, acl) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        subject = f"user:{ada.id}"
        await admin.add_rules(
            ("p", subject, "document:*", "read", "allow"),
            ("p", subject, "document:7", "read", "deny"),
            ("p", subject, f"document:{DENIED}", "read", "deny"),
        )
        numbers = [(await ada.get(f"/d/{raw}")).status_code for raw in ("7", "07", "7.0", "+7", "%207", "8", "x")]
        spellings = [str(DENIED), str(DENIED).upper(), DENIED.hex, f"%7B{DENIED}%7D", f"urn:uuid:{DENIED}"]
        keys = [(await ada.get(f"/u/{raw}")).status_code for raw in [*spellings, str(UUID(int=1))]]

    assert numbers == [403, 404, 404, 404, 404, 200, 422]
    assert keys == [403, 404, 404, 404, 404, 200]


async def test_role_chains_do_not_hide_behind_domain_patterns(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, model="rbac_with_domains") as visitor:
        admin = await visitor.admin()

        patterns = [await admin.add_rules(("g", "role:x", "role:y", domain)) for domain in ("t:*", "te*nt", "**")]
        defined = ("p", "role:y", "t", "document", "read", "allow")
        first = await admin.add_rules(defined, ("g", "role:x", "role:y", "t"))
        cycle = await admin.add_rules(("g", "role:y", "role:x", "*"))

    assert {answer.json()["code"] for answer in patterns} == {"invalid_rule"}
    assert (first.status_code, cycle.json()["reason"]) == (201, "role_cycle")


async def test_a_deny_of_one_domain_keeps_its_actor_from_granting_in_all(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, model="rbac_with_domains") as visitor:
        mallory, admin = await visitor.newcomer("mallory"), await visitor.admin()
        subject = f"user:{mallory.id}"
        await admin.add_rules(
            ("p", "role:sub", "*", "acl.rules", "write", "allow"),
            ("p", "role:sub", "*", "document", "read", "allow"),
            ("p", "role:banned", "t1", "document", "read", "deny"),
            ("g", subject, "role:sub", "*"),
            ("g", subject, "role:banned", "t1"),
        )

        answers = [
            await mallory.add_rules(("p", "user:zoe", domain, "document", "read", "allow"))
            for domain in ("t1", "*", "t2")
        ]

    assert [answer.status_code for answer in answers] == [403, 403, 201]


async def test_a_revoked_actor_writes_nothing_through_a_process_that_does_not_know_yet(sqlite_uri: str) -> None:
    apps = [documents(FastAPI()), documents(FastAPI())]
    managers = [ACLManager(config(sqlite_uri=sqlite_uri, policy_poll_seconds=30), app=app) for app in apps]
    async with (
        living(apps[0]),
        living(apps[1]),
        httpx.AsyncClient(transport=httpx.ASGITransport(apps[0]), base_url="http://un") as one,
        httpx.AsyncClient(transport=httpx.ASGITransport(apps[1]), base_url="http://deux") as two,
    ):
        visitor = Client(one, managers[0])
        admin = await visitor.admin()
        answers = []
        for name, removed in (("mallory", "account"), ("eve", "role"), ("zoe", "account"), ("bob", "role")):
            actor = await visitor.newcomer(name)
            link = ("g", f"user:{actor.id}", "role:admin")
            await admin.add_rules(link)
            await managers[1]._parts.replica.refresh()
            elsewhere = Client(two, managers[1], actor.token)
            if removed == "account":
                await admin.put(f"/api/v1/admin/auth/users/{actor.id}/deactivate")
            else:
                await admin.remove_rules(link)
            if name in {"mallory", "eve"}:
                answers.append(await elsewhere.add_rules(("g", "user:second", "role:admin")))
            else:
                answers.append(await elsewhere.delete(f"/api/v1/admin/auth/users/{admin.id}"))
        kept = await admin.get(RULES, params={"v0": "user:second"})

    assert [answer.status_code for answer in answers] == [401, 403, 401, 403]
    assert kept.json()["items"] == []


async def test_a_helpdesk_does_not_touch_an_administrator(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        desk, other, admin = await visitor.newcomer("desk"), await visitor.newcomer("other"), await visitor.admin()
        await admin.add_rules(
            ("p", f"user:{desk.id}", "acl.users", "write", "allow"), ("g", f"user:{other.id}", "role:admin")
        )
        account = f"/api/v1/admin/auth/users/{admin.id}"

        refused = [await desk.delete(account), await desk.put(f"{account}/deactivate")]
        plain = await desk.delete(f"/api/v1/admin/auth/users/{(await visitor.newcomer('plain')).id}")

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(403, "escalation_refused")}
    assert plain.status_code == 204


async def test_an_owner_rule_does_not_lock_the_administrators_out(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, model="abac") as visitor:
        admin = await visitor.admin()
        rule = ("p", "role:admin", "acl.rules", "write", "own", "allow")

        added, removed = await admin.add_rules(rule), await admin.remove_rules(rule)

    assert (added.status_code, removed.status_code) == (201, 200)


async def test_a_chain_written_by_hand_does_not_lose_its_deny(database_settings: dict[str, Any]) -> None:
    async with protected(**database_settings) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        await admin.add_rules(
            ("p", f"user:{ada.id}", "document", "read", "allow"), ("p", "role:r12", "document", "read", "deny")
        )
        chain = [PolicyRule("g", (f"user:{ada.id}", "role:r1"))]
        chain += [PolicyRule("g", (f"role:r{step}", f"role:r{step + 1}")) for step in range(1, 12)]
        storage = create_storage(config(**database_settings))
        for rule in chain:
            await write_row(storage, rule.ptype, rule.values, digest(rule))
        await advance_revision(storage)
        await storage.database.close()
        refused = await admin.add_rules(("p", "role:x", "y", "read", "allow"))

    assert (refused.status_code, refused.json()["code"]) == (503, "policy_unreadable")


async def test_a_mount_with_parameters_is_not_decided_under_rest(sqlite_uri: str) -> None:
    outer, inner = FastAPI(), FastAPI()
    acl = ACLManager(config(sqlite_uri=sqlite_uri, model="rest"), app=outer)

    @inner.get("/x", dependencies=[Depends(require("x:read"))])
    async def x() -> str:
        return "ok"

    outer.mount("/m/{tenant}", inner)
    with pytest.raises(ConfigurationError, match=re.escape("GET /m/{tenant}/x")):
        async with serve(outer, acl):
            pass
    async with serve(outer, acl, lifespan=False) as visitor:
        answer = await (await visitor.admin()).get("/m/acme/x")

    assert answer.status_code == 503


async def test_hostile_filters_and_paths_are_not_outages(database_settings: dict[str, Any]) -> None:
    async with protected(**database_settings) as visitor:
        admin = await visitor.admin()

        nul = await admin.get(RULES, params={"v0": "\x00"})
        newline = await admin.get("/documents/%0a")

    assert (nul.status_code, nul.json()["items"]) == (200, [])
    assert newline.status_code == 200


@pytest.mark.parametrize("name", ["admi\u0307n", "adm\u0131n", "\u0251dmin", "user\u09ea", "admin\u0338"])
async def test_a_name_drawn_like_another_is_refused(sqlite_uri: str, name: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        assert (await visitor.register(name)).json()["code"] == "invalid_username"


def test_an_unreadable_address_is_a_configuration_error_without_its_password() -> None:
    settings = {"database_type": "postgresql", "postgresql_uri": "postgresql://ada:planted@hote:abc/base"}

    with pytest.raises(ConfigurationError, match="ACL_POSTGRESQL_URI") as refused:
        ACLManager(config(**settings))

    assert "planted" not in str(refused.value)


async def test_libpq_ssl_modes_are_understood(postgresql_uri: str) -> None:
    settings = {"database_type": "postgresql", "postgresql_uri": f"{postgresql_uri}?sslmode=prefer"}
    acl = ACLManager(config(**settings))

    await acl.initialize()

    assert acl.is_ready
    await acl.close()


async def test_a_model_where_a_joker_permits_nothing_refuses_its_administrator(sqlite_uri: str, tmp_path: Path) -> None:
    path = tmp_path / "model.conf"
    path.write_text(
        "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act\n[role_definition]\ng = _, _\n"
        "[policy_effect]\ne = some(where (p.eft == allow))\n"
        "[matchers]\nm = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act\n",
        "utf-8",
    )
    acl = ACLManager(config(sqlite_uri=sqlite_uri, model_path=path))

    with pytest.raises(ConfigurationError, match="aclMatch"):
        await acl.initialize()
    await acl.close()


async def test_a_login_during_its_accounts_deletion_is_refused_and_not_an_error(
    database_settings: dict[str, Any],
) -> None:
    async with protected(**database_settings) as visitor:
        admin = await visitor.admin()
        outcomes = set()
        for attempt in range(6):
            account = await visitor.newcomer(f"ada{attempt}")
            body = {"username": f"ada{attempt}", "password": PASSWORD}
            answers = await asyncio.gather(
                *(visitor.insist("POST", "/api/v1/auth/login", json=body) for _ in range(6)),
                admin.insist("DELETE", f"/api/v1/admin/auth/users/{account.id}"),
            )
            outcomes |= {answer.status_code for answer in answers}

    assert outcomes <= {200, 204, 401}


async def test_a_lost_table_is_told_and_is_not_an_internal_error(database_settings: dict[str, Any]) -> None:
    async with protected(**database_settings) as visitor:
        admin = await visitor.admin()
        storage = create_storage(config(**database_settings))
        await lose_head(storage)
        await storage.database.close()

        write, logout = (
            await admin.add_rules(("p", "role:a", "b", "c", "allow")),
            await admin.post("/api/v1/auth/logout"),
        )

    code = "database_unavailable" if database_settings["database_type"] == "mongodb" else "database_refused"
    assert {(answer.status_code, answer.json()["code"]) for answer in (write, logout)} == {(503, code)}
