"""Les jetons retenus : la signature se vérifie une fois, l'échéance et la révocation à chaque présentation."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from jose import jws

from fastapi_acl.auth.infrastructure.services import token_service, verified_tokens
from fastapi_acl.auth.infrastructure.services.access import JWTAuthenticator
from fastapi_acl.auth.infrastructure.services.token_service import JWTTokenService, TokenSettings
from fastapi_acl.auth.infrastructure.services.verified_tokens import (
    CAPACITY,
    VerifiedToken,
    VerifiedTokens,
    compute_fingerprint,
)
from fastapi_acl.shared.exceptions import InvalidTokenError
from fastapi_acl.shared.identity import Principal
from fastapi_acl.shared.sync.changes import ACCOUNT_REVOKED, SESSION_REVOKED, Change
from fastapi_acl.shared.sync.revocations import Revocations

SETTINGS = TokenSettings(
    algorithm="HS256",
    secret="une clé d'essai de plus de trente-deux octets",
    issuer="émetteur",
    audience="destinataire",
    access_lifetime=900,
    refresh_lifetime=3600,
    leeway=10,
)
NEW_SECRET = "la clé nouvelle, de trente-deux octets au moins"
USER, SESSION = uuid4(), uuid4()


class Signatures:
    """Compte les signatures vraiment vérifiées."""

    def __init__(self) -> None:
        self.verified = 0
        self._verify = jws.verify

    def verify(self, *arguments: Any) -> Any:
        self.verified += 1
        return self._verify(*arguments)


class Clock:
    """L'horloge murale, que l'essai avance et recule, et la monotone, qui ne recule pas."""

    def __init__(self) -> None:
        self.now = self.furthest = time.time()

    def time(self) -> float:
        self.monotonic()
        return self.now

    def monotonic(self) -> float:
        self.furthest = max(self.furthest, self.now)
        return self.furthest


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> Signatures:
    spy = Signatures()
    monkeypatch.setattr(jws, "verify", spy.verify)
    return spy


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    found = Clock()
    for module in (verified_tokens, token_service):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=found.time, monotonic=found.monotonic))
    return found


def process(settings: TokenSettings = SETTINGS, capacity: int = CAPACITY) -> JWTAuthenticator:
    """Ce qu'un manager emploie : un service, des révocations et une mémoire à lui."""
    log: Any = None
    return JWTAuthenticator(
        JWTTokenService(settings), Revocations(log, timedelta(minutes=15)), VerifiedTokens(capacity)
    )


def issue(authenticator: JWTAuthenticator, user: UUID = USER, session: UUID = SESSION, version: int = 3) -> str:
    return authenticator.tokens.create_access_token(user_id=user, session_id=session, session_version=version)


def revoke(authenticator: JWTAuthenticator, kind: str, **payload: Any) -> None:
    now = datetime.now(timezone.utc)
    authenticator.revocations.apply(
        Change(revision=1, kind=kind, payload=payload, actor="essai", at=now, live_until=now + timedelta(hours=1))
    )


async def refuses(authenticator: JWTAuthenticator, token: str) -> bool:
    try:
        await authenticator.authenticate(token)
    except InvalidTokenError:
        return True
    return False


async def test_a_signature_is_verified_once_and_the_identity_stays_the_same(signatures: Signatures) -> None:
    authenticator = process()
    token = issue(authenticator)

    found = {await authenticator.authenticate(token) for _ in range(100)}

    assert found == {Principal(id=str(USER), session_id=str(SESSION), session_version=3)}
    assert signatures.verified == 1


async def test_a_remembered_token_is_refused_once_expired_and_not_a_second_before(clock: Clock) -> None:
    authenticator = process()
    token = issue(authenticator)
    await authenticator.authenticate(token)
    end = int(clock.now) + SETTINGS.access_lifetime + SETTINGS.leeway

    clock.now = end - 0.5
    assert not await refuses(authenticator, token)
    clock.now = end
    assert await refuses(authenticator, token)
    clock.now = end + 3600
    assert await refuses(authenticator, token)


async def test_a_remembered_token_has_the_window_of_a_token_seen_for_the_first_time(clock: Clock) -> None:
    authenticator = process()
    token, issued_at = issue(authenticator), int(clock.now)
    await authenticator.authenticate(token)

    for ahead in (-3600, -11, -10, -9, 0, 899, 909, 909.5, 910, 911, 3600):
        clock.now = issued_at + ahead
        assert await refuses(authenticator, token) == await refuses(process(), token), ahead


async def test_a_remembered_token_is_refused_while_the_clock_is_before_its_issue(clock: Clock) -> None:
    authenticator = process()
    token = issue(authenticator)
    await authenticator.authenticate(token)

    clock.now -= 3600
    assert await refuses(authenticator, token)
    clock.now += 3600
    assert not await refuses(authenticator, token)


@pytest.mark.parametrize("nbf", [300, 300.5])
async def test_a_remembered_token_is_refused_while_the_clock_is_before_its_nbf(clock: Clock, nbf: float) -> None:
    authenticator = process()
    claims = jws.get_unverified_claims(issue(authenticator))
    body = {**json.loads(claims), "nbf": clock.now + nbf if isinstance(nbf, float) else int(clock.now) + nbf}
    headers = {"typ": "at+jwt", "kid": authenticator.tokens._kid}
    token = jws.sign(body, SETTINGS.secret, headers=headers, algorithm="HS256")
    start, outcomes = clock.now, []

    for moment in (0, 280, 295, 280, 295):
        clock.now = start + moment
        outcomes.append(await refuses(authenticator, token))

    assert outcomes == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (SESSION_REVOKED, {"session_id": str(SESSION)}),
        (ACCOUNT_REVOKED, {"user_id": str(USER), "session_version": 4}),
    ],
)
async def test_a_remembered_token_is_refused_as_soon_as_it_is_revoked(kind: str, payload: dict[str, Any]) -> None:
    authenticator = process()
    token, other = issue(authenticator), issue(authenticator, uuid4(), uuid4())
    await authenticator.authenticate(token)

    revoke(authenticator, kind, **payload)

    assert await refuses(authenticator, token)
    assert not await refuses(authenticator, other)


async def test_no_bit_of_a_remembered_token_can_be_changed() -> None:
    authenticator = process()
    token = issue(authenticator)
    await authenticator.authenticate(token)

    for place, character in enumerate(token):
        for bit in range(8):
            changed = token[:place] + chr(ord(character) ^ (1 << bit)) + token[place + 1 :]
            assert await refuses(authenticator, changed), (place, bit)
    assert len(authenticator.known) == 1


async def test_a_refused_token_is_never_remembered(clock: Clock) -> None:
    authenticator, other = process(), process(replace(SETTINGS, secret=NEW_SECRET))
    expired, revoked = issue(authenticator), issue(authenticator, uuid4(), session := uuid4())
    revoke(authenticator, SESSION_REVOKED, session_id=str(session))
    refused = [revoked, issue(other), "", "a.b.c", "é", "\ud800", "x" * 8193, "Bearer"]

    assert all([await refuses(authenticator, token) for token in refused])
    clock.now += 3600
    assert await refuses(authenticator, expired)

    assert len(authenticator.known) == 0


async def test_a_hundred_thousand_random_tokens_do_not_evict_a_good_one(signatures: Signatures) -> None:
    authenticator = process()
    good = issue(authenticator)
    await authenticator.authenticate(good)
    signed = good.rpartition(".")[0]
    verified = signatures.verified

    for _ in range(100_000):
        assert await refuses(authenticator, f"a.b.{secrets.token_urlsafe(32)}")
    for _ in range(1_000):
        assert await refuses(authenticator, f"{signed}.{secrets.token_urlsafe(32)}")
    await authenticator.authenticate(good)

    assert signatures.verified == verified + 1_000, "ceux de la dernière sorte seuls vont jusqu'à la signature"
    assert len(authenticator.known) == 1


async def test_the_memory_is_bounded_and_keeps_the_tokens_in_use(signatures: Signatures) -> None:
    authenticator = process(capacity=20)
    used = issue(authenticator)

    for _ in range(200):
        await authenticator.authenticate(used)
        await authenticator.authenticate(issue(authenticator))
        assert len(authenticator.known) <= 20

    assert signatures.verified == 201


async def test_the_memory_never_holds_more_than_its_capacity() -> None:
    memory = VerifiedTokens(capacity=1_000)
    token = VerifiedToken.of(Principal(id="ada"), 0, 1)

    for number in range(5_000):
        memory.add(compute_fingerprint(str(number)), token)
        assert memory.find(compute_fingerprint(str(number // 2))) in {token, None}
        assert len(memory) <= 1_000


async def test_two_managers_of_one_process_share_nothing(signatures: Signatures) -> None:
    first, second = process(), process()
    token = issue(first)

    await first.authenticate(token)
    await second.authenticate(token)

    assert signatures.verified == 2


async def test_a_token_remembered_before_its_key_was_removed_is_refused_by_the_manager_made_since() -> None:
    before = process()
    rotated = process(replace(SETTINGS, secret=NEW_SECRET, previous_secrets=[SETTINGS.secret]))
    removed = process(replace(SETTINGS, secret=NEW_SECRET))
    token = issue(before)

    assert not await refuses(before, token)
    assert not await refuses(rotated, token)
    assert await refuses(removed, token)


async def test_neither_the_token_nor_whose_it_is_shows_in_the_memory() -> None:
    authenticator = process()
    token = issue(authenticator)
    await authenticator.authenticate(token)

    for shown in (repr(authenticator), repr(authenticator.known)):
        assert not any(
            part in shown for part in (token, token.split(".")[2], str(USER), compute_fingerprint(token).hex())
        )
    kept = [*authenticator.known._young, *authenticator.known._old]
    assert kept == [compute_fingerprint(token)]


async def test_a_life_made_shorter_holds_for_tokens_already_signed(clock: Clock) -> None:
    token = issue(process())
    shorter = process(replace(SETTINGS, access_lifetime=60))
    assert not await refuses(shorter, token)

    clock.now += 60 + SETTINGS.leeway

    assert await refuses(shorter, token)
    assert not await refuses(process(), token)


async def test_an_expired_token_stays_expired_when_the_clock_goes_back(clock: Clock) -> None:
    authenticator = process()
    token, issued = issue(authenticator), clock.now
    await authenticator.authenticate(token)
    clock.now = issued + SETTINGS.access_lifetime + SETTINGS.leeway + 1
    assert await refuses(authenticator, token)

    clock.now = issued + 10

    assert await refuses(authenticator, token)
    assert not await refuses(authenticator, issue(authenticator))
