"""La bibliothèque : modèle fourni par défaut, règles dans SQLite, un jeton, une dépendance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from starlette.requests import HTTPConnection

from fastapi_acl import ACLConfig, ACLManager, require
from fastapi_acl.shared.http.scope import ACLMiddleware
from tests.bench.routes import Headers, Routes, applications, bearer


async def nothing() -> None:
    """Une dépendance qui ne fait rien."""


def bare(dependency: Callable[..., Awaitable[Any]] | None) -> Callable[..., Awaitable[None]]:
    """Fait une application ASGI qui appelle une dépendance d'elle-même, et rien d'autre."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        connection = HTTPConnection(scope)
        if dependency is not None:
            await dependency(connection=connection)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return app


def make(folder: Path) -> Routes:
    """Protège une application par le fichier SQLite que la mesure a rempli."""
    apps = applications(free=None, guarded=require("document:read"), witness=nothing)
    config = ACLConfig(
        jwt_secret_key="une clé de mesure, longue et sans valeur aucune",
        sqlite_uri=f"sqlite:///{folder / 'rules.db'}",
        _env_file=None,
    )
    manager = ACLManager(config)
    for app in apps.values():
        manager.install(app)
    alone = {
        name: ACLMiddleware(bare(call), manager)
        for name, call in {"guard": require("document:read"), "bare": None}.items()
    }

    async def headers() -> Headers:
        user, session = uuid4(), uuid4()
        await manager.get_enforcer().add_policy("role:reader", "document", "read", "allow")
        await manager.get_enforcer().add_role_for_user(f"user:{user}", "role:reader")
        issue = manager.get_token_service().create_access_token
        return bearer(issue(user_id=user, session_id=session, session_version=0))

    return Routes({**apps, **alone}, apps["free"].router.lifespan_context(apps["free"]), headers)
