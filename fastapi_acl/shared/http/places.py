"""Les routes d'une application, telles qu'une requête les atteint, à travers montages et inclusions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import fastapi.routing
from starlette.routing import Host, Mount

from fastapi_acl.shared.http.dependants import route_of
from fastapi_acl.shared.http.resources import has_mounted_parameters
from fastapi_acl.shared.http.scope import ACLMiddleware, mount_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from starlette.requests import HTTPConnection

_MOUNTED_PATH: Final = "path"
"""Nom que Starlette donne au reste du chemin d'un montage, et qu'il ne transmet pas."""


@dataclass(frozen=True, slots=True)
class Place:
    """Une route, telle qu'une requête l'atteint.

    Attributes:
        path: chemin entier, gabarits compris.
        methods: ses méthodes ; aucune pour un WebSocket.
        dependant: arbre de ses dépendances.
        parameters: paramètres que son chemin porte ; None si on ne le sait pas.
        is_whole: faux sous un montage à paramètres, qui n'a pas de gabarit.
    """

    path: str
    methods: tuple[str, ...]
    dependant: Any
    parameters: frozenset[str] | None
    is_whole: bool = True

    @classmethod
    def of(cls, route: Any, prefix: str, parameters: frozenset[str] | None, *, is_whole: bool) -> Place:  # noqa: ANN401 - route d'une version quelconque
        """Situe une route sous un préfixe."""
        methods = tuple(sorted(getattr(route, "methods", None) or ()))
        path = f"{prefix}{getattr(route, 'path_format', None) or ''}"
        return cls(path, methods, route.dependant, parameters, is_whole)

    @property
    def label(self) -> str:
        """Méthodes et chemin entier, pour les messages."""
        return f"{', '.join(self.methods) or 'WEBSOCKET'} {self.path}"


def places_in(
    routes: Sequence[Any], prefix: str = "", outer: frozenset[str] = frozenset(), through: tuple[int, ...] = ()
) -> Iterator[Place]:
    """Énumère les routes qui ont des dépendances, montages et inclusions compris, à tout FastAPI.

    Args:
        routes: routes d'une application ou d'un routeur.
        prefix: chemin sous lequel elles sont montées.
        outer: paramètres que ce chemin porte.
        through: montages traversés, pour qu'une application montée dans elle-même ne nous retienne pas.
    """
    for route in _flatten(routes):
        own = frozenset(getattr(route, "param_convertors", None) or ())
        kind = getattr(route, "original_route", route)
        if isinstance(kind, (Mount, Host)):
            if id(kind) not in through and not _has_its_own_manager(kind):
                inner = outer | (own - {_MOUNTED_PATH} if isinstance(kind, Mount) else own)
                path = prefix + (getattr(route, "path", None) or "")
                yield from places_in(getattr(route, "routes", None) or [], path, inner, (*through, id(kind)))
        elif getattr(route, "dependant", None) is not None:
            yield Place.of(route, prefix, own | outer, is_whole=not outer)


def _flatten(routes: Sequence[Any]) -> Iterable[Any]:
    """Renvoie les routes une à une ; depuis FastAPI 0.137, une inclusion est un objet qui les enveloppe."""
    each: Callable[[Sequence[Any]], Iterable[Any]] | None = getattr(fastapi.routing, "iter_route_contexts", None)
    return routes if each is None else each(routes)


def _has_its_own_manager(mount: Any) -> bool:  # noqa: ANN401 - Mount ou Host
    """Dit si l'application montée a son manager : ses gardes ne sont pas les nôtres."""
    mounted = getattr(mount, "_base_app", mount.app)
    return ACLMiddleware in {middleware.cls for middleware in getattr(mounted, "user_middleware", ())}


def place_of(connection: HTTPConnection) -> Place:
    """Renvoie la route qu'une requête a atteinte.

    Sans gabarit (un dossier de fichiers, une garde appelée à la main), le chemin n'est pas jugé : un paramètre qui y
    manquerait fait encore échouer la décision.
    """
    route = route_of(connection)
    dependant = getattr(route, "dependant", None)
    if dependant is None or not getattr(route, "path_format", None):
        return Place("(sans gabarit)", (connection.scope.get("method", "WEBSOCKET"),), dependant, None)
    is_whole = not has_mounted_parameters(connection, route)
    prefix = mount_path(connection) if is_whole else "…"
    return Place.of(route, prefix, frozenset(connection.path_params), is_whole=is_whole)
