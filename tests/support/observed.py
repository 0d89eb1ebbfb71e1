"""L'application des essais d'arrêt et de boucle bloquée ; elle s'en va sous un code à elle si elle laisse une tâche."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.served import app

LEFT_BEHIND = 70
"""Code de sortie d'un processus qui a laissé une tâche ou un fil."""

_lifespan = app.router.lifespan_context


@asynccontextmanager
async def _observed(started: Any) -> AsyncIterator[Any]:
    """Vit comme l'application, puis regarde ce qui en reste."""
    before = asyncio.all_tasks()
    async with _lifespan(started) as state:
        yield state
    left = [task for task in asyncio.all_tasks() - before if task.get_name().startswith("fastapi_acl")]
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("fastapi_acl")]
    if left or threads:
        os._exit(LEFT_BEHIND)


app.router.lifespan_context = _observed


@app.get("/sleep")
async def sleep(seconds: float) -> None:
    """Bloque la boucle d'événements, comme le ferait une application fautive."""
    time.sleep(seconds)
