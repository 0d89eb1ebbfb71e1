"""Un mandataire TCP à nous, devant une base : il laisse passer, et coupe à l'instant voulu."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

CHUNK = 65_536


@dataclass
class FaultProxy:
    """Relaie des connexions vers un serveur de cette machine.

    Attributes:
        target: port du serveur.
        chunks: morceaux reçus des clients depuis le dernier armement.
        refuses: vrai pour couper aussitôt toute connexion neuve.
        stalls: vrai pour tout avaler sans rien transmettre.
    """

    target: int
    port: int = 0
    chunks: int = 0
    refuses: bool = False
    stalls: bool = False
    _cut_at: int = 0
    _forwards: bool = False
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def arm(self, count: int, *, forwarded: bool) -> None:
        """Coupe au prochain `count`-ième morceau venu d'un client ; zéro ne fait que compter.

        Args:
            count: rang du morceau, sur toutes les connexions.
            forwarded: vrai pour le transmettre, attendre que le serveur ait répondu, et perdre la réponse.
        """
        self.chunks, self._cut_at, self._forwards = 0, count, forwarded

    def reset(self) -> None:
        """Coupe net toutes les connexions ouvertes (RST)."""
        for writer in list(self._writers):
            _reset(writer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relaie une connexion."""
        if self.refuses:
            _reset(writer)
            return
        try:
            to_server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, to_server[1]}
        both = [
            asyncio.ensure_future(self._up(reader, to_server[1], writer)),
            asyncio.ensure_future(self._down(to_server[0], writer)),
        ]
        self._tasks.update(both)
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        self._tasks.difference_update(both)
        for end in (writer, to_server[1]):
            self._writers.discard(end)
            end.close()

    async def _up(
        self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        """Relaie ce qui va au serveur, et coupe au morceau voulu."""
        while data := await _read(reader):
            self.chunks += 1
            if self.chunks == self._cut_at:
                self._cut_at = 0
                if self._forwards:
                    await self._lose_the_answer(to_server, data)
                _reset(back)
                _reset(to_server)
                return
            if not self.stalls:
                to_server.write(data)
                await to_server.drain()

    async def _lose_the_answer(self, to_server: asyncio.StreamWriter, data: bytes) -> None:
        """Transmet un morceau et laisse au serveur le temps d'y répondre, sans rien en rendre."""
        self.stalls, before = True, self.stalls
        to_server.write(data)
        await to_server.drain()
        await asyncio.sleep(0.05)
        self.stalls = before

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relaie ce qui vient du serveur."""
        while data := await _read(reader):
            if not self.stalls:
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def before(uri: str) -> AsyncIterator[tuple[str, FaultProxy]]:
    """Met un mandataire devant une base ; rend l'adresse qui passe par lui.

    MongoDB annoncerait son vrai port : la connexion y est directe, sans découverte du jeu de répliques.
    """
    found = re.search(r"127\.0\.0\.1:(\d+)", uri)
    assert found is not None
    proxy = FaultProxy(int(found.group(1)))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    through = uri.replace(found.group(0), f"127.0.0.1:{proxy.port}")
    try:
        yield re.sub(r"replicaSet=\w+", "directConnection=true", through), proxy
    finally:
        server.close()
        proxy.reset()
        while proxy._tasks:
            await asyncio.sleep(0.01)
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Lit un morceau ; rien quand l'autre bout est parti."""
    try:
        return await reader.read(CHUNK)
    except OSError:
        return b""


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ferme sans adieu : l'autre bout voit une panne."""
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
