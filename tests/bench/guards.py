"""Ce que coûte la garde d'un changement, et ce qu'elle retient de la boucle d'événements."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import suppress

from fastapi_acl import ACLManager, PolicyChange, PolicyRule
from fastapi_acl.shared.identity import SYSTEM, Principal
from tests.bench.timing import Amount, Row, Scale, at_most
from tests.support.app import ADMIN, config

RULES, LINKS = 500, 1_000
WHOLE = at_most(0.5)
HELD = at_most(20e-3)


def links(_: Scale) -> Iterator[Row]:
    """Un administrateur donne mille liens vers un rôle de cinq cents règles, sous une base SQLite neuve."""
    spent, held, idle = asyncio.run(_measured())
    yield Row("donner 1 000 liens vers un rôle de 500 règles, base comprise", RULES, Amount(spent), target=WHOLE)
    yield Row(
        "le plus long tour de la boucle pendant ce temps", RULES, Amount(held), "au repos (témoin)", Amount(idle), HELD
    )


async def _measured() -> tuple[float, float, float]:
    """Rend la durée, le plus long tour de boucle, et le même au repos, en secondes."""
    with tempfile.TemporaryDirectory() as folder:
        manager = ACLManager(config(sqlite_uri=f"sqlite:///{folder}/a.db"))
        await manager.initialize()
        try:
            store, actor = manager.get_policy_store(), await _administrator(manager)
            rules = [PolicyRule("p", ("role:big", f"document:{n}", "read", "allow")) for n in range(RULES)]
            await store.change(PolicyChange(tuple(rules)), SYSTEM)
            given = PolicyChange(tuple(PolicyRule("g", (f"user:{n}", "role:big")) for n in range(LINKS)))
            idle, _ = await _watched(asyncio.sleep(0.5))
            held, spent = await _watched(store.change(given, actor))
            return spent, held, idle
        finally:
            await manager.close()


async def _administrator(manager: ACLManager) -> Principal:
    """Rend l'administrateur par défaut."""
    account = await manager.get_auth_repository().get_by_username(ADMIN)
    return Principal(id=str(account.id))


async def _watched(work: Awaitable[object]) -> tuple[float, float]:
    """Rend le plus long tour de boucle pendant un travail, et sa durée."""
    turns: list[float] = []

    async def watch() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            turns.append(now - last)
            last = now

    watching = asyncio.create_task(watch())
    started = time.perf_counter()
    await work
    spent = time.perf_counter() - started
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    return max(turns), spent
