"""Compter ce que coûte un appel sans regarder l'heure."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def steps(call: Callable[..., Any], *arguments: Any) -> int:
    """Compte les pas de l'interpréteur que prend un appel ; ceux du ramasse-miettes ne sont pas les siens."""
    counted = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal counted
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted += event == "opcode"
        return trace

    call(*arguments)
    before = sys.gettrace()
    with without_collector():
        sys.settrace(trace)
        try:
            call(*arguments)
        finally:
            sys.settrace(before)
    return counted


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Compte les appels de fonctions que ce fil fait le temps d'un bloc."""
    calls = [0]

    def count(_: FrameType, event: str, __: object) -> None:
        calls[0] += event == "call"

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@contextmanager
def without_collector() -> Iterator[None]:
    """Suspend le ramasse-miettes, qui passerait n'importe quand, pour des objets d'avant."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
