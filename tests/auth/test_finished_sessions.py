"""Les sessions finies s'en vont : quelques-unes à chaque connexion, le reste de temps en temps ; jamais trop tôt."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest

from fastapi_acl import ACLManager, manager
from fastapi_acl.auth.application.usecases import sessions as usecases
from fastapi_acl.auth.application.usecases.sessions import SweepSessionsUseCase
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.auth.domain.entities.session import Session
from fastapi_acl.shared.exceptions import ACLException, DatabaseUnavailableError
from fastapi_acl.shared.tasks import Chore
from tests.auth.conftest import AuthApi, process
from tests.support.app import config
from tests.support.byhand import age_sessions, all_of

LONG_AGO = datetime.now(timezone.utc) - timedelta(days=400)


async def leave_finished(auth: AuthApi, user: AuthUser, count: int) -> None:
    """Laisse des sessions expirées, et d'autres inutilisées, depuis longtemps."""
    now = datetime.now(timezone.utc)
    async with auth.manager._parts.database.transaction():
        for index in range(count):
            last_used, expires = (now, LONG_AGO) if index % 2 else (LONG_AGO, now + timedelta(days=1))
            session = Session(
                id=uuid4(), user_id=user.id, session_version=user.session_version, refresh_digest="a" * 64,
                created_at=LONG_AGO, last_used_at=last_used, expires_at=expires,
            )  # fmt: skip
            assert await auth.sessions.create_session(session)


async def count_sessions(auth: AuthApi) -> int:
    return len(await all_of(auth.manager._parts.storage, "acl_sessions"))


async def outcome(call: Any) -> str:
    try:
        await call
    except ACLException as error:
        return error.code
    return "ok"


async def test_a_login_removes_a_hundred_finished_sessions_of_any_account_and_no_more(auth: AuthApi) -> None:
    ada, bob = await auth.register("ada"), await auth.register("bob")
    await auth.login("bob")
    await leave_finished(auth, ada, 130)
    await leave_finished(auth, bob, 20)

    left = []
    for _ in range(3):
        await auth.login("ada")
        left.append(await count_sessions(auth))

    assert left == [1 + 150 - 100 + 1, 1 + 2, 1 + 3]


async def test_a_refused_login_removes_nothing(auth: AuthApi) -> None:
    ada = await auth.register("ada")
    await leave_finished(auth, ada, 3)

    assert await outcome(auth.login("ada", "un autre mot de passe")) == "invalid_credentials"
    assert await count_sessions(auth) == 3


async def test_sessions_that_cannot_be_removed_do_not_refuse_a_login(
    auth: AuthApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await auth.register("ada")

    async def fails(*_: Any) -> int:
        raise DatabaseUnavailableError

    monkeypatch.setattr(type(auth.sessions), "remove_finished", fails)

    assert await outcome(auth.login()) == "ok"
    assert "finished_sessions_kept: database_unavailable" in caplog.text


async def test_a_sweep_removes_all_that_is_finished_in_batches(auth: AuthApi, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await auth.register("ada")
    tokens = await auth.login()
    await leave_finished(auth, ada, 57)
    monkeypatch.setattr(usecases, "SWEEP_BATCH", 20)
    monkeypatch.setattr(usecases, "SWEEP_PAUSE_SECONDS", 0)
    batches, remove = list[int](), type(auth.sessions).remove_finished

    async def counted(*arguments: Any) -> int:
        batches.append(await remove(*arguments))
        return batches[-1]

    monkeypatch.setattr(type(auth.sessions), "remove_finished", counted)
    await auth.part(SweepSessionsUseCase).execute()

    assert batches == [20, 20, 17]
    assert await outcome(auth.refresh(tokens.refresh_token)) == "ok"


@pytest.mark.parametrize(("days", "answer"), [(1.9, "ok"), (2.1, "invalid_token")])
async def test_a_session_unused_for_the_days_set_is_over(
    database_settings: dict[str, Any], days: float, answer: str
) -> None:
    async with process({**database_settings, "session_idle_days": 2, "session_absolute_days": 30}) as auth:
        await auth.register("ada")
        tokens = await auth.login()

        await age_sessions(auth.manager._parts.storage, last_used_at=datetime.now(timezone.utc) - timedelta(days=days))

        assert await outcome(auth.refresh(tokens.refresh_token)) == answer


async def test_a_session_ends_after_the_days_set_however_it_is_used(database_settings: dict[str, Any]) -> None:
    async with process({**database_settings, "session_absolute_days": 3}) as auth:
        await auth.register("ada")
        await auth.login()
        (kept,) = await all_of(auth.manager._parts.storage, "acl_sessions")
        session = await auth.sessions.find_session(UUID(kept.get("id", kept.get("_id"))))

    assert session is not None
    assert session.expires_at - session.created_at == timedelta(days=3)


@pytest.mark.parametrize(("days", "answer"), [(1, "token_reused"), (6.9, "token_reused"), (7.1, "invalid_token")])
async def test_a_closed_session_is_kept_while_a_spent_token_of_it_may_come_back(
    database_settings: dict[str, Any], days: float, answer: str
) -> None:
    settings = {"session_idle_days": 1, "session_absolute_days": 365, "jwt_refresh_token_expire_days": 7}
    async with process({**database_settings, **settings}) as auth:
        await auth.register("ada")
        first = await auth.login()
        await auth.refresh(first.refresh_token)
        assert await outcome(auth.refresh(first.refresh_token)) == "token_reused"
        await age_sessions(auth.manager._parts.storage, last_used_at=datetime.now(timezone.utc) - timedelta(days=days))

        await auth.part(SweepSessionsUseCase).execute()

        assert await outcome(auth.refresh(first.refresh_token)) == answer


@pytest.mark.parametrize("days", [8, 29.9])
async def test_an_idle_session_that_could_still_be_renewed_is_never_removed(
    database_settings: dict[str, Any], days: float
) -> None:
    settings = {"session_idle_days": 30, "session_absolute_days": 365, "jwt_refresh_token_expire_days": 7}
    async with process({**database_settings, **settings}) as auth:
        await auth.register("ada")
        tokens = await auth.login()
        await age_sessions(auth.manager._parts.storage, last_used_at=datetime.now(timezone.utc) - timedelta(days=days))

        await auth.part(SweepSessionsUseCase).execute()

        assert await outcome(auth.refresh(tokens.refresh_token)) == "ok"


@pytest.mark.parametrize(("life", "ago"), [(15, 14), (600, 590)])
async def test_a_logout_still_revokes_the_access_token_of_a_session_just_expired(
    database_settings: dict[str, Any], life: int, ago: int
) -> None:
    async with process({**database_settings, "jwt_access_token_expire_minutes": life}) as auth:
        await auth.register("ada")
        tokens = await auth.login()
        principal = await auth.identify(tokens.access_token)
        await age_sessions(auth.manager._parts.storage, expires_at=datetime.now(timezone.utc) - timedelta(minutes=ago))

        await auth.part(SweepSessionsUseCase).execute()
        await auth.logout(principal)

        assert await outcome(auth.identify(tokens.access_token)) == "invalid_token"


async def test_a_process_with_a_lifespan_sweeps_from_time_to_time(
    database_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "SWEEP_SECONDS", 0.05)
    async with process(database_settings) as auth:
        ada = await auth.register("ada")
        for _ in range(2):
            await leave_finished(auth, ada, 3)
            while await count_sessions(auth):
                await asyncio.sleep(0.02)


async def test_without_a_lifespan_no_task_sweeps(sqlite_uri: str) -> None:
    acl = ACLManager(config(sqlite_uri=sqlite_uri))
    await acl.ready()

    names = {task.get_name() for task in asyncio.all_tasks()}
    await acl.close()

    assert not [name for name in names if name.startswith("fastapi_acl")]


async def test_a_chore_that_fails_is_logged_and_done_again(caplog: pytest.LogCaptureFixture) -> None:
    done, thrice = [], asyncio.Event()

    async def work() -> None:
        done.append(len(done))
        if len(done) == 1:
            raise DatabaseUnavailableError
        if len(done) == 2:
            raise ZeroDivisionError
        thrice.set()

    chore = Chore("fastapi_acl-essai", 0.001, work)
    with caplog.at_level(logging.WARNING, "fastapi_acl"):
        chore.start()
        chore.start()
        await thrice.wait()
        await chore.stop()
    await chore.stop()

    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("WARNING", "chore_failed: fastapi_acl-essai database_unavailable"),
        ("ERROR", "chore_failed: fastapi_acl-essai"),
    ]
    assert done[:3] == [0, 1, 2]


async def test_a_collection_made_by_an_older_version_gets_its_indexes(mongodb_uri: str) -> None:
    settings = {"database_type": "mongodb", "mongodb_uri": mongodb_uri}
    async with process(settings) as auth:
        database: Any = auth.manager._parts.database
        for name in ("expires_at_1", "last_used_at_1"):
            await database.collection("acl_sessions").drop_index(name)
        await database.collection("acl_revision").update_one({"_id": 1}, {"$set": {"schema": 1}})
    async with process(settings):
        pass
    async with process({**settings, "auto_migrate": False}) as auth:
        database = auth.manager._parts.database
        indexes = await database.collection("acl_sessions").index_information()
        head = await database.collection("acl_revision").find_one({"_id": 1})

    assert {"user_id_1", "expires_at_1", "last_used_at_1"} <= set(indexes)
    assert head["schema"] == 2
