"""Tâches de fond : en refaire une de temps en temps, et les arrêter pour de bon."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

from fastapi_acl.shared.exceptions import ACLException
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = get_logger("tasks")

INSIST_SECONDS: Final = 0.1


async def stop_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Annule des tâches et attend qu'elles finissent ; un pilote peut avaler une annulation, on la redemande alors."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=INSIST_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


class Chore:
    """Travail que la boucle refait de temps en temps, et dont l'échec n'arrête rien."""

    def __init__(self, name: str, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        """Retient le travail ; rien ne court encore.

        Args:
            name: nom de la tâche.
            seconds: temps entre deux fois, en moyenne ; chacun tire le sien, pour que les processus ne se croisent pas.
            work: le travail.
        """
        self._name = name
        self._seconds = seconds
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Lance la tâche ; sans effet si elle court."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._repeat(), name=self._name)

    async def stop(self) -> None:
        """Arrête la tâche ; sans effet si c'est fait."""
        task, self._task = self._task, None
        if task is not None:
            await stop_tasks(task)

    def abandon(self) -> None:
        """Oublie la tâche d'une boucle qui n'existe plus."""
        self._task = None

    async def _repeat(self) -> None:
        """Refait le travail, sans fin."""
        while True:
            await asyncio.sleep(self._seconds * random.uniform(0.5, 1.5))  # noqa: S311 - pour ne pas se croiser
            try:
                await self._work()
            except ACLException as error:
                logger.warning("chore_failed: %s %s", self._name, error.code)
            except Exception:
                logger.exception("chore_failed: %s", self._name)
