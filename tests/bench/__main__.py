"""Mesure le moteur à côté de ses pairs, dans la même exécution, et écrit `docs/performances.md`.

`--quick` mesure peu et petit, `--only NOM` un seul groupe : ceux-là montrent leurs tableaux sans toucher à la page.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.bench import changes, decisions, models, page, processes
from tests.bench.timing import QUICK, Row, Scale

GROUPS: dict[str, tuple[str, Callable[[Scale], Iterator[Row]]]] = {
    "sizes": ("Une décision RBAC, de deux règles à un million", decisions.sizes),
    "peers": ("Une décision, à côté des autres", decisions.neighbours),
    "models": ("Les autres modèles", models.families),
    "few": ("À cinq règles", models.few),
    "changes": ("Changer la politique en service", changes.changes),
    "unknown": ("Les noms que la politique ne connaît pas", processes.unknown),
    "loading": ("Charger depuis SQLite", processes.loading),
    "loop": ("Ce que le chargement retient de la boucle d'événements", processes.heartbeat),
}


def arguments() -> argparse.Namespace:
    """Lit la ligne de commande."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="peu de règles et de tours, pour essayer la mesure")
    parser.add_argument("--full", action="store_true", help="charge aussi un million de règles par pycasbin")
    parser.add_argument("--only", choices=GROUPS, metavar="NOM", help=f"un seul groupe : {', '.join(GROUPS)}")
    return parser.parse_args()


def measured(names: list[str], scale: Scale) -> page.Sections:
    """Mesure des groupes, en montrant chaque ligne dès qu'elle est là."""
    sections: page.Sections = {}
    for place, name in enumerate(names, start=1):
        title, rows = GROUPS[name]
        print(f"→ [{place}/{len(names)}] {name} : {title}", flush=True)
        for row in rows(scale):
            print(page.progress(row), flush=True)
            sections.setdefault(title, []).append(row)
        gc.collect()
    return sections


def main() -> None:
    """Mesure, montre, et écrit la page si la mesure est entière."""
    asked = arguments()
    scale = replace(QUICK if asked.quick else Scale(), is_full=asked.full)
    started = time.perf_counter()
    sections = measured([asked.only] if asked.only else list(GROUPS), scale)
    print(f"→ {page.summary(sections)} ({page.spent(time.perf_counter() - started)})")
    if asked.quick or asked.only:
        print("→ mesure partielle : la page n'est pas écrite")
        return
    page.write(sections, scale, f"python -m tests.bench{' --full' if asked.full else ''}")
    print(f"→ {page.PAGE}")


if __name__ == "__main__":
    main()
