"""Ce qu'une main a écrit dans la base, à côté de la bibliothèque."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import insert, update

from fastapi_acl import ACLManager
from fastapi_acl.engine.adapters.base import columns
from fastapi_acl.engine.adapters.sql import CasbinRuleModel
from fastapi_acl.shared.database.tables import changes_table, revision_table
from fastapi_acl.shared.exceptions import ACLException, RevisionCompactedError, RuleNotFoundError
from fastapi_acl.shared.policy import PolicyRule
from tests.attacks.conftest import opened
from tests.engine.test_history import change, imported, rule
from tests.engine.test_transfer import same
from tests.support import byhand


@pytest.fixture
async def sql(sql_settings: dict[str, Any]) -> AsyncIterator[ACLManager]:
    async with opened(sql_settings) as manager:
        yield manager


async def run(manager: ACLManager, statement: Any) -> None:
    database: Any = manager._parts.storage.database
    async with database.session() as session:
        await session.execute(statement)


async def repeat(manager: ACLManager, found: PolicyRule) -> None:
    await run(manager, insert(CasbinRuleModel).values(**columns(found) | {"digest": "main", "id": 900}))


async def test_quarantining_a_twin_keeps_the_rule_in_the_history(sql: ACLManager) -> None:
    await change(sql, add=(rule(1),))
    await repeat(sql, rule(1))
    await sql._parts.replica.reload()

    await sql.get_quarantine().quarantine(900)

    kept = await same(sql)
    assert await sql.get_policy_history().rules_at(sql.get_replica().revision) == kept


async def test_a_removal_of_a_missing_rule_is_seen_beside_a_repeated_one(sql: ACLManager) -> None:
    await change(sql, add=(rule(1),))
    await repeat(sql, rule(1))

    with pytest.raises(RuleNotFoundError):
        await sql._parts.storage.adapter.delete([rule(1), rule(2)])


async def test_a_rule_written_by_hand_then_imported_is_removed_for_good(sql: ACLManager) -> None:
    await repeat(sql, rule(1))
    await sql._parts.replica.reload()
    await imported(sql, 1, 2)

    await change(sql, remove=(rule(1),))

    await sql._parts.replica.reload()
    assert not sql.get_policy().holds(rule(1))


async def test_an_import_gives_a_rule_whose_row_was_changed_by_hand(sql: ACLManager) -> None:
    await change(sql, add=(rule(1),))
    row = CasbinRuleModel
    await run(sql, update(row).where(row.v0 == rule(1).values[0]).values(v0="role:other"))
    await sql._parts.replica.reload()

    with suppress(ACLException):
        await imported(sql, 1, 2)

    await same(sql)


async def test_a_database_that_went_back_is_read_again(sql: ACLManager) -> None:
    await change(sql, add=(rule(1),))
    kept = await same(sql)
    await change(sql, add=(rule(2),))
    await change(sql, add=(rule(3),))
    await run(sql, CasbinRuleModel.__table__.delete().where(CasbinRuleModel.id > max(kept.values())))
    await run(sql, changes_table.delete().where(changes_table.c.revision > 3))
    await run(sql, update(revision_table).values(revision=3, policy_revision=3))

    await sql._parts.replica.refresh()
    await change(sql, add=(rule(4),))

    assert {rule(2), rule(3)}.isdisjoint(await same(sql))


async def test_an_entry_dated_by_a_late_clock_does_not_compact_what_is_recent(sql: ACLManager) -> None:
    recent = await change(sql, add=(rule(1),))
    revision = await change(sql, add=(rule(2),))
    late = datetime.now(timezone.utc) - timedelta(days=2)
    await run(sql, update(changes_table).where(changes_table.c.revision == revision).values(at=late))

    await sql.get_policy_history().compact(older_than=timedelta(days=1))

    assert rule(2) not in await sql.get_policy_history().rules_at(recent)


@pytest.mark.parametrize("key", ["texte", None])
async def test_a_document_with_a_key_that_is_no_number_stops_nothing(mongodb_uri: str, key: Any) -> None:
    settings: dict[str, Any] = {"database_type": "mongodb", "mongodb_uri": mongodb_uri}
    async with opened(settings) as manager:
        rules: Any = manager._parts.storage.database.collection("casbin_rule")  # type: ignore[attr-defined]
        document = columns(rule(1)) | {"digest": "main"}
        await rules.insert_one(document if key is None else document | {"_id": key})

        await change(manager, add=(rule(2),))
        async with opened(settings):
            pass


async def go_back(manager: ACLManager, revision: int, last_number: int) -> None:
    """Rend à la base l'état d'une révision, comme une sauvegarde le ferait."""
    await run(manager, CasbinRuleModel.__table__.delete().where(CasbinRuleModel.id > last_number))
    await run(manager, changes_table.delete().where(changes_table.c.revision > revision))
    await run(manager, update(revision_table).values(revision=revision, policy_revision=revision))


async def test_a_history_with_a_hole_is_not_rebuilt_as_if_it_were_whole(manager: ACLManager) -> None:
    history = manager.get_policy_history()
    await change(manager, add=(rule(1),))
    lost = await change(manager, remove=(rule(1),))
    last = await change(manager, add=(rule(2),))
    assert await history.rules_at(last) == await same(manager)

    await byhand.remove_entry(manager._parts.storage, lost)

    with pytest.raises(RevisionCompactedError):
        await history.rules_at(last)
