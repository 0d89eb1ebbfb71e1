from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from fastapi_acl import ACLConfig
from fastapi_acl.auth.application.usecases.sessions import SessionPolicy, digest
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.auth.domain.entities.session import Session
from fastapi_acl.auth.infrastructure.repositories.auth_repository import SQLAuthRepository
from fastapi_acl.auth.infrastructure.repositories.session_repository import SQLSessionRepository
from fastapi_acl.composition import REPOSITORIES
from fastapi_acl.shared.database.factory import create_database
from fastapi_acl.shared.database.sql import SQLDatabase
from fastapi_acl.shared.exceptions import UserAlreadyExistsError, UserNotFoundError

POLICY = SessionPolicy(idle=timedelta(days=7), absolute=timedelta(days=30))


@pytest.fixture
async def database(database_settings: dict[str, Any]) -> AsyncIterator[SQLDatabase]:
    database = create_database(ACLConfig(_env_file=None, **database_settings))
    await database.migrate()
    yield database
    await database.close()


@pytest.fixture
def users(database: SQLDatabase, database_settings: dict[str, Any]) -> SQLAuthRepository:
    return REPOSITORIES[database_settings["database_type"]](database)


@pytest.fixture
def sessions(database: SQLDatabase) -> SQLSessionRepository:
    return SQLSessionRepository(database)


def account(username: str = "ada", **values: Any) -> AuthUser:
    return AuthUser(username=username, email=f"{username}@example.com", hashed_password="haché", **values)


def opened(user: AuthUser, **values: Any) -> Session:
    now = datetime.now(timezone.utc)
    base = Session(
        id=uuid4(),
        user_id=user.id,
        session_version=user.session_version,
        refresh_digest=digest("premier"),
        created_at=now,
        last_used_at=now,
        expires_at=now + timedelta(days=30),
    )
    return replace(base, **values)


async def test_an_account_comes_back_as_it_was_written(users: SQLAuthRepository) -> None:
    ada = account("Ada")
    await users.create_user(ada)

    assert await users.get_by_id(ada.id) == ada
    assert await users.find_by_username("ADA") == ada
    assert await users.find_by_username("bob") is None


async def test_a_name_or_an_address_is_taken_once(users: SQLAuthRepository) -> None:
    await users.create_user(account("ada"))

    with pytest.raises(UserAlreadyExistsError):
        await users.create_user(account("ADA"))
    with pytest.raises(UserAlreadyExistsError):
        await users.create_user(replace(account("bob"), email="Ada@Example.com"))


async def test_accounts_without_an_address_do_not_collide(users: SQLAuthRepository) -> None:
    for name in ("ada", "bob"):
        await users.create_user(replace(account(name), email=None))

    assert len((await users.list_users(limit=10)).items) == 2


async def test_what_does_not_exist_is_not_found(users: SQLAuthRepository) -> None:
    for call in (users.get_by_id, users.delete_user, users.advance_session_version):
        with pytest.raises(UserNotFoundError):
            await call(uuid4())
    with pytest.raises(UserNotFoundError):
        await users.set_active(uuid4(), active=True)


async def test_deactivation_advances_the_session_version_and_activation_does_not(users: SQLAuthRepository) -> None:
    ada = account()
    await users.create_user(ada)

    off = await users.set_active(ada.id, active=False)
    on = await users.set_active(ada.id, active=True)

    assert (off.is_active, off.session_version) == (False, 1)
    assert (on.is_active, on.session_version) == (True, 1)
    assert on.updated_at > ada.updated_at


async def test_only_active_accounts_are_counted_active(users: SQLAuthRepository) -> None:
    ada, bob = account("ada"), account("bob", is_active=False)
    await users.create_user(ada)
    await users.create_user(bob)

    assert await users.active_ids([str(ada.id), str(bob.id), "inconnu"]) == {str(ada.id)}
    assert [user.username for user in (await users.list_users(limit=5, is_active=False)).items] == ["bob"]


async def test_a_session_opens_only_for_the_account_the_password_proved(
    users: SQLAuthRepository, sessions: SQLSessionRepository
) -> None:
    ada = account()
    await users.create_user(ada)

    assert await sessions.create_session(opened(ada))
    assert not await sessions.create_session(opened(ada, session_version=1))
    await users.set_active(ada.id, active=False)
    assert not await sessions.create_session(opened(await users.get_by_id(ada.id)))
    assert not await sessions.create_session(opened(account("bob")))


async def test_one_of_many_rotations_wins(users: SQLAuthRepository, sessions: SQLSessionRepository) -> None:
    ada = account()
    await users.create_user(ada)
    session = opened(ada)
    await sessions.create_session(session)

    won = await asyncio.gather(
        *(sessions.rotate(session.id, digest("premier"), digest(f"n{index}"), POLICY.lifetime()) for index in range(30))
    )

    assert won.count(True) == 1
    stored = await sessions.find_session(session.id)
    assert stored is not None
    assert stored.refresh_digest == digest(f"n{won.index(True)}")
    assert stored.previous_digest == digest("premier")
    assert stored.expires_at == session.expires_at


@pytest.mark.parametrize(
    "ended",
    [
        {"expires_at": datetime.now(timezone.utc) - timedelta(seconds=1)},
        {"last_used_at": datetime.now(timezone.utc) - timedelta(days=8)},
        {"revoked_at": datetime.now(timezone.utc)},
    ],
)
async def test_an_ended_session_is_not_renewed(
    users: SQLAuthRepository, sessions: SQLSessionRepository, ended: dict[str, Any]
) -> None:
    ada = account()
    await users.create_user(ada)
    session = opened(ada, **ended)
    await sessions.create_session(session)

    assert not await sessions.rotate(session.id, digest("premier"), digest("second"), POLICY.lifetime())


async def test_a_session_of_a_changed_or_inactive_account_is_not_renewed(
    users: SQLAuthRepository, sessions: SQLSessionRepository
) -> None:
    ada = account()
    await users.create_user(ada)
    session = opened(ada)
    await sessions.create_session(session)

    await users.advance_session_version(ada.id)

    assert not await sessions.rotate(session.id, digest("premier"), digest("second"), POLICY.lifetime())


async def test_a_session_is_revoked_once_and_dies_with_its_account(
    users: SQLAuthRepository, sessions: SQLSessionRepository
) -> None:
    ada, now = account(), datetime.now(timezone.utc)
    await users.create_user(ada)
    first, second = opened(ada), opened(ada)
    for session in (first, second):
        await sessions.create_session(session)

    assert await sessions.revoke_session(first.id, now)
    assert not await sessions.revoke_session(first.id, now)
    await sessions.revoke_all(ada.id, now)
    assert not await sessions.revoke_session(second.id, now)
    await users.delete_user(ada.id)
    assert await sessions.find_session(first.id) is None


async def test_no_token_is_in_the_database(
    database: SQLDatabase, users: SQLAuthRepository, sessions: SQLSessionRepository
) -> None:
    ada = account()
    await users.create_user(ada)
    await sessions.create_session(opened(ada))

    async with database.session() as session:
        rows = (await session.execute(text("SELECT * FROM acl_sessions"))).all()

    assert digest("premier") in str(rows)
    assert "premier'" not in str(rows)
