"""La base : importer, changer une règle, tout charger, sur un vrai PostgreSQL lancé pour la mesure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench import peers
from tests.bench.processes import measured
from tests.bench.timing import Amount, Row, Scale, Target, Unit, at_most
from tests.support.servers import PostgreSQLServer

STOCK_IMPORT = 11_000
"""Règles que pycasbin ajoute d'un coup : au-delà, le temps y croît comme le carré."""

TARGETS: dict[str, tuple[str, Unit, Target | None]] = {
    "import": ("importer un CSV, durée", "s", at_most(60)),
    "locked": ("importer un CSV, verrou du journal tenu", "s", at_most(2)),
    "peak": ("importer un CSV, pic de mémoire, politique comprise", "o", at_most(700 * 2**20, "o")),
    "change": ("ajouter ou retirer une règle, durée médiane", "s", at_most(5e-3)),
    "change_p95": ("ajouter ou retirer une règle, 95 % des durées", "s", None),
    "load": ("tout charger, durée", "s", at_most(6)),
    "load_memory": ("tout charger, mémoire gardée", "o", at_most(700 * 2**20, "o")),
}


def postgresql(scale: Scale) -> Iterator[Row]:
    """Importe, change et charge sur PostgreSQL ; la cible porte sur la plus grande politique."""
    sizes = sorted({min(STOCK_IMPORT, scale.compared), *scale.sizes[-2:]})
    for size in sizes:
        server = PostgreSQLServer()
        server.start()
        try:
            yield from _measured(server, size, scale)
        finally:
            server.close()


def _measured(server: PostgreSQLServer, size: int, scale: Scale) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        measured("write_rules", size, Path(folder) / "rules.csv")
        mine = measured("store_ours", server.uri(), Path(folder) / "rules.csv")
        mine |= measured("reload_ours", server.uri())
        theirs = _stock(server, size, Path(folder) / "rules.csv") if size <= scale.compared or scale.is_full else {}
    for name, (label, unit, target) in TARGETS.items():
        other = Amount(theirs[name], unit) if name in theirs else None
        aimed = target if size == scale.largest else None
        yield Row(label, size, Amount(mine[name], unit), peers.STOCK, other, aimed, "non mesuré")


def _stock(server: PostgreSQLServer, size: int, rules: Path) -> dict[str, float]:
    """Mesure pycasbin et l'adaptateur amont sur la même table, ou sur la leur pour ce qu'ils écrivent."""
    found = measured("reload_stock", server.uri())
    return found | (measured("store_stock", server.uri(), rules) if size <= STOCK_IMPORT else {})
