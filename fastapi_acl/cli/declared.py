"""Ce que les routes d'une application demandent, pour y comparer ce que les règles accordent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import routing
from starlette.routing import Mount

from fastapi_acl.engine.rule_lint import Declared
from fastapi_acl.shared.http.security import Require
from fastapi_acl.shared.http.templates import split_permission

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastapi import FastAPI


def declared_by(app: FastAPI, *, on_routes: bool) -> Declared:
    """Rend ce que demandent les routes gardées d'une application et de ce qu'elle monte.

    Args:
        app: l'application.
        on_routes: vrai si le modèle décide du gabarit de la route et de sa méthode, et non de la permission.
    """
    resources, actions = set[str](), set[str]()
    for path, route in _routes(app.routes, ""):
        for guard in _guards(route):
            if on_routes:
                resources.add(path)
                actions |= route.methods or {"WEBSOCKET"}
            else:
                pairs = [split_permission(permission) for permission in guard.permissions]
                resources |= {resource for resource, _ in pairs}
                actions |= {action for _, action in pairs}
    return Declared(frozenset(resources), frozenset(actions), are_filled=not on_routes)


def _routes(routes: Iterable[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Énumère les routes et leur gabarit entier, montages compris."""
    expand: Any = getattr(routing, "iter_route_contexts", iter)  # avant FastAPI 0.137, elles sont déjà à plat
    for route in expand(routes):
        original = getattr(route, "original_route", route)
        if isinstance(original, Mount):
            yield from _routes(original.routes or [], f"{prefix}{original.path}")
        else:
            yield f"{prefix}{getattr(route, 'path_format', '')}", route


def _guards(route: Any) -> Iterator[Require]:  # noqa: ANN401 - route d'une version quelconque
    """Énumère les gardes d'une route, où qu'elles soient parmi ses dépendances."""
    found = getattr(route, "dependant", None)
    seen = [found] if found is not None else []
    while seen:
        dependant = seen.pop()
        if isinstance(dependant.call, Require):
            yield dependant.call
        seen += dependant.dependencies
