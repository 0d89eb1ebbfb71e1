"""Raccrocher : finir une connexion dont la boucle d'événements n'existe plus, et ne saurait donc la fermer."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Any


def hang_up(connection: Any) -> None:  # noqa: ANN401 - d'asyncpg, d'aiomysql ou d'aiosqlite
    """Coupe le lien d'une connexion, sans sa boucle ; le serveur l'apprend aussitôt, et la mémoire la rend plus tard.

    Args:
        connection: connexion du pilote ; celle d'un fichier n'a pas de lien, mais un fil, qui se finit.
    """
    stop = getattr(connection, "stop", None)
    if stop is not None:
        # D'un fil sans boucle, aiosqlite n'attend pas de réponse, que la boucle courante ne serait plus là pour lire.
        stopping = threading.Thread(target=stop)
        stopping.start()
        stopping.join()
        return
    writer = getattr(connection, "_writer", None)
    transport = getattr(connection, "_transport", None) or getattr(writer, "transport", None)
    link = transport.get_extra_info("socket") if transport is not None else None
    if link is None:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(link.fileno())) as shared:
        shared.shutdown(socket.SHUT_RDWR)
