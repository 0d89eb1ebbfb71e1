"""De quelle page vient une requête : ce que le navigateur en dit, et qu'une page ne peut pas falsifier.

Source : Fetch Metadata Request Headers (W3C), Fetch (WHATWG), section « Origin header »
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi_acl.shared.origins import Origin, read_origin

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import HTTPConnection

SCHEMES: Final = {"ws": "http", "wss": "https"}
"""Sous quel schéma une page ouvre un WebSocket : son `Origin` porte celui de la page."""

OWN_SITES: Final = frozenset({"same-origin", "none"})
"""La page est la nôtre, ou il n'y en a pas : une adresse tapée, un signet."""


def is_same_page(connection: HTTPConnection, admitted: Collection[str] = ()) -> bool:
    """Dit si une requête vient d'une page de cette application, ou d'aucune, ou d'une origine admise.

    Ce qui n'est pas un navigateur n'envoie ni `Origin` ni `Sec-Fetch-Site`.

    Args:
        connection: requête, ou WebSocket.
        admitted: origines d'autres pages que l'on admet.
    """
    origins, sites = (connection.headers.getlist(name) for name in ("origin", "sec-fetch-site"))
    if not origins:
        return OWN_SITES.issuperset(sites)
    claimed = {read_origin(text) for text in origins}
    if claimed <= {read_origin(text) for text in admitted} - {None}:
        return True
    return claimed == {_own_origin(connection)} and None not in claimed and OWN_SITES.issuperset(sites)


def _own_origin(connection: HTTPConnection) -> Origin | None:
    """Renvoie l'origine sous laquelle la requête nous demande, d'après son `Host`."""
    scheme: Any = connection.scope.get("scheme", "http")
    return read_origin(f"{SCHEMES.get(scheme, scheme)}://{connection.headers.get('host', '')}")
