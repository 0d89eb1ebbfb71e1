"""Journal de la bibliothèque : un seul arbre de noms, et le silence imposé à celui de Casbin."""

from __future__ import annotations

import json
import logging
from typing import Final

ROOT: Final = "fastapi_acl"

CASBIN_LOGGERS: Final = ("casbin", "casbin.policy", "casbin.enforcer", "casbin.role")
"""Loggers de pycasbin : ils écrivent les valeurs des requêtes refusées et la politique entière."""


def get_logger(name: str) -> logging.Logger:
    """Rend le logger `fastapi_acl.<name>`."""
    return logging.getLogger(f"{ROOT}.{name}")


def configure_logging(level: str) -> None:
    """Règle le niveau de la bibliothèque sans toucher aux sorties, qui sont à l'application.

    Args:
        level: nom d'un niveau de `logging` (`DEBUG` à `CRITICAL`).
    """
    logging.getLogger(ROOT).setLevel(level)


def one_line(value: object, limit: int = 200) -> str:
    """Rend une valeur sur une ligne, bornée, pour qu'aucune entrée ne forge une ligne de journal (CWE-117)."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in str(value)[:limit])


def quote(value: str, limit: int = 200) -> str:
    """Rend un texte entre guillemets, borné : il ne forge ni une ligne de journal, ni un autre champ de la sienne.

    Args:
        value: le texte.
        limit: nombre de caractères au-delà duquel il est coupé, et finit par « … ».
    """
    kept = value if len(value) <= limit else f"{value[:limit]}…"
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in json.dumps(kept, ensure_ascii=False))
