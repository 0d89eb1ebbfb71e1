"""Le watcher : fait savoir aux autres processus, à l'instant, ce que celui-ci vient de valider.

Il n'est que vitesse : un message peut se perdre, se répéter ou mentir sans rien fausser. Le journal est la vérité, que
chaque processus regarde de toute façon ; un message perdu, ou qui ne suit pas, y fait seulement regarder plus tôt.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, Protocol

from fastapi_acl.shared.logging import get_logger
from fastapi_acl.shared.sync.announcements import Announcement, Sealer
from fastapi_acl.shared.sync.replica import Observer
from fastapi_acl.shared.tasks import stop_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from fastapi_acl.shared.sync.changes import Change
    from fastapi_acl.shared.sync.replica import Position, Replica

logger = get_logger("watcher")

CHANNEL: Final = "fastapi_acl"
"""Début du nom du canal des annonces, que suit leur cadre."""

SCOPE_CHARACTERS: Final = 32
"""Ce que le nom d'un canal dit du cadre : PostgreSQL n'admet que 63 caractères."""

HEARTBEAT_SECONDS: Final = 2.0
"""Silence au bout duquel un transport vérifie que sa connexion vit encore ; sans réponse autant après, il la lâche."""

FIRST_BACKOFF_SECONDS: Final = 0.1
LAST_BACKOFF_SECONDS: Final = 5.0

MAX_PENDING: Final = 1_000
"""Annonces gardées quand le transport ne suit pas ; au-delà, les plus anciennes partent : le journal les a."""


class WatcherError(Exception):
    """Le transport ne répond pas, ou plus ; aucune adresse n'y est dite."""


class Transport(Protocol):
    """Ce qui porte des messages d'un processus à tous les autres.

    Attributes:
        name: son nom, pour la santé et le journal d'événements.
        max_bytes: taille, en octets, du plus grand message.
    """

    name: str
    max_bytes: int

    async def publish(self, channel: str, message: bytes) -> None:
        """Envoie un message sur un canal, en un temps borné.

        Raises:
            WatcherError: il n'est pas parti.
        """

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """S'abonne à un canal, et rend les messages qui arrivent, jusqu'à lever `WatcherError`, connexion perdue.

        Raises:
            WatcherError: le serveur ne répond pas.
        """

    async def close(self) -> None:
        """Ferme ce qui sert à envoyer."""

    def abandon(self) -> None:
        """Oublie ce qui a commencé dans une boucle d'événements qui n'existe plus."""


class Watcher(Observer):
    """Annonce ce que ce processus valide, et applique ce que les autres annoncent."""

    def __init__(self, transport: Transport, replica: Replica, sealer: Sealer) -> None:
        """Retient de quoi guetter ; rien ne part avant `start`.

        Args:
            transport: ce qui porte les messages.
            replica: mémoires du processus.
            sealer: ce qui authentifie les messages.
        """
        self._transport = transport
        self._replica = replica
        self._sealer = sealer
        self._pending: deque[Announcement] = deque(maxlen=MAX_PENDING)
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_connected = False
        replica.observe(self)

    @property
    def name(self) -> str:
        """Le nom du transport."""
        return self._transport.name

    @property
    def status(self) -> Literal["connected", "connecting", "stopped"]:
        """Où en est l'abonnement."""
        if not self._tasks:
            return "stopped"
        is_whole = self._is_connected and not any(task.done() for task in self._tasks)
        return "connected" if is_whole else "connecting"

    def note_change(self, before: Position, change: Change) -> None:
        """Retient une annonce, qui part sans que personne l'attende."""
        self._pending.append(Announcement(before, change))
        self._news.set()

    def start(self) -> None:
        """Lance l'envoi et l'écoute dans la boucle courante ; sans effet si c'est fait."""
        if self._tasks:
            return
        self._news, self._pending = asyncio.Event(), deque(maxlen=MAX_PENDING)
        names = {"fastapi_acl-announce": self._send_forever, "fastapi_acl-listen": self._listen_forever}
        self._tasks = [asyncio.create_task(work(), name=name) for name, work in names.items()]

    async def stop(self) -> None:
        """Arrête tout et ferme les connexions ; sans effet si c'est fait."""
        tasks, self._tasks = self._tasks, []
        await stop_tasks(*tasks)
        if tasks:
            await self._transport.close()

    def abandon(self) -> None:
        """Oublie les tâches d'une boucle d'événements qui n'existe plus."""
        self._tasks, self._is_connected = [], False
        self._transport.abandon()

    # --- annoncer ---------------------------------------------------------------------------------------------------

    async def _send_forever(self) -> None:
        """Envoie ce qui attend, d'une traite : une rafale ne fait que quelques messages."""
        is_heard = True
        while True:
            await self._news.wait()
            self._news.clear()
            waiting, self._pending = list(self._pending), deque(maxlen=MAX_PENDING)
            was_heard, is_heard = is_heard, await self._send(waiting)
            if not is_heard:
                self._pending.extendleft(waiting[-1:])  # dite une fois le transport revenu, elle montre ce qui manque
            if is_heard is not was_heard:
                logger.warning("watcher_publishing: %s is_heard=%s", self.name, is_heard)

    async def _send(self, waiting: Sequence[Announcement]) -> bool:
        """Envoie des annonces ; ce qui ne part pas se trouvera dans le journal."""
        scope = self._replica.scope
        if scope is None:
            return False
        try:
            for message in self._sealer.seal(waiting, self._transport.max_bytes, scope):
                await self._transport.publish(channel_of(scope), message)
        except WatcherError:
            return False
        except Exception:
            logger.exception("watcher_publish_failed: %s", self.name)
            return False
        return True

    # --- écouter ----------------------------------------------------------------------------------------------------

    async def _listen_forever(self) -> None:
        """S'abonne, et se réabonne sans fin, en espaçant les essais."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            try:
                await self._listen()
            except WatcherError as error:
                if self._is_connected or backoff == FIRST_BACKOFF_SECONDS:
                    logger.warning("watcher_lost: %s %s", self.name, error)
            except Exception:
                logger.exception("watcher_failed: %s", self.name)
            backoff = FIRST_BACKOFF_SECONDS if self._is_connected else min(2 * backoff, LAST_BACKOFF_SECONDS)
            self._is_connected = False
            await asyncio.sleep(backoff * random.uniform(0.5, 1))  # noqa: S311 - pour ne pas revenir ensemble

    async def _listen(self) -> None:
        """Écoute jusqu'à ce que la connexion se perde, ou que les annonces changent de cadre.

        Raises:
            WatcherError: elle est perdue.
        """
        scope = await self._replica.wait_for_move_from(None)
        moving = asyncio.ensure_future(self._replica.wait_for_move_from(scope))
        listening = asyncio.ensure_future(self._listen_at(scope))
        try:
            await asyncio.wait({moving, listening}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
        finally:
            await stop_tasks(moving, listening)

    async def _listen_at(self, scope: str) -> None:
        """Écoute dans un cadre ; ce qui s'est dit avant l'abonnement est dans le journal.

        Raises:
            WatcherError: la connexion est perdue.
        """
        async with self._transport.subscribe(channel_of(scope)) as messages:
            self._is_connected = True
            logger.info("watcher_connected: %s", self.name)
            self._replica.wake()
            self._news.set()
            async for message in messages:
                self._receive(message, scope)
                await asyncio.sleep(0)  # un flot de messages ne retient pas la boucle

    def _receive(self, message: bytes, scope: str) -> None:
        """Applique un message authentique ; tout autre, ou qui ne suit pas, ne fait que regarder la base."""
        is_ours = len(message) <= self._transport.max_bytes
        announcements = self._sealer.unseal(message, scope) if is_ours else None
        if announcements is None or not all(self._replica.offer(*one) for one in announcements):
            self._replica.wake()


def channel_of(scope: str) -> str:
    """Renvoie le canal des annonces d'un cadre."""
    return f"{CHANNEL}:{scope[:SCOPE_CHARACTERS]}"
