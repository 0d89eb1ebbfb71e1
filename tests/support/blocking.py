"""Ce qui retient la boucle d'événements : un appel bloquant, ou un pas trop long."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

OURS = str(Path(__file__).parents[2] / "fastapi_acl")
ADMITTED = (
    ("fastapi/routing.py", {"_extract_endpoint_context"}),  # la première fois qu'une route sert
    ("redis/utils.py", {"get_lib_version"}),  # à chaque connexion que le pilote ouvre
    ("asyncpg/connect_utils.py", {"_parse_connect_arguments"}),  # idem : il y cherche un mot de passe
    ("logging/__init__.py", {"emit"}),  # le journal d'événements, que l'application envoie où elle veut
    ("<frozen importlib._bootstrap>", {"_find_and_load"}),  # un module chargé à la demande, une fois
)
"""Qui d'autre que nous bloque la boucle sous notre code, un instant, sans qu'on y puisse rien."""


@contextmanager
def blocking_calls() -> Iterator[list[str]]:
    """Rend les appels bloquants que notre code fait dans la boucle, et leur place ; ils se font, pour tout voir."""
    blockbuster: Any = pytest.importorskip("blockbuster")
    found: list[str] = []
    watching = blockbuster.BlockBuster()
    for function in watching.functions.values():
        function.can_block_predicate = _noting(function, function.can_block_predicate, found)
    watching.activate()
    try:
        yield found
    finally:
        watching.deactivate()


def _noting(function: Any, is_harmless: Callable[..., bool], found: list[str]) -> Callable[..., bool]:
    """Fait ce qui note un appel et le laisse se faire."""

    def note(*args: Any, **options: Any) -> bool:
        frames = [frame for frame, _ in traceback.walk_stack(None)]
        ours = next((frame for frame in frames if frame.f_code.co_filename.startswith(OURS)), None)
        allowed = (*ADMITTED, *function.can_block_functions)
        if ours is not None and not is_harmless(*args, **options) and not _is_under(frames, allowed):
            found.append(f"{function.full_name} ← {ours.f_code.co_filename}:{ours.f_lineno}")
        return True

    return note


def _is_under(frames: list[FrameType], allowed: Any) -> bool:
    """Dit si l'un de ces cadres est d'une fonction admise."""
    codes = [frame.f_code for frame in frames]
    return any(
        code.co_name in functions and code.co_filename.endswith(filename)
        for code in codes
        for filename, functions in allowed
    )


@asynccontextmanager
async def slow_steps(seconds: float) -> AsyncIterator[list[str]]:
    """Rend les pas de la boucle courante qui ont duré plus longtemps, tels qu'asyncio les voit."""
    loop, handler = asyncio.get_running_loop(), _Kept()
    known = loop.get_debug(), loop.slow_callback_duration
    logging.getLogger("asyncio").addHandler(handler)
    loop.set_debug(True)
    loop.slow_callback_duration = seconds
    await asyncio.sleep(0)  # asyncio ne mesure que les pas commencés depuis
    try:
        yield handler.found
        await asyncio.sleep(0)
    finally:
        loop.set_debug(known[0])
        loop.slow_callback_duration = known[1]
        logging.getLogger("asyncio").removeHandler(handler)


class _Kept(logging.Handler):
    """Retient ce qu'asyncio dit d'un pas trop long."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "took" in record.getMessage():
            self.found.append(record.getMessage())
