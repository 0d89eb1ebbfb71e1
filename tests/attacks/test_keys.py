"""Des clés d'idempotence qui se croisent."""

from __future__ import annotations

import asyncio

from fastapi_acl import ACLManager
from fastapi_acl.shared.exceptions import DatabaseUnavailableError
from fastapi_acl.shared.identity import SYSTEM
from fastapi_acl.shared.policy import PolicyChange
from fastapi_acl.shared.sync.changes import IdempotencyKey
from tests.engine.test_history import rule
from tests.engine.test_transfer import same


async def test_the_same_key_sent_many_times_at_once_is_one_change(manager: ACLManager, other: ACLManager) -> None:
    key, before = IdempotencyKey("clé", "d"), manager.get_replica().revision
    stores = [one.get_policy_store() for one in (manager, other) for _ in range(10)]
    sent = (store.change(PolicyChange(added=(rule(1),)), SYSTEM, key=key) for store in stores)

    answers = await asyncio.gather(*sent, return_exceptions=True)

    assert {one for one in answers if not isinstance(one, DatabaseUnavailableError)} == {before + 1}
    await manager._parts.replica.refresh()
    assert rule(1) in await same(manager)


async def test_a_key_spent_by_a_refused_change_may_serve_again(manager: ACLManager) -> None:
    key, store = IdempotencyKey("k", "d"), manager.get_policy_store()
    refused = await asyncio.gather(
        store.change(PolicyChange(removed=(rule(1),)), SYSTEM, key=key), return_exceptions=True
    )

    revision = await store.change(PolicyChange(added=(rule(1),)), SYSTEM, key=key)

    assert isinstance(refused[0], Exception)
    assert revision == manager.get_replica().revision
