"""`aclMatch` : la comparaison des modèles fournis, en temps constant, sans expression régulière.

Un motif est un texte exact, un `*` seul, ou un texte fini par `:*`. Les `keyMatch*` de Casbin ignorent tout ce qui
suit le premier `*` (`*/secret` ouvre tout) : ils ne servent que dans les modèles qui les nomment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from fastapi_acl.shared.exceptions import DecisionFailedError
from fastapi_acl.shared.identity import UnreadableAttribute

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
    owner, identifier = _held(resource, attribute), _held(subject, "id")
    if owner is None or identifier is None:
        return effect == "deny"
    return _canonical(owner, f"r.obj.{attribute}") == _canonical(identifier, "r.sub.id")


def _held(value: object, name: str) -> object:
    """Rend un attribut, ou None ; les méthodes d'un texte n'en sont pas."""
    if isinstance(value, str):
        return getattr(value, "__dict__", {}).get(name)
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _canonical(value: object, words: str) -> str:
    """Rend le texte d'un identifiant : un entier vaut son écriture canonique, un UUID se compare sans casse."""
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


def patterns_of(value: str) -> tuple[str, ...]:
    """Énumère, sans doublon, tous les motifs qui couvrent une valeur : elle-même, `*`, et un par segment."""
    found = {value: None, ANY: None}
    colon = str.find(value, ":")
    while 0 <= colon < len(value) - 1:
        found[value[: colon + 1] + ANY] = None
        colon = str.find(value, ":", colon + 1)
    return tuple(found)


def covers(held: str, asked: str) -> bool:
    """Dit si tout ce que couvre le second motif est couvert par le premier."""
    return acl_match(asked, held)


def overlaps(one: str, other: str) -> bool:
    """Dit si les deux motifs couvrent une même valeur."""
    return covers(one, other) or covers(other, one)
