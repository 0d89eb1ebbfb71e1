"""Un mandataire TCP à nous, devant une base : il laisse passer, gêne, ou coupe à l'instant voulu."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from typing_extensions import Self

CHUNK: Final = 65_536
ANSWER_SECONDS: Final = 1  # à qui n'est qu'un bout de question, le serveur ne répond pas
SLICES_PER_SECOND: Final = 20
PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mongodb": 27017, "redis": 6379}


@dataclass(eq=False)
class Link:
    """Une connexion relayée.

    Attributes:
        answered: posé dès que le serveur répond ; présent, la réponse se perd.
    """

    from_client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    from_server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    answered: asyncio.Event | None = None

    def reset(self) -> None:
        """Coupe net les deux bouts."""
        _reset(self.to_client)
        _reset(self.to_server)

    async def lose_the_answer(self, data: bytes) -> None:
        """Transmet un morceau et attend que le serveur y réponde, sans rien en rendre."""
        self.answered = asyncio.Event()
        self.to_server.write(data)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.answered.wait(), ANSWER_SECONDS)


@dataclass
class FaultProxy:
    """Relaie des connexions vers un serveur, le temps d'un « async with ».

    Attributes:
        target_host: adresse du serveur.
        target_port: port du serveur.
        port: port du mandataire, sur 127.0.0.1.
        chunks: morceaux reçus des clients depuis le dernier armement.
        refuses: vrai pour couper aussitôt toute connexion neuve.
        stalls: vrai pour tout avaler sans rien transmettre.
        latency: secondes de retard de chaque morceau, dans les deux sens.
        rate: octets transmis par seconde, par connexion et par sens ; zéro, sans limite.
        swallowed: morceaux avalés, dans les deux sens.
        slow_on: secondes que prend une question qui contient ces octets ; les autres connexions n'en souffrent pas.
        retold: ce que le serveur dit, et ce qu'on en dit à sa place, de même longueur.
    """

    target_host: str
    target_port: int
    port: int = 0
    chunks: int = 0
    refuses: bool = False
    stalls: bool = False
    latency: float = 0
    rate: int = 0
    swallowed: int = 0
    slow_on: dict[bytes, float] = field(default_factory=dict)
    retold: dict[bytes, bytes] = field(default_factory=dict)
    _cut_at: int = 0
    _forwards: bool = False
    _answer_left: int | None = None
    _links: set[Link] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def arm(self, count: int, *, forwarded: bool) -> None:
        """Coupe au prochain `count`-ième morceau venu d'un client ; zéro ne fait que compter.

        Args:
            count: rang du morceau, sur toutes les connexions.
            forwarded: vrai pour le transmettre, attendre que le serveur ait répondu, et perdre la réponse.
        """
        self.chunks, self._cut_at, self._forwards = 0, count, forwarded

    def truncate(self, count: int) -> None:
        """Laisse encore venir `count` octets du serveur, en tout, puis coupe la connexion qui a reçu le dernier."""
        self._answer_left = count

    def reset(self) -> None:
        """Coupe net toutes les connexions ouvertes (RST)."""
        for link in self._links:
            link.reset()

    def heal(self) -> None:
        """Laisse de nouveau tout passer ; ce qui a été avalé ou coupé reste perdu."""
        self.refuses = self.stalls = False
        self.latency = self.rate = self._cut_at = 0
        self._answer_left = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sert une connexion, et n'en laisse rien."""
        async with _closed(writer):
            server = await self._reach()
            if server is None:
                _reset(writer)
                return
            async with _closed(server[1]):
                await self._relay(Link(reader, writer, *server))

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Joint le serveur ; None s'il est absent, ou s'il faut le faire croire."""
        if self.refuses:
            return None
        try:
            return await asyncio.open_connection(self.target_host, self.target_port)
        except OSError:
            return None

    async def _relay(self, link: Link) -> None:
        """Relaie dans les deux sens, jusqu'à ce que l'un des bouts parte."""
        self._links.add(link)
        ways = [asyncio.ensure_future(way) for way in (self._up(link), self._down(link))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._links.discard(link)

    async def _up(self, link: Link) -> None:
        """Relaie ce qui va au serveur, et coupe au morceau voulu."""
        while data := await _read(link.from_client):
            self.chunks += 1
            if self.chunks == self._cut_at:
                await self._cut(link, data)
                return
            await asyncio.sleep(sum(seconds for asked, seconds in self.slow_on.items() if asked in data))
            await self._pass_on(link.to_server, data)

    async def _cut(self, link: Link, data: bytes) -> None:
        self._cut_at = 0
        if self._forwards:
            await link.lose_the_answer(data)
        link.reset()

    async def _down(self, link: Link) -> None:
        """Relaie ce qui vient du serveur, le perd, ou l'interrompt."""
        while data := await _read(link.from_server):
            if link.answered is not None:
                link.answered.set()
                continue
            for said, put in self.retold.items():
                data = data.replace(said, put)
            let_through = data[: self._answer_left]
            await self._pass_on(link.to_client, let_through)
            if self._is_spent(len(let_through)):
                link.reset()
                return

    def _is_spent(self, count: int) -> bool:
        """Décompte des octets rendus ; dit si ce sont les derniers permis."""
        if self._answer_left is None:
            return False
        self._answer_left -= count
        if self._answer_left > 0:
            return False
        self._answer_left = None
        return True

    async def _pass_on(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Transmet un morceau, aussi lentement qu'il le faut."""
        if self.stalls:
            self.swallowed += 1
            return
        await asyncio.sleep(self.latency)
        for part in self._slices(data):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(len(part) / self.rate if self.rate else 0)

    def _slices(self, data: bytes) -> Iterator[bytes]:
        size = max(1, self.rate // SLICES_PER_SECOND) if self.rate else CHUNK
        return (data[start : start + size] for start in range(0, len(data), size))


@asynccontextmanager
async def before(uri: str) -> AsyncIterator[tuple[str, FaultProxy]]:
    """Met un mandataire devant une base ; rend l'adresse qui passe par lui."""
    url = urlsplit(uri)
    async with FaultProxy(url.hostname or "127.0.0.1", url.port or PORTS[url.scheme]) as proxy:
        yield through(uri, proxy), proxy


def through(uri: str, proxy: FaultProxy) -> str:
    """Rend l'adresse d'une base, qui passe par un mandataire.

    MongoDB annoncerait son vrai port : la connexion y est directe, sans découverte du jeu de répliques.
    """
    url = urlsplit(uri)
    account, at, _ = url.netloc.rpartition("@")
    query = url.query
    if url.scheme == "mongodb":
        kept = {name: value for name, value in parse_qsl(query) if name != "replicaSet"}
        query = urlencode({**kept, "directConnection": "true"})
    return urlunsplit(url._replace(netloc=f"{account}{at}127.0.0.1:{proxy.port}", query=query))


@asynccontextmanager
async def _closed(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Ferme un bout, quoi qu'il arrive."""
    try:
        yield
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


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
