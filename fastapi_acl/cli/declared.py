"""Ce que les routes d'une application demandent, pour y comparer ce que les règles accordent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi_acl.engine.casbin.rule_lint import Declared
from fastapi_acl.shared.http.dependants import guards_in
from fastapi_acl.shared.http.places import places_in
from fastapi_acl.shared.http.security import Require
from fastapi_acl.shared.http.templates import split_permission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

    from fastapi_acl.shared.http.places import Place


def list_declared(app: FastAPI, *, on_routes: bool) -> Declared:
    """Renvoie ce que demandent les routes gardées d'une application et de ce qu'elle monte.

    Args:
        app: l'application.
        on_routes: vrai si le modèle décide du gabarit de la route et de sa méthode, et non de la permission.
    """
    asked = [pair for place in places_in(app.routes) for pair in _list_asked(place, on_routes=on_routes)]
    return Declared(frozenset(resource for resource, _ in asked), frozenset(action for _, action in asked))


def _list_asked(place: Place, *, on_routes: bool) -> Iterator[tuple[str, str]]:
    """Énumère les ressources et actions qu'une route demande."""
    for guard in guards_in(place.dependant):
        if not isinstance(guard, Require):
            continue
        if on_routes:
            yield from ((place.path, method) for method in place.methods or ("WEBSOCKET",))
        else:
            yield from map(split_permission, guard.permissions)
