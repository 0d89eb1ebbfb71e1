"""Les annonces : scellées, coupées à la taille du transport, et relues telles quelles."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_acl.shared.sync import announcements
from fastapi_acl.shared.sync.announcements import SEAL_BYTES, Announcement, Sealer
from fastapi_acl.shared.sync.changes import Change
from fastapi_acl.shared.sync.replica import Position


def announcement(revision: int, payload: Any = None) -> Announcement:
    change = Change(
        revision=revision, at=datetime.now(timezone.utc), actor="user:ada", kind="policy_changed", payload=payload or {}
    )
    return Announcement(Position("log", revision - 1, str(uuid4())), change)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=4), st.booleans())
def test_what_is_sealed_is_read_back(payload: dict[str, str], lives: bool) -> None:
    one = announcement(7, payload)
    until = datetime.now(timezone.utc) if lives else None
    one = one._replace(change=Change(**{**_fields(one.change), "live_until": until}))

    (message,) = Sealer(["secret"]).seal([one], 10_000, "ici")

    assert Sealer(["secret"]).unseal(message, "ici") == [one]


def _fields(change: Change) -> dict[str, Any]:
    return {name: getattr(change, name) for name in Change.__dataclass_fields__}


def test_a_burst_fits_in_messages_of_the_size_of_the_transport() -> None:
    burst = [announcement(number, {"text": "é" * number}) for number in range(1, 200)]

    messages = list(Sealer(["secret"]).seal(burst, 7_900, "ici"))

    assert all(len(message) <= 7_900 for message in messages)
    assert [one for message in messages for one in Sealer(["secret"]).unseal(message, "ici") or ()] == burst
    assert len(messages) < 40


def test_too_long_a_change_is_announced_without_its_content() -> None:
    (message,) = Sealer(["secret"]).seal([announcement(7, {"text": "x" * 10_000})], 7_900, "ici")

    (read,) = Sealer(["secret"]).unseal(message, "ici") or []
    assert (read.change.revision, read.change.payload) == (7, {})
    assert read.before.change_id == "-"


def test_a_seal_of_another_secret_or_of_another_content_is_refused() -> None:
    (message,) = Sealer(["secret"]).seal([announcement(7)], 7_900, "ici")

    assert Sealer(["other"]).unseal(message, "ici") is None
    for place in range(len(message)):
        changed = message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]
        assert Sealer(["secret"]).unseal(changed, "ici") is None
    assert Sealer(["secret"]).unseal(message[SEAL_BYTES:], "ici") is None


def test_a_seal_made_for_another_base_is_refused() -> None:
    (message,) = Sealer(["secret"]).seal([announcement(7)], 7_900, "ici")

    assert Sealer(["secret"]).unseal(message, "ailleurs") is None


def test_an_older_secret_still_counts() -> None:
    (message,) = Sealer(["old"]).seal([announcement(7)], 7_900, "ici")

    assert Sealer(["new", "old"]).unseal(message, "ici")


@pytest.mark.parametrize("body", [b"", b"7", b"{}", b"[7]", b'[{"before": 3}]', b"\xff", b"[" * 100_000, b"null"])
def test_a_sealed_message_that_cannot_be_read_is_ignored(body: bytes) -> None:
    sealer = Sealer(["secret"])
    message = announcements._seal(sealer._envelope("ici")._keys[0], body) + body

    assert not sealer.unseal(message, "ici")


def test_the_secret_is_not_in_the_message() -> None:
    (message,) = Sealer(["un secret bien gardé"]).seal([announcement(7)], 7_900, "ici")

    assert b"secret" not in message
    assert json.loads(message[SEAL_BYTES:])[0]["actor"] == "user:ada"
