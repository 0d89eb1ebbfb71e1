"""Ce que valent les permissions `acl.*` sous un modèle de routes : les routes qui les demandent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi_acl.shared.http.security import Require
from fastapi_acl.shared.identity import ACL_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fastapi import APIRouter

Pair = tuple[str, str]


def administration_routes(prefix: str, routers: Iterable[APIRouter]) -> Mapping[Pair, tuple[Pair, ...]]:
    """Renvoie, pour chaque permission `acl.*`, le gabarit et la méthode de chaque route qu'elle garde.

    Args:
        prefix: ce qui précède les chemins des routeurs.
        routers: nos routes.
    """
    found: dict[Pair, dict[Pair, None]] = {}
    for route in (route for router in routers for route in router.routes):
        for demand in filter(_is_ours, _demands(getattr(route, "dependant", None))):
            pairs = ((f"{prefix}{route.path_format}", method) for method in sorted(route.methods))  # type: ignore[attr-defined]  # une APIRoute
            found.setdefault(demand, {}).update(dict.fromkeys(pairs))
    return {demand: tuple(pairs) for demand, pairs in found.items()}


def _demands(dependant: Any) -> Iterator[Pair]:  # noqa: ANN401 - structure de FastAPI
    """Énumère les permissions que les gardes d'une route demandent."""
    for dependency in dependant.dependencies if dependant is not None else ():
        if isinstance(dependency.call, Require):
            yield from dependency.call.demands


def _is_ours(demand: Pair) -> bool:
    """Dit si une permission est de la bibliothèque."""
    return demand[0].startswith(ACL_NAMESPACE)
