"""Attendre sans rien affirmer de la vitesse : une machine chargée met plus de temps, et n'a pas tort pour autant."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from fastapi_acl.shared.exceptions import DatabaseUnavailableError

PATIENCE_SECONDS: Final = 60.0
"""Temps au bout duquel ce qu'on attend ne viendra plus."""

Found = TypeVar("Found")


async def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS, *, pause: float = 0.01) -> None:
    """Attend qu'une chose, qui se lit ou se demande, soit vraie."""

    async def wait() -> None:
        while not await _value(condition()):
            await asyncio.sleep(pause)

    await asyncio.wait_for(wait(), seconds)


def until_outside(condition: Callable[[], Any], *, pause: float = 0.05) -> None:
    """Attend, hors de toute boucle d'événements, qu'une chose soit vraie."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(pause)


async def _value(found: Any) -> Any:
    return await found if inspect.isawaitable(found) else found


async def ends_first(work: Awaitable[Any], seconds: float) -> bool:
    """Dit si un travail, qu'il échoue ou non, finit avant un sommeil témoin parti en même temps dans la même boucle."""
    working, control = asyncio.ensure_future(work), asyncio.ensure_future(asyncio.sleep(seconds))
    await asyncio.wait({working, control}, return_when=asyncio.FIRST_COMPLETED)
    is_first = working.done()
    control.cancel()
    working.cancel()
    await asyncio.gather(working, control, return_exceptions=True)
    return is_first


async def insisted(work: Callable[[], Awaitable[Found]]) -> Found:
    """Refait un travail tant que la base est occupée, comme un client à qui l'on dit de revenir."""
    done: list[Found] = []

    async def is_done() -> bool:
        with suppress(DatabaseUnavailableError):
            done.append(await work())
        return bool(done)

    await until(is_done)
    return done[0]
