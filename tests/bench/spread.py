"""D'un processus aux autres : le temps au bout duquel un changement tient partout, selon ce qui l'annonce."""

from __future__ import annotations

import asyncio
import io
import json
import statistics
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from fastapi_acl import ACLConfig, ACLManager
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from tests.bench.timing import Amount, Row, Scale, at_most
from tests.support.servers import PostgreSQLServer, RedisServer

PROCESSES = 16
CHANGES = 40
PAUSE_SECONDS = 0.05
POLL_SECONDS = 0.5

ANNOUNCED = {"redis": "Redis", "postgresql": "LISTEN/NOTIFY", "none": f"rien : un regard toutes les {POLL_SECONDS} s"}


def spread(scale: Scale) -> Iterator[Row]:
    """Mesure, par transport et par taille ; le pair est la même mesure sur la plus petite politique."""
    processes = PROCESSES if scale.largest > scale.compared else 4
    small, large = 1_100, scale.compared
    for watcher, name in ANNOUNCED.items():
        target = at_most(1.0 if watcher == "none" else 0.1)
        few, many = (asyncio.run(_served(watcher, size, processes)) for size in (small, large))
        for label, reduce in (("médiane", statistics.median), ("le plus long", max)):
            text = f"tenir sur {processes} processus, {label}, annoncé par {name}"
            yield Row(text, large, Amount(reduce(many)), f"à {small} règles", Amount(reduce(few)), target, "—")


async def _served(watcher: str, size: int, processes: int) -> list[float]:
    """Lance les serveurs, puis mesure."""
    with ExitStack() as stack:
        base, redis = PostgreSQLServer(), RedisServer()
        for server in (base, redis):
            stack.callback(server.close)
            await asyncio.to_thread(server.start)
        settings = {"database_type": "postgresql", "postgresql_uri": base.uri(), "watcher": watcher}
        settings |= {"redis_url": redis.uri()} if watcher == "redis" else {}
        settings |= {"jwt_secret_key": "une clé de mesure, longue et sans valeur", "policy_poll_seconds": POLL_SECONDS}
        return await _measured({**settings, "create_default_admin": False}, size, processes)


async def _measured(settings: dict[str, Any], size: int, processes: int) -> list[float]:
    """Importe des règles, lance des processus, et change une règle de temps en temps."""
    manager = ACLManager(ACLConfig(_env_file=None, **settings))
    await manager.initialize()
    text = "".join(f"p, role:r{number % 1_000}, object{number // 1_000}, read, allow\n" for number in range(size))
    await manager.get_policy_transfer().import_rules(io.StringIO(text), "csv")
    async with _followers(settings, processes, manager.revision) as followers:
        delays = [await _one(manager, followers, number) for number in range(CHANGES)]
    await manager.close()
    return delays


async def _one(manager: ACLManager, followers: list[Process], number: int) -> float:
    """Ajoute une règle, et rend le temps qu'elle met à tenir partout."""
    await asyncio.sleep(PAUSE_SECONDS)
    change = PolicyChange(added=(PolicyRule("p", (f"role:n{number}", "object", "read", "allow")),))
    revision = await manager.get_policy_store().change(change)
    written = time.monotonic()
    instants = await asyncio.gather(*(_reached(one, revision) for one in followers))
    return max(0.0, max(instants) - written)


async def _reached(follower: Process, revision: int) -> float:
    """Rend l'instant où un processus a une révision."""
    assert follower.stdout is not None
    while True:
        number, instant = (await follower.stdout.readline()).split()
        if int(number) >= revision:
            return float(instant)


@asynccontextmanager
async def _followers(settings: dict[str, Any], count: int, revision: int) -> AsyncIterator[list[Process]]:
    """Lance des processus qui suivent la base, et attend qu'ils soient à jour."""
    command = (sys.executable, "-m", "tests.bench.follower", json.dumps(settings))
    followers = [await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=DEVNULL) for _ in range(count)]
    try:
        await asyncio.gather(*(_reached(one, revision) for one in followers))
        yield followers
    finally:
        for one in followers:
            one.kill()
            await one.wait()
