"""`aclMatch` : la comparaison des modèles fournis, en temps constant, sans expression régulière.

Un motif est un texte exact, un `*` seul, ou un texte fini par `:*`. Les `keyMatch*` de Casbin ignorent tout ce qui
suit le premier `*` (`*/secret` ouvre tout) : ils ne servent que dans les modèles qui les nomment.
"""

from __future__ import annotations

from typing import Final

ANY: Final = "*"
ANY_BELOW: Final = ":*"


def acl_match(value: str, pattern: str) -> bool:
    """Dit si le motif couvre la valeur.

    Args:
        value: valeur de la requête ; un motif y est pris à la lettre.
        pattern: valeur de la règle.
    """
    if pattern == ANY or value == pattern:  # noqa: PLR1714 - deux comparaisons valent mieux qu'un hachage
        return True
    return is_prefix(pattern) and str.startswith(value, pattern[:-1]) and len(value) >= len(pattern)


def acl_owns(resource: object, subject: object, effect: str) -> bool:
    """Dit si l'objet appartient à l'appelant (`owner` vaut son `id`).

    Une ressource dont l'objet n'a pas été chargé n'a pas de propriétaire connu : elle n'appartient à personne pour un
    accord, et à tout le monde pour un refus. Le doute refuse toujours.

    Args:
        resource: ressource de la requête, avec ses attributs.
        subject: sujet de la requête, avec son `id`.
        effect: effet de la règle, `allow` ou `deny`.
    """
    owner, identifier = getattr(resource, "owner", None), getattr(subject, "id", None)
    if owner is None or identifier is None:
        return effect == "deny"
    return bool(owner == identifier)


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
