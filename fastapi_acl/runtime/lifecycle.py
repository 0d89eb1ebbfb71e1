"""Démarrage, veille et arrêt : idempotents, guérissables, et fidèles à une seule boucle d'événements à la fois."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from fastapi_acl.shared.exceptions import (
    ACLException,
    ConfigurationError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    DecisionFailedError,
    PolicyUnavailableError,
)
from fastapi_acl.shared.logging import Trouble, get_logger, quote
from fastapi_acl.shared.tasks import stop_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fastapi_acl.shared.cache.base import CacheBackend
    from fastapi_acl.shared.config import ACLConfig
    from fastapi_acl.shared.database.base import Database
    from fastapi_acl.shared.sync.replica import Replica
    from fastapi_acl.shared.sync.watcher import Watcher
    from fastapi_acl.shared.tasks import Chore

logger = get_logger("lifecycle")

READY_TIMEOUT_SECONDS: Final = 1.0
"""Temps qu'une requête attend la fin de l'initialisation."""

RETRY_SECONDS: Final = 0.5
"""Temps entre deux essais de démarrage quand la base ne répond pas."""

CLOSE_SECONDS: Final = 3.0
"""Temps qu'une base muette a pour rendre ses connexions, avant qu'on les lâche."""

LOOK_SECONDS: Final = 2.5
"""Temps qu'un regard dure au plus, et un peu plus ; au-delà, la veille n'a pas eu la boucle pour le faire."""

EARLY_LOOK_SECONDS: Final = 0.05
"""Temps entre deux regards sur la base, aussi pressé qu'on soit."""


class Lifecycle:
    """Tient la bibliothèque prête.

    Avec un lifespan, une tâche réessaie jusqu'au démarrage puis suit la révision de la base. Sans lifespan, aucune
    tâche n'est lancée : la requête elle-même démarre la bibliothèque et regarde la révision quand il est temps.
    """

    def __init__(  # noqa: PLR0913 - ce qu'il faut démarrer et arrêter
        self,
        config: ACLConfig,
        database: Database,
        replica: Replica,
        watcher: Watcher | None,
        *,
        cache: CacheBackend,
        start: Callable[[], Awaitable[None]],
        chores: Sequence[Chore] = (),
    ) -> None:
        """Retient ce qu'il faut démarrer.

        Args:
            config: réglages.
            database: base à fermer, ou à abandonner si la boucle change.
            replica: ce que le processus sait du journal.
            watcher: ce qui annonce les changements aux autres processus, s'il y en a un.
            cache: ce qui garde ce que l'on peut perdre.
            start: démarrage proprement dit (schéma, premier démarrage, chargement).
            chores: ce qui se refait de temps en temps, là où un lifespan veille.
        """
        self._config = config
        self._database = database
        self._replica = replica
        self._watcher = watcher
        self._cache = cache
        self._start = start
        self._chores = chores
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()
        self._next_attempt = self._next_look = float("-inf")
        self._started = self._is_blind = False
        self._blindness = Trouble(logger, "replica_refresh_failed", "replica_sees_again")
        self._postponement = Trouble(logger, "start_postponed", "start_no_longer_postponed")
        self._postponed_by: type[ACLException] = PolicyUnavailableError

    @property
    def is_ready(self) -> bool:
        """Vrai si la bibliothèque décide."""
        return self._started and self._replica.is_loaded

    @property
    def _is_kept(self) -> bool:
        """Vrai si une tâche de fond veille."""
        return self._keeper is not None and not self._keeper.done()

    @property
    def _tolerated_seconds(self) -> float:
        """Âge au-delà duquel une requête regarde elle-même : personne ne veille, ou une route a bloqué la boucle."""
        seconds = self._config.policy_poll_seconds
        return seconds + LOOK_SECONDS if self._is_kept else seconds

    async def initialize(self) -> None:
        """Démarre et lance la veille ; sans effet si c'est fait.

        Une base qui ne répond pas n'empêche pas l'application de démarrer : les routes gardées répondent 503 et la
        veille réessaie.

        Raises:
            ConfigurationError: la configuration empêche de démarrer.
        """
        self._bind_loop()
        async with self._lock:
            await self._attempt()
        if not self._is_kept:
            self._keeper = asyncio.create_task(self._keep(), name="fastapi_acl-keeper")
            if self._watcher is not None:
                self._watcher.start()
            for chore in self._chores:
                chore.start()

    async def close(self) -> None:
        """Arrête la veille et ferme tout, même interrompu ; sans effet si c'est fait."""
        self._bind_loop()
        keeper, self._keeper, self._started = self._keeper, None, False
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self._close_database)
            closing.push_async_callback(self._cache.close)
            if self._watcher is not None:
                closing.push_async_callback(self._watcher.stop)
            for chore in self._chores:
                closing.push_async_callback(chore.stop)
            if keeper is not None:
                await stop_tasks(keeper)

    async def _close_database(self) -> None:
        """Ferme la base ; muette, elle ne retient pas l'arrêt."""
        try:
            await asyncio.wait_for(self._database.close(), CLOSE_SECONDS)
        except asyncio.TimeoutError:
            logger.warning("database_close_timeout: ses connexions sont lâchées")
            self._database.abandon()

    async def ready(self) -> None:
        """Laisse passer une requête gardée si la bibliothèque peut décider.

        Raises:
            DatabaseUnavailableError: le démarrage attend la base.
            DatabaseRefusedError: elle le refuse.
            PolicyUnavailableError: le démarrage n'est pas fini, ou la politique est trop vieille.
        """
        if self._loop is not asyncio.get_running_loop():
            self._bind_loop()
        if not self._started:
            await self._wait_for_start()
        elif self._replica.age_seconds > self._tolerated_seconds:
            await self._look_in_passing()
        self._replica.require_fresh(self._config.max_staleness_seconds)

    async def _wait_for_start(self) -> None:
        """Attend le démarrage, ou le fait ; peu de temps, et jamais deux fois à la fois."""
        try:
            await asyncio.wait_for(self._lock.acquire(), READY_TIMEOUT_SECONDS)
        except asyncio.TimeoutError as error:
            raise PolicyUnavailableError from error
        try:
            if not self._is_kept and time.monotonic() >= self._next_attempt:
                with contextlib.suppress(ConfigurationError):
                    await self._attempt()
        finally:
            self._lock.release()
        if not self._started:
            raise self._postponed_by

    async def _attempt(self) -> None:
        """Essaie de démarrer, le verrou étant tenu.

        Raises:
            ConfigurationError: un autre essai n'y changerait rien.
        """
        if self._started:
            return
        try:
            await self._start()
        except ConfigurationError as error:
            self._next_attempt = time.monotonic() + RETRY_SECONDS
            logger.error("start_refused: %s", error.detail)  # noqa: TRY400 - la phrase suffit à corriger
            raise
        except ACLException as error:
            is_of_database = isinstance(error, (DatabaseUnavailableError, DatabaseRefusedError))
            self._postponed_by = type(error) if is_of_database else PolicyUnavailableError
            self._postponement.goes_on(f"{_tell(error)} Les routes gardées répondent 503.")
        else:
            self._started = True
            self._postponement.is_over()
            logger.info("started: revision=%d", self._replica.revision)

    async def _keep(self) -> None:
        """Réessaie jusqu'au démarrage, puis suit la révision de la base, sans fin."""
        while True:
            await self._pause()
            await self._watch_once()

    async def _pause(self) -> None:
        """Attend le prochain tour, ou qu'on le demande plus tôt ; jamais plus de vingt par seconde."""
        seconds = self._config.policy_poll_seconds if self._started else RETRY_SECONDS
        await asyncio.sleep(EARLY_LOOK_SECONDS)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._replica.woken.wait(), max(seconds - EARLY_LOOK_SECONDS, 0))
        self._replica.woken.clear()

    async def _watch_once(self) -> None:
        """Fait un pas de veille ; aucune erreur ne l'arrête, la fraîcheur dira ce qu'il en est."""
        try:
            if self._started:
                await self._look()
                await self._cache.revive()
            else:
                async with self._lock:
                    await self._attempt()
        except ConfigurationError:
            logger.debug("start_refused_again")
        except Exception:
            logger.exception("watch_failed")

    async def _look_in_passing(self) -> None:
        """Regarde la base à la place de la veille : une requête le fait pour toutes.

        Les autres l'attendent, sauf si ce que l'on sait date d'assez peu, ou si la base ne répondait déjà plus.
        """
        is_busy = self._looking.locked() or self._is_kept
        if is_busy and (self._is_recent() or self._is_blind):
            return
        async with self._looking:
            if self._is_look_due():  # on vient peut-être d'attendre celle qui l'a fait
                await self._look()
                self._next_look = time.monotonic() + self._config.policy_poll_seconds

    def _is_recent(self) -> bool:
        """Dit si la base a été vue il y a assez peu pour décider sans attendre."""
        return self._replica.age_seconds < 2 * self._config.policy_poll_seconds

    def _is_look_due(self) -> bool:
        """Dit s'il est temps de regarder la base."""
        return time.monotonic() >= self._next_look and self._replica.age_seconds > self._config.policy_poll_seconds

    async def _look(self) -> None:
        """Regarde la révision de la base ; une base muette, ou illisible, laisse la politique telle quelle."""
        try:
            await self._replica.refresh()
            self._is_blind = False
            self._blindness.is_over()
        except ACLException as error:
            self._is_blind = True
            self._blindness.goes_on(error.code, f" age={self._replica.age_seconds:.1f}s")
        await self._database.recover()

    def _bind_loop(self) -> None:
        """Rattache les ressources à la boucle courante ; celles d'une boucle finie sont abandonnées.

        Raises:
            WrongLoopError: l'autre boucle tourne encore.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        self._database.bind_loop()
        if self._loop is not None:
            self._abandon()
        self._loop, self._lock, self._looking = loop, asyncio.Lock(), asyncio.Lock()

    def _abandon(self) -> None:
        """Oublie tout ce qui a commencé dans une boucle d'événements qui n'existe plus."""
        if self._watcher is not None:
            self._watcher.abandon()
        self._replica.abandon()
        self._cache.abandon()
        for chore in self._chores:
            chore.abandon()
        self._started, self._keeper = False, None


def _tell(error: ACLException) -> str:
    """Renvoie la phrase d'une erreur ; d'une décision qui a échoué, la cause et la règle aussi."""
    if not isinstance(error, DecisionFailedError):
        return error.detail
    rule = ",".join(map(quote, error.rule)) or "-"
    return f"{error.detail} rule={rule} reason={quote(error.reason or type(error.__cause__ or error).__name__, 500)}."
