"""Tâches de fond : les arrêter pour de bon."""

from __future__ import annotations

import asyncio
from typing import Any, Final

INSIST_SECONDS: Final = 0.1


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Annule des tâches et attend qu'elles finissent ; un pilote peut avaler une annulation, on la redemande alors."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=INSIST_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
