"""De vrais processus : une application servie par uvicorn, autant de fois qu'on veut, sur la même base."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.app import ADMIN_PASSWORD, SECRET
from tests.support.servers import free_port
from tests.support.waits import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
START_SECONDS = 120
GRACE_SECONDS = 3
"""Temps laissé aux requêtes d'un processus qui s'arrête ; sans lui, uvicorn attend qui n'a rien demandé."""

HEALTH = "/api/v1/acl/health"
SERVED = "tests.support.served:app"
SHARED = {
    "jwt_secret_key": SECRET,
    "bcrypt_rounds": 4,
    "create_default_admin": True,
    "default_admin_password": ADMIN_PASSWORD,
    "revision_wait_ms": 3_000,
}
"""Réglages de toute réplique, sauf ceux qu'un essai change."""


@dataclass
class ServedReplica:
    """Un processus uvicorn.

    Attributes:
        settings: réglages de la bibliothèque.
        app: application servie.
        environment: variables de plus.
    """

    settings: Mapping[str, Any]
    app: str = SERVED
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    async def start(self) -> None:
        """Lance le processus, et attend qu'il décide."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ACL_")}
        environment |= {f"ACL_{name.upper()}": str(value) for name, value in {**SHARED, **self.settings}.items()}
        environment |= self.environment
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--log-level", "warning"]
        options += ["--timeout-graceful-shutdown", str(GRACE_SECONDS)]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "uvicorn", self.app, *options, cwd=ROOT, env=environment
        )
        limits = httpx.Limits(max_keepalive_connections=4)
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", limits=limits, timeout=PATIENCE_SECONDS)
        await asyncio.wait_for(self.ready(), START_SECONDS)

    async def ready(self) -> None:
        """Attend que le processus soit en pleine possession de ses moyens."""
        while await self.status() != "ok":
            await asyncio.sleep(0.05)

    async def status(self) -> str:
        """Rend ce que la santé en dit."""
        try:
            return str((await self.http.get(HEALTH)).json()["status"])
        except httpx.HTTPError:
            return "absent"

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Arrête le processus, et rend son code de sortie."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        await self.http.aclose()
        return await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)


@asynccontextmanager
async def replicas(*settings: Mapping[str, Any]) -> AsyncIterator[list[ServedReplica]]:
    """Sert une application par jeu de réglages."""
    made = [ServedReplica(own) for own in settings]
    async with serving(made):
        yield made


@asynccontextmanager
async def serving(made: Sequence[ServedReplica]) -> AsyncIterator[None]:
    """Lance ces processus : le premier fait le schéma, les autres viennent ensemble."""
    async with AsyncExitStack() as stack:
        for one in made:
            stack.push_async_callback(_ended, one)
        await made[0].start()
        await asyncio.gather(*(one.start() for one in made[1:]))
        yield


async def _ended(one: ServedReplica) -> None:
    """Arrête un processus, quoi qu'il en coûte."""
    if hasattr(one, "http"):
        await one.stop(signal.SIGKILL)
