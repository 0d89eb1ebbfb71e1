"""La mémoire et la base, quand quelque chose se croise."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_acl import ACLManager
from fastapi_acl.shared.exceptions import ACLException, PolicyUnreadableError
from fastapi_acl.shared.policy import PolicyRule
from tests.engine.test_history import change, imported, rule
from tests.engine.test_transfer import same


def slow_answer(manager: ACLManager, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Retient la réponse d'une validation, déjà faite."""
    database = manager._parts.storage.database
    commit, done, go = database.commit, asyncio.Event(), asyncio.Event()

    async def slow(transaction: Any) -> None:
        await commit(transaction)
        if transaction.recorded and not done.is_set():
            done.set()
            await go.wait()

    monkeypatch.setattr(database, "commit", slow)
    return done, go


async def test_a_late_answer_to_an_import_does_not_undo_what_came_after(
    manager: ACLManager, other: ACLManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change(manager, add=(rule(1),))
    done, go = slow_answer(manager, monkeypatch)
    importing = asyncio.create_task(imported(manager, 2, 3))
    await done.wait()

    await change(other, remove=(rule(1),))
    await manager._parts.replica.refresh()
    go.set()
    await importing
    await manager._parts.replica.refresh()

    await same(manager)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.01])
async def test_a_write_cancelled_twice_is_in_memory_if_it_is_in_the_database(
    manager: ACLManager, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    database = manager._parts.storage.database
    commit, started = database.commit, asyncio.Event()

    async def slow(transaction: Any) -> None:
        started.set()
        await asyncio.sleep(seconds)
        await commit(transaction)
        await asyncio.sleep(seconds)

    monkeypatch.setattr(database, "commit", slow)
    writing = asyncio.create_task(change(manager, add=(rule(1),)))
    await started.wait()

    while not writing.done():
        writing.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await writing

    await asyncio.sleep(0.2)
    monkeypatch.setattr(database, "commit", commit)
    await same(manager)
    await change(manager, add=(rule(2),))


async def test_a_write_cancelled_once_validated_is_in_memory(
    manager: ACLManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, go = slow_answer(manager, monkeypatch)
    writing = asyncio.create_task(change(manager, add=(rule(1),)))
    await done.wait()

    writing.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert rule(1) in await same(manager)


async def test_a_row_put_aside_is_no_longer_in_force_whatever_else_is_unreadable(manager: ACLManager) -> None:
    await change(manager, add=(rule(1),))
    adapter, kept = manager._parts.storage.adapter, await same(manager)
    await adapter.insert([PolicyRule("p", ("role:x", "document", "read", "perhaps"))])

    with pytest.raises(PolicyUnreadableError):
        await manager.get_quarantine().quarantine(kept[rule(1)])

    assert not manager.get_policy().holds(rule(1)) or manager._parts.replica.revision < (await head(manager)).revision


async def head(manager: ACLManager) -> Any:
    replica = manager._parts.replica
    async with manager._parts.database.snapshot() as reading:
        return await replica._log.head(reading)


async def test_a_reload_beside_does_not_close_the_routes_at_the_next_look(
    manager: ACLManager, other: ACLManager
) -> None:
    await change(manager, add=(rule(1),))
    await other._parts.replica.refresh()
    await change(manager, remove=(rule(1),))

    await other.get_enforcer().load_policy()
    await other._parts.replica.refresh()

    assert other._parts.replica.is_loaded


async def test_guards_never_judge_on_a_memory_that_could_not_catch_up(manager: ACLManager, other: ACLManager) -> None:
    await change(manager, add=(rule(1),))
    await other._parts.replica.refresh()
    await change(manager, remove=(rule(1),))
    await other.get_enforcer().load_policy()
    await change(manager, add=(PolicyRule("g", ("role:a", "role:b")),))

    with pytest.raises(ACLException):
        await change(other, add=(PolicyRule("g", ("role:b", "role:a")),))

    await manager._parts.replica.reload()
