"""Le pouls des nœuds de MongoDB : une base lente s'attend, une base muette se remarque.

Le pilote écoute chaque nœud par une connexion à part, quoi que les autres y attendent. Un nœud qui s'y tait le temps
d'ouvrir une connexion est muet : le pilote coupe alors ce qui l'attendait, et nous ne lui demandons plus rien.

Source: https://github.com/mongodb/specifications/blob/master/source/server-discovery-and-monitoring/server-monitoring.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from pymongo.errors import NetworkTimeout
from pymongo.monitoring import ServerHeartbeatListener

if TYPE_CHECKING:
    from pymongo.monitoring import (
        ServerHeartbeatFailedEvent,
        ServerHeartbeatStartedEvent,
        ServerHeartbeatSucceededEvent,
    )

BEAT_MILLISECONDS: Final = 500
"""Temps entre deux battements, le plus court que le pilote admette."""


@final
class Pulse(ServerHeartbeatListener):
    """Retient les nœuds qui se taisent ; les fils du pilote le lui disent."""

    def __init__(self) -> None:
        """Part sans soupçon."""
        self._silent: set[tuple[str, int | None]] = set()

    def is_lost(self, client: Any) -> bool:  # noqa: ANN401 - de motor ou de PyMongo
        """Dit si aucun nœud n'admet d'écrire parce que l'un d'eux se tait ; un refus, lui, est une réponse."""
        return bool(self._silent) and not client.topology_description.has_writable_server()

    def started(self, event: ServerHeartbeatStartedEvent) -> None:
        """N'apprend rien d'une question."""

    def succeeded(self, event: ServerHeartbeatSucceededEvent) -> None:
        """Retient qu'un nœud a répondu."""
        self._silent.discard(event.connection_id)

    def failed(self, event: ServerHeartbeatFailedEvent) -> None:
        """Retient qu'un nœud s'est tu, ou qu'il a refusé."""
        if isinstance(event.reply, NetworkTimeout):
            self._silent.add(event.connection_id)
        else:
            self._silent.discard(event.connection_id)
