"""Pourquoi cette décision ? La réponse, sa règle, le chemin, et le plus petit changement qui la retournerait."""

import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import combinations
from typing import Any
from uuid import UUID, uuid4

import pytest
from casbin.model import Model
from fastapi import Depends, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_acl import ACLManager, PolicyRule, Principal, require, require_role
from fastapi_acl.engine.casbin.enforcer import PolicyEnforcer
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.engine.kernel.inspector import PolicyInspector
from fastapi_acl.shared.policy import PolicyChange
from tests.support.app import Client, config, serve
from tests.support.engines import strict_enforcer

EXPLAIN = "/api/v1/admin/permissions/explain"
SHAPE = {"allowed", "revision", "rule", "role_path", "denied_because", "nearest_rules"}


async def load(name: str) -> dict[str, str]:
    return {"owner": name}


@asynccontextmanager
async def application(model: str, sqlite_uri: str) -> AsyncIterator[Client]:
    app = FastAPI()

    async def answer() -> str:
        return "ok"

    domain = {"domain": "acme"} if model == "rbac_with_domains" else {}
    app.get("/documents/{name}", dependencies=[Depends(require("document:{name}:read", **domain))])(answer)
    app.get("/role", dependencies=[Depends(require_role("editor", **domain))])(answer)
    if model == "abac":
        app.get("/own/{name}", dependencies=[Depends(require("document:read", resource=load))])(answer)
    manager = ACLManager(config(sqlite_uri=sqlite_uri, model=model, policy_poll_seconds=60), app=app)
    async with serve(app, manager) as client:
        yield client


async def explained(client: Client, **body: Any) -> dict[str, Any]:
    answer = await client.post(EXPLAIN, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found.keys() == SHAPE
    assert found["revision"] == client.manager.revision
    return {name: found[name] for name in found.keys() - {"revision"}}


def p(*values: str) -> dict[str, Any]:
    return {"ptype": "p", "values": list(values)}


def g(*values: str) -> dict[str, Any]:
    return {"ptype": "g", "values": list(values)}


async def test_an_answer_names_its_rule_its_path_and_the_smallest_change_that_flips_it(sqlite_uri: str) -> None:
    async with application("rbac", sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        me = f"user:{ada.id}"
        await admin.add_rules(
            ("g", me, "role:editor"),
            ("g", "role:editor", "role:reader"),
            ("p", "role:editor", "draft", "write", "allow"),
            ("p", "role:reader", "document:*", "read", "allow"),
            ("p", "role:reader", "document:secret", "read", "deny"),
            ("p", me, "document:hidden", "read", "deny"),
            ("p", "role:reader", "document:hidden", "read", "deny"),
            ("p", "role:owner", "document:*", "write", "allow"),
            ("p", me, "lost", "read", "deny"),
        )

        asked = {"subject": me, "action": "read"}
        allowed = await explained(admin, **asked, resource="document:7")
        denied = await explained(admin, **asked, resource="document:secret")
        twice = await explained(admin, **asked, resource="document:hidden")
        missing = await explained(admin, subject=me, resource="document:7", action="write")
        both = await explained(admin, **asked, resource="lost")

    path = [me, "role:editor", "role:reader"]
    assert allowed == {
        "allowed": True,
        "rule": p("role:reader", "document:*", "read", "allow"),
        "role_path": path,
        "denied_because": None,
        "nearest_rules": [],
    }
    secret = p("role:reader", "document:secret", "read", "deny")
    assert denied == {
        "allowed": False,
        "rule": secret,
        "role_path": path,
        "denied_because": "denied_by_rule",
        "nearest_rules": [{"change": "remove", **secret}],
    }
    assert twice["denied_because"] == "denied_by_rule"
    assert sorted(rule["values"] for rule in twice["nearest_rules"]) == sorted(
        [[me, "document:hidden", "read", "deny"], ["role:reader", "document:hidden", "read", "deny"]]
    )
    assert missing == {
        "allowed": False,
        "rule": None,
        "role_path": [],
        "denied_because": "no_rule",
        "nearest_rules": [{"change": "add", **p(me, "document:7", "write", "allow")}],
    }
    assert both["nearest_rules"] == [
        {"change": "remove", **p(me, "lost", "read", "deny")},
        {"change": "add", **p(me, "lost", "read", "allow")},
    ]


async def test_a_denial_is_explained_by_its_number(sqlite_uri: str) -> None:
    async with application("rbac", sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        me = f"user:{ada.id}"
        permission = (await ada.get("/documents/a")).json()["decision_id"]
        role = (await ada.get("/role")).json()["decision_id"]

        told = await explained(admin, decision_id=permission)
        told_of_role = await explained(admin, decision_id=role)
        await admin.add_rules(("g", me, "role:editor"), ("p", "role:editor", "document:*", "read", "allow"))
        since = [await explained(admin, decision_id=number) for number in (permission, role)]

    assert told["denied_because"] == "no_rule"
    assert told["nearest_rules"] == [{"change": "add", **p(me, "document:a", "read", "allow")}]
    assert told_of_role["denied_because"] == "no_rule"
    assert told_of_role["nearest_rules"] == [{"change": "add", **g(me, "role:editor")}]
    assert [answer["allowed"] for answer in since] == [True, True]
    assert [answer["role_path"] for answer in since] == [[me, "role:editor"]] * 2


@pytest.mark.parametrize("number", ["x", "00000000-1", "1" * 64, "-", "\x00"])
async def test_a_number_this_process_did_not_give_says_where_to_look(sqlite_uri: str, number: str) -> None:
    async with application("rbac", sqlite_uri) as visitor:
        answer = await (await visitor.admin()).post(EXPLAIN, json={"decision_id": number})

    assert (answer.status_code, answer.json()["code"]) == (404, "decision_unknown")
    assert "journal" in answer.json()["detail"]


async def test_attributes_are_put_on_the_resource(sqlite_uri: str) -> None:
    async with application("abac", sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        me = f"user:{ada.id}"
        rule = (me, "document", "read", "own", "allow")
        await admin.add_rules(("p", *rule))
        asked = {"subject": me, "resource": "document", "action": "read"}

        mine = await explained(admin, **asked, attributes={"owner": ada.id})
        theirs = await explained(admin, **asked, attributes={"owner": "bob", "startswith": 3})
        none = await explained(admin, **asked)

    assert (mine["allowed"], mine["rule"]) == (True, p(*rule))
    assert (theirs["denied_because"], none["denied_because"]) == ("no_rule", "no_rule")
    assert theirs["nearest_rules"] == [{"change": "add", **p(me, "document", "read", "*", "allow")}]


async def test_a_remembered_denial_never_makes_up_the_values_of_an_object(sqlite_uri: str) -> None:
    async with application("abac", sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        me = f"user:{ada.id}"
        before = (await ada.get("/own/bob")).json()["decision_id"]
        unread = await explained(admin, decision_id=before)
        await admin.add_rules(("p", me, "document", "read", "own", "allow"))
        after = (await ada.get("/own/bob")).json()["decision_id"]

        read = await explained(admin, decision_id=after)

    assert unread["denied_because"] == "no_rule"
    assert read["denied_because"] == "evaluation_failed"
    assert read["nearest_rules"] == []


async def test_a_deactivated_account_is_denied_for_that_and_not_for_its_rules(sqlite_uri: str) -> None:
    async with application("rbac", sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        me = f"user:{ada.id}"
        await admin.add_rules(("p", me, "document", "read", "allow"))
        asked = {"subject": me, "resource": "document", "action": "read"}
        active = await explained(admin, **asked)
        assert (await admin.put(f"/api/v1/admin/auth/users/{ada.id}/deactivate")).status_code == 200

        inactive = await explained(admin, **asked)
        strangers = [
            await explained(admin, **{**asked, "subject": subject})
            for subject in (
                *("role:reader", "user:nobody", "user:\x00", f"user:{ada.id.upper()}", "x" * 4_091),
                f"user:{uuid4()}",
            )
        ]

    assert active["allowed"]
    assert inactive == {
        "allowed": False,
        "rule": None,
        "role_path": [],
        "denied_because": "inactive",
        "nearest_rules": [],
    }
    assert {answer["denied_because"] for answer in strangers} == {"no_rule"}


async def test_a_tenant_is_asked_for_where_the_model_has_some_and_nowhere_else(sqlite_uri: str, tmp_path: Any) -> None:
    asked = {"subject": "user:1", "resource": "document", "action": "read"}
    async with application("rbac_with_domains", sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        role = (await ada.get("/role")).json()["decision_id"]
        without = await admin.post(EXPLAIN, json=asked)
        within = await explained(admin, **asked, domain="acme")
        own = await explained(admin, **{**asked, "resource": "acl.rules"})
        told = await explained(admin, decision_id=role)
        me = f"user:{ada.id}"
    async with application("rbac", f"sqlite:///{tmp_path / 'other.db'}") as visitor:
        useless = await (await visitor.admin()).post(EXPLAIN, json={**asked, "domain": "acme"})

    assert (without.status_code, useless.status_code) == (422, 422)
    assert within["nearest_rules"] == [{"change": "add", **p("user:1", "acme", "document", "read", "allow")}]
    assert own["nearest_rules"] == [{"change": "add", **p("user:1", "*", "acl.rules", "read", "allow")}]
    assert told["nearest_rules"] == [{"change": "add", **g(me, "role:editor", "acme")}]


class Given:
    """Un Authenticator de l'application : le jeton est l'identifiant de qui appelle."""

    async def authenticate(self, token: str) -> Principal:
        return Principal(id=token)


async def test_the_accounts_of_another_authenticator_are_not_sought_among_ours(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app, authenticator=Given())
    async with serve(app, manager) as visitor:
        account = UUID((await visitor.register("ada")).json()["id"])
        root = await manager.get_auth_repository().get_by_username("admin")
        assert root is not None
        admin = Client(visitor.http, manager, str(root.id))
        await admin.add_rules(("p", f"user:{account}", "document", "read", "allow"))
        await manager.get_auth_repository().update_user(account, is_active=False)

        told = await explained(admin, subject=f"user:{account}", resource="document", action="read")

    assert told["allowed"]


async def test_who_reaches_the_route_explains_no_other_account_under_a_model_of_routes(sqlite_uri: str) -> None:
    async with application("rest", sqlite_uri) as visitor:
        ada, bob, admin = await visitor.newcomer("ada"), await visitor.newcomer("bob"), await visitor.admin()
        await admin.add_rules(("p", f"user:{ada.id}", EXPLAIN, "POST", "allow"))
        asked = [{"subject": f"user:{who.id}", "resource": "/documents/{name}", "action": "GET"} for who in (ada, bob)]

        before = [(await ada.post(EXPLAIN, json=body)).status_code for body in asked]
        await admin.add_rules(("p", f"user:{ada.id}", "/api/v1/admin/auth/users", "GET", "allow"))
        after = [(await ada.post(EXPLAIN, json=body)).status_code for body in asked]

    assert (before, after) == ([200, 403], [200, 200])


async def test_who_may_ask_and_about_whom(sqlite_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    async with application("rbac", sqlite_uri) as visitor:
        ada, bob, admin = await visitor.newcomer("ada"), await visitor.newcomer("bob"), await visitor.admin()
        mine = {"subject": f"user:{ada.id}", "resource": "document", "action": "read"}
        his = {**mine, "subject": f"user:{bob.id}"}
        number = {"decision_id": (await bob.get("/documents/a")).json()["decision_id"]}
        own = {"decision_id": (await ada.get("/documents/a")).json()["decision_id"]}

        nobody = [(await ada.post(EXPLAIN, json=body)).status_code for body in (mine, his, number, own)]
        await admin.add_rules(("p", f"user:{ada.id}", "acl.rules", "read", "allow"))
        with caplog.at_level(logging.INFO, "fastapi_acl"):
            reader = [await ada.post(EXPLAIN, json=body) for body in (mine, own, his, number)]
        await admin.add_rules(("p", f"user:{ada.id}", "acl.users", "read", "allow"))
        both = [(await ada.post(EXPLAIN, json=body)).status_code for body in (mine, his, number)]
        anonymous = await visitor.post(EXPLAIN, json=mine)

    assert nobody == [403] * 4
    assert [answer.status_code for answer in reader] == [200, 200, 403, 403]
    refused = {answer.json()["decision_id"] for answer in reader[2:]}
    told = [record.message for record in caplog.records if 'permission="acl.users:read"' in record.message]
    assert {line.split()[1].partition("=")[2] for line in told} == refused
    assert len(refused) == 2
    assert both == [200] * 3
    assert anonymous.status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"subject": "user:1"},
        {"subject": "user:1", "resource": "document", "action": ""},
        {"subject": "user:1", "resource": "x" * 4_097, "action": "read"},
        {"subject": 7, "resource": "document", "action": "read"},
        {"subject": "user:1", "resource": "document", "action": "read", "planted": 1},
        {"subject": "user:1", "resource": "document", "action": "read", "decision_id": "a-1"},
        {"decision_id": "a-1", "attributes": {}},
        *(
            {"subject": "user:1", "resource": "document", "action": "read", "attributes": attributes}
            for attributes in (
                [],
                "planted",
                {"planted": []},
                {"planted": {"planted": 1}},
                {"_planted": 1},
                {"__class__": 1},
                {"7planted": 1},
                {"": 1},
                {"planted planted": 1},
                {"owner": "planted" * 1_000},
                {f"planted{index}": 1 for index in range(65)},
            )
        ),
    ],
    ids=str,
)
async def test_a_body_of_another_form_is_refused_without_an_echo(sqlite_uri: str, body: dict[str, Any]) -> None:
    async with application("rbac", sqlite_uri) as visitor:
        answer = await (await visitor.admin()).post(EXPLAIN, json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "planted" not in answer.text


async def test_a_number_too_large_for_json_is_no_attribute(sqlite_uri: str) -> None:
    body = '{"subject": "user:1", "resource": "document", "action": "read", "attributes": {"size": %s}}'
    async with application("rbac", sqlite_uri) as visitor:
        admin, headers = await visitor.admin(), {"Content-Type": "application/json"}
        answers = [await admin.post(EXPLAIN, content=body % size, headers=headers) for size in ("1e300", "1e999")]

    assert [answer.status_code for answer in answers] == [200, 422]


async def test_a_model_of_routes_is_explained_in_routes(sqlite_uri: str) -> None:
    async with application("rest", sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        refused = (await ada.get("/documents/a")).json()["decision_id"]
        told = await explained(admin, decision_id=refused)
        me = f"user:{ada.id}"

    assert told["nearest_rules"] == [{"change": "add", **p(me, "/documents/{name}", "GET", "allow")}]


# --- le plus petit changement ---

NAMES = ["user:1", "user:2", "role:a", "role:b"]
RESOURCES = ["x", "x:1", "x:*", "*"]


def enforcer_of(text: str, rules: list[PolicyRule]) -> PolicyEnforcer:
    model = Model()
    model.load_model_from_text(text)
    enforcer = strict_enforcer(model)
    enforcer.policy.install(rules)
    return enforcer


def flips(enforcer: PolicyEnforcer, change: PolicyChange, request: tuple[str, ...]) -> bool:
    with enforcer.policy.trial(change):
        return enforcer.enforce(*request)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_the_change_suggested_flips_the_answer_and_no_part_of_it_does(seed: int) -> None:
    draw = random.Random(seed)
    rules = {
        PolicyRule("p", (draw.choice(NAMES), draw.choice(RESOURCES), draw.choice(["read", "*"]), effect))
        for effect in draw.choices(["allow", "deny", "deny"], k=6)
    }
    links = {PolicyRule("g", ("user:1", "role:a")), PolicyRule("g", (draw.choice(NAMES[:3]), "role:b"))}
    enforcer = enforcer_of(read_packaged_model("rbac"), sorted(rules) + sorted(links))
    before = enforcer.policy.rules
    request = (draw.choice(NAMES[:2]), draw.choice(RESOURCES[:2]), "read")

    found = PolicyInspector(enforcer.policy).smallest(*request) if not enforcer.enforce(*request) else PolicyChange()

    assert enforcer.policy.rules == before
    if enforcer.enforce(*request):
        return
    assert flips(enforcer, found, request)
    whole = [("add", rule) for rule in found.added] + [("remove", rule) for rule in found.removed]
    for size in range(len(whole)):
        for part in combinations(whole, size):
            fewer = PolicyChange(
                added=tuple(rule for way, rule in part if way == "add"),
                removed=tuple(rule for way, rule in part if way == "remove"),
            )
            assert not flips(enforcer, fewer, request)


PRIORITY = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = priority, sub, obj, act, eft
[role_definition]
g = _, _
[policy_effect]
e = priority(p.eft) || deny
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
"""


def test_only_the_denials_that_stand_before_the_grant_are_to_be_lifted() -> None:
    rows = [("1", "deny"), ("2", "deny"), ("3", "allow"), ("4", "deny")]
    rules = [PolicyRule("p", (priority, "role:a", "x", "read", effect)) for priority, effect in rows]
    enforcer = enforcer_of(PRIORITY, [*rules, PolicyRule("g", ("user:1", "role:a"))])

    assert PolicyInspector(enforcer.policy).smallest("user:1", "x", "read") == PolicyChange(removed=tuple(rules[:2]))


def test_a_model_without_denials_that_cannot_be_written_for_suggests_a_role() -> None:
    text = PRIORITY.replace("r.obj == p.obj", 'r.obj == p.obj && p.sub != "user:1"')
    rule = PolicyRule("p", ("3", "role:a", "x", "read", "allow"))
    enforcer = enforcer_of(text, [rule])

    link = PolicyRule("g", ("user:1", "role:a"))
    assert PolicyInspector(enforcer.policy).smallest("user:1", "x", "read") == PolicyChange(added=(link,))


def test_a_change_that_cannot_be_found_is_not_made_up() -> None:
    enforcer = enforcer_of(PRIORITY.replace("r.obj == p.obj", 'r.obj == p.obj && r.sub != "user:1"'), [])

    assert not PolicyInspector(enforcer.policy).smallest("user:1", "x", "read")
