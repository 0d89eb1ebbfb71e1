"""ACLManager : la racine de composition.

Rien d'autre ne construit d'objets de plusieurs tranches, et rien ne vit au niveau d'un module : deux managers d'un
même processus ne se voient pas.
"""

from __future__ import annotations

import ipaddress
import secrets
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount

from fastapi_acl.auth import AuthSlice, build_auth
from fastapi_acl.auth.interface.admin.api import router as auth_admin_router
from fastapi_acl.auth.interface.api import router as auth_router
from fastapi_acl.auth.interface.api import token_router
from fastapi_acl.bootstrap import Bootstrap
from fastapi_acl.engine.adapters.sql import SQLPolicyAdapter
from fastapi_acl.engine.authorizer import PolicyAuthorizer
from fastapi_acl.engine.enforcer import PolicyEnforcer
from fastapi_acl.engine.guard import AdministratorGuard, EscalationGuard
from fastapi_acl.engine.schema import load_model
from fastapi_acl.engine.store import PolicyMemory, PolicyStore
from fastapi_acl.lifecycle import Lifecycle
from fastapi_acl.permissions.application.interface.policy_rules import IPolicyRules
from fastapi_acl.permissions.application.usecases.check_permissions import CheckPermissionsUseCase
from fastapi_acl.permissions.interface.admin.api import router as permissions_admin_router
from fastapi_acl.permissions.interface.api import router as permissions_router
from fastapi_acl.shared.config import ACLConfig, unknown_variables
from fastapi_acl.shared.database.factory import create_database
from fastapi_acl.shared.exceptions import ACLException, ConfigurationError
from fastapi_acl.shared.http.problems import ProblemException, handle_problem
from fastapi_acl.shared.http.scope import ACLMiddleware
from fastapi_acl.shared.http.security import SCHEME_NAME
from fastapi_acl.shared.identity import Principal
from fastapi_acl.shared.logging import configure_logging, get_logger
from fastapi_acl.shared.sync.changes import ChangeLog
from fastapi_acl.shared.sync.replica import Replica
from fastapi_acl.shared.sync.revocations import Revocations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fastapi import APIRouter, FastAPI

    from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
    from fastapi_acl.engine.authorizer import RequestBuilder
    from fastapi_acl.shared.identity import Authenticator, Authorizer

logger = get_logger("manager")

Component = TypeVar("Component")

OLDEST_JOSE: Final = (3, 4)
"""En deçà, python-jose accepte une clé publique comme secret HMAC (CVE-2024-33663)."""


class ACLManager:
    """Donne à une application FastAPI ses comptes, ses règles et ses décisions.

    Le manager démarre et s'arrête avec l'application, quel que soit le `lifespan` de celle-ci ; où aucun lifespan ne
    s'exécute (application montée, transport ASGI nu), la première requête gardée l'initialise.

    Example:
        ```python
        app = FastAPI()
        acl = ACLManager(ACLConfig(), app=app)


        @app.get("/documents", dependencies=[Depends(require("document:read"))])
        async def documents() -> list[str]: ...
        ```
    """

    def __init__(
        self,
        config: ACLConfig | None = None,
        app: FastAPI | None = None,
        *,
        authenticator: Authenticator | None = None,
        request_builder: RequestBuilder | None = None,
    ) -> None:
        """Compose la bibliothèque et l'installe dans l'application ; aucune connexion n'est encore ouverte.

        Args:
            config: réglages ; lus de l'environnement par défaut.
            app: application à protéger, avant son démarrage.
            authenticator: identité tirée d'un jeton qui n'est pas le nôtre.
            request_builder: valeurs des jetons de requête que le modèle nomme hors de sub, dom, obj et act.

        Raises:
            ConfigurationError: la configuration, le modèle ou l'environnement empêche de démarrer.
        """
        self.config = _with_secret(config if config is not None else ACLConfig())
        configure_logging(self.config.log_level)
        _check_distributions()
        _warn(self.config)
        self._compose(authenticator, request_builder)
        if app is not None:
            self.install(app)

    # --- composition -------------------------------------------------------------------------------------------

    def _compose(self, authenticator: Authenticator | None, request_builder: RequestBuilder | None) -> None:
        """Construit tous les objets et les relie ; rien n'y fait d'entrée-sortie."""
        config = self.config
        self._database = create_database(config)
        log = ChangeLog()
        revocations = Revocations(log)
        adapter = SQLPolicyAdapter(self._database)
        self._enforcer = PolicyEnforcer(
            load_model(config),
            adapter,
            strict=True,
            allow_eval=config.allow_eval,
            raw_subjects=config.subject_format == "raw",
            share_domains=config.model_path is None,
        )
        self._replica = Replica(self._database, log, [PolicyMemory(adapter, self._enforcer), revocations])
        self._authorizer = PolicyAuthorizer(
            self._enforcer,
            self._replica,
            max_staleness=config.max_staleness_seconds,
            request_builder=request_builder,
        )
        self._store = PolicyStore(
            adapter,
            self._enforcer,
            self._replica,
            EscalationGuard(self._enforcer.schema),
            AdministratorGuard(self._authorizer, accounts=None),
        )
        self._enforcer.bind(self._store.change)

    # --- installation ------------------------------------------------------------------------------------------

    def install(self, app: FastAPI) -> None:
        """Installe intergiciel, gestionnaires d'erreurs, routes et lifespan dans une application.

        Raises:
            ConfigurationError: l'application a déjà un manager, ou elle est déjà démarrée.
        """
        if any(middleware.cls is ACLMiddleware for middleware in app.user_middleware):
            message = "cette application a déjà un ACLManager."
            raise ConfigurationError(message)
        if app.middleware_stack is not None:
            message = "l’application est déjà démarrée : construisez ACLManager avant de la servir."
            raise ConfigurationError(message)
        app.add_middleware(ACLMiddleware, access_control=self)
        _handle_problems(app)
        for router in self._routers():
            app.include_router(router, prefix=self.config.api_prefix)
        self._wrap_lifespan(app)
        self._wrap_openapi(app)

    def _routers(self) -> Iterator[APIRouter]:
        """Énumère les routes que la configuration demande."""
        config = self.config
        if not config.enable_api_routes:
            return
        if config.enable_auth_feature:
            yield from (auth_router, auth_admin_router)
            if config.token_form_enabled:
                yield token_router
        if config.enable_permissions_feature:
            yield from (permissions_router, permissions_admin_router)

    def _wrap_lifespan(self, app: FastAPI) -> None:
        """Enveloppe le lifespan de l'application, sans rien changer au sien ni à ses `on_event`."""
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(started: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - l'application, et son état
            _handle_mounted_problems(app)
            await self.initialize()
            try:
                async with inner(started) as state:
                    yield state
            finally:
                await self.close()

        app.router.lifespan_context = lifespan

    def _wrap_openapi(self, app: FastAPI) -> None:
        """Met, dans le schéma de sécurité d'OpenAPI, l'adresse du formulaire de connexion de ce manager."""
        generate = app.openapi

        def openapi() -> dict[str, Any]:
            document = generate()
            schemes = document.get("components", {}).get("securitySchemes", {})
            if SCHEME_NAME in schemes:
                schemes[SCHEME_NAME] = self._security_scheme()
            return document

        app.openapi = openapi  # type: ignore[method-assign] - la façon documentée d'étendre OpenAPI

    def _security_scheme(self) -> dict[str, Any]:
        """Décrit la sécurité : le formulaire de connexion s'il est monté, sinon un jeton à coller."""
        has_form = any(router is token_router for router in self._routers())
        if not has_form:
            return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        url = f"{self.config.api_prefix}/auth/token".lstrip("/")
        return {"type": "oauth2", "flows": {"password": {"tokenUrl": url, "scopes": {}}}}

    # --- vie ---------------------------------------------------------------------------------------------------

    async def initialize(self) -> None:
        """Met le schéma à jour, charge la politique et suit ses changements ; sans effet si c'est fait.

        Une base qui ne répond pas n'empêche pas l'application de démarrer : les routes gardées répondent 503 jusqu'à
        ce qu'elle revienne.

        Raises:
            ConfigurationError: la configuration empêche de démarrer ; le message dit quoi régler.
        """
        await self._lifecycle.initialize()

    async def close(self) -> None:
        """Arrête le suivi, les fils de hachage et les connexions ; sans effet si c'est fait."""
        await self._lifecycle.close()
        self._auth.hasher.close()

    async def ready(self) -> None:
        """Laisse passer une requête gardée ; voir `Lifecycle.ready`."""
        await self._lifecycle.ready()

    @property
    def is_ready(self) -> bool:
        """Vrai si la politique est chargée."""
        return self._lifecycle.is_ready

    async def migrate(self) -> None:
        """Met le schéma à jour, même si `auto_migrate` est coupé, sans démarrer.

        Raises:
            DatabaseUnavailableError: la base ne répond pas.
        """
        await self._database.migrate(force=True)

    async def create_administrator(self, username: str, password: str, *, email: str | None = None) -> AuthUser:
        """Crée un compte administrateur ; un compte existant n'est jamais promu.

        Raises:
            ConfigurationError: le nom ou l'adresse est déjà pris.
            InvalidInputError: le nom, l'adresse ou le mot de passe n'est pas admis.
            DatabaseUnavailableError: la base ne répond pas.
        """
        await self._start()
        return await self._bootstrap.create_administrator(username, email, password)

    async def apply_policy_file(self) -> int:
        """Ajoute les règles du fichier `policy_path` qui manquent ; rend leur nombre.

        Raises:
            ConfigurationError: le fichier manque, ou une de ses lignes est fautive.
            DatabaseUnavailableError: la base ne répond pas.
        """
        await self._load()
        return await self._bootstrap.apply_policy_file()

    async def _load(self) -> None:
        """Met le schéma à jour et charge les mémoires."""
        await self._database.migrate()
        await self._replica.refresh()

    async def _start(self) -> None:
        """Démarre : schéma, mémoires, premier démarrage, identité de développement."""
        await self._load()
        await self._bootstrap.run()
        self._developer = await self._find_developer()

    async def _find_developer(self) -> Principal | None:
        """Rend l'administrateur par défaut, au nom de qui agit une requête sans jeton en développement."""
        if not self.config.disable_auth_for_dev:
            return None
        logger.warning("auth_disabled_for_dev: une requête locale sans jeton agit en administrateur par défaut")
        account = await self._auth.users.find_by_username(self.config.default_admin_username)
        return Principal(id=str(account.id)) if account is not None else None

    # --- ce que les dépendances demandent ----------------------------------------------------------------------

    @property
    def authenticator(self) -> Authenticator:
        """Ce qui fait d'un jeton une identité."""
        return self._authenticator

    @property
    def authorizer(self) -> Authorizer:
        """Ce qui décide."""
        return self._authorizer

    def development_principal(self, peer: str | None) -> Principal | None:
        """Rend l'identité de développement, pour un pair local seulement."""
        return self._developer if peer is not None and _is_loopback(peer) else None

    def provide(self, kind: type[Component]) -> Component:
        """Rend le composant de ce type, port ou cas d'usage."""
        return cast("Component", self._components[kind])

    def get_enforcer(self) -> PolicyEnforcer:
        """Rend l'exécuteur Casbin strict : son interface de gestion écrit dans la base, puis en mémoire."""
        return self._enforcer

    def get_policy_store(self) -> PolicyStore:
        """Rend le chemin des changements de règles."""
        return self._store

    def get_auth_repository(self) -> IAuthRepository:
        """Rend le dépôt des comptes."""
        return self._auth.users

    def get_token_service(self) -> ITokenService:
        """Rend le service des jetons."""
        return self._auth.tokens

    def get_password_hasher(self) -> IPasswordHasher:
        """Rend le hacheur de mots de passe."""
        return self._auth.hasher


def _with_secret(config: ACLConfig) -> ACLConfig:
    """Engendre, en développement, la clé qui manque : les jetons n'y survivent pas au processus."""
    if config.jwt_secret_key is not None:
        return config
    logger.warning("jwt_secret_generated: réglez ACL_JWT_SECRET_KEY pour que les jetons survivent au redémarrage")
    return config.model_copy(update={"jwt_secret_key": SecretStr(secrets.token_urlsafe(48))})


def _warn(config: ACLConfig) -> None:
    """Dit ce qui, dans la configuration, n'a pas l'effet attendu."""
    for sentence in unknown_variables():
        logger.warning("unknown_variable: %s", sentence)
    for name in config.ineffective_settings():
        logger.warning("setting_without_effect: cette version n’applique pas encore « %s »", name)


def _check_distributions() -> None:
    """Refuse un environnement où un paquet en écrase un autre, ou qui porte une faille connue.

    Raises:
        ConfigurationError: il faut désinstaller ou mettre à jour ; le message donne la commande.
    """
    if _installed("casbin") and _installed("pycasbin"):
        message = (
            "les paquets « casbin » et « pycasbin » s’écrasent l’un l’autre : « pip uninstall casbin pycasbin », "
            "puis « pip install pycasbin »."
        )
        raise ConfigurationError(message)
    jose = _installed("python-jose") or "0"
    if tuple(int(part) for part in jose.split(".")[:2]) < OLDEST_JOSE:
        message = f"python-jose {jose} a des failles connues : « pip install 'python-jose[cryptography]>=3.5' »."
        raise ConfigurationError(message)


def _installed(distribution: str) -> str | None:
    """Rend la version installée d'une distribution, ou None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _handle_problems(app: Starlette) -> None:
    """Rend en problèmes les erreurs que lèvent `require` et `current_user` sur les routes de l'application."""
    app.add_exception_handler(ProblemException, handle_problem)
    app.add_exception_handler(ACLException, handle_problem)


def _handle_mounted_problems(app: FastAPI) -> None:
    """Fait de même dans les applications montées, qui ont leurs propres gestionnaires."""
    for route in app.routes:
        mounted = route.app if isinstance(route, Mount) else None
        if isinstance(mounted, Starlette) and mounted.middleware_stack is None:
            _handle_problems(mounted)


def _is_loopback(peer: str) -> bool:
    """Dit si l'adresse du pair est celle de cette machine."""
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
