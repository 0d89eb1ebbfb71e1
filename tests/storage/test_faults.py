"""Les écritures de l'interface de Casbin, coupées à chaque morceau qu'elles envoient : la mémoire est la base.

Quelques écritures et quelques coupures d'ordinaire ; toutes, partout, avec `ACL_TEST_FULL=1`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from fastapi_acl.engine.casbin.enforcer import PolicyEnforcer
from fastapi_acl.runtime.composition import Composition, compose
from fastapi_acl.shared.exceptions import DatabaseUnavailableError
from fastapi_acl.shared.identity import SYSTEM
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.changes import IdempotencyKey
from tests.conftest import DATABASES
from tests.support.app import config
from tests.support.effort import IS_FULL, effort
from tests.support.proxy import FaultProxy, before
from tests.support.rules import stored
from tests.support.waits import PATIENCE_SECONDS

SERVERS = [kind for kind in ("postgresql", "mysql", "mongodb") if kind in DATABASES]
READ, WRITE = ["role:r", "document", "read", "allow"], ["role:r", "document", "write", "allow"]
OTHER = ["role:s", "document", "read", "allow"]
ADA = ["user:ada", "role:r"]

Mutator = Callable[[PolicyEnforcer], Awaitable[Any]]

MUTATORS: dict[str, Mutator] = {
    "add_policy": lambda e: e.add_policy(*OTHER),
    "add_policies": lambda e: e.add_policies([OTHER, ["role:t", *OTHER[1:]]]),
    "add_grouping_policy": lambda e: e.add_grouping_policy("user:bob", "role:r"),
    "add_grouping_policies": lambda e: e.add_grouping_policies([["user:bob", "role:r"], ["user:eve", "role:r"]]),
    "add_role_for_user": lambda e: e.add_role_for_user("user:bob", "role:r"),
    "add_permission_for_user": lambda e: e.add_permission_for_user("role:s", *OTHER[1:]),
    "remove_policy": lambda e: e.remove_policy(*READ),
    "remove_policies": lambda e: e.remove_policies([READ, WRITE]),
    "remove_filtered_policy": lambda e: e.remove_filtered_policy(0, "role:r"),
    "remove_grouping_policy": lambda e: e.remove_grouping_policy(*ADA),
    "remove_filtered_grouping_policy": lambda e: e.remove_filtered_grouping_policy(1, "role:r"),
    "update_policy": lambda e: e.update_policy(READ, OTHER),
    "update_policies": lambda e: e.update_policies([READ, WRITE], [OTHER, ["role:t", *OTHER[1:]]]),
    "update_filtered_policies": lambda e: e.update_filtered_policies([OTHER], 0, "role:r"),
    "delete_role_for_user": lambda e: e.delete_role_for_user(*ADA),
    "delete_roles_for_user": lambda e: e.delete_roles_for_user("user:ada"),
    "delete_user": lambda e: e.delete_user("user:ada"),
    "delete_role": lambda e: e.delete_role("role:r"),
    "delete_permission": lambda e: e.delete_permission("document", "read"),
    "delete_permissions_for_user": lambda e: e.delete_permissions_for_user("role:r"),
}


SAMPLED = effort(["add_policies", "remove_filtered_policy", "update_policy", "delete_role"], [*MUTATORS])


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Une sorte de serveur, et l'adresse d'une base vide."""
    return request.param, request.getfixturevalue(f"{request.param}_uri")


@pytest.fixture
async def faulty(server: tuple[str, str]) -> AsyncIterator[tuple[Composition, FaultProxy]]:
    """Un processus dont la base est derrière un mandataire."""
    kind, direct = server
    async with before(direct) as (uri, proxy):
        process = compose(config(create_default_admin=False, database_type=kind, **{f"{kind}_uri": uri}))
        await process.database.migrate()
        await process.replica.refresh()
        yield process, proxy
        await process.database.close()


async def start_over(process: Composition) -> None:
    """Remet les règles de départ."""
    rules = process.policy.rules
    wanted = [PolicyRule.of("p", READ), PolicyRule.of("p", WRITE), PolicyRule.of("g", ADA)]
    change = PolicyChange(
        added=tuple(rule for rule in wanted if rule not in rules),
        removed=tuple(rule for rule in rules if rule not in wanted),
    )
    if change:
        await process.store.change(change)


async def same(process: Composition) -> dict[PolicyRule, int]:
    """Rend les règles, dont la mémoire, la base et le journal seul disent la même chose."""
    await eventually(process.replica.refresh)
    kept = await stored(process.storage.adapter)
    rules = process.policy.rules
    assert dict(zip(rules, process.policy.numbers(rules), strict=True)) == kept
    assert await process.history.rules_at(process.replica.revision) == kept
    return kept


async def eventually(work: Callable[[], Awaitable[Any]]) -> Any:
    """Refait un travail tant que la base ne répond pas."""
    for _ in range(600):
        try:
            return await work()
        except DatabaseUnavailableError:  # noqa: PERF203 - c'est l'essai qui se répète
            await asyncio.sleep(0.1)
    return await work()


async def attempt(process: Composition, mutate: Mutator) -> str:
    try:
        await asyncio.wait_for(mutate(process.enforcer), PATIENCE_SECONDS)
    except DatabaseUnavailableError:
        return "failed"
    return "done"


def fault_points(chunks: int, seed: str) -> list[tuple[int, bool]]:
    """Rend où couper, avant ou après chaque morceau : partout si ACL_TEST_FULL=1, sinon la fin et deux au hasard."""
    everywhere = [(point, forwarded) for point in range(1, chunks + 1) for forwarded in (False, True)]
    if IS_FULL:
        return everywhere
    chosen = random.Random(seed).sample(everywhere[:-4], min(2, max(0, len(everywhere) - 4)))
    return chosen + everywhere[-4:]


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLED)
async def test_a_write_cut_anywhere_is_whole_or_absent_and_a_retry_ends_right(
    faulty: tuple[Composition, FaultProxy], name: str
) -> None:
    process, proxy = faulty
    await start_over(process)
    initial = set(await same(process))
    proxy.arm(0, forwarded=False)
    assert await attempt(process, MUTATORS[name]) == "done"
    points, final = proxy.chunks, set(await same(process))
    assert final != initial

    for point, forwarded in fault_points(points, name):
        await eventually(lambda: start_over(process))
        proxy.arm(point, forwarded=forwarded)
        outcome = await attempt(process, MUTATORS[name])
        proxy.arm(0, forwarded=False)

        found = set(await same(process))
        assert found in ({"done": [final], "failed": [initial, final]}[outcome]), (point, forwarded, outcome)
        if found == initial:
            await eventually(lambda: attempt(process, MUTATORS[name]))
        assert set(await same(process)) == final


async def test_an_answer_lost_after_the_commit_is_a_success_and_one_change(
    faulty: tuple[Composition, FaultProxy],
) -> None:
    process, proxy = faulty
    rule = PolicyRule.of("p", READ)
    proxy.arm(0, forwarded=False)
    await process.store.change(PolicyChange(added=(rule,)))
    await process.store.change(PolicyChange(removed=(rule,)))
    points = proxy.chunks // 2

    for point in range(1, points + 1):
        revision = process.replica.revision
        key = IdempotencyKey(f"k{point}", "d")
        proxy.arm(point, forwarded=True)
        try:
            await process.store.change(PolicyChange(added=(rule,)), SYSTEM, key=key)
        except DatabaseUnavailableError:
            await eventually(process.replica.refresh)
            assert process.replica.revision == revision, "ce qui se dit échoué n'a rien changé"
        proxy.arm(0, forwarded=False)
        again = await eventually(lambda: process.store.change(PolicyChange(added=(rule,)), SYSTEM, key=key))  # noqa: B023

        assert again == revision + 1
        assert rule in await same(process)
        await process.store.change(PolicyChange(removed=(rule,)))


@pytest.mark.slow
async def test_a_stalled_server_does_not_hold_a_write_for_ever(faulty: tuple[Composition, FaultProxy]) -> None:
    process, proxy = faulty
    await start_over(process)
    proxy.stalls = True

    with pytest.raises(DatabaseUnavailableError):
        await asyncio.wait_for(process.enforcer.add_policy(*OTHER), PATIENCE_SECONDS)

    proxy.stalls = False
    proxy.reset()
    assert PolicyRule.of("p", OTHER) not in await same(process)


async def test_a_refused_connection_is_an_outage_that_heals(faulty: tuple[Composition, FaultProxy]) -> None:
    process, proxy = faulty
    await start_over(process)
    proxy.refuses = True
    proxy.reset()

    with pytest.raises(DatabaseUnavailableError):
        await asyncio.wait_for(process.enforcer.add_policy(*OTHER), PATIENCE_SECONDS)

    proxy.refuses = False
    assert await eventually(lambda: process.enforcer.add_policy(*OTHER))
    assert PolicyRule.of("p", OTHER) in await same(process)
