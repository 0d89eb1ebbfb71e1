"""Annonces par LISTEN et NOTIFY de PostgreSQL : pour qui n'a pas de Redis, par la base qu'il a déjà.

Deux connexions par processus, hors de la réserve. LISTEN ne traverse pas un pooler : le watcher le voit, le dit, et
les processus ne se suivent alors que par leurs regards sur la base.

Source : https://www.postgresql.org/docs/current/sql-notify.html
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, final

import asyncpg

from fastapi_acl.shared.database.postgresql_link import PostgreSQLLink
from fastapi_acl.shared.sync.watcher import HEARTBEAT_SECONDS, WatcherError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONNECT_TIMEOUT_SECONDS: Final = 1.0
PUBLISH_TIMEOUT_SECONDS: Final = 0.3
MAX_BYTES: Final = 7_900
"""PostgreSQL refuse un message de 8 000 octets."""

MAX_WAITING: Final = 1_000
"""Messages qui attendent d'être lus ; PostgreSQL les envoie sans attendre qu'ils le soient."""

_FAULTS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncio.TimeoutError)


@final
class PostgreSQLTransport:
    """Porte les annonces par LISTEN et NOTIFY."""

    name = "postgresql"
    max_bytes = MAX_BYTES

    def __init__(self, uri: str) -> None:
        """Retient l'adresse ; aucune connexion n'est ouverte avant le premier usage.

        Args:
            uri: adresse de la base, telle que la configuration la donne.
        """
        self._link = PostgreSQLLink(uri, connect_timeout=CONNECT_TIMEOUT_SECONDS)
        self._publisher: asyncpg.Connection | None = None

    async def publish(self, channel: str, message: bytes) -> None:
        """Envoie un message, par une connexion gardée."""
        try:
            if self._publisher is None or self._publisher.is_closed():
                self._publisher = await self._connect()
            await self._notify(self._publisher, channel, message)
        except _FAULTS as error:
            await self.close()
            raise WatcherError(type(error).__name__) from error

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """S'abonne par une connexion à elle seule."""
        arrived: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)
        try:
            connection = await self._connect()
        except _FAULTS as error:
            raise WatcherError(type(error).__name__) from error
        try:
            await _refuse_pooler(connection)
            listening = connection.add_listener(channel, lambda *said: _keep(arrived, said[3]))
            await asyncio.wait_for(listening, CONNECT_TIMEOUT_SECONDS)
            yield _messages(connection, arrived)
        except _FAULTS as error:
            raise WatcherError(type(error).__name__) from error
        finally:
            connection.terminate()

    @staticmethod
    async def _notify(connection: Any, channel: str, message: bytes) -> None:  # noqa: ANN401 - asyncpg n'est pas typé
        """Envoie un message, dans une transaction : entre deux temps, un pooler prêterait une autre connexion."""
        async with connection.transaction():
            notify = "SELECT pg_catalog.pg_notify($1, $2)"  # rien n'est épinglé ici
            await connection.execute(notify, channel, message.decode(), timeout=PUBLISH_TIMEOUT_SECONDS)

    async def close(self) -> None:
        """Lâche la connexion qui sert à envoyer."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.terminate()

    def abandon(self) -> None:
        """Oublie la connexion, qui tient à sa boucle."""
        self._publisher = None

    async def _connect(self) -> Any:  # noqa: ANN401 - asyncpg n'est pas typé
        """Ouvre une connexion."""
        settings = {"application_name": "fastapi_acl watcher"}
        # Commencer et valider attendent aussi une réponse : chaque commande a un délai.
        return await self._link.connect(CONNECT_TIMEOUT_SECONDS, server_settings=settings, statement_cache_size=0)


async def _refuse_pooler(connection: Any) -> None:  # noqa: ANN401 - asyncpg n'est pas typé
    """Refuse d'écouter à travers un pooler, où rien n'arriverait.

    Raises:
        WatcherError: le processus qui sert n'est pas celui qui a ouvert la connexion.
    """
    async with connection.transaction():
        serving = await connection.fetchval("SELECT pg_catalog.pg_backend_pid()", timeout=CONNECT_TIMEOUT_SECONDS)
    if serving != connection.get_server_pid():
        message = "LISTEN ne traverse pas le pooler de ACL_POSTGRESQL_URI : réglez ACL_WATCHER=redis, ou none"
        raise WatcherError(message)


async def _messages(connection: Any, arrived: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:  # noqa: ANN401 - idem
    """Renvoie les messages qui arrivent ; dans le silence, s'assure que la connexion vit."""
    while True:
        message = await _next(arrived)
        if message is not None:
            yield message
        else:
            await connection.execute("SELECT 1", timeout=HEARTBEAT_SECONDS)


def _keep(arrived: asyncio.Queue[bytes], said: str) -> None:
    """Garde un message, ou le perd s'il y en a trop : le suivant montrera qu'il manque, et fera regarder la base."""
    with suppress(asyncio.QueueFull):
        arrived.put_nowait(said.encode())


async def _next(arrived: asyncio.Queue[bytes]) -> bytes | None:
    """Renvoie le message suivant ; None dans le silence."""
    try:
        return await asyncio.wait_for(arrived.get(), HEARTBEAT_SECONDS)
    except asyncio.TimeoutError:
        return None
