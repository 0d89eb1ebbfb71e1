"""De la demande d'une route à la requête que le modèle attend : chaque valeur est reconnue au nom de son jeton."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from fastapi_acl.engine.administration import Administration
from fastapi_acl.engine.casbin.resource_reads import ResourceReads
from fastapi_acl.engine.kernel.acl_match import OWNER
from fastapi_acl.engine.kernel.schema import ACTION_NAMES, DOMAIN_NAMES, RESOURCE_NAMES, SUBJECT_NAMES
from fastapi_acl.shared.exceptions import ConfigurationError, DecisionFailedError, ValueTooLongError
from fastapi_acl.shared.identity import (
    ACL_NAMESPACE,
    EVERY_DOMAIN,
    MAX_REQUEST_VALUE,
    ROLE_PREFIX,
    USER_PREFIX,
    AttributedName,
    Authorizer,
    Principal,
    make_name,
)
from fastapi_acl.shared.values import canonical_text

if TYPE_CHECKING:
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.kernel.schema import PolicySchema
    from fastapi_acl.shared.decisions import Question
    from fastapi_acl.shared.sync.replica import Replica

KNOWN_NAMES: Final = SUBJECT_NAMES | DOMAIN_NAMES | RESOURCE_NAMES | ACTION_NAMES

RequestBuilder = Callable[["Demand"], Mapping[str, object]]
"""Donne, par nom, les valeurs d'une requête que la bibliothèque ne sait pas nommer."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Ce qu'une route demande au moteur.

    Attributes:
        principal: celui qui demande.
        resource: ressource ; un `AttributedName` si un objet a été chargé.
        action: action.
        domain: domaine de la décision ; None si la route n'en donne pas.
    """

    principal: Principal
    resource: str
    action: str
    domain: str | None = None


@final
class PolicyAuthorizer(Authorizer):
    """Décide par la politique en service, en mémoire, tant que la politique est assez fraîche."""

    def __init__(  # noqa: PLR0913 - ce que la configuration en dit, par nom
        self,
        policy: Policy,
        replica: Replica,
        *,
        max_staleness: float,
        request_builder: RequestBuilder | None = None,
        owner_attribute: str = OWNER,
        administration: Administration | None = None,
    ) -> None:
        """Associe chaque jeton de la requête à sa valeur.

        Args:
            policy: la politique en service.
            replica: ce que le processus sait du journal.
            max_staleness: âge, en secondes, au-delà duquel plus rien n'est décidé.
            request_builder: valeurs des jetons que la bibliothèque ne connaît pas.
            owner_attribute: attribut que lit `aclOwns`.
            administration: ce que valent les permissions `acl.*` sous un modèle de routes.

        Raises:
            ConfigurationError: le modèle emploie un jeton inconnu et aucun `request_builder` ne le donne.
        """
        self._policy = policy
        self._replica = replica
        self._max_staleness = max_staleness
        self._builder = request_builder
        self.administration = administration or Administration()
        self._schema: PolicySchema = policy.schema
        self._answers = [0, 0]
        is_known = request_builder is None
        self._reads = ResourceReads.of(self._schema, owner_attribute) if is_known else ResourceReads(None)
        self._decides_on_routes = self._schema.decides_on_routes
        self._is_plain = request_builder is None and _is_plain(self._schema.request)
        self._objects, self._domains = self._schema.reads(RESOURCE_NAMES), self._schema.reads(DOMAIN_NAMES)
        self._refuse_unknown_tokens()

    @property
    def decides_on_routes(self) -> bool:
        """Vrai si le modèle veut le gabarit de la route et la méthode."""
        return self._decides_on_routes

    @property
    def has_domains(self) -> bool:
        """Vrai si une décision porte sur un domaine."""
        return self._schema.has_domains

    @property
    def resource_attributes(self) -> frozenset[str] | None:
        """Attributs de la ressource que le modèle lit ; None s'il peut les lire tous."""
        return self._reads.among(self._policy.functions)

    @property
    def needs_domains(self) -> bool:
        """Vrai si la route doit donner un domaine : le modèle en veut un, et nul `request_builder` ne le trouve."""
        return self._schema.has_domains and self._builder is None

    @property
    def reads_domains(self) -> bool:
        """Vrai si donner un domaine peut changer une décision ; un `request_builder` peut toujours le lire."""
        return self._builder is not None or self._domains.names

    @property
    def reads_objects(self) -> bool:
        """Vrai si charger un objet peut changer une décision ; un `request_builder` peut toujours le lire."""
        return self._builder is not None or self._objects.objects

    @property
    def needs_objects(self) -> bool:
        """Vrai si le matcher nomme un attribut de la ressource, ou demande à qui elle appartient."""
        return self._objects.attributes

    @property
    def has_roles(self) -> bool:
        """Vrai si le modèle a des rôles."""
        return "g" in self._schema.links

    @property
    def roles_have_domains(self) -> bool:
        """Vrai si un rôle se tient dans un domaine."""
        return self._schema.roles_have_domains

    def decide(self, principal: Principal, resource: str, action: str, domain: str | None = None) -> bool:
        """Dit si l'accès est permis, d'après la politique en service."""
        self._require_fresh()
        answer = self._ask(principal, resource, action, domain)
        self._answers[answer] += 1
        return answer

    @property
    def denied(self) -> int:
        """Nombre de décisions qui ont refusé."""
        return self._answers[False]

    @property
    def allowed(self) -> int:
        """Nombre de décisions qui ont accordé."""
        return self._answers[True]

    def holds_role(self, principal: Principal, role: str, domain: str | None = None) -> bool:
        """Dit si l'appelant tient le rôle, dans le domaine si le modèle en a."""
        self._require_fresh()
        place = EVERY_DOMAIN if domain is None else request_text("domain", domain)
        in_domain = (place,) if self._schema.roles_have_domains else ()
        return self._policy.has_link(principal.subject, f"{ROLE_PREFIX}{role}", *in_domain)

    def allows(self, user_id: str, resource: str, action: str) -> bool:
        """Dit ce que la politique répond pour un compte ; sous un modèle de routes, sur les routes de la permission."""
        return self.permits(Principal(id=user_id), resource, action)

    def permits(self, principal: Principal, resource: str, action: str) -> bool:
        """Dit si quelqu'un tient une permission `acl.*`, ou toutes les routes qui la demandent."""
        return all(
            self._ask(principal, *pair, EVERY_DOMAIN) for pair in self.administration.questions(resource, action)
        )

    def still_allows(self, principal: Principal, resource: str, action: str) -> bool:
        """Dit si l'auteur d'une écriture a encore la permission de la faire, la politique étant à jour.

        Sous un modèle de routes, la permission est celle de la route que `require` a vérifiée ; sans elle, celle de
        toutes les routes qui la demandent.
        """
        if self.decides_on_routes and principal.asked is not None:
            return self._ask(principal, *principal.asked, EVERY_DOMAIN)
        return self.permits(principal, resource, action)

    def grants(self, who: Principal | str, resource: str, action: str) -> bool:
        """Dit si une règle accorde à quelqu'un, ou à un sujet de politique, de quoi administrer, refus mis à part."""
        return self._policy.grants(*self._administering(who, resource, action))

    def decides_for(self, who: Principal | str, resource: str, action: str) -> bool:
        """Dit ce que la politique répond, refus compris, à la même question."""
        return self._policy.decide(*self._administering(who, resource, action))

    def _administering(self, who: Principal | str, resource: str, action: str) -> list[object]:
        """Renvoie les valeurs d'une question d'administration, pour un compte, un rôle ou tout autre sujet."""
        principal = who if isinstance(who, Principal) else Principal(id=who.removeprefix(USER_PREFIX))
        values = self._values(Demand(principal, resource, action, EVERY_DOMAIN))
        if isinstance(who, Principal) or who.startswith(USER_PREFIX):
            return values
        subject = AttributedName(who, {"id": who})
        tokens = zip(self._schema.request, values, strict=True)
        return [subject if name in SUBJECT_NAMES else value for name, value in tokens]

    def request(self, question: Question) -> list[object]:
        """Renvoie la requête que devient une question sur n'importe quel sujet, dans l'ordre du modèle.

        Raises:
            DecisionFailedError: le modèle a des domaines et la question n'en donne pas.
        """
        subject = question.subject
        principal = Principal(id=subject.removeprefix(USER_PREFIX))
        resource = make_name(request_text("resource", question.resource), question.attributes)
        values = self._values(Demand(principal, resource, question.action, question.domain))
        if principal.subject == subject:
            return values
        named = zip(self._schema.request, values, strict=True)
        return [subject if name in SUBJECT_NAMES else value for name, value in named]

    def _ask(self, principal: Principal, resource: str, action: str, domain: str | None = None) -> bool:
        """Pose la question dans l'ordre que le modèle attend ; le plus courant n'a rien à ranger."""
        if type(resource) is not str or not 0 < len(resource) <= MAX_REQUEST_VALUE:
            resource = request_text("resource", resource)
        if type(action) is not str or not 0 < len(action) <= MAX_REQUEST_VALUE:
            action = request_text("action", action)
        if self._is_plain:
            return self._policy.decide(principal.subject, resource, action)
        place = None if domain is None else request_text("domain", domain)
        return self._policy.decide(*self._values(Demand(principal, resource, action, place)))

    def _values(self, demand: Demand) -> list[object]:
        """Renvoie les valeurs de la requête, dans l'ordre du modèle."""
        built = self._builder(demand) if self._builder else {}
        names = self._schema.request
        return [_check_built(name, built[name]) if name in built else self._value(name, demand) for name in names]

    def _value(self, name: str, demand: Demand) -> object:
        """Renvoie la valeur que porte un jeton connu."""
        if name in SUBJECT_NAMES:
            return demand.principal.subject
        if name in RESOURCE_NAMES:
            return demand.resource
        return demand.action if name in ACTION_NAMES else _domain_of(demand)

    def _require_fresh(self) -> None:
        """Refuse de décider sur une politique absente ou trop vieille."""
        self._replica.require_fresh(self._max_staleness)

    def _refuse_unknown_tokens(self) -> None:
        """Refuse un modèle dont une valeur de requête ne saurait être donnée."""
        unknown = [name for name in self._schema.request if name not in KNOWN_NAMES]
        if unknown and self._builder is None:
            message = (
                f"le modèle demande « {', '.join(unknown)} », que la bibliothèque ne sait pas remplir : donnez "
                "request_builder= à ACLManager, ou employez les noms sub, dom, obj et act."
            )
            raise ConfigurationError(message)


def _is_plain(request: tuple[str, ...]) -> bool:
    """Dit si une requête n'est qu'un sujet, une ressource et une action, dans cet ordre."""
    kinds = (SUBJECT_NAMES, RESOURCE_NAMES, ACTION_NAMES)
    return len(request) == len(kinds) and all(name in names for name, names in zip(request, kinds, strict=True))


def request_text(name: str, value: object) -> str:
    """Renvoie le texte d'une valeur de la requête, avec ses attributs si elle en porte.

    Une valeur vide est refusée : aucune règle ne peut la nommer, seuls les jokers la couvriraient, et les refus d'un
    locataire ne tiendraient plus.

    Args:
        name: ce que la valeur désigne, pour le journal.
        value: la valeur.

    Raises:
        DecisionFailedError: elle ne s'écrit pas d'une seule façon, ou elle est vide.
        ValueTooLongError: elle dépasse 4 096 caractères.
    """
    text = value if isinstance(value, AttributedName) else canonical_text(value)
    if not text:
        found = "vide" if text is not None else f"un {type(value).__name__}"
        reason = f"« {name} » est {found} : donnez un texte, un entier ou un UUID"
        raise DecisionFailedError(reason=reason)
    if len(text) > MAX_REQUEST_VALUE:
        raise ValueTooLongError
    return text


def _check_built(name: str, value: object) -> object:
    """Renvoie une valeur que `request_builder` donne : celle d'un jeton connu est un texte, les autres sont libres."""
    return request_text(f"request_builder[{name}]", value) if name in KNOWN_NAMES else value


def _domain_of(demand: Demand) -> str:
    """Renvoie le domaine de la décision ; celles sur la bibliothèque elle-même se prennent dans `*`."""
    if demand.domain is not None:
        return demand.domain
    if str.startswith(demand.resource, ACL_NAMESPACE):  # un objet peut porter un attribut « startswith »
        return EVERY_DOMAIN
    reason = "le modèle a des domaines et la demande n’en donne pas : donnez domain= à require"
    raise DecisionFailedError(reason=reason)
