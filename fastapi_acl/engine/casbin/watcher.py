"""Watcher au sens de Casbin, pour un enforcer nu : sans notre base ni notre journal, mais par les mêmes transports.

Il dit que la politique a changé, et comment ; ce qu'on en fait est à la fonction de rappel, `enforcer.load_policy` le
plus souvent. Rien ne garde ce qui se perd : à chaque abonnement, la fonction est rappelée.

Example:
    ```python
    watcher = CasbinWatcher(RedisTransport("redis://localhost:6379/0"), secret)
    watcher.set_update_callback(enforcer.load_policy)
    enforcer.set_watcher(watcher)
    await watcher.start()
    ```

Source : https://casbin.org/docs/watchers
"""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import TYPE_CHECKING, Any, final
from uuid import uuid4

from fastapi_acl.shared.logging import get_logger
from fastapi_acl.shared.sync.announcements import Envelope
from fastapi_acl.shared.sync.watcher import CHANNEL, FIRST_BACKOFF_SECONDS, WatcherError
from fastapi_acl.shared.tasks import stop_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_acl.shared.sync.watcher import Transport

logger = get_logger("watcher")


@final
class CasbinWatcher:
    """WatcherEx de Casbin ; ses propres messages ne le rappellent pas."""

    def __init__(self, transport: Transport, secret: str) -> None:
        """Part sans écouter.

        Args:
            transport: ce qui porte les messages.
            secret: ce que tous les processus partagent ; un message scellé d'un autre est ignoré.
        """
        self._transport = transport
        self._envelope = Envelope([secret])
        self._id = str(uuid4())
        self._callback: Callable[..., Any] = _nothing
        self._task: asyncio.Task[None] | None = None

    def set_update_callback(self, callback: Callable[..., Any]) -> None:
        """Retient ce qu'il faut appeler, attendu s'il le faut, quand un autre processus a changé la politique."""
        self._callback = callback

    async def start(self) -> None:
        """Commence à écouter ; sans effet si c'est fait."""
        self._task = self._task or asyncio.create_task(self._listen_forever(), name="fastapi_acl-casbin-watcher")

    async def close(self) -> None:
        """Cesse d'écouter, et ferme les connexions."""
        task, self._task = self._task, None
        if task is not None:
            await stop_tasks(task)
        await self._transport.close()

    async def update(self) -> None:
        """Dit que la politique a changé."""
        await self._say("update")

    async def update_for_add_policy(self, section: str, ptype: str, *params: Any) -> None:  # noqa: ANN401 - de Casbin
        """Dit qu'une règle est ajoutée."""
        await self._say("add_policy", section, ptype, *params)

    async def update_for_remove_policy(self, section: str, ptype: str, *params: Any) -> None:  # noqa: ANN401 - idem
        """Dit qu'une règle est retirée."""
        await self._say("remove_policy", section, ptype, *params)

    async def update_for_remove_filtered_policy(
        self,
        section: str,
        ptype: str,
        field_index: int,
        *params: Any,  # noqa: ANN401 - idem
    ) -> None:
        """Dit que les règles d'un filtre sont retirées."""
        await self._say("remove_filtered_policy", section, ptype, field_index, *params)

    async def update_for_add_policies(self, section: str, ptype: str, *params: Any) -> None:  # noqa: ANN401 - idem
        """Dit que des règles sont ajoutées."""
        await self._say("add_policies", section, ptype, *params)

    async def update_for_remove_policies(self, section: str, ptype: str, *params: Any) -> None:  # noqa: ANN401 - idem
        """Dit que des règles sont retirées."""
        await self._say("remove_policies", section, ptype, *params)

    async def update_for_save_policy(self, model: object) -> None:  # noqa: ARG002 - signature de Casbin
        """Dit que toute la politique est réécrite."""
        await self._say("save_policy")

    async def _say(self, *what: Any) -> None:  # noqa: ANN401 - ce que Casbin donne
        """Envoie un message ; trop long, il ne dit que « changé »."""
        body = json.dumps([self._id, *what], default=list)
        message = self._envelope.close(body)
        if len(message) > self._transport.max_bytes:
            message = self._envelope.close(json.dumps([self._id, "update"]))
        try:
            await self._transport.publish(CHANNEL, message)
        except WatcherError:
            logger.warning("watcher_publish_failed: %s", self._transport.name)

    async def _listen_forever(self) -> None:
        """Écoute, et se réabonne sans fin."""
        while True:
            try:
                await self._listen()
            except WatcherError:
                logger.warning("watcher_lost: %s", self._transport.name)
            except Exception:
                logger.exception("watcher_failed: %s", self._transport.name)
            await asyncio.sleep(FIRST_BACKOFF_SECONDS)

    async def _listen(self) -> None:
        """Écoute jusqu'à ce que la connexion se perde ; l'abonnement rappelle d'abord, pour ce qui s'est dit avant."""
        async with self._transport.subscribe(CHANNEL) as messages:
            await self._call("subscribed")
            async for message in messages:
                body = self._envelope.open(message)
                said = json.loads(body) if body is not None else [self._id]
                if said[0] != self._id:
                    await self._call(*said[1:])
                await asyncio.sleep(0)  # un flot de messages ne retient pas la boucle

    async def _call(self, *what: Any) -> None:  # noqa: ANN401 - ce que Casbin a donné
        """Appelle la fonction de rappel ; `load_policy` n'a besoin de rien, une autre peut lire ce qui a changé."""
        takes = inspect.signature(self._callback).parameters
        result = self._callback(list(what)) if takes else self._callback()
        if inspect.isawaitable(result):
            await result


def _nothing() -> None:
    """Ne fait rien."""
