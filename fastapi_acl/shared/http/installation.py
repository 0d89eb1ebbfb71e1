"""Ce qu'un manager met dans une application : middleware, gestionnaires d'erreurs, routes, lifespan et OpenAPI."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette
from starlette.routing import Mount

from fastapi_acl.shared.exceptions import ACLException, ConfigurationError
from fastapi_acl.shared.http.problems import ProblemException, handle_problem
from fastapi_acl.shared.http.router import include_ours
from fastapi_acl.shared.http.scope import ACLMiddleware
from fastapi_acl.shared.http.security import SCHEME_NAME
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from fastapi import APIRouter, FastAPI

    from fastapi_acl.shared.http.guarded_routes import GuardedRoutes
    from fastapi_acl.shared.http.scope import AccessControl

logger = get_logger("manager")


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Enveloppe une application, sans rien changer à ce qu'elle fait elle-même.

    Attributes:
        access_control: le manager.
        guards: ce qui vérifie les gardes de l'application avant de servir.
        prefix: ce qui précède nos chemins.
        routers: nos routes.
        token_url: adresse du formulaire de connexion, s'il est monté.
        start: démarre le manager.
        stop: l'arrête.
    """

    access_control: AccessControl
    guards: GuardedRoutes
    prefix: str
    routers: Iterable[APIRouter]
    token_url: str | None
    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]

    def install(self, app: FastAPI) -> None:
        """Installe le manager dans une application.

        Raises:
            ConfigurationError: l'application a déjà un manager, ou elle est déjà démarrée.
        """
        _check_free(app)
        app.add_middleware(ACLMiddleware, access_control=self.access_control)
        _handle_problems(app)
        self._include_routers(app)
        self._wrap_lifespan(app)
        self._wrap_openapi(app)

    def _include_routers(self, app: FastAPI) -> None:
        """Ajoute nos routes ; ce qui fermerait nos routes publiques est dit au journal."""
        closing = include_ours(app, self.prefix, self.routers)
        if closing:
            names = ", ".join(closing)
            logger.info(
                "public_routes_open: nos routes publiques n'exigent pas %s, que l'application exige partout", names
            )

    def _wrap_lifespan(self, app: FastAPI) -> None:
        """Enveloppe le lifespan de l'application, sans rien changer au sien ni à ses `on_event`."""
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(started: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - l'application, et son état
            _handle_mounted_problems(app)
            try:
                self._check_guards(app)
                await self.start()
                async with inner(started) as state:
                    self._check_guards(app)  # le démarrage de l'application a pu ajouter des routes
                    yield state
            finally:
                await self.stop()

        app.router.lifespan_context = lifespan

    def _check_guards(self, app: FastAPI) -> None:
        """Refuse de servir une application dont une garde ne s'accorde ni avec sa route, ni avec le modèle."""
        try:
            self.guards.check(app)
        except ConfigurationError as error:
            logger.error("start_refused: %s", error.detail)  # noqa: TRY400 - la phrase suffit à corriger
            raise

    def _wrap_openapi(self, app: FastAPI) -> None:
        """Met, dans le schéma de sécurité d'OpenAPI, l'adresse du formulaire de connexion de ce manager."""
        generate = app.openapi

        def openapi() -> dict[str, Any]:
            document = generate()
            schemes = document.get("components", {}).get("securitySchemes", {})
            if SCHEME_NAME in schemes:
                schemes[SCHEME_NAME] = self._security_scheme()
            return document

        app.openapi = openapi  # type: ignore[method-assign]  # la façon documentée d'étendre OpenAPI

    def _security_scheme(self) -> dict[str, Any]:
        """Décrit la sécurité : le formulaire de connexion s'il est monté, sinon un jeton à coller."""
        if self.token_url is None:
            return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        return {"type": "oauth2", "flows": {"password": {"tokenUrl": self.token_url, "scopes": {}}}}


def _check_free(app: FastAPI) -> None:
    """Refuse une application qui a déjà un manager, ou qui est déjà démarrée.

    Raises:
        ConfigurationError: c'est le cas.
    """
    if ACLMiddleware in {cast("object", middleware.cls) for middleware in app.user_middleware}:
        message = "cette application a déjà un ACLManager."
        raise ConfigurationError(message)
    if app.middleware_stack is not None:
        message = "l’application est déjà démarrée : construisez ACLManager avant de la servir."
        raise ConfigurationError(message)


def _handle_problems(app: Starlette) -> None:
    """Renvoie en problèmes les erreurs que lèvent `require` et `current_user` sur les routes de l'application."""
    app.add_exception_handler(ProblemException, handle_problem)
    app.add_exception_handler(ACLException, handle_problem)


def _handle_mounted_problems(app: FastAPI) -> None:
    """Fait de même dans les applications montées, qui ont leurs propres gestionnaires."""
    for route in app.routes:
        mounted = route.app if isinstance(route, Mount) else None
        if isinstance(mounted, Starlette) and mounted.middleware_stack is None:
            _handle_problems(mounted)
