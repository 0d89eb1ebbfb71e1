"""`aclMatch` : la comparaison des modèles fournis, en temps constant, sans expression régulière.

Un motif est un texte exact, un `*` seul, ou un texte fini par `:*`. Les `keyMatch*` de Casbin ignorent tout ce qui
suit le premier `*` (`*/secret` ouvre tout) : ils ne servent que dans les modèles qui les nomment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from fastapi_acl.shared.exceptions import DecisionFailedError
from fastapi_acl.shared.identity import UnreadableAttribute

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ANY: Final = "*"
ANY_BELOW: Final = ":*"

OWNER: Final = "owner"
"""Attribut qui porte le propriétaire d'un objet, à moins que le réglage `owner_attribute` n'en nomme un autre."""

_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def acl_match(value: str, pattern: str) -> bool:
    """Dit si le motif couvre la valeur.

    Args:
        value: valeur de la requête ; un motif y est pris à la lettre.
        pattern: valeur de la règle.
    """
    if pattern == ANY or value == pattern:  # noqa: PLR1714 - deux comparaisons valent mieux qu'un hachage
        return True
    return is_prefix(pattern) and str.startswith(value, pattern[:-1]) and len(value) >= len(pattern)


def acl_owns(resource: object, subject: object, effect: str, *, attribute: str = OWNER) -> bool:
    """Dit si l'objet appartient à l'appelant : son propriétaire est l'`id` de l'appelant.

    Une ressource dont l'objet n'a pas été chargé n'a pas de propriétaire connu : elle n'appartient à personne pour un
    accord, et à tout le monde pour un refus. Le doute refuse toujours.

    Args:
        resource: ressource de la requête, avec ses attributs.
        subject: sujet de la requête, avec son `id`.
        effect: effet de la règle, `allow` ou `deny`.
        attribute: nom de l'attribut qui porte le propriétaire.

    Raises:
        DecisionFailedError: le propriétaire ne peut pas être lu, ou n'est ni un texte, ni un entier, ni un UUID.
    """
    owner, identifier = _read_attribute(resource, attribute), _read_attribute(subject, "id")
    if owner is None or identifier is None:
        return effect == "deny"
    return _canonical(owner, f"r.obj.{attribute}") == _canonical(identifier, "r.sub.id")


def _read_attribute(value: object, name: str) -> object:
    """Renvoie un attribut, ou None ; les méthodes d'un texte n'en sont pas."""
    if isinstance(value, str):
        return getattr(value, "__dict__", {}).get(name)
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _canonical(value: object, words: str) -> str:
    """Renvoie le texte d'un identifiant : un entier vaut son écriture canonique, un UUID se compare sans casse."""
    if isinstance(value, str):
        text = str.__str__(value)
        return text.lower() if _UUID.fullmatch(text) else text
    if isinstance(value, UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return int.__repr__(value) if isinstance(value, int) else str(value)
    reason = value.reason if isinstance(value, UnreadableAttribute) else f"c’est un objet ({type(value).__name__})"
    message = f"« {words} » ne dit pas à qui est l’objet : {reason} ; il faut un texte, un entier ou un UUID"
    raise DecisionFailedError(reason=message)


def is_prefix(pattern: str) -> bool:
    """Dit si le motif se termine par un segment joker."""
    return str.endswith(pattern, ANY_BELOW)


def is_pattern(text: str) -> bool:
    """Dit si le texte est un motif admis : `*` n'y paraît que seul ou comme dernier segment."""
    return ANY not in text or text == ANY or (is_prefix(text) and ANY not in text[:-1])


def patterns_of(value: str, most: int | None = None) -> Iterator[str]:
    """Énumère, sans doublon, les motifs qui couvrent une valeur : elle-même, `*`, et un par segment.

    Args:
        value: valeur de la requête.
        most: longueur au-delà de laquelle aucune règle n'a de motif ; None sans borne.
    """
    yield value
    if value != ANY:
        yield ANY
    colon, stop = str.find(value, ":"), len(value) - 1 if most is None else min(len(value) - 1, most - 1)
    while 0 <= colon < stop:
        pattern = value[: colon + 1] + ANY
        if pattern != value:
            yield pattern
        colon = str.find(value, ":", colon + 1, stop)


class Prefixes:
    """Les motifs que les règles ont dans un champ : une décision ne cherche que ceux-là.

    Énumérer les motifs qui couvrent une valeur coûterait un texte par segment de la valeur, que l'appelant choisit ;
    ici, c'est au plus un par longueur de préfixe que des règles ont, et une règle n'a pas plus de 250 caractères.

    Attributes:
        lengths: longueurs de préfixe (« : » compris), et combien de règles ont chacune.
        known: motifs à préfixe, et combien de règles ont chacun.
        anys: combien de règles ont `*` seul.
    """

    __slots__ = ("anys", "known", "lengths")

    def __init__(self) -> None:
        """Part sans motif."""
        self.lengths: dict[int, int] = {}
        self.known: dict[str, int] = {}
        self.anys = 0

    def count(self, text: str, step: int) -> None:
        """Compte une valeur de règle qui arrive (1) ou qui part (-1) ; un texte exact n'est pas un motif."""
        if text == ANY:
            self.anys += step
        elif is_prefix(text):
            _tally(self.known, text, step)
            _tally(self.lengths, len(text) - 1, step)

    def covering(self, value: str) -> Sequence[str]:
        """Renvoie, sans doublon, les textes de règles à chercher pour une valeur : elle-même et les motifs connus."""
        found = [value, ANY] if self.anys and value != ANY else [value]
        size = len(value)
        for length in self.lengths:
            if length < size and value[length - 1] == ":":
                pattern = value[:length] + ANY
                if pattern in self.known and pattern != value:
                    found.append(pattern)
        return found


def _tally(counts: dict[Any, int], key: object, step: int) -> None:
    """Compte, sans garder ce qui tombe à zéro."""
    total = counts.get(key, 0) + step
    if total:
        counts[key] = total
    else:
        del counts[key]


def covers(held: str, asked: str) -> bool:
    """Dit si tout ce que couvre le second motif est couvert par le premier."""
    return acl_match(asked, held)


def overlaps(one: str, other: str) -> bool:
    """Dit si les deux motifs couvrent une même valeur."""
    return covers(one, other) or covers(other, one)
