"""Base SQL par SQLAlchemy 2 asynchrone ; les sous-classes ne portent que ce qui diffère d'une base à l'autre."""

from __future__ import annotations

import asyncio
import json
import time
from abc import abstractmethod
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakSet

from sqlalchemy import delete, event, false, insert, literal, select, text, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InvalidatePoolError, NotSupportedError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.pool import NullPool

from fastapi_acl.shared.database.base import HEADLESS, AmbientDatabase, Head, Mode, Transaction, to_the_end
from fastapi_acl.shared.database.faults import name_faults
from fastapi_acl.shared.database.hanging import hang_up
from fastapi_acl.shared.database.migrations.runner import check_connection, migrate_connection, restore_head
from fastapi_acl.shared.database.refusals import (
    NO_ROOM,
    RIGHTS,
    codes_of,
    explain_refusals,
    is_caused_by,
    missing_rights,
    refusal_of,
    refuse_start,
    rights_on,
    words_of,
)
from fastapi_acl.shared.database.tables import VERSION_TABLE, metadata, revision_table
from fastapi_acl.shared.database.vigil import Vigil
from fastapi_acl.shared.exceptions import (
    ChangeTooLargeError,
    DatabaseUnavailableError,
    TransactionConflictError,
)
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Executable, Select, Table
    from sqlalchemy.engine import Connection, Engine

    from fastapi_acl.shared.database.refusals import Refusal

logger = get_logger("database")

CONNECT_TIMEOUT_SECONDS: Final = 1.0
"""Temps laissé à l'ouverture d'une connexion."""

LOCK_TIMEOUT_SECONDS: Final = 5
"""Temps, en secondes, pendant lequel un écrivain attend que le verrou du journal soit rendu."""

QUERY_FAULTS: Final = (IntegrityError, DataError, NotSupportedError)
"""Erreurs qui tiennent à la requête, et non à l'état de la base : les dépôts les traitent, ou c'est un défaut."""

LOOK_TIMEOUT_SECONDS: Final = 1.0
"""Temps laissé à chaque réponse à qui suit le journal."""

LOOK_POOL: Final[dict[str, Any]] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": CONNECT_TIMEOUT_SECONDS}
"""Réserve de qui suit le journal."""

_WAITS: Final = (PoolTimeoutError, TimeoutError, asyncio.TimeoutError)
"""Connexion qui a manqué faute de temps ; avant Python 3.11, asyncio a sa propre erreur."""

CONFLICTS: Final = frozenset({"40001", "40P01", "1213", "1412"})
"""Codes d'une transaction que la base a annulée parce qu'une autre l'a croisée (PostgreSQL, MySQL)."""

MIGRATION_TIMEOUT_SECONDS: Final = 120
"""Temps, en secondes, pendant lequel une réplique attend que la migration d'une autre finisse."""

STEP_TIMEOUT_SECONDS: Final = 3_600
"""Temps, en secondes, laissé à une étape de migration, qui peut refaire une grande table."""

MAX_ENTRY_BYTES: Final = 1 << 28
"""Taille de la plus grande entrée du journal : PostgreSQL et SQLite n'en gardent guère plus d'un seul tenant."""

PATIENT: Final = "fastapi_acl_patient"
"""Option d'exécution d'une copie en masse, que le silence de la base ne fait pas couper."""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Un pool.

    Attributes:
        size: connexions gardées.
        overflow: connexions de plus, en pointe.
        timeout: temps, en secondes, pendant lequel on attend une place : une file n'est pas une panne.
    """

    size: int = 5
    overflow: int = 10
    timeout: float = 5.0

    def options(self) -> dict[str, Any]:
        """Renvoie ce que SQLAlchemy en demande ; il n'attend qu'un moment, que nous renouvelons."""
        moment = min(self.timeout, CONNECT_TIMEOUT_SECONDS)
        return {"pool_size": self.size, "max_overflow": self.overflow, "pool_timeout": moment}


DEFAULT_POOL: Final = PoolSettings()


class Use(Enum):
    """Ce à quoi sert un moteur.

    Attributes:
        REQUESTS: les requêtes ; une réserve, et des commandes sur lesquelles on veille.
        LOOKS: suivre le journal ; une connexion, et des délais courts.
        KNOCKS: savoir si la base répond ; une connexion neuve chaque fois, et des délais courts.
        MIGRATIONS: migrer ; une connexion, et le temps qu'il faut.
    """

    REQUESTS = "requests"
    LOOKS = "looks"
    KNOCKS = "knocks"
    MIGRATIONS = "migrations"


_HEAD: Final = select(*(revision_table.c[name] for name in Head.__dataclass_fields__))


class SQLDatabase(AmbientDatabase):
    """Pool, transactions et migrations d'une base SQL.

    Une méthode de dépôt emploie `session()` : elle se joint à la transaction ambiante s'il y en a une, et forme sinon
    une transaction à elle seule.
    """

    has_look_engine: ClassVar[bool] = True
    """Vrai si qui suit le journal a une connexion à lui ; sans réserve à épuiser, il n'en a pas besoin."""

    def __init__(self, uri: str, *, auto_migrate: bool = True, pool: PoolSettings = DEFAULT_POOL) -> None:
        """Retient l'adresse ; aucune connexion n'est ouverte avant le premier usage.

        Args:
            uri: adresse, telle que la configuration la donne.
            auto_migrate: met le schéma à jour au démarrage ; sinon un schéma en retard refuse de démarrer.
            pool: les connexions à garder.
        """
        super().__init__()
        self._pool = pool
        self._uri = uri
        self._auto_migrate = auto_migrate
        self._engines: dict[Use, AsyncEngine] = {}
        self._vigil = Vigil(self.answers)
        self._opened: WeakSet[Any] = WeakSet()
        self._doubted: set[Engine] = set()

    @abstractmethod
    def create_engine(self, use: Use = Use.REQUESTS) -> AsyncEngine:
        """Fait un moteur SQLAlchemy, délais compris."""

    def cut(self, driver_connection: Any) -> None:  # noqa: ANN401 - du pilote
        """Coupe net une connexion, dont l'attente échoue aussitôt ; un fichier n'en a pas l'usage."""

    @abstractmethod
    def take_migration_lock(self, connection: Connection) -> None:
        """Prend, dans la transaction ouverte, le verrou qu'une seule réplique tient à la fois."""

    def check_owners(self, connection: Connection) -> None:
        """Refuse un schéma qui ne serait pas le nôtre ; la plupart des bases n'ont rien à vérifier."""

    def release_migration_lock(self, connection: Connection) -> None:
        """Renvoie le verrou de migration, si la fin de la transaction n'y suffit pas."""

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
        """Le moteur des requêtes."""
        return self.engine_for(Use.REQUESTS)

    def engine_for(self, use: Use) -> AsyncEngine:
        """Renvoie le moteur de cet usage, fait au premier ; une base sans réserve n'en a qu'un."""
        self.bind_loop()
        known = use if self.has_look_engine else Use.REQUESTS
        if known not in self._engines:
            self._engines[known] = self._make_engine(known)
        return self._engines[known]

    def _make_engine(self, use: Use) -> AsyncEngine:
        """Fait un moteur, dont les fautes qui ne sont pas des pannes ont un nom."""
        engine = self.create_engine(use)
        name_faults(engine)
        event.listen(engine.sync_engine, "connect", lambda opened, _: self._opened.add(opened.driver_connection))
        event.listen(engine.sync_engine, "checkout", lambda *_: self._settle(engine.sync_engine))
        if use is Use.REQUESTS and self.has_look_engine:
            self._watch_over(engine)
        return engine

    def reopen(self) -> None:
        """Fait rouvrir les connexions gardées, à la prochaine qu'on prendra."""
        self._doubted = {engine.sync_engine for engine in self._engines.values()}

    def _settle(self, engine: Engine) -> None:
        """Demande à SQLAlchemy, si l'on doute d'un moteur, de rouvrir tout ce que sa réserve garde.

        Raises:
            InvalidatePoolError: c'est ainsi qu'on le lui demande.
        """
        if engine in self._doubted:
            self._doubted.discard(engine)
            raise InvalidatePoolError

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Donne la session de la transaction ambiante, ou en ouvre une qui se valide à la sortie."""
        async with self.transaction() as opened:
            with opened.condemn_unless_done():  # après une erreur, PostgreSQL ne valide plus rien, et ne le dit pas
                yield opened.connection

    def begin(self, mode: Mode) -> AbstractAsyncContextManager[Transaction]:
        """Ouvre une session et sa transaction, annulée à la sortie si elle n'a pas été validée."""
        return self._begin(mode, self.engine)

    def begin_look(self) -> AbstractAsyncContextManager[Transaction]:
        """Ouvre la lecture de qui suit le journal, sur une connexion hors de la réserve."""
        return self._begin(Mode.READ, self.engine_for(Use.LOOKS))

    @asynccontextmanager
    async def _begin(self, mode: Mode, engine: AsyncEngine) -> AsyncIterator[Transaction]:
        """Ouvre une session et sa transaction."""
        options = self.snapshot_options() if mode is Mode.READ else self.write_options()
        async with self._translate(), AsyncSession(engine, expire_on_commit=False, autoflush=False) as session:
            # À demi ouverte, personne ne fermerait la connexion : l'ouverture va à son terme.
            await to_the_end(self._connect(session, dict(options)))
            transaction = Transaction(connection=session)
            if mode is Mode.LOG:
                transaction.head = await self._read_head(transaction, _HEAD.with_for_update())
            yield transaction

    async def _connect(self, session: AsyncSession, options: dict[str, Any]) -> None:
        """Prend une connexion ; tant que la base répond à d'autres, on attend encore : une file n'est pas une panne."""
        deadline = time.monotonic() + self._pool.timeout
        while True:
            tried_at = time.monotonic()
            try:
                _ = await session.connection(execution_options=options)
            except self._outages() as error:
                is_silent = self._vigil.answered_at < tried_at
                if is_silent or time.monotonic() >= deadline or not is_caused_by(error, _WAITS):
                    raise
            else:
                self._vigil.note_answer()
                return

    async def commit(self, transaction: Transaction) -> None:
        """Valide ; une connexion perdue à cet instant est abandonnée, avec les verrous qu'elle tenait."""
        session: AsyncSession = transaction.connection
        try:
            async with self._translate():
                await session.commit()
        except DatabaseUnavailableError:
            await session.invalidate()
            raise

    async def migrate(self, *, force: bool = False) -> None:
        """Met le schéma à jour sous le verrou de migration."""
        upgrade = self._auto_migrate or force
        async with self._translate(), self.engine_for(Use.MIGRATIONS).connect() as connection:
            _ = await connection.execution_options(**self.write_options())
            with explain_refusals(self._refusal_to_migrate if upgrade else refusal_of):
                async with connection.begin():
                    await connection.run_sync(self._migrate, upgrade)
                    if not force:  # le compte qui migre à part n'est pas celui qui servira
                        await connection.run_sync(self.try_rights)

    async def check_schema(self) -> None:
        """Vérifie le schéma, sans rien écrire."""
        async with self._translate(), self.engine.connect() as connection:
            await connection.run_sync(self._check)

    async def check_rights(self, transaction: Transaction) -> None:
        """Vérifie les droits de ce compte, dans une transaction."""
        await (await transaction.connection.connection()).run_sync(self.try_rights)

    def try_rights(self, connection: Connection) -> None:
        """Essaie chaque droit par une instruction qui ne touche aucune ligne.

        Raises:
            ConfigurationError: il en manque, ou le serveur n'admet aucune écriture.
        """
        missing: dict[str, list[str]] = {}
        for table, right, statement in _attempts():
            refusal = _try(connection, statement)
            if refusal is not None and refusal.advice != RIGHTS:
                raise refuse_start(refusal, table)
            if refusal is not None:
                missing.setdefault(table, []).append(right)
        if missing:
            raise missing_rights(
                self.account(connection), (f"{', '.join(rights)} ON {table}" for table, rights in missing.items())
            )

    def account(self, connection: Connection) -> str:  # noqa: ARG002 - celles qui ont des comptes s'en servent
        """Renvoie le compte qui nous sert, tel qu'une instruction le nomme."""
        return "…"

    def _refusal_to_migrate(self, error: BaseException) -> Refusal | None:
        """Reconnaît un refus sans appel ; migrer demande d'autres droits que servir."""
        refusal = refusal_of(error)
        return refusal._replace(advice=self.migration_rights()) if refusal and refusal.advice == RIGHTS else refusal

    def migration_rights(self) -> str:
        """Dit les droits qu'il faut pour migrer."""
        return RIGHTS

    async def check_size(self, transaction: Transaction, size: int) -> None:
        """Refuse une entrée du journal que la base n'admettrait pas."""
        limit = await self.max_entry_bytes(transaction, size)
        if size > limit:
            raise ChangeTooLargeError(max_bytes=limit)

    async def max_entry_bytes(self, transaction: Transaction, size: int) -> int:  # noqa: ARG002 - MySQL s'en sert
        """Renvoie la taille, en octets, de la plus grande entrée du journal que la base admette."""
        return MAX_ENTRY_BYTES

    def _check(self, connection: Connection) -> None:
        """Vérifie que le schéma est le nôtre, et à jour."""
        self.check_owners(connection)
        check_connection(connection)

    def _migrate(self, connection: Connection, upgrade: bool) -> None:  # noqa: FBT001 - run_sync ne passe que des positions
        """Prend le verrou, puis migre, dans la même transaction."""
        self.take_migration_lock(connection)
        try:
            self.check_owners(connection)  # lire la vue d'un autre exécuterait ses fonctions avec nos droits
            migrate_connection(connection, upgrade=upgrade)
            restore_head(connection)
            self.check_owners(connection)
        finally:
            self.release_migration_lock(connection)

    async def close(self) -> None:
        """Ferme la réserve ; le prochain usage en ouvrirait une autre."""
        self.leave_loop()
        await self._vigil.stop()
        for engine in self._forget_engines():
            await engine.dispose()

    def abandon(self) -> None:
        """Lâche la réserve, et raccroche : sa boucle ne peut plus fermer ses connexions, que le serveur garderait."""
        self._vigil.abandon()
        for engine in self._forget_engines():
            engine.sync_engine.dispose(close=False)
        for opened in self._opened:
            hang_up(opened)
        self._opened.clear()

    def _forget_engines(self) -> list[AsyncEngine]:
        """Renvoie les moteurs ouverts, que plus rien ne retient."""
        engines, self._engines = list(self._engines.values()), {}
        return engines

    def _pool_for(self, use: Use) -> dict[str, Any]:
        """Renvoie la pool d'un usage."""
        if use is Use.REQUESTS:
            return self._pool.options()
        return LOOK_POOL if use is Use.LOOKS else {"poolclass": NullPool}

    def _watch_over(self, engine: AsyncEngine) -> None:
        """Veille sur les commandes d'un moteur : ce qui attend quand la base devient muette est coupé."""
        target, over = engine.sync_engine, self._vigil.over
        event.listen(target, "before_cursor_execute", lambda *given: self._waits(given[0], given[4]))
        event.listen(target, "after_cursor_execute", lambda *given: self._note_served(given[0]))
        for name in ("commit", "rollback"):
            event.listen(target, name, self._waits)
        for name in ("checkin", "invalidate", "close"):
            event.listen(target, name, lambda *given: over(given[0]))

    def _waits(self, connection: Connection, context: Any = None) -> None:  # noqa: ANN401 - celui de SQLAlchemy
        """Note qu'une connexion attend une réponse, sauf si elle a tout son temps."""
        options = connection.get_execution_options() if context is None else context.execution_options
        if not connection.invalidated and not options.get(PATIENT, False):
            opened = connection.connection
            self._vigil.began(opened.dbapi_connection, partial(self.cut, opened.driver_connection))

    def _note_served(self, connection: Connection) -> None:
        """Note que la base a répondu à une connexion."""
        self._vigil.note_answer()
        self._vigil.over(connection.connection.dbapi_connection)

    async def answers(self) -> bool:
        """Dit si la base répond à une connexion neuve ; un refus est une réponse."""
        try:
            async with self.engine_for(Use.KNOCKS).connect() as connection:
                await connection.execute(select(literal(1)))
        except self._outages() as error:
            return not is_caused_by(error, _WAITS)
        self._vigil.note_answer()  # qui attend une place l'apprend : ceux qui tiennent les autres attendent un verrou
        return True

    async def read_head(self, transaction: Transaction) -> Head:
        """Renvoie la tête du journal."""
        return await self._read_head(transaction, _HEAD)

    async def write_head(self, transaction: Transaction, head: Head) -> None:
        """Écrit la tête du journal, dont la ligne est tenue."""
        values = {name: getattr(head, name) for name in Head.__dataclass_fields__}
        await transaction.connection.execute(update(revision_table).values(**values))

    @abstractmethod
    def place_query(self) -> Select[Any]:
        """Demande au serveur de quoi le reconnaître, et le nom de la base."""

    async def read_place(self, transaction: Transaction) -> str:
        """Renvoie où la base se trouve, tel que le serveur le dit."""
        row = (await transaction.connection.execute(self.place_query())).one()
        return json.dumps(list(row), default=str)

    @staticmethod
    async def _read_head(transaction: Transaction, query: Select[Any]) -> Head:
        """Lit la ligne unique de la tête.

        Raises:
            DatabaseUnavailableError: elle n'y est pas.
            StoredDataError: elle ne se lit pas.
        """
        row = (await transaction.connection.execute(query)).one_or_none()
        if row is None:
            raise DatabaseUnavailableError(HEADLESS)
        return Head.of(row._mapping)  # noqa: SLF001 - l'interface publique d'une ligne, malgré son nom

    async def advance_numbers(self, transaction: Transaction, table: Table, last: int) -> None:
        """Fait suivre la numérotation propre à la base, si elle en tient une à part de la table."""

    async def bulk_insert(self, transaction: Transaction, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insère beaucoup de lignes, qui ont toutes les mêmes colonnes."""
        await transaction.connection.execute(insert(table), rows)

    async def bulk_execute(self, transaction: Transaction, statement: Executable) -> int:
        """Exécute une instruction qui porte sur beaucoup de lignes, le temps qu'il y faut, et rend leur nombre."""
        result: Any = await transaction.connection.execute(statement)
        return int(result.rowcount)

    async def bulk_copy(self, transaction: Transaction, table: Table, names: Sequence[str], source: Select[Any]) -> int:
        """Copie le résultat d'une lecture dans une table, et rend le nombre de lignes."""
        return await self.bulk_execute(transaction, insert(table).from_select(names, source))

    async def packets(self, transaction: Transaction, query: Select[Any], size: int) -> AsyncGenerator[Sequence[Any]]:
        """Lit le résultat d'une question, quelques lignes à la fois ; interrompue, la lecture ne tient plus rien."""
        result = await transaction.connection.stream(query, execution_options={"yield_per": size})
        try:
            async for packet in result.partitions():
                yield packet
        finally:
            await result.close()

    @asynccontextmanager
    async def _translate(self) -> AsyncIterator[None]:
        """Traduit les pannes en `DatabaseUnavailableError` ; les erreurs du domaine passent telles quelles."""
        try:
            yield
            self._vigil.note_answer()
            self._trouble.is_over()
        except self._outages() as error:
            if codes_of(error) & CONFLICTS or self.is_stale(error):
                raise TransactionConflictError from error
            if isinstance(error, QUERY_FAULTS):
                raise
            refusal = refusal_of(error)
            if refusal is not None:
                raise self.note_refusal(refusal) from error
            self._trouble.goes_on(NO_ROOM if isinstance(error, PoolTimeoutError) else words_of(error))
            raise DatabaseUnavailableError from error

    def is_stale(self, error: Exception) -> bool:  # noqa: ARG002 - PostgreSQL s'en sert
        """Dit si une instruction a été préparée sous un schéma qui a changé depuis ; refaite, elle aboutit."""
        return False

    def _outages(self) -> tuple[type[Exception], ...]:
        """Renvoie les erreurs qui tiennent à l'état de la base."""
        return (DBAPIError, PoolTimeoutError, OSError, asyncio.TimeoutError, *self.connect_errors())


def patience_for(use: Use, usual: float) -> float:
    """Renvoie le temps laissé à chaque commande d'un usage.

    Args:
        use: l'usage.
        usual: le temps laissé à celles des requêtes.
    """
    if use is Use.MIGRATIONS:
        return STEP_TIMEOUT_SECONDS
    return usual if use is Use.REQUESTS else LOOK_TIMEOUT_SECONDS


def tell_migration_awaited(seconds: float) -> None:
    """Dit qu'une autre réplique migre, et jusqu'à quand on l'attend."""
    logger.info("migration_awaited: une autre réplique migre ; on l’attend %d s au plus", seconds)


def _try(connection: Connection, statement: Executable) -> Refusal | None:
    """Essaie une instruction ; rend le refus du serveur, s'il refuse pour de bon."""
    try:
        connection.execute(statement)
    except DBAPIError as error:
        refusal = refusal_of(error)
        if refusal is None:
            raise
        return refusal
    return None


def _attempts() -> Iterator[tuple[str, str, Executable]]:
    """Renvoie de quoi essayer chaque droit qu'il faut sur chaque table, sans toucher aucune ligne."""
    yield VERSION_TABLE, "SELECT", text(f"SELECT version_num FROM {VERSION_TABLE} WHERE 1 = 0")  # noqa: S608 - une constante
    for table in metadata.sorted_tables:
        nothing, first = select(*table.c).where(false()), next(iter(table.c))
        statements: dict[str, Executable] = {
            "SELECT": nothing,
            "INSERT": insert(table).from_select(list(table.c.keys()), nothing, include_defaults=False),
            "UPDATE": update(table).values({first: first}).where(false()),
            "DELETE": delete(table).where(false()),
        }
        for right in rights_on(table.name):
            yield table.name, right, statements[right]
