"""En mode strict, un matcher répond vrai ou faux ; le reste est une erreur, qui dit sur quelle règle et pourquoi."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from casbin.model import Model

from fastapi_acl import PolicyEnforcer, PolicyRule
from fastapi_acl.shared.exceptions import DecisionFailedError
from fastapi_acl.shared.identity import AttributedName, Principal, UnreadableAttribute
from tests.support.engines import strict_enforcer

TEXT = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, eft
[role_definition]
g = _, _
[policy_effect]
e = {effect}
[matchers]
m = {matcher}
"""
ALLOWS = "some(where (p.eft == allow))"
DENY_WINS = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"
RULE = ("user:7", "document", "read", "allow")


def model(matcher: str, effect: str = DENY_WINS, text: str = TEXT) -> Model:
    made = Model()
    made.load_model_from_text(text.format(effect=effect, matcher=matcher))
    return made


def strict(
    matcher: str, *rules: tuple[str, ...], effect: str = DENY_WINS, text: str = TEXT, **functions: Callable[..., Any]
) -> PolicyEnforcer:
    enforcer = strict_enforcer(model(matcher, effect, text), allow_eval=True, raw_subjects=True)
    for name, function in functions.items():
        enforcer.add_function(name, function)
    enforcer.policy.install([PolicyRule("p", rule) for rule in rules or (RULE,)])
    return enforcer


def refused(enforcer: PolicyEnforcer, *request: Any) -> DecisionFailedError:
    with pytest.raises(DecisionFailedError) as caught:
        enforcer.enforce(*request)
    with pytest.raises(DecisionFailedError):
        enforcer.enforce_ex(*request)
    return caught.value


def resource(**attributes: object) -> AttributedName:
    return AttributedName("document", attributes)


SUBJECT = Principal(id="7", claims={"age": 20}).subject


ASKED_ONCE = {"f(r.sub) || r.act == p.act", "g(r.sub, p.sub) && (p.obj == '*' || f(r.sub))"}
"""Matchers dont la question sur la requête seule n'est posée qu'une fois : aucune règle n'est en cause."""

# --- vrai ou faux -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [1, 0, 1.0, 0.0, "", "oui", None, [], [1], object(), Decimal(1)])
@pytest.mark.parametrize(
    "matcher",
    [
        "f(r.sub)",
        "!f(r.sub)",
        "r.act == p.act && f(r.sub)",
        "f(r.sub) && r.act == p.act",
        "f(r.sub) || r.act == p.act",
        "g(r.sub, p.sub) && (p.obj == '*' || f(r.sub))",
        "r.act == p.act && !(f(r.sub) && p.obj == 'document')",
        "f(r.sub) if r.act == p.act else p.obj == '*'",
        "(1 == 1 if f(r.sub) else 1 == 2)",
        "[x for x in (1, 2) if f(r.sub)] == [1, 2]",
    ],
)
def test_an_answer_that_is_neither_true_nor_false_is_an_error_wherever_the_matcher_meets_it(
    matcher: str, answer: object
) -> None:
    error = refused(strict(matcher, f=lambda _: answer), SUBJECT, "document", "read")

    assert "f(r.sub)" in error.reason
    assert type(answer).__name__.removesuffix("Type") in error.reason
    assert error.rule == (() if matcher in ASKED_ONCE else ("p", *RULE))


@pytest.mark.parametrize("matcher", ["r.sub", "r.obj.size", "p.sub", "'oui'", "1", "r.obj.size + 1", "(r.act, p.act)"])
def test_a_value_alone_is_no_answer(matcher: str) -> None:
    for whole in (matcher, f"r.act == p.act && {matcher}", f"!{matcher}"):
        error = refused(strict(whole), SUBJECT, resource(size=3), "read")

        assert "vrai ou faux" in error.reason


def test_a_value_that_is_true_or_false_is_an_answer() -> None:
    enforcer = strict("r.act == p.act && r.obj.is_public && f(r.sub)", f=lambda _: True)

    assert enforcer.enforce(SUBJECT, resource(is_public=True), "read")
    assert not enforcer.enforce(SUBJECT, resource(is_public=False), "read")


async def test_a_coroutine_is_not_true_and_is_closed() -> None:
    async def everybody(_: object) -> bool:
        return True

    def hidden(name: object) -> object:
        return everybody(name)

    matchers = ["f(r.sub)", "f(r.sub) && r.act == p.act", "f(r.sub) == 'x'", "h(f(r.sub))", "f(r.sub) in ('x', 'y')"]
    for matcher in matchers:
        enforcer = strict(matcher, f=hidden, h=lambda _: True)

        error = refused(enforcer, SUBJECT, "document", "read")

        assert "« f » rend un objet (coroutine)" in error.reason


def test_what_is_compared_may_be_text_or_number() -> None:
    named = strict("f(r.sub) == p.obj", f=lambda _: "document")
    counted = strict("f(r.sub) > 2 && r.act == p.act", f=lambda _: 3)
    read = strict("keyGet(r.obj, '/documents/*') == p.obj")

    assert named.enforce(SUBJECT, "x", "read")
    assert counted.enforce(SUBJECT, "x", "read")
    assert read.enforce(SUBJECT, "/documents/document", "read")
    assert not read.enforce(SUBJECT, "/documents/autre", "read")


EVAL_TEXT = TEXT.replace("p = sub, obj, act, eft", "p = rule, obj, act, eft")


@pytest.mark.parametrize("count", [0, 40])
@pytest.mark.parametrize(
    "condition", ["r.sub.age", "r.sub.name", "1", "1.0", "'x'", "f(r.sub)", "!r.sub.age", "r.sub.age || r.act == p.act"]
)
def test_the_rule_of_eval_answers_true_or_false(condition: str, count: int) -> None:
    others = [(f"r.sub.age > {100 + number}", "document", "read", "allow") for number in range(count)]
    enforcer = strict(
        "eval(p.rule) && r.obj == p.obj",
        *others,
        (condition, "document", "read", "allow"),
        text=EVAL_TEXT,
        f=lambda _: "oui",
    )

    error = refused(enforcer, AttributedName("ada", {"age": 20, "name": "ada"}), "document", "read")

    assert error.rule == ("p", condition, "document", "read", "allow")
    assert "vrai ou faux" in error.reason


@pytest.mark.parametrize("ages", [("x",), ("x", 3), (None,), (2.5,), (3, "x", None)])
def test_many_rules_fail_or_answer_as_each_would_alone(ages: tuple[object, ...]) -> None:
    conditions = [(f"r.sub.age == {number}", "document", "read", "allow") for number in range(40)]
    together = strict("eval(p.rule) && r.obj == p.obj", *conditions, text=EVAL_TEXT)
    alone = strict("eval(p.rule) && r.obj == p.obj", conditions[3], text=EVAL_TEXT)

    for age in ages:
        subject = AttributedName("ada", {"age": age})
        if isinstance(age, str):
            refused(together, subject, "document", "read")
            refused(alone, subject, "document", "read")
        else:
            assert together.enforce(subject, "document", "read") == alone.enforce(subject, "document", "read")


def test_bare_answers_as_casbin_does() -> None:
    enforcer = PolicyEnforcer(model("f(r.sub) && r.act == p.act || r.obj == 7"))
    enforcer.add_function("f", lambda _: "oui")
    enforcer.model["p"]["p"].policy.append(list(RULE))

    assert enforcer.enforce(SUBJECT, "document", "read")
    assert enforcer.enforce(SUBJECT, 7, "write")
    assert not enforcer.enforce(SUBJECT, "7", "write")


# --- comparer -----------------------------------------------------------------------------------------------------

MISMATCHED = [(7, "'7'"), ("7", "7"), (7.0, "'7.0'"), (True, "'True'"), ("True", "True"), ("x", "1 == 1"), ([], "'x'")]


@pytest.mark.parametrize("sign", ["==", "!=", "<", "<=", ">", ">=", "is", "is not"])
@pytest.mark.parametrize(("value", "constant"), MISMATCHED)
def test_a_text_is_never_different_from_a_number_it_is_an_error(sign: str, value: object, constant: str) -> None:
    for matcher in (f"r.obj.n {sign} {constant}", f"{constant} {sign} r.obj.n", f"!(r.obj.n {sign} {constant})"):
        error = refused(strict(f"r.act == p.act && {matcher}"), SUBJECT, resource(n=value), "read")

        assert "« r.obj.n »" in error.reason
        assert type(value).__name__ in error.reason
        assert error.rule == ("p", *RULE)


@pytest.mark.parametrize(
    ("matcher", "value"),
    [
        ("r.obj.n in ('7', '8')", 7),
        ("r.obj.n in ['7', 7]", 7),
        ("r.obj.n not in (7, 8)", "7"),
        ("r.obj.n in (7, 'x')", "x"),
        ("'7' in r.obj.n", [7]),
        ("7 in r.obj.n", "77"),
        ("'7' not in r.obj.n", {7: "x"}),
        ("'7' in r.obj.n", range(9)),
        ("'7' in r.obj.n", 7),
        ("'7' in r.obj.n", b"7"),
        ("None in r.obj.n", "None"),
        ("1 < r.obj.n < 9", "7"),
        ("'a' < 'b' < r.obj.n", 7),
        ("r.obj.n < None", 7),
    ],
)
def test_what_is_sought_is_of_the_sort_of_what_is_there(matcher: str, value: object) -> None:
    for text in (matcher, f"{matcher} || r.act == p.act"):
        error = refused(strict(text), SUBJECT, resource(n=value), "read")

        assert "r.obj.n" in error.reason


@pytest.mark.parametrize(
    ("matcher", "value", "expected"),
    [
        ("r.obj.n == None", None, True),
        ("r.obj.n != None", "x", True),
        ("r.obj.n == 'x'", None, False),
        ("r.obj.n == 7", 7.0, True),
        ("r.obj.n > 7", Decimal("7.5"), True),
        ("r.obj.n in ('7', '8')", "7", True),
        ("r.obj.n in (7, 8)", 9, False),
        ("r.obj.n in ('7', None)", "8", False),
        ("r.obj.n not in []", 9, True),
        ("'a' in r.obj.n", "abc", True),
        ("'a' in r.obj.n", {"a": 1}, True),
        ("1 < r.obj.n < 9", 7, True),
        ("1 < r.obj.n < 9", 9, False),
        ("r.obj.n == True", True, True),
        ("r.obj.n == True", 1, True),
        ("r.obj.n == r.obj", "document", True),
    ],
)
def test_values_of_one_sort_compare_as_python_does(matcher: str, value: object, expected: bool) -> None:
    assert strict(f"r.act == p.act && {matcher}").enforce(SUBJECT, resource(n=value), "read") is expected


class Shown(enum.Enum):
    DRAFT = "draft"


VALUES = [7, 7.0, True, UUID(int=7), b"document", ("document",), Shown.DRAFT, object()]
MATCHERS = [
    "r.obj == p.obj",
    "g(r.sub, p.sub) && r.obj == p.obj",
    "aclMatch(r.obj, p.obj)",
    "g(r.sub, p.sub) && aclMatch(r.obj, p.obj)",
    "keyMatch(r.obj, p.obj)",
    "keyMatch2(r.obj, p.obj) && r.act == p.act",
    "globMatch(r.obj, p.obj)",
    "regexMatch(r.obj, p.obj)",
    "g(r.obj, p.obj)",
    "r.obj != 'autre' && r.act == p.act",
    "r.obj == r.sub || r.act == p.act",
]


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_resource_that_is_no_text_never_passes_by_a_deny(matcher: str, value: object) -> None:
    rules = [("user:7", "*", "read", "allow"), ("user:7", "7", "read", "deny"), ("user:7", "document", "read", "deny")]
    refused(strict(matcher, *rules), SUBJECT, value, "read")


def test_nothing_is_no_text_and_matches_no_rule() -> None:
    enforcer = strict("r.obj == p.obj && r.act == p.act")

    assert not enforcer.enforce(SUBJECT, None, "read")
    refused(strict("aclMatch(r.obj, p.obj)"), SUBJECT, None, "read")


def test_texts_of_any_class_are_texts() -> None:
    class Name(str):
        __slots__ = ()

    enforcer = strict("g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act")

    assert enforcer.enforce(Name("user:7"), Name("document"), "read")
    assert enforcer.enforce_ex(SUBJECT, Name("document"), "read") == (True, list(RULE))


# --- lire ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["title", "upper", "lower", "format", "owner"])
def test_a_method_of_a_text_is_no_attribute(name: str) -> None:
    for value in ("document", resource(size=3)):
        error = refused(strict(f"r.obj.{name} == 'x' || r.act == p.act"), SUBJECT, value, "read")

        assert name == "format" or f"« r.obj.{name} » n’existe pas" in error.reason


def test_an_attribute_named_as_a_method_is_the_attribute() -> None:
    enforcer = strict("r.obj.title == 'x' && r.act == p.act")

    assert enforcer.enforce(SUBJECT, resource(title="x"), "read")
    assert enforcer.enforce(SUBJECT, {"title": "x", "items": 3}, "read")
    assert strict("r.obj.items == 3 && r.act == p.act").enforce(SUBJECT, {"items": 3}, "read")
    refused(strict("r.obj.items == 3 && r.act == p.act"), SUBJECT, {"title": "x"}, "read")


def test_an_attribute_that_cannot_be_read_fails_the_decision_that_reads_it() -> None:
    loaded = resource(owner=UnreadableAttribute("la session est fermée"), size=3)

    error = refused(strict("r.obj.owner == 'x' || r.act == p.act"), SUBJECT, loaded, "read")

    assert "« r.obj.owner » ne peut pas être lu : la session est fermée" in error.reason
    assert strict("r.obj.size == 3 && r.act == p.act").enforce(SUBJECT, loaded, "read")


@dataclass
class Document:
    owner: str

    @property
    def broken(self) -> str:
        raise ZeroDivisionError(self.owner)

    def is_open(self) -> bool:
        return True


def test_an_object_is_read_but_never_called() -> None:
    document = Document("secret")

    assert strict("r.obj.owner == 'secret'").enforce(SUBJECT, document, "read")
    for matcher in (
        "!r.obj.missing",
        "r.obj.is_open",
        "r.obj.is_open()",
        "r.obj.owner.startswith('s')",
        "r.obj.broken == 'x'",
    ):
        error = refused(strict(matcher), SUBJECT, document, "read")
        assert "secret" not in error.reason


# --- dire pourquoi ------------------------------------------------------------------------------------------------


def test_an_error_names_its_function_and_its_rule_and_keeps_its_cause_to_itself() -> None:
    def fails(name: str) -> bool:
        raise KeyError(name)

    error = refused(strict("r.act == p.act && f(r.sub)", f=fails), "un secret", "document", "read")

    assert error.reason == "la fonction « f » a levé KeyError"
    assert error.rule == ("p", *RULE)
    assert isinstance(error.__cause__, KeyError)
    assert "secret" not in error.reason + error.detail


def test_a_gate_that_fails_names_no_rule() -> None:
    error = refused(strict("r.act != 'write' && r.act == p.act"), SUBJECT, "document", 7)

    assert "« r.act »" in error.reason
    assert error.rule == ()


def test_a_request_of_the_wrong_size_is_told_as_such() -> None:
    assert "2 valeurs" in refused(strict("r.act == p.act"), SUBJECT, "document").reason


def test_a_failed_decision_writes_no_stack(caplog: pytest.LogCaptureFixture) -> None:
    refused(strict("f(r.sub)", f=lambda _: 1), SUBJECT, "document", "read")

    assert not caplog.records
