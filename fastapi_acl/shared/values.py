"""Ce qui devient un texte avant d'être comparé à une règle : sans cadre ni pilote, et sans rien deviner.

Une règle est faite de textes, et `7 == "7"` est faux : un domaine donné comme nombre ne rencontrerait aucune règle,
refus compris. Ce qui a une seule écriture la prend ; le reste n'en a aucune.
"""

from __future__ import annotations

import enum
from typing import Final
from uuid import UUID

from fastapi_acl.shared.exceptions import ValueTooLongError

MAX_BITS: Final = 13_653
"""Taille d'un entier, en bits, au-delà de laquelle il s'écrit en plus de 4 096 chiffres."""


def canonical_text(value: object) -> str | None:
    """Renvoie l'écriture canonique d'une valeur, toujours un `str` exact.

    Args:
        value: texte, entier, UUID, ou énumération de l'un d'eux.

    Returns:
        None pour tout le reste : un booléen, un flottant, une date s'écrivent de plusieurs façons, un objet d'aucune.

    Raises:
        ValueTooLongError: un entier est trop grand pour être écrit.
    """
    if isinstance(value, enum.Enum):  # avant le texte : `class E(str, Enum)` s'écrit « E.x » ou « x » selon Python
        return canonical_text(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _digits(value)
    return str(value) if isinstance(value, UUID) else None


def _digits(number: int) -> str:
    """Écrit un entier."""
    if number.bit_length() > MAX_BITS:
        raise ValueTooLongError
    return int.__repr__(number)
