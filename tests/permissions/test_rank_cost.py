"""Ce que coûte la garde du rang : un travail par nom et par accord, jamais par couple, compté et non chronométré."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import product

import pytest

from fastapi_acl import PolicyChange, PolicyRule
from fastapi_acl.engine.writing.comparison import Comparison, Power
from fastapi_acl.engine.writing.losses import GrantIndex
from fastapi_acl.shared.identity import SYSTEM, Principal
from tests.permissions.test_bounded_guard import counted_calls, turning
from tests.support.app import Client, protected

MEMBERS, DENIALS = 200, 100
WRITES = ("acl.rules", "write", "allow")


async def crowd(client: Client, members: int, *, own: bool) -> Principal:
    """Écrit un rôle qui administre les comptes, ses membres, et un auteur qui ne tient que les règles."""
    bob = await client.newcomer("bob")
    rules = [PolicyRule("p", ("role:adm", "acl.users", "write", "allow"))]
    rules += [PolicyRule("g", (f"user:a{n}", "role:adm")) for n in range(members)]
    rules += [PolicyRule("p", (f"user:a{n}", "page", f"a{n}", "allow")) for n in range(members) if own]
    rules += [
        PolicyRule("p", (f"user:{bob.id}", *WRITES)),
        PolicyRule("p", ("role:adm", "document:*", "read", "allow")),
    ]
    rules += [PolicyRule("p", ("role:adm", f"document:{n}", "read", "allow")) for n in range(DENIALS)]
    await client.manager.get_policy_store().change(PolicyChange(tuple(rules)), SYSTEM)
    return Principal(id=bob.id)


def denials(count: int) -> PolicyChange:
    return PolicyChange(tuple(PolicyRule("p", ("role:adm", f"other{n}", "read", "deny")) for n in range(count)))


def removals(count: int) -> PolicyChange:
    rules = (PolicyRule("p", ("role:adm", f"document:{n}", "read", "allow")) for n in range(count))
    return PolicyChange(removed=tuple(rules))


async def turns_of(client: Client, change: PolicyChange, actor: Principal) -> list[int]:
    """Compte les appels de chaque tour de la garde."""
    store = client.manager.get_policy_store()
    with counted_calls() as turns:
        watching = asyncio.create_task(turning(turns))
        await store.guards._check_each(PolicyChange(), change, actor)
        watching.cancel()
    found: list[int] = turns
    return found


@pytest.mark.parametrize("own", [False, True], ids=["membres semblables", "chacun ses règles"])
@pytest.mark.parametrize("build", [denials, removals])
async def test_twice_the_members_and_twice_the_rules_cost_at_most_twice(
    sqlite_uri: str, *, build: Callable[[int], PolicyChange], own: bool
) -> None:
    async with protected(sqlite_uri=sqlite_uri) as client:
        actor = await crowd(client, MEMBERS, own=own)
        few = sum(await turns_of(client, build(DENIALS // 2), actor))
        links = tuple(PolicyRule("g", (f"user:b{n}", "role:adm")) for n in range(MEMBERS))
        await client.manager.get_policy_store().change(PolicyChange(links), SYSTEM)
        turns = await turns_of(client, build(DENIALS), actor)

    assert sum(turns) < 2.5 * few, "le produit coûterait quatre fois plus"
    assert max(turns) < 20_000, "ce qui se fait d'un trait ne dépend pas du nombre de membres"


async def test_what_a_crowd_holds_is_read_once_per_name(sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with protected(sqlite_uri=sqlite_uri) as client:
        actor, read = await crowd(client, MEMBERS, own=True), list[PolicyRule]()
        grant = Comparison.grant

        def counted(self: Comparison, rule: PolicyRule) -> Power:
            read.append(rule)
            return grant(self, rule)

        monkeypatch.setattr(Comparison, "grant", counted)
        await client.manager.get_policy_store().change(denials(DENIALS), actor)

    assert len(read) < 4 * (MEMBERS + 2 * DENIALS)


async def test_the_index_finds_what_a_comparison_of_each_pair_would(sqlite_uri: str) -> None:
    texts = ["*", "a", "a:*", "a:b", "a:b:*", "a:b:c", "a:", "ab", ":", ":*", "b:*", "a::*", "a::"]
    grants = [Power((("obj", obj), ("act", act)), "*", allows=True) for obj, act in product(texts, texts)]
    async with protected(sqlite_uri=sqlite_uri) as client:
        comparison = Comparison.over(client.manager.get_policy())
        for overlapping, compare in ((True, comparison.overlaps), (False, comparison.covers)):
            index = GrantIndex(comparison, overlapping=overlapping)
            for grant in grants:
                index.add(grant)
            for held in grants:
                assert index.list_touched(held) == {asked for asked in grants if compare(held, asked)}
