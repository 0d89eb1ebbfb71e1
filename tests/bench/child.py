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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from casbin import AsyncEnforcer
from casbin_async_sqlalchemy_adapter import Adapter

from fastapi_acl import ACLConfig
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.engine.kernel.acl_match import acl_match
from fastapi_acl.engine.writing import rule_files
from fastapi_acl.runtime.composition import Composition, compose
from fastapi_acl.shared.database.base import Mode, Transaction
from tests.bench import peers
from tests.bench.worlds import domains, packaged, rbac

UNKNOWN_SIZE = 5
BEAT = 0.001
IDLE_SECONDS = 1.0
RELOADS = 3
CHANGES = 100
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
    return compose(config)


def stock(path: str) -> Any:
    """Fait l'exécuteur de pycasbin et l'adaptateur amont sur le même fichier."""
    enforcer = AsyncEnforcer(peers.loaded(read_packaged_model("rbac")), Adapter(f"sqlite+aiosqlite:///{path}"))
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
        assert made.enforcer.policy.is_loaded
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


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def on_server(uri: str) -> Composition:
    """Fait les objets de la bibliothèque sur un PostgreSQL."""
    secret = "une clé de mesure, longue et sans valeur aucune"
    return compose(ACLConfig(jwt_secret_key=secret, database_type="postgresql", postgresql_uri=uri, _env_file=None))


def stock_on_server(uri: str) -> Any:
    """Fait l'exécuteur de pycasbin et l'adaptateur amont sur le même serveur."""
    adapter = Adapter(uri.replace("postgresql://", "postgresql+asyncpg://"))
    enforcer = AsyncEnforcer(peers.loaded(read_packaged_model("rbac")), adapter)
    enforcer.add_function("aclMatch", acl_match)
    return enforcer


def write_rules(size: str, path: str) -> Figures:
    """Écrit une politique dans un CSV."""
    Path(path).write_text(rule_files.write_rules(packaged(int(size)).rules, "csv"), "utf-8")
    return {}


def store_ours(uri: str, path: str) -> Figures:
    """Importe un fichier dans une base neuve, puis ajoute et retire une règle, encore et encore."""

    async def run() -> Figures:
        made = on_server(uri)
        await made.database.migrate()
        await made.replica.refresh()
        figures = await _imported(made, path)
        figures |= await _changed(made.enforcer.add_policy, made.enforcer.remove_policy)
        await made.database.close()
        return figures

    return asyncio.run(run())


async def _imported(made: Composition, path: str) -> Figures:
    """Importe un fichier ; rend la durée, le temps du verrou et le pic de mémoire."""
    gc.collect()
    before, held = resident(), Held(made)
    started = time.perf_counter()
    with Path(path).open(encoding="utf-8", newline="") as file:
        await made.transfer.import_rules(file, "csv")
    seconds = time.perf_counter() - started
    return {"import": seconds, "locked": held.seconds, "peak": resident("VmHWM") - before}


class Held:
    """Le temps pendant lequel le verrou du journal est tenu, mesuré à son ouverture et à sa fermeture."""

    def __init__(self, made: Composition) -> None:
        self.seconds = 0.0
        self._begin = made.database.begin
        made.database.begin = self._timed  # type: ignore[method-assign,assignment]

    @asynccontextmanager
    async def _timed(self, mode: Mode) -> AsyncIterator[Transaction]:
        async with self._begin(mode) as transaction:
            started = time.perf_counter()
            yield transaction
        if mode is Mode.LOG:
            self.seconds += time.perf_counter() - started


async def _changed(add: Callable[..., Awaitable[bool]], remove: Callable[..., Awaitable[bool]]) -> Figures:
    """Ajoute et retire une règle, un nombre de fois ; rend la médiane et le 95e centile."""
    spent = []
    for number in range(CHANGES):
        rule = [f"role:r{number}", "neuf", "read", "allow"]
        for write in (add, remove):
            started = time.perf_counter()
            assert await write(*rule)
            spent.append(time.perf_counter() - started)
    spent.sort()
    return {"change": spent[len(spent) // 2], "change_p95": spent[int(len(spent) * 0.95)]}


def reload_ours(uri: str) -> Figures:
    """Charge tout, comme au démarrage."""

    async def run() -> Figures:
        made = on_server(uri)
        figures = await _spent(made.replica.refresh)
        await made.database.close()
        return {"load": figures["seconds"], "load_memory": figures["memory"]}

    return asyncio.run(run())


def reload_stock(uri: str) -> Figures:
    """Charge la même table par pycasbin."""

    async def run() -> Figures:
        figures = await _spent(stock_on_server(uri).load_policy)
        return {"load": figures["seconds"], "load_memory": figures["memory"]}

    return asyncio.run(run())


def store_stock(uri: str, path: str) -> Figures:
    """Ajoute les mêmes règles par pycasbin, dans sa propre table, puis en ajoute et en retire une."""

    async def run() -> Figures:
        connection = await asyncpg.connect(uri)
        await connection.execute("CREATE DATABASE stock")
        await connection.close()
        enforcer = stock_on_server(f"{uri.rpartition('/')[0]}/stock")
        await enforcer.adapter.create_table()
        with Path(path).open(encoding="utf-8", newline="") as file:
            rules = [rule for _, rule in rule_files.read_rules(file, "csv")]
        started = time.perf_counter()
        await enforcer.add_policies([list(rule.values) for rule in rules if rule.ptype == "p"])
        await enforcer.add_grouping_policies([list(rule.values) for rule in rules if rule.ptype == "g"])
        seconds = time.perf_counter() - started
        return {"import": seconds} | await _changed(enforcer.add_policy, enforcer.remove_policy)

    return asyncio.run(run())


_ON_SQLITE = (unknown, migrate, load_ours, load_stock, load_floor, loop_ours, loop_stock)
_ON_POSTGRESQL = (write_rules, store_ours, reload_ours, reload_stock, store_stock)
MEASURES: dict[str, Callable[..., Figures]] = {found.__name__: found for found in (*_ON_SQLITE, *_ON_POSTGRESQL)}

if __name__ == "__main__":
    logging.disable(logging.INFO)
    print(json.dumps(MEASURES[sys.argv[1]](*sys.argv[2:])))
