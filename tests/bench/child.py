"""Les mesures qui demandent un processus neuf : `python -m tests.bench.child NOM ARGUMENTS`, réponse en JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from casbin import AsyncEnforcer
from casbin_async_sqlalchemy_adapter import Adapter

from fastapi_acl import ACLConfig
from fastapi_acl.composition import Composition, compose
from fastapi_acl.engine.matching import acl_match
from fastapi_acl.engine.schema import packaged_model_text
from tests.bench import peers
from tests.bench.worlds import domains, rbac

UNKNOWN_SIZE = 5
BEAT = 0.001
IDLE_SECONDS = 1.0
RELOADS = 3
STATUS = Path("/proc/self/status")

Figures = dict[str, float]


def resident(field: str = "VmRSS") -> float:
    """Rend la mémoire du processus, en octets, ou son pic (`VmHWM`) ; hors de Linux, NaN."""
    lines = STATUS.read_text("utf-8").splitlines() if STATUS.exists() else []
    found = next((line for line in lines if line.startswith(f"{field}:")), None)
    return float(found.split()[1]) * 1024 if found else math.nan


# --- comptes inconnus ------------------------------------------------------------------------------------------------


def unknown(engine: str, world: str, count: str) -> Figures:
    """Interroge sur des noms jamais vus, et rend la mémoire gagnée et la durée des mille premiers et derniers."""
    build = {"ours": peers.ours, "stock": peers.stock}[engine]
    enforce = build({"rbac": rbac, "domains": domains}[world](UNKNOWN_SIZE)).enforce
    has_domains = world == "domains"
    _ask(enforce, has_domains, 0, 1_000)
    gc.collect()
    before = resident()
    total = int(count)
    first = _ask(enforce, has_domains, 1_000, 2_000)
    _ask(enforce, has_domains, 2_000, total)
    last = _ask(enforce, has_domains, total, total + 1_000)
    gc.collect()
    return {"memory": max(resident() - before, 0), "first": first, "last": last}


def _ask(enforce: peers.Decide, has_domains: bool, start: int, end: int) -> float:
    started = time.perf_counter()
    for number in range(start, end):
        domain = (f"nowhere{number}",) if has_domains else ()
        assert not enforce(f"user:unknown{number}", *domain, "data0", "read")
    return time.perf_counter() - started


# --- SQLite ----------------------------------------------------------------------------------------------------------


def composed(path: str) -> Composition:
    """Fait les objets de la bibliothèque sur un fichier SQLite."""
    config = ACLConfig(
        jwt_secret_key="une clé de mesure, longue et sans valeur aucune",
        sqlite_uri=f"sqlite:///{path}",
        _env_file=None,
    )
    return compose(config, None, None)


def stock(path: str) -> Any:
    """Fait l'exécuteur de pycasbin et l'adaptateur amont sur le même fichier."""
    enforcer = AsyncEnforcer(peers.loaded(packaged_model_text("rbac")), Adapter(f"sqlite+aiosqlite:///{path}"))
    enforcer.add_function("aclMatch", acl_match)
    return enforcer


def migrate(path: str) -> Figures:
    """Fait les tables."""

    async def run() -> None:
        made = composed(path)
        await made.database.migrate()
        await made.database.close()

    asyncio.run(run())
    return {}


async def _spent(load: Callable[[], Awaitable[object]]) -> Figures:
    """Rend la durée d'un chargement et la mémoire qu'il prend ; les bibliothèques sont déjà importées."""
    gc.collect()
    before, started = resident(), time.perf_counter()
    kept = await load()
    seconds = time.perf_counter() - started
    gc.collect()
    figures = {"seconds": seconds, "memory": resident() - before, "peak": resident("VmHWM") - before}
    del kept
    return figures


def load_ours(path: str) -> Figures:
    """Charge comme au démarrage : l'état entier, dans une lecture cohérente."""

    async def run() -> Figures:
        made = composed(path)
        figures = await _spent(made.replica.refresh)
        assert made.enforcer.is_loaded
        await made.database.close()
        return figures

    return asyncio.run(run())


def load_stock(path: str) -> Figures:
    """Charge par pycasbin."""

    async def run() -> Figures:
        return await _spent(stock(path).load_policy)

    return asyncio.run(run())


def load_floor(path: str) -> Figures:
    """Lit les lignes et les garde."""

    async def read() -> list[Any]:
        connection = sqlite3.connect(path)
        rows = connection.execute("SELECT ptype, v0, v1, v2, v3 FROM casbin_rule ORDER BY id").fetchall()
        connection.close()
        return rows

    return asyncio.run(_spent(read))


# --- boucle d'événements ---------------------------------------------------------------------------------------------


async def _beating(work: Callable[[], Awaitable[object]]) -> list[float]:
    """Rend les retards d'une coroutine qui s'éveille chaque milliseconde pendant un travail."""
    late: list[float] = []

    async def beat() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(BEAT)
            late.append(time.perf_counter() - started - BEAT)

    heart = asyncio.create_task(beat())
    await asyncio.sleep(10 * BEAT)
    late.clear()
    await work()
    await asyncio.sleep(2 * BEAT)
    heart.cancel()
    return sorted(late)


async def _held(load: Callable[[], Awaitable[object]], reload: Callable[[], Awaitable[object]]) -> Figures:
    """Mesure les retards au repos, pendant un chargement, puis pendant des relectures."""

    async def again() -> None:
        for _ in range(RELOADS):
            await reload()

    gc.collect()
    figures: Figures = {}
    for name, work in (("idle", lambda: asyncio.sleep(IDLE_SECONDS)), ("load", load), ("reload", again)):
        late = await _beating(work)
        figures[f"{name}_worst"] = late[-1]
        figures[f"{name}_p999"] = late[max(0, math.ceil(len(late) * 0.999) - 1)]
    return figures


def loop_ours(path: str) -> Figures:
    """Le premier chargement est celui du démarrage ; les relectures passent par l'exécuteur."""

    async def run() -> Figures:
        made = composed(path)
        figures = await _held(made.replica.refresh, made.enforcer.load_policy)
        await made.database.close()
        return figures

    return asyncio.run(run())


def loop_stock(path: str) -> Figures:
    """Le même travail par pycasbin."""

    async def run() -> Figures:
        enforcer = stock(path)
        return await _held(enforcer.load_policy, enforcer.load_policy)

    return asyncio.run(run())


MEASURES: dict[str, Callable[..., Figures]] = {
    found.__name__: found for found in (unknown, migrate, load_ours, load_stock, load_floor, loop_ours, loop_stock)
}

if __name__ == "__main__":
    logging.disable(logging.INFO)
    print(json.dumps(MEASURES[sys.argv[1]](*sys.argv[2:])))
