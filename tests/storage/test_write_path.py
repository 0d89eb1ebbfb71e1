"""Le chemin d'une écriture : l'interface de Casbin en mode strict, la base d'abord, sur chacun des stockages."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from contextvars import Context
from itertools import count, product
from typing import Any, NamedTuple

import pytest
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError

from fastapi_acl.engine.casbin.enforcer import PolicyEnforcer
from fastapi_acl.engine.writing.administrators import AdministratorGuard
from fastapi_acl.runtime.composition import Composition
from fastapi_acl.shared.exceptions import (
    ConfigurationError,
    IdempotencyKeyReusedError,
    InvalidRuleError,
    PolicyUnreadableError,
    RuleAlreadyExistsError,
    RuleNotFoundError,
    TransactionCondemnedError,
    TransactionNotOwnedError,
)
from fastapi_acl.shared.identity import SYSTEM
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.changes import IdempotencyKey
from tests.engine.reference import Meaning
from tests.storage.conftest import SERVERS, Base, agreed, share_of, write_row
from tests.support.effort import effort

Call = Callable[[PolicyEnforcer], Awaitable[Any]]


def p(*values: str) -> PolicyRule:
    return PolicyRule("p", values)


def g(*values: str) -> PolicyRule:
    return PolicyRule("g", values)


READ, WRITE = ["role:r", "doc", "read", "allow"], ["role:r", "doc", "write", "allow"]
DENY, OWN = ["role:s", "doc", "write", "deny"], ["user:ada", "doc", "read", "allow"]
NEW, NEWER = ["role:n", "doc", "read", "allow"], ["role:n", "doc", "write", "allow"]
ADA, BOB, UP = ["user:ada", "role:r"], ["user:bob", "role:s"], ["role:r", "role:s"]
START = (p(*READ), p(*WRITE), p(*DENY), p(*OWN), g(*ADA), g(*BOB), g(*UP))
MEANING = Meaning(("sub", "obj", "act"), ("sub", "obj", "act", "eft"), effect="both", by_role={"sub": "g"})
QUESTIONS = list(product(["user:ada", "user:bob", "user:eve", "role:r", "role:n"], ["doc", "other"], ["read", "write"]))


class Case(NamedTuple):
    """Un appel, ce qu'il répond, et ce qu'il change."""

    call: Call
    answer: bool = True
    removed: tuple[PolicyRule, ...] = ()
    added: tuple[PolicyRule, ...] = ()


CASES = {
    "add_policy": Case(lambda e: e.add_policy(*NEW), added=(p(*NEW),)),
    "add_policy, liste": Case(lambda e: e.add_policy(NEW), added=(p(*NEW),)),
    "add_policy, connue": Case(lambda e: e.add_policy(*READ), answer=False),
    "add_named_policy": Case(lambda e: e.add_named_policy("p", *NEW), added=(p(*NEW),)),
    "add_policies": Case(lambda e: e.add_policies([NEW, NEWER]), added=(p(*NEW), p(*NEWER))),
    "add_policies, une connue": Case(lambda e: e.add_policies([NEW, READ]), answer=False),
    "add_policies, aucune": Case(lambda e: e.add_policies([]), answer=False),
    "add_named_policies": Case(lambda e: e.add_named_policies("p", [NEW]), added=(p(*NEW),)),
    "add_permission_for_user": Case(lambda e: e.add_permission_for_user(*NEW), added=(p(*NEW),)),
    "add_grouping_policy": Case(
        lambda e: e.add_grouping_policy("user:eve", "role:r"), added=(g("user:eve", "role:r"),)
    ),
    "add_grouping_policy, connue": Case(lambda e: e.add_grouping_policy(*ADA), answer=False),
    "add_named_grouping_policy": Case(
        lambda e: e.add_named_grouping_policy("g", ["user:eve", "role:r"]), added=(g("user:eve", "role:r"),)
    ),
    "add_grouping_policies": Case(
        lambda e: e.add_grouping_policies([["user:eve", "role:r"], ["user:eve", "role:s"]]),
        added=(g("user:eve", "role:r"), g("user:eve", "role:s")),
    ),
    "add_grouping_policies, une connue": Case(
        lambda e: e.add_grouping_policies([["user:eve", "role:r"], ADA]), answer=False
    ),
    "add_role_for_user": Case(lambda e: e.add_role_for_user("user:eve", "role:r"), added=(g("user:eve", "role:r"),)),
    "remove_policy": Case(lambda e: e.remove_policy(*READ), removed=(p(*READ),)),
    "remove_policy, absente": Case(lambda e: e.remove_policy(*NEW), answer=False),
    "remove_policy, trop courte": Case(lambda e: e.remove_policy(*READ[:3]), answer=False),
    "remove_named_policy": Case(lambda e: e.remove_named_policy("p", *READ), removed=(p(*READ),)),
    "remove_policies": Case(lambda e: e.remove_policies([READ, DENY]), removed=(p(*READ), p(*DENY))),
    "remove_policies, une absente": Case(lambda e: e.remove_policies([READ, NEW]), answer=False),
    "remove_policies, aucune": Case(lambda e: e.remove_policies([]), answer=False),
    "remove_named_policies": Case(lambda e: e.remove_named_policies("p", [READ]), removed=(p(*READ),)),
    "remove_filtered_policy": Case(
        lambda e: e.remove_filtered_policy(0, "role:r"), removed=(p(*READ), p(*WRITE))
    ),
    "remove_filtered_policy, trou": Case(
        lambda e: e.remove_filtered_policy(0, "role:r", "", "read"), removed=(p(*READ),)
    ),
    "remove_filtered_policy, au milieu": Case(
        lambda e: e.remove_filtered_policy(2, "write"), removed=(p(*WRITE), p(*DENY))
    ),
    "remove_filtered_policy, rien": Case(lambda e: e.remove_filtered_policy(0, "role:R"), answer=False),
    "remove_filtered_named_policy": Case(
        lambda e: e.remove_filtered_named_policy("p", 3, "deny"), removed=(p(*DENY),)
    ),
    "remove_grouping_policy": Case(lambda e: e.remove_grouping_policy(*ADA), removed=(g(*ADA),)),
    "remove_grouping_policy, absente": Case(lambda e: e.remove_grouping_policy("user:ada", "role:s"), answer=False),
    "remove_grouping_policies": Case(lambda e: e.remove_grouping_policies([ADA, BOB]), removed=(g(*ADA), g(*BOB))),
    "remove_named_grouping_policy": Case(lambda e: e.remove_named_grouping_policy("g", *ADA), removed=(g(*ADA),)),
    "remove_named_grouping_policies": Case(
        lambda e: e.remove_named_grouping_policies("g", [ADA, ["user:eve", "role:r"]]), answer=False
    ),
    "remove_filtered_grouping_policy": Case(
        lambda e: e.remove_filtered_grouping_policy(1, "role:s"), removed=(g(*BOB), g(*UP))
    ),
    "remove_filtered_named_grouping_policy": Case(
        lambda e: e.remove_filtered_named_grouping_policy("g", 0, "user:ada"), removed=(g(*ADA),)
    ),
    "update_policy": Case(lambda e: e.update_policy(READ, NEW), removed=(p(*READ),), added=(p(*NEW),)),
    "update_policy, absente": Case(lambda e: e.update_policy(NEW, NEWER), answer=False),
    "update_policy, vers une connue": Case(lambda e: e.update_policy(READ, WRITE), answer=False),
    "update_named_policy": Case(
        lambda e: e.update_named_policy("p", READ, NEW), removed=(p(*READ),), added=(p(*NEW),)
    ),
    "update_policies": Case(
        lambda e: e.update_policies([READ, DENY], [NEW, NEWER]),
        removed=(p(*READ), p(*DENY)),
        added=(p(*NEW), p(*NEWER)),
    ),
    "update_policies, une absente": Case(
        lambda e: e.update_policies([READ, NEW], [NEWER, ["role:x", "doc", "read", "allow"]]), answer=False
    ),
    "update_policies, longueurs": Case(lambda e: e.update_policies([READ, WRITE], [NEW]), answer=False),
    "update_named_policies": Case(
        lambda e: e.update_named_policies("p", [READ], [NEW]), removed=(p(*READ),), added=(p(*NEW),)
    ),
    "update_filtered_policies": Case(
        lambda e: e.update_filtered_policies([NEW], 0, "role:r"), removed=(p(*READ), p(*WRITE)), added=(p(*NEW),)
    ),
    "update_filtered_policies, rien": Case(lambda e: e.update_filtered_policies([NEW], 0, "role:x"), answer=False),
    "update_filtered_named_policies": Case(
        lambda e: e.update_filtered_named_policies("p", [NEW, NEWER], 3, "deny"),
        removed=(p(*DENY),),
        added=(p(*NEW), p(*NEWER)),
    ),
    "delete_role_for_user": Case(lambda e: e.delete_role_for_user(*ADA), removed=(g(*ADA),)),
    "delete_roles_for_user": Case(lambda e: e.delete_roles_for_user("user:ada"), removed=(g(*ADA),)),
    "delete_user": Case(lambda e: e.delete_user("user:ada"), removed=(g(*ADA), p(*OWN))),
    "delete_user, inconnu": Case(lambda e: e.delete_user("user:eve"), answer=False),
    "delete_role": Case(lambda e: e.delete_role("role:s"), removed=(g(*BOB), g(*UP), p(*DENY))),
    "delete_permission": Case(lambda e: e.delete_permission("doc", "read"), removed=(p(*READ), p(*OWN))),
    "delete_permission_for_user": Case(
        lambda e: e.delete_permission_for_user("role:r", "doc", "read", "allow"), removed=(p(*READ),)
    ),
    "delete_permissions_for_user": Case(
        lambda e: e.delete_permissions_for_user("role:r"), removed=(p(*READ), p(*WRITE))
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[Call, type[Exception] | tuple[type[Exception], ...]]] = {
    "filtre vide": (lambda e: e.remove_filtered_policy(0, ""), InvalidRuleError),
    "filtre sans valeur": (lambda e: e.remove_filtered_policy(0), InvalidRuleError),
    "filtre de liens vide": (lambda e: e.remove_filtered_grouping_policy(0, "", ""), InvalidRuleError),
    "remplacement filtré vide": (lambda e: e.update_filtered_policies([NEW], 0, ""), InvalidRuleError),
    "compte sans nom": (lambda e: e.delete_user(""), InvalidRuleError),
    "rôle sans nom": (lambda e: e.delete_role(""), InvalidRuleError),
    "permission vide": (lambda e: e.delete_permission(""), InvalidRuleError),
    "trop courte": (lambda e: e.add_policy("role:n", "doc", "read"), InvalidRuleError),
    "trop longue": (lambda e: e.add_policy(*NEW, "x"), InvalidRuleError),
    "effet inconnu": (lambda e: e.add_policy("role:n", "doc", "read", "maybe"), InvalidRuleError),
    "sujet sans préfixe": (lambda e: e.add_policy("mallory", "doc", "read", "allow"), InvalidRuleError),
    "valeur vide": (lambda e: e.add_policy("role:n", "", "read", "allow"), InvalidRuleError),
    "valeur sans fin": (lambda e: e.add_policy("role:n", "d" * 251, "read", "allow"), InvalidRuleError),
    "NUL": (lambda e: e.add_policy("role:n", "a\x00", "read", "allow"), InvalidRuleError),
    "demi-codet": (lambda e: e.add_policy("role:n", "\ud800", "read", "allow"), InvalidRuleError),
    "opérateur": (lambda e: e.add_policy("role:n", {"$ne": None}, "read", "allow"), (InvalidRuleError, TypeError)),
    "joker au milieu": (lambda e: e.add_policy("role:n", "a*b", "read", "allow"), InvalidRuleError),
    "une mauvaise sur deux": (lambda e: e.add_policies([NEW, ["role:n", "doc"]]), InvalidRuleError),
    "deux fois la même": (lambda e: e.add_policies([NEW, NEW]), InvalidRuleError),
    "type inconnu": (lambda e: e.add_named_policy("p9", *NEW), (InvalidRuleError, KeyError)),
    "cycle": (lambda e: e.add_grouping_policy("role:s", "role:r"), InvalidRuleError),
    "lien vers soi": (lambda e: e.add_grouping_policy("role:r", "role:r"), InvalidRuleError),
    "cycle en deux liens": (
        lambda e: e.add_grouping_policies([["role:s", "role:t"], ["role:t", "role:r"]]), InvalidRuleError
    ),
    "chaîne trop longue": (
        lambda e: e.add_grouping_policies([[f"role:l{n}", f"role:l{n + 1}"] for n in range(10)]), InvalidRuleError
    ),
    "vider": (lambda e: e.save_policy(), ConfigurationError),
}  # fmt: skip


async def start(process: Composition, *, at: set[PolicyRule] | None = None) -> int:
    """Met en vigueur les règles de départ, ou d'autres, et elles seules ; rend la révision."""
    rules, wanted = process.policy.rules, [*START] if at is None else sorted(at)
    missing = PolicyChange(
        added=tuple(one for one in wanted if one not in rules), removed=tuple(one for one in rules if one not in wanted)
    )
    return await process.store.change(missing) if missing else process.replica.revision


def decides_right(process: Composition, rules: set[PolicyRule]) -> bool:
    """Compare toutes les décisions à une référence indépendante."""
    known = [(one.ptype, one.values) for one in rules]
    return all(process.enforcer.enforce(*asked) == MEANING.allows(known, asked, strict=True) for asked in QUESTIONS)


def shown(enforcer: PolicyEnforcer) -> set[PolicyRule]:
    """Rend les règles que l'interface de gestion montre."""
    return {p(*values) for values in enforcer.get_policy()} | {g(*values) for values in enforcer.get_grouping_policy()}


async def test_each_call_changes_exactly_what_it_says_on_every_process(
    base: Base, process: Composition, twin: Composition
) -> None:
    await start(process)
    for name, case in share_of(base.kind, CASES.items()):
        before, wanted = process.replica.revision, (set(START) - {*case.removed}) | {*case.added}

        answer = await case.call(process.enforcer)

        assert bool(answer) == case.answer, name
        assert (await agreed(process, twin)).keys() == wanted, name
        assert (process.replica.revision > before) == (wanted != set(START)), name
        assert decides_right(process, wanted), name
        assert decides_right(twin, wanted), name
        assert await process.history.rules_at(process.replica.revision) == await agreed(process), name
        await start(process)


async def test_each_call_in_a_transaction_is_seen_there_and_nowhere_else(
    base: Base, process: Composition, twin: Composition
) -> None:
    begun = await start(process)
    for name, case in share_of(base.kind, CASES.items()):
        wanted = (set(START) - {*case.removed}) | {*case.added}
        with pytest.raises(ZeroDivisionError):
            async with process.replica.writing():
                assert bool(await case.call(process.enforcer)) == case.answer, name
                assert shown(process.enforcer) == wanted, name
                assert set(process.policy.rules) == set(START), name
                assert decides_right(process, set(START)), name
                _ = 1 / 0

        assert set(await agreed(process, twin)) == set(START), name
        assert process.replica.revision == begun, name


async def test_calls_of_one_transaction_come_into_force_together(process: Composition, twin: Composition) -> None:
    begun = await start(process)

    async with process.replica.writing():
        assert await process.enforcer.delete_user("user:ada")
        assert await process.enforcer.add_policies([NEW, NEWER])
        assert await process.enforcer.update_policy(NEW, ["role:n", "other", "read", "allow"])
        assert not await process.enforcer.remove_policy(*NEW)
        assert await process.enforcer.remove_policy(*NEWER)
        assert set(process.policy.rules) == set(START)
        assert process.replica.revision == begun

    wanted = (set(START) - {g(*ADA), p(*OWN)}) | {p("role:n", "other", "read", "allow")}
    assert set(await agreed(process, twin)) == wanted
    assert decides_right(process, wanted)
    assert await process.history.rules_at(process.replica.revision) == await agreed(process)


@pytest.mark.parametrize("seed", range(effort(1, 40)))
async def test_a_transaction_answers_as_if_each_call_were_alone(
    process: Composition, twin: Composition, seed: int
) -> None:
    rng, changing = random.Random(seed), [case for case in CASES.values() if case.removed or case.added]
    await start(process)
    for _ in range(6):
        calls, before = rng.sample(changing, 4), set(process.policy.rules)
        alone = [await case.call(process.enforcer) for case in calls]
        expected = set(await agreed(process))
        await start(process, at=before)

        async with process.replica.writing():
            joined = [await case.call(process.enforcer) for case in calls]
            assert shown(process.enforcer) == expected

        assert joined == alone
        assert set(await agreed(process, twin)) == expected


async def test_what_is_refused_changes_nothing_alone_or_joined(
    base: Base, process: Composition, twin: Composition
) -> None:
    begun = await start(process)
    for name, (call, error) in share_of(base.kind, REFUSED.items()):
        with pytest.raises(error):
            await call(process.enforcer)
        with pytest.raises((error, TransactionCondemnedError) if isinstance(error, type) else error):
            async with process.replica.writing():
                await call(process.enforcer)
        assert set(await agreed(process, twin)) == set(START), name
        assert process.replica.revision == begun, name


async def test_a_change_refused_in_a_transaction_lets_the_others_through(process: Composition) -> None:
    await start(process)

    async with process.replica.writing():
        assert await process.enforcer.add_policy(*NEW)
        with pytest.raises(InvalidRuleError):
            await process.enforcer.add_grouping_policy("role:s", "role:r")
        assert not await process.enforcer.add_policy(*READ)
        assert not await process.enforcer.remove_policy(*NEWER)

    assert set(await agreed(process)) == {*START, p(*NEW)}


def test_what_leaves_and_comes_back_in_a_transaction_is_no_change() -> None:
    one, other = p(*NEW), p(*NEWER)

    assert PolicyChange(removed=(one,)).then(PolicyChange(added=(one,))) == PolicyChange()
    assert PolicyChange(added=(one,)).then(PolicyChange((other,), (one,))) == PolicyChange(added=(other,))
    assert PolicyChange((one,), (other,)).then(PolicyChange((other,))) == PolicyChange(added=(one,))


async def test_guards_see_what_the_transaction_wrote(process: Composition) -> None:
    async with process.replica.writing():
        assert await process.enforcer.add_grouping_policy("role:a", "role:b")
        with pytest.raises(InvalidRuleError):
            await process.enforcer.add_grouping_policy("role:b", "role:a")
        assert await process.enforcer.remove_grouping_policy("role:a", "role:b")
        assert await process.enforcer.add_grouping_policy("role:b", "role:a")

    assert list(await agreed(process)) == [g("role:b", "role:a")]


async def test_a_change_is_judged_again_on_a_policy_read_meanwhile(
    process: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_row(process.storage, "g", ["role:b", "role:a"])
    check, readings = AdministratorGuard.check, list[asyncio.Task[None]]()

    async def meanwhile(*given: Any) -> None:
        if not readings:
            readings.append(Context().run(asyncio.create_task, process.replica.reload()))
            await readings[0]
        await check(*given)

    monkeypatch.setattr(AdministratorGuard, "check", meanwhile)

    with pytest.raises(InvalidRuleError):
        await process.store.change(PolicyChange(added=(g("role:a", "role:b"),)))

    assert process.policy.rules == (g("role:b", "role:a"),)


async def test_another_task_does_not_join_the_transaction(process: Composition) -> None:
    async with process.replica.writing():
        await process.enforcer.add_policy(*NEW)
        with pytest.raises(TransactionNotOwnedError):
            await asyncio.create_task(process.enforcer.add_policy(*NEWER))

    assert list(await agreed(process)) == [p(*NEW)]


async def test_a_replaced_rule_keeps_its_place_and_its_number(process: Composition, twin: Composition) -> None:
    await start(process)
    before = await agreed(process)

    assert await process.enforcer.update_policies([WRITE, READ], [NEW, NEWER])

    after = await agreed(process, twin)
    assert (after[p(*NEW)], after[p(*NEWER)]) == (before[p(*WRITE)], before[p(*READ)])
    assert process.enforcer.get_policy() == [NEWER, NEW, DENY, OWN]


async def test_a_rule_that_comes_back_goes_to_the_end(process: Composition, twin: Composition) -> None:
    await start(process)

    await process.enforcer.remove_policy(*READ)
    await process.enforcer.add_policy(*READ)

    assert list(await agreed(process, twin))[-1] == p(*READ)
    assert process.enforcer.get_policy()[-1] == READ


# --- deux processus ----------------------------------------------------------------------------------------------


async def test_a_writer_decides_on_what_the_other_process_wrote(process: Composition, twin: Composition) -> None:
    assert await process.enforcer.add_policy(*NEW)

    assert not await twin.enforcer.add_policy(*NEW)
    assert await twin.enforcer.remove_policy(*NEW)
    assert not await process.enforcer.remove_policy(*NEW)
    assert await process.enforcer.add_grouping_policy("role:a", "role:b")
    with pytest.raises(InvalidRuleError):
        await twin.enforcer.add_grouping_policy("role:b", "role:a")

    assert list(await agreed(process, twin)) == [g("role:a", "role:b")]


async def test_a_writer_that_must_read_everything_lets_the_others_write_meanwhile(
    process: Composition, twin: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    await process.transfer.import_rules(io.StringIO("p, role:r, doc, read, allow\n"), "csv")
    others = iter(p(f"role:r{number}", "doc", "read", "allow") for number in count())
    written, read = [p("role:r", "doc", "read", "allow")], twin.policy.read

    async def read_slowly(*sources: Any) -> Any:
        written.append(next(others))
        await process.store.change(PolicyChange(added=(written[-1],)))
        return await read(*sources)

    monkeypatch.setattr(twin.policy, "read", read_slowly)
    assert await twin.enforcer.add_policy("role:s", "doc", "read", "allow")

    assert list(await agreed(process, twin)) == [*written, p("role:s", "doc", "read", "allow")]
    assert len(written) == 2


async def test_many_writers_that_must_read_everything_read_it_once(
    process: Composition, twin: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    await process.transfer.import_rules(io.StringIO("p, role:r, doc, read, allow\n"), "csv")
    readings, read = list[int](), twin.policy.read

    async def counted(*sources: Any) -> Any:
        readings.append(1)
        return await read(*sources)

    monkeypatch.setattr(twin.policy, "read", counted)
    await asyncio.gather(*(twin.enforcer.add_policy(f"role:r{n}", "doc", "read", "allow") for n in range(8)))

    assert len(await agreed(process, twin)) == 9
    assert len(readings) == 1


async def test_of_many_that_write_the_same_rule_one_succeeds(process: Composition, twin: Composition) -> None:
    both = [process.enforcer, twin.enforcer] * 5

    added = await asyncio.gather(*(one.add_policy(*NEW) for one in both))
    removed = await asyncio.gather(*(one.remove_policy(*NEW) for one in both))

    assert sorted(added) == sorted(removed) == [False] * 9 + [True]
    assert await agreed(process, twin) == {}
    assert process.replica.revision == 2


@pytest.mark.parametrize("seed", range(effort(1, 40)))
async def test_random_writes_of_two_processes_end_as_one_truth(
    process: Composition, twin: Composition, seed: int
) -> None:
    rng, model = random.Random(seed), set[PolicyRule]()
    pool = [
        p(f"role:{role}", "doc", act, eft) for role in "rs" for act in ("read", "write") for eft in ("allow", "deny")
    ]
    pool += [g(f"user:{user}", f"role:{role}") for user in ("ada", "bob") for role in "rs"]
    for step in range(40):
        one, writer = rng.choice(pool), rng.choice([process, twin])
        if rng.random() < 0.2:
            other = rng.choice(pool)
            swapped = PolicyChange(added=(other,), removed=(one,), in_place=True)
            if one in model and other not in model:
                await writer.store.change(swapped)
                model ^= {one, other}
        elif one in model:
            await writer.store.change(PolicyChange(removed=(one,)))
            model.remove(one)
        else:
            await writer.store.change(PolicyChange(added=(one,)))
            model.add(one)
        if rng.random() < 0.1:
            await rng.choice([process, twin]).enforcer.load_policy()
        if step % 10 == 9:
            assert set(await agreed(process, twin)) == model
            assert decides_right(process, model)
            assert decides_right(twin, model)


# --- clés d'idempotence ------------------------------------------------------------------------------------------


async def test_the_same_request_under_the_same_key_is_made_once(process: Composition, twin: Composition) -> None:
    change, key = PolicyChange(added=(p(*NEW),)), IdempotencyKey("k", "demande")

    first = await process.store.change(change, key=key)
    await process.enforcer.remove_policy(*NEW)
    again = [await one.store.change(change, key=key) for one in (process, twin)]

    assert again == [first, first]
    assert await agreed(process, twin) == {}
    assert process.replica.revision == first + 1


async def test_many_copies_of_a_request_at_once_are_one_change(process: Composition, twin: Composition) -> None:
    change, key = PolicyChange(added=(p(*NEW),)), IdempotencyKey("k", "demande")

    revisions = await asyncio.gather(*(one.store.change(change, key=key) for one in [process, twin] * 4))

    assert set(revisions) == {1}
    assert list(await agreed(process, twin)) == [p(*NEW)]


async def test_a_key_that_served_another_request_is_refused(process: Composition, twin: Composition) -> None:
    await process.store.change(PolicyChange(added=(p(*NEW),)), key=IdempotencyKey("k", "demande"))

    for one in (process, twin):
        with pytest.raises(IdempotencyKeyReusedError):
            await one.store.change(PolicyChange(added=(p(*NEWER),)), key=IdempotencyKey("k", "autre"))

    assert list(await agreed(process, twin)) == [p(*NEW)]


async def test_a_refused_request_leaves_its_key_free(process: Composition) -> None:
    key = IdempotencyKey("k", "demande")
    with pytest.raises(RuleNotFoundError):
        await process.store.change(PolicyChange(removed=(p(*NEW),)), key=key)
    await process.enforcer.add_policy(*NEW)

    revision = await process.store.change(PolicyChange(removed=(p(*NEW),)), key=key)

    assert revision == 2
    assert await agreed(process) == {}


async def test_a_change_names_its_error_and_changes_nothing(process: Composition) -> None:
    await start(process)

    with pytest.raises(RuleAlreadyExistsError):
        await process.store.change(PolicyChange(added=(p(*NEW), p(*READ))))
    with pytest.raises(RuleNotFoundError):
        await process.store.change(PolicyChange(removed=(p(*READ), p(*NEW))))
    with pytest.raises(InvalidRuleError):
        await process.store.change(PolicyChange())
    with pytest.raises(InvalidRuleError):
        await process.store.change(PolicyChange(added=(p(*NEW),), removed=(p(*NEW),)))

    assert set(await agreed(process)) == set(START)


async def test_an_account_leaves_with_every_rule_that_names_it(process: Composition, twin: Composition) -> None:
    await start(process)
    await process.enforcer.add_policy("user:adam", "doc", "read", "allow")

    await twin.accounts.remove_subject("ada", SYSTEM)

    assert set(await agreed(process, twin)) == {*START, p("user:adam", "doc", "read", "allow")} - {g(*ADA), p(*OWN)}


# --- ce qu'on écrit à la main ------------------------------------------------------------------------------------

ALLOWS_AT_MOST: list[tuple[str, tuple[str | None, ...]]] = [
    ("p", ("sans préfixe", "doc", "read", "allow")),
    ("p", ("role:x", "", "read", "allow")),
    ("p", ("role:x", "a*b", "read", "allow")),
    ("p", ("role:x", "doc\n", "read", "allow")),
    ("p", ("role:x", "d" * 255, "read", "allow")),
    ("p", ("role:pas un rôle", "doc", "read", "allow")),
    ("p", ("role:", "doc", "read", "allow")),
    ("p", (None, "doc", "read", "allow")),
    ("p", ("user:", "doc", "read", "allow")),
]
COULD_DENY: list[tuple[str, tuple[str | None, ...]]] = [
    ("p", ("role:x", "doc", "read", "DENY")),
    ("p", ("role:x", "doc", "read", "perhaps")),
    ("p", ("role:x", "doc", "read", "")),
    ("p", ("role:x", "doc", "read", None)),
    ("p", ("role:x", "doc", "read")),
    ("p", ("role:x", "doc", "read", "allow ")),
    ("p", ("role:x", "doc", "read", "deny", "more")),
    ("p", ("sans préfixe", "doc", "read", "deny")),
    ("g", ("user:ada", "sans préfixe")),
    ("g", ("user:ada",)),
    ("g", ("user:ada", "role:r", "domaine")),
    ("g", ("role:s", "role:r")),
    ("g2", ("user:ada", "role:r")),
    ("zz", ("user:ada", "role:r")),
    ("", ("user:ada", "role:r")),
    ("P", ("role:x", "doc", "read", "allow")),
]


async def test_a_bad_row_that_could_only_allow_is_skipped_and_counted(process: Composition, base: Base) -> None:
    await start(process)
    for number, (ptype, values) in enumerate(ALLOWS_AT_MOST):
        await write_row(process.storage, ptype, values, f"{number:064}")

    await process.replica.reload()
    newcomer = await base.process()

    for one in (process, newcomer):
        assert set(one.policy.rules) == set(START)
        assert one.policy.skipped_rows == len(ALLOWS_AT_MOST)
        assert decides_right(one, set(START))


async def test_a_bad_row_that_could_deny_stops_the_load_and_the_old_rules_stay(
    process: Composition, base: Base
) -> None:
    await start(process)
    for ptype, values in share_of(base.kind, COULD_DENY):
        number = await write_row(process.storage, ptype, values)

        with pytest.raises(PolicyUnreadableError):
            await process.replica.reload()
        with pytest.raises(PolicyUnreadableError):
            await base.process()
        assert decides_right(process, set(START)), (ptype, values)
        assert await process.enforcer.add_policy(*NEW)
        assert await process.enforcer.remove_policy(*NEW)

        await process.quarantine.quarantine(number)
        assert set(process.policy.rules) == set(START), (ptype, values)
    assert set(await agreed(process)) == set(START)


async def test_a_row_written_by_hand_comes_into_force_at_the_next_reading(
    process: Composition, twin: Composition
) -> None:
    await write_row(process.storage, "p", NEW)

    await process.replica.refresh()
    assert list(process.policy.rules) == []
    await process.enforcer.load_policy()
    assert list(process.policy.rules) == [p(*NEW)]
    assert await process.enforcer.remove_policy(*NEW)
    await twin.replica.reload()

    assert await agreed(process, twin) == {}


async def test_a_rule_and_its_twin_written_by_hand_leave_together(process: Composition, twin: Composition) -> None:
    await start(process)
    for number, values in enumerate([READ, ADA, READ]):
        await write_row(process.storage, "p" if values is READ else "g", values, f"{number:064}")
    await process.replica.reload()

    assert await process.enforcer.remove_policy(*READ)
    assert await process.enforcer.delete_role_for_user(*ADA)
    await twin.replica.reload()

    assert set(await agreed(process, twin)) == set(START) - {p(*READ), g(*ADA)}


async def test_a_rule_replaced_or_removed_by_account_takes_its_twins_along(process: Composition) -> None:
    await start(process)
    await write_row(process.storage, "p", READ, "1" * 64)
    await write_row(process.storage, "p", OWN, "2" * 64)
    await process.replica.reload()

    assert await process.enforcer.update_policy(READ, NEW)
    await process.accounts.remove_subject("ada", SYSTEM)
    await process.replica.reload()

    assert set(await agreed(process)) == (set(START) - {p(*READ), p(*OWN), g(*ADA)}) | {p(*NEW)}


HOSTILE = [
    "mallory, admin", 'a"b', "a'b", "a\\b", "%", "_", "'; DROP TABLE casbin_rule; --", '{"$ne": null}', "$where", "]",
    ")", "None", " bords ", "é", "e\u0301", "😀" * 250, "a" * 250, "\u202e", "\u200b", "\ufeff", "{0}", "%s", "\x00",
    "\ud800", "\n", "a*b",
]  # fmt: skip


async def test_a_hostile_value_is_refused_or_plain_data_from_end_to_end(
    process: Composition, twin: Composition
) -> None:
    await process.enforcer.add_grouping_policy(*ADA)
    accepted = [value for value in HOSTILE if await is_accepted(process, p("role:r", value, "read", "allow"))]
    assert len(accepted) >= 18

    kept = await agreed(process, twin)
    assert list(kept) == [g(*ADA), *(p("role:r", value, "read", "allow") for value in accepted)]
    for value in accepted:
        assert twin.enforcer.enforce("user:ada", value, "read")
        assert await twin.enforcer.remove_filtered_policy(1, value)
        assert not twin.enforcer.enforce("user:ada", value, "read")
    assert list(await agreed(process, twin)) == [g(*ADA)]


async def is_accepted(process: Composition, wanted: PolicyRule) -> bool:
    """Ajoute une règle ; faux si elle est refusée."""
    try:
        await process.store.change(PolicyChange(added=(wanted,)))
    except InvalidRuleError:
        return False
    return True


async def test_look_alikes_are_granted_and_revoked_one_by_one(process: Composition, twin: Composition) -> None:
    names = ["alice", "Alice", "alicé", "alice ", " alice", "alice\u00a0", "alic", "a%", "\u0430lice", "😀", "😁"]
    rules = [p(f"user:{name}", "doc", "read", "allow") for name in names]
    await process.store.change(PolicyChange(added=tuple(rules)))
    for done, name in enumerate(names, start=1):
        assert await twin.enforcer.delete_user(f"user:{name}")

        assert set(await agreed(process, twin)) == set(rules[done:])
        assert [process.enforcer.enforce(f"user:{one}", "doc", "read") for one in names] == [
            place >= done for place in range(len(names))
        ]


# --- domaines ----------------------------------------------------------------------------------------------------


async def test_the_calls_of_domains_change_exactly_what_they_say(base: Base) -> None:
    process, twin = [await base.process(model="rbac_with_domains") for _ in range(2)]
    enforcer = process.enforcer
    here, there = p("role:r", "ici", "doc", "read", "allow"), p("role:r", "là", "doc", "read", "allow")
    await process.store.change(PolicyChange(added=(here, there)))

    assert await enforcer.add_role_for_user_in_domain("user:ada", "role:r", "ici")
    assert await enforcer.add_role_for_user_in_domain("user:ada", "role:r", "là")
    assert not await enforcer.add_role_for_user_in_domain("user:ada", "role:r", "là")
    await agreed(process, twin)
    assert twin.enforcer.enforce("user:ada", "ici", "doc", "read")
    assert await enforcer.delete_roles_for_user_in_domain("user:ada", "role:r", "ici")

    assert set(await agreed(process, twin)) == {here, there, g("user:ada", "role:r", "là")}
    for one in (process, twin):
        assert not one.enforcer.enforce("user:ada", "ici", "doc", "read")
        assert one.enforcer.enforce("user:ada", "là", "doc", "read")


@pytest.mark.parametrize("designated", [kind for kind in SERVERS if kind != "mongodb"], indirect=True)
async def test_an_exhausted_pool_does_not_stop_who_follows_the_log(base: Base) -> None:
    process, other = await base.process(), await base.process()
    await other.store.change(PolicyChange(added=(p("role:r", "doc", "read", "allow"),)))
    async with AsyncExitStack() as taken:
        database: Any = process.database
        with suppress(SQLAlchemyTimeoutError):
            while True:
                await taken.enter_async_context(database.engine.connect())

        await process.replica.refresh()

        assert process.enforcer.enforce("role:r", "doc", "read")
