"""L'origine d'une page : schéma, nom et port.

Source : https://datatracker.ietf.org/doc/html/rfc6454
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str, int]


def read_origin(text: str) -> Origin | None:
    """Lit une origine : schéma, nom et port ; None si ce n'en est pas une, et `null` n'en est pas une."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        return None
    has_more = parts.path or parts.query or parts.fragment or "@" in parts.netloc
    if has_more or parts.scheme not in PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, PORTS[parts.scheme] if port is None else port


def is_loopback(host: str) -> bool:
    """Dit si un nom ou une adresse est celui de cette machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
