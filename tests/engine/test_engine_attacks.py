"""Les façons de faire dire « oui » au moteur sans règle, ou de l'arrêter, qu'une attaque a trouvées."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from casbin.core_enforcer import EnforceContext
from casbin.effect import DenyOverrideEffector
from casbin.model import Model

from fastapi_acl import ConfigurationError, PolicyChange, PolicyEnforcer, PolicyRule
from fastapi_acl.engine.authorizer import PolicyAuthorizer
from fastapi_acl.engine.kernel.inspector import PolicyInspector
from fastapi_acl.engine.kernel.loading import Loaded
from fastapi_acl.engine.kernel.pacing import Pace
from fastapi_acl.engine.kernel.rows import Rows
from fastapi_acl.engine.writing.actors import ActorGuard
from fastapi_acl.engine.writing.administrators import AdministratorGuard
from fastapi_acl.engine.writing.escalation import EscalationGuard
from fastapi_acl.engine.writing.rank_guard import RankGuard
from fastapi_acl.engine.writing.ranks import Ranks
from fastapi_acl.shared.exceptions import (
    EscalationRefusedError,
    InvalidRuleError,
    LastAdministratorError,
    PolicyUnreadableError,
)
from fastapi_acl.shared.identity import Principal
from tests.engine.worlds import MemoryAdapter
from tests.support.engines import load, strict_enforcer

ALLOW = "some(where (p.eft == allow))"
BOTH = f"{ALLOW} && !some(where (p.eft == deny))"
EQUAL = "r.obj == p.obj && r.act == p.act"


def model(
    matcher: str,
    *,
    request: str = "sub, obj, act",
    policy: str = "sub, obj, act, eft",
    roles: str = "g = _, _",
    effect: str = BOTH,
) -> Model:
    definitions = [f"[request_definition]\nr = {request}", f"[policy_definition]\np = {policy}"]
    definitions += [f"[role_definition]\n{roles}"] if roles else []
    made = Model()
    made.load_model_from_text(
        "\n".join([*definitions, f"[policy_effect]\ne = {effect}", f"[matchers]\nm = {matcher}\n"])
    )
    return made


def strict(made: Model, *rules: PolicyRule) -> PolicyEnforcer:
    enforcer = strict_enforcer(made)
    enforcer.policy.install(rules)
    return enforcer


def p(*values: str) -> PolicyRule:
    return PolicyRule("p", values)


def g(*values: str) -> PolicyRule:
    return PolicyRule("g", values)


# --- décision ---


def test_a_context_is_never_taken_for_a_value_of_the_request() -> None:
    made = model(
        "r.obj == p.obj && r.act == p.act\nm2 = r2.obj == p2.obj", request="sub, obj, act\nr2 = obj, act", roles=""
    )
    made.add_def("p", "p2", "obj, act")
    enforcer = PolicyEnforcer(made)
    enforcer.model["p"]["p"].policy.append(["ada", "d", "read", "allow"])
    assert enforcer.enforce("ada", "d", "read")

    assert not enforcer.enforce(EnforceContext("r2", "p2", "e", "m2"), "d", "read")


def test_a_rule_given_twice_keeps_the_place_of_the_first() -> None:
    deny, allow = p("user:1", "d", "read", "deny"), p("user:1", "d", "read", "allow")
    enforcer = strict(model(f"r.sub == p.sub && {EQUAL}", effect="priority(p.eft) || deny"), deny, allow, deny)

    assert not enforcer.enforce("user:1", "d", "read")
    assert enforcer.enforce_ex("user:1", "d", "read") == (False, list(deny.values))


async def test_an_effect_replaced_by_the_application_decides_at_once() -> None:
    enforcer = PolicyEnforcer(model(f"g(r.sub, p.sub) && {EQUAL}", effect=ALLOW))
    enforcer.model["p"]["p"].policy.append(["ada", "d", "read", "allow"])
    assert enforcer.enforce("ada", "d", "read")
    assert not enforcer.enforce("eve", "d", "read")

    enforcer.set_effector(DenyOverrideEffector())

    assert enforcer.enforce("eve", "d", "read")


def test_a_matcher_replaced_in_the_model_decides_at_once() -> None:
    enforcer = PolicyEnforcer(model(f"r.sub == p.sub && {EQUAL}"))
    enforcer.model["p"]["p"].policy.append(["ada", "d", "read", "allow"])
    assert not enforcer.enforce("eve", "d", "read")

    enforcer.model["m"]["m"].value = "r_obj == p_obj && r_act == p_act"

    assert enforcer.enforce("eve", "d", "read")


async def test_a_matcher_replaced_after_a_load_decides_at_once() -> None:
    enforcer = PolicyEnforcer(model(f"r.sub == p.sub && {EQUAL}"), MemoryAdapter())
    await enforcer.load_policy()
    _ = await enforcer.add_policy("ada", "d", "read", "allow")
    assert not enforcer.enforce("eve", "d", "read")

    enforcer.model["m"]["m"].value = "r_obj == p_obj && r_act == p_act"

    assert enforcer.enforce("eve", "d", "read")


def test_no_definition_that_the_strict_enforcer_shows_decides() -> None:
    given = model(f"r.sub == p.sub && {EQUAL}")
    enforcer = strict(given, p("user:1", "d", "read", "allow"))

    for shown in (given, enforcer.get_model()):
        shown["m"]["m"].value = "r_obj == p_obj && r_act == p_act"
        shown["e"]["e"].value = "!some(where (p_eft == deny))"
        assert not enforcer.enforce("user:2", "d", "read")
        enforcer.policy.install(enforcer.policy.rules)
        assert not enforcer.enforce("user:2", "d", "read")
        assert enforcer.enforce("user:1", "d", "read")


NEW = ["user:2", "d", "read", "allow"]


@pytest.mark.parametrize(
    "gesture",
    [
        lambda model: model.add_policy("p", "p", NEW),
        lambda model: model.add_policies("p", "p", [NEW]),
        lambda model: model.update_policy("p", "p", ["user:1", "d", "read", "deny"], NEW),
        lambda model: model.remove_policy("p", "p", ["user:1", "d", "read", "deny"]),
        lambda model: model.remove_filtered_policy("p", "p", 3, "deny"),
        lambda model: model["p"]["p"].policy.append(NEW),
        lambda model: model["p"]["p"].policy.extend([NEW]),
        lambda model: model["p"]["p"].policy.insert(0, NEW),
        lambda model: model["p"]["p"].policy.__setitem__(0, NEW),
        lambda model: model["p"]["p"].policy.__iadd__([NEW]),
        lambda model: model["p"]["p"].policy.pop(),
        lambda model: model["p"]["p"].policy.clear(),
        lambda model: model["p"]["p"].policy.__delitem__(0),
    ],
)
def test_no_rule_in_force_is_changed_through_the_model_that_shows_it(gesture: Callable[[Any], object]) -> None:
    rules = (p("user:1", "d", "read", "deny"), p("user:1", "d", "read", "allow"))
    enforcer = strict(model(f"r.sub == p.sub && {EQUAL}"), *rules)

    with pytest.raises(ConfigurationError, match="suivent la base"):
        gesture(enforcer.get_model())

    assert enforcer.policy.rules == rules
    assert not enforcer.enforce("user:1", "d", "read")
    assert not enforcer.enforce("user:2", "d", "read")


@pytest.mark.parametrize("tried", [False, True])
def test_a_function_replaced_while_the_policy_is_read_decides_what_was_read(tried: bool) -> None:
    enforcer = strict(model("r.sub == p.sub && near(r.obj, p.obj) && r.act == p.act"))
    enforcer.add_function("near", lambda *_: True)
    prepared = enforcer.policy.prepare(Loaded({"p": {("user:1", "d", "read", "allow"): 1}}))

    enforcer.add_function("near", lambda one, other: one == other)
    if tried:
        with enforcer.policy.trial_of(prepared):
            assert not enforcer.enforce("user:1", "far", "read")
    enforcer.policy.install(prepared)

    assert not enforcer.enforce("user:1", "far", "read")
    assert enforcer.enforce("user:1", "d", "read")
    assert len(enforcer.model.rows("p")._listeners) == 1


def test_functions_replaced_in_bulk_are_seen() -> None:
    enforcer = PolicyEnforcer(model("r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act"))
    enforcer.model["p"]["p"].policy.append(["ada", "/a", "read", "allow"])
    assert not enforcer.enforce("ada", "/b", "read")

    enforcer.fm.get_functions().update(keyMatch=lambda *_: True)

    assert enforcer.enforce("ada", "/b", "read")


@pytest.mark.parametrize("back_door", ["enabled", "function", "links"])
def test_strict_has_no_back_door(back_door: str) -> None:
    enforcer = strict(model(f"g(r.sub, p.sub) && {EQUAL}"), p("role:a", "d", "read", "deny"), g("user:1", "role:a"))

    if back_door == "links":
        enforcer.init_rm_map()
        assert enforcer.policy.has_link("user:1", "role:a")
        return
    with pytest.raises(ConfigurationError):
        if back_door == "enabled":
            enforcer.enabled = False
        else:
            enforcer.fm.add_function("aclMatch", lambda *_: True)
    assert not enforcer.enforce("user:1", "d", "read")


# --- changements ---


BROKEN = {
    "la même règle deux fois": PolicyChange(
        removed=(p("role:a", "d", "read", "allow"), p("role:a", "x", "x", "allow"))
    ),
    "un type inconnu": PolicyChange(removed=(p("role:a", "d", "read", "allow"),), added=(PolicyRule("p9", ("x",)),)),
    "un lien trop court": PolicyChange(removed=(p("role:a", "d", "read", "allow"),), added=(g("user:1"),)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_change_that_cannot_be_made_touches_nothing(name: str) -> None:
    enforcer = strict(model(f"g(r.sub, p.sub) && {EQUAL}"), p("role:a", "d", "read", "allow"), g("user:1", "role:a"))
    before = enforcer.policy.rules

    with pytest.raises(InvalidRuleError):
        enforcer.policy.apply(BROKEN[name])
    with pytest.raises(InvalidRuleError), enforcer.policy.trial(BROKEN[name]):
        pass

    assert enforcer.policy.rules == before
    assert enforcer.enforce("user:1", "d", "read")


def test_a_rule_applied_twice_leaves_at_once() -> None:
    enforcer, rule = strict(model(f"g(r.sub, p.sub) && {EQUAL}")), p("user:1", "d", "read", "allow")
    enforcer.policy.apply(PolicyChange(added=(rule,)))
    enforcer.policy.apply(PolicyChange(added=(rule, rule)))

    enforcer.policy.apply(PolicyChange(removed=(rule,)))

    assert not enforcer.enforce("user:1", "d", "read")


class Lines(MemoryAdapter):
    """Des lignes rendues quand l'essai le veut."""

    def __init__(self, *lines: tuple[Any, ...]) -> None:
        super().__init__([])
        self.given, self.gate = lines, asyncio.Event()

    async def lines(self) -> AsyncIterator[Sequence[tuple[Any, ...]]]:
        await self.gate.wait()
        yield self.given


async def test_a_trial_during_a_load_does_not_take_a_deny_away() -> None:
    deny = p("user:1", "d", "read", "deny")
    adapter = Lines((1, "p", "user:1", "d", "read", "allow", None, None), (2, "p", *deny.values, None, None))
    enforcer = strict(model(f"g(r.sub, p.sub) && {EQUAL}"))
    loading = asyncio.create_task(load(enforcer.policy, adapter))
    await asyncio.sleep(0)

    with enforcer.policy.trial(PolicyChange(added=(deny,))):
        pass
    adapter.gate.set()
    await loading

    assert not enforcer.enforce("user:1", "d", "read")


async def test_a_ban_carried_by_a_role_is_not_lost_at_load() -> None:
    adapter = Lines(
        (1, "p", "user:1", "d", "read", None, None, None), (2, "g", "user:1", "role:banned", "", None, None, None)
    )
    adapter.gate.set()
    made = model(f'r.sub == p.sub && {EQUAL} && !g(r.sub, "role:banned")', policy="sub, obj, act", effect=ALLOW)

    with pytest.raises(PolicyUnreadableError):
        await load(strict(made).policy, adapter)


@pytest.mark.parametrize("bad", [b"role:a", 7, 1.5])
async def test_a_column_that_is_not_text_is_a_bad_row_not_a_crash(bad: object) -> None:
    adapter = Lines((1, "p", bad, "d", "read", "deny", None, None))
    adapter.gate.set()

    with pytest.raises(PolicyUnreadableError):
        await load(strict(model(f"g(r.sub, p.sub) && {EQUAL}")).policy, adapter)


# --- fils d'exécution ---


async def test_readers_and_reloads_of_a_bare_enforcer_never_wait_for_each_other_for_ever() -> None:
    adapter = MemoryAdapter([("p", ["staff", "d", "read", "allow"]), ("g", ["ada", "staff"])])
    enforcer = PolicyEnforcer(model(f"g(r.sub, p.sub) && {EQUAL}"), adapter)
    await enforcer.load_policy()
    stop, wrong = threading.Event(), list[bool]()

    def read() -> None:
        while not stop.is_set():
            wrong.extend([True] * (not enforcer.enforce("ada", "d", "read")))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(60):
        await enforcer.load_policy()
        await asyncio.sleep(0)
    stop.set()
    for thread in threads:
        thread.join(5)

    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_a_policy_dismantled_behind_a_reader_takes_no_deny_away() -> None:
    more = [p(f"role:r{number}", "d", "read", "allow") for number in range(2_500)]
    rules = [
        p("user:1", "d", "read", "allow"),
        p("role:banned", "d", "read", "deny"),
        g("user:1", "role:banned"),
        *more,
    ]
    enforcer = strict(model(f"g(r.sub, p.sub) && {EQUAL}"), *rules)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    stop, wrong = threading.Event(), list[bool]()

    def read() -> None:
        while not stop.is_set():
            wrong.extend([True] * enforcer.enforce("user:1", "d", "read"))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(15):
        enforcer.policy.install(rules)
    stop.set()
    reader.join()
    sys.setswitchinterval(before)

    assert not wrong


# --- gardes ---


class Fresh:
    """Une réplique toujours à jour."""

    def require_fresh(self, _: float) -> None:
        """Ne refuse rien."""


def ranks(enforcer: PolicyEnforcer) -> Ranks:
    return Ranks(PolicyAuthorizer(enforcer.policy, Fresh(), max_staleness=1), enforcer.policy)  # type: ignore[arg-type]


async def refused(enforcer: PolicyEnforcer, change: PolicyChange, actor: str = "1") -> bool:
    """Dit si les gardes refusent un changement qui ôterait à son auteur de quoi administrer."""
    policy, known, author = enforcer.policy, ranks(enforcer), Principal(id=actor)
    try:
        await RankGuard(policy=policy, ranks=known).check(change, author, Pace())
        await AdministratorGuard(policy=policy, ranks=known, accounts=None).check(change, author, Pace())
    except (EscalationRefusedError, LastAdministratorError):
        return True
    return False


ROOT = "aclMatch(r.obj, p.obj) && aclMatch(r.act, p.act)"


async def test_a_rule_for_everybody_cannot_shut_the_last_administrator_out() -> None:
    made = model(f'(g(r.sub, p.sub) || p.sub == "user:*") && {ROOT}')
    enforcer = strict(made, p("role:admin", "*", "*", "allow"), g("user:1", "role:admin"))

    assert await refused(enforcer, PolicyChange(added=(p("user:*", "acl.rules", "write", "deny"),)))


async def test_a_group_of_resources_cannot_shut_the_last_administrator_out() -> None:
    made = model("g(r.sub, p.sub) && g2(r.obj, p.obj) && aclMatch(r.act, p.act)", roles="g = _, _\ng2 = _, _")
    enforcer = strict(
        made, p("role:admin", "sys", "*", "allow"), g("user:1", "role:admin"), PolicyRule("g2", ("acl.rules", "sys"))
    )

    assert await refused(enforcer, PolicyChange(removed=(PolicyRule("g2", ("acl.rules", "sys")),)))


async def test_a_longer_chain_of_roles_cannot_shut_the_last_administrator_out() -> None:
    made = model(f"g(r.sub, p.sub) && {ROOT}", effect="subjectPriority(p.eft) || deny")
    rules = [p("role:admin", "*", "*", "allow"), p("role:staff", "*", "*", "deny"), g("user:1", "role:admin")]
    enforcer = strict(made, *rules, g("user:1", "role:staff"), g("user:2", "role:sub"), g("role:sub", "role:staff"))
    assert enforcer.enforce("user:1", "acl.rules", "write")

    change = PolicyChange(
        added=(g("role:bottom", "role:deep"), g("role:deep", "role:deeper"), g("role:deeper", "role:admin"))
    )

    assert await refused(enforcer, change)


async def test_a_permission_of_every_domain_is_not_one_of_each_when_domains_are_compared_by_equality() -> None:
    made = model(
        f"g(r.sub, p.sub, r.dom) && r.dom == p.dom && {EQUAL}",
        request="sub, dom, obj, act",
        policy="sub, dom, obj, act, eft",
        roles="g = _, _, _",
    )
    enforcer = strict(made, p("role:a", "*", "pay", "read", "allow"), g("user:1", "role:a", "acme"))
    known = ranks(enforcer)

    with pytest.raises(EscalationRefusedError):
        await EscalationGuard(policy=enforcer.policy, ranks=known, actors=ActorGuard(known.authorizer, None)).check(  # type: ignore[arg-type]
            PolicyChange(added=(p("user:1", "acme", "pay", "read", "allow"),)), Principal(id="1"), Pace()
        )
    assert PolicyInspector(enforcer.policy).permissions_of("user:1", "acme") == []


# --- mémoire et temps ---


def test_explaining_a_denial_does_not_run_away_on_a_hostile_pattern() -> None:
    made = model("g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && r.act == p.act")
    enforcer = strict(made, p("role:a", "/*" * 20 + "b", "read", "allow"))

    assert not PolicyInspector(enforcer.policy).explain("user:1", "/a" * 30, "read").allowed


def test_a_policy_put_in_force_leaves_one_follower_of_its_rules() -> None:
    enforcer = strict(model(f"g(r.sub, p.sub) && {EQUAL}"), p("user:1", "d", "read", "allow"))
    for _ in range(3):
        enforcer.policy.install([p("user:1", "d", "read", "allow")])
        enforcer.enforce("user:1", "d", "read")
        enforcer.fm.add_function("other", lambda *_: True)
        enforcer.enforce("user:1", "d", "read")

    assert len(enforcer.model.rows("p")._listeners) == 1


def test_rows_are_a_list_like_any_other() -> None:
    rows = Rows([["a"], ["b"], ["c"]])
    rows.insert(1, ["x"])
    del rows[0]
    rows += [["d"]]

    assert rows == [["x"], ["b"], ["c"], ["d"]]
    assert rows.pop() == ["d"]
    assert rows.index(["c"]) == 2
    rows.clear()
    assert not rows
