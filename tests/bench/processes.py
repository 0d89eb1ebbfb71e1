"""Ce qui se mesure dans un processus neuf : la mémoire, le chargement depuis SQLite, la boucle d'événements."""

from __future__ import annotations

import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi_acl import PolicyRule
from fastapi_acl.engine.adapters.sql import COLUMNS, digest
from tests.bench import child, peers
from tests.bench.timing import Amount, Row, Scale, Target, Unit, at_most, number
from tests.bench.worlds import packaged

LOADING: dict[int, tuple[Target, Target]] = {
    110_000: (at_most(0.8), at_most(90 * 2**20, "o")),
    1_000_000: (at_most(6), at_most(700 * 2**20, "o")),
}
GROWTH = at_most(10 * 2**20, "o")
STEADY = at_most(1.5, "fois")
HEARTBEAT = at_most(20e-3)
UNKNOWN = 300_000


def measured(name: str, *arguments: object) -> dict[str, float]:
    """Exécute une mesure de `child` dans un processus neuf."""
    command = [sys.executable, "-m", "tests.bench.child", name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def unknown(scale: Scale) -> Iterator[Row]:
    """Des comptes, puis des comptes et des domaines, que la politique ne nomme pas : rien ne doit en rester."""
    count = UNKNOWN if scale.compared == Scale.compared else UNKNOWN // 30
    for label, world in (("comptes inconnus", "rbac"), ("comptes et domaines inconnus", "domains")):
        mine, theirs = (measured("unknown", engine, world, count) for engine in ("ours", "stock"))
        yield Row(
            f"{label}, mémoire gardée après {number(count)} questions",
            child.UNKNOWN_SIZE,
            Amount(mine["memory"], "o"),
            peers.STOCK,
            Amount(theirs["memory"], "o"),
            GROWTH,
        )
        yield Row(
            f"{label}, durée des mille dernières questions sur celle des mille premières",
            child.UNKNOWN_SIZE,
            Amount(mine["last"] / mine["first"], "fois"),
            peers.STOCK,
            Amount(theirs["last"] / theirs["first"], "fois"),
            STEADY,
        )


IMPORT_COST = at_most(2.2, "fois")
SPENT = "import {}, resource as r; u = r.getrusage(r.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)"


def imports(scale: Scale) -> Iterator[Row]:
    """Le temps de processeur d'un `import`, et son rapport à celui de FastAPI, à tour de rôle."""
    spent: dict[str, list[float]] = {"fastapi_acl": [], "fastapi": []}
    for _ in range(scale.rounds + 1):  # le premier tour compile
        for name, found in spent.items():
            done = subprocess.run(
                [sys.executable, "-c", SPENT.format(name)], capture_output=True, text=True, check=True
            )
            found.append(float(done.stdout))
    mine, theirs = (statistics.median(found[1:]) for found in spent.values())
    yield Row("import fastapi_acl, processeur", None, Amount(mine), "import fastapi", Amount(theirs))
    yield Row("import fastapi_acl, sur import fastapi", None, Amount(mine / theirs, "fois"), target=IMPORT_COST)


def loading(scale: Scale) -> Iterator[Row]:
    """Tout charger d'un fichier SQLite, par le chemin du démarrage."""
    for size in scale.sizes[-2:]:
        with tempfile.TemporaryDirectory() as folder:
            path = database(Path(folder), size)
            mine, floor = measured("load_ours", path), measured("load_floor", path)
            compared = size <= scale.compared or scale.is_full
            theirs = measured("load_stock", path) if compared else None
        yield from _loaded(size, mine, peers.STOCK, theirs)
        yield from _loaded(size, mine, "lire les lignes, sans plus (`sqlite3`)", floor)


def _loaded(size: int, mine: dict[str, float], peer: str, theirs: dict[str, float] | None) -> Iterator[Row]:
    time, memory = LOADING.get(size, (None, None)) if peer == peers.STOCK else (None, None)
    absent = "non mesuré : voir `--full`"
    kinds: tuple[tuple[str, str, Unit, Target | None], ...] = (
        ("durée", "seconds", "s", time),
        ("mémoire gardée", "memory", "o", memory),
        ("pic de mémoire", "peak", "o", None),
    )
    for label, key, unit, target in kinds:
        other = Amount(theirs[key], unit) if theirs else None
        yield Row(f"charger, {label}", size, Amount(mine[key], unit), peer, other, target, absent)


def heartbeat(scale: Scale) -> Iterator[Row]:
    """Le retard d'une coroutine qui s'éveille chaque milliseconde, pendant un chargement et des relectures."""
    size = scale.compared
    with tempfile.TemporaryDirectory() as folder:
        path = database(Path(folder), size)
        mine, theirs = measured("loop_ours", path), measured("loop_stock", path)
    for label, key, target in (
        ("au repos, pire retard (témoin)", "idle_worst", None),
        ("au repos, 99,9 % des retards (témoin)", "idle_p999", None),
        ("premier chargement, pire retard", "load_worst", HEARTBEAT),
        ("premier chargement, 99,9 % des retards", "load_p999", None),
        ("relectures, pire retard", "reload_worst", HEARTBEAT),
        ("relectures, 99,9 % des retards", "reload_p999", None),
    ):
        yield Row(f"boucle d'événements, {label}", size, Amount(mine[key]), peers.STOCK, Amount(theirs[key]), target)


def database(folder: Path, size: int) -> Path:
    """Fait la base que la bibliothèque ferait, puis y écrit les règles d'un trait."""
    path = folder / f"{size}.db"
    measured("migrate", path)
    with sqlite3.connect(path) as connection:
        columns = ("ptype", *COLUMNS, "digest")
        places = ", ".join("?" * len(columns))
        connection.executemany(
            f"INSERT INTO casbin_rule ({', '.join(columns)}) VALUES ({places})",  # noqa: S608 - nos propres noms
            (_row(rule) for rule in packaged(size).rules),
        )
    connection.close()
    return path


def _row(rule: PolicyRule) -> tuple[Any, ...]:
    missing = [None] * (len(COLUMNS) - len(rule.values))
    return (rule.ptype, *rule.values, *missing, digest(rule))
