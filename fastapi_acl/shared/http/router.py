"""Nos routes réunies sous un préfixe : celles de l'application n'en attendent pas le parcours."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from starlette.routing import Match

from fastapi_acl.shared.http.dependants import Guard, dependant_of, guards_in
from fastapi_acl.shared.http.guarded_routes import describe_guard
from fastapi_acl.shared.http.health import Health
from fastapi_acl.shared.http.problems import ProblemRoute
from fastapi_acl.shared.http.scope import access_control

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastapi import FastAPI
    from fastapi.params import Depends

health_router = APIRouter(prefix="/acl", tags=["santé"], route_class=ProblemRoute)


@health_router.get("/health", responses={503: {"model": Health, "description": "Ce processus ne décide pas."}})
async def health(request: Request, response: Response) -> Health:
    """Dit l'état de ce processus, sans toucher à la base : une sonde peut l'appeler souvent, et sans jeton."""
    found = access_control(request).health()
    if found.status == "unavailable":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    response.headers["Cache-Control"] = "no-store"
    return found


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
            self.include_router(router)

    def matches(self, scope: Any) -> tuple[Match, Any]:  # noqa: ANN401 - une portée ASGI
        """Dit si une requête est pour l'une de ces routes ; le préfixe peut suivre celui d'une application montée."""
        if self._prefix not in scope["path"]:
            return Match.NONE, {}
        found: tuple[Match, Any] = super().matches(scope)
        return found


def include_ours(app: FastAPI, prefix: str, routers: Iterable[APIRouter]) -> list[str]:
    """Ajoute nos routes à une application ; elles gardent ses dépendances globales, sauf ce qui fermerait la porte.

    Se connecter, s'inscrire ou demander l'état de santé ne peut exiger d'être déjà connecté : de ces routes, qui n'ont
    pas de garde, on retire les dépendances globales qui sont une garde, ou qui en demandent une. Les autres y restent.

    Args:
        app: l'application.
        prefix: ce qui précède nos chemins.
        routers: nos routes.

    Returns:
        Les noms des dépendances retirées.
    """
    ours, closing = list(routers), [found for found in app.router.dependencies if _is_closing(found)]
    if not closing:
        include_under(app, prefix, ours)
        return []
    include_under(app, prefix, [_part(router, is_guarded=True) for router in ours])
    with _without(app.router, closing):
        include_under(app, prefix, [_part(router, is_guarded=False) for router in ours])
    return list(dict.fromkeys(map(_name, closing)))


def include_under(app: FastAPI, prefix: str, routers: Iterable[APIRouter]) -> None:
    """Réunit des routeurs dans une application.

    Le préfixe se donne là : d'un routeur inclus sans préfixe, FastAPI bâtit toutes les routes, pour n'en rien garder.
    """
    app.include_router(PrefixedRouter(prefix, routers), prefix=prefix)


def _is_closing(dependency: Depends) -> bool:
    """Dit si une dépendance est une garde, ou en demande une, directement ou non."""
    return dependency.dependency is not None and bool(guards_in(dependant_of(dependency.dependency)))


def _part(router: APIRouter, *, is_guarded: bool) -> APIRouter:
    """Renvoie le même routeur, avec ses seules routes gardées, ou ses seules routes publiques."""
    part = copy.copy(router)
    part.routes = [route for route in router.routes if bool(guards_in(_dependant(route))) is is_guarded]
    return part


def _dependant(route: Any) -> Any:  # noqa: ANN401 - structures de FastAPI
    """Renvoie l'arbre des dépendances d'une route, si elle en a un."""
    return getattr(route, "dependant", None)


@contextmanager
def _without(router: APIRouter, closing: list[Depends]) -> Iterator[None]:
    """Retire des dépendances à un routeur, le temps d'une inclusion, où tout FastAPI les lit."""
    whole = router.dependencies
    router.dependencies = [found for found in whole if found not in closing]
    try:
        yield
    finally:
        router.dependencies = whole


def _name(dependency: Depends) -> str:
    """Nomme une dépendance pour l'exploitant."""
    call: Any = dependency.dependency
    return describe_guard(call) if isinstance(call, Guard) else getattr(call, "__qualname__", type(call).__qualname__)
