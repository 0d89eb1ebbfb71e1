"""Mesure le moteur à côté de ses pairs, dans la même exécution, et écrit `docs/performances.md`.

`--quick` mesure peu et petit, `--only NOM` un seul groupe : ceux-là montrent leurs tableaux sans toucher à la page.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from tests.bench import changes, decisions, guarded, guards, hostile, models, page, processes, spread, storage
from tests.bench.timing import QUICK, Row, Scale


class Group(NamedTuple):
    """Un tableau de la page."""

    title: str
    note: str
    rows: Callable[[Scale], Iterator[Row]]


GROUPS = {
    "sizes": Group(
        "Une décision RBAC, de deux règles à un million",
        "Dix comptes par rôle, une règle par rôle, dix rôles par objet. Le refus porte sur l'objet d'un autre rôle.\n"
        "Au hasard, chaque question est faite de textes neufs. Le pair est ce que l'on écrirait à la main pour ce\n"
        "seul modèle : deux dictionnaires, sans changement, sans explication ni concurrence ; c'est un plancher.",
        decisions.sizes,
    ),
    "peers": Group(
        "Une décision, à côté des autres",
        "Les mêmes règles, écrites pour chacun de la façon qui lui va le mieux : faits Polar pour Oso, politiques et\n"
        "entités lues une seule fois pour Cedar ; `FastEnforcer` ne vaut que si l'objet et l'action se comparent par\n"
        "égalité. La cible porte sur le refus, qui parcourt toute la politique chez pycasbin.",
        decisions.neighbours,
    ),
    "models": Group(
        "Les autres modèles",
        "« Un seul rôle » : le même rôle tient tous les motifs, que rien ne départage donc d'avance.\n"
        "« Un seul objet » : toutes les conditions portent sur l'objet demandé, et il faut toutes les évaluer pour\n"
        "refuser.",
        models.families,
    ),
    "few": Group(
        "À cinq règles",
        "Là où parcourir toute la politique ne coûte presque rien ; c'est l'enforcer nu, employé à la place de\n"
        "celui de pycasbin.",
        models.few,
    ),
    "changes": Group(
        "Changer la politique en service",
        "En mémoire, une fois la base écrite. pycasbin relit toute sa liste, et refait tous les liens à chaque\n"
        "retrait.",
        changes.changes,
    ),
    "guards": Group(
        "Donner des rôles",
        "Sous le modèle par défaut, par l'administrateur : la garde compare ce qui est donné à ce qu'il tient, une\n"
        "fois par permission, et rend la main à la boucle.",
        guards.links,
    ),
    "unknown": Group(
        "Les noms que la politique ne connaît pas",
        "Chaque question nomme un compte, ou un compte et un domaine, jamais vu : un service public en reçoit\n"
        "sans fin.",
        processes.unknown,
    ),
    "imports": Group(
        "Importer",
        "Le temps de processeur d'un processus neuf, interpréteur compris ; ce dont une configuration ne se sert pas\n"
        "(base, signature, routes) ne se charge qu'avec elle.",
        processes.imports,
    ),
    "loading": Group(
        "Charger depuis SQLite",
        "Dans un processus neuf, par le chemin du démarrage ; les bibliothèques sont déjà importées.",
        processes.loading,
    ),
    "storage": Group(
        "Garder les règles dans PostgreSQL",
        "Un PostgreSQL neuf, lancé pour la mesure, sans fsync. L'import lit, vérifie, range, publie et met en\n"
        "service ; un changement va de l'appel à la mémoire, transaction et journal compris. pycasbin écrit dans sa\n"
        "propre table, sans transaction, sans journal et sans vérifier ; il charge la nôtre.",
        storage.postgresql,
    ),
    "guarded": Group(
        "Une route gardée",
        "`Depends(require(…))` sur le modèle par défaut, à côté d'une route libre, chacune dans une application\n"
        "protégée ; à tour de rôle, d'abord sans réseau, puis par huit connexions à un uvicorn d'un seul processus.\n"
        "Chaque pair est mesuré de même, sur ses propres routes. Un jeton n'a sa signature vérifiée qu'à sa première\n"
        "présentation ; son échéance et sa révocation, à chaque requête.",
        guarded.routes,
    ),
    "spread": Group(
        "D'un processus aux autres",
        "Seize processus suivent une base PostgreSQL ; un autre y ajoute une règle, et tous doivent l’avoir en\n"
        "vigueur. Le temps part du retour de l'écriture. La taille de la politique ne doit rien y changer : le pair\n"
        "est la même mesure à 1 100 règles.",
        spread.spread,
    ),
    "hostile": Group(
        "Ce qu'un appelant choisit",
        "Des valeurs faites de séparateurs, de 250 et de 4 096 caractères, et mille questions d'un coup ; puis des\n"
        "matchers de super-administrateur, dont le temps ne doit pas suivre le nombre de règles.",
        hostile.rows,
    ),
    "loop": Group(
        "Ce que le chargement retient de la boucle d'événements",
        "Le retard d'une coroutine qui dort une milliseconde, encore et encore, pendant le travail.",
        processes.heartbeat,
    ),
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
    sections: page.Sections = []
    for place, name in enumerate(names, start=1):
        group, rows = GROUPS[name], []
        print(f"→ [{place}/{len(names)}] {name} : {group.title}", flush=True)
        for row in group.rows(scale):
            print(page.progress(row), flush=True)
            rows.append(row)
        sections.append(page.Section(group.title, group.note, rows))
        gc.collect()
    return sections


def main() -> None:
    """Mesure, montre, et écrit la page si la mesure est entière."""
    asked = arguments()
    scale = replace(QUICK if asked.quick else Scale(), is_full=asked.full)
    started = time.perf_counter()
    sections = measured([asked.only] if asked.only else list(GROUPS), scale)
    print(f"→ {page.spent(time.perf_counter() - started)} ; {page.summary(sections)}")
    if asked.quick or asked.only:
        print("→ mesure partielle : la page n'est pas écrite")
        return
    page.write(sections, scale, f"python -m tests.bench{' --full' if asked.full else ''}")
    print(f"→ {page.PAGE}")


if __name__ == "__main__":
    main()
