"""Une application par bibliothèque comparée : une route libre et une route gardée, chacune dans sa forme usuelle."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from fastapi import Depends, FastAPI

Headers = list[tuple[bytes, bytes]]


class Routes(NamedTuple):
    """Ce qui se mesure.

    Chaque application n'a qu'une route, du même nom qu'elle : le rang où une route est cherchée n'y compte pas.

    Attributes:
        apps: applications ASGI, dont `free` et `guarded`.
        lifespan: ce qui doit être ouvert pendant la mesure.
        headers: rend les en-têtes de qui a le droit de passer, une fois le lifespan ouvert.
    """

    apps: Mapping[str, Callable[..., Awaitable[None]]]
    lifespan: AbstractAsyncContextManager[Any]
    headers: Callable[[], Awaitable[Headers]]


def applications(**dependencies: Callable[..., Any] | None) -> dict[str, FastAPI]:
    """Fait une application par nom, dont la seule route demande cette dépendance."""
    apps = {name: FastAPI() for name in dependencies}
    for name, dependency in dependencies.items():
        asked = [] if dependency is None else [Depends(dependency)]
        apps[name].get(f"/{name}", dependencies=asked)(answer)
    return apps


def bearer(token: str) -> Headers:
    """Rend l'en-tête d'un jeton porteur."""
    return [(b"authorization", f"Bearer {token}".encode())]


async def answer() -> dict[str, str]:
    """Ce que toutes les routes répondent."""
    return {"titre": "Bienvenue"}
