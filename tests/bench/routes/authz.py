"""fastapi-authz : un intergiciel devant toute l'application, l'exécuteur de Casbin, un mot de passe non vérifié."""

from __future__ import annotations

import base64
from contextlib import nullcontext
from pathlib import Path

import casbin
from fastapi_authz import CasbinMiddleware
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from tests.bench.routes import Headers, Routes, applications


class NamedByBasic(AuthenticationBackend):
    """Croit le nom que porte l'en-tête `Authorization: Basic`, comme l'exemple de fastapi-authz."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        _, _, credentials = conn.headers.get("authorization", "").partition(" ")
        name = base64.b64decode(credentials).decode().partition(":")[0]
        return (AuthCredentials(["authenticated"]), SimpleUser(name)) if name else None


def make(folder: Path) -> Routes:
    """Met l'intergiciel devant la route gardée."""
    apps = applications(free=None, guarded=None)
    enforcer = casbin.Enforcer(str(folder / "model.conf"), str(folder / "rules.csv"))
    apps["guarded"].add_middleware(CasbinMiddleware, enforcer=enforcer)
    apps["guarded"].add_middleware(AuthenticationMiddleware, backend=NamedByBasic())

    async def headers() -> Headers:
        return [(b"authorization", b"Basic " + base64.b64encode(b"ada:x"))]

    return Routes(apps, nullcontext(), headers)
