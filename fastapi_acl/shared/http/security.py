"""`current_user` et `require` : ce que les routes, celles de la bibliothèque comme celles de l'application, demandent.

Une seule dépendance mène du jeton à la décision : jeton → `Authenticator` → `Principal` → `Authorizer` → la route, ou
un problème 401 ou 403. Rien sur ce chemin ne lit de base ni de réseau.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar, cast

from fastapi import Depends
from fastapi.openapi.models import OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_acl.shared.decisions import Question
from fastapi_acl.shared.exceptions import (
    ACLException,
    AuthenticationRequiredError,
    ConfigurationError,
    DecisionFailedError,
)
from fastapi_acl.shared.http.attributes import with_attributes
from fastapi_acl.shared.http.denials import record_denial, report_failure
from fastapi_acl.shared.http.dependants import Guard
from fastapi_acl.shared.http.headers import bearer_token, is_local, min_revision
from fastapi_acl.shared.http.origins import is_same_page
from fastapi_acl.shared.http.overrides import is_overridden, resolve
from fastapi_acl.shared.http.problems import ProblemException
from fastapi_acl.shared.http.resources import expand_for, route_template
from fastapi_acl.shared.http.scope import AccessControl, access_control, tracer_of
from fastapi_acl.shared.http.templates import check_dependency, check_domain, check_role, split_permission
from fastapi_acl.shared.identity import (
    EVERY_DOMAIN,
    NO_CLAIMS,
    ROLE_PREFIX,
    Authorizer,
    Principal,
    UnreadableAttribute,
    make_name,
)
from fastapi_acl.shared.values import canonical_text

Component = TypeVar("Component")
Dependency = Callable[..., Any]

Asks = Callable[[AccessControl, Principal], Principal]
"""Ce qu'une garde demande d'un appelant : rend son identité, ou lève le refus."""

SCHEME_NAME: Final = "fastapi-acl"

_BELOW: Final = ":*"
"""Fin d'un motif : un domaine, et tous ceux qui en commencent les segments."""

FORGOTTEN: Final = UnreadableAttribute("sa valeur n’a pas été retenue avec le refus")
"""Ce qui tient la place d'un attribut dans un refus retenu."""

FOREIGN_PAGE: Final = (
    "Cette requête vient d’une page d’une autre origine, que « disable_auth_for_dev » n’admet pas : si cette page est "
    "de cette machine, ajoutez son origine à ACL_DEV_ORIGINS (par exemple « http://localhost:5173 »), ou présentez un "
    "jeton."
)

PRINCIPAL_KEY: Final = "fastapi_acl.principal"
"""L'identité déjà établie, et le manager qui l'a fait : une requête ne s'identifie qu'une fois."""


class BearerGuard(SecurityBase, Guard):
    """Dépendance qui demande un jeton porteur, et que FastAPI déclare d'elle-même dans OpenAPI.

    Elle ne demande que la requête : chaque sous-dépendance que FastAPI résout coûte plus que la décision.
    """

    model = OAuth2(flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl="token", scopes={})))
    scheme_name = SCHEME_NAME

    @property
    def asked(self) -> Sequence[str]:
        """Ce qu'elle demande, tel que le code de l'application l'écrit, pour le journal."""
        return ()

    @property
    def told(self) -> Mapping[str, str | Sequence[str]]:
        """La même chose, par nature, pour les traces ; rien si elle ne décide de rien."""
        return {}

    async def forestall(self, connection: HTTPConnection) -> None:
        """Refuse avant que le corps soit lu ; rien n'en est retenu, la garde se prononcera de nouveau.

        Une application qui met sa dépendance à la place de `current_user` identifie quand elle veut.

        Raises:
            ProblemException: voir la garde elle-même.
        """
        if not is_overridden(connection, current_user):
            await self._guard(connection, self._early(connection), is_early=True)
            connection.scope.pop(PRINCIPAL_KEY, None)

    def _early(self, connection: HTTPConnection) -> Asks:  # noqa: ARG002 - pour celles qui décident
        """Renvoie ce qui peut se demander sans le corps : l'identité seule, à moins qu'une garde n'y change."""
        return _accept

    async def _guard(
        self, connection: HTTPConnection, asks: Asks, *, caller: Principal | None = None, is_early: bool = False
    ) -> Principal:
        """Attend, identifie, décide, trace et rend les erreurs en problèmes : le seul chemin de toutes les gardes.

        Args:
            connection: requête en cours.
            asks: ce qui décide, une fois le manager prêt et l'appelant connu.
            caller: l'appelant, si FastAPI l'a déjà fait identifier.
            is_early: vrai si le corps n'est pas lu ; un accord sera redit, et tracé, ensuite, un refus n'a que cette
                fois.

        Raises:
            ProblemException: 401 sans jeton ou sur un jeton refusé, 403 si la politique refuse, 503 si elle ne peut
                pas répondre.
        """
        deciding = self._decide(connection, asks, caller)
        tracer = tracer_of(connection)
        if tracer is None or not self.told:
            return await deciding
        if is_early:
            try:
                return await deciding
            except ProblemException as error:
                deciding = _raise(error)
        return await tracer.trace_decision(self.told, deciding)

    async def _decide(self, connection: HTTPConnection, asks: Asks, caller: Principal | None) -> Principal:
        """Fait décider `asks` ; une décision qui a échoué est dite au journal."""
        try:
            manager = access_control(connection)
            await manager.ready()
            manager.guards.admit(self, connection)
            return asks(manager, await self._find_caller(manager, connection) if caller is None else caller)
        except ACLException as error:
            report_failure(connection, error, self.asked)
            raise ProblemException(error) from error

    async def _find_caller(self, manager: AccessControl, connection: HTTPConnection) -> Principal:
        """Renvoie ce que `current_user` rendrait, remplacement compris."""
        if is_overridden(connection, current_user):
            return cast("Principal", await resolve(connection, current_user))
        return await _identify(manager, connection)


def _accept(_manager: AccessControl, caller: Principal) -> Principal:
    """N'exige de l'appelant que d'être connu."""
    return caller


async def _raise(error: ProblemException) -> Principal:
    """Lève un refus déjà prononcé."""
    raise error


class CurrentUser(BearerGuard):
    """Dépendance qui rend l'identité de l'appelant, sans lire la base."""

    async def __call__(self, connection: HTTPConnection) -> Principal:
        """Renvoie l'identité de l'appelant.

        Raises:
            ProblemException: 401 sans jeton ou sur un jeton refusé, 503 si le service n'est pas prêt.
        """
        return await self._guard(connection, _accept)

    async def _find_caller(self, manager: AccessControl, connection: HTTPConnection) -> Principal:
        """Identifie l'appelant ; ce qui remplace cette dépendance peut l'appeler, elle."""
        return await _identify(manager, connection)


current_user: Final = CurrentUser()


async def ready_access_control(connection: HTTPConnection) -> AccessControl:
    """Renvoie le manager de la requête, une fois prêt."""
    try:
        manager = access_control(connection)
        await manager.ready()
    except ACLException as error:
        raise ProblemException(error) from error
    return manager


async def _identify(manager: AccessControl, connection: HTTPConnection) -> Principal:
    """Identifie l'appelant, une fois par requête et par manager."""
    identifier, principal = connection.scope.get(PRINCIPAL_KEY, (None, None))
    if identifier is not manager:
        principal = await _authenticate(manager, connection)
        wanted = min_revision(connection)
        if wanted is not None:
            await manager.reach(wanted, principal.id)
            principal = await _authenticate(manager, connection)  # cette révision a pu révoquer l'appelant
        connection.scope[PRINCIPAL_KEY] = manager, principal
    return cast("Principal", principal)


def _authenticate(manager: AccessControl, connection: HTTPConnection) -> Awaitable[Principal]:
    """Fait du jeton une identité."""
    token = bearer_token(connection)
    return _developer(manager, connection) if token is None else manager.authenticator.authenticate(token)


async def _developer(manager: AccessControl, connection: HTTPConnection) -> Principal:
    """Renvoie l'identité d'une requête sans jeton, que seul le mode de développement admet.

    Raises:
        AuthenticationRequiredError: il ne l'admet pas ; une page d'un autre site n'agit pas au nom du développeur.
    """
    principal = manager.development_principal() if is_local(connection) else None
    if principal is None:
        raise AuthenticationRequiredError
    if not is_same_page(connection, manager.dev_origins):
        raise AuthenticationRequiredError(FOREIGN_PAGE)
    return principal


CurrentPrincipal = Annotated[Principal, Depends(current_user)]


@dataclass(frozen=True)
class Provided:
    """Dépendance qui rend un composant du manager de la requête ; égale à toute autre du même type."""

    kind: type[Any]

    async def __call__(self, manager: Annotated[AccessControl, Depends(ready_access_control)]) -> Any:  # noqa: ANN401 - du type demandé
        """Renvoie le composant."""
        return manager.provide(self.kind)


def provide(kind: type[Component]) -> Callable[..., Awaitable[Component]]:
    """Fait la dépendance qui rend le composant de ce type.

    Args:
        kind: classe ou port sous lequel le manager l'a rangé.
    """
    return Provided(kind)


@dataclass(frozen=True)
class Require(BearerGuard):
    """Dépendance qui n'ouvre la route que si la politique l'accorde ; deux demandes égales sont interchangeables.

    L'égalité de valeur fait marcher `app.dependency_overrides[require("document:read")]`.

    Attributes:
        permissions: permissions `ressource:action`, la ressource pouvant contenir des paramètres de chemin.
        mode: `all` les demande toutes, `any` une seule.
        resource: dépendance qui charge l'objet dont le modèle lit les attributs.
        domain: domaine, avec paramètres de chemin, ou dépendance qui le rend.
    """

    permissions: tuple[str, ...]
    mode: Literal["all", "any"] = "all"
    resource: Dependency | None = None
    domain: str | Dependency | None = None
    _demands: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Coupe les permissions et montre à FastAPI les dépendances qu'il doit résoudre ; rien n'en reste à faire.

        Raises:
            ConfigurationError: il n'y a pas de permission, ou l'une n'a pas la forme voulue ; de même du domaine et de
                ce qui charge l'objet.
        """
        if not self.permissions:
            message = "nommez au moins une permission"
            raise ConfigurationError(message)
        if self.resource is not None:
            check_dependency(self.resource, "resource=")
        check_domain(self.domain)
        object.__setattr__(self, "_demands", tuple(split_permission(permission) for permission in self.permissions))
        object.__setattr__(self, "_hash", hash((self.permissions, self.mode, self.resource, self.domain)))
        object.__setattr__(self, "__signature__", self._signature())

    @property
    def demands(self) -> tuple[tuple[str, str], ...]:
        """Couples de ressource et d'action demandés."""
        return self._demands

    @property
    def asked(self) -> Sequence[str]:
        """Permissions demandées."""
        return self.permissions

    @property
    def told(self) -> Mapping[str, str | Sequence[str]]:
        """Permissions demandées, et s'il les faut toutes."""
        return {"permissions": self.permissions, "mode": self.mode}

    def __hash__(self) -> int:
        """Renvoie le hachage, que FastAPI demande plusieurs fois par requête."""
        return self._hash

    def _early(self, connection: HTTPConnection) -> Asks:
        """Décide, à moins qu'un objet ou un domaine ne reste à charger, ce que FastAPI fera une fois le corps lu."""
        is_loaded = self.resource is None and not callable(self.domain)
        return partial(self._judge, connection, None, None) if is_loaded else super()._early(connection)

    def _signature(self) -> inspect.Signature:
        """Fait la signature que FastAPI lit : la requête, et ce que `resource` et `domain` demandent.

        Ces deux-là ne se résolvent qu'une fois l'appelant connu : à qui n'a pas de jeton, rien ne se charge.
        """
        wanted: dict[str, Any] = {"connection": HTTPConnection}
        if self.resource is not None or callable(self.domain):
            wanted["principal"] = CurrentPrincipal
        if self.resource is not None:
            wanted["loaded"] = Annotated[Any, Depends(self.resource)]
        if callable(self.domain):
            wanted["domain"] = Annotated[Any, Depends(self.domain)]
        keyword = inspect.Parameter.KEYWORD_ONLY
        return inspect.Signature([inspect.Parameter(name, keyword, annotation=kind) for name, kind in wanted.items()])

    async def __call__(
        self,
        *,
        connection: HTTPConnection,
        principal: Principal | None = None,
        loaded: object = None,
        domain: object = None,
    ) -> Principal:
        """Renvoie l'identité si l'accès est permis.

        Raises:
            ProblemException: 401 sans jeton ou sur un jeton refusé, 403 si la politique refuse, 503 si elle ne peut
                pas répondre.
        """
        return await self._guard(connection, partial(self._judge, connection, loaded, domain), caller=principal)

    def _judge(
        self, connection: HTTPConnection, loaded: object, domain: object, manager: AccessControl, caller: Principal
    ) -> Principal:
        """Renvoie l'identité si l'accès est permis.

        Raises:
            PermissionDeniedError: il ne l'est pas.
        """
        place = None if self.domain is None else self._place(connection, domain)
        refused = self._list_refused(connection, manager.authorizer, caller, loaded, place)
        if refused:
            raise record_denial(connection, refused)
        return _with_route(caller, connection) if manager.authorizer.decides_on_routes else caller

    def _place(self, connection: HTTPConnection, given: object) -> str:
        """Renvoie le texte du domaine : le gabarit rempli, ou ce que la dépendance `domain=` a donné.

        Raises:
            DecisionFailedError: la dépendance n'a pas donné un texte, ni ce qui s'écrit d'une seule façon ; ou ce texte
                est un motif.
        """
        if isinstance(self.domain, str):
            return expand_for(self.domain, connection)
        text = canonical_text(given)
        if text is None:
            mend = f"un {type(given).__name__} : rendez un texte, un entier ou un UUID"
        elif text == EVERY_DOMAIN or text.endswith(_BELOW):
            mend = "un motif de domaines, où les refus d’un locataire ne valent pas : rendez le domaine d’un locataire"
        else:
            return text
        name = getattr(self.domain, "__qualname__", type(self.domain).__name__)
        raise DecisionFailedError(reason=f"domain={name} rend {mend}")

    def _list_refused(
        self,
        connection: HTTPConnection,
        authorizer: Authorizer,
        principal: Principal,
        loaded: object,
        domain: str | None,
    ) -> list[Question]:
        """Renvoie ce qui est refusé, jusqu'à la réponse qui tranche : le premier accord, ou le premier refus.

        Sous un modèle de routes, le gabarit et la méthode tiennent lieu de permission.

        Returns:
            Rien si l'accès est permis.
        """
        attributes = NO_CLAIMS if loaded is None else with_attributes(loaded, authorizer.resource_attributes)
        refused: list[Question] = []
        for template, declared in self._demands:
            resource, action = expand_for(template, connection), declared
            if authorizer.decides_on_routes:
                resource, action = route_template(connection), connection.scope.get("method", "WEBSOCKET")
            asked = resource if loaded is None else make_name(resource, attributes)
            if authorizer.decide(principal, asked, action, domain):
                if self.mode == "any":
                    return []
                continue
            refused.append(_question(principal, resource, action, domain, attributes))
            if self.mode == "all":
                return refused
        return refused


def _question(
    principal: Principal, resource: str, action: str, domain: str | None, attributes: Mapping[str, object]
) -> Question:
    """Fait, d'une demande refusée, ce qui s'en retient : des attributs, les noms seuls."""
    subject, names = str.__str__(principal.subject), dict.fromkeys(attributes, FORGOTTEN)
    return Question(subject=subject, resource=resource, action=action, domain=domain, attributes=names)


def _with_route(principal: Principal, connection: HTTPConnection) -> Principal:
    """Joint à l'identité la route demandée : ce qu'une écriture redemandera, sous le verrou du journal."""
    return replace(principal, asked=(route_template(connection), connection.scope.get("method", "WEBSOCKET")))


@dataclass(frozen=True)
class RequireRole(BearerGuard):
    """Dépendance qui n'ouvre la route qu'à qui tient le rôle, directement ou par héritage."""

    role: str
    domain: str | None = None

    def __post_init__(self) -> None:
        """Vérifie le nom et le domaine.

        Raises:
            ConfigurationError: aucune règle ne peut porter ce nom, ou le domaine n'est pas un gabarit.
        """
        check_role(self.role)
        if self.domain is not None and not isinstance(self.domain, str):
            message = f'le domaine de require_role("{self.role}") est un texte, par exemple « {{tenant}} ».'
            raise ConfigurationError(message)
        check_domain(self.domain)

    @property
    def asked(self) -> Sequence[str]:
        """Le rôle demandé, sous le nom qu'il porte dans les règles."""
        return (f"{ROLE_PREFIX}{self.role}",)

    @property
    def told(self) -> Mapping[str, str | Sequence[str]]:
        """Le rôle demandé, tel qu'il est écrit."""
        return {"role": self.role}

    async def __call__(self, connection: HTTPConnection) -> Principal:
        """Renvoie l'identité si l'appelant tient le rôle.

        Raises:
            ProblemException: 401 sans jeton ou sur un jeton refusé, 403 s'il ne le tient pas, 503 si la politique ne
                peut pas répondre.
        """
        return await self._guard(connection, partial(self._judge, connection))

    def _early(self, connection: HTTPConnection) -> Asks:
        """Décide : rien n'est à charger."""
        return partial(self._judge, connection)

    def _judge(self, connection: HTTPConnection, manager: AccessControl, caller: Principal) -> Principal:
        """Renvoie l'identité si l'appelant tient le rôle.

        Raises:
            PermissionDeniedError: il ne le tient pas.
        """
        place = expand_for(self.domain, connection) if self.domain is not None else None
        if not manager.authorizer.holds_role(caller, self.role, place):
            question = Question(subject=str.__str__(caller.subject), role=self.role, domain=place)
            raise record_denial(connection, [question])
        return caller


def require(
    permission: str, *, resource: Dependency | None = None, domain: str | Dependency | None = None
) -> Callable[..., Awaitable[Principal]]:
    """Fait la dépendance qui demande une permission : `Depends(require("document:read"))`.

    Args:
        permission: `ressource:action` ; la ressource peut nommer des paramètres de chemin
            (`document:{document_id}:read`), dont les valeurs sont encodées pour ne jamais former un motif.
        resource: dépendance qui charge l'objet ; ses attributs scalaires se lisent dans le modèle (`r.obj.owner`).
        domain: locataire : un texte, qui peut nommer des paramètres de chemin, ou une dépendance.

    Raises:
        ConfigurationError: la permission n'a pas la forme `ressource:action`.
    """
    return Require((permission,), resource=resource, domain=domain)


def require_all(*permissions: str, domain: str | Dependency | None = None) -> Callable[..., Awaitable[Principal]]:
    """Fait la dépendance qui demande toutes ces permissions ; voir `require`."""
    return Require(permissions, "all", domain=domain)


def require_any(*permissions: str, domain: str | Dependency | None = None) -> Callable[..., Awaitable[Principal]]:
    """Fait la dépendance qui demande l'une au moins de ces permissions ; voir `require`."""
    return Require(permissions, "any", domain=domain)


def require_role(role: str, *, domain: str | None = None) -> Callable[..., Awaitable[Principal]]:
    """Fait la dépendance qui demande un rôle ; préférez une permission, qu'on peut réattribuer sans toucher au code.

    Args:
        role: nom du rôle, sans préfixe.
        domain: locataire, qui peut nommer des paramètres de chemin.
    """
    return RequireRole(role, domain)
