"""Un ennui qui dure : dit quand il commence, de loin en loin, et quand il finit."""

from __future__ import annotations

import logging

import pytest

from fastapi_acl.shared import logging as ours
from fastapi_acl.shared.logging import Trouble, get_logger


@pytest.fixture
def trouble(caplog: pytest.LogCaptureFixture) -> Trouble:
    caplog.set_level(logging.INFO, "fastapi_acl")
    return Trouble(get_logger("essai"), "panne", "fin")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().partition(" en ")[0] for record in caplog.records]


def test_what_lasts_is_told_once_and_then_that_it_is_over(trouble: Trouble, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(50):
        trouble.goes_on("a", " age=7")
    trouble.is_over()
    trouble.is_over()
    trouble.goes_on("a")

    assert told(caplog) == ["panne: a age=7", "fin: 50 échecs", "panne: a"]


def test_another_reason_is_told_at_once_and_an_old_one_from_time_to_time(
    trouble: Trouble, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reason in ("a", "b", "a", "b"):
        trouble.goes_on(reason)
    monkeypatch.setattr(ours, "TELL_AGAIN_SECONDS", 0)
    trouble.goes_on("a")

    assert told(caplog) == ["panne: a", "panne: b (2 fois", "panne: a (5 fois"]
