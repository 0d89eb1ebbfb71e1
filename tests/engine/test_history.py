from __future__ import annotations

import io
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from fastapi_acl import ACLManager
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.shared.exceptions import (
    InvalidRequestError,
    LastAdministratorError,
    PermissionDeniedError,
    PolicyUnreadableError,
    RevisionCompactedError,
    RuleNotFoundError,
)
from fastapi_acl.shared.identity import Principal
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.changes import IdempotencyKey
from tests.engine.test_transfer import administration, administrator, batches, same
from tests.support.app import config
from tests.support.effort import effort
from tests.support.rules import stored
from tests.support.waits import until

NOW = timedelta(seconds=-1)
"""Âge d'une compaction qui ne garde rien."""


@pytest.fixture
async def manager(database_settings: dict[str, Any]) -> AsyncIterator[ACLManager]:
    manager = ACLManager(config(**database_settings))
    await manager.initialize()
    await until(lambda: manager.is_ready)
    yield manager
    await manager.close()


def rule(number: int) -> PolicyRule:
    return PolicyRule("p", (f"role:r{number}", "document", "read", "allow"))


def link(user: str) -> PolicyRule:
    return PolicyRule("g", (f"user:{user}", "role:r1"))


async def change(manager: ACLManager, *, add: tuple[PolicyRule, ...] = (), remove: tuple[PolicyRule, ...] = ()) -> int:
    return await manager.get_policy_store().change(PolicyChange(added=add, removed=remove))


async def imported(manager: ACLManager, *numbers: int, replaces: bool = False) -> int:
    text = "".join(f"p, {', '.join(rule(number).values)}\n" for number in numbers)
    text += administration(manager) if replaces else ""
    done = await manager.get_policy_transfer().import_rules(io.StringIO(text), "csv", replaces=replaces)
    return done.revision


async def random_step(manager: ACLManager, rng: random.Random) -> None:
    """Fait un changement au hasard : ajout, retrait, remplacement en place, import."""
    held = [number for number in range(12) if manager.get_policy().holds(rule(number))]
    free = [number for number in range(12) if number not in held]
    kind = rng.choice(["add", "remove", "update", "import", "replace"])
    if kind == "add" and free:
        await change(manager, add=tuple(map(rule, rng.sample(free, min(2, len(free))))))
    elif kind == "remove" and held:
        await change(manager, remove=(rule(rng.choice(held)),))
    elif kind == "update" and held and free:
        swap = PolicyChange(added=(rule(rng.choice(free)),), removed=(rule(rng.choice(held)),), in_place=True)
        await manager.get_policy_store().change(swap)
    elif kind in {"import", "replace"}:
        await imported(manager, *rng.sample(range(12), 3), replaces=kind == "replace" and rng.random() < 0.5)


@pytest.mark.parametrize("seed", range(effort(2, 4)))
async def test_every_revision_is_rebuilt_from_the_log_and_can_be_returned_to(manager: ACLManager, seed: int) -> None:
    rng, history = random.Random(seed), manager.get_policy_history()
    seen = {0: {}, manager.get_replica().revision: await same(manager)}
    for step in range(15):
        await random_step(manager, rng)
        seen[manager.get_replica().revision] = await same(manager)
        if step == 7:
            await history.compact(older_than=NOW)
            kept = manager.get_replica().revision - 1
            seen = {revision: rules for revision, rules in seen.items() if revision >= kept}

    for revision, rules in seen.items():
        assert await history.rules_at(revision) == rules
    for revision in rng.sample(sorted(seen), 4):
        await history.rollback(revision)
        assert list(await same(manager)) == list(seen[revision])


async def test_a_rollback_is_one_more_change_that_keeps_the_places(manager: ACLManager) -> None:
    await change(manager, add=(rule(1), rule(2), rule(3)))
    before, revision = await same(manager), manager.get_replica().revision
    await change(manager, remove=(rule(2),))
    await change(manager, add=(rule(4),))

    done = await manager.get_policy_history().rollback(revision)

    assert done == revision + 3
    assert await same(manager) == before
    last = (await manager.get_policy_history().changes(since=done - 1))[0]
    assert last.payload["rollback_to"] == revision
    assert await manager.get_policy_history().rollback(revision) == done


async def test_a_rollback_whose_numbers_are_taken_still_ends_right(manager: ACLManager) -> None:
    await change(manager, add=(rule(1), rule(2)))
    before, revision = await same(manager), manager.get_replica().revision
    await change(manager, remove=(rule(2),))
    await manager.get_policy_store().change(PolicyChange(added=(rule(2),), removed=(rule(1),), in_place=True))

    await manager.get_policy_history().rollback(revision)

    assert await same(manager) == before


async def test_the_rules_of_a_deleted_account_do_not_come_back(manager: ACLManager) -> None:
    users = manager.get_auth_repository()
    kept, gone = (AuthUser(id=uuid4(), username=name, email=None, hashed_password="x") for name in ("kept", "gone"))
    for user in (kept, gone):
        await users.create_user(user)
    await change(manager, add=(rule(1), link(str(kept.id)), link(str(gone.id))))
    revision = manager.get_replica().revision
    await change(manager, remove=(rule(1), link(str(kept.id)), link(str(gone.id))))
    await users.delete_user(gone.id)

    await manager.get_policy_history().rollback(revision)

    rules = await same(manager)
    assert {rule(1), link(str(kept.id))} <= rules.keys()
    assert link(str(gone.id)) not in rules


async def test_a_rollback_obeys_the_guards(manager: ACLManager) -> None:
    history = manager.get_policy_history()

    with pytest.raises(LastAdministratorError):
        await history.rollback(0, await administrator(manager))
    await change(manager, add=(rule(1),))
    with pytest.raises(PermissionDeniedError):
        await history.rollback(1, Principal(id="nobody"))
    with pytest.raises(InvalidRequestError, match="n’existe pas encore"):
        await history.rollback(99)


async def test_a_rollback_sent_again_is_one_change(manager: ACLManager) -> None:
    revision = await change(manager, add=(rule(1),))
    await change(manager, add=(rule(2),))
    key = IdempotencyKey("k", "d")

    first = await manager.get_policy_history().rollback(revision, key=key)
    await change(manager, add=(rule(3),))
    again = await manager.get_policy_history().rollback(revision, key=key)

    assert again == first
    assert rule(3) in await same(manager)


async def test_a_compaction_keeps_what_the_start_and_living_tokens_need(
    manager: ACLManager, database_settings: dict[str, Any]
) -> None:
    log, revocations = manager._parts.storage.log, manager._parts.replica
    await manager.get_policy_store().change(PolicyChange(added=(rule(1),)))
    async with revocations.writing() as transaction:
        live_until = (await log.append(transaction, "policy_seeded", {}, actor="system")).at + timedelta(minutes=5)
        await log.append(transaction, "session_revoked", {"session_id": "s"}, actor="system", live_until=live_until)
    before = await same(manager)

    removed = await manager.get_policy_history().compact(older_than=NOW)

    kinds = [entry.kind for entry in await manager.get_policy_history().changes(limit=100)]
    assert kinds == ["administrator_created", "model_adopted", "policy_seeded", "session_revoked", "log_compacted"]
    assert removed > 0
    assert await manager.get_policy_history().compact(older_than=timedelta(days=1)) == 0
    other = ACLManager(config(**database_settings))
    await other.initialize()
    await until(lambda: other.is_ready)
    assert await same(other) == before
    with pytest.raises(RevisionCompactedError):
        await other.get_policy_history().rules_at(1)
    await other.close()


async def test_a_process_left_behind_a_compaction_catches_up(
    manager: ACLManager, database_settings: dict[str, Any]
) -> None:
    other = ACLManager(config(**database_settings))
    await other.load()
    await change(manager, add=(rule(1),))
    await manager.get_policy_history().compact(older_than=NOW)
    await change(manager, add=(rule(2),))

    await other._parts.replica.refresh()

    assert await same(other) == await same(manager)
    await other.close()


async def test_compactions_leave_one_snapshot_and_no_import(manager: ACLManager) -> None:
    await imported(manager, 1, 2)
    await manager.get_policy_history().compact(older_than=NOW)
    await imported(manager, 3, replaces=True)
    await manager.get_policy_history().compact(older_than=NOW)
    adapter, log = manager._parts.storage.adapter, manager._parts.storage.log

    async with manager._parts.database.snapshot() as reading:
        head = await log.head(reading)

    assert head.snapshot is not None
    assert next(iter(await stored(adapter, head.snapshot))) == rule(3)
    assert await batches(manager) == []


async def test_a_row_put_aside_stops_blocking_and_stays_in_the_log(
    manager: ACLManager, database_settings: dict[str, Any]
) -> None:
    adapter = manager._parts.storage.adapter
    await change(manager, add=(rule(1),))
    number = (await adapter.last_id()) + 1
    bad = PolicyRule("p", ("role:r1", "document", "read", "DENY"))
    async with manager._parts.database.transaction():
        await adapter.insert_numbered([bad], [number])
    other = ACLManager(config(**database_settings))
    with pytest.raises(PolicyUnreadableError):
        await other.load()

    row = await other.get_quarantine().quarantine(number)

    assert row["v3"] == "DENY"
    assert await same(other) == await same(manager)
    with pytest.raises(RuleNotFoundError):
        await other.get_quarantine().quarantine(number)
    await manager._parts.replica.refresh()
    assert manager.get_replica().revision == other.get_replica().revision
    entry = (await other.get_policy_history().changes(limit=100))[-1]
    assert (entry.kind, entry.payload["row"]["v3"]) == ("row_quarantined", "DENY")
    await other.close()
