"""Chaque modèle fourni, de bout en bout : ce que le premier démarrage écrit, ce que `require` demande."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header
from pydantic import BaseModel

from fastapi_acl import ACLManager, ConfigurationError, Demand, Principal, require, require_any, require_role
from tests.support.app import config, protected, serve

MODELS = ["rbac", "rbac_with_domains", "abac", "acl", "rest"]


@pytest.mark.parametrize("model", MODELS)
async def test_the_first_administrator_holds_everything_and_a_newcomer_nothing(sqlite_uri: str, model: str) -> None:
    checks = {"checks": [{"resource": "document", "action": "read", "domain": "un"}] * 2}
    async with protected(sqlite_uri=sqlite_uri, model=model) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()

        answers = [(await who.post("/api/v1/permissions/check", json=checks)).json()["results"] for who in (ada, admin)]
        rules = [await who.get("/api/v1/admin/permissions/rules") for who in (ada, admin)]

    assert answers == [[False, False], [True, True]]
    assert [answer.status_code for answer in rules] == [403, 200]


async def test_a_role_holds_in_its_domain_only_unless_it_is_given_in_all(sqlite_uri: str) -> None:
    app = FastAPI()
    acl = ACLManager(config(sqlite_uri=sqlite_uri, model="rbac_with_domains"), app=app)

    async def tenant(x_tenant: Annotated[str, Header()]) -> str:
        return x_tenant

    @app.get("/{tenant_id}/documents", dependencies=[Depends(require("document:read", domain="{tenant_id}"))])
    async def by_path() -> str:
        return "ok"

    @app.get("/documents", dependencies=[Depends(require("document:read", domain=tenant))])
    async def by_dependency() -> str:
        return "ok"

    @app.get("/{tenant_id}/role", dependencies=[Depends(require_role("editor", domain="{tenant_id}"))])
    async def by_role() -> str:
        return "ok"

    async with serve(app, acl) as visitor:
        ada, bob, admin = await visitor.newcomer("ada"), await visitor.newcomer("bob"), await visitor.admin()
        added = await admin.add_rules(
            ("p", "role:reader", "*", "document", "read", "allow"),
            ("p", "role:editor", "*", "draft", "write", "allow"),
            ("g", "role:editor", "role:reader", "*"),
            ("g", f"user:{ada.id}", "role:editor", "un"),
            ("g", f"user:{bob.id}", "role:reader", "*"),
        )

        paths = ["/un/documents", "/deux/documents", "/un/role", "/deux/role", "/*/documents"]
        answers_of_ada = [(await ada.get(path)).status_code for path in paths]
        answers_of_bob = [(await bob.get(path)).status_code for path in paths]
        headers = [(await ada.get("/documents", headers={"X-Tenant": name})).status_code for name in ("un", "deux")]
        asked = await ada.post(
            "/api/v1/permissions/check", json={"checks": [{"resource": "document", "action": "read"}]}
        )

    assert added.status_code == 201
    assert answers_of_ada == [200, 403, 200, 403, 403]
    assert answers_of_bob == [200, 200, 403, 403, 200]
    assert headers == [200, 403]
    assert asked.status_code == 422


async def test_an_administrator_of_one_domain_grants_in_that_domain_only(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, model="rbac_with_domains") as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        await admin.add_rules(
            ("p", "role:owner", "un", "document", "read", "allow"),
            ("p", f"user:{ada.id}", "*", "acl.rules", "write", "allow"),
            ("g", f"user:{ada.id}", "role:owner", "un"),
        )

        here = await ada.add_rules(("p", "role:x", "un", "document", "read", "allow"))
        elsewhere = [
            await ada.add_rules(("p", "role:x", "deux", "document", "read", "allow")),
            await ada.add_rules(("p", "role:x", "*", "document", "read", "allow")),
            await ada.add_rules(("g", f"user:{ada.id}", "role:admin", "un")),
            await ada.add_rules(("g", f"user:{ada.id}", "role:admin", "*")),
        ]

    assert here.status_code == 201
    assert {answer.json()["code"] for answer in elsewhere} == {"escalation_refused"}


class Owned(BaseModel):
    owner: str
    title: str
    tags: list[str] = []


async def test_an_owner_reads_their_own_and_no_other(sqlite_uri: str) -> None:
    app = FastAPI()
    acl = ACLManager(config(sqlite_uri=sqlite_uri, model="abac"), app=app)

    async def load(name: str) -> Owned:
        return Owned(owner=name, title="t")

    @app.get("/documents/{name}", dependencies=[Depends(require("document:read", resource=load))])
    async def read(name: str) -> str:
        return name

    @app.get("/unloaded", dependencies=[Depends(require("document:read"))])
    async def unloaded() -> str:
        return "ok"

    async with serve(app, acl) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        added = await admin.add_rules(("p", f"user:{ada.id}", "document", "read", "own", "allow"))

        answers = [(await ada.get(f"/documents/{owner}")).status_code for owner in (ada.id, admin.id)]
        without = await ada.get("/unloaded")
        everything = await admin.get(f"/documents/{ada.id}")

    assert added.status_code == 201
    assert answers == [200, 403]
    assert without.status_code == 403, "un objet non chargé n'est à personne"
    assert everything.status_code == 200


async def test_under_rest_the_template_and_the_method_decide(sqlite_uri: str) -> None:
    app, router = FastAPI(), APIRouter(prefix="/shop")

    @router.get("/items/{item_id}", dependencies=[Depends(require("item:read"))])
    async def read(item_id: str) -> str:
        return item_id

    @router.put("/items/{item_id}", dependencies=[Depends(require("item:write"))])
    async def write(item_id: str) -> str:
        return item_id

    @router.get("/files/{path:path}", dependencies=[Depends(require("file:read"))])
    async def file(path: str) -> str:
        return path

    acl = ACLManager(config(sqlite_uri=sqlite_uri, model="rest"), app=app)
    app.include_router(router)
    inner = FastAPI()
    inner.include_router(router)
    app.mount("/sub", inner)

    async with serve(app, acl) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        added = await admin.add_rules(
            ("p", f"user:{ada.id}", "/shop/items/{item_id}", "GET", "allow"),
            ("p", f"user:{ada.id}", "/sub/shop/files/{path}", "GET", "allow"),
        )
        answers = [
            (await ada.get("/shop/items/1")).status_code,
            (await ada.put("/shop/items/1")).status_code,
            (await ada.get("/shop/files/a/b")).status_code,
            (await ada.get("/sub/shop/files/a/b")).status_code,
            (await ada.get("/sub/shop/items/1")).status_code,
            (await ada.get("/api/v1/admin/permissions/rules")).status_code,
        ]

    assert added.status_code == 201
    assert answers == [200, 403, 403, 200, 403, 403]


async def test_a_hostile_path_value_never_becomes_a_pattern_nor_a_segment(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        await admin.add_rules(
            ("p", f"user:{ada.id}", "document:1", "read", "allow"),
            ("p", f"user:{ada.id}", "document:a:*", "read", "allow"),
        )

        names = ["1", "*", "1:2", "a:b", "%2A", "%3A", "1%00", "%25", "1%20", "..%2f1", "１"]  # noqa: RUF001 - pleine chasse, exprès
        answers = {name: (await ada.get(f"/documents/{name}")).status_code for name in names}

    assert answers.pop("1") == 200
    assert set(answers.values()) <= {403, 404}


async def test_any_and_role_compose_and_overrides_are_by_value(sqlite_uri: str) -> None:
    app = FastAPI()
    acl = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    @app.get("/any", dependencies=[Depends(require_any("a:read", "b:read"))])
    async def any_of() -> str:
        return "ok"

    @app.get("/role", dependencies=[Depends(require_role("reader"))])
    async def role() -> str:
        return "ok"

    @app.get("/overridden", dependencies=[Depends(require("secret:read"))])
    async def overridden() -> str:
        return "ok"

    app.dependency_overrides[require("secret:read")] = lambda: None

    async with serve(app, acl) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        before = [(await ada.get(path)).status_code for path in ("/any", "/role")]
        await admin.add_rules(
            ("p", "role:base", "b", "read", "allow"),
            ("p", "role:reader", "elsewhere", "read", "allow"),
            ("g", "role:reader", "role:base"),
            ("g", f"user:{ada.id}", "role:reader"),
        )
        after = [(await ada.get(path)).status_code for path in ("/any", "/role")]
        free = await visitor.get("/overridden")

    assert (before, after) == ([403, 403], [200, 200])
    assert free.status_code == 200


@pytest.mark.parametrize("permission", ["document", ":read", "document:", "", "a:{action}"])
def test_a_permission_has_a_resource_and_an_action(permission: str) -> None:
    with pytest.raises(ConfigurationError, match="ressource:action"):
        require(permission)


OWN_MODEL = """
[request_definition]
r = sub, obj, act, hour
[policy_definition]
p = sub, obj, act, hour
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act && r.hour == p.hour
"""


async def test_a_token_we_do_not_know_asks_for_a_request_builder(sqlite_uri: str, tmp_path: Any) -> None:
    path = tmp_path / "model.conf"
    path.write_text(OWN_MODEL, "utf-8")
    settings = config(sqlite_uri=sqlite_uri, model_path=path, create_default_admin=False)

    with pytest.raises(ConfigurationError, match="« hour »"):
        ACLManager(settings)

    def build(demand: Demand) -> dict[str, object]:
        return {"hour": "noon" if demand.action == "read" else "night"}

    acl = ACLManager(settings, request_builder=build)
    await acl.initialize()
    await acl.get_enforcer().add_policy("user:1", "document", "read", "noon")
    assert acl.authorizer.decide(Principal(id="1"), "document", "read")
    assert not acl.authorizer.decide(Principal(id="2"), "document", "read")
    await acl.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pas un modèle", "illisible"),
        (OWN_MODEL.replace("some(where (p.eft == allow))", "toujours"), "illisible"),
        (OWN_MODEL.replace("r.sub == p.sub", "eval(p.sub)").replace(", hour", ""), "eval"),
    ],
)
def test_a_faulty_model_is_refused_at_start(sqlite_uri: str, tmp_path: Any, text: str, message: str) -> None:
    path = tmp_path / "model.conf"
    path.write_text(text, "utf-8")

    with pytest.raises(ConfigurationError, match=message):
        ACLManager(config(sqlite_uri=sqlite_uri, model_path=path))
