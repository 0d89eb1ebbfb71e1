"""Ce que la politique dit dans l'autre sens est ce qu'elle décide dans le bon."""

from __future__ import annotations

import random

import pytest
from casbin.model import Model
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_acl import PolicyChange, PolicyRule
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.engine.kernel.inspector import PolicyInspector
from tests.support.engines import strict_enforcer

RULES = [
    PolicyRule("p", ("role:editor", "document:*", "write", "allow")),
    PolicyRule("p", ("role:reader", "document:*", "read", "allow")),
    PolicyRule("p", ("user:bob", "document:secret", "read", "deny")),
    PolicyRule("g", ("user:ada", "role:editor")),
    PolicyRule("g", ("role:editor", "role:reader")),
    PolicyRule("g", ("user:bob", "role:reader")),
]


def inspector(model: str, rules: list[PolicyRule]) -> PolicyInspector:
    loaded = Model()
    loaded.load_model_from_text(read_packaged_model(model))
    enforcer = strict_enforcer(loaded, share_domains=True)
    enforcer.policy.install(rules)
    return PolicyInspector(enforcer.policy)


def test_roles_are_given_direct_first_and_inherited_on_demand() -> None:
    asked = inspector("rbac", RULES)

    assert asked.roles_of("user:ada") == ["role:editor", "role:reader"]
    assert asked.roles_of("user:ada", inherited=False) == ["role:editor"]
    assert asked.members_of("role:reader", inherited=False) == ["role:editor", "user:bob"]
    assert asked.members_of("role:reader") == ["role:editor", "user:bob", "user:ada"]


def test_the_permissions_of_a_subject_come_with_the_roles_that_give_them() -> None:
    held = inspector("rbac", RULES).permissions_of("user:ada")

    assert [(one.rule.values[2], one.path) for one in held] == [
        ("write", ("user:ada", "role:editor")),
        ("read", ("user:ada", "role:editor", "role:reader")),
    ]


def test_a_decision_names_its_rule_and_the_path_of_roles_behind_it() -> None:
    told = inspector("rbac", RULES).explain("user:ada", "document:7", "read")

    assert told.allowed
    assert told.rule == RULES[1]
    assert told.path == ("user:ada", "role:editor", "role:reader")
    assert told.nearest == ()


def test_a_denial_names_what_would_lift_it_the_narrowest_first() -> None:
    asked = inspector("rbac", RULES)

    assert asked.explain("user:bob", "document:7", "write").nearest == (
        PolicyChange(added=(PolicyRule("g", ("user:bob", "role:editor")),)),
        PolicyChange(added=(PolicyRule("p", ("user:bob", "document:7", "write", "allow")),)),
    )
    refused = asked.explain("user:bob", "document:secret", "read")
    assert refused.rule == RULES[2]
    assert refused.path == ("user:bob",)
    assert refused.nearest == (PolicyChange(removed=(RULES[2],)),)


def test_asking_changes_nothing_not_even_the_order_of_rules() -> None:
    asked = inspector("rbac", RULES)
    before = asked.policy.rules

    asked.explain("user:bob", "document:secret", "read")

    assert asked.policy.rules == before
    assert not asked.policy.decide("user:bob", "document:secret", "read")


def test_a_role_held_in_one_domain_says_nothing_of_another() -> None:
    asked = inspector(
        "rbac_with_domains",
        [
            PolicyRule("p", ("role:reader", "acme", "document:*", "read", "allow")),
            PolicyRule("g", ("user:ada", "role:reader", "acme")),
        ],
    )

    assert asked.subjects_of("document:1", "read", "acme") == ["role:reader", "user:ada"]
    assert asked.subjects_of("document:1", "read", "other") == []
    assert asked.permissions_of("user:ada", "other") == []
    assert asked.explain("user:ada", "other", "document:1", "read").nearest == (
        PolicyChange(added=(PolicyRule("p", ("user:ada", "other", "document:1", "read", "allow")),)),
    )


NAMES = ["user:1", "user:2", "role:a", "role:b"]
RESOURCES = ["x", "x:1", "x:*", "*"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_the_subjects_found_are_those_that_enforce_allows_and_each_suggestion_works(seed: int) -> None:
    draw = random.Random(seed)
    rules = {
        PolicyRule("p", (draw.choice(NAMES), draw.choice(RESOURCES), draw.choice(["read", "*"]), effect))
        for effect in draw.choices(["allow", "allow", "deny"], k=5)
    }
    links = {PolicyRule("g", (draw.choice(NAMES[:3]), "role:b")) for _ in range(2)} | {
        PolicyRule("g", (draw.choice(NAMES[:2]), "role:a"))
    }
    asked = inspector("rbac", sorted(rules) + sorted(links))
    resource = draw.choice(RESOURCES[:2])

    found = asked.subjects_of(resource, "read")

    assert set(found) == {name for name in NAMES if asked.policy.decide(name, resource, "read")}
    for name in set(NAMES) - set(found):
        for change in asked.nearest(name, resource, "read"):
            with asked.policy.trial(change):
                assert asked.policy.decide(name, resource, "read")
    assert asked.policy.rules == inspector("rbac", sorted(rules) + sorted(links)).policy.rules


@pytest.mark.parametrize("size", [10, 10_000])
def test_questions_do_not_walk_the_policy(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    more = [PolicyRule("p", (f"role:r{number}", f"item:{number}", "read", "allow")) for number in range(size)]
    asked = inspector("rbac", RULES + more)
    asked.subjects_of("document:1", "read")
    asked.permissions_of("user:ada")
    monkeypatch.setattr(
        "fastapi_acl.engine.kernel.rows.Rows.list_ordered", lambda _: pytest.fail("toute la liste a été lue")
    )

    assert "user:ada" in asked.subjects_of("document:1", "read")
    assert len(asked.permissions_of("user:ada")) == 2
    assert asked.explain("user:bob", "document:7", "write").nearest
