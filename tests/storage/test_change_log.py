"""Le journal : une seule suite, sur chacun des stockages."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from fastapi_acl.runtime.storage import Storage
from fastapi_acl.shared.database.base import Head
from fastapi_acl.shared.exceptions import TransactionNotOrderedError
from fastapi_acl.shared.sync.changes import (
    ADMIN_CREATED,
    KEPT,
    POLICY_CHANGED,
    POLICY_IMPORTED,
    POLICY_SEEDED,
    ROW_QUARANTINED,
    SESSION_REVOKED,
    Change,
    IdempotencyKey,
)
from tests.storage.conftest import Base
from tests.support.waits import insisted

LATER = timedelta(minutes=5)


async def append(storage: Storage, kind: str = "x", payload: Any = None, **options: Any) -> Change:
    async with storage.database.transaction(log=True) as transaction:
        return await storage.log.append(transaction, kind, payload or {}, **{"actor": "system", **options})


async def since(storage: Storage, revision: int = 0, limit: int = 1_000) -> list[Change]:
    async with storage.database.snapshot() as reading:
        return list(await storage.log.since(reading, revision, limit=limit))


async def head(storage: Storage) -> Head:
    async with storage.database.snapshot() as reading:
        return await storage.log.head(reading)


async def discarded(storage: Storage, up_to: int) -> int:
    async with storage.database.transaction(log=True) as transaction:
        return await storage.log.discard(transaction, up_to)


def now() -> datetime:
    return datetime.now(timezone.utc)


async def test_authors_and_keys_that_differ_by_a_space_or_a_case_are_different(storage: Storage) -> None:
    pairs = [(actor, key) for actor in ("user:a", "user:a ", "user:A") for key in ("k", "k ", "K")]
    written = [await append(storage, actor=actor, key=IdempotencyKey(key, "d")) for actor, key in pairs]

    async with storage.database.snapshot() as reading:
        found = [await storage.log.find(reading, actor, key) for actor, key in pairs]

    assert found == written


async def test_a_new_log_is_empty_and_bears_a_name(storage: Storage, base: Base) -> None:
    first = await head(storage)
    other = base.storage()
    await other.database.migrate()

    assert (first.revision, first.policy_revision, first.rule_id, first.compacted, first.snapshot) == (0, 0, 0, 0, None)
    assert len(first.log_id) == 36
    assert await head(other) == first
    assert await since(storage) == []


async def test_an_entry_comes_back_as_it_was_written(storage: Storage) -> None:
    payload = {"texte": "l’été 😀\n\"'\\%_;--", "nombre": 2**60, "liste": [1, None, True, {"$ne": None}], "vide": ""}
    until = now() + LATER

    written = await append(
        storage, "nature", payload, actor="user:ada", live_until=until, key=IdempotencyKey("clé", "d" * 64)
    )

    assert await since(storage) == [written]
    assert (written.revision, written.actor, written.kind, written.payload) == (1, "user:ada", "nature", payload)
    assert written.live_until == until
    assert abs(written.at - now()) < LATER
    assert written.at.tzinfo is not None


async def test_revisions_are_contiguous_whoever_writes_at_once(storage: Storage, base: Base) -> None:
    other = base.storage()

    async def written_by(one: Storage, kind: str) -> Change:
        return await insisted(lambda: append(one, kind))  # le verrou du journal ne s'attend que deux secondes

    written = await asyncio.gather(*(written_by(one, f"k{n}") for n in range(15) for one in (storage, other)))

    assert sorted(change.revision for change in written) == list(range(1, 31))
    assert await since(storage) == sorted(written, key=lambda change: change.revision)
    assert len({change.change_id for change in written}) == 30


async def test_several_entries_of_a_transaction_follow_one_another(storage: Storage) -> None:
    async with storage.database.transaction(log=True) as transaction:
        written = [await storage.log.append(transaction, kind, {}, actor="system") for kind in "abc"]
        assert transaction.recorded == 3

    assert [change.revision for change in written] == [1, 2, 3]
    assert [change.kind for change in await since(storage)] == ["a", "b", "c"]


async def test_a_reader_never_sees_an_entry_without_those_before(storage: Storage, base: Base) -> None:
    other, seen = base.storage(), list[list[int]]()

    async def watch() -> None:
        while not seen or len(seen[-1]) < 20:
            seen.append([change.revision for change in await since(other)])
            await asyncio.sleep(0)

    await asyncio.gather(watch(), *(append(storage) for _ in range(20)))

    assert all(revisions == list(range(1, len(revisions) + 1)) for revisions in seen)


@pytest.mark.parametrize("log", [True, False])
async def test_an_abandoned_transaction_uses_no_revision(storage: Storage, log: bool) -> None:
    with pytest.raises(ZeroDivisionError):
        async with storage.database.transaction(log=True) as transaction:
            await storage.log.append(transaction, "perdue", {}, actor="system")
            async with storage.database.transaction(log=log):
                _ = 1 / 0

    assert (await append(storage)).revision == 1


async def test_only_an_ordered_transaction_may_log(storage: Storage) -> None:
    for opened in (storage.database.transaction, storage.database.snapshot):
        async with opened() as transaction:
            with pytest.raises(TransactionNotOrderedError):
                await storage.log.append(transaction, "x", {}, actor="system")

    assert (await head(storage)).revision == 0


async def test_entries_are_read_after_a_revision_and_no_more_than_asked(storage: Storage) -> None:
    written = [await append(storage, f"k{n}") for n in range(6)]

    assert await since(storage, 0, 3) == written[:3]
    assert await since(storage, 3, 2) == written[3:5]
    assert await since(storage, 5) == written[5:]
    assert await since(storage, 6) == []
    assert await since(storage, 600) == []


async def test_the_last_entry_of_a_kind_is_found(storage: Storage) -> None:
    for number in range(3):
        await append(storage, "a", {"n": number})
        await append(storage, "b", {"n": number})

    async with storage.database.snapshot() as reading:
        last, none = await storage.log.last(reading, "a"), await storage.log.last(reading, "A")

    assert last is not None
    assert (last.revision, last.payload) == (5, {"n": 2})
    assert none is None


async def test_an_entry_is_found_by_the_key_of_its_author(storage: Storage) -> None:
    mine = await append(storage, actor="user:ada", key=IdempotencyKey("k", "1"))
    theirs = await append(storage, actor="user:bob", key=IdempotencyKey("k", "2"))
    await append(storage, actor="user:ada")

    async with storage.database.snapshot() as reading:
        found = [await storage.log.find(reading, actor, "k") for actor in ("user:ada", "user:bob", "user:eve")]
        looks_alike = [
            await storage.log.find(reading, actor, key)
            for actor, key in [("user:ada", "K"), ("user:Ada", "k"), ("user:adà", "k"), ("user:ad", "k")]
        ]

    assert found == [mine, theirs, None]
    assert looks_alike == [None] * 4


async def test_an_author_is_not_one_whose_name_ends_with_a_space(
    storage: Storage,
) -> None:
    await append(storage, actor="user:ada", key=IdempotencyKey("k", "1"))

    async with storage.database.snapshot() as reading:
        assert await storage.log.find(reading, "user:ada ", "k") is None


async def test_a_key_serves_its_author_once(storage: Storage) -> None:
    await append(storage, actor="user:ada", key=IdempotencyKey("k", "1"))

    outcomes = await asyncio.gather(
        append(storage, actor="user:ada", key=IdempotencyKey("k", "1")), return_exceptions=True
    )

    assert isinstance(outcomes[0], Exception)
    assert [change.revision for change in await since(storage)] == [1]
    assert (await append(storage, actor="user:ada")).revision == 2


async def test_entries_without_a_key_do_not_collide(storage: Storage) -> None:
    await append(storage, actor="user:ada")
    await append(storage, actor="user:ada")

    assert len(await since(storage)) == 2


async def test_an_entry_is_held_only_if_it_is_that_very_one(storage: Storage) -> None:
    written = await append(storage)
    twin = Change(revision=1, at=written.at, actor="system", kind="x", payload={})

    async with storage.database.snapshot() as reading:
        held, confused = await storage.log.holds(reading, written), await storage.log.holds(reading, twin)

    assert (held, confused) == (True, False)


async def test_a_witness_is_that_of_its_entry_and_goes_with_it(storage: Storage) -> None:
    written = await append(storage)
    found = [await witness(storage, revision) for revision in (0, 1, 2)]
    assert await discarded(storage, 1) == 1

    assert [*found, await witness(storage, 1)] == [None, written.change_id, None, None]


async def witness(storage: Storage, revision: int) -> str | None:
    async with storage.database.snapshot() as reading:
        return await storage.log.witness(reading, revision)


async def test_only_entries_that_concern_living_tokens_are_live(storage: Storage) -> None:
    await append(storage, "sans")
    recent = await append(storage, "morte depuis peu", live_until=now() - timedelta(microseconds=1))
    first = await append(storage, "vive", live_until=now() + LATER)
    second = await append(storage, "vive", live_until=now() + timedelta(seconds=30))
    await append(storage, "morte", live_until=now() - timedelta(minutes=2))

    async with storage.database.snapshot() as reading:
        assert list(await storage.log.live(reading, margin=timedelta())) == [first, second]
        assert list(await storage.log.live(reading, margin=timedelta(minutes=1))) == [recent, first, second]


async def test_an_instant_names_the_last_revision_before_it(storage: Storage) -> None:
    assert await revision_at(storage, now()) == 0
    first = await append(storage)
    second = await append(storage)

    assert await revision_at(storage, first.at) == 0
    assert await revision_at(storage, first.at + timedelta(microseconds=1)) in {1, 2}
    assert await revision_at(storage, second.at) == (1 if second.at > first.at else 0)
    assert await revision_at(storage, second.at + LATER) == 2


async def revision_at(storage: Storage, instant: datetime) -> int:
    async with storage.database.snapshot() as reading:
        return await storage.log.revision_at(reading, instant)


async def test_what_is_discarded_is_gone_and_what_is_needed_stays(storage: Storage) -> None:
    kinds = [("a", None), (ADMIN_CREATED, None), (POLICY_SEEDED, None), (SESSION_REVOKED, LATER - KEPT)]
    for kind, life in [*kinds, (SESSION_REVOKED, -KEPT - LATER), ("b", None), ("c", None)]:
        await append(storage, kind, {"session_id": "s"}, live_until=now() + life if life else None)

    assert await discarded(storage, 6) == 3
    assert [change.kind for change in await since(storage)] == [ADMIN_CREATED, POLICY_SEEDED, SESSION_REVOKED, "c"]
    assert await discarded(storage, 6) == 0
    assert (await append(storage)).revision == 8


async def test_a_discarded_key_may_serve_again(storage: Storage) -> None:
    await append(storage, actor="user:ada", key=IdempotencyKey("k", "1"))
    await discarded(storage, 1)

    assert (await append(storage, actor="user:ada", key=IdempotencyKey("k", "2"))).revision == 2


@pytest.mark.parametrize(
    ("kind", "moves"),
    [(POLICY_CHANGED, True), (POLICY_IMPORTED, True), (ROW_QUARANTINED, True), (SESSION_REVOKED, False), ("x", False)],
)
async def test_only_changes_of_rules_move_the_policy_revision(storage: Storage, kind: str, moves: bool) -> None:
    await append(storage, POLICY_CHANGED)
    await append(storage, kind)

    found = await head(storage)

    assert (found.revision, found.policy_revision) == (2, 2 if moves else 1)


async def test_the_head_is_kept_whole(storage: Storage) -> None:
    async with storage.database.transaction(log=True) as transaction:
        transaction.compact(0, "lot")
        _ = await storage.adapter.reserve(transaction, 7)
        await storage.log.append(transaction, POLICY_CHANGED, {}, actor="system")

    found = await head(storage)

    assert (found.revision, found.policy_revision, found.rule_id, found.snapshot) == (1, 1, 7, "lot")


async def test_a_reading_is_of_one_instant(storage: Storage, base: Base) -> None:
    other = base.storage()
    await append(storage)
    async with storage.database.snapshot() as reading:
        before = await storage.log.head(reading)
        await append(other, "ailleurs")
        after = await storage.log.head(reading)
        entries = await storage.log.since(reading, 0, limit=9)

    assert before == after
    assert [change.kind for change in entries] == ["x"]
    assert (await head(storage)).revision == 2


async def test_a_writer_waits_for_the_one_before(storage: Storage, base: Base) -> None:
    other, order = base.storage(), list[str]()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with storage.database.transaction(log=True) as transaction:
            await storage.log.append(transaction, "premier", {}, actor="system")
            entered.set()
            await leave.wait()
            order.append("premier")

    async def second() -> None:
        await entered.wait()
        asyncio.get_running_loop().call_later(0.1, leave.set)
        order.append(str((await append(other, "second")).revision))

    await asyncio.gather(first(), second())

    assert order == ["premier", "2"]
