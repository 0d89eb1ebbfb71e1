"""Chaque garde est vérifiée avant de servir : au démarrage, ou à la première requête d'une route venue plus tard.

Une garde qui ne s'accorde ni avec sa route, ni avec le modèle, n'ouvre et ne refuse pas ce qu'on croit : un domaine
que le modèle ne lit pas laisse chaque locataire ouvert. Elle empêche donc de démarrer, et le message dit où et comment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.http.dependants import guards_in, path_fields, route_of
from fastapi_acl.shared.http.path_types import ambiguous_kind
from fastapi_acl.shared.http.places import place_of, places_in
from fastapi_acl.shared.http.security import Require, RequireRole
from fastapi_acl.shared.http.templates import names_in, split_permission
from fastapi_acl.shared.identity import ACL_NAMESPACE
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection

    from fastapi_acl.shared.http.dependants import Guard
    from fastapi_acl.shared.http.places import Place
    from fastapi_acl.shared.identity import Authorizer

logger = get_logger("http")

Kept = TypeVar("Kept")

MAX_LINES: Final = 20
"""Fautes qu'un message énumère ; les autres sont comptées."""

MAX_KNOWN: Final = 10_000
"""Couples de route et de garde dont la vérification est retenue ; au-delà, on recommence."""

NO_DOMAIN = (
    "le modèle a des domaines : donnez domain=, un texte qui peut nommer un paramètre de chemin (« {tenant} ») ou, "
    "pour une permission, une dépendance"
)
USELESS_DOMAIN = (
    "rien ne lit ce domaine, chaque locataire serait ouvert aux autres : retirez domain=, ou prenez un modèle dont les "
    "décisions et les rôles ont des domaines (rbac_with_domains)"
)
USELESS_OBJECT = (
    "le modèle ne lit aucun attribut de la ressource, chaque objet serait ouvert : retirez resource=, ou prenez un "
    "modèle qui en lit (abac, ou r.obj.owner dans le vôtre)"
)
NO_ROLES = "le modèle n’a pas de rôles (aucun « g ») : demandez une permission, ou prenez un modèle qui en a (rbac)"
PARTIAL_TEMPLATE = (
    "le modèle décide sur les routes, et un montage à paramètres n’a pas de gabarit : mettez le paramètre dans les "
    "routes elles-mêmes, par include_router(prefix=…)"
)


class GuardedRoutes:
    """Les gardes d'un manager, et ce qu'il en a vérifié."""

    def __init__(self, authorizer: Authorizer) -> None:
        """Ne vérifie encore rien.

        Args:
            authorizer: ce qui décide, et dit ce que le modèle lit.
        """
        self._authorizer = authorizer
        self._known: dict[tuple[int, int], tuple[object, object, str]] = {}
        self._admitted: dict[tuple[int, int], tuple[object, object]] = {}

    def check(self, app: Starlette) -> None:
        """Vérifie toutes les gardes d'une application, montages compris, sauf celles qu'elle a remplacées.

        Une garde remplacée ne décide de rien. Une application montée a ses propres remplacements : une garde qui y
        décide encore est alors vérifiée à sa première requête.

        Raises:
            ConfigurationError: des gardes n'iront jamais ; le message les énumère.
        """
        places = list(places_in(app.routes))
        replaced = getattr(app, "dependency_overrides", None) or {}
        guarded = [(place, guard) for place in places for guard in guards_in(place.dependant, replaced)]
        unknown = [(place, guard) for place, guard in guarded if self._find_fault(guard, place.dependant) is None]
        faults = [fault for place, guard in guarded if (fault := self._look(place, guard))]
        if faults:
            raise ConfigurationError(_tell("des gardes ne s’accordent ni avec leur route, ni avec le modèle", faults))
        self._warn(unknown)

    def admit(self, guard: Guard, connection: HTTPConnection) -> None:
        """Laisse passer une garde vérifiée ; vérifie celle que le démarrage n'a pas vue.

        Raises:
            ConfigurationError: cette garde n'ira jamais, et ne décide donc pas ; le journal dit pourquoi.
        """
        route = route_of(connection)
        if (id(guard), id(route)) not in self._admitted:
            self._judge(guard, route, connection)

    def _judge(self, guard: Guard, route: object, connection: HTTPConnection) -> None:
        """Cherche ce qui a été vérifié, ou le vérifie ; ce qui est admis là le reste, et ne coûte plus qu'un regard."""
        fault = self._find_fault(guard, getattr(route, "dependant", None))
        if fault is None:
            fault = self._discover(guard, connection)
        if fault:
            message = "La garde de cette route est mal écrite ; le journal du service dit comment la corriger."
            raise ConfigurationError(message)
        _keep(self._admitted, (id(guard), id(route)), (guard, route))

    def _find_fault(self, guard: Guard, dependant: object) -> str | None:
        """Renvoie la faute retenue, vide s'il n'y en a pas ; None si cette garde n'a pas été vérifiée là."""
        known = self._known.get((id(guard), id(dependant)))
        return known[2] if known is not None else None

    def _discover(self, guard: Guard, connection: HTTPConnection) -> str:
        """Vérifie une garde à sa première requête ; sa faute n'est dite qu'une fois."""
        place = place_of(connection)
        fault = self._look(place, guard)
        if fault:
            logger.error("guard_refused: %s", fault)
        else:
            self._warn([(place, guard)])
        return fault

    def _look(self, place: Place, guard: Guard) -> str:
        """Vérifie une garde, et retient ce qu'il en est."""
        found = list(faults_of(place, guard, self._authorizer))
        fault = f"{place.label}, {describe_guard(guard)} : {' ; '.join(found)}." if found else ""
        _keep(self._known, (id(guard), id(place.dependant)), (guard, place.dependant, fault))
        return fault

    def _warn(self, guarded: Iterable[tuple[Place, Guard]]) -> None:
        """Signale les gardes qui ne chargent pas l'objet dont le modèle nomme un attribut."""
        if self._authorizer.needs_objects:
            lines = [f"{place.label}, {describe_guard(guard)}" for place, guard in guarded if _lacks_object(guard)]
            if lines:
                logger.warning("resource_not_loaded: %s", _tell("sans resource=, l’objet n’a pas d’attribut", lines))


def faults_of(place: Place, guard: Guard, authorizer: Authorizer) -> Iterator[str]:
    """Énumère ce qui, dans une garde, ne s'accorde ni avec sa route, ni avec le modèle.

    Args:
        place: la route.
        guard: la garde ; `current_user`, qui ne décide de rien, n'a pas de faute.
        authorizer: ce que le modèle lit.
    """
    if isinstance(guard, (Require, RequireRole)):
        yield from _path_faults(place, _templates(guard))
    if isinstance(guard, Require):
        yield from _permission_faults(place, guard, authorizer)
    if isinstance(guard, RequireRole):
        yield from _role_faults(guard, authorizer)


def _templates(guard: Require | RequireRole) -> frozenset[str]:
    """Renvoie les paramètres de chemin que nomment les gabarits d'une garde."""
    texts = [*(guard.permissions if isinstance(guard, Require) else ())]
    return names_in(" ".join([*texts, guard.domain] if isinstance(guard.domain, str) else texts))


def _path_faults(place: Place, named: frozenset[str]) -> Iterator[str]:
    """Dit quels paramètres manquent au chemin, et lesquels ont un type trop large."""
    if place.parameters is not None:
        known = ", ".join(f"« {name} »" for name in sorted(place.parameters)) or "aucun"
        for name in sorted(named - place.parameters):
            yield (
                f"le chemin n’a pas de paramètre « {name} » (il a : {known}) ; corrigez le gabarit ou le chemin, ou, "
                "si cette garde est de toute l’application, donnez-la aux seuls routeurs qui l’ont"
            )
    fields = [field for field in path_fields(place.dependant) if field.alias in named]
    for name, kind in dict.fromkeys((field.alias, ambiguous_kind(field.field_info.annotation)) for field in fields):
        if kind:
            yield (
                f"le paramètre « {name} » est de type {kind}, dont plusieurs écritures mènent au même objet sous des "
                "ressources différentes ; déclarez-le str, int ou UUID"
            )


def _permission_faults(place: Place, guard: Require, authorizer: Authorizer) -> Iterator[str]:
    """Compare ce qu'une garde donne à ce que le modèle lit."""
    if guard.domain is None and authorizer.needs_domains and not _is_about_us(guard):
        yield NO_DOMAIN
    if guard.domain is not None and not authorizer.reads_domains:
        yield USELESS_DOMAIN
    if guard.resource is not None and not authorizer.reads_objects:
        yield USELESS_OBJECT
    if authorizer.decides_on_routes and not place.is_whole:
        yield PARTIAL_TEMPLATE


def _role_faults(guard: RequireRole, authorizer: Authorizer) -> Iterator[str]:
    """Compare le rôle qu'une garde demande à ceux que le modèle connaît."""
    if not authorizer.has_roles:
        yield NO_ROLES
    elif guard.domain is None and authorizer.roles_have_domains:
        yield NO_DOMAIN
    elif guard.domain is not None and not authorizer.roles_have_domains:
        yield USELESS_DOMAIN


def _is_about_us(guard: Require) -> bool:
    """Dit si une garde ne demande que des permissions sur la bibliothèque, qui se décident hors de tout domaine."""
    return all(split_permission(permission)[0].startswith(ACL_NAMESPACE) for permission in guard.permissions)


def _lacks_object(guard: Guard) -> bool:
    """Dit si une garde ne charge rien alors qu'elle porte sur des objets de l'application."""
    return isinstance(guard, Require) and guard.resource is None and not _is_about_us(guard)


def describe_guard(guard: Guard) -> str:
    """Renvoie une garde telle qu'on l'écrit."""
    if isinstance(guard, RequireRole):
        return f'require_role("{guard.role}")'
    if not isinstance(guard, Require):
        return "current_user"
    name = "require" if len(guard.permissions) == 1 else f"require_{guard.mode}"
    permissions = ", ".join(f'"{permission}"' for permission in guard.permissions)
    return f"{name}({permissions})"


def _keep(memory: dict[tuple[int, int], Kept], key: tuple[int, int], kept: Kept) -> None:
    """Retient, sous l'identité de deux objets, ces objets mêmes : tenus, aucun autre ne peut prendre leur identité."""
    if len(memory) >= MAX_KNOWN:
        memory.clear()
    memory[key] = kept


def _tell(title: str, lines: Sequence[str]) -> str:
    """Énumère des lignes sous un titre ; au-delà de `MAX_LINES`, elles sont comptées."""
    more = [f"… et {len(lines) - MAX_LINES} autres."] if len(lines) > MAX_LINES else []
    return "\n- ".join([f"{title} :", *lines[:MAX_LINES], *more])
