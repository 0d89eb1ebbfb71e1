"""La veille sur les commandes en attente : une base lente s'attend, une base muette se remarque.

Une commande qui tarde n'en dit rien : un verrou, une grosse lecture. On frappe alors à la porte, par une connexion
neuve ; si personne ne répond, et que rien d'autre n'a répondu pendant ce temps, ce qui attendait est coupé.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from fastapi_acl.shared.logging import get_logger
from fastapi_acl.shared.tasks import stop_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = get_logger("database")

PATIENCE_SECONDS: Final = 0.5
"""Attente d'une commande au bout de laquelle on frappe."""

PULSE_SECONDS: Final = 0.05
"""Temps entre deux regards sur l'heure, pendant qu'on frappe."""

HELD_SECONDS: Final = 0.3
"""Retard de la boucle au-delà duquel un silence ne prouve rien : retenue, elle n'a pas lu la réponse à temps."""


class _Wait(NamedTuple):
    """Une commande en attente : depuis quand, et comment la couper."""

    since: float
    cut: Callable[[], None]


class _Pulse:
    """Mesure le retard que la boucle prend, le temps d'un bloc.

    Attributes:
        late: ce retard, en secondes.
    """

    def __enter__(self) -> None:
        """Commence à mesurer."""
        self.late, self._due = 0.0, time.monotonic()
        self._beat()

    def __exit__(self, *_: object) -> None:
        """Cesse, et compte ce qui court encore."""
        self._next.cancel()
        self._count()

    def _beat(self) -> None:
        """Compte le retard de ce battement, et attend le suivant."""
        self._count()
        self._due = time.monotonic() + PULSE_SECONDS
        self._next = asyncio.get_running_loop().call_later(PULSE_SECONDS, self._beat)

    def _count(self) -> None:
        """Compte le temps passé depuis que ce battement était dû."""
        self.late += max(0.0, time.monotonic() - self._due)


class Vigil:
    """Suit les commandes en attente, une par connexion.

    Attributes:
        answered_at: dernier instant monotone où la base a répondu à quelqu'un.
    """

    def __init__(self, knock: Callable[[], Awaitable[bool]]) -> None:
        """Part sans rien attendre.

        Args:
            knock: ouvre une connexion neuve, en un temps borné, et dit si la base y répond.
        """
        self._knock = knock
        self._waits: dict[object, _Wait] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._knocking: asyncio.Task[None] | None = None
        self.answered_at = float("-inf")

    def note_answer(self) -> None:
        """Note que la base vient de répondre."""
        self.answered_at = time.monotonic()

    def began(self, connection: object, cut: Callable[[], None]) -> None:
        """Note qu'une connexion attend une réponse."""
        self._waits[connection] = _Wait(time.monotonic(), cut)
        if self._alarm is None and self._knocking is None:
            self._arm(PATIENCE_SECONDS)

    def over(self, connection: object) -> None:
        """Note qu'une connexion n'attend plus."""
        _ = self._waits.pop(connection, None)

    async def stop(self) -> None:
        """Cesse de veiller."""
        knocking = self._knocking
        self.abandon()
        if knocking is not None:
            await stop_tasks(knocking)

    def abandon(self) -> None:
        """Oublie ce qui a commencé dans une boucle d'événements qui n'existe plus."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._waits, self._alarm, self._knocking = {}, None, None

    def _arm(self, seconds: float) -> None:
        """Demande à être réveillée."""
        self._alarm = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        """Frappe, si une commande attend depuis assez longtemps."""
        self._alarm = None
        if not self._waits:
            return
        left = min(wait.since for wait in self._waits.values()) + PATIENCE_SECONDS - time.monotonic()
        if left > 0:
            self._arm(left)
        else:
            self._knocking = asyncio.create_task(self._listen(), name="fastapi_acl-vigil")

    async def _listen(self) -> None:
        """Frappe, et coupe ce qui attendait déjà si personne ne répond."""
        asked_at = time.monotonic()
        with (pulse := _Pulse()):
            is_heard = await self._hear()
        if not is_heard and pulse.late < HELD_SECONDS and self.answered_at < asked_at:
            self._cut(asked_at)
        self._knocking = None
        if self._waits:
            self._arm(PATIENCE_SECONDS)

    async def _hear(self) -> bool:
        """Frappe ; une faute de notre côté n'est pas un silence, et n'arrête pas la veille."""
        try:
            return await self._knock()
        except Exception:
            logger.exception("knock_failed")
            return True

    def _cut(self, asked_at: float) -> None:
        """Coupe ce qui attendait quand on a frappé."""
        silent = {connection: wait for connection, wait in self._waits.items() if wait.since <= asked_at}
        logger.warning("database_silent: %d commandes coupées", len(silent))
        for connection, wait in silent.items():
            self.over(connection)
            wait.cut()
