"""Jusqu'où chercher : assez pour voir une faute, et bien plus loin avec `ACL_TEST_FULL=1` (`make test-full`)."""

from __future__ import annotations

import os
from typing import Final, TypeVar

IS_FULL: Final = os.environ.get("ACL_TEST_FULL") == "1"

T = TypeVar("T")


def effort(usual: T, full: T) -> T:
    """Rend ce qu'on fait d'ordinaire, ou tout ce qu'on sait faire : la même affirmation, plus de tirages."""
    return full if IS_FULL else usual
