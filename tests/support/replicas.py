"""De vrais processus : une application servie par uvicorn, autant de fois qu'on veut, sur la même base."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.app import ADMIN_PASSWORD, SECRET
from tests.support.servers import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 30
HEALTH = "/api/v1/acl/health"


@dataclass
class ServedReplica:
    """Un processus uvicorn."""

    settings: Mapping[str, Any]
    port: int = field(default_factory=free_port)

    async def start(self) -> None:
        """Lance le processus, et attend qu'il décide."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ACL_")}
        environment |= {f"ACL_{name.upper()}": str(value) for name, value in self.settings.items()}
        options = ("--host", "127.0.0.1", "--port", str(self.port), "--log-level", "warning")
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "uvicorn", "tests.support.served:app", *options, cwd=ROOT, env=environment
        )
        limits = httpx.Limits(max_keepalive_connections=4)
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", limits=limits, timeout=10)
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
        return await asyncio.wait_for(self.process.wait(), 10)


@asynccontextmanager
async def replicas(*settings: Mapping[str, Any]) -> AsyncIterator[list[ServedReplica]]:
    """Sert une application par jeu de réglages."""
    shared = {
        "jwt_secret_key": SECRET,
        "bcrypt_rounds": 4,
        "create_default_admin": True,
        "default_admin_password": ADMIN_PASSWORD,
        "revision_wait_ms": 3_000,
    }
    made = [ServedReplica({**shared, **own}) for own in settings]
    async with AsyncExitStack() as stack:
        for one in made:
            stack.push_async_callback(_ended, one)
            await one.start()
        yield made


async def _ended(one: ServedReplica) -> None:
    """Arrête un processus, quoi qu'il en coûte."""
    if hasattr(one, "http"):
        await one.stop(signal.SIGKILL)
