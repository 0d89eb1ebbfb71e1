"""Annonces par Redis : un canal de publication, et une connexion d'écoute que l'on éprouve.

Source : https://redis.io/docs/latest/develop/pubsub/
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, final

from fastapi_acl.shared.redis.breaker import REDIS_ERRORS, Breaker, RedisUnavailableError
from fastapi_acl.shared.redis.client import close_redis, create_publisher
from fastapi_acl.shared.sync.watcher import HEARTBEAT_SECONDS, WatcherError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_BYTES: Final = 262_144
"""Une rafale de plus que cela part en plusieurs messages."""


@final
class RedisTransport:
    """Porte les annonces par la publication de Redis, seul, en sentinelles ou en cluster."""

    name = "redis"
    max_bytes = MAX_BYTES

    def __init__(self, url: str) -> None:
        """Retient l'adresse ; aucune connexion n'est ouverte avant le premier usage.

        Args:
            url: adresse de Redis ; voir `create_redis`.
        """
        self._url = url
        self._client: Any = None
        self._breaker = Breaker()

    async def publish(self, channel: str, message: bytes) -> None:
        """Envoie un message ; un Redis qui ne répond pas n'est plus essayé à chaque fois."""
        if self._client is None:
            self._client = create_publisher(self._url)
        try:
            await self._breaker.call(lambda: self._client.publish(channel, message))
        except RedisUnavailableError as error:
            await self.close()  # dans un cluster, l'essai suivant ira à un autre nœud
            raise WatcherError(type(error).__name__) from error

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """S'abonne par une connexion à elle seule."""
        client = create_publisher(self._url, command_timeout=None)
        listener: Any = client.pubsub()
        try:
            await asyncio.wait_for(listener.subscribe(channel), HEARTBEAT_SECONDS)
            yield _messages(listener)
        except REDIS_ERRORS as error:
            raise WatcherError(type(error).__name__) from error
        finally:
            with suppress(*REDIS_ERRORS):
                await listener.aclose()
            await close_redis(client)

    async def close(self) -> None:
        """Ferme la connexion qui sert à envoyer."""
        client, self._client = self._client, None
        if client is not None:
            await close_redis(client)

    def abandon(self) -> None:
        """Oublie le client, dont les connexions tiennent à leur boucle."""
        self._client, self._breaker = None, Breaker()


async def _messages(listener: Any) -> AsyncIterator[bytes]:  # noqa: ANN401 - du pilote
    """Renvoie les messages qui arrivent ; dans le silence, s'assure que la connexion vit.

    Raises:
        WatcherError: elle ne répond plus.
    """
    is_asked = False
    while True:
        received = await listener.get_message(timeout=HEARTBEAT_SECONDS)
        if received is None and is_asked:
            message = "silence"
            raise WatcherError(message)
        is_asked = received is None
        if is_asked:
            await listener.ping()
        elif received["type"] == "message":
            yield received["data"]
