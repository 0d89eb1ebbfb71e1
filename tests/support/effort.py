"""Jusqu'où chercher : assez pour voir une faute, et bien plus loin avec `ACL_TEST_FULL=1` (`make test-full`)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, TypeVar

IS_FULL: Final = os.environ.get("ACL_TEST_FULL") == "1"

T = TypeVar("T")


def effort(usual: T, full: T) -> T:
    """Rend ce qu'on fait d'ordinaire, ou tout ce qu'on sait faire : la même affirmation, plus de tirages."""
    return full if IS_FULL else usual


def shared_out(cases: Iterable[T], part: int, parts: int) -> list[T]:
    """Rend d'ordinaire la part d'une base, quand chacune éprouve les siens et toutes ensemble tous ; sinon, tous.

    Args:
        cases: ce qu'il y a à éprouver.
        part: rang de cette part, à partir de zéro.
        parts: nombre de parts.
    """
    return [case for place, case in enumerate(cases) if IS_FULL or place % parts == part]
