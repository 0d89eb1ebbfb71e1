"""Lire ses propres écritures sur toutes les répliques : une requête attend la révision qu'elle exige, peu de temps."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from fastapi_acl.shared.exceptions import ACLException, RevisionNotReachedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi_acl.shared.sync.replica import Replica

MAX_WAITERS: Final = 64
"""Requêtes qui attendent à la fois dans un processus."""

MAX_WAITERS_OF_ONE: Final = 2
"""Requêtes d'un même compte qui attendent à la fois."""

LOOK_SECONDS: Final = 0.05
"""Temps entre deux regards sur la base, que toutes celles qui attendent partagent."""


class RevisionGate:
    """Fait attendre qui exige une révision que ce processus n'a pas encore appliquée."""

    def __init__(self, replica: Replica, wait_seconds: float) -> None:
        """Part sans personne.

        Args:
            replica: mémoires du processus.
            wait_seconds: temps au-delà duquel une requête n'attend plus.
        """
        self._replica = replica
        self._wait_seconds = wait_seconds
        self._waiting: Counter[str] = Counter()
        self._looked_at = float("-inf")

    async def reach(self, revision: int, account: str) -> None:
        """Attend qu'une révision soit appliquée ; le cas courant, où elle l'est, n'attend rien.

        Args:
            revision: révision exigée.
            account: compte qui l'exige.

        Raises:
            RevisionNotReachedError: elle ne l'a pas été à temps, ou trop de requêtes attendent déjà.
        """
        if self._replica.revision >= revision:
            return
        with self._place(account):
            deadline = time.monotonic() + self._wait_seconds
            while self._replica.revision < revision:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise RevisionNotReachedError(revision=self._replica.revision)
                await self._look(left)

    @contextmanager
    def _place(self, account: str) -> Iterator[None]:
        """Prend une place dans la file.

        Raises:
            RevisionNotReachedError: il n'y en a plus.
        """
        if self._waiting.total() >= MAX_WAITERS or self._waiting[account] >= MAX_WAITERS_OF_ONE:
            raise RevisionNotReachedError(revision=self._replica.revision)
        self._waiting[account] += 1
        try:
            yield
        finally:
            self._waiting[account] -= 1
            if not self._waiting[account]:
                del self._waiting[account]

    async def _look(self, seconds: float) -> None:
        """Regarde la base si personne ne vient de le faire, sinon attend que les mémoires avancent."""
        pause = self._looked_at + LOOK_SECONDS - time.monotonic()
        if pause <= 0:
            self._looked_at = time.monotonic()
            work = self._replica.refresh()
        else:
            work, seconds = self._replica.wait_for_move(), min(pause, seconds)
        with suppress(asyncio.TimeoutError, ACLException):
            await asyncio.wait_for(work, seconds)
