from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import asyncpg
import pytest

from fastapi_acl import ACLManager
from fastapi_acl.engine.writing.transfer import STAGED, Imported
from fastapi_acl.shared.exceptions import (
    EscalationRefusedError,
    IdempotencyKeyReusedError,
    InvalidImportError,
    LastAdministratorError,
    PermissionDeniedError,
)
from fastapi_acl.shared.identity import Principal
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.changes import IdempotencyKey
from tests.support.app import config
from tests.support.effort import effort
from tests.support.rules import stored
from tests.support.waits import until

READ = PolicyRule("p", ("role:reader", "document", "read", "allow"))


@pytest.fixture
async def manager(database_settings: dict[str, Any]) -> AsyncIterator[ACLManager]:
    manager = ACLManager(config(**database_settings))
    await manager.initialize()
    await until(lambda: manager.is_ready)
    yield manager
    await manager.close()


async def imported(manager: ACLManager, text: str, form: Any = "csv", **options: Any) -> Imported:
    return await manager.get_policy_transfer().import_rules(io.StringIO(text, newline=""), form, **options)


async def exported(manager: ACLManager, form: Any) -> str:
    return "".join([part async for part in manager.get_policy_transfer().export_rules(form)])


async def same(manager: ACLManager) -> dict[PolicyRule, int]:
    """Rend les règles, dont la mémoire et la base disent la même chose, numéros compris."""
    enforcer = manager.get_enforcer()
    kept = await stored(manager._parts.storage.adapter)
    assert dict(zip(enforcer.policy.rules, enforcer.policy.numbers(enforcer.policy.rules), strict=True)) == kept
    return kept


def administration(manager: ACLManager) -> str:
    """Rend les lignes qui font l'administrateur, sans lesquelles tout remplacement est refusé."""
    rules = [rule for rule in manager.get_policy().rules if "role:admin" in rule.values]
    return "".join(f"{rule.ptype}, {', '.join(rule.values)}\n" for rule in rules)


async def batches(manager: ACLManager) -> list[str]:
    return await manager._parts.storage.adapter.list_abandoned(datetime.now(timezone.utc) + timedelta(days=1))


async def administrator(manager: ACLManager) -> Principal:
    account = await manager.get_auth_repository().get_by_username("admin")
    return Principal(id=str(account.id))


def many(count: int) -> str:
    return "".join(f"p, role:r{index}, document:{index}, read, allow\n" for index in range(count))


async def test_an_import_adds_what_is_missing_in_one_change(manager: ACLManager) -> None:
    await manager.get_policy_store().change(PolicyChange(added=(READ,)))
    before = await same(manager)
    seen: list[int] = []

    done = await imported(manager, f"p, {', '.join(READ.values)}\n" + many(2 * STAGED) + many(3), progress=seen.append)

    assert done == Imported(manager.get_replica().revision, 2 * STAGED + 4, 2 * STAGED)
    assert seen == [STAGED, 2 * STAGED, 2 * STAGED + 4]
    after = await same(manager)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2 * STAGED
    assert list(after) == [*before, *list(after)[len(before) :]]
    assert (await manager.get_policy_history().changes(since=done.revision - 1))[0].kind == "policy_imported"


async def test_an_import_may_take_the_place_of_every_rule(manager: ACLManager) -> None:
    kept = administration(manager)
    await manager.get_policy_store().change(PolicyChange(added=(READ,)))

    done = await imported(manager, many(3) + kept, replaces=True)

    assert done.added == 5
    rules = list(await same(manager))
    assert rules[:3] == [PolicyRule("p", (f"role:r{n}", f"document:{n}", "read", "allow")) for n in range(3)]
    assert len(rules) == 5


async def test_an_import_that_adds_nothing_is_no_change(manager: ACLManager) -> None:
    await imported(manager, many(3))

    done = await imported(manager, many(3))

    assert (done.revision, done.added) == (manager.get_replica().revision, 0)
    assert await imported(manager, "") == Imported(done.revision, 0, 0)
    assert await batches(manager) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("p, role:x, document", "attend 4 valeurs"),
        ("zz, a", "type de règle inconnu"),
        ("p, mallory, document, read, allow", "sujet"),
        ('p, "role:x', "CSV"),
        ("p, role:x, " + "d" * 251 + ", read, allow", "250"),
    ],
)
async def test_a_bad_line_is_named_and_nothing_is_changed(manager: ACLManager, line: str, reason: str) -> None:
    before, revision = await same(manager), manager.get_replica().revision

    with pytest.raises(InvalidImportError, match=rf"^Ligne {STAGED + 2} : .*{reason}"):
        await imported(manager, many(STAGED + 1) + line + "\n" + many(2))

    assert (await same(manager), manager.get_replica().revision) == (before, revision)
    assert await batches(manager) == []


@pytest.mark.parametrize(
    "links", ["g, role:a, role:b\ng, role:b, role:a\n", "".join(f"g, role:l{n}, role:l{n + 1}\n" for n in range(10))]
)
async def test_a_cycle_or_too_long_a_chain_is_refused(manager: ACLManager, links: str) -> None:
    before = await same(manager)

    with pytest.raises(InvalidImportError, match=rf"^Ligne {2 + links.count('g,')} : "):
        await imported(manager, many(2) + links + "g, role:l0, role:other\n")

    assert await same(manager) == before
    assert await batches(manager) == []


async def test_a_cycle_with_a_rule_already_there_is_refused(manager: ACLManager) -> None:
    await manager.get_policy_store().change(PolicyChange(added=(PolicyRule("g", ("role:a", "role:b")),)))

    with pytest.raises(InvalidImportError, match=r"^Ligne 3 : .*cycle"):
        await imported(manager, "g, role:c, role:b\np, role:b, x, read, allow\ng, role:b, role:a\n")
    with pytest.raises(InvalidImportError, match=r"^Ligne 2 : .*cycle"):
        await imported(
            manager,
            '[{"ptype": "g", "values": ["role:x", "role:a"]},\n{"ptype": "g", "values": ["role:b", "role:a"]}]',
            "json",
        )


async def test_what_is_exported_is_what_is_imported(manager: ACLManager) -> None:
    odd = ("p", ("role:x", ' bords "et", virgules ', "read", "allow"))
    await manager.get_policy_store().change(PolicyChange(added=(READ, PolicyRule(*odd))))
    before = list(await same(manager))
    for form in ("csv", "json"):
        text = await exported(manager, form)

        await imported(manager, text, form, replaces=True)

        assert list(await same(manager)) == before
        assert await exported(manager, form) == text


async def test_an_import_asks_for_the_right_to_write_every_rule(manager: ACLManager) -> None:
    with pytest.raises(PermissionDeniedError):
        await imported(manager, many(1), actor=Principal(id="nobody"))

    assert await batches(manager) == []


async def test_who_writes_rules_without_holding_everything_imports_none(manager: ACLManager) -> None:
    mine = PolicyRule("p", ("user:ada", "acl.rules", "write", "allow"))
    await manager.get_policy_store().change(PolicyChange(added=(mine,)))
    before = await same(manager)

    for replaces in (False, True):
        text = administration(manager) + "p, user:ada, *, *, allow\n"
        with pytest.raises(EscalationRefusedError):
            await imported(manager, text, actor=Principal(id="ada"), replaces=replaces)

    assert await same(manager) == before
    assert await batches(manager) == []


async def test_an_import_cannot_remove_the_last_administrator(manager: ACLManager) -> None:
    before = await same(manager)
    actor = await administrator(manager)

    with pytest.raises(LastAdministratorError):
        await imported(manager, many(1), actor=actor, replaces=True)
    with pytest.raises(LastAdministratorError):
        await imported(manager, "p, role:admin, *, *, deny\n", actor=actor)

    assert await same(manager) == before
    kept = await exported(manager, "csv")
    assert (await imported(manager, kept + many(1), actor=actor, replaces=True)).added == len(before) + 1


async def test_the_same_import_sent_again_is_one_change(manager: ACLManager) -> None:
    key = IdempotencyKey("k", "d")
    first = await imported(manager, many(2), key=key)

    again = await imported(manager, many(2), key=key, replaces=True)

    assert again.revision == first.revision == manager.get_replica().revision
    with pytest.raises(IdempotencyKeyReusedError):
        await imported(manager, many(2), key=IdempotencyKey("k", "autre"))
    assert await batches(manager) == []


async def test_a_change_made_while_an_import_is_prepared_is_kept(
    manager: ACLManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = manager.get_policy_transfer()
    checked = type(transfer)._prepare_unlocked

    async def slow(*arguments: Any) -> Any:
        result = await checked(*arguments)
        await manager.get_policy_store().change(PolicyChange(added=(READ,)))
        return result

    monkeypatch.setattr(type(transfer), "_prepare_unlocked", slow)

    await imported(manager, many(5))

    rules = await same(manager)
    assert READ in rules
    assert len([rule for rule in rules if rule.values[0].startswith("role:r") and rule != READ]) == 5


async def test_another_process_sees_an_import(manager: ACLManager, database_settings: dict[str, Any]) -> None:
    other = ACLManager(config(**database_settings))
    await other.load()

    await imported(manager, many(5))
    await other._parts.replica.refresh()

    assert await same(other) == await same(manager)
    await other.close()


async def test_a_cancelled_import_leaves_nothing(manager: ACLManager) -> None:
    before = await same(manager)
    for wait in range(0, 12, effort(3, 1)):
        task = asyncio.create_task(imported(manager, many(STAGED)))
        await asyncio.sleep(wait / 20)
        task.cancel()
        done = await asyncio.gather(task, return_exceptions=True)

        after = await same(manager)
        assert after == before or isinstance(done[0], (Imported, asyncio.CancelledError))
        assert len(after) in {len(before), len(before) + STAGED}
        assert await batches(manager) == []


async def test_an_abandoned_batch_is_swept_by_a_later_import(
    manager: ACLManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = manager._parts.storage.adapter
    await adapter.open_batch("mort", "import")
    await adapter.stage("mort", [(1, READ)])
    monkeypatch.setattr("fastapi_acl.engine.writing.transfer.ABANDONED_AFTER", timedelta(0))

    await imported(manager, many(1))

    assert await batches(manager) == []
    assert await stored(adapter, "mort") == {}


async def test_an_import_under_way_is_not_swept_by_another(manager: ACLManager) -> None:
    transfer, adapter = manager.get_policy_transfer(), manager._parts.storage.adapter
    async with transfer.open_batch() as batch_id:
        await adapter.stage(batch_id, [(1, READ)])

        await imported(manager, many(1))

        assert await stored(adapter, batch_id) == {READ: 1}
        await adapter.drop(batch_id)


async def test_a_batch_that_the_log_names_is_not_dropped_by_a_late_cancellation(
    manager: ACLManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = type(manager.get_policy_transfer())
    publish = transfer.publish

    async def lost(*arguments: Any) -> Any:
        await publish(*arguments)
        raise asyncio.CancelledError

    monkeypatch.setattr(transfer, "publish", lost)

    with pytest.raises(asyncio.CancelledError):
        await imported(manager, many(3))

    revision = manager.get_replica().revision
    assert await manager.get_policy_history().rules_at(revision) == await same(manager)


async def test_an_import_into_a_table_just_emptied_and_vacuumed_does_not_read_it_for_each_rule(
    postgresql_uri: str,
) -> None:
    manager = ACLManager(config(database_type="postgresql", postgresql_uri=postgresql_uri, create_default_admin=False))
    await manager.load()
    store, transfer, size = manager.get_policy_store(), manager.get_policy_transfer(), 5_000
    connection = await asyncpg.connect(postgresql_uri)
    for name in ("first", "second"):
        await store.write(lambda: PolicyChange(removed=manager.get_policy().rules))
        await connection.execute("VACUUM ANALYZE")
        text = "".join(f"p, role:{name}{number}, document, read, allow\n" for number in range(size))
        await transfer.import_rules(io.StringIO(text), "csv")
    await manager.close()

    query = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'casbin_rule'"
    while not (scans := await connection.fetchval(query)):
        await asyncio.sleep(0.05)
    await connection.close()
    assert scans < size / 10
