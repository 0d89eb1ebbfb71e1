"""Nos routes réunies sous un préfixe : celles de l'application n'en attendent pas le parcours."""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from starlette.routing import Match


class PrefixedRouter(APIRouter):
    """Routeur que FastAPI ne parcourt que pour les chemins qui portent son préfixe.

    Une application cherche ses routes une à une, les nôtres d'abord : sans ce raccourci, chaque requête les essaie
    toutes. Un FastAPI d'avant la recherche par routeur met les routes à plat, et ignore le raccourci.
    """

    def __init__(self, prefix: str, routers: Iterable[APIRouter]) -> None:
        """Réunit des routeurs.

        Args:
            prefix: ce qui précède leurs chemins.
            routers: leurs routes.
        """
        super().__init__()
        self._prefix = prefix
        for router in routers:
            self.include_router(router, prefix=prefix)

    def matches(self, scope: Any) -> tuple[Match, Any]:  # noqa: ANN401 - une portée ASGI
        """Dit si une requête est pour l'une de ces routes ; le préfixe peut suivre celui d'une application montée."""
        if self._prefix not in scope["path"]:
            return Match.NONE, {}
        found: tuple[Match, Any] = super().matches(scope)
        return found
