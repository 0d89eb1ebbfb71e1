"""Sur MongoDB, une session s'ouvre sans verrou : le compte est relu après elle."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_acl import ACLConfig
from fastapi_acl.auth.infrastructure.repositories.mongodb_session_repository import MongoDBSessionRepository
from fastapi_acl.runtime.storage import create_storage
from tests.auth.test_repositories import account, opened_by
from tests.conftest import DATABASES


@pytest.mark.parametrize("database_settings", [kind for kind in DATABASES if kind == "mongodb"], indirect=True)
async def test_a_session_that_crossed_a_change_of_its_account_is_taken_back(
    database_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = create_storage(ACLConfig(_env_file=None, **database_settings))
    users, sessions, ada = storage.users, storage.sessions, account()
    await storage.database.migrate()
    await users.create_user(ada)
    look, looks = MongoDBSessionRepository._is_current, list[bool]()

    async def look_then_change(*given: Any) -> bool:
        looks.append(await look(*given))
        if len(looks) == 1:
            await users.update_user(ada.id, is_active=False)
        return looks[-1]

    monkeypatch.setattr(MongoDBSessionRepository, "_is_current", look_then_change)
    session = opened_by(ada)

    assert not await sessions.create_session(session)
    assert looks == [True, False]
    assert await sessions.find_session(session.id) is None
    await storage.database.close()
