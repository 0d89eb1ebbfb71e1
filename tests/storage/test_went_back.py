"""Une base revenue en arrière (sauvegarde restaurée, bascule) : on la suit, sans rien rouvrir au passage."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest

from fastapi_acl.runtime.composition import Composition
from fastapi_acl.shared.database.base import Transaction
from fastapi_acl.shared.exceptions import PolicyUnavailableError, PolicyUnreadableError
from fastapi_acl.shared.identity import SYSTEM
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.changes import POLICY_CHANGED, SESSION_REVOKED, Change
from tests.storage.conftest import Base, agreed, rule
from tests.support.memory import MemoryDatabase, State
from tests.support.observers import hear


def server_of(process: Composition) -> Any:
    database: Any = process.database
    assert isinstance(database, MemoryDatabase)
    return database.server


@pytest.fixture
def designated() -> Base:
    """La base en mémoire : son état entier se garde et se remet d'un geste, comme une sauvegarde."""
    return Base("memory")


async def add(process: Composition, *rules: PolicyRule) -> None:
    await process.store.change(PolicyChange(added=rules))


async def test_one_that_went_back_then_advanced_to_the_same_revision_is_seen(
    base: Base, process: Composition, twin: Composition
) -> None:
    kept: State = server_of(process).state
    await add(process, rule("role:lost", "doc", "read", "allow"))
    await twin.replica.refresh()
    server_of(process).state = kept
    other = await advanced(base, twin, "role:other")

    assert list(await agreed(twin)) == [other]
    assert not twin.enforcer.enforce("role:lost", "doc", "read")


async def advanced(base: Base, twin: Composition, name: str) -> PolicyRule:
    """Fait avancer la base revenue, par un processus qui vient d'y démarrer et ne sait rien de ce qu'elle a perdu."""
    newcomer = await base.process()
    one = rule(name, "doc", "read", "allow")
    await add(newcomer, one)
    assert newcomer.replica.revision >= twin.replica.revision
    return one


async def test_one_that_went_back_then_advanced_beyond_is_seen(
    base: Base, process: Composition, twin: Composition
) -> None:
    kept: State = server_of(process).state
    await add(process, rule("role:lost", "doc", "read", "allow"))
    await twin.replica.refresh()
    server_of(process).state = kept
    others = [await advanced(base, twin, f"role:other{n}") for n in range(3)]

    assert list(await agreed(twin)) == others


async def test_a_writer_sees_it_under_the_lock(base: Base, process: Composition, twin: Composition) -> None:
    kept: State = server_of(process).state
    await add(process, rule("role:lost", "doc", "read", "allow"))
    await twin.replica.refresh()
    server_of(process).state = kept
    other = await advanced(base, twin, "role:other")

    await add(twin, rule("role:new", "doc", "read", "allow"))

    assert list(await agreed(process, twin)) == [other, rule("role:new", "doc", "read", "allow")]


async def test_another_log_is_followed(process: Composition) -> None:
    await add(process, rule("role:r", "doc", "read", "allow"))
    server = server_of(process)
    server.state = replace(server.state, head=replace(server.state.head, log_id=str(uuid4())))

    await agreed(process)
    await add(process, rule("role:s", "doc", "read", "allow"))

    assert len(await agreed(process)) == 2


async def test_nothing_is_decided_until_all_is_read_again(
    process: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: State = server_of(process).state
    await add(process, rule("role:r", "doc", "read", "allow"))
    server_of(process).state = kept

    async def unreadable(*_: Any) -> None:
        process.replica.require_fresh(60)

    monkeypatch.setattr(process.policy, "read", unreadable)
    with pytest.raises(PolicyUnavailableError):
        await process.replica.refresh()
    with pytest.raises(PolicyUnavailableError):
        process.replica.require_fresh(60)
    at, payload = process.replica._at, PolicyChange(added=(rule("role:s", "doc", "read", "allow"),)).as_json()
    assert at is not None
    now = datetime.now(timezone.utc)
    following = Change(revision=at.revision + 1, at=now, actor="s", kind=POLICY_CHANGED, payload=payload)
    assert not process.replica.offer(at, following), "rien ne s'applique à une mémoire que sa base a quittée"

    monkeypatch.undo()
    await process.replica.refresh()
    process.replica.require_fresh(60)


async def test_a_session_revoked_since_the_backup_stays_revoked(process: Composition) -> None:
    await process.replica.refresh()
    kept: State = server_of(process).state
    until = datetime.now(timezone.utc) + timedelta(minutes=5)
    async with process.replica.writing() as transaction:
        payload = {"session_id": "s"}
        await process.replica.record(transaction, SESSION_REVOKED, payload, actor=SYSTEM, live_until=until)
    server_of(process).state = kept

    await process.replica.refresh()

    assert process.replica.revision == 0
    revocations: Any = process.replica._memories[1]
    assert revocations.refuses(user_id="u", session_id="s", session_version=1)


async def test_a_log_whose_entries_were_removed_by_hand_is_not_read_again_and_again(process: Composition) -> None:
    await add(process, rule("role:r", "doc", "read", "allow"))
    await process.replica.refresh()
    server_of(process).state.changes.clear()
    reloads = process.replica.reloads

    for _ in range(3):
        await process.replica.refresh()

    assert process.replica.reloads == reloads
    assert process.enforcer.enforce("role:r", "doc", "read")


@dataclass
class Slow:
    """Une mémoire dont la lecture s'arrête, une fois faite, jusqu'à ce qu'on la relâche."""

    memory: Any
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, transaction: Transaction) -> Any:
        state = await self.memory.read(transaction)
        self.reached.set()
        await self.released.wait()
        return state

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)


def slowed(process: Composition, index: int) -> Slow:
    memories = list(process.replica._memories)
    memories[index] = found = Slow(memories[index])
    process.replica._memories = memories
    return found


async def test_a_reading_begun_before_a_fault_is_not_put_in_service(process: Composition, twin: Composition) -> None:
    slow, replica, one = slowed(process, 0), process.replica, rule("role:late", "doc", "read", "allow")
    reloading = asyncio.create_task(replica.reload())
    await asyncio.sleep(0.1)
    said = hear(twin.replica)
    await add(twin, one)
    before, change = said[0]

    assert not replica.offer(before, replace(change, payload={"illisible": True}))
    slow.released.set()
    await reloading

    assert not replica.is_loaded
    await replica.refresh()
    assert (replica.is_loaded, process.policy.holds(one)) == (True, True)


@pytest.mark.parametrize("how", ["reload", "refresh"])
async def test_a_long_reading_is_as_old_as_its_beginning(process: Composition, how: str) -> None:
    slow = slowed(process, 1)
    process.replica._at = None
    asyncio.get_running_loop().call_later(0.5, slow.released.set)

    await getattr(process.replica, how)()

    assert process.replica.age_seconds >= 0.5


async def test_what_no_one_foresaw_in_a_stored_row_is_told_as_unreadable(
    process: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def misread(*_: Any) -> None:
        raise OverflowError

    monkeypatch.setattr(process.policy, "read", misread)

    with pytest.raises(PolicyUnreadableError):
        await process.replica.reload()


async def test_a_slow_reading_does_not_bring_back_a_rule_revoked_meanwhile(
    process: Composition, twin: Composition
) -> None:
    revoked, said = rule("role:r", "doc", "read", "allow"), hear(process.replica)
    await add(process, revoked)
    await twin.replica.refresh()
    slow = slowed(twin, 0)
    reading = asyncio.create_task(twin.replica.reload())
    await slow.reached.wait()

    await process.store.change(PolicyChange(removed=(revoked,)))
    assert twin.replica.offer(*said[-1])
    slow.released.set()
    await reading

    assert not twin.policy.holds(revoked)
    assert list(await agreed(process, twin)) == []


async def test_an_entry_that_does_not_follow_is_announced_as_such(
    base: Base, process: Composition, twin: Composition
) -> None:
    revoked = rule("role:r", "doc", "read", "allow")
    await add(process, revoked)
    listener = await base.process()
    await twin.replica.refresh()
    await process.store.change(PolicyChange(removed=(revoked,)))
    said = hear(twin.replica)

    assert await twin.model_record.adopt(twin.replica), "twin écrit sans avoir lu ce que process a retiré"

    assert said
    assert not listener.replica.offer(*said[0])
    await listener.replica.refresh()
    assert not listener.policy.holds(revoked)


async def test_it_gets_another_log_whose_old_announcements_revive_nothing(
    base: Base, process: Composition, twin: Composition
) -> None:
    lost = rule("role:lost", "doc", "read", "allow")
    said, kept, known = hear(process.replica), server_of(process).state, process.replica._at
    await add(process, lost)
    await twin.replica.refresh()
    server_of(process).state = kept
    newcomer = await base.process()
    await twin.replica.refresh()

    assert known is not None
    assert server_of(process).state.head.log_id != known.log_id
    for follower in (newcomer, twin, process):
        await follower.replica.refresh()
        assert not any(follower.replica.offer(*one) for one in said)
        assert not follower.policy.holds(lost)


async def test_several_that_see_it_at_once_give_it_one_new_log_and_read_it_once_more(
    process: Composition, twin: Composition
) -> None:
    kept: State = server_of(process).state
    await add(process, rule("role:lost", "doc", "read", "allow"))
    await twin.replica.refresh()
    server_of(process).state = kept
    before = [one.replica.reloads for one in (process, twin)]

    await asyncio.gather(process.replica.refresh(), twin.replica.refresh())
    log_id = server_of(process).state.head.log_id
    for one in (process, twin):
        await one.replica.refresh()

    assert server_of(process).state.head.log_id == log_id
    assert [one.replica.reloads - known for one, known in zip((process, twin), before, strict=True)] == [1, 1]


async def test_nothing_is_decided_while_its_log_cannot_be_renewed(process: Composition) -> None:
    kept: State = server_of(process).state
    await add(process, rule("role:lost", "doc", "read", "allow"))
    server_of(process).state = kept
    renew, broken = process.storage.log.renew, OSError("la base ne s'écrit plus")

    async def refused(_: Transaction) -> None:
        raise broken

    process.storage.log.renew = refused  # type: ignore[method-assign]
    with pytest.raises(OSError, match="ne s'écrit plus"):
        await process.replica.refresh()
    with pytest.raises(PolicyUnavailableError):
        process.replica.require_fresh(60)

    process.storage.log.renew = renew  # type: ignore[method-assign]
    await process.replica.refresh()
    process.replica.require_fresh(60)


async def test_an_announcement_of_another_log_is_not_taken_for_one_already_read(process: Composition) -> None:
    said = hear(process.replica)
    await add(process, rule("role:r", "doc", "read", "allow"))
    ((before, change),) = said

    assert not process.replica.offer(before._replace(log_id="autre"), change)
    assert process.replica.offer(before, change), "le témoin : la sienne, déjà lue, se tait"


async def test_an_announcement_far_older_than_what_was_read_is_not_believed(process: Composition, base: Base) -> None:
    said, kept = hear(process.replica), server_of(process).state
    await add(process, rule("role:lost", "doc", "read", "allow"))
    server_of(process).state = kept
    newcomer, ((before, change),) = await base.process(), said

    assert not newcomer.replica.offer(before, replace(change, at=change.at - timedelta(minutes=2)))
    assert newcomer.replica.offer(before, change), "le témoin : la même, toute fraîche, se croit"
