"""Ce qu'une transaction ambiante laisse passer."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from contextvars import Context
from datetime import datetime, timezone
from uuid import uuid4

import asyncpg
import pytest

from fastapi_acl import ACLManager
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.shared.exceptions import (
    ACLException,
    DatabaseUnavailableError,
    TransactionCondemnedError,
    TransactionNestedError,
    UserAlreadyExistsError,
)
from fastapi_acl.shared.identity import SYSTEM
from fastapi_acl.shared.policy import PolicyChange
from tests.attacks.conftest import opened
from tests.engine.test_history import change, imported, link, rule
from tests.engine.test_transfer import imported as import_text
from tests.engine.test_transfer import same


def account(name: str) -> AuthUser:
    now = datetime.now(timezone.utc)
    return AuthUser(id=uuid4(), username=name, email=None, hashed_password="x", created_at=now, updated_at=now)


async def test_a_swallowed_duplicate_account_does_not_make_the_commit_lie(manager: ACLManager) -> None:
    users, store = manager.get_auth_repository(), manager.get_policy_store()
    await users.create_user(account("ada"))

    with suppress(ACLException):
        async with manager.get_replica().writing():
            await store.change(PolicyChange(added=(rule(1),)))
            with suppress(UserAlreadyExistsError):
                await users.create_user(account("ada"))

    await same(manager)


async def test_rules_whose_entry_could_not_be_written_are_not_committed(
    manager: ACLManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise DatabaseUnavailableError

    before = await same(manager)
    with pytest.raises(TransactionCondemnedError):
        async with manager.get_replica().writing():
            with monkeypatch.context() as broken, suppress(DatabaseUnavailableError):
                broken.setattr(type(manager.get_policy_store().log), "_write", refused)
                await change(manager, add=(rule(1),))

    assert await same(manager) == before


async def test_what_is_read_by_load_policy_in_a_transaction_does_not_outlive_its_rollback(manager: ACLManager) -> None:
    with suppress(ZeroDivisionError, ACLException):
        async with manager.get_replica().writing():
            await change(manager, add=(rule(1),))
            await manager.get_enforcer().load_policy()
            raise ZeroDivisionError

    await same(manager)


async def test_a_rollback_sees_what_the_transaction_wrote(manager: ACLManager) -> None:
    before = await same(manager)
    revision = manager.get_replica().revision

    with suppress(ACLException):
        async with manager.get_replica().writing():
            await change(manager, add=(rule(1),))
            await manager.get_policy_history().rollback(revision)

    assert await same(manager) == before


async def test_what_changes_the_whole_policy_is_refused_in_a_transaction(manager: ACLManager) -> None:
    history = manager.get_policy_history()
    refused = [
        lambda: import_text(manager, "g, role:a, role:b\n"),
        lambda: history.rollback(0),
        history.compact,
        lambda: manager.get_quarantine().quarantine(1),
        lambda: manager.get_enforcer().load_policy(),
        manager._parts.replica.refresh,
    ]
    for operation in refused:
        with pytest.raises(TransactionNestedError):
            async with manager.get_replica().writing():
                await operation()


async def test_removing_an_account_removes_the_rules_the_transaction_gave_it(manager: ACLManager) -> None:
    async with manager.get_replica().writing():
        await change(manager, add=(link("ada"),))
        await manager._parts.accounts.remove_subject("ada", SYSTEM)

    assert link("ada") not in await same(manager)


async def test_a_refused_removal_swallowed_in_a_transaction_removes_nothing(manager: ACLManager) -> None:
    adapter, database = manager._parts.storage.adapter, manager._parts.storage.database
    await change(manager, add=(rule(1),))
    before = await same(manager)

    with suppress(ACLException):
        async with database.transaction():
            assert not await adapter.remove_policies("p", "p", [rule(1).values, rule(2).values])

    assert await same(manager) == before


async def test_an_account_made_while_an_export_is_read_is_kept(manager: ACLManager) -> None:
    users = manager.get_auth_repository()

    async with aclosing(manager.get_policy_transfer().export_rules("csv")) as parts:
        await anext(parts)
        await users.create_user(account("ada"))

    assert (await users.get_by_username("ada")).username == "ada"


async def test_a_rule_may_change_while_an_export_is_read(manager: ACLManager) -> None:
    await imported(manager, *range(5))

    async with aclosing(manager.get_policy_transfer().export_rules("csv")) as parts:
        await anext(parts)
        await change(manager, add=(rule(99),))

    assert rule(99) in await same(manager)


async def test_a_rule_replaced_twice_in_a_transaction_keeps_a_number_of_its_own(manager: ACLManager) -> None:
    enforcer = manager.get_enforcer()
    first, second, third = ([*rule(number).values] for number in (1, 2, 3))
    await enforcer.add_policy(*first)

    async with manager.get_replica().writing():
        assert await enforcer.update_policy(first, second)
        assert await enforcer.add_policy(*first)
        assert await enforcer.update_policy(first, third)

    assert {rule(2), rule(3)} <= (await same(manager)).keys()


async def test_an_account_made_after_an_export_left_unfinished_is_kept(manager: ACLManager) -> None:
    users = manager.get_auth_repository()
    await imported(manager, *range(5))
    async for _ in manager.get_policy_transfer().export_rules("csv"):
        break
    await asyncio.sleep(0.1)

    await users.create_user(account("ada"))

    assert (await Context().run(asyncio.ensure_future, users.get_by_username("ada"))).username == "ada"


async def test_a_task_born_in_a_transaction_works_once_it_is_over(manager: ACLManager) -> None:
    over = asyncio.Event()

    async def later() -> int:
        await over.wait()
        return await change(manager, add=(rule(2),))

    async with manager.get_replica().writing():
        await change(manager, add=(rule(1),))
        task = asyncio.create_task(later())
    over.set()

    assert await task == manager.get_replica().revision


async def test_a_swallowed_reading_error_does_not_make_the_commit_lie(
    postgresql_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi_acl.shared.database.postgresql.LOCK_TIMEOUT_SECONDS", 0.05)
    beside = await asyncpg.connect(postgresql_uri)
    async with opened({"database_type": "postgresql", "postgresql_uri": postgresql_uri}) as manager:
        with suppress(ACLException):
            async with manager.get_replica().writing(), beside.transaction():
                await change(manager, add=(rule(1),))
                await beside.execute("LOCK TABLE acl_users IN ACCESS EXCLUSIVE MODE")
                with suppress(Exception):
                    await manager.get_auth_repository().get_by_username("ada")

        await same(manager)
    await beside.close()
