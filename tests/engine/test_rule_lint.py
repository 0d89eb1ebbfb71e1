"""La relecture des règles : chaque faute plantée est citée, avec le nom le plus proche ; le juste n'est pas dit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastapi_acl import ACLConfig, PolicyRule
from fastapi_acl.engine.casbin.definitions import ModelDefinitions
from fastapi_acl.engine.casbin.models import load_model, read_packaged_model
from fastapi_acl.engine.casbin.rule_lint import MAX_FINDINGS, Declared, RuleLint
from fastapi_acl.engine.kernel.loading import Loaded
from fastapi_acl.engine.kernel.policy import Policy
from fastapi_acl.engine.kernel.rule_set import by_type
from tests.support.effort import effort

DECLARED = Declared(
    frozenset({"document", "document:{document_id}", "document:{id}:page-{number}", "invoice", "acl.rules"}),
    frozenset({"read", "write", "approve"}),
)
LARGE = effort(5_000, 50_000)
ROUTES = Declared(frozenset({"/documents", "/documents/{name}"}), frozenset({"GET", "POST"}), are_filled=False)
SOUND = (
    ("p", "role:reader", "document", "read", "allow"),
    ("p", "role:reader", "document:42", "read", "allow"),
    ("p", "role:reader", "document:*", "write", "deny"),
    ("p", "role:reader", "document:42:page-7", "read", "allow"),
    ("p", "role:writer", "*", "*", "allow"),
    ("p", "role:idle", "invoice", "approve", "allow"),
    ("g", "role:chief", "role:writer"),
    ("g", "user:1", "role:reader"),
    ("g", "user:1", "role:chief"),
)
ABAC = tuple((ptype, *values[:3], "*", *values[3:]) if ptype == "p" else (ptype, *values) for ptype, *values in SOUND)


def policy(rules: Sequence[tuple[str, ...]], **settings: Any) -> Policy:
    made = Policy(ModelDefinitions(load_model(ACLConfig(_env_file=None, **settings))))
    made.install(made.prepare(Loaded(by_type(PolicyRule.of(ptype, values) for ptype, *values in rules))))
    return made


async def findings(
    rules: Sequence[tuple[str, ...]], declared: Declared | None = DECLARED, **settings: Any
) -> list[str]:
    return await RuleLint(policy(rules, **settings), declared=declared).findings()


async def test_sound_rules_are_left_alone() -> None:
    assert await findings(SOUND) == []
    assert await findings(ABAC, model="abac") == []
    assert await findings((), DECLARED) == []


@pytest.mark.parametrize(
    ("rule", "said", "near"),
    [
        (("g", "user:1", "role:manger"), "« role:manger » n’a aucune règle", None),
        (("g", "user:1", "role:raeder"), "« role:raeder » n’a aucune règle", "role:reader"),
        (("g", "role:chief", "role:writter"), "« role:writter » n’a aucune règle", "role:writer"),
        (("p", "role:readers", "document", "read", "allow"), "« role:readers » n’est donné à personne", "role:reader"),
        (("p", "role:reader", "document", "raed", "allow"), "« act » vaut « raed »", "read"),
        (("p", "role:reader", "document", "Write", "allow"), "« act » vaut « Write »", "write"),
        (("p", "role:reader", "document", "aprove", "deny"), "« act » vaut « aprove »", "approve"),
        (("p", "role:reader", "document", "read:all", "allow"), "« act » vaut « read:all »", "read"),
        (("p", "role:reader", "documents", "read", "allow"), "« obj » vaut « documents »", "document"),
        (("p", "role:reader", "Invoice", "read", "allow"), "« obj » vaut « Invoice »", "invoice"),
        (("p", "role:reader", "document:42:page", "read", "allow"), "« obj » vaut « document:42:page »", None),
        (("p", "role:reader", "invoice:*", "read", "allow"), "« obj » vaut « invoice:* »", "invoice"),
        (("p", "role:reader", "document:1:page-2:*", "read", "allow"), "« obj » vaut", None),
        (("p", "role:reader", "acl.ruls", "write", "deny"), "« obj » vaut « acl.ruls »", "acl.rules"),
    ],
)
async def test_a_planted_fault_is_cited_with_the_nearest_name(
    rule: tuple[str, ...], said: str, near: str | None
) -> None:
    found = await findings((*SOUND, rule))

    assert [one for one in found if said in one] == found
    assert len(found) == 1
    assert found[0].startswith(", ".join(rule))
    assert near is None or found[0].endswith(f"vouliez-vous « {near} » ?")


@pytest.mark.parametrize(("scope", "near"), [("onw", "own"), ("Own", "own"), ("owner", "own"), ("all", None)])
async def test_a_scope_that_the_matcher_does_not_name_is_cited(scope: str, near: str | None) -> None:
    found = await findings((*ABAC, ("p", "role:reader", "document", "read", scope, "allow")), model="abac")

    assert len(found) == 1
    assert f"« scope » vaut « {scope} », le modèle n’y connaît que « * » ou « own »" in found[0]
    assert near is None or found[0].endswith(f"vouliez-vous « {near} » ?")


async def test_a_column_compared_with_the_request_as_well_is_free(tmp_path: Path) -> None:
    file = tmp_path / "model.conf"
    text = read_packaged_model("rbac").replace("aclMatch(r.act, p.act)", '(p.act == "any" || r.act == p.act)')
    file.write_text(text, "utf-8")
    rules = (("p", "role:reader", "document", "read", "allow"), ("p", "role:reader", "document", "any", "allow"))

    assert await findings((*rules, SOUND[-2]), None, model_path=file) == []


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (("p", "role:reader", "/document", "GET", "allow"), "« path » vaut « /document »"),
        (("p", "role:reader", "/documents/{id}", "GET", "allow"), "« path » vaut « /documents/{id} »"),
        (("p", "role:reader", "/documents", "get", "allow"), "« method » vaut « get »"),
    ],
)
async def test_under_a_model_of_routes_paths_and_methods_are_those_of_the_routes(
    rule: tuple[str, ...], said: str
) -> None:
    sound = (("p", "role:reader", "/documents/{name}", "GET", "allow"), ("g", "user:1", "role:reader"))

    assert await findings(sound, ROUTES, model="rest") == []
    found = await findings((*sound, rule), ROUTES, model="rest")
    assert len(found) == 1
    assert said in found[0]


async def test_motifs_are_compared_with_what_routes_ask(tmp_path: Path) -> None:
    file = tmp_path / "model.conf"
    file.write_text(read_packaged_model("rest").replace("aclMatch(r.path", "keyMatch2(r.path"), "utf-8")
    link = ("g", "user:1", "role:reader")

    right = await findings((link, ("p", "role:reader", "/documents/:name", "GET", "allow")), ROUTES, model_path=file)
    wrong = await findings((link, ("p", "role:reader", "/document/:name", "GET", "allow")), ROUTES, model_path=file)

    assert right == []
    assert len(wrong) == 1
    assert "« path » vaut « /document/:name »" in wrong[0]


async def test_resources_of_the_library_pass_where_its_routes_are_not_mounted() -> None:
    bare = Declared(frozenset({"document"}), frozenset({"read", "write"}))

    assert await findings((("p", "role:reader", "acl.rules", "write", "allow"), SOUND[-2]), bare) == []


async def test_what_routes_ask_is_not_compared_when_it_is_unknown() -> None:
    assert await findings((*SOUND, ("p", "role:reader", "x", "y", "allow")), None) == []


async def test_every_fault_of_a_large_policy_is_counted_and_few_are_cited() -> None:
    rules = [("p", f"role:r{number}", f"document:{number}", "raed", "allow") for number in range(LARGE)]
    rules += [("g", "user:1", f"role:x{number}") for number in range(LARGE)]

    found = await findings(rules)

    cited = [one for one in found if "n’a aucune règle" in one]
    assert len(cited) == MAX_FINDINGS
    assert f"… et {LARGE - MAX_FINDINGS} autres rôles sans règle." in found
    about_action = [one for one in found if "raed" in one]
    assert len(about_action) == 1
    assert about_action[0].startswith(
        f"p, role:r0, document:0, raed, allow (et {LARGE - 1} autre(s)) : « act » vaut « raed »"
    )


async def test_a_link_in_a_domain_is_read_as_another() -> None:
    rules = (("p", "role:reader", "acme", "document", "read", "allow"), ("g", "user:1", "role:raeder", "acme"))

    found = await findings(rules, None, model="rbac_with_domains")

    assert len(found) == 1
    assert found[0].startswith("g, user:1, role:raeder, acme : le rôle « role:raeder » n’a aucune règle")
