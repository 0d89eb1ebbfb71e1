"""L'index répond comme Casbin, règle expliquée comprise, et comme un modèle d'ensembles écrit à part."""

from __future__ import annotations

import random
from typing import Any

import pytest
from casbin.model import Model
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_acl import PolicyChange, PolicyEnforcer, PolicyRule
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.engine.kernel.acl_match import acl_match
from fastapi_acl.engine.kernel.role_graph import RoleGraph, check_links
from fastapi_acl.shared.exceptions import DecisionFailedError, InvalidRuleError
from fastapi_acl.shared.identity import AttributedName
from tests.support.engines import strict_enforcer

ALLOW_OVERRIDE = read_packaged_model("rbac").replace(" && !some(where (p.eft == deny))", "")
EQUALITIES = ALLOW_OVERRIDE.replace("aclMatch(r.obj, p.obj)", "r.obj == p.obj").replace(
    "aclMatch(r.act, p.act)", "p.act == r.act"
)
WITHOUT_EFFECT = EQUALITIES.replace("p = sub, obj, act, eft", "p = sub, obj, act")
RESIDUAL = read_packaged_model("rbac").replace(
    "g(r.sub, p.sub) &&", "g(r.sub, p.sub) && r.act != p.obj && !(p.act == r.obj) &&"
)

MODELS = {
    **{name: read_packaged_model(name) for name in ("rbac", "rbac_with_domains", "abac", "acl", "rest")},
    "allow_override": ALLOW_OVERRIDE,
    "equalities": EQUALITIES,
    "without_effect": WITHOUT_EFFECT,
    "residual": RESIDUAL,
}

SUBJECTS = ["user:1", "user:2", "role:a", "role:b"]
RESOURCES = ["x", "x:", "x:y", "x:*", "x:y:*", "*", "x:y:z", ":", "é, *", "y"]
ACTIONS = ["read", "*", "x"]
DOMAINS = ["d", "e", "*", "d:*", "d:1"]
LINK_DOMAINS = ["d", "e", "*", "d:1"]
EFFECTS = ["allow", "allow", "deny"]
POOLS = {
    "sub": SUBJECTS,
    "obj": RESOURCES,
    "path": RESOURCES,
    "act": ACTIONS,
    "method": ACTIONS,
    "dom": DOMAINS,
    "scope": ["*", "own"],
    "eft": EFFECTS,
}


def loaded(text: str) -> Model:
    model = Model()
    model.load_model_from_text(text)
    return model


def stock(text: str, rules: tuple[PolicyRule, ...]) -> PolicyEnforcer:
    """Un exécuteur nu, donc l'évaluation de Casbin, sur les mêmes règles."""
    enforcer = PolicyEnforcer(loaded(text))
    if enforcer.model["g"]:
        enforcer.add_named_domain_matching_func("g", acl_match)
    for rule in rules:
        enforcer.model[rule.section][rule.ptype].policy.append(list(rule.values))
    enforcer.build_role_links()
    return enforcer


def some_rule(enforcer: PolicyEnforcer, draw: random.Random) -> PolicyRule:
    schema = enforcer.policy.schema
    if "g" in schema.links and draw.random() < 0.4:
        domain = [draw.choice(LINK_DOMAINS)] if schema.links["g"] > 2 else []
        return PolicyRule.of("g", [draw.choice(SUBJECTS), draw.choice(["role:a", "role:b", "role:c"]), *domain])
    return PolicyRule.of("p", [draw.choice(POOLS[name]) for name in schema.fields["p"]])


def some_request(enforcer: PolicyEnforcer, draw: random.Random) -> list[Any]:
    values: list[Any] = [draw.choice([*POOLS[name], "inconnu"]) for name in enforcer.policy.schema.request]
    attributes = draw.choice([{"owner": "1"}, {"owner": "2"}, {}])
    return [
        AttributedName(value, {"id": value[-1], **attributes}) if name in {"sub", "obj"} else value
        for name, value in zip(enforcer.policy.schema.request, values, strict=True)
    ]


def some_change(enforcer: PolicyEnforcer, draw: random.Random) -> PolicyChange:
    removed = tuple(rule for rule in enforcer.policy.rules if draw.random() < 0.15)
    fresh = {some_rule(enforcer, draw) for _ in range(draw.randrange(5))} - set(enforcer.policy.rules)
    links = [rule for rule in enforcer.policy.rules if rule.ptype == "g" and rule not in removed]
    added = []
    for rule in sorted(fresh):
        if rule.ptype == "g":
            try:
                check_links([link.values for link in [*links, rule]])
            except InvalidRuleError:
                continue
            if rule.values[0] == rule.values[1] or any(rule.values[1] == link.values[0] for link in links):
                continue
            links.append(rule)
        added.append(rule)
    return PolicyChange(added=tuple(added), removed=removed)


def allowed_by_sets(enforcer: PolicyEnforcer, request: list[Any]) -> bool:
    """Le modèle de référence, en ensembles : rôles par point fixe, puis refus avant accord."""
    schema = enforcer.policy.schema
    asked = dict(zip(schema.request, map(str, request), strict=True))
    roles = {asked["sub"]}
    for _ in range(10):
        roles |= {
            rule.values[1]
            for rule in enforcer.policy.rules
            if rule.ptype == "g"
            and rule.values[0] in roles
            and (len(rule.values) < 3 or acl_match(asked["dom"], rule.values[2]))
        }
    effects = set()
    for rule in enforcer.policy.rules:
        if rule.ptype == "p":
            held = dict(zip(schema.fields["p"], rule.values, strict=True))
            same = all(
                acl_match(asked[name], held[name]) if name in schema.patterns else asked[name] == held[name]
                for name in asked
                if name != "sub"
            )
            if held["sub"] in roles and same:
                effects.add(held.get("eft", "allow"))
    return effects == {"allow"} if "deny" in enforcer.model["e"]["e"].value else "allow" in effects


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_this_suite_is_indexed(name: str) -> None:
    assert strict_enforcer(loaded(MODELS[name])).plan.is_indexed


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_index_answers_as_casbin_and_as_sets_do(name: str, seed: int) -> None:
    draw = random.Random(seed)
    enforcer = strict_enforcer(loaded(MODELS[name]), share_domains=True)
    enforcer.policy.install(())
    for _ in range(12):
        enforcer.policy.apply(some_change(enforcer, draw))
        if draw.random() < 0.7:
            continue
        if draw.random() < 0.2:
            enforcer.policy.install(enforcer.policy.rules)
        reference = stock(MODELS[name], enforcer.policy.rules)
        for _ in range(8):
            request = some_request(enforcer, draw)
            ours = enforcer.enforce_ex(*request)
            if any(rule.ptype == "p" for rule in enforcer.policy.rules):
                theirs = reference.enforce_ex(*request)
                assert (ours[0], list(ours[1])) == (theirs[0], list(theirs[1])), (request, enforcer.policy.rules)
            assert enforcer.enforce(*request) == ours[0]
            if name not in {"abac", "residual"}:
                assert ours[0] == allowed_by_sets(enforcer, request), (request, enforcer.policy.rules)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_role_graph_kept_up_to_date_is_the_one_built_anew(seed: int) -> None:
    draw = random.Random(seed)
    names, kept = ["a", "b", "c", "d"], RoleGraph(shares_domains=True)
    links: set[tuple[str, ...]] = set()
    for _ in range(30):
        link = (draw.choice(names), draw.choice(names), draw.choice(LINK_DOMAINS))
        if link in links:
            kept.remove(*link)
            links.discard(link)
        else:
            kept.add(*link)
            links.add(link)
        fresh = RoleGraph(shares_domains=True)
        for known in links:
            fresh.add(*known)
        asked = [(draw.choice(names), draw.choice(DOMAINS)) for _ in range(3)]

        assert [set(kept.closure(*pair)) for pair in asked] == [set(fresh.closure(*pair)) for pair in asked]


def test_asking_about_unknown_names_and_domains_keeps_nothing() -> None:
    enforcer = strict_enforcer(loaded(MODELS["rbac_with_domains"]), share_domains=True)
    enforcer.policy.install(
        [PolicyRule("p", ("role:a", "*", "x", "read", "allow")), PolicyRule("g", ("user:1", "role:a", "*"))]
    )

    for number in range(1000):
        enforcer.enforce(f"user:unknown-{number}", "d", "x", "read")
        assert enforcer.enforce("user:1", f"unknown-{number}", "x", "read")

    assert sum(len(known) for known in enforcer.policy.graph.closures.values()) == 1


PLANS = {
    "keyMatch(r.obj, p.obj) && r.sub == p.sub": ["clé      : keyMatch(r.obj, p.obj)", "clé      : r.sub == p.sub"],
    'r.sub == p.sub || r.act == "x"': [
        "porte    : r_act == 'x'",
        " si vraie :",
        "  clé      : aucune, toutes les règles sont acceptées",
        " sinon :",
        "  clé      : r.sub == p.sub",
    ],
    'g(r.sub, p.sub) && (r.obj == p.obj || p.obj == "*")': [
        "clé      : g(r.sub, p.sub)",
        "clé      : r.obj == p.obj || '*' == p.obj",
    ],
    "r.sub == p.sub && r.obj.__class__ == p.obj": [
        "clé      : r.sub == p.sub",
        "évalué   : (r_obj.__class__ == p_obj)",
    ],
    'p.act == "read" && r.sub == p.sub': ["clé      : r.sub == p.sub", "clé      : 'read' == p.act"],
    "r.sub ==== p.sub": ["évaluation de Casbin, règle par règle : l'expression ne se lit pas"],
}


@pytest.mark.parametrize("matcher", PLANS)
def test_a_plan_says_what_is_hashed_what_is_evaluated_and_what_goes_back_to_casbin(matcher: str) -> None:
    head, _, _ = MODELS["equalities"].partition("[matchers]")
    enforcer = strict_enforcer(loaded(f"{head}[matchers]\nm = {matcher}\n"))

    assert (
        enforcer.plan.describe(enforcer.policy.schema.request, enforcer.policy.schema.fields["p"]).splitlines()
        == PLANS[matcher]
    )


def test_the_plan_can_be_printed() -> None:
    enforcer = strict_enforcer(loaded(MODELS["abac"]))

    shown = enforcer.plan.describe(enforcer.policy.schema.request, enforcer.policy.schema.fields["p"])

    assert shown.splitlines()[:3] == [
        "clé      : g(r.sub, p.sub)",
        "clé      : aclMatch(r.obj, p.obj)",
        "clé      : aclMatch(r.act, p.act)",
    ]
    assert "p_scope" in shown.splitlines()[3]


def test_a_condition_that_is_not_a_boolean_is_not_an_answer() -> None:
    text = MODELS["equalities"].replace("p.act == r.act", "p.act == r.act && p.eft")
    enforcer = strict_enforcer(loaded(text))
    enforcer.policy.install([PolicyRule("p", ("user:1", "x", "read", "allow"))])

    with pytest.raises(DecisionFailedError):
        enforcer.enforce("user:1", "x", "read")
