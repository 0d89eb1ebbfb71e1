"""Un matcher qui ne pourrait jamais s'évaluer refuse de servir, et le message cite la ligne à corriger."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from casbin.model import Model

from fastapi_acl import ACLConfig, ACLManager, ConfigurationError, PolicyEnforcer, PolicyRule
from fastapi_acl.engine.casbin.lint import lint
from fastapi_acl.engine.casbin.model_source import ModelSource
from fastapi_acl.engine.casbin.trial import check_matchers
from fastapi_acl.shared.exceptions import DecisionFailedError, InvalidRuleError
from fastapi_acl.shared.identity import AttributedName, Principal, UnreadableAttribute
from tests.support.app import config
from tests.support.engines import strict_enforcer

TEXT = """# Un modèle.
[request_definition]
r = sub, obj, act
r2 = sub, ip

[policy_definition]
p = sub, obj, act, eft
p2 = sub, net

[role_definition]
g = _, _
g2 = _, _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = {matcher}
"""
LINE = 18


def enforcer_of(text: str, **functions: Callable[..., Any]) -> PolicyEnforcer:
    model = Model()
    model.load_model_from_text(text)
    source = ModelSource("conf/model.conf", text)
    enforcer = strict_enforcer(model, allow_eval=True, raw_subjects=True, source=source)
    for name, function in functions.items():
        enforcer.add_function(name, function)
    return enforcer


def told(matcher: str, **functions: Callable[..., Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_matchers(enforcer_of(TEXT.format(matcher=matcher), **functions).definitions)
    return caught.value.detail


# --- ce que le modèle écrit mal -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "word", "nearest"),
    [
        ("r.obj == p.objj", "p.objj", "p.obj"),
        ("r.sbu == p.sub", "r.sbu", "r.sub"),
        ("r.resource == p.obj", "r.resource", ""),
        ("R.sub == p.sub", "R.sub", "r.sub"),
        ("r2.ip == p.sub", "r2.ip", ""),
        ("sub == p.sub", "sub", "r.sub"),
        ("r.objet.owner == r.sub.id", "r.objet.owner", ""),
        ("p.sub == true", "true", "True"),
        ("keyMtach(r.obj, p.obj)", "keyMtach", "keyMatch"),
        ("aclMatche(r.obj, p.obj)", "aclMatche", "aclMatch"),
        ("g3(r.sub, p.sub)", "g3", "g"),
        ("estProche(r.sub, p.sub)", "estProche", "ACLManager(functions={…})"),
        ("p.obj.owner == r.sub.id", "p.obj.owner", "un champ de règle est un texte"),
        ("r.obj.__class__ == r.sub", "r.obj.__class__", ""),
        ("r.obj.name.startswith(p.obj)", "r.obj.name.startswith(p.obj)", "functions={…}"),
        ("g(r.sub, p.sub, r.obj)", "g(r.sub, p.sub, r.obj)", "2"),
        ("g2(r.sub, p.sub)", "g2(r.sub, p.sub)", "3"),
        ("keyMatch(r.obj)", "keyMatch(r.obj)", "2"),
        ("aclOwns(r.obj, r.sub)", "aclOwns(r.obj, r.sub)", "3"),
        ("keyGet2(r.obj, p.obj) == 'x'", "keyGet2(r.obj, p.obj)", "3"),
        ("near(r.sub)", "near(r.sub)", "n’admet pas"),
        ("near(one=r.sub, two=p.sub)", "near()", "par leur place"),
        ("p.sub > 18", "p.sub > 18", "toujours un texte"),
        ("7 == p.sub", "7 == p.sub", "toujours un texte"),
        ("p.sub", "p.sub", "ni vrai ni faux"),
        ("!p.sub", "p.sub", "ni vrai ni faux"),
        ("(r.obj.size + 1)", "r.obj.size + 1", "ni vrai ni faux"),
        ("'oui'", "'oui'", "ni vrai ni faux"),
        ("eval(r.sub)", "eval(r.sub)", "eval(p.champ)"),
        ("eval(p.sub, p.obj)", "eval(p.sub, p.obj)", "eval(p.champ)"),
        ("(lambda: r.sub)() == p.sub", "", "méthode"),
        ("r.obj & p.obj", "r.obj & p.obj", ""),
        ("[x for x in r.sub.groups if y == p.sub] == []", "y", ""),
    ],
)
@pytest.mark.parametrize("around", ["{}", "r.act == p.act && {}", "r.act == 'x' || (r.act == p.act && !({}))"])
def test_a_term_that_can_never_be_evaluated_is_named_with_its_line(
    fault: str, word: str, nearest: str, around: str
) -> None:
    matcher = around.format(fault)

    message = told(matcher, near=lambda one, two: one == two)

    assert f"modèle « conf/model.conf », ligne {LINE} : « m = {matcher} »" in message
    assert f"« {word}" in message
    assert nearest in message


@pytest.mark.parametrize(
    ("matcher", "near"),
    [
        ("r.sub == p.sub &&", ""),
        ("r.sub = p.sub", ""),
        ("r.sub == p.sub @@ r.obj", "@"),
        ("r.sub == “x”", "“"),
        ("g(r.sub, p.sub", "("),
        ("r.sub == p.sub ? 1 : 0", "?"),
        ("r.sub === p.sub", "="),
        ("r.sub == 'x", "'x"),
    ],
)
def test_a_matcher_that_cannot_be_read_cites_where(matcher: str, near: str) -> None:
    message = told(matcher)

    assert f"ligne {LINE}" in message
    assert "ne se lit pas" in message
    assert near in message


def test_every_fault_is_told_at_once() -> None:
    message = told("r.sub == p.subb && keyMtach(r.obj, p.obj)")

    assert message.count(f"ligne {LINE}") == 2


def test_the_line_of_a_matcher_written_over_several_is_the_one_at_fault() -> None:
    message = told("g(r.sub, p.sub) && \\\n    r.obj == p.objj && \\\n    r.act == p.act")

    assert f"ligne {LINE + 1} : « r.obj == p.objj && \\ »" in message


def test_every_matcher_of_the_model_is_tried() -> None:
    text = TEXT.format(matcher="r.sub == p.sub\nm2 = r2.sub == p2.subb")

    with pytest.raises(ConfigurationError, match=r"« m2 = r2\.sub == p2\.subb »") as caught:
        check_matchers(enforcer_of(text).definitions)
    assert "vouliez-vous « p2.sub »" in caught.value.detail


@pytest.mark.parametrize(
    "matcher",
    [
        "g(r.sub, p.sub) && aclMatch(r.obj, p.obj) && r.act == p.act",
        "r.sub.age > 18 && r.sub.address.city == p.obj && r.act in ('read', p.act)",
        "keyGet(r.obj, p.obj) == 'x' || keyGet2(r.obj, p.obj, 'id') == r.sub.id",
        "regexMatch(r.obj, p.obj) && ipMatch(r.obj, p.obj) && globMatch(r.obj, p.obj)",
        "g2(r.sub, p.sub, r.obj) && near(r.sub, p.sub) && any_of(r.sub, p.sub, p.obj, 3)",
        "[x for x in r.sub.groups if x == p.sub] != [] && r.sub.age + 1 > 2",
        "eval(p.sub) && (r.obj.is_public || p.obj == '*')",
        "r.obj.is_public",
        "True",
        "isAdmin(r.sub) || 1 < r.sub.age < 9 && r.obj.owner != None",
        "tuple(r.sub.groups) == ('a', 'b')",
    ],
)
def test_what_can_be_evaluated_is_admitted(matcher: str) -> None:
    def near(one: str, two: str, three: str = "") -> bool:
        return one == two + three

    def any_of(*names: object) -> bool:
        return bool(names)

    functions: dict[str, Callable[..., Any]] = {"near": near, "any_of": any_of, "isAdmin": functools.partial(near, "x")}

    check_matchers(enforcer_of(TEXT.format(matcher=matcher), **functions).definitions)


@pytest.mark.parametrize("name", ["rbac", "rbac_with_domains", "abac", "acl", "rest"])
def test_every_packaged_model_can_be_evaluated(name: Any) -> None:
    check_matchers(ACLManager(config(model=name, sqlite_uri="sqlite://")).get_definitions())


# --- au démarrage -------------------------------------------------------------------------------------------------


def written_in(tmp_path: Path, matcher: str) -> ACLConfig:
    path = tmp_path / "model.conf"
    path.write_text(TEXT.format(matcher=matcher), "utf-8")
    return config(model_path=path, sqlite_uri="sqlite://", create_default_admin=False)


async def test_a_manager_does_not_start_under_a_matcher_that_cannot_be_evaluated(tmp_path: Path) -> None:
    manager = ACLManager(written_in(tmp_path, "r.sub == p.sub && keyMtach(r.obj, p.obj)"))

    with pytest.raises(ConfigurationError, match="vouliez-vous « keyMatch »") as caught:
        await manager.initialize()
    await manager.close()

    assert f"{tmp_path / 'model.conf'} », ligne {LINE}" in caught.value.detail


async def test_functions_given_or_added_before_start_count(tmp_path: Path) -> None:
    matcher = "r.act == p.act && given(r.sub) && added(r.obj, p.obj)"
    manager = ACLManager(written_in(tmp_path, matcher), functions={"given": lambda name: name == "user:7"})
    enforcer = manager.get_enforcer()
    enforcer.add_function("added", lambda one, two: one == two)

    await manager.initialize()
    enforcer.policy.install([PolicyRule("p", ("user:7", "document", "read", "allow"))])

    assert enforcer.enforce("user:7", "document", "read")
    assert not enforcer.enforce("user:8", "document", "read")
    await manager.close()


def test_lint_and_plan_tell_what_a_start_would_refuse() -> None:
    enforcer = enforcer_of(TEXT.format(matcher="r.sub == p.subb"))

    assert any("vouliez-vous « p.sub »" in line for line in lint(enforcer.definitions, enforcer.plan))


# --- fonctions ----------------------------------------------------------------------------------------------------


async def later(_: object) -> bool:
    return True


async def many(_: object) -> AsyncIterator[bool]:
    yield True


class Later:
    async def __call__(self, _: object) -> bool:
        return True

    async def method(self, _: object) -> bool:
        return True


ASYNCHRONOUS = [later, many, Later(), Later().method, functools.partial(later), functools.partial(Later().method)]


@pytest.mark.parametrize("function", ASYNCHRONOUS)
def test_an_asynchronous_function_is_refused_by_name(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"« everybody ».*asynchrone"):
        ACLManager(config(sqlite_uri="sqlite://"), functions={"everybody": function})


@pytest.mark.parametrize("name", ["g", "g2", "eval", "aclMatch", "aclOwns", "a b", "", "1f", "and", "f()", "r.f", 3])
def test_a_name_the_matcher_could_not_call_or_already_knows_is_refused(name: Any) -> None:
    enforcer = enforcer_of(TEXT.format(matcher="g(r.sub, p.sub)"))

    for add in (
        enforcer.add_function,
        enforcer.fm.add_function,
        enforcer.fm.get_functions().__setitem__,
        enforcer.fm.get_functions().setdefault if name not in {"aclMatch", "aclOwns"} else enforcer.add_function,
        lambda name, function: enforcer.fm.get_functions().update({name: function}),
        lambda name, function: enforcer.fm.get_functions().__ior__({name: function}),
    ):
        with pytest.raises(ConfigurationError, match="refusée"):
            add(name, lambda *_: True)


def test_what_does_not_call_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="« f »"):
        enforcer_of(TEXT.format(matcher="f(r.sub)"), f="True")  # type: ignore[arg-type]


def test_a_function_replaced_later_answers_at_once() -> None:
    enforcer = enforcer_of(TEXT.format(matcher="r.act == p.act && f(r.sub)"), f=lambda _: True)
    enforcer.policy.install([PolicyRule("p", ("user:7", "document", "read", "allow"))])
    assert enforcer.enforce("user:7", "document", "read")

    enforcer.add_function("f", lambda _: False)

    assert not enforcer.enforce("user:7", "document", "read")


# --- règles eval() ------------------------------------------------------------------------------------------------

EVAL_MODEL = TEXT.replace("p = sub, obj, act, eft", "p = rule, obj, act, eft")


@pytest.mark.parametrize(
    "rule",
    [
        "r.sub.age >",
        "r.sub.age > 18 &",
        "r.sbu.age > 18",
        "p.rule2 == 'x'",
        "keyMtach(r.obj, p.obj)",
        "keyMatch(r.obj)",
        "eval(p.rule)",
        "r.sub.__class__ == r.sub",
        "r.sub.name.upper() == 'ADA'",
        "f'{r.sub}' == 'x'",
        "p.obj > 18",
        "'x'",
    ],
)
def test_a_rule_of_eval_that_could_never_be_evaluated_is_refused_at_the_writing(rule: str) -> None:
    schema = enforcer_of(EVAL_MODEL.format(matcher="eval(p.rule) && r.obj == p.obj")).policy.schema

    with pytest.raises(InvalidRuleError, match=r"eval\(\) « rule »"):
        schema.check(PolicyRule("p", (rule, "document", "read", "allow")))


def test_a_rule_of_eval_that_can_be_evaluated_is_written() -> None:
    enforcer = enforcer_of(EVAL_MODEL.format(matcher="eval(p.rule) && r.obj == p.obj"))
    enforcer.add_function("later", lambda _: True)

    for rule in ("r.sub.age > 18 && r.sub.name == 'ada'", "later(r.sub)", "p.obj == r.obj || keyMatch(r.obj, p.obj)"):
        enforcer.policy.schema.check(PolicyRule("p", (rule, "document", "read", "allow")))


def test_a_rule_of_eval_already_in_the_base_is_a_bad_row_unless_only_its_function_is_unknown() -> None:
    schema = enforcer_of(EVAL_MODEL.format(matcher="eval(p.rule) && r.obj == p.obj")).policy.schema
    accepts = schema.checker("p", "rule")

    assert not accepts("r.sub.age >")
    assert not accepts("r.sbu.age > 18")
    assert accepts("r.sub.age > 18")
    assert accepts("unknown(r.sub)")


# --- aclOwns ------------------------------------------------------------------------------------------------------

UPPER = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"
OWNERS = [
    (7, "7", True),
    ("7", "7", True),
    ("07", "7", False),
    (" 7", "7", False),
    ("7 ", "7", False),
    (8, "7", False),
    (-7, "-7", True),
    (UPPER, UPPER.lower(), True),
    (UPPER.lower(), UPPER, True),
    (UUID(UPPER), UPPER, True),
    (UPPER.replace("-", ""), UPPER.lower(), False),
    (f"{{{UPPER}}}", UPPER, False),
    ("ADA", "ada", False),
    (None, "7", None),
]
UNKNOWN = [True, False, 7.0, b"7", ["7"], object(), UnreadableAttribute("la ligne est expirée")]


def owned(attribute: str = "owner") -> PolicyEnforcer:
    text = TEXT.format(matcher="r.obj == p.obj && r.act == p.act && aclOwns(r.obj, r.sub, p.eft)")
    model = Model()
    model.load_model_from_text(text)
    return strict_enforcer(model, raw_subjects=True, owner_attribute=attribute)


@pytest.mark.parametrize(("owner", "caller", "expected"), OWNERS)
@pytest.mark.parametrize("attribute", ["owner", "author_id", "title"])
def test_an_object_belongs_to_whom_its_owner_names(
    owner: object, caller: str, expected: bool | None, attribute: str
) -> None:
    enforcer = owned(attribute)
    enforcer.policy.install(
        [PolicyRule("p", ("x", "document", *rest)) for rest in (("read", "allow"), ("edit", "deny"))]
    )
    subject, document = Principal(id=caller).subject, AttributedName("document", {attribute: owner})

    assert enforcer.enforce(subject, document, "read") is bool(expected)
    assert enforcer.enforce_ex(subject, document, "edit")[1] == (
        [] if expected is False else ["x", "document", "edit", "deny"]
    )


@pytest.mark.parametrize("owner", UNKNOWN, ids=lambda owner: type(owner).__name__)
def test_an_owner_that_names_nobody_is_an_error(owner: object) -> None:
    enforcer = owned()
    enforcer.policy.install([PolicyRule("p", ("x", "document", "read", "allow"))])

    with pytest.raises(DecisionFailedError) as caught:
        enforcer.enforce(Principal(id="7").subject, AttributedName("document", {"owner": owner}), "read")

    assert "« r.obj.owner »" in caught.value.reason
    assert caught.value.rule == ("p", "x", "document", "read", "allow")


def test_a_method_of_the_text_is_no_owner() -> None:
    enforcer = owned("title")
    enforcer.policy.install([PolicyRule("p", ("x", "document", "read", "allow"))])

    assert not enforcer.enforce(Principal(id="7").subject, "document", "read")
