"""De longs travaux qui n'arrêtent pas le processus : hors de la boucle, et par petites doses.

Deux choses tiennent l'interpréteur bien au-delà de son intervalle de partage, et aucun fil d'exécution n'y peut rien :
un passage complet du ramasse-miettes, et la libération d'une grande table. La première est suspendue, la seconde se
fait élément par élément.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, MutableMapping

T = TypeVar("T")

SHORT_POLICY: Final = 2_000
"""Nombre de règles en deçà duquel construire ou défaire une politique ne vaut pas un fil d'exécution."""

DOSE: Final = 2_000
"""Éléments construits entre deux passages du ramasse-miettes sur les seuls objets nouveaux."""

TURN: Final = 64
"""Pas qu'un travail fait avant de rendre la main à la boucle d'événements, si courts soient-ils."""

TURN_SECONDS: Final = 0.005
"""Durée au bout de laquelle il la rend, si longs soient-ils ; un pas de plus peut la dépasser."""


class _Pause:
    """Combien de chargements tiennent le ramasse-miettes arrêté, et s'il marchait avant eux."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._was_enabled = False

    def begin(self) -> None:
        """Arrête le ramasse-miettes, si personne ne l'a fait."""
        with self._lock:
            if not self._holders:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._holders += 1

    def end(self) -> None:
        """Le remet en marche quand le dernier a fini."""
        with self._lock:
            self._holders -= 1
            if not self._holders and self._was_enabled:
                gc.enable()


_pause = _Pause()


@contextmanager
def gc_paused() -> Iterator[None]:
    """Suspend le ramasse-miettes : un passage complet sur un million de règles neuves tiendrait l'interpréteur."""
    _pause.begin()
    try:
        yield
    finally:
        _pause.end()


class Pace:
    """Le pas d'un travail dont l'appelant choisit la taille : la boucle d'événements y reprend la main par tours."""

    __slots__ = ("_began", "_clock", "_steps")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Commence un tour.

        Args:
            clock: horloge, en secondes.
        """
        self._clock = clock
        self._began = clock()
        self._steps = 0

    async def step(self, count: int = 1) -> None:
        """Compte des pas faits, et rend la main à la boucle si le tour est passé."""
        self._steps += count
        if self._steps >= TURN or self._clock() - self._began >= TURN_SECONDS:
            await asyncio.sleep(0)
            self._began, self._steps = self._clock(), 0

    async def through(self, items: Iterable[T]) -> AsyncIterator[T]:
        """Parcourt une suite, un pas par élément."""
        for item in items:
            yield item
            await self.step()


async def aside(work: Callable[[], T], *, is_short: bool = False) -> T:
    """Fait un travail long dans un fil à lui, qui finit avec lui.

    Args:
        work: travail, qui ne touche à rien de ce que la boucle emploie.
        is_short: vrai s'il est trop court pour valoir un fil.
    """
    if is_short:
        return work()
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    threading.Thread(target=_work, args=(work, loop, done), name="fastapi-acl-load", daemon=True).start()
    return await done


def _work(work: Callable[[], T], loop: asyncio.AbstractEventLoop, done: asyncio.Future[T]) -> None:
    """Fait le travail, et en rend l'issue à la boucle, si elle est encore là pour l'entendre."""
    settle: Callable[[], None]
    try:
        result = work()
        settle = partial(_unless_done, done, done.set_result, result)
    except BaseException as error:  # noqa: BLE001 - toute issue est celle de qui attend
        settle = partial(_unless_done, done, done.set_exception, error)
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(settle)


def _unless_done(done: asyncio.Future[T], settle: Callable[[Any], None], outcome: object) -> None:
    """Renvoie une issue que personne n'a cessé d'attendre."""
    if not done.done():
        settle(outcome)


def sweep_young() -> None:
    """Fait passer le ramasse-miettes sur les seuls objets nouveaux, quand il est suspendu.

    Il cesse alors de suivre les n-uplets de textes, qu'un passage complet n'aura plus à regarder.
    """
    if not gc.isenabled():
        gc.collect(0)


def iterate_by_doses(items: Iterable[T]) -> Iterator[T]:
    """Parcourt une longue suite par doses."""
    for place, item in enumerate(items, start=1):
        yield item
        if not place % DOSE:
            sweep_young()


def drain(*mappings: MutableMapping[Any, Any]) -> None:
    """Vide des tables élément par élément : en un seul geste, un million d'entre eux arrêteraient tout."""
    for mapping in mappings:
        with suppress(KeyError):
            while mapping:
                mapping.popitem()
