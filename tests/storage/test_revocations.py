"""Les révocations en mémoire : elles durent plus que tout jeton, quoi que disent les horloges murales."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from fastapi_acl.runtime.storage import Storage
from fastapi_acl.shared.sync import revocations as module
from fastapi_acl.shared.sync.changes import ACCOUNT_REVOKED, KEPT, SESSION_REVOKED, Change
from fastapi_acl.shared.sync.revocations import CLOCK_MARGIN, Revocations
from tests.support.app import config

LIFE = timedelta(minutes=15)


@pytest.fixture
def elapsed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """L'horloge monotone, que l'essai avance."""
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    return clock


def memory() -> Revocations:
    log: Any = None
    return Revocations(log, LIFE)


def entry(session: str = "s", *, ago: timedelta = timedelta(), life: timedelta = LIFE) -> Change:
    at = datetime.now(timezone.utc) - ago
    return Change(
        revision=1, at=at, actor="essai", kind=SESSION_REVOKED, payload={"session_id": session}, live_until=at + life
    )


def account(version: int) -> Change:
    at = datetime.now(timezone.utc)
    payload = {"user_id": "u", "session_version": version}
    return Change(revision=1, at=at, actor="essai", kind=ACCOUNT_REVOKED, payload=payload, live_until=at + LIFE)


def refuses(found: Revocations, session: str = "s", version: int = 0) -> bool:
    return found.refuses(user_id="u", session_id=session, session_version=version)


@pytest.mark.parametrize("ago", [timedelta(), timedelta(hours=1), timedelta(hours=-1), timedelta(days=365)])
def test_what_the_wall_clock_says_of_an_entry_does_not_shorten_it(elapsed: SimpleNamespace, ago: timedelta) -> None:
    found = memory()
    found.apply(entry(ago=ago))

    elapsed.seconds = (LIFE + CLOCK_MARGIN).total_seconds() - 1
    found.apply(entry("autre"))

    assert refuses(found)


def test_an_entry_is_forgotten_once_no_token_can_be_alive(elapsed: SimpleNamespace) -> None:
    found = memory()
    found.apply(entry())
    found.apply(account(3))

    elapsed.seconds = (LIFE + CLOCK_MARGIN).total_seconds() + 1
    found.apply(entry("autre"))

    assert not refuses(found)
    assert refuses(found, "autre")
    assert (len(found._revoked.sessions), len(found._revoked.versions)) == (1, 0)


def test_an_entry_lasts_as_long_as_the_tokens_of_whoever_wrote_it(elapsed: SimpleNamespace) -> None:
    found = memory()
    found.apply(entry(life=timedelta(hours=5)))

    elapsed.seconds = timedelta(hours=5, minutes=59).total_seconds()
    found.apply(entry("autre"))

    assert refuses(found)


def test_a_version_learned_late_lowers_none(elapsed: SimpleNamespace) -> None:
    found = memory()
    found.apply(account(5))

    elapsed.seconds = 10
    found.apply(account(3))

    assert [refuses(found, version=version) for version in (4, 5)] == [True, False]


async def test_a_process_that_starts_with_a_clock_an_hour_ahead_reads_them_all(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with storage.database.transaction(log=True) as transaction:
        until = datetime.now(timezone.utc) + LIFE
        await storage.log.append(transaction, SESSION_REVOKED, {"session_id": "s"}, actor="x", live_until=until)
    found = Revocations(storage.log, LIFE)
    for name in ("sql_changes", "mongodb_changes"):
        late = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(hours=1, minutes=14))
        monkeypatch.setattr(f"fastapi_acl.shared.sync.{name}.datetime", late)

    async with storage.database.snapshot() as transaction:
        found.install(await found.read(transaction))

    assert refuses(found)


def test_the_log_keeps_them_longer_than_any_token_may_last() -> None:
    longest = config(jwt_access_token_expire_minutes=1_440, jwt_leeway_seconds=60)

    assert timedelta(minutes=longest.jwt_access_token_expire_minutes) + CLOCK_MARGIN <= KEPT
