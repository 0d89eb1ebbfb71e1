"""Les pages de comptes : leur longueur, leurs cursors, et ce qu'une base peut garder d'un texte cherché."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from fastapi_acl.shared.exceptions import InvalidRequestError
from fastapi_acl.shared.stored import is_storable

MAX_PAGE: Final = 200
"""Comptes par page, au plus."""


def make_cursor(key: str) -> str:
    """Fait un cursor opaque de la clé de la dernière ligne."""
    return base64.urlsafe_b64encode(key.encode()).decode()


def read_cursor(cursor: str) -> str:
    """Relit un cursor.

    Raises:
        InvalidRequestError: il n'est pas un des nôtres.
    """
    try:
        key = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        message = "Le cursor n’est pas un de ceux que renvoie « next_cursor »."
        raise InvalidRequestError(message) from error
    if not is_storable(key):
        raise InvalidRequestError
    return key
