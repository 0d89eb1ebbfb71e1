"""Ce qu'un matcher lit de l'objet chargé : ni plus, ni moins."""

from typing import Any

import pytest
from casbin.model import Model

from fastapi_acl import PolicyRule, Principal
from fastapi_acl.engine.authorizer import PolicyAuthorizer
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.shared.exceptions import DecisionFailedError
from fastapi_acl.shared.identity import UnreadableAttribute, make_name
from tests.support.engines import strict_enforcer

TEXT = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = {matcher}
"""


class Fresh:
    """Une réplique toujours à jour."""

    def require_fresh(self, _: float) -> None:
        """Ne refuse rien."""


def authorizer(text: str, builder: Any = None, **functions: Any) -> PolicyAuthorizer:
    model = Model()
    model.load_model_from_text(text)
    enforcer = strict_enforcer(model, allow_eval=True)
    for name, function in functions.items():
        enforcer.add_function(name, function)
    return PolicyAuthorizer(enforcer.policy, Fresh(), max_staleness=1, request_builder=builder)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("matcher", "read"),
    [
        ("r.sub == p.sub && r.obj == p.obj", set()),
        ("g(r.sub, p.sub) && aclMatch(r.obj, p.obj)", set()),
        ("g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && regexMatch(r.act, p.act)", set()),
        ("r.obj.owner == r.sub.id", {"owner"}),
        ("r.obj.owner == r.sub.id && (r.obj.status == 'open' || r.obj.size > 3)", {"owner", "status", "size"}),
        ("aclOwns(r.obj, r.sub, p.act)", {"owner"}),
        ("aclOwns(r.obj, r.sub, p.act) && r.obj.status in ('open', 'new')", {"owner", "status"}),
        ("mine(r.obj.owner, r.sub)", {"owner"}),
        ("r.sub.team == 'x' && theirs(r.sub)", set()),
        ("mine(r.obj, r.sub)", None),
        ("mine((r.obj, r.sub))", None),
        ("mine(theirs(r.obj))", None),
        ("r.sub == p.sub && eval(p.act)", None),
        ("(r.obj or r.sub).owner == 'x'", None),
        ("r.obj.owner.upper() == 'X'", None),
        ("r.obj.owner == 'x", None),
    ],
)
def test_the_attributes_read_are_those_the_matcher_writes(matcher: str, read: set[str] | None) -> None:
    found = authorizer(TEXT.format(matcher=matcher)).resource_attributes

    assert found == read


@pytest.mark.parametrize(("model", "read"), [("rbac", set()), ("abac", {"owner"}), ("acl", set()), ("rest", set())])
def test_a_packaged_model_reads_the_owner_or_nothing(model: str, read: set[str]) -> None:
    assert authorizer(read_packaged_model(model)).resource_attributes == read


def test_a_function_of_casbin_that_was_replaced_may_read_anything() -> None:
    text = TEXT.format(matcher="g(r.sub, p.sub) && keyMatch(r.obj, p.obj)")

    assert authorizer(text).resource_attributes == set()
    assert authorizer(text, keyMatch=lambda one, other: one.owner == other).resource_attributes is None


def test_a_builder_may_read_anything() -> None:
    text = TEXT.format(matcher="r.sub == p.sub && r.obj == p.obj")

    assert authorizer(text, builder=lambda _: {}).resource_attributes is None


UNREADABLE = make_name("document", {"owner": UnreadableAttribute("rechargez"), "status": "open"})


@pytest.mark.parametrize(
    "matcher",
    [
        "r.obj.owner == r.sub.id",
        "r.obj.owner != r.sub.id",
        "!(r.obj.owner == r.sub.id)",
        "aclOwns(r.obj, r.sub, p.act)",
        "mine(r.obj, r.sub)",
        "r.obj.owner in ('ada', 'bob')",
        "r.obj.status == 'open' && r.obj.owner != 'x'",
        "'yes' if r.obj.owner != 'x' else 'no'",
        "eval(p.obj)",
        "(r.obj if r.sub.id == 'ada' else r.sub).owner != 'x'",
    ],
)
def test_reading_an_unreadable_attribute_fails_the_decision_however_it_is_read(matcher: str) -> None:
    asked = authorizer(TEXT.format(matcher=matcher), mine=lambda one, other: getattr(one, "owner", None) != other.id)
    asked._policy.install([PolicyRule("p", ("user:ada", "r.obj.owner != 'x'", "read"))])

    with pytest.raises(DecisionFailedError) as raised:
        asked.decide(Principal(id="ada"), UNREADABLE, "read")

    assert "rechargez" in raised.value.reason


@pytest.mark.parametrize(
    "matcher", ["r.obj.status == 'open'", "mine(r.obj, r.sub)", "r.obj == 'document'", "r.act == p.act"]
)
def test_an_unreadable_attribute_that_is_not_read_changes_nothing(matcher: str) -> None:
    asked = authorizer(TEXT.format(matcher=matcher), mine=lambda one, _: one.status == "open")
    asked._policy.install([PolicyRule("p", ("user:ada", "document", "read"))])

    assert asked.decide(Principal(id="ada"), UNREADABLE, "read")
