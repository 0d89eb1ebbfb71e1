"""Une application protégée, pilotée comme un client le ferait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from asgi_lifespan import LifespanManager
from fastapi import Depends, FastAPI
from starlette.status import HTTP_503_SERVICE_UNAVAILABLE

from fastapi_acl import ACLConfig, ACLManager, require
from tests.support.waits import PATIENCE_SECONDS, until

ADMIN = "admin"
ADMIN_PASSWORD = "administrateur-d-essai"
PASSWORD = "trois petits chats gris"
SECRET = "clé d'essai, longue et sans valeur aucune"


def config(**settings: Any) -> ACLConfig:
    """Réglages d'essai : bcrypt au plus court, aucun fichier .env."""
    defaults: dict[str, Any] = {
        "jwt_secret_key": SECRET,
        "bcrypt_rounds": 4,
        "create_default_admin": True,
        "default_admin_password": ADMIN_PASSWORD,
        "_env_file": None,
    }
    return ACLConfig(**{**defaults, **settings})


@asynccontextmanager
async def started(**settings: Any) -> AsyncIterator[ACLManager]:
    """Un manager démarré, sans application ; une base trop lente à ouvrir remet le démarrage, et rien de plus."""
    manager = ACLManager(config(**settings))
    try:
        await manager.initialize()
        await until(lambda: manager.is_ready)
        yield manager
    finally:
        await manager.close()


def documents(app: FastAPI, domain: str | None = None) -> FastAPI:
    """Ajoute des routes gardées à une application, dans un domaine si le modèle en a."""

    @app.get("/documents", dependencies=[Depends(require("document:read", domain=domain))])
    async def list_documents() -> list[str]:
        return ["Bienvenue"]

    @app.get("/documents/{name}", dependencies=[Depends(require("document:{name}:read", domain=domain))])
    async def read_document(name: str) -> str:
        return name

    return app


@dataclass
class Client:
    """Un client HTTP, avec ou sans jeton."""

    http: httpx.AsyncClient
    manager: ACLManager
    token: str | None = None
    refresh_token: str | None = None
    id: str = ""

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {**options.pop("headers", {})}
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        return await self.http.request(method, path, headers=headers, **options)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Any) -> httpx.Response:
        return await self.request("PUT", path, **options)

    async def delete(self, path: str, **options: Any) -> httpx.Response:
        return await self.request("DELETE", path, **options)

    async def insist(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Redemande tant qu'on lui dit de revenir : une base occupée n'est pas un refus."""

        async def is_answered() -> bool:
            answers.append(await self.request(method, path, **options))
            return "retry-after" not in answers[-1].headers or answers[-1].status_code != HTTP_503_SERVICE_UNAVAILABLE

        answers: list[httpx.Response] = []
        await until(is_answered)
        return answers[-1]

    async def register(self, username: str, password: str = PASSWORD) -> httpx.Response:
        body = {"username": username, "email": f"{abs(hash(username))}@example.com", "password": password}
        return await self.post("/api/v1/auth/register", json=body)

    async def login(self, username: str, password: str = PASSWORD) -> Client:
        answer = await self.post("/api/v1/auth/login", json={"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        someone = Client(self.http, self.manager, tokens["access_token"], tokens["refresh_token"])
        someone.id = (await someone.get("/api/v1/auth/me")).json()["id"]
        return someone

    async def newcomer(self, username: str) -> Client:
        assert (await self.register(username)).status_code == 201
        return await self.login(username)

    async def admin(self) -> Client:
        return await self.login(ADMIN, ADMIN_PASSWORD)

    async def add_rules(self, *rules: tuple[str, ...]) -> httpx.Response:
        body = {"rules": [{"ptype": ptype, "values": list(values)} for ptype, *values in rules]}
        return await self.post("/api/v1/admin/permissions/rules", json=body)

    async def remove_rules(self, *rules: tuple[str, ...]) -> httpx.Response:
        body = {"rules": [{"ptype": ptype, "values": list(values)} for ptype, *values in rules]}
        return await self.delete("/api/v1/admin/permissions/rules", json=body)


def living(app: FastAPI) -> LifespanManager:
    """Démarre et arrête une application ; le temps qu'il y faut n'est pas ce qu'on éprouve."""
    return LifespanManager(app, startup_timeout=PATIENCE_SECONDS, shutdown_timeout=PATIENCE_SECONDS)


@asynccontextmanager
async def serve(app: FastAPI, manager: ACLManager, *, lifespan: bool = True) -> AsyncIterator[Client]:
    """Sert une application, avec son lifespan ou sans."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://essai") as http:
        if lifespan:
            async with living(app):
                yield Client(http, manager)
        else:
            try:
                yield Client(http, manager)
            finally:
                await manager.close()


@asynccontextmanager
async def protected(**settings: Any) -> AsyncIterator[Client]:
    """Sert une application neuve, gardée, avec ses documents, une fois qu'elle décide."""
    async with starting(**settings) as client:
        await until(lambda: client.manager.is_ready)
        yield client


@asynccontextmanager
async def starting(**settings: Any) -> AsyncIterator[Client]:
    """Sert la même application, que sa base ait répondu ou non."""
    app = FastAPI()
    manager = ACLManager(config(**settings), app=app)
    domain = "un" if manager.authorizer.needs_domains else None
    async with serve(documents(app, domain), manager) as client:
        yield client
