"""Une décision ne coûte ni la longueur de ce que l'on demande, ni le nombre des règles qu'elle n'a pas à lire.

Rien ici ne regarde l'heure : les pas de l'interpréteur sont comptés.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import casbin
import pytest

from fastapi_acl import PolicyChange, PolicyEnforcer, PolicyRule, Principal
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.engine.grants import PolicyGrants
from fastapi_acl.engine.kernel.acl_match import Prefixes, acl_match, patterns_of
from fastapi_acl.engine.kernel.crowd import Crowd
from fastapi_acl.engine.kernel.effects import ALLOW, DENY, OTHER
from fastapi_acl.shared.exceptions import DecisionFailedError, PolicyUnavailableError
from tests.engine.worlds import ALLOW as ALLOW_OVERRIDE
from tests.engine.worlds import BOTH, GATED, PRIORITY, Drawer, build, model_of
from tests.engine.worlds import DENY as DENY_OVERRIDE
from tests.support.engines import strict_enforcer
from tests.support.steps import steps

LONG = 4_096
EFFECTS = [ALLOW_OVERRIDE, DENY_OVERRIDE, BOTH, PRIORITY]
HELD = "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"
SUPER = {
    "un rôle": f'g(r.sub, "role:admin") || {HELD}',
    "un rôle, à la fin": f'{HELD} || g(r.sub, "role:admin")',
    "un nom": f'r.sub == "user:root" || {HELD}',
    "une fonction": f"isRoot(r.sub) || {HELD}",
    "une fonction, à la fin": f"{HELD} || isRoot(r.sub)",
    "une fonction, en facteur": "(isRoot(r.sub) || g(r.sub, p.sub)) && r.obj == p.obj && r.act == p.act",
    "une action pour toute clé": "(isRoot(r.sub) || g(r.sub, p.sub)) && r.act == p.act",
    "un joker par champ": '(p.sub == "*" || p.sub == r.sub) && (r.obj == p.obj || p.obj == "*") && r.act == p.act',
    "un joker seul": 'p.sub == "*" || p.sub == r.sub',
    "un rôle ou un joker": '(g(r.sub, p.sub) || p.sub == "*") && r.obj == p.obj',
    "deux questions": f'g(r.sub, "role:admin") || isRoot(r.sub) || {HELD}',
}


def checked(matcher: str, rules: list[PolicyRule], effect: str = ALLOW_OVERRIDE) -> PolicyEnforcer:
    """Un exécuteur strict sur un matcher."""
    head = "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n"
    roles = "[role_definition]\ng = _, _\n"
    enforcer = strict_enforcer(
        model_of(f"{head}{roles}[policy_effect]\ne = {effect}\n[matchers]\nm = {matcher}\n"),
        raw_subjects=True,
    )
    enforcer.add_function("isRoot", lambda subject: subject == "user:root")
    enforcer.policy.install(rules)
    return enforcer


def staff(size: int) -> list[PolicyRule]:
    """Des règles d'autres que ceux qui demandent, un administrateur, et un refus à la fin."""
    rules = [
        PolicyRule("p", (f"role:r{number // 10}", f"data{number}", "read" if number % 2 else "write", "allow"))
        for number in range(size)
    ]
    links = [PolicyRule("g", (f"user:{number}", f"role:r{number}")) for number in range(20)]
    refusal = PolicyRule("p", ("role:nobody", "nothing", "never", "deny"))
    return [*rules, refusal, *links, PolicyRule("g", ("user:root", "role:admin"))]


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("matcher", SUPER.values(), ids=SUPER)
def test_sixteen_times_as_many_rules_take_no_more_steps(matcher: str, effect: str) -> None:
    small, large = [checked(matcher, staff(size), effect) for size in (500, 8_000)]

    for request in (("user:root", "data1", "read"), ("user:1", "data15", "read"), ("user:9", "rien", "read")):
        assert small.enforce(*request) == large.enforce(*request)
        assert steps(large.enforce, *request) <= 1.1 * steps(small.enforce, *request), request


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_explanation_of_a_super_administrator_reads_no_more_rules_either(effect: str) -> None:
    small, large = [checked(SUPER["un rôle"], staff(size), effect) for size in (500, 8_000)]
    request = ("user:root", "rien", "read")

    assert steps(large.enforce_ex, *request) <= 1.1 * steps(small.enforce_ex, *request)


def test_a_question_follows_the_links_and_the_rules_of_the_moment() -> None:
    enforcer = checked(SUPER["un rôle"], staff(100), BOTH)
    request = ("user:7", "ailleurs", "effacer")
    seen = [enforcer.enforce(*request)]
    for rules in ({"g": ("user:7", "role:admin")}, {"p": ("role:nobody", "nothing", "never", "deny")}):
        ((ptype, values),) = rules.items()
        gesture = "add" if ptype == "g" else "remove"
        apply(enforcer, gesture, PolicyRule(ptype, values))
        seen.append(enforcer.enforce(*request))
    apply(enforcer, "remove", PolicyRule("g", ("user:7", "role:admin")))

    assert [*seen, enforcer.enforce(*request)] == [False, False, True, False]


def apply(enforcer: PolicyEnforcer, gesture: str, rule: PolicyRule) -> None:
    """Ajoute ou retire une règle."""
    enforcer.policy.apply(PolicyChange(added=(rule,)) if gesture == "add" else PolicyChange(removed=(rule,)))


def test_a_function_of_the_request_is_asked_once_a_decision_and_never_of_an_empty_policy() -> None:
    asked: list[str] = []
    enforcer = checked(SUPER["une fonction"], [])
    enforcer.add_function("isRoot", lambda subject: bool(asked.append(subject)))

    assert enforcer.enforce("user:1", "data1", "read") is False
    assert asked == []

    enforcer.policy.install(staff(300))
    asked.clear()
    enforcer.enforce("user:1", "data15", "read")
    assert asked == ["user:1"]


def test_a_question_that_fails_is_an_error_in_strict_mode_even_where_no_rule_is_found() -> None:
    enforcer = checked(SUPER["une fonction"], staff(50))
    enforcer.add_function("isRoot", lambda subject: {"user:1": True}[subject])

    assert enforcer.enforce("user:1", "rien", "read")
    for request in (("user:2", "rien", "read"), ("user:2", "data25", "read")):
        with pytest.raises(DecisionFailedError):
            enforcer.enforce(*request)


def test_a_function_is_not_asked_before_what_casbin_evaluates_first() -> None:
    enforcer = checked(f"{HELD} || isRoot(r.sub)", staff(50))
    enforcer.add_function("isRoot", lambda subject: {}[subject])

    assert enforcer.enforce("role:r0", "data0", "write")
    with pytest.raises(DecisionFailedError):
        enforcer.enforce("role:r0", "data0", "read")


@pytest.mark.parametrize(
    "matcher", ['fails(p.sub) && r.obj == p.obj || r.sub == "bob"', 'r.sub == "bob" || fails(p.sub)']
)
@pytest.mark.parametrize("subject", ["alice", "bob"])
def test_a_rule_that_fails_before_a_question_still_fails(matcher: str, subject: str) -> None:
    text = (
        "[request_definition]\nr = sub, obj\n[policy_definition]\np = sub, obj\n"
        f"[policy_effect]\ne = {ALLOW_OVERRIDE}\n[matchers]\nm = {matcher}\n"
    )
    answers: list[object] = []
    for kind in (PolicyEnforcer, casbin.AsyncEnforcer):
        enforcer = kind(model_of(text))
        enforcer.add_function("fails", lambda _: {}["rien"])
        enforcer.model["p"]["p"].policy.append(["carol", "doc"])
        try:
            answers.append(enforcer.enforce(subject, "doc"))
        except Exception as error:  # noqa: BLE001 - toute erreur est une issue
            answers.append(type(error))

    assert answers[0] == answers[1]


@pytest.mark.parametrize("world", [world for world in GATED if not world.sizes], ids=lambda world: world.name)
def test_crowded_cells_and_few_cells_change_no_answer(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi_acl.engine.kernel.index.CROWDED", 2)
    monkeypatch.setattr("fastapi_acl.engine.kernel.index.FEW_PROBES", -100)
    for seed in range(12):
        drawer = Drawer(world, random.Random(seed))
        rows = [row for row in drawer.rows(20, 40) if row[0] == "p" or row[1][0] != row[1][1]]
        ours, stock = build(PolicyEnforcer, world), build(casbin.AsyncEnforcer, world)
        for enforcer in (ours, stock):
            for ptype, row in rows:
                enforcer.model[ptype[0]][ptype].policy.append(list(row))
            enforcer.build_role_links()
        for request in (tuple(drawer.values()) for _ in range(30)):
            try:
                expected = stock.enforce(*request)
            except Exception:  # noqa: BLE001, S112 - test_against_stock compare aussi les échecs
                continue
            assert ours.enforce(*request) == expected, (request, rows)


# --- ce que l'on tient -----------------------------------------------------------------------------------------------


class Log:
    """Ce qu'un processus sait du journal."""

    policy: Any = ("journal", 1, "")
    revision = policy_revision = 1


def grants(model: str, size: int) -> tuple[PolicyGrants, Log]:
    """Un compte dont l'un des rôles a beaucoup de règles."""
    enforcer = strict_enforcer(model_of(read_packaged_model(model)), share_domains=True)
    domain = ["*"] if enforcer.policy.schema.has_domains else []
    rules = [PolicyRule("p", ("role:a", *domain, f"doc{place}", "read", "allow")) for place in range(size)]
    enforcer.policy.install(
        [*rules, PolicyRule("g", ("user:ada", "role:b", *domain)), PolicyRule("g", ("role:b", "role:a", *domain))]
    )
    log = Log()
    return PolicyGrants(enforcer.policy, log), log  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["rbac", "rbac_with_domains"])
async def test_reading_thousands_of_permissions_gives_the_loop_back_every_hundred(model: str) -> None:
    asked, _ = grants(model, 3_000)
    domain = "d" if "domains" in model else None
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(neighbour())
    _, found = await asked.of(Principal(id="ada"), domain)
    beside.cancel()

    assert [(grant.resource, grant.via) for grant in found] == [
        (f"doc{place}", ("role:b", "role:a")) for place in range(3_000)
    ]
    assert turns >= 3_000 // 100


def test_a_domain_does_not_make_each_rule_cost_a_reading_of_the_matcher() -> None:
    plain, domained = [grants(model, 300)[0]._inspector for model in ("rbac", "rbac_with_domains")]

    assert steps(domained.permissions_of, "user:ada", "d") <= 3 * steps(plain.permissions_of, "user:ada")


async def test_permissions_that_change_while_they_are_read_are_read_again() -> None:
    asked, log = grants("rbac", 1_000)

    async def change() -> None:
        log.revision = log.policy_revision = 2

    task = asyncio.create_task(change())
    stamp, found = await asked.of(Principal(id="ada"), None)
    await task

    assert (stamp.revision, len(found)) == (2, 1_000)


async def test_a_policy_that_never_rests_is_not_read_for_ever() -> None:
    asked, log = grants("rbac", 200)

    async def change() -> None:
        while True:
            log.revision += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(change())
    with pytest.raises(PolicyUnavailableError, match="change sans cesse"):
        await asked.of(Principal(id="ada"), None)
    task.cancel()


# --- aclMatch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hostile", [":" * LONG, "a:" * (LONG // 2), ":" * 250, "é:" * 125, "doc:" + ":" * 4_000])
@pytest.mark.parametrize("model", ["rbac", "rbac_with_domains", "abac", "acl"])
def test_the_segments_of_a_value_cost_nothing_when_rules_have_few_prefixes(model: str, hostile: str) -> None:
    enforcer = strict_enforcer(model_of(read_packaged_model(model)), share_domains=True)
    names = enforcer.policy.schema.fields["p"]
    held = {"sub": "role:a", "dom": "*", "obj": "doc:*", "act": "*", "scope": "*", "eft": "allow"}
    enforcer.policy.install([PolicyRule("p", tuple(held[name] for name in names))])
    asked = {"sub": "role:a", "dom": "d", "obj": "doc:1", "act": "read"}
    usual = [asked[name] for name in enforcer.policy.schema.request]

    for name in ("dom", "obj", "act"):
        strange = [hostile if place == name else asked[place] for place in enforcer.policy.schema.request]
        assert steps(enforcer.enforce_ex, *strange) <= steps(enforcer.enforce_ex, *usual) + 20


def test_prefixes_of_every_length_in_two_fields_do_not_multiply() -> None:
    """Le pire qu'une politique puisse faire : deux cent quarante longueurs dans chaque champ."""
    lengths = range(1, 241)
    enforcer = strict_enforcer(model_of(read_packaged_model("rbac")))
    objects = [PolicyRule("p", ("role:a", ":" * length + "*", "jamais", "allow")) for length in lengths]
    actions = [PolicyRule("p", ("role:a", "jamais", ":" * length + "*", "allow")) for length in lengths]
    enforcer.policy.install([*objects, *actions])

    assert enforcer.enforce("role:a", ":" * LONG, ":" * LONG) is False
    assert steps(enforcer.enforce, "role:a", ":" * LONG, ":" * LONG) < 60 * len(objects + actions)


def test_the_patterns_looked_for_are_those_that_cover_the_value() -> None:
    draw = random.Random(3)
    pieces = ["a", ":", "b:", "*", ":*", "é"]
    words = ["".join(draw.choice(pieces) for _ in range(draw.randrange(6))) for _ in range(400)]
    prefixes = Prefixes()
    held = [word for word in words if draw.random() < 0.5]
    for word in [*held, *held]:
        prefixes.count(word, 1)
    for word in held:
        prefixes.count(word, -1)

    for value in words:
        found = prefixes.covering(value)
        assert sorted(found) == sorted({value, *(word for word in held if word != value and acl_match(value, word))})
        assert set(patterns_of(value)) >= set(found)
        assert all(acl_match(value, pattern) for pattern in patterns_of(value))
        assert [*patterns_of(value, 3)][2:] == [one for one in [*patterns_of(value)][2:] if len(one) <= 3]
    for word in held:
        prefixes.count(word, -1)
    assert (prefixes.anys, prefixes.known, prefixes.lengths) == (0, {}, {})


def test_a_crowd_knows_what_its_rules_say_and_which_comes_first() -> None:
    rank = {("a",): 3, ("b",): 1, ("c",): 2}.__getitem__
    crowd = Crowd({("a",): ALLOW, ("b",): OTHER})
    crowd[("c",)] = DENY

    assert set(crowd.said) == {ALLOW, OTHER, DENY}
    assert [*crowd.first(rank, 2)] == [(("c",), DENY)]
    del crowd[("c",)]
    assert set(crowd.said) == {ALLOW, OTHER}
    assert [*crowd.first(rank, 4)] == [(("a",), ALLOW)]
    del crowd[("a",)]
    assert [*crowd.first(rank, 6)] == []
