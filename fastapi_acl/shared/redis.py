"""Redis : un client aux délais courts, et un disjoncteur pour ne pas attendre un serveur qui ne répond plus.

Redis n'est ici que vitesse : ce qui échoue le dit vite, et l'on fait sans.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from urllib.parse import SplitResult

logger = get_logger("redis")

T = TypeVar("T")

COMMAND_TIMEOUT_SECONDS: Final = 0.3
"""Temps laissé à une connexion, et à une commande."""

OPEN_SECONDS: Final = 5.0
"""Temps pendant lequel un Redis qui n'a pas répondu n'est plus essayé."""

REDIS_ERRORS: Final = (RedisError, OSError, asyncio.TimeoutError)
"""Erreurs qui veulent dire que Redis ne répond pas, ou ne peut pas."""

FORMS: Final = (
    "redis://hote:6379/0, rediss://…, unix:///chemin, redis+sentinel://hote:26379,hote2:26379/service/0 "
    "ou redis+cluster://hote:6379,hote2:6379"
)

DEFAULT_PORTS: Final = {"sentinel": 26379, "cluster": 6379}


class RedisUnavailableError(Exception):
    """Redis ne répond pas, ou n'est pas essayé parce qu'il ne répondait pas."""


class Breaker:
    """Disjoncteur : au premier échec, plus rien n'est essayé pendant un moment, puis une seule commande à la fois.

    Une seule suffit à l'ouvrir : elle a déjà coûté tout son délai, et l'appelant sait faire sans Redis.

    Source : https://learn.microsoft.com/azure/architecture/patterns/circuit-breaker
    """

    def __init__(self, open_seconds: float = OPEN_SECONDS) -> None:
        """Part fermé.

        Args:
            open_seconds: temps pendant lequel un serveur en panne n'est plus essayé.
        """
        self._open_seconds = open_seconds
        self._until = float("-inf")
        self._is_open = False
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        """Vrai depuis un échec, jusqu'au prochain succès."""
        return self._is_open

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        """Exécute une commande, si le disjoncteur le permet.

        Args:
            command: la commande, bornée en temps par le client.

        Raises:
            RedisUnavailableError: elle a échoué, ou n'a pas été essayée.
        """
        if self._is_open and (self._is_trying or time.monotonic() < self._until):
            raise RedisUnavailableError
        self._is_trying = True
        try:
            result = await command()
        except REDIS_ERRORS as error:
            self._fail(type(error).__name__)
            raise RedisUnavailableError from error
        finally:
            self._is_trying = False
        self._succeed()
        return result

    def _fail(self, name: str) -> None:
        """S'ouvre, ou le reste."""
        if not self._is_open:
            logger.warning("redis_unavailable: %s", name)
        self._is_open, self._until = True, time.monotonic() + self._open_seconds

    def _succeed(self) -> None:
        """Se referme."""
        if self._is_open:
            logger.info("redis_available")
        self._is_open = False


def create_redis(url: str, *, command_timeout: float | None = COMMAND_TIMEOUT_SECONDS) -> Redis | RedisCluster:
    """Fait un client, sans ouvrir de connexion.

    Args:
        url: `redis://`, `rediss://`, `unix://`, ou les mêmes suivis de `+sentinel` ou `+cluster`.
        command_timeout: temps laissé à une commande, en secondes ; None pour une écoute, qui attend sans fin.

    Raises:
        ConfigurationError: l'adresse n'a aucune de ces formes.
    """
    kind = urlsplit(url).scheme.partition("+")[2]
    try:
        if kind:
            return _many(urlsplit(url), kind, _options(command_timeout))
        return Redis.from_url(url, **_options(command_timeout))
    except (ValueError, TypeError) as error:
        message = f"l’adresse de Redis s’écrit {FORMS}."
        raise ConfigurationError(message) from error


def create_publisher(url: str, *, command_timeout: float | None = COMMAND_TIMEOUT_SECONDS) -> Redis:
    """Fait le client d'une publication ou d'une écoute : dans une grappe, celui d'un nœud au hasard, qui parle à tous.

    Args:
        url: voir `create_redis`.
        command_timeout: None pour une écoute.

    Raises:
        ConfigurationError: voir `create_redis`.
    """
    client = create_redis(_one_of(url), command_timeout=command_timeout)
    assert isinstance(client, Redis)  # noqa: S101 - une grappe vient d'être écartée
    return client


def _one_of(url: str) -> str:
    """Rend l'adresse d'un nœud d'une grappe ; toute autre reste ce qu'elle est."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not parts.scheme.endswith("+cluster") or not hosts[0]:
        return url
    account = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"{parts.scheme.partition('+')[0]}://{account}{random.choice(hosts)}"  # noqa: S311 - pour tous les essayer


async def close_redis(client: Any) -> None:  # noqa: ANN401 - un client de l'une des trois sortes
    """Ferme un client, et ceux des sentinelles qu'il interrogeait ; un serveur absent n'y change rien."""
    pool = getattr(client, "connection_pool", None)
    sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
    for one in (client, *sentinels):
        with suppress(*REDIS_ERRORS):
            await one.aclose()


def _options(command_timeout: float | None) -> dict[str, Any]:
    """Rend des délais courts, sans reprise cachée : une commande ne dure jamais plus que le sien."""
    return {
        "socket_connect_timeout": COMMAND_TIMEOUT_SECONDS,
        "socket_timeout": command_timeout,
        "retry": Retry(NoBackoff(), 0),
    }


def _many(parts: SplitResult, kind: str, options: dict[str, Any]) -> Redis | RedisCluster:
    """Fait le client de plusieurs serveurs.

    Raises:
        ValueError: l'adresse est mal formée.
    """
    hosts = _hosts(parts, kind)
    options |= _account(parts) | dict(parse_qsl(parts.query)) | ({"ssl": True} if parts.scheme[:6] == "rediss" else {})
    if kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in hosts]
        return RedisCluster(startup_nodes=nodes, **options)
    service, _, database = parts.path.strip("/").partition("/")
    if kind != "sentinel" or not service:
        raise ValueError(kind)
    sentinels = Sentinel(hosts, sentinel_kwargs=_options(COMMAND_TIMEOUT_SECONDS))  # type: ignore[no-untyped-call]
    found: Redis = sentinels.master_for(service, db=int(database or 0), **options)
    return found


def _hosts(parts: SplitResult, kind: str) -> list[tuple[str, int]]:
    """Rend les hôtes et leurs ports.

    Raises:
        ValueError: il n'y en a pas, ou un port n'est pas un nombre.
    """
    named = [host.partition(":") for host in parts.netloc.rpartition("@")[2].split(",") if host]
    if not named:
        raise ValueError(kind)
    return [(name, int(port or DEFAULT_PORTS.get(kind, 0))) for name, _, port in named]


def _account(parts: SplitResult) -> dict[str, str]:
    """Rend le compte et le mot de passe de l'adresse."""
    username, _, password = parts.netloc.rpartition("@")[0].partition(":")
    found = {"username": unquote(username), "password": unquote(password)}
    return {name: value for name, value in found.items() if value}
