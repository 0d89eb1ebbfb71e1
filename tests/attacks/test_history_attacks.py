"""Importer, revenir en arrière, compacter : ce qui s'y perd."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from fastapi_acl import ACLManager
from fastapi_acl.engine.writing.rule_files import read_rules
from fastapi_acl.shared.exceptions import (
    ACLException,
    InvalidImportError,
    LastAdministratorError,
    RuleAlreadyExistsError,
)
from fastapi_acl.shared.policy import PolicyRule
from fastapi_acl.shared.sync.changes import IdempotencyKey
from tests.attacks.conftest import opened
from tests.engine.test_history import NOW, change, imported, rule
from tests.engine.test_transfer import imported as import_text
from tests.engine.test_transfer import same


async def test_an_import_puts_in_force_a_rule_removed_while_it_is_prepared(
    manager: ACLManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change(manager, add=(rule(1),))
    transfer = type(manager.get_policy_transfer())
    checked = transfer._prepare_unlocked

    async def slow(*arguments: Any) -> Any:
        result = await checked(*arguments)
        await change(manager, remove=(rule(1),))
        return result

    monkeypatch.setattr(transfer, "_prepare_unlocked", slow)

    await imported(manager, 1, 2)

    assert {rule(1), rule(2)} <= (await same(manager)).keys()


async def test_a_rollback_gives_back_a_rule_on_a_resource_named_like_an_account(manager: ACLManager) -> None:
    deny = PolicyRule("p", ("role:reader", "user:list", "read", "deny"))
    revision = await change(manager, add=(deny,))
    await change(manager, remove=(deny,))

    await manager.get_policy_history().rollback(revision)

    assert deny in await same(manager)


async def test_two_compactions_at_once_leave_a_history_that_tells_the_truth(
    manager: ACLManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = manager.get_policy_history()
    await change(manager, add=(rule(1),))
    await asyncio.sleep(0.3)
    await change(manager, add=(rule(2),))
    revision = await change(manager, remove=(rule(1),))
    snapshot, turns = type(history)._snapshot, 0

    async def slow(self: Any, *arguments: Any) -> Any:
        nonlocal turns
        result, turns = await snapshot(self, *arguments), turns + 1
        if turns == 1:
            await history.compact(older_than=NOW)
        return result

    monkeypatch.setattr(type(history), "_snapshot", slow)
    await history.compact(older_than=timedelta(seconds=0.2))

    assert await history.rules_at(revision) == await same(manager)


@pytest.fixture
async def sql(sql_settings: dict[str, Any]) -> AsyncIterator[ACLManager]:
    async with opened(sql_settings) as manager:
        yield manager


async def test_a_hundred_rules_one_of_which_exists_is_a_conflict_and_not_an_outage(sql: ACLManager) -> None:
    adapter = sql._parts.storage.adapter
    await adapter.insert([rule(1)])

    with pytest.raises(RuleAlreadyExistsError):
        await adapter.insert([rule(number) for number in range(200)])


async def test_an_import_that_changes_nothing_spends_its_key(manager: ACLManager) -> None:
    await imported(manager, 1)
    key = IdempotencyKey("k", "d")
    text = f"p, {', '.join(rule(1).values)}\n"
    first = await import_text(manager, text, key=key)
    await change(manager, remove=(rule(1),))

    again = await import_text(manager, text, key=key)

    assert (again.revision, again.added) == (first.revision, first.added)


async def test_the_same_import_sent_again_gets_the_same_answer(manager: ACLManager) -> None:
    key = IdempotencyKey("k", "d")
    text = f"p, {', '.join(rule(1).values)}\n"
    first = await import_text(manager, text, key=key)

    assert await import_text(manager, text, key=key) == first


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"ptype": "p", "values": [' + "1" * 5_000 + "]}", "json"),
        ('{"ptype": "p", "values": ["role:x", "\\ud800", "read", "allow"]}', "json"),
        ("p, role:x, a\x00b, read, allow\n", "csv"),
        ("p, role:x, " + "d" * 140_000 + ", read, allow\n", "csv"),
        ("[" * 70_000, "json"),
        ("[" * 3_000 + "]" * 3_000, "json"),
    ],
)
async def test_a_hostile_line_is_an_import_error(sqlite_uri: str, text: str, form: Any) -> None:
    async with opened({"sqlite_uri": sqlite_uri}) as manager:
        with pytest.raises(InvalidImportError):
            await import_text(manager, text, form)


def test_a_quote_in_a_comment_swallows_no_rule() -> None:
    text = '# rôles, "admin\np, role:x, document, read, deny\n# fin, "admin"\np, role:y, document, read, allow\n'

    read = []
    try:
        read = [found.values[0] for _, found in read_rules(io.StringIO(text, newline=""), "csv")]
    except InvalidImportError:
        return

    assert read == ["role:x", "role:y"]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_byte_order_mark_is_no_part_of_the_first_rule(form: Any) -> None:
    text = {"csv": "\ufeffp, role:x, document, read, allow\n"}.get(form, '\ufeff{"ptype": "p", "values": ["role:x"]}')

    assert [found.ptype for _, found in read_rules(io.StringIO(text, newline=""), form)] == ["p"]


async def test_a_batch_swept_while_it_is_staged_is_never_published_in_part(
    manager: ACLManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = manager.get_policy_transfer()
    stage = type(transfer)._stage
    before = await same(manager)

    async def swept(*arguments: Any) -> int:
        count: int = await stage(*arguments)
        monkeypatch.setattr("fastapi_acl.engine.writing.transfer.ABANDONED_AFTER", timedelta(0))
        await transfer.sweep()
        return count

    monkeypatch.setattr(type(transfer), "_stage", swept)

    with pytest.raises(ACLException):
        await transfer.import_rules(io.StringIO("p, role:x, document, read, allow\n"), "csv", replaces=True)

    assert await same(manager) == before


@pytest.mark.parametrize("text", ["", "p, role:x, document, read, allow\n"])
async def test_an_operator_cannot_import_a_policy_without_an_administrator(manager: ACLManager, text: str) -> None:
    with pytest.raises(LastAdministratorError):
        await import_text(manager, text, replaces=True)


async def test_an_operator_cannot_go_back_to_before_the_first_administrator(manager: ACLManager) -> None:
    with pytest.raises(LastAdministratorError):
        await manager.get_policy_history().rollback(0)


async def test_a_large_rollback_keeps_a_rule_on_a_resource_named_like_an_account(manager: ACLManager) -> None:
    deny = PolicyRule("p", ("role:reader", "user:list", "read", "deny"))
    revision = await change(manager, add=(deny,))
    await imported(manager, *range(1_100))

    await manager.get_policy_history().rollback(revision)

    assert deny in await same(manager)


async def test_a_large_rollback_refuses_what_the_model_no_longer_admits(
    manager: ACLManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = await imported(manager, *range(1_100))
    await imported(manager, 1, replaces=True)
    before, schema = await same(manager), type(manager.get_policy().schema)
    known = schema._fault

    def narrower(self: Any, ptype: str, name: str, value: str) -> str:
        return "rôle oublié" if value == "role:r1000" else known(self, ptype, name, value)

    monkeypatch.setattr(schema, "_fault", narrower)
    monkeypatch.setattr(schema, "_plain", lambda *_: lambda _: None)

    with pytest.raises(ACLException):
        await manager.get_policy_history().rollback(revision)

    assert await same(manager) == before
