"""Base SQL par SQLAlchemy 2 asynchrone ; les sous-classes ne portent que ce qui diffère d'une base à l'autre."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from fastapi_acl.shared.database.base import Database, Transaction
from fastapi_acl.shared.database.migrations.runner import migrate_connection
from fastapi_acl.shared.database.tables import revision_table
from fastapi_acl.shared.exceptions import DatabaseUnavailableError
from fastapi_acl.shared.logging import get_logger, one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping

    from sqlalchemy.engine import Connection

logger = get_logger("database")

CONNECT_TIMEOUT_SECONDS: Final = 1.0
"""Temps laissé à l'ouverture d'une connexion, et à l'attente d'une place dans la réserve."""


QUERY_FAULTS: Final = (IntegrityError, DataError, NotSupportedError)
"""Erreurs qui tiennent à la requête, et non à l'état de la base : les dépôts les traitent, ou c'est un défaut."""


class SQLDatabase(Database, ABC):
    """Réserve de connexions, transaction ambiante et migrations d'une base SQL.

    Une méthode de dépôt emploie `session()` : elle se joint à la transaction ambiante s'il y en a une, et forme sinon
    une transaction à elle seule.
    """

    def __init__(self, uri: str, *, auto_migrate: bool = True) -> None:
        """Retient l'adresse ; aucune connexion n'est ouverte avant le premier usage.

        Args:
            uri: adresse, telle que la configuration la donne.
            auto_migrate: met le schéma à jour au démarrage ; sinon un schéma en retard refuse de démarrer.
        """
        self._uri = uri
        self._auto_migrate = auto_migrate
        self._engine: AsyncEngine | None = None
        self._ambient: ContextVar[Transaction | None] = ContextVar("fastapi_acl_transaction", default=None)

    @abstractmethod
    def create_engine(self) -> AsyncEngine:
        """Fait le moteur SQLAlchemy, délais compris."""

    @abstractmethod
    def take_migration_lock(self, connection: Connection) -> None:
        """Prend, dans la transaction ouverte, le verrou qu'une seule réplique tient à la fois."""

    def _outages(self) -> tuple[type[Exception], ...]:
        """Rend les erreurs qui tiennent à l'état de la base."""
        return (DBAPIError, PoolTimeoutError, OSError, asyncio.TimeoutError, *self.connect_errors())

    def connect_errors(self) -> tuple[type[Exception], ...]:
        """Erreurs propres au pilote, que SQLAlchemy n'habille pas à l'ouverture d'une connexion."""
        return ()

    def write_options(self) -> Mapping[str, Any]:
        """Options d'exécution d'une transaction qui écrira."""
        return {}

    def snapshot_options(self) -> Mapping[str, Any]:
        """Options d'exécution d'une lecture cohérente."""
        return {}

    @property
    def engine(self) -> AsyncEngine:
        """Le moteur, fait au premier usage."""
        if self._engine is None:
            self._engine = self.create_engine()
        return self._engine

    @asynccontextmanager
    async def transaction(self, *, log: bool = False) -> AsyncIterator[Transaction]:
        """Ouvre une transaction ou se joint à l'ambiante ; voir `Transactions.transaction`."""
        ambient = self._joined()
        if ambient is not None:
            if log:
                ambient.check_ordered()
            yield ambient
            return
        async with self._ambient_begin(self.write_options(), log=log) as opened:
            yield opened

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Donne la session de la transaction ambiante, ou en ouvre une qui se valide à la sortie."""
        ambient = self._joined()
        if ambient is not None:
            yield ambient.connection
            return
        async with self._begin(self.write_options(), log=False) as opened:
            yield opened.connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """Ouvre une lecture cohérente, ou lit dans la transaction ambiante."""
        ambient = self._joined()
        if ambient is not None:
            yield ambient
            return
        async with self._ambient_begin(self.snapshot_options(), log=False) as opened:
            yield opened

    async def migrate(self, *, force: bool = False) -> None:
        """Met le schéma à jour sous le verrou de migration."""
        upgrade = self._auto_migrate or force
        async with self._translated(), self.engine.connect() as connection:
            _ = await connection.execution_options(**self.write_options())
            async with connection.begin():
                await connection.run_sync(self._migrate, upgrade)

    def _migrate(self, connection: Connection, upgrade: bool) -> None:  # noqa: FBT001 - run_sync ne passe que des positions
        """Prend le verrou, puis migre, dans la même transaction."""
        self.take_migration_lock(connection)
        migrate_connection(connection, upgrade=upgrade)

    async def close(self) -> None:
        """Ferme la réserve ; le prochain usage en ouvrirait une autre."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    def abandon(self) -> None:
        """Oublie la réserve sans fermer ses connexions, que leur boucle ne peut plus servir."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.sync_engine.dispose(close=False)

    def _joined(self) -> Transaction | None:
        """Rend la transaction ambiante, après avoir vérifié qu'elle est à cette tâche."""
        ambient = self._ambient.get()
        if ambient is not None:
            ambient.check_owner()
        return ambient

    @asynccontextmanager
    async def _ambient_begin(self, options: Mapping[str, Any], *, log: bool) -> AsyncIterator[Transaction]:
        """Ouvre une transaction à laquelle les dépôts se joignent d'eux-mêmes."""
        async with self._begin(options, log=log) as opened:
            token = self._ambient.set(opened)
            try:
                yield opened
            finally:
                self._ambient.reset(token)

    @asynccontextmanager
    async def _begin(self, options: Mapping[str, Any], *, log: bool) -> AsyncIterator[Transaction]:
        """Ouvre une session et sa transaction, validée à la sortie, annulée sur erreur."""
        async with self._translated(), AsyncSession(self.engine, expire_on_commit=False, autoflush=False) as session:
            await _to_the_end(session.connection(execution_options=dict(options)))
            if log:
                await session.execute(select(revision_table.c.revision).with_for_update())
            opened = Transaction(connection=session, ordered=log)
            yield opened
            await session.commit()
            opened.run_callbacks()

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        """Traduit les pannes en `DatabaseUnavailableError` ; les erreurs du domaine passent telles quelles."""
        try:
            yield
        except QUERY_FAULTS:
            raise
        except self._outages() as error:
            logger.warning("database_unavailable: %s", one_line(getattr(error, "orig", None) or error))
            raise DatabaseUnavailableError from error


async def _to_the_end(opening: Coroutine[Any, Any, object]) -> None:
    """Ouvre une connexion jusqu'au bout, même si l'appelant est annulé : à demi ouverte, personne ne la fermerait."""
    task = asyncio.ensure_future(opening)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
