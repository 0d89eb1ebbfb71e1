"""Le disjoncteur : ne pas attendre, commande après commande, un serveur qui ne répond plus."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeVar

from redis.exceptions import RedisClusterException, RedisError

from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = get_logger("redis")

T = TypeVar("T")

COMMAND_TIMEOUT_SECONDS: Final = 0.3
"""Temps laissé à une connexion, à une commande, et aux deux ensemble à travers un disjoncteur."""

OPEN_SECONDS: Final = 5.0
"""Temps pendant lequel un Redis qui n'a pas répondu n'est plus essayé."""

REDIS_ERRORS: Final = (RedisError, RedisClusterException, OSError, asyncio.TimeoutError)
"""Erreurs qui veulent dire que Redis ne répond pas, ou ne peut pas ; celle d'un cluster n'est pas une RedisError."""

NONSENSE: Final = (ValueError, TypeError, RecursionError)
"""Ce que le pilote lève d'une réponse qui n'est pas d'un Redis."""


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
