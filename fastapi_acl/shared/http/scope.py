"""Ce qu'une requête sait de son ACLManager : un middleware ASGI l'y met, les dépendances l'y lisent.

Rien n'est gardé au niveau d'un module : deux applications d'un même processus ne se voient pas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from fastapi_acl.shared.exceptions import ManagerMissingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Mapping, Sequence

    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Receive, Scope, Send

    from fastapi_acl.shared.decisions import DecisionMemory
    from fastapi_acl.shared.http.dependants import Guard
    from fastapi_acl.shared.http.health import Health
    from fastapi_acl.shared.identity import Authenticator, Authorizer, Principal

SCOPE_KEY: Final = "fastapi_acl"
ROOT_KEY: Final = "fastapi_acl.root_path"
"""Préfixe sous lequel l'application du manager est elle-même montée."""

Component = TypeVar("Component")


class Tracer(Protocol):
    """Ce qui entoure une décision d'un span ; voir `fastapi_acl.tracing`."""

    async def trace_decision(
        self, asked: Mapping[str, str | Sequence[str]], deciding: Awaitable[Principal]
    ) -> Principal:
        """Attend ce qu'une garde décide.

        Args:
            asked: ce qu'elle demande, par nature, tel que le code de l'application l'écrit.
            deciding: la garde.
        """

    def remove(self) -> None:
        """Cesse de tracer."""


class GuardChecks(Protocol):
    """Ce qui a vérifié les gardes ; voir `fastapi_acl.shared.http.guarded_routes`."""

    def admit(self, guard: Guard, connection: HTTPConnection) -> None:
        """Laisse passer une garde qui s'accorde avec sa route et le modèle.

        Raises:
            ConfigurationError: elle ne s'y accorde pas, et ne décide donc pas.
        """


class AccessControl(Protocol):
    """Ce que les dépendances demandent au manager."""

    @property
    def tracer(self) -> Tracer | None:
        """Ce qui trace les décisions, si on l'a demandé."""

    @property
    def guards(self) -> GuardChecks:
        """Ce qui a vérifié les gardes."""

    @property
    def authenticator(self) -> Authenticator:
        """Ce qui fait d'un jeton une identité."""

    @property
    def authorizer(self) -> Authorizer:
        """Ce qui décide."""

    @property
    def decisions(self) -> DecisionMemory:
        """Ce qu'il retient de ses refus."""

    @property
    def revision(self) -> int:
        """Dernière révision que ce processus a appliquée."""

    def health(self) -> Health:
        """Dit l'état de ce processus, sans rien lire."""

    async def reach(self, revision: int, account: str) -> None:
        """Attend qu'une révision soit appliquée ici ; voir `RevisionGate.reach`.

        Raises:
            RevisionNotReachedError: elle ne l'a pas été à temps.
        """

    async def ready(self) -> None:
        """Attend que le manager soit prêt, peu de temps.

        Raises:
            UnavailableError: il ne l'est pas.
        """

    @property
    def dev_origins(self) -> Collection[str]:
        """Origines des autres pages qui peuvent agir sans jeton, en développement."""

    def development_principal(self) -> Principal | None:
        """Renvoie l'identité d'une requête locale sans jeton, si `disable_auth_for_dev` l'admet."""

    def provide(self, kind: type[Component]) -> Component:
        """Renvoie le composant de ce type."""


class ACLMiddleware:
    """Middleware ASGI pur qui met le manager dans la portée de chaque requête ; il n'attend rien."""

    def __init__(self, app: ASGIApp, access_control: AccessControl) -> None:
        """Retient l'application et le manager.

        Args:
            app: application suivante.
            access_control: le manager.
        """
        self._app = app
        self._access_control = access_control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passe la requête, portée complétée."""
        scope[SCOPE_KEY] = self._access_control
        scope[ROOT_KEY] = scope.get("root_path", "")
        await self._app(scope, receive, send)


def access_control(connection: HTTPConnection) -> AccessControl:
    """Renvoie le manager de cette requête.

    Raises:
        ManagerMissingError: l'application n'en a pas.
    """
    found: Any = connection.scope.get(SCOPE_KEY)
    if found is None:
        raise ManagerMissingError
    return cast("AccessControl", found)


def mount_path(connection: HTTPConnection) -> str:
    """Renvoie le chemin des montages traversés depuis l'application du manager."""
    root: str = connection.scope.get("root_path", "")
    return root.removeprefix(connection.scope.get(ROOT_KEY, ""))


def tracer_of(connection: HTTPConnection) -> Tracer | None:
    """Renvoie ce qui trace les décisions de cette requête, s'il y en a un."""
    return getattr(connection.scope.get(SCOPE_KEY), "tracer", None)
