"""Qui agit, et qui décide : valeurs et ports purs, sans cadre ni pilote, que le domaine peut importer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi_acl.shared.exceptions import DecisionFailedError, ValueTooLongError
from fastapi_acl.shared.values import canonical_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

USER_PREFIX: Final = "user:"
"""Préfixe des sujets qui sont des comptes : sans lui, qui s'inscrit sous le nom `admin` serait le rôle `admin`."""

ROLE_PREFIX: Final = "role:"
"""Préfixe des sujets qui sont des rôles."""

ROLE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Forme du nom d'un rôle, sans préfixe."""

ACL_NAMESPACE: Final = "acl."
"""Début des ressources de la bibliothèque elle-même."""

ACL_PERMISSIONS: Final = (
    ("acl.users", "read"),
    ("acl.users", "write"),
    ("acl.roles", "read"),
    ("acl.roles", "write"),
    ("acl.rules", "read"),
    ("acl.rules", "write"),
    ("acl.changes", "read"),
)
"""Ce que la bibliothèque demande à qui l'administre ; les tenir fait le rang."""

EVERY_DOMAIN: Final = "*"
"""Domaine dans lequel se décident les permissions `acl.*`."""

MAX_REQUEST_VALUE: Final = 4_096
"""Longueur maximale, en caractères, d'une valeur de la requête : sujet, domaine, ressource ou action."""

NO_CLAIMS: Final[Mapping[str, Any]] = MappingProxyType({})


class AttributedName(str):  # noqa: SLOT000 - ses attributs vivent dans __dict__, où ils priment sur ceux de str
    """Texte figé qui porte des attributs scalaires, pour les modèles qui lisent `r.sub.id` ou `r.obj.owner`.

    Il se compare, se hache et s'écrit comme le texte seul ; ses attributs priment sur les méthodes de `str`, de sorte
    qu'un attribut `title` est bien celui de l'objet.
    """

    def __new__(cls, name: str, attributes: Mapping[str, object] = NO_CLAIMS) -> Self:
        """Fige le texte et ses attributs.

        Args:
            name: le texte lui-même.
            attributes: attributs lisibles par le modèle.
        """
        value = super().__new__(cls, name)
        value.__dict__.update(attributes)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse toute modification."""
        message = f"{type(self).__name__} est figé"
        raise AttributeError(message)


@dataclass(frozen=True, slots=True)
class UnreadableAttribute:
    """Tient la place d'un attribut que l'objet porte mais ne peut pas donner ; un matcher qui le lit échoue.

    Attributes:
        reason: pourquoi, et que faire.
    """

    reason: str


class GuardedName(AttributedName):
    """Texte dont un attribut est illisible : qui le lit, matcher ou fonction, fait échouer la décision.

    Une comparaison à un attribut illisible serait fausse, donc un refus muet, ou un accord si elle est niée.
    """

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401 - attribut de l'application
        """Lit un attribut.

        Raises:
            DecisionFailedError: l'objet le porte, mais n'a pas pu le donner.
        """
        value = super().__getattribute__(name)
        if isinstance(value, UnreadableAttribute):
            raise DecisionFailedError(reason=value.reason)
        return value


def make_name(name: str, attributes: Mapping[str, object]) -> AttributedName:
    """Fige un texte et ses attributs, dont certains peuvent être illisibles.

    Args:
        name: le texte lui-même.
        attributes: attributs lisibles par le modèle, ou `UnreadableAttribute` à leur place.
    """
    is_guarded = any(isinstance(value, UnreadableAttribute) for value in attributes.values())
    return (GuardedName if is_guarded else AttributedName)(name, attributes)


@dataclass(frozen=True, slots=True)
class Principal:
    """Celui au nom de qui la requête s'exécute.

    Attributes:
        id: identifiant immuable du compte, sans préfixe ; un entier, un UUID ou une énumération y devient son texte.
        session_id: session dont vient le jeton ; None pour un Authenticator qui n'en a pas.
        session_version: version de session du compte que le jeton porte.
        claims: revendications scalaires que les matchers peuvent lire (`r.sub.<nom>`).
        asked: sous un modèle de routes, gabarit et méthode que `require` a demandés pour lui ; None ailleurs.
        subject: sujet de politique, `user:<id>`, avec `id` et les revendications pour attributs.
    """

    id: str
    session_id: str | None = None
    session_version: int = 0
    claims: Mapping[str, Any] = field(default_factory=lambda: NO_CLAIMS, hash=False)
    asked: tuple[str, str] | None = field(default=None, compare=False)
    subject: AttributedName = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Fait le sujet une fois : une identité sert à bien des décisions.

        Raises:
            DecisionFailedError: l'identifiant n'est pas un texte, et ne s'écrit pas d'une seule façon.
            ValueTooLongError: il dépasse 4 096 caractères.
        """
        if type(self.id) is not str:
            object.__setattr__(self, "id", _identifier(self.id))
        if len(self.id) > MAX_REQUEST_VALUE - len(USER_PREFIX):
            raise ValueTooLongError
        subject = AttributedName(f"{USER_PREFIX}{self.id}", {**self.claims, "id": self.id})
        object.__setattr__(self, "subject", subject)

    @property
    def name(self) -> str:
        """Nom sous lequel le journal le retient."""
        return self.id if self is SYSTEM else f"{USER_PREFIX}{self.id}"


def _identifier(value: object) -> str:
    """Renvoie le texte d'un identifiant que donne l'Authenticator d'une application.

    Raises:
        DecisionFailedError: il n'en a pas, ou en aurait plusieurs.
    """
    text = canonical_text(value)
    if text is None:
        kind = type(value).__name__
        reason = f"Principal.id est un {kind} : que l’Authenticator donne un texte, un entier ou un UUID"
        raise DecisionFailedError(reason=reason)
    return text


SYSTEM: Final = Principal(id="system")
"""Le programme lui-même (démarrage, ligne de commande) ; se reconnaît par identité, aucun jeton ne peut l'imiter."""


class Authenticator(Protocol):
    """Ce qui fait d'un jeton une identité ; l'application peut fournir le sien."""

    async def authenticate(self, token: str) -> Principal:
        """Vérifie un jeton porteur.

        Raises:
            InvalidTokenError: le jeton n'est pas valide, quelle qu'en soit la raison.
        """


class Authorizer(Protocol):
    """Ce que les routes demandent au moteur ; la décision se prend en mémoire, sans entrée-sortie."""

    @property
    def decides_on_routes(self) -> bool:
        """Vrai si le modèle veut le gabarit de la route et la méthode au lieu de la ressource et de l'action."""

    @property
    def has_domains(self) -> bool:
        """Vrai si une décision porte sur un domaine, que la demande doit alors donner."""

    @property
    def resource_attributes(self) -> frozenset[str] | None:
        """Attributs de la ressource que le modèle lit ; None s'il peut les lire tous."""

    @property
    def needs_domains(self) -> bool:
        """Vrai si la route doit donner un domaine : rien d'autre ne le trouvera."""

    @property
    def reads_domains(self) -> bool:
        """Vrai si donner un domaine peut changer une décision."""

    @property
    def reads_objects(self) -> bool:
        """Vrai si charger un objet peut changer une décision : quelque chose peut en lire un attribut."""

    @property
    def needs_objects(self) -> bool:
        """Vrai si le modèle nomme un attribut de la ressource : sans objet chargé, il manquera."""

    @property
    def has_roles(self) -> bool:
        """Vrai si le modèle a des rôles."""

    @property
    def roles_have_domains(self) -> bool:
        """Vrai si un rôle se tient dans un domaine."""

    def decide(self, principal: Principal, resource: str, action: str, domain: str | None = None) -> bool:
        """Dit si l'accès est permis.

        Un entier, un UUID ou une énumération devient son texte ; toute autre valeur est une erreur.

        Raises:
            ValueTooLongError: une valeur dépasse 4 096 caractères.
            PolicyUnavailableError: aucune politique n'est chargée.
            DecisionFailedError: l'évaluation a échoué ; ce n'est jamais un accord.
        """

    def holds_role(self, principal: Principal, role: str, domain: str | None = None) -> bool:
        """Dit si l'appelant tient le rôle, directement ou par héritage."""
