"""L'attente d'une révision : bornée en temps, en nombre, et partagée."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fastapi_acl import ACLManager
from fastapi_acl.runtime.composition import Composition
from fastapi_acl.shared.exceptions import RevisionNotReachedError
from fastapi_acl.shared.policy import PolicyChange
from fastapi_acl.shared.sync.revision_gate import MAX_WAITERS, RevisionGate
from tests.storage.conftest import Base, rule
from tests.support.app import config
from tests.support.waits import PATIENCE_SECONDS


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Composition, Composition]]:
    """Deux processus sur une base en mémoire."""
    base = Base("memory")
    yield await base.process(), await base.process()
    await base.close()


async def add(process: Composition, name: str) -> int:
    return await process.store.change(PolicyChange(added=(rule(f"role:{name}", "doc", "read", "allow"),)))


async def test_what_another_process_wrote_is_awaited(pair: tuple[Composition, Composition]) -> None:
    writer, reader = pair
    revision = await add(writer, "r")

    await RevisionGate(reader.replica, 1).reach(revision, "ada")

    assert reader.enforcer.enforce("role:r", "doc", "read")


async def test_a_revision_not_written_yet_is_awaited_then_refused(pair: tuple[Composition, Composition]) -> None:
    writer, reader = pair
    revision = await add(writer, "r")
    waiting = asyncio.create_task(RevisionGate(reader.replica, PATIENCE_SECONDS).reach(revision + 1, "ada"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await add(writer, "s")
    await waiting

    with pytest.raises(RevisionNotReachedError):
        await RevisionGate(reader.replica, 0.3).reach(10**15 - 1, "ada")


async def test_the_places_are_counted_and_given_back(pair: tuple[Composition, Composition]) -> None:
    gate = RevisionGate(pair[1].replica, 1.5)
    asked = [gate.reach(99, f"user{number // 2}") for number in range(MAX_WAITERS)]
    waiting = [asyncio.create_task(one) for one in asked]
    await asyncio.sleep(0.05)

    for account in ("user0", "other"):
        with pytest.raises(RevisionNotReachedError):
            await gate.reach(99, account)
    assert not any(one.done() for one in waiting), "qui n'a pas de place est refusé sans attendre"

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in outcomes} == {RevisionNotReachedError}
    await gate.reach(0, "user0")
    assert gate._waiting.total() == 0


async def test_one_account_has_two_places(pair: tuple[Composition, Composition]) -> None:
    gate = RevisionGate(pair[1].replica, 1.5)
    waiting = [asyncio.create_task(gate.reach(99, "ada")) for _ in range(2)]
    await asyncio.sleep(0.02)

    with pytest.raises(RevisionNotReachedError):
        await gate.reach(99, "ada")
    assert not any(one.done() for one in waiting), "le troisième est refusé sans attendre"

    await asyncio.gather(*waiting, return_exceptions=True)


async def test_many_waiters_share_the_looks(
    pair: tuple[Composition, Composition], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, looks = pair[1].replica, list[int]()
    refresh = reader.refresh

    async def counted() -> None:
        looks.append(1)
        await refresh()

    monkeypatch.setattr(reader, "refresh", counted)
    gate = RevisionGate(reader, 0.3)
    waiting: list[Any] = [gate.reach(99, f"user{number}") for number in range(40)]
    await asyncio.gather(*waiting, return_exceptions=True)

    assert len(looks) <= 7


@pytest.mark.parametrize("milliseconds", [0, 250])
def test_the_wait_is_the_one_that_is_set(milliseconds: int) -> None:
    manager = ACLManager(config(sqlite_uri="sqlite://", revision_wait_ms=milliseconds))

    assert manager._parts.gate._wait_seconds == milliseconds / 1000
