"""Ce qu'une application met à la place d'une dépendance, par `app.dependency_overrides`.

`require` lit l'identité lui-même : chaque sous-dépendance que FastAPI résout coûte plus que la décision. L'application
qui remplace `current_user` doit pourtant être obéie ; sa dépendance, et toutes celles que celle-ci demande, passent
alors par FastAPI.
"""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Depends
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.exceptions import RequestValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import HTTPConnection

_ACCEPTED: Final = frozenset(inspect.signature(solve_dependencies).parameters)
"""Ce que FastAPI demande, selon sa version, pour résoudre des dépendances."""


def is_overridden(connection: HTTPConnection, dependency: Callable[..., Any]) -> bool:
    """Dit si l'application qui sert la requête a remplacé cette dépendance."""
    return dependency in overrides_of(connection)


def overrides_of(connection: HTTPConnection) -> Mapping[Any, Any]:
    """Renvoie ce que l'application qui sert la requête a mis à la place de ses dépendances."""
    return getattr(connection.scope.get("app"), "dependency_overrides", None) or {}


async def resolve(connection: HTTPConnection, dependency: Callable[..., Any]) -> Any:  # noqa: ANN401 - ce qu'elle rend
    """Fait résoudre une dépendance par FastAPI, comme si la route la demandait.

    Raises:
        RequestValidationError: la requête n'a pas ce que la dépendance de remplacement lit.
    """
    async with AsyncExitStack() as stack:
        found: Any = await solve_dependencies(**_arguments(connection, dependency, stack))
        values, errors = found[:2] if isinstance(found, tuple) else (found.values, found.errors)
        if errors:
            raise RequestValidationError(errors)
        return values["value"]


def _arguments(connection: HTTPConnection, dependency: Callable[..., Any], stack: AsyncExitStack) -> dict[str, Any]:
    """Renvoie ce que cette version de FastAPI demande pour résoudre une dépendance."""
    offered = {
        "request": connection,
        "dependant": get_dependant(path="", call=_asking(dependency)),
        "dependency_overrides_provider": connection.scope["app"],
        "async_exit_stack": stack,
        "embed_body_fields": False,
    }
    return {name: value for name, value in offered.items() if name in _ACCEPTED}


def _asking(dependency: Callable[..., Any]) -> Callable[..., None]:
    """Fait une fonction qui ne demande que cette dépendance."""

    def asking(value: Any) -> None:  # noqa: ANN401 - ce que rend la dépendance
        """Ne s'appelle pas : FastAPI n'en lit que la signature."""

    asking.__annotations__["value"] = Annotated[Any, Depends(dependency)]
    return asking
