"""Ce que dit l'adresse d'un Redis, seul, derrière des sentinelles ou en cluster."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from redis.asyncio.connection import parse_url

if TYPE_CHECKING:
    from urllib.parse import SplitResult

FORMS: Final = (
    "redis://hote:6379/0, rediss://…, unix:///chemin, redis+sentinel://hote:26379,hote2:26379/service/0 "
    "ou redis+cluster://hote:6379,hote2:6379"
)

DEFAULT_PORTS: Final = {"sentinel": 26379, "cluster": 6379}


def pick_node(url: str) -> str:
    """Renvoie l'adresse d'un nœud d'un cluster, tiré au sort ; toute autre reste ce qu'elle est."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not parts.scheme.endswith("+cluster") or not hosts[0]:
        return url
    account = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"{parts.scheme.partition('+')[0]}://{account}{random.choice(hosts)}"  # noqa: S311 - pour tous les essayer


def tls_options(parts: SplitResult) -> dict[str, bool]:
    """Exige que le nom d'un serveur TLS soit celui de son certificat, ce que redis-py ne faisait pas avant la 6."""
    is_waived = "ssl_cert_reqs=none" in parts.query.split("&")
    return {"ssl_check_hostname": not is_waived} if parts.scheme[:6] == "rediss" else {}


def read_options(parts: SplitResult, scheme: str) -> dict[str, Any]:
    """Lit le compte et les options que porte l'adresse de plusieurs serveurs, comme ceux d'un seul.

    Raises:
        ValueError: une option ne se lit pas.
    """
    account = "".join(parts.netloc.rpartition("@")[:2])
    found = dict(parse_url(f"{scheme}://{account}hote?{parts.query}"))
    del found["host"]
    is_encrypted = found.pop("connection_class", None) is not None
    return found | ({"ssl": True} if is_encrypted else {})


def read_hosts(parts: SplitResult, kind: str) -> list[tuple[str, int]]:
    """Lit les hôtes et leurs ports ; une adresse IPv6 se met entre crochets.

    Raises:
        ValueError: il n'y en a pas, ou un port n'est pas un nombre.
    """
    named = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",") if host]
    found = [(one.hostname, one.port or DEFAULT_PORTS.get(kind, 0)) for one in named if one.hostname]
    if not found:
        raise ValueError(kind)
    return found
