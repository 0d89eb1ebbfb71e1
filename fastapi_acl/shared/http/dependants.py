"""Ce que FastAPI sait d'une route, quelle que soit sa version : la route elle-même, et l'arbre de ses dépendances."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi.dependencies.utils import get_dependant

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from starlette.requests import HTTPConnection


class Guard:
    """Dépendance qui identifie l'appelant, ou qui décide de ce qu'il peut."""

    async def forestall(self, connection: HTTPConnection) -> None:
        """Refuse ce qui peut l'être sans le corps de la requête ; ce qui passe sera demandé de nouveau.

        Raises:
            ProblemException: l'appelant n'est pas identifié, ou la politique refuse.
        """


def route_of(connection: HTTPConnection) -> Any:  # noqa: ANN401 - route d'une version quelconque
    """Renvoie la route, que FastAPI range à des endroits différents selon ses versions.

    Le contexte d'inclusion, qui porte le chemin entier, peut être celui d'un montage qui enveloppe la route : il ne
    vaut que s'il parle de cette route-ci.
    """
    scope = connection.scope
    route, included = scope.get("route"), scope.get("fastapi")
    context = included.get("effective_route_context") if included else None
    return context if context is not None and (route is None or context.original_route is route) else route


def dependant_of(dependency: Callable[..., Any]) -> Any:  # noqa: ANN401 - structure de FastAPI
    """Renvoie l'arbre d'une dépendance qu'aucune route ne demande encore."""
    return get_dependant(path="", call=dependency)


def guards_in(dependant: Any, replaced: Container[Any] = ()) -> list[Guard]:  # noqa: ANN401 - structure de FastAPI
    """Renvoie les gardes d'un arbre de dépendances, de la première résolue à la dernière, chacune une fois.

    Args:
        dependant: l'arbre.
        replaced: dépendances que l'application a remplacées ; ni elles, ni ce qu'elles demandent n'est résolu.
    """
    return list(dict.fromkeys(_guards(dependant, replaced)))


def _guards(dependant: Any, replaced: Container[Any]) -> Iterator[Guard]:  # noqa: ANN401 - idem
    """Parcourt l'arbre, les feuilles d'abord."""
    if dependant is None or dependant.call in replaced:
        return
    for dependency in dependant.dependencies:
        yield from _guards(dependency, replaced)
    call = dependant.call
    while isinstance(call, partial):
        call = call.func
    if isinstance(call, Guard):
        yield call


def path_fields(dependant: Any) -> Iterator[Any]:  # noqa: ANN401 - structure de FastAPI
    """Énumère les paramètres de chemin qu'une route et ses dépendances déclarent."""
    if dependant is not None:
        yield from dependant.path_params
        for dependency in dependant.dependencies:
            yield from path_fields(dependency)
