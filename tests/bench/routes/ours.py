"""La bibliothèque : modèle fourni par défaut, règles dans SQLite, un jeton, une dépendance."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from fastapi_acl import ACLConfig, ACLManager, require
from tests.bench.routes import Headers, Routes, applications, bearer


async def nothing() -> None:
    """Une dépendance qui ne fait rien."""


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

    async def headers() -> Headers:
        user, session = uuid4(), uuid4()
        await manager.get_enforcer().add_policy("role:reader", "document", "read", "allow")
        await manager.get_enforcer().add_role_for_user(f"user:{user}", "role:reader")
        issue = manager.get_token_service().issue_access
        return bearer(issue(user_id=user, session_id=session, session_version=0))

    return Routes(apps, apps["free"].router.lifespan_context(apps["free"]), headers)
