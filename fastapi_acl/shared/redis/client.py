"""Les clients de Redis : des délais courts, et aucune reprise cachée."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.redis.address import FORMS, pick_node, read_hosts, read_options, tls_options
from fastapi_acl.shared.redis.breaker import COMMAND_TIMEOUT_SECONDS, REDIS_ERRORS

if TYPE_CHECKING:
    from urllib.parse import SplitResult


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
        return _build(url, command_timeout)
    except (ValueError, TypeError, RedisError):
        # Sans la cause : celle d'un port illisible cite un morceau du mot de passe.
        message = f"l’adresse de Redis s’écrit {FORMS}, avec les seules options que redis-py connaît."
        raise ConfigurationError(message) from None


def create_publisher(url: str, *, command_timeout: float | None = COMMAND_TIMEOUT_SECONDS) -> Redis:
    """Fait le client d'une publication ou d'une écoute : dans un cluster, celui d'un nœud au hasard, qui parle à tous.

    Args:
        url: voir `create_redis`.
        command_timeout: None pour une écoute.

    Raises:
        ConfigurationError: voir `create_redis`.
    """
    client = create_redis(pick_node(url), command_timeout=command_timeout)
    assert isinstance(client, Redis)  # noqa: S101 - un cluster vient d'être écarté
    return client


async def close_redis(client: Any) -> None:  # noqa: ANN401 - un client de l'une des trois sortes
    """Ferme un client, et ceux des sentinelles qu'il interrogeait ; un serveur absent n'y change rien."""
    pool = getattr(client, "connection_pool", None)
    sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
    for one in (client, *sentinels):
        with suppress(*REDIS_ERRORS):
            await one.aclose()


def _build(url: str, command_timeout: float | None) -> Redis | RedisCluster:
    """Fait le client d'une adresse.

    Raises:
        ValueError: elle est mal formée ; TypeError et RedisError aussi le disent, selon l'option.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    if "decode_responses" in parse_qs(parts.query):
        raise ValueError(kind)  # nos messages et nos valeurs sont des octets
    options = _timeouts(command_timeout) | tls_options(parts)
    if kind:
        return _build_for_many(parts, kind, options | read_options(parts, scheme))
    client: Redis = Redis.from_url(url, **options)
    _check(client)
    return client


def _build_for_many(parts: SplitResult, kind: str, options: dict[str, Any]) -> Redis | RedisCluster:
    """Fait le client de plusieurs serveurs.

    Raises:
        ValueError: l'adresse est mal formée.
    """
    hosts = read_hosts(parts, kind)
    if kind == "cluster":
        return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in hosts], **options)
    service, _, database = parts.path.strip("/").partition("/")
    if kind != "sentinel" or not service:
        raise ValueError(kind)
    encryption = {name: value for name, value in options.items() if name.startswith("ssl")}
    asking = _timeouts(
        options["socket_timeout"] or COMMAND_TIMEOUT_SECONDS
    )  # une écoute attend sans fin, non sa sentinelle
    sentinels = Sentinel(hosts, sentinel_kwargs=asking | encryption)  # type: ignore[no-untyped-call]
    found: Redis = sentinels.master_for(service, **{"db": int(database or 0)} | options)
    _check(found)
    return found


def _check(client: Redis) -> None:
    """Construit une connexion sans l'ouvrir : une option fautive ne se verrait sinon qu'à la première commande."""
    client.connection_pool.make_connection()  # type: ignore[no-untyped-call]


def _timeouts(command_timeout: float | None) -> dict[str, Any]:
    """Renvoie des délais courts, sans reprise cachée : une commande ne dure jamais plus que le sien."""
    return {
        "socket_connect_timeout": command_timeout or COMMAND_TIMEOUT_SECONDS,
        "socket_timeout": command_timeout,
        "retry": Retry(NoBackoff(), 0),
    }
