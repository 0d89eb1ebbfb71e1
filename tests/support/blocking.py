"""Ce qui retient la boucle d'événements : un appel bloquant, ou un pas trop long."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.support.steps import counted_calls, without_collector

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
async def measured_steps() -> AsyncIterator[list[int]]:
    """Rend ce que chaque pas de la boucle fait d'appels : ni la machine, ni le ramasse-miettes n'y ajoutent rien."""
    run, found = asyncio.Handle._run, list[int]()

    def measured(handle: asyncio.Handle) -> None:
        with counted_calls() as calls:
            run(handle)
        found.append(calls[0])

    asyncio.Handle._run = measured  # type: ignore[method-assign]
    try:
        with without_collector():
            await asyncio.sleep(0)  # seul compte un pas commencé depuis
            yield found
            await asyncio.sleep(0)  # et le dernier, une fois fini
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
