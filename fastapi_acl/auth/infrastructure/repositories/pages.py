"""Les pages de comptes : leur longueur, leurs curseurs, et ce qu'une base peut garder d'un texte cherché."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from fastapi_acl.shared.exceptions import InvalidRequestError

MAX_PAGE: Final = 200
"""Comptes par page, au plus."""


def is_storable(text: str) -> bool:
    """Dit si une base peut garder ce texte ; PostgreSQL refuse U+0000, et aucun pilote n'écrit un demi-codet."""
    return not any(character == "\x00" or "\ud800" <= character <= "\udfff" for character in text)


def make_cursor(key: str) -> str:
    """Fait un curseur opaque de la clé de la dernière ligne."""
    return base64.urlsafe_b64encode(key.encode()).decode()


def read_cursor(cursor: str) -> str:
    """Relit un curseur.

    Raises:
        InvalidRequestError: il n'est pas un des nôtres.
    """
    try:
        key = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        message = "Le curseur n’est pas un de ceux que rend « next_cursor »."
        raise InvalidRequestError(message) from error
    if not is_storable(key):
        raise InvalidRequestError
    return key
