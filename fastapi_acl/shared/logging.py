"""Journal de la bibliothèque : un seul arbre de noms, et le silence imposé à celui de Casbin."""

from __future__ import annotations

import json
import logging
import time
from typing import Final

ROOT: Final = "fastapi_acl"

CASBIN_LOGGERS: Final = ("casbin", "casbin.policy", "casbin.enforcer", "casbin.role")
"""Loggers de pycasbin : ils écrivent les valeurs des requêtes refusées et la politique entière."""


def get_logger(name: str) -> logging.Logger:
    """Renvoie le logger `fastapi_acl.<name>`."""
    return logging.getLogger(f"{ROOT}.{name}")


TELL_AGAIN_SECONDS: Final = 60.0
"""Temps au bout duquel un ennui qui dure se redit."""


class Trouble:
    """Un ennui qui peut durer : dit quand il commence, de loin en loin ensuite, et quand il finit."""

    def __init__(self, logger: logging.Logger, event: str, over: str) -> None:
        """Part sans ennui.

        Args:
            logger: où le dire.
            event: nom de l'événement, tant qu'il dure.
            over: nom de celui qui dit sa fin.
        """
        self._logger, self._event, self._over = logger, event, over
        self._since, self._count = 0.0, 0
        self._told: dict[str, float] = {}

    def goes_on(self, reason: str, more: str = "") -> None:
        """Note une fois de plus ; une raison nouvelle se dit aussitôt.

        Args:
            reason: ce qui arrive.
            more: ce qu'il est bon d'y joindre, et qui n'en fait pas une autre raison.
        """
        now = time.monotonic()
        if not self._count:
            self._since = now
        self._count += 1
        if now - self._told.get(reason, float("-inf")) >= TELL_AGAIN_SECONDS:
            self._told[reason] = now
            again = f" ({self._count} fois en {now - self._since:.0f} s)" if self._count > 1 else ""
            self._logger.warning("%s: %s%s%s", self._event, reason, more, again)

    def is_over(self) -> None:
        """Note que tout va bien ; le dit si ce n'était pas le cas."""
        if self._count:
            self._logger.info("%s: %d échecs en %.0f s", self._over, self._count, time.monotonic() - self._since)
            self._count = 0
            self._told.clear()


def configure_logging(level: str) -> None:
    """Règle le niveau de la bibliothèque sans toucher aux sorties, qui sont à l'application.

    Args:
        level: nom d'un niveau de `logging` (`DEBUG` à `CRITICAL`).
    """
    logging.getLogger(ROOT).setLevel(level)


def one_line(value: object, limit: int = 200) -> str:
    """Renvoie une valeur sur une ligne, bornée, pour qu'aucune entrée ne forge une ligne de journal (CWE-117)."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in str(value)[:limit])


def quote(value: str, limit: int = 200) -> str:
    """Renvoie un texte entre guillemets, borné : il ne forge ni une ligne de journal, ni un autre champ de la sienne.

    Args:
        value: le texte.
        limit: nombre de caractères au-delà duquel il est coupé, et finit par « … ».
    """
    kept = value if len(value) <= limit else f"{value[:limit]}…"
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in json.dumps(kept, ensure_ascii=False))
