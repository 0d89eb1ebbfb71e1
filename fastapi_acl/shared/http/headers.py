"""Ce qui se lit d'une requête, sans en rien décider : son jeton, la révision qu'elle exige, d'où elle vient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from fastapi_acl.shared.exceptions import InvalidMinRevisionError
from fastapi_acl.shared.origins import is_loopback

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

AUTHORIZATION_HEADER: Final = b"authorization"
MIN_REVISION_HEADER: Final = b"x-acl-min-revision"
MAX_DIGITS: Final = 15


def bearer_token(connection: HTTPConnection) -> str | None:
    """Lit le jeton porteur de l'en-tête `Authorization` (RFC 6750, 2.1), jamais de l'adresse ni du corps."""
    scheme, _, token = (_read_header(connection, AUTHORIZATION_HEADER) or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def min_revision(connection: HTTPConnection) -> int | None:
    """Lit la révision qu'une requête exige, si elle en exige une.

    Raises:
        InvalidMinRevisionError: ce n'est pas un nombre de 1 à 15 chiffres.
    """
    text = _read_header(connection, MIN_REVISION_HEADER)
    if text is None:
        return None
    if len(text) > MAX_DIGITS or not (text.isascii() and text.isdigit()):
        raise InvalidMinRevisionError
    return int(text)


def is_local(connection: HTTPConnection) -> bool:
    """Dit si la requête vient de cette machine, à son nom, sans proxy : tout le reste peut venir d'ailleurs."""
    forwarded = any(name == "forwarded" or name.startswith(("x-forwarded-", "x-real-")) for name in connection.headers)
    peer = connection.client.host if connection.client is not None else ""
    return not forwarded and is_loopback(peer) and is_loopback(_host(connection))


def _host(connection: HTTPConnection) -> str:
    """Renvoie le nom que porte l'en-tête `Host`, sans son port."""
    host = connection.headers.get("host", "")
    return host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]


def _read_header(connection: HTTPConnection, name: bytes) -> str | None:
    """Lit un en-tête sans passer par ceux de Starlette, qui en lèvent une exception quand il manque."""
    for found, value in connection.scope["headers"]:
        if found == name:
            return cast("bytes", value).decode("latin-1")
    return None
