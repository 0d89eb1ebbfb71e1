"""La page `docs/performances.md` : la machine, les versions, la commande, les tableaux."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple

from tests.bench import peers
from tests.bench.timing import Amount, Row, Scale, number, table

PAGE = Path(__file__).parents[2] / "docs/performances.md"
CPU_INFO = Path("/proc/cpuinfo")
OS_RELEASE = Path("/etc/os-release")


class Section(NamedTuple):
    """Un titre, ce que l'on mesure, et les lignes."""

    title: str
    note: str
    rows: list[Row]


Sections = list[Section]


def write(sections: Sections, scale: Scale, command: str) -> None:
    """Écrit la page."""
    PAGE.write_text(text(sections, scale, command), "utf-8")


def text(sections: Sections, scale: Scale, command: str) -> str:
    """Rend la page."""
    parts = [_head(sections, scale), _conditions(command)]
    parts += [f"## {section.title}\n\n{section.note}\n\n{table(section.rows)}" for section in sections]
    return "\n\n".join(["# Performances", *parts]) + "\n"


def summary(sections: Sections) -> str:
    """Dit combien de cibles sont tenues, et nomme celles qui ne le sont pas."""
    rows = [row for section in sections for row in section.rows if row.is_met is not None]
    missed = [f"\n- {_named(row)} : {_reached(row)} ; cible {row.target}" for row in rows if not row.is_met]
    held = f"{len(rows) - len(missed)} cibles tenues sur {len(rows)}"
    return f"{held} ; manquées :\n{''.join(missed)}" if missed else f"{held}."


def _named(row: Row) -> str:
    """Nomme une ligne hors de son tableau."""
    return row.label if row.size is None else f"{row.label} ({number(row.size)} règles)"


def _reached(row: Row) -> str:
    """Dit ce qui a été mesuré, de la nature de la cible."""
    is_ratio = row.target is not None and row.target.is_ratio
    return f"{number(round(row.ratio, 2))} fois {row.peer}" if is_ratio and row.ratio is not None else str(row.mine)


def _head(sections: Sections, scale: Scale) -> str:
    return (
        "Cette page est écrite par la mesure elle-même. Chaque ligne compare, dans la même exécution, sur les mêmes\n"
        "règles et les mêmes questions, l'enforcer de la bibliothèque et un pair ; leurs réponses sont d'abord\n"
        f"vérifiées. Une durée de décision est la médiane de {scale.rounds} tours, ramasse-miettes en marche.\n"
        "« rapport » dit combien de fois le pair prend plus que nous ; « manqué », qu'une cible n'est pas tenue.\n\n"
        f"{summary(sections)}"
    )


def _conditions(command: str) -> str:
    """Dit où et comment la mesure a été faite."""
    used = ", ".join(f"{name} {found}" for name, found in peers.versions().items())
    return "\n".join(
        [
            "## Conditions\n",
            f"- Machine : {_cpu()}, {os.cpu_count()} cœurs, {_memory()}, {_system()}",
            f"- Python {platform.python_version()} ({platform.python_implementation()})",
            f"- Versions : {used}",
            f"- Commande : `make bench`, soit `{command}`",
        ]
    )


def _cpu() -> str:
    lines = CPU_INFO.read_text("utf-8").splitlines() if CPU_INFO.exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{Amount(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'), 'o')} de mémoire"
    except (AttributeError, ValueError):
        return "mémoire inconnue"


def _system() -> str:
    lines = OS_RELEASE.read_text("utf-8").splitlines() if OS_RELEASE.exists() else []
    named = next((line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")), "")
    return f"{named or platform.system()} ({platform.system()} {platform.machine()})"


def progress(row: Row) -> str:
    """Rend une ligne pour la console."""
    label, size, mine, peer, theirs, ratio, target, met = row.cells()
    rules = f", {size} règles" if size else ""
    beside = f" ; {peer} : {theirs} ({ratio})" if row.peer else ""
    return f"    {label}{rules} : {mine}{beside} [{target} {met}]"


def spent(seconds: float) -> str:
    """Écrit une durée entière, pour la console."""
    return f"{number(round(seconds))} s"
