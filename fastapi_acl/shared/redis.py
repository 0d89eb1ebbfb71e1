"""Redis : un client aux délais courts, et un disjoncteur pour ne pas attendre un serveur qui ne répond plus.

Redis n'est ici que vitesse : ce qui échoue le dit vite, et l'on fait sans.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from urllib.parse import SplitResult

logger = get_logger("redis")

T = TypeVar("T")

COMMAND_TIMEOUT_SECONDS: Final = 0.3
"""Temps laissé à une connexion, à une commande, et aux deux ensemble à travers un disjoncteur."""

OPEN_SECONDS: Final = 5.0
"""Temps pendant lequel un Redis qui n'a pas répondu n'est plus essayé."""

REDIS_ERRORS: Final = (RedisError, RedisClusterException, OSError, asyncio.TimeoutError)
"""Erreurs qui veulent dire que Redis ne répond pas, ou ne peut pas ; celle d'une grappe n'est pas une RedisError."""

NONSENSE: Final = (ValueError, TypeError, RecursionError)
"""Ce que le pilote lève d'une réponse qui n'est pas d'un Redis."""

FORMS: Final = (
    "redis://hote:6379/0, rediss://…, unix:///chemin, redis+sentinel://hote:26379,hote2:26379/service/0 "
    "ou redis+cluster://hote:6379,hote2:6379"
)

DEFAULT_PORTS: Final = {"sentinel": 26379, "cluster": 6379}


class RedisUnavailableError(Exception):
    """Redis ne répond pas, ou n'est pas essayé parce qu'il ne répondait pas."""


class RedisRefusedError(RedisUnavailableError):
    """Le disjoncteur est ouvert : la commande n'est pas partie, et n'a donc rien fait."""


class Breaker:
    """Disjoncteur : au premier échec, plus rien n'est essayé pendant un moment, puis une seule commande à la fois.

    Une seule suffit à l'ouvrir : elle a déjà coûté tout son délai, et l'appelant sait faire sans Redis. Ce délai est
    d'un bout à l'autre : le pilote n'a que des délais par étape, et il interroge les sentinelles une à une.

    Source : https://learn.microsoft.com/azure/architecture/patterns/circuit-breaker
    """

    def __init__(self, open_seconds: float = OPEN_SECONDS, *, limit_seconds: float = COMMAND_TIMEOUT_SECONDS) -> None:
        """Part fermé.

        Args:
            open_seconds: temps pendant lequel un serveur en panne n'est plus essayé.
            limit_seconds: temps laissé à une commande, connexion comprise.
        """
        self._open_seconds = open_seconds
        self._limit_seconds = limit_seconds
        self._until = float("-inf")
        self._is_open = False
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        """Vrai depuis un échec, jusqu'au prochain succès."""
        return self._is_open

    def abandon(self) -> None:
        """Oublie l'essai d'une boucle d'événements qui n'existe plus."""
        self._is_trying = False

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        """Exécute une commande, si le disjoncteur le permet.

        Args:
            command: la commande ; elle est interrompue au bout du délai.

        Raises:
            RedisUnavailableError: elle a échoué ; sans réponse, elle a pu aboutir.
            RedisRefusedError: elle n'a pas été essayée.
        """
        if not self._is_open:
            return await self._run(command)
        if self._is_trying or time.monotonic() < self._until:
            raise RedisRefusedError
        self._is_trying = True
        try:
            return await self._run(command)
        finally:
            self._is_trying = False

    async def _run(self, command: Callable[[], Awaitable[T]]) -> T:
        """Exécute une commande, et en retient l'issue."""
        try:
            result = await asyncio.wait_for(command(), self._limit_seconds)
        except (*REDIS_ERRORS, *NONSENSE) as error:
            self._fail(type(error).__name__)
            raise RedisUnavailableError from error
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
        url: `redis://`, `rediss://` (TLS, certificat et nom vérifiés), `unix://`, ou les deux premiers suivis de
            `+sentinel` ou `+cluster` ; les options de la requête sont celles de redis-py, comme `ssl_ca_certs`.
        command_timeout: temps laissé à une commande, en secondes ; None pour une écoute, qui attend sans fin.

    Raises:
        ConfigurationError: l'adresse n'a aucune de ces formes, ou une option inconnue.
    """
    try:
        return _made(url, command_timeout)
    except (ValueError, TypeError, RedisError):
        # Sans la cause : celle d'un port illisible cite un morceau du mot de passe.
        message = f"l’adresse de Redis s’écrit {FORMS}, avec les seules options que redis-py connaît."
        raise ConfigurationError(message) from None


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


def _made(url: str, command_timeout: float | None) -> Redis | RedisCluster:
    """Fait le client d'une adresse.

    Raises:
        ValueError: elle est mal formée ; TypeError et RedisError aussi le disent, selon l'option.
    """
    parts = urlsplit(url)
    base, _, kind = parts.scheme.partition("+")
    if "decode_responses" in parse_qs(parts.query):
        raise ValueError(kind)  # nos messages et nos valeurs sont des octets
    options = _options(command_timeout) | _verified(parts)
    if kind:
        return _many(parts, kind, options | _written(parts, base))
    client: Redis = Redis.from_url(url, **options)
    _check(client)
    return client


def _check(client: Redis) -> None:
    """Construit une connexion sans l'ouvrir : une option fautive ne se verrait sinon qu'à la première commande."""
    client.connection_pool.make_connection()  # type: ignore[no-untyped-call]


def _options(command_timeout: float | None) -> dict[str, Any]:
    """Rend des délais courts, sans reprise cachée : une commande ne dure jamais plus que le sien."""
    return {
        "socket_connect_timeout": command_timeout or COMMAND_TIMEOUT_SECONDS,
        "socket_timeout": command_timeout,
        "retry": Retry(NoBackoff(), 0),
    }


def _verified(parts: SplitResult) -> dict[str, bool]:
    """Exige que le nom d'un serveur TLS soit celui de son certificat, ce que redis-py ne faisait pas avant la 6."""
    is_waived = "ssl_cert_reqs=none" in parts.query.split("&")
    return {"ssl_check_hostname": not is_waived} if parts.scheme[:6] == "rediss" else {}


def _written(parts: SplitResult, base: str) -> dict[str, Any]:
    """Rend le compte et les options que porte l'adresse de plusieurs serveurs, lus comme ceux d'un seul."""
    account = "".join(parts.netloc.rpartition("@")[:2])
    found = dict(parse_url(f"{base}://{account}hote?{parts.query}"))
    del found["host"]
    is_encrypted = found.pop("connection_class", None) is not None
    return found | ({"ssl": True} if is_encrypted else {})


def _many(parts: SplitResult, kind: str, options: dict[str, Any]) -> Redis | RedisCluster:
    """Fait le client de plusieurs serveurs.

    Raises:
        ValueError: l'adresse est mal formée.
    """
    hosts = _hosts(parts, kind)
    if kind == "cluster":
        return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in hosts], **options)
    service, _, database = parts.path.strip("/").partition("/")
    if kind != "sentinel" or not service:
        raise ValueError(kind)
    encryption = {name: value for name, value in options.items() if name.startswith("ssl")}
    asking = _options(
        options["socket_timeout"] or COMMAND_TIMEOUT_SECONDS
    )  # une écoute attend sans fin, pas sa sentinelle
    sentinels = Sentinel(hosts, sentinel_kwargs=asking | encryption)  # type: ignore[no-untyped-call]
    found: Redis = sentinels.master_for(service, **{"db": int(database or 0)} | options)
    _check(found)
    return found


def _hosts(parts: SplitResult, kind: str) -> list[tuple[str, int]]:
    """Rend les hôtes et leurs ports ; une adresse IPv6 se met entre crochets.

    Raises:
        ValueError: il n'y en a pas, ou un port n'est pas un nombre.
    """
    named = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",") if host]
    found = [(one.hostname, one.port or DEFAULT_PORTS.get(kind, 0)) for one in named if one.hostname]
    if not found:
        raise ValueError(kind)
    return found
