"""Les cas d'usage, sur de vraies bases, avec plusieurs processus quand il le faut."""

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from jose import jwt

from fastapi_acl.auth.application.usecases.register import RegisterUseCase
from fastapi_acl.auth.application.usecases.sessions import LoginUseCase, SessionPolicy
from fastapi_acl.auth.domain.dtos.auth_dtos import LoginDTO, RegisterDTO, TokenDTO
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.auth.domain.entities.session import Session
from fastapi_acl.auth.infrastructure.services.password_hasher import BcryptPasswordHasher
from fastapi_acl.engine.writing.accounts import AccountRules
from fastapi_acl.shared.database.sql import SQLDatabase
from fastapi_acl.shared.exceptions import (
    ACLException,
    DatabaseUnavailableError,
    HashingSaturatedError,
    InvalidCredentialsError,
    InvalidEmailError,
    InvalidTokenError,
    InvalidUsernameError,
    LastAdministratorError,
    TokenReusedError,
    UserAlreadyExistsError,
    UserNotActiveError,
    UserNotFoundError,
    WeakPasswordError,
)
from fastapi_acl.shared.identity import SYSTEM, Principal
from fastapi_acl.shared.policy import PolicyRule
from fastapi_acl.shared.sync.changes import ACCOUNT_REVOKED
from tests.auth.conftest import AuthApi, process
from tests.support.app import ADMIN, PASSWORD, SECRET
from tests.support.byhand import age_sessions, all_of
from tests.support.waits import insisted


async def journal(auth: AuthApi) -> list[str]:
    entries = await auth.manager.get_policy_history().changes(limit=1_000)
    return [entry.kind for entry in entries if entry.kind.endswith("revoked")]


async def claims(auth: AuthApi, tokens: TokenDTO) -> Any:
    return auth.manager.get_token_service().decode_refresh_token(tokens.refresh_token)


async def closed(auth: AuthApi, *opened: TokenDTO) -> list[bool]:
    """Dit de chaque session si elle est fermée en base, quelle que soit la version de son compte."""
    found = [await auth.sessions.find_session((await claims(auth, tokens)).session_id) for tokens in opened]
    return [session is not None and session.revoked_at is not None for session in found]


async def outcome(call: Any) -> str:
    try:
        await call
    except ACLException as error:
        return error.code
    return "ok"


# --- inscription -------------------------------------------------------------------------------------------------


async def test_a_registered_account_logs_in_by_any_spelling_of_its_name(auth: AuthApi) -> None:
    ada = await auth.register("Ada")

    tokens = await auth.login("\uff21\uff24\uff21")

    assert (await auth.identify(tokens.access_token)).id == str(ada.id)
    assert (ada.is_active, ada.is_verified, ada.session_version) == (True, False, 0)
    assert ada.hashed_password.startswith("$bcrypt-sha256$v=2,t=2b,r=4$")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"username": "a:b"}, InvalidUsernameError),
        ({"email": "pas-une-adresse"}, InvalidEmailError),
        ({"password": "court"}, WeakPasswordError),
        ({"password": "demi-codet \ud800 isolé"}, WeakPasswordError),
    ],
)
async def test_a_refused_registration_hashes_and_stores_nothing(
    auth: AuthApi, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], error: type[ACLException]
) -> None:
    monkeypatch.setattr(BcryptPasswordHasher, "hash_password", None)
    request = {"username": "ada", "email": "ada@example.com", "password": PASSWORD, **changes}

    with pytest.raises(error):
        await auth.part(RegisterUseCase).execute(RegisterDTO(**request))

    assert [user.username for user in (await auth.users.list_users(limit=9)).items] == [ADMIN]


async def test_twenty_simultaneous_registrations_of_one_name_make_one_account(auth: AuthApi) -> None:
    outcomes = await asyncio.gather(*(outcome(insisted(lambda: auth.register("ada"))) for _ in range(20)))

    assert Counter(outcomes) == {"ok": 1, "user_already_exists": 19}


async def test_registration_does_not_tell_the_name_from_the_address(auth: AuthApi) -> None:
    await auth.register("ada")
    address = (await auth.users.get_by_username("ada")).email
    errors = []

    for username, email in (("ADA", "autre@example.com"), ("bob", address.upper())):
        with pytest.raises(UserAlreadyExistsError) as refused:
            await auth.part(RegisterUseCase).execute(RegisterDTO(username=username, email=email, password=PASSWORD))
        errors.append((refused.value.detail, refused.value.evidence))

    assert errors[0] == errors[1]


# --- connexion ---------------------------------------------------------------------------------------------------


REFUSED_LOGINS = [
    ("ada", "un autre mot de passe"),
    ("ada", ""),
    ("ada", "\ud800"),
    ("ada", "x" * 5000),
    ("bob", PASSWORD),
    ("a:b", PASSWORD),
    ("ada\x00", PASSWORD),
    ("\ud800", "\ud800"),
]


async def test_unknown_name_and_wrong_password_are_alike_in_answer_and_in_cost(
    auth: AuthApi, hash_costs: list[int]
) -> None:
    await auth.register("ada")
    seen = []

    for name, password in REFUSED_LOGINS:
        hash_costs.clear()
        with pytest.raises(InvalidCredentialsError) as refused:
            await auth.login(name, password)
        seen.append((refused.value.detail, tuple(refused.value.evidence), tuple(hash_costs)))

    assert set(seen) == {(InvalidCredentialsError.default_detail, (), (4,))}


async def test_no_account_is_told_by_the_work_its_refusal_costs(
    auth: AuthApi, database_settings: dict[str, Any], hash_costs: list[int]
) -> None:
    for name, rounds in (("cher", 7), ("ancien", 5)):
        hasher = BcryptPasswordHasher(rounds=rounds)
        await auth.users.create_user(AuthUser(username=name, hashed_password=await hasher.hash_password(PASSWORD)))
        hasher.close()
    await auth.users.create_user(AuthUser(username="sans", hashed_password="!"))
    await auth.users.create_user(AuthUser(username="trop", hashed_password="$bcrypt-sha256$v=2,t=2b,r=31$" + "a" * 54))
    inactive = await auth.register("inactive")
    await auth.register("ada")
    await auth.set_active(inactive.id, active=False)
    logins = [("inconnu", PASSWORD), ("ada", "faux"), ("cher", "faux"), ("ancien", "faux"), ("sans", PASSWORD)]
    logins += [
        ("trop", PASSWORD),
        ("inactive", "faux"),
        ("inactive", PASSWORD),
        ("ada\x00", PASSWORD),
        ("ada", PASSWORD),
    ]
    outcomes, spent = [], []

    async with process(database_settings) as started:
        for name, password in logins:
            hash_costs.clear()
            outcomes.append(await outcome(started.login(name, password)))
            spent.append(sum(2**cost for cost in hash_costs))

    assert outcomes == ["invalid_credentials"] * 7 + ["user_not_active", "invalid_credentials", "ok"]
    assert spent == [2**7] * len(logins)


async def test_a_deactivated_account_is_named_only_to_who_has_its_password(auth: AuthApi) -> None:
    ada = await auth.register("ada")
    await auth.set_active(ada.id, active=False)

    assert await outcome(auth.login("ada", "un autre mot de passe")) == "invalid_credentials"
    assert await outcome(auth.login("ada")) == "user_not_active"


@pytest.mark.parametrize("login_by", ["username", "email", "either"])
async def test_what_designates_an_account_at_login_is_a_setting(
    database_settings: dict[str, Any], login_by: str
) -> None:
    async with process({**database_settings, "login_by": login_by, "create_default_admin": False}) as auth:
        await auth.register("ada")
        address = (await auth.users.get_by_username("ada")).email

        outcomes = {text: await outcome(auth.login(text)) for text in ("ada", address, address.upper())}

    assert outcomes["ada"] == ("invalid_credentials" if login_by == "email" else "ok")
    assert outcomes[address] == outcomes[address.upper()]
    assert outcomes[address] == ("invalid_credentials" if login_by == "username" else "ok")


async def test_an_account_named_like_an_address_still_logs_in(auth: AuthApi) -> None:
    hasher = auth.manager.get_password_hasher()
    old = AuthUser(username="ada@example.com", hashed_password=await hasher.hash_password(PASSWORD))
    await auth.users.create_user(old)

    assert await outcome(auth.login("ada@example.com")) == "ok"


async def test_a_known_address_costs_the_reads_of_an_unknown_one(
    auth: AuthApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    for name in ("get_by_username", "get_by_email"):
        read = getattr(type(auth.users), name)

        def counted(users: Any, text: str, name: str = name, read: Any = read) -> Any:
            reads.append(name)
            return read(users, text)

        monkeypatch.setattr(type(auth.users), name, counted)
    await auth.register("ada")
    seen = []

    for text in ((await auth.users.get_by_username("ada")).email, "inconnue@example.com"):
        reads.clear()
        assert await outcome(auth.login(text, "faux")) == "invalid_credentials"
        seen.append([*reads])

    assert seen == [["get_by_username", "get_by_email"]] * 2


async def test_a_login_keeps_where_it_came_from(auth: AuthApi) -> None:
    await auth.register("ada")

    tokens = await auth.login("ada", user_agent="navigateur", ip="192.0.2.1")
    session = await auth.sessions.find_session((await claims(auth, tokens)).session_id)

    assert session is not None
    assert (session.user_agent, session.ip) == ("navigateur", "192.0.2.1")
    assert tokens.expires_in == 900


async def test_only_a_digest_of_the_refresh_identifier_is_stored(auth: AuthApi) -> None:
    await auth.register("ada")

    tokens = await auth.login()
    identifier = (await claims(auth, tokens)).token_id
    rows = await all_of(auth.manager._parts.storage, "acl_sessions")

    assert len(identifier) >= 43, "256 bits en base64"
    assert len(rows) == 1
    assert all(identifier not in str(column) and tokens.refresh_token != column for column in rows[0].values())


async def test_an_old_cost_is_brought_up_at_login_and_the_password_still_works(auth: AuthApi) -> None:
    old = BcryptPasswordHasher(rounds=5)
    ada = AuthUser(username="ada", hashed_password=await old.hash_password(PASSWORD))
    old.close()
    await auth.users.create_user(ada)

    await auth.login()
    hashed = (await auth.users.get_by_id(ada.id)).hashed_password

    assert "r=4$" in hashed
    assert await outcome(auth.login()) == "ok"


async def test_a_full_queue_at_rehashing_does_not_refuse_a_right_password(
    auth: AuthApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await auth.register("ada")

    async def saturated(*_: object) -> str:
        raise HashingSaturatedError

    monkeypatch.setattr(BcryptPasswordHasher, "hash_password", saturated)
    monkeypatch.setattr(BcryptPasswordHasher, "needs_rehash", lambda *_: True)

    assert await outcome(auth.login()) == "ok"
    assert (await auth.users.get_by_id(ada.id)).hashed_password == ada.hashed_password


@pytest.mark.parametrize(
    ("meanwhile", "code"),
    [("deactivated", "user_not_active"), ("deleted", "invalid_credentials"), ("everywhere", "invalid_credentials")],
)
async def test_an_account_that_changes_during_the_hash_gets_no_session(
    auth: AuthApi, monkeypatch: pytest.MonkeyPatch, meanwhile: str, code: str
) -> None:
    ada = await auth.register("ada")
    verify = BcryptPasswordHasher.verify_password

    async def slowly(self: BcryptPasswordHasher, password: str, hashed: str | None) -> bool:
        right = await verify(self, password, hashed)
        if meanwhile == "deactivated":
            await auth.set_active(ada.id, active=False)
        elif meanwhile == "deleted":
            await auth.delete(ada.id)
        else:
            await auth.logout(Principal(id=str(ada.id)), everywhere=True)
        return right

    monkeypatch.setattr(BcryptPasswordHasher, "verify_password", slowly)

    assert await outcome(auth.login()) == code


async def test_no_connection_is_held_while_hashing(auth: AuthApi, monkeypatch: pytest.MonkeyPatch) -> None:
    await auth.register("ada")
    held: list[object] = []
    verify = BcryptPasswordHasher.verify_password
    database = auth.manager._parts.database

    async def watched(self: BcryptPasswordHasher, password: str, hashed: str | None) -> bool:
        pool = database.engine.pool if isinstance(database, SQLDatabase) else None
        held.extend([database._ambient.get(), getattr(pool, "checkedout", int)()])
        return await verify(self, password, hashed)

    monkeypatch.setattr(BcryptPasswordHasher, "verify_password", watched)
    await auth.login()

    assert held == [None, 0]


# --- renouvellement ----------------------------------------------------------------------------------------------


async def test_a_refresh_gives_a_new_pair_of_the_same_session(auth: AuthApi) -> None:
    await auth.register("ada")
    first = await auth.login()

    second = await auth.refresh(first.refresh_token)
    third = await auth.refresh(second.refresh_token)

    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert len({(await claims(auth, tokens)).session_id for tokens in (first, second, third)}) == 1
    assert await auth.identify(third.access_token) == await auth.identify(first.access_token)


@pytest.mark.parametrize("generations", [1, 2, 5])
async def test_a_spent_token_closes_the_session_everywhere(
    auth: AuthApi, database_settings: dict[str, Any], generations: int
) -> None:
    await auth.register("ada")
    stolen = newest = await auth.login()
    for _ in range(generations):
        newest = await auth.refresh(newest.refresh_token)

    async with process(database_settings) as another:
        assert await outcome(another.refresh(stolen.refresh_token)) == "token_reused"
        with pytest.raises(InvalidTokenError):
            await another.identify(newest.access_token)
    await auth.catch_up()

    assert await outcome(auth.identify(newest.access_token)) == "invalid_token"
    assert await outcome(auth.refresh(newest.refresh_token)) == "invalid_token"
    assert await outcome(auth.refresh(stolen.refresh_token)) == "token_reused"
    assert await journal(auth) == ["session_revoked"]


async def test_one_of_fifty_simultaneous_refreshes_wins_and_the_reuse_revokes(
    auth: AuthApi, database_settings: dict[str, Any]
) -> None:
    await auth.register("ada")
    tokens = await auth.login()

    refreshes = (insisted(lambda: auth.refresh(tokens.refresh_token)) for _ in range(50))
    outcomes = await asyncio.gather(*(outcome(refresh) for refresh in refreshes))
    session = await auth.sessions.find_session((await claims(auth, tokens)).session_id)

    assert Counter(outcomes) == {"ok": 1, "token_reused": 49}
    assert session is not None
    assert session.revoked_at is not None
    assert await outcome(auth.identify(tokens.access_token)) == "invalid_token"
    async with process(database_settings) as restarted:
        assert await outcome(restarted.identify(tokens.access_token)) == "invalid_token"
        assert await outcome(restarted.refresh(tokens.refresh_token)) == "token_reused"


async def test_a_renewal_once_made_asks_the_base_nothing_more(auth: AuthApi, monkeypatch: pytest.MonkeyPatch) -> None:
    await auth.register("ada")
    tokens, kind = await auth.login(), type(auth.sessions)
    rotate = kind.rotate

    async def silent(*_: Any) -> None:
        raise DatabaseUnavailableError

    async def rotate_then_fall_silent(*given: Any) -> bool:
        done = await rotate(*given)
        monkeypatch.setattr(kind, "find_session", silent)
        return done

    monkeypatch.setattr(kind, "rotate", rotate_then_fall_silent)
    renewed = await auth.refresh(tokens.refresh_token)
    monkeypatch.undo()

    assert await outcome(auth.refresh(renewed.refresh_token)) == "ok"


async def test_two_simultaneous_refreshes_always_revoke_without_grace(auth: AuthApi) -> None:
    await auth.register("ada")

    for _ in range(10):
        tokens = await auth.login()
        outcomes = await asyncio.gather(*(outcome(auth.refresh(tokens.refresh_token)) for _ in range(2)))
        assert sorted(outcomes) == ["ok", "token_reused"]


async def test_the_loser_of_a_race_within_the_grace_is_refused_without_revocation(
    database_settings: dict[str, Any],
) -> None:
    async with process({**database_settings, "jwt_refresh_grace_seconds": 30}) as auth:
        await auth.register("ada")
        first = await auth.login()
        second = await auth.refresh(first.refresh_token)

        assert await outcome(auth.refresh(first.refresh_token)) == "invalid_token"
        assert await outcome(auth.identify(second.access_token)) == "ok"
        third = await auth.refresh(second.refresh_token)
        assert await outcome(auth.refresh(first.refresh_token)) == "token_reused", "la grâce ne vaut que d'un rang"
        assert await outcome(auth.refresh(third.refresh_token)) == "invalid_token"


async def test_the_grace_ends(database_settings: dict[str, Any]) -> None:
    async with process({**database_settings, "jwt_refresh_grace_seconds": 5}) as auth:
        await auth.register("ada")
        first = await auth.login()
        await auth.refresh(first.refresh_token)
        past = datetime.now(timezone.utc) - timedelta(seconds=6)
        await age_sessions(auth.manager._parts.storage, rotated_at=past)

        assert await outcome(auth.refresh(first.refresh_token)) == "token_reused"


async def test_the_absolute_end_is_never_pushed_back_and_bounds_the_refresh_token(
    database_settings: dict[str, Any],
) -> None:
    async with process({**database_settings, "session_absolute_days": 1}) as auth:
        await auth.register("ada")
        first = await auth.login()
        before = await auth.sessions.find_session((await claims(auth, first)).session_id)
        second = await auth.refresh(first.refresh_token)
        after = await auth.sessions.find_session((await claims(auth, second)).session_id)

        assert before is not None
        assert after is not None
        assert before.expires_at == after.expires_at
        assert _expiry(second.refresh_token) == int(before.expires_at.timestamp())


def _expiry(token: str) -> int:
    return int(jwt.get_unverified_claims(token)["exp"])


@pytest.mark.parametrize("column", ["expires_at", "last_used_at"])
async def test_an_ended_session_is_refused_but_not_taken_for_theft(auth: AuthApi, column: str) -> None:
    await auth.register("ada")
    tokens = await auth.login()
    past = datetime.now(timezone.utc) - timedelta(days=400)
    await age_sessions(auth.manager._parts.storage, **{column: past})

    assert await outcome(auth.refresh(tokens.refresh_token)) == "invalid_token"
    assert await journal(auth) == []


async def test_a_token_of_a_session_that_is_gone_is_refused(auth: AuthApi) -> None:
    ada = await auth.register("ada")
    tokens = await auth.login()
    await auth.delete(ada.id)

    assert await outcome(auth.refresh(tokens.refresh_token)) == "invalid_token"
    assert await outcome(auth.refresh(tokens.access_token)) == "invalid_token"
    assert await outcome(auth.refresh("n'importe quoi")) == "invalid_token"


async def test_a_token_that_names_the_session_of_another_is_refused(auth: AuthApi) -> None:
    await auth.register("ada")
    bob, known = await auth.register("bob"), await claims(auth, await auth.login("ada"))
    end = datetime.now(timezone.utc) + timedelta(days=1)

    mixed = auth.manager.get_token_service().create_refresh_token(replace(known, user_id=bob.id), not_after=end)

    assert await outcome(auth.refresh(mixed)) == "invalid_token"


async def test_the_revocation_of_a_stolen_session_survives_the_error(auth: AuthApi) -> None:
    await auth.register("ada")
    first = await auth.login()
    await auth.refresh(first.refresh_token)

    with pytest.raises(TokenReusedError):
        await auth.refresh(first.refresh_token)
    session = await auth.sessions.find_session((await claims(auth, first)).session_id)

    assert session is not None
    assert session.revoked_at is not None
    assert await journal(auth) == ["session_revoked"]


def test_without_grace_no_clock_excuses_a_spent_token() -> None:
    policy = SessionPolicy(idle=timedelta(days=1), absolute=timedelta(days=1))
    now = datetime.now(timezone.utc)
    session = Session(
        id=uuid4(), user_id=uuid4(), session_version=0, refresh_digest="b", created_at=now, last_used_at=now,
        expires_at=now, previous_digest="a", rotated_at=now + timedelta(hours=1),
    )  # fmt: skip

    assert not policy.excuses(session, "a")


# --- déconnexion -------------------------------------------------------------------------------------------------


async def test_logout_stops_one_session_in_every_process(auth: AuthApi, database_settings: dict[str, Any]) -> None:
    await auth.register("ada")
    here, there = await auth.login(), await auth.login()

    async with process(database_settings) as another:
        await auth.logout(await auth.identify(here.access_token))
        await another.catch_up()

        for api in (auth, another):
            assert await outcome(api.identify(here.access_token)) == "invalid_token"
            assert await outcome(api.identify(there.access_token)) == "ok"
    assert await outcome(auth.refresh(here.refresh_token)) == "invalid_token"
    assert await outcome(auth.refresh(there.refresh_token)) == "ok"


async def test_logout_everywhere_stops_all_sessions_of_the_account_only(auth: AuthApi) -> None:
    await auth.register("ada")
    await auth.register("bob")
    first, second, other = await auth.login(), await auth.login(), await auth.login("bob")

    await auth.logout(await auth.identify(first.access_token), everywhere=True)

    assert [await outcome(auth.identify(t.access_token)) for t in (first, second, other)] == ["invalid_token"] * 2 + [
        "ok"
    ]
    assert [await outcome(auth.refresh(t.refresh_token)) for t in (first, second)] == ["invalid_token"] * 2
    assert await closed(auth, first, second, other) == [True, True, False]
    assert await outcome(auth.login()) == "ok"


async def test_logging_out_twice_journals_once(auth: AuthApi) -> None:
    await auth.register("ada")
    principal = await auth.identify((await auth.login()).access_token)

    await auth.logout(principal)
    await auth.logout(principal)

    assert await journal(auth) == ["session_revoked"]


async def test_logout_of_a_vanished_account_or_of_a_foreign_identity_harms_nothing(auth: AuthApi) -> None:
    await auth.logout(Principal(id=str(uuid4())), everywhere=True)
    await auth.logout(Principal(id="étranger"))

    for principal, everywhere in ((Principal(id="étranger"), True), (Principal(id="x", session_id="étrangère"), False)):
        with pytest.raises(InvalidTokenError):
            await auth.logout(principal, everywhere=everywhere)
    assert await journal(auth) == []


async def test_a_token_lives_as_long_as_is_set_and_is_read_by_the_key_before(
    database_settings: dict[str, Any],
) -> None:
    async with process({**database_settings, "jwt_access_token_expire_minutes": 30}) as auth:
        await auth.register("ada")
        tokens = await auth.login()
    known = jwt.get_unverified_claims(tokens.access_token)
    async with process({**database_settings, "jwt_secret_key": "n" * 48, "jwt_previous_keys": [SECRET]}) as renewed:
        assert await outcome(renewed.identify(tokens.access_token)) == "ok"

    assert tokens.expires_in == known["exp"] - known["iat"] == 30 * 60


# --- administration ----------------------------------------------------------------------------------------------


async def test_deactivation_stops_everything_and_activation_revives_no_token(auth: AuthApi) -> None:
    ada = await auth.register("ada")
    tokens = await auth.login()

    off = await auth.set_active(ada.id, active=False)
    again = await auth.set_active(ada.id, active=False)
    on = await auth.set_active(ada.id, active=True)

    assert (off.session_version, again.session_version, on.session_version) == (1, 1, 1)
    assert await journal(auth) == ["account_revoked"]
    assert await closed(auth, tokens) == [True]
    assert await outcome(auth.identify(tokens.access_token)) == "invalid_token"
    assert await outcome(auth.refresh(tokens.refresh_token)) == "invalid_token"
    assert await outcome(auth.identify((await auth.login()).access_token)) == "ok"


async def test_a_revocation_is_live_for_as_long_as_the_tokens_of_who_wrote_it(
    database_settings: dict[str, Any],
) -> None:
    settings = {"jwt_access_token_expire_minutes": 600, "jwt_leeway_seconds": 60}
    async with process({**database_settings, **settings}) as auth:
        ada = await auth.register("ada")
        await auth.set_active(ada.id, active=False)
        entry = (await auth.manager.get_policy_history().changes(limit=1_000))[-1]

    assert entry.kind == ACCOUNT_REVOKED
    assert entry.live_until is not None
    assert entry.live_until - entry.at >= timedelta(minutes=600 + 2), "la tolérance vaut à la signature et à la lecture"


async def test_deactivation_wins_over_logins_and_refreshes_in_flight(
    auth: AuthApi, database_settings: dict[str, Any]
) -> None:
    ada = await auth.register("ada")
    sessions = [await auth.login() for _ in range(10)]
    kept: list[TokenDTO] = []

    async def keep(call: Any) -> None:
        try:
            kept.append(await call)
        except (InvalidTokenError, TokenReusedError, UserNotActiveError, InvalidCredentialsError):
            return

    await asyncio.gather(
        *(keep(auth.refresh(tokens.refresh_token)) for tokens in sessions),
        *(keep(auth.login()) for _ in range(10)),
        auth.set_active(ada.id, active=False),
    )
    async with process(database_settings) as another:
        for tokens in [*sessions, *kept]:
            for api in (auth, another):
                assert await outcome(api.identify(tokens.access_token)) == "invalid_token"
                assert await outcome(api.refresh(tokens.refresh_token)) != "ok"


async def test_deletion_takes_the_account_its_sessions_and_its_rules_in_one_transaction(auth: AuthApi) -> None:
    ada = await auth.register("ada")
    tokens = await auth.login()
    policy = auth.manager.get_policy()
    rules = [("p", f"user:{ada.id}", "document", "read", "allow"), ("g", f"user:{ada.id}", "role:reader")]
    for ptype, *values in rules:
        await auth.manager.get_enforcer()._add_policy(ptype[0], ptype, values)

    await auth.delete(ada.id)

    assert not [rule for rule in policy.rules if f"user:{ada.id}" in rule.values]
    assert await outcome(auth.identify(tokens.access_token)) == "invalid_token"
    with pytest.raises(UserNotFoundError):
        await auth.users.get_by_username("ada")
    assert await auth.sessions.find_session((await claims(auth, tokens)).session_id) is None


async def test_a_deletion_that_fails_midway_changes_nothing(auth: AuthApi, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await auth.register("ada")
    tokens = await auth.login()
    await auth.manager.get_enforcer()._add_policy("p", "p", [f"user:{ada.id}", "document", "read", "allow"])

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(AccountRules, "remove_subject", broken)
    with pytest.raises(ZeroDivisionError):
        await auth.delete(ada.id)

    assert await auth.users.get_by_id(ada.id) == ada
    assert PolicyRule.of("p", [f"user:{ada.id}", "document", "read", "allow"]) in auth.manager.get_policy().rules
    assert await outcome(auth.identify(tokens.access_token)) == "ok"
    assert await outcome(auth.refresh(tokens.refresh_token)) == "ok"
    assert await journal(auth) == []


@pytest.mark.parametrize("how", ["deactivate", "delete"])
async def test_the_last_administrator_is_neither_deactivated_nor_deleted(auth: AuthApi, how: str) -> None:
    admin = await auth.users.get_by_username(ADMIN)

    with pytest.raises(LastAdministratorError):
        await (auth.delete(admin.id) if how == "delete" else auth.set_active(admin.id, active=False))

    assert await auth.users.get_by_id(admin.id) == admin


async def test_an_unknown_account_is_neither_changed_nor_deleted(auth: AuthApi) -> None:
    for call in (auth.set_active(uuid4(), active=True), auth.set_active(uuid4(), active=False), auth.delete(uuid4())):
        with pytest.raises(UserNotFoundError):
            await call

    assert await journal(auth) == []


# --- secrets -----------------------------------------------------------------------------------------------------


async def test_no_secret_reaches_a_log_or_a_representation(auth: AuthApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    login = LoginDTO(username="ada", password=PASSWORD)
    registration = RegisterDTO(username="ada", email="ada@example.com", password=PASSWORD)

    ada = await auth.part(RegisterUseCase).execute(registration)
    tokens = await auth.part(LoginUseCase).execute(login)
    renewed = await auth.refresh(tokens.refresh_token)
    await outcome(auth.login("ada", "faux mot de passe secret"))
    await outcome(auth.refresh(tokens.refresh_token))
    read = await claims(auth, tokens)
    session = await auth.sessions.find_session(read.session_id)

    shown = caplog.text + repr([login, registration, ada, tokens, renewed, read, session, auth.manager.config])
    kept = [PASSWORD, "faux mot de passe", SECRET, ada.hashed_password, tokens.refresh_token, read.token_id]
    assert session is not None
    assert not [secret for secret in [*kept, tokens.access_token, session.refresh_digest] if secret in shown]


async def test_the_identity_of_a_token_is_its_account_and_session_only(auth: AuthApi) -> None:
    ada = await auth.register("ada")
    tokens = await auth.login()

    principal = await auth.identify(tokens.access_token)

    assert principal.id == str(ada.id)
    assert UUID(principal.session_id or "") == (await claims(auth, tokens)).session_id
    assert dict(principal.claims) == {}
    assert principal is not SYSTEM
