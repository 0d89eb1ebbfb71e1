"""Les dépôts : une seule suite, sur chacune des bases."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest

from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository, ISessionRepository
from fastapi_acl.auth.domain.dtos.auth_dtos import FinishedSessions, RefreshLifetime
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.auth.domain.entities.session import Session
from fastapi_acl.auth.infrastructure.repositories.session_repository import SQLSessionRepository
from fastapi_acl.runtime.storage import Storage, create_storage
from fastapi_acl.shared.config import ACLConfig
from fastapi_acl.shared.database.base import AmbientDatabase
from fastapi_acl.shared.exceptions import (
    DatabaseUnavailableError,
    InvalidRequestError,
    UserAlreadyExistsError,
    UserNotFoundError,
)
from tests.support import byhand
from tests.support.waits import PATIENCE_SECONDS, insisted

NOW = datetime.now(timezone.utc)


@pytest.fixture
async def storage(database_settings: dict[str, Any]) -> AsyncIterator[Storage]:
    opened = create_storage(ACLConfig(_env_file=None, **database_settings))
    await opened.database.migrate()
    yield opened
    await opened.database.close()


@pytest.fixture
def database(storage: Storage) -> AmbientDatabase:
    return storage.database


@pytest.fixture
def users(storage: Storage) -> IAuthRepository:
    return storage.users


@pytest.fixture
def sessions(storage: Storage) -> ISessionRepository:
    return storage.sessions


def account(username: str = "ada", email: str | None = None, **changes: Any) -> AuthUser:
    return AuthUser(username=username, email=email, hashed_password="haché", **changes)


def opened_by(user: AuthUser, **changes: Any) -> Session:
    return Session(**{
        "id": uuid4(), "user_id": user.id, "session_version": user.session_version, "refresh_digest": "a" * 64,
        "created_at": NOW, "last_used_at": NOW, "expires_at": NOW + timedelta(days=1), **changes,
    })  # fmt: skip


def lifetime(**changes: Any) -> RefreshLifetime:
    return RefreshLifetime(**{"now": NOW, "idle_since": NOW - timedelta(days=1), **changes})


async def test_an_account_comes_back_as_it_was_stored(users: IAuthRepository) -> None:
    ada = account("Ada", "Ada@example.com", is_active=False, is_verified=True, session_version=7)

    await users.create_user(ada)

    assert await users.get_by_id(ada.id) == ada
    assert ada.created_at.tzinfo is not None


@pytest.mark.parametrize("asked", ["Ada", "ada", "ADA", "\uff41\uff44\uff41"])
async def test_an_account_is_found_by_any_spelling_of_its_name(users: IAuthRepository, asked: str) -> None:
    ada = account("Ada")
    await users.create_user(ada)

    assert await users.get_by_username(asked) == ada


@pytest.mark.parametrize("asked", ["", "adá", "bob", "ada%", "a_a", "ada\x00", "ada\ud800", "' OR 1=1 --", "a" * 5000])
async def test_a_name_that_no_account_bears_finds_nothing(users: IAuthRepository, asked: str) -> None:
    await users.create_user(account("ada"))

    with pytest.raises(UserNotFoundError):
        await users.get_by_username(asked)


@pytest.mark.parametrize("asked", ["ada@example.com", "ADA@Example.com", "\uff41da@example.com"])
async def test_an_account_is_found_by_any_spelling_of_its_address(users: IAuthRepository, asked: str) -> None:
    ada = account("Ada", "Ada@example.com")
    await users.create_user(ada)

    assert await users.get_by_email(asked) == ada


@pytest.mark.parametrize("asked", ["", "Ada", "ada@example.co", "ada@example.com ", "%@example.com", "\x00", "\ud800"])
async def test_an_address_that_no_account_has_finds_nothing(users: IAuthRepository, asked: str) -> None:
    await users.create_user(account("Ada", "ada@example.com"))
    await users.create_user(account("bob"))

    with pytest.raises(UserNotFoundError):
        await users.get_by_email(asked)


async def test_a_change_leaves_what_it_does_not_name(users: IAuthRepository) -> None:
    ada = account("Ada", "ada@example.com", is_active=False, is_verified=True, session_version=7)
    await users.create_user(ada)

    untouched, ended = await users.update_user(ada.id), await users.update_user(ada.id, ends_tokens=True)

    assert replace(untouched, updated_at=ada.updated_at) == ada
    assert replace(ended, updated_at=ada.updated_at) == replace(ada, session_version=8)


@pytest.mark.parametrize("twin", [account("ADA"), account("\uff41\uff44\uff41"), account("bob", "A@EXAMPLE.com")])
async def test_a_name_or_an_address_belongs_to_one_account(users: IAuthRepository, twin: AuthUser) -> None:
    await users.create_user(account("ada", "a@example.com"))

    with pytest.raises(UserAlreadyExistsError):
        await users.create_user(twin)


async def test_accounts_without_an_address_do_not_collide(users: IAuthRepository) -> None:
    await users.create_user(account("ada"))
    await users.create_user(account("bob"))

    assert len((await users.list_users(limit=10)).items) == 2


async def test_fifty_simultaneous_registrations_of_one_name_make_one_account(users: IAuthRepository) -> None:
    spellings = ["ada", "Ada", "ADA", "\uff41\uff44\uff41"]

    async def create(index: int) -> None:
        await insisted(lambda: users.create_user(account(spellings[index % 4])))

    outcomes = await asyncio.gather(*(create(index) for index in range(50)), return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["UserAlreadyExistsError"] * 49
    assert len((await users.list_users(limit=10)).items) == 1


async def test_what_concerns_no_account_says_so(users: IAuthRepository) -> None:
    nobody = uuid4()

    for call in (
        users.get_by_id(nobody),
        users.update_user(nobody, is_active=False),
        users.update_user(nobody, ends_tokens=True),
        users.delete_user(nobody),
    ):
        with pytest.raises(UserNotFoundError):
            await call
    await users.update_password(nobody, "nouveau", replaced="haché")


async def test_deactivation_advances_the_session_version_and_activation_does_not(users: IAuthRepository) -> None:
    ada = account()
    await users.create_user(ada)

    off = await users.update_user(ada.id, is_active=False)
    on = await users.update_user(ada.id, is_active=True)

    assert (off.is_active, off.session_version) == (False, 1)
    assert (on.is_active, on.session_version) == (True, 1)
    assert on.updated_at > ada.updated_at
    assert await users.get_by_id(ada.id) == on


async def test_the_session_version_never_skips_under_concurrency(users: IAuthRepository) -> None:
    ada = account()
    await users.create_user(ada)

    changed = await asyncio.gather(*(users.update_user(ada.id, ends_tokens=True) for _ in range(10)))

    assert sorted(user.session_version for user in changed) == list(range(1, 11))


async def test_a_rehash_never_overwrites_a_newer_password(users: IAuthRepository) -> None:
    ada = account()
    await users.create_user(ada)

    await users.update_password(ada.id, "recalculé", replaced="haché")
    await users.update_password(ada.id, "d'un autre", replaced="haché")

    assert (await users.get_by_id(ada.id)).hashed_password == "recalculé"


async def test_a_hash_is_found_by_one_of_its_starts_taken_literally(users: IAuthRepository) -> None:
    await users.create_user(AuthUser(username="ada", hashed_password="$b-256$v=2,r=13$abc"))
    await users.create_user(AuthUser(username="bob", hashed_password="x$b-256$v=2,r=14$abc"))

    found = [
        await users.has_hash(starts)
        for starts in (["$b-256$v=2,r=13$"], ["$z", "$b-256$v=2,r=13$"], ["$b-256$v=2,r=14$"], ["$b_256%"], ["."], [])
    ]

    assert found == [True, True, False, False, False, False]


async def test_pages_follow_one_another_without_gap_or_repeat(users: IAuthRepository) -> None:
    names = [f"compte{index:03}" for index in range(25)]
    for name in reversed(names):
        await users.create_user(account(name))

    seen, cursor = [], None
    while True:
        page = await users.list_users(limit=10, cursor=cursor)
        seen.append([user.username for user in page.items])
        if (cursor := page.next_cursor) is None:
            break

    assert [len(page) for page in seen] == [10, 10, 5]
    assert [name for page in seen for name in page] == names


async def test_a_page_that_is_exactly_full_is_the_last(users: IAuthRepository) -> None:
    for name in ("ada", "bob"):
        await users.create_user(account(name))

    assert (await users.list_users(limit=2)).next_cursor is None


@pytest.mark.parametrize(("limit", "length"), [(-5, 1), (0, 1), (1, 1), (10_000, 3)])
async def test_a_page_holds_one_to_two_hundred_accounts(users: IAuthRepository, limit: int, length: int) -> None:
    for name in ("ada", "bob", "eve"):
        await users.create_user(account(name))

    assert len((await users.list_users(limit=limit)).items) == length


@pytest.mark.parametrize("cursor", ["!", "é", "YQ", "_w==", "AA==", "a" * 1023, "\ud800", "\x00"])
async def test_a_cursor_that_is_not_ours_is_refused(users: IAuthRepository, cursor: str) -> None:
    with pytest.raises(InvalidRequestError):
        await users.list_users(limit=10, cursor=cursor)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("AD", {"ada", "adam"}),
        ("\uff41\uff44\uff41", {"ada", "adam"}),
        ("dam", {"adam"}),
        ("example.org", {"bob"}),
        ("%", set()),
        ("a_a", set()),
        ("_", {"eve_1"}),
        ("\\", set()),
        ("/", set()),
        ("\x00", set()),
        ("\ud800", set()),
    ],
)
async def test_a_search_is_literal_and_ignores_case(users: IAuthRepository, query: str, found: set[str]) -> None:
    for name, email in (("ada", None), ("Adam", None), ("bob", "b@example.org"), ("eve_1", None)):
        await users.create_user(account(name, email))

    page = await users.list_users(limit=10, query=query)

    assert {user.username.lower() for user in page.items} == found


async def test_a_list_keeps_the_active_or_the_inactive(users: IAuthRepository) -> None:
    await users.create_user(account("ada"))
    await users.create_user(account("bob", is_active=False))

    on, off = await users.list_users(limit=9, is_active=True), await users.list_users(limit=9, is_active=False)

    assert ([user.username for user in on.items], [user.username for user in off.items]) == (["ada"], ["bob"])


async def test_only_active_accounts_are_counted_as_such(users: IAuthRepository) -> None:
    ada, bob = account("ada"), account("bob", is_active=False)
    await users.create_user(ada)
    await users.create_user(bob)

    found = await users.active_ids([str(ada.id), str(bob.id), str(uuid4()), "pas-un-uuid"])

    assert found == {str(ada.id)}
    assert await users.active_ids([]) == set()


async def test_a_session_opens_on_a_live_account_and_comes_back(
    users: IAuthRepository, sessions: ISessionRepository
) -> None:
    ada = account()
    await users.create_user(ada)
    session = opened_by(ada, user_agent="navigateur", ip="::1")

    assert await sessions.create_session(session)
    assert await sessions.find_session(session.id) == session
    assert await sessions.find_session(uuid4()) is None


@pytest.mark.parametrize("gone", ["deactivated", "advanced", "deleted"])
async def test_no_session_opens_on_an_account_that_changed_meanwhile(
    users: IAuthRepository, sessions: ISessionRepository, gone: str
) -> None:
    ada = account()
    await users.create_user(ada)
    if gone == "deactivated":
        await users.update_user(ada.id, is_active=False)
    elif gone == "advanced":
        await users.update_user(ada.id, ends_tokens=True)
    else:
        await users.delete_user(ada.id)

    assert not await sessions.create_session(opened_by(ada))


async def test_an_account_deactivated_by_hand_neither_opens_nor_renews_a_session(
    storage: Storage, users: IAuthRepository, sessions: ISessionRepository
) -> None:
    ada = account()
    await users.create_user(ada)
    session = opened_by(ada)
    assert await sessions.create_session(session)

    await byhand.deactivate_all(storage)

    assert not await sessions.create_session(opened_by(ada))
    assert not await sessions.rotate(session.id, "a" * 64, "b" * 64, lifetime())


async def test_a_rotation_replaces_the_digest_and_never_the_end(
    users: IAuthRepository, sessions: ISessionRepository
) -> None:
    ada = account()
    await users.create_user(ada)
    session = opened_by(ada)
    await sessions.create_session(session)
    later = NOW + timedelta(minutes=1)

    assert await sessions.rotate(session.id, "a" * 64, "b" * 64, lifetime(now=later))
    found = await sessions.find_session(session.id)

    assert found is not None
    assert (found.refresh_digest, found.previous_digest) == ("b" * 64, "a" * 64)
    assert (found.rotated_at, found.last_used_at, found.expires_at) == (later, later, session.expires_at)


@pytest.mark.parametrize(
    ("digest", "bounds"),
    [
        ("z" * 64, {}),
        ("a" * 64, {"now": NOW + timedelta(days=2)}),
        ("a" * 64, {"now": NOW + timedelta(days=1)}),
        ("a" * 64, {"idle_since": NOW}),
        ("a" * 64, {"idle_since": NOW + timedelta(seconds=1)}),
    ],
)
async def test_a_spent_expired_or_idle_session_does_not_rotate(
    users: IAuthRepository, sessions: ISessionRepository, digest: str, bounds: dict[str, datetime]
) -> None:
    ada = account()
    await users.create_user(ada)
    session = opened_by(ada)
    await sessions.create_session(session)

    assert not await sessions.rotate(session.id, digest, "b" * 64, lifetime(**bounds))
    assert await sessions.find_session(session.id) == session


@pytest.mark.parametrize("gone", ["deactivated", "reactivated", "advanced", "revoked", "deleted"])
async def test_a_session_of_an_account_that_changed_does_not_rotate(
    users: IAuthRepository, sessions: ISessionRepository, gone: str
) -> None:
    ada = account()
    await users.create_user(ada)
    session = opened_by(ada)
    await sessions.create_session(session)
    await _end(gone, users, sessions, ada.id)

    assert not await sessions.rotate(session.id, "a" * 64, "b" * 64, lifetime())


async def _end(how: str, users: IAuthRepository, sessions: ISessionRepository, user_id: UUID) -> None:
    if how in {"deactivated", "reactivated"}:
        await users.update_user(user_id, is_active=False)
    if how == "reactivated":
        await users.update_user(user_id, is_active=True)
    if how == "advanced":
        await users.update_user(user_id, ends_tokens=True)
    if how == "revoked":
        await sessions.revoke_all(user_id, NOW)
    if how == "deleted":
        await users.delete_user(user_id)


async def test_one_of_fifty_simultaneous_rotations_wins(users: IAuthRepository, sessions: ISessionRepository) -> None:
    ada = account()
    await users.create_user(ada)
    session = opened_by(ada)
    await sessions.create_session(session)

    async def rotate(index: int) -> bool:
        return await insisted(lambda: sessions.rotate(session.id, "a" * 64, f"{index:064}", lifetime()))

    won = await asyncio.gather(*(rotate(index) for index in range(50)))
    found = await sessions.find_session(session.id)

    assert won.count(True) == 1
    assert found is not None
    assert found.refresh_digest == f"{won.index(True):064}"


async def test_a_session_is_revoked_once_and_the_others_stay(
    users: IAuthRepository, sessions: ISessionRepository
) -> None:
    ada, bob = account("ada"), account("bob")
    await users.create_user(ada)
    await users.create_user(bob)
    first, second, third = opened_by(ada), opened_by(ada), opened_by(bob)
    for session in (first, second, third):
        await sessions.create_session(session)

    once, twice = await sessions.revoke_session(first.id, NOW), await sessions.revoke_session(first.id, NOW)
    await sessions.revoke_all(ada.id, NOW + timedelta(seconds=9))
    revoked = [await sessions.find_session(session.id) for session in (first, second, third)]

    assert (once, twice) == (True, False)
    assert [session and session.revoked_at for session in revoked] == [NOW, NOW + timedelta(seconds=9), None]
    rotated = [await sessions.rotate(one.id, "a" * 64, "b" * 64, lifetime()) for one in (first, second, third)]
    assert rotated == [False, False, True]


FINISHED = FinishedSessions(expired_before=NOW - timedelta(hours=1), unused_before=NOW - timedelta(days=7))


@pytest.mark.parametrize(
    ("changes", "stays"),
    [
        ({}, True),
        ({"expires_at": NOW - timedelta(hours=1)}, True),
        ({"last_used_at": NOW - timedelta(days=7)}, True),
        ({"revoked_at": NOW - timedelta(days=6)}, True),
        ({"created_at": NOW - timedelta(days=300)}, True),
        ({"expires_at": NOW - timedelta(hours=1, microseconds=1)}, False),
        ({"last_used_at": NOW - timedelta(days=7, microseconds=1)}, False),
        ({"last_used_at": NOW - timedelta(days=9), "revoked_at": NOW - timedelta(days=8)}, False),
        ({"last_used_at": NOW - timedelta(days=9), "expires_at": NOW - timedelta(days=1)}, False),
    ],
)
async def test_only_a_session_that_is_long_over_is_removed(
    users: IAuthRepository, sessions: ISessionRepository, changes: dict[str, datetime], stays: bool
) -> None:
    ada = account()
    await users.create_user(ada)
    session = opened_by(ada, **changes)
    await sessions.create_session(session)

    removed = await sessions.remove_finished(FINISHED, 10)

    assert removed == (0 if stays else 1)
    assert await sessions.find_session(session.id) == (session if stays else None)


async def test_finished_sessions_go_a_few_at_a_time_whosever_they_are(
    users: IAuthRepository, sessions: ISessionRepository
) -> None:
    ada, bob = account("ada"), account("bob", is_active=True)
    await users.create_user(ada)
    await users.create_user(bob)
    over = [{"expires_at": NOW - timedelta(days=2)}, {"last_used_at": NOW - timedelta(days=30)}]
    for index in range(14):
        await sessions.create_session(opened_by((ada, bob)[index % 2], **over[index // 2 % 2]))
    live = opened_by(ada)
    await sessions.create_session(live)
    await users.update_user(bob.id, is_active=False)

    removed = [await sessions.remove_finished(FINISHED, 5) for _ in range(4)]

    assert removed == [5, 5, 4, 0]
    assert await sessions.find_session(live.id) == live


async def test_a_session_renewed_under_a_sweeper_is_kept(
    sql_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = create_storage(ACLConfig(_env_file=None, **sql_settings))
    await opened.database.migrate()
    ada, some_ids = account(), SQLSessionRepository._find_ids
    idle = opened_by(ada, last_used_at=NOW - timedelta(days=8))
    await opened.users.create_user(ada)
    assert await opened.sessions.create_session(idle)

    async def then_renewed(self: SQLSessionRepository, *given: Any) -> set[str]:
        found = await some_ids(self, *given)
        assert await self.rotate(idle.id, "a" * 64, "b" * 64, lifetime(idle_since=NOW - timedelta(days=9)))
        return found

    monkeypatch.setattr(SQLSessionRepository, "_find_ids", then_renewed)

    assert await opened.sessions.remove_finished(FINISHED, 10) == 0
    assert await opened.sessions.find_session(idle.id) is not None
    await opened.database.close()


async def test_two_sweepers_at_once_remove_each_session_once(
    users: IAuthRepository, sessions: ISessionRepository
) -> None:
    ada = account()
    await users.create_user(ada)
    for _ in range(40):
        await sessions.create_session(opened_by(ada, expires_at=NOW - timedelta(days=2)))

    first = await asyncio.gather(*(sessions.remove_finished(FINISHED, 10) for _ in range(4)), return_exceptions=True)
    removed = sum(count for count in first if isinstance(count, int))
    while count := await sessions.remove_finished(FINISHED, 10):
        removed += count

    assert removed == 40
    assert all(isinstance(one, (int, DatabaseUnavailableError)) for one in first)


async def test_deleting_an_account_deletes_its_sessions(users: IAuthRepository, sessions: ISessionRepository) -> None:
    ada = account()
    await users.create_user(ada)
    session = opened_by(ada)
    assert await sessions.create_session(session)

    await users.delete_user(ada.id)

    assert await sessions.find_session(session.id) is None


async def test_repositories_join_the_ambient_transaction_and_leave_nothing_when_it_fails(
    database: AmbientDatabase, users: IAuthRepository, sessions: ISessionRepository
) -> None:
    ada = account()

    with pytest.raises(ZeroDivisionError):
        async with database.transaction():
            await users.create_user(ada)
            assert await sessions.create_session(opened_by(ada))
            assert (await users.update_user(ada.id, is_active=False)).session_version == 1
            assert (await users.get_by_id(ada.id)).is_active is False
            _ = 1 / 0

    with pytest.raises(UserNotFoundError):
        await users.get_by_username("ada")


async def test_a_read_does_not_wait_for_a_writer(database: AmbientDatabase, users: IAuthRepository) -> None:
    ada = account()
    await users.create_user(ada)

    entered, leave = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with database.transaction():
            await users.update_user(ada.id, is_active=False)
            entered.set()
            await leave.wait()

    writing = asyncio.create_task(write())
    await entered.wait()
    found = await asyncio.wait_for(users.get_by_id(ada.id), PATIENCE_SECONDS)
    leave.set()
    await writing

    assert found == ada
