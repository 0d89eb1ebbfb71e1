"""Sous quels modèles les permissions se comparent : chaque champ des règles y est lu, et comme il se compare."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from fastapi_acl import ACLManager, PolicyChange, PolicyRule
from fastapi_acl.engine.kernel.pacing import Pace
from fastapi_acl.shared.exceptions import EscalationRefusedError
from fastapi_acl.shared.identity import SYSTEM, Principal
from tests.support.app import Client, config, serve

MODEL = """[request_definition]
r = {request}
[policy_definition]
p = {fields}
[role_definition]
g = {links}
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = {matcher}
"""
REST = "aclMatch(r.obj, p.obj) && aclMatch(r.act, p.act)"
IN_DOMAIN = "g(r.sub, p.sub, r.dom) && r.dom == p.dom"

NOT_COMPARED = {
    "un champ que rien ne lit": ("sub, obj, act", "sub, obj, act, note, eft", "_, _", f"g(r.sub, p.sub) && {REST}"),
    "une portée que rien ne lit": ("sub, obj, act", "sub, obj, act, scope, eft", "_, _", f"g(r.sub, p.sub) && {REST}"),
    "un champ lu deux fois": (
        "sub, obj, act",
        "sub, obj, eft",
        "_, _",
        "g(r.sub, p.sub) && r.obj == p.obj && aclMatch(r.act, p.obj)",
    ),
    "deux domaines": (
        "sub, dom, tenant, obj, act",
        "sub, dom, tenant, obj, act, eft",
        "_, _, _",
        f"{IN_DOMAIN} && r.tenant == p.tenant && {REST}",
    ),
    "deux domaines, sans domaine de lien": (
        "sub, dom, domain, obj, act",
        "sub, dom, domain, obj, act, eft",
        "_, _",
        f"g(r.sub, p.sub) && r.dom == p.dom && r.domain == p.domain && {REST}",
    ),
    "deux sujets": (
        "sub, user, obj, act",
        "sub, user, obj, act, eft",
        "_, _",
        f"g(r.sub, p.sub) && r.user == p.user && {REST}",
    ),
}
COMPARED = (
    "sub, scope, obj, act",
    "sub, scope, obj, act, eft",
    "_, _",
    f"g(r.sub, p.sub) && r.scope == p.scope && {REST}",
)


@asynccontextmanager
async def served(path: Path, uri: str, model: tuple[str, str, str, str]) -> AsyncIterator[Client]:
    """Sert une application sous un modèle à elle, dont les requêtes disent une portée et un second sujet."""
    request, fields, links, matcher = model
    path.write_text(MODEL.format(request=request, fields=fields, links=links, matcher=matcher), encoding="utf-8")
    settings = config(sqlite_uri=uri, model_path=path, create_default_admin=False, shared_domain="")
    app = FastAPI()
    manager = ACLManager(
        settings, app=app, request_builder=lambda asked: {"scope": "far", "user": asked.principal.subject}
    )
    async with serve(app, manager) as client:
        yield client


def rule(model: tuple[str, str, str, str], **values: str) -> PolicyRule:
    """Écrit une règle, des `*` où rien n'est dit."""
    known = {"eft": "allow", "user": values["sub"], **values}
    return PolicyRule("p", tuple(known.get(name, "*") for name in model[1].split(", ")))


async def change(client: Client, actor: Principal, *added: PolicyRule) -> None:
    await client.manager.get_policy_store().change(PolicyChange(added), actor)


@pytest.mark.parametrize("name", NOT_COMPARED)
async def test_a_field_not_compared_as_it_is_read_leaves_the_rules_to_who_holds_everything(
    sqlite_uri: str, tmp_path: Path, name: str
) -> None:
    model = NOT_COMPARED[name]
    async with served(tmp_path / "m.conf", sqlite_uri, model) as client:
        ada = await client.newcomer("ada")
        held = rule(model, sub=f"user:{ada.id}", obj="document", act="read", note="un", scope="un", tenant="un")
        await change(client, SYSTEM, held)
        for eft in ("allow", "deny"):
            given = rule(model, sub="role:x", obj="document", act="read", note="un", scope="un", tenant="un", eft=eft)
            with pytest.raises(EscalationRefusedError, match="Sous ce modèle"):
                await client.manager.get_policy_store().guards.escalation.check(
                    PolicyChange((given,)), Principal(id=ada.id), Pace()
                )


async def test_a_scope_that_is_compared_by_equality_is_no_pattern(sqlite_uri: str, tmp_path: Path) -> None:
    async with served(tmp_path / "m.conf", sqlite_uri, COMPARED) as client:
        ada = await client.newcomer("ada")
        mine, actor = f"user:{ada.id}", Principal(id=ada.id)
        await change(
            client,
            SYSTEM,
            rule(COMPARED, sub=mine, scope="far", obj="acl.rules", act="write"),
            rule(COMPARED, sub=mine, scope="*", obj="document", act="read"),
        )
        await change(client, actor, rule(COMPARED, sub="role:x", scope="*", obj="document", act="read"))
        with pytest.raises(EscalationRefusedError):
            await change(client, actor, rule(COMPARED, sub="role:x", scope="far", obj="document", act="read"))


async def test_what_goes_in_one_scope_is_not_kept_by_another_compared_by_equality(
    sqlite_uri: str, tmp_path: Path
) -> None:
    async with served(tmp_path / "m.conf", sqlite_uri, COMPARED) as client:
        ada, root = await client.newcomer("ada"), await client.newcomer("root")
        everywhere = rule(COMPARED, sub=f"user:{root.id}", scope="*", obj="document", act="read")
        far = rule(COMPARED, sub=f"user:{root.id}", scope="far", obj="document", act="read")
        above = rule(COMPARED, sub=f"user:{root.id}", scope="far", obj="acl.users", act="write")
        writes = rule(COMPARED, sub=f"user:{ada.id}", scope="far", obj="acl.rules", act="write")
        await change(client, SYSTEM, everywhere, far, above, writes)

        with pytest.raises(EscalationRefusedError):
            await client.manager.get_policy_store().change(PolicyChange(removed=(far,)), Principal(id=ada.id))
