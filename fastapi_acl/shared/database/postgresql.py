"""PostgreSQL par asyncpg."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import asyncpg
from sqlalchemy import Text, UniqueConstraint, cast, event, false, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from fastapi_acl.shared.database.faults import naming
from fastapi_acl.shared.database.postgresql_link import DIALECT, PostgreSQLLink, quote_name
from fastapi_acl.shared.database.refusals import (
    READ_ONLY,
    RIGHTS,
    Refusal,
    is_caused_by,
    missing_rights,
    refuse_start,
    rights_on,
)
from fastapi_acl.shared.database.sql import (
    CONNECT_TIMEOUT_SECONDS,
    DEFAULT_POOL,
    LOCK_TIMEOUT_SECONDS,
    MIGRATION_TIMEOUT_SECONDS,
    SQLDatabase,
    Use,
    patience_for,
    tell_migration_awaited,
)
from fastapi_acl.shared.database.tables import TRANSLATED, VERSION_TABLE, metadata
from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from sqlalchemy import Executable, Select, Table
    from sqlalchemy.engine import Connection
    from sqlalchemy.engine.interfaces import SchemaTranslateMapType

    from fastapi_acl.shared.database.base import Transaction
    from fastapi_acl.shared.database.sql import PoolSettings

COMMAND_TIMEOUT_SECONDS: Final = 10.0
"""Temps laissé à une commande ; sans lui, une base figée retient la requête sans fin."""

COPY_FROM: Final = 100
"""Nombre de lignes à partir duquel COPY l'emporte sur INSERT."""

REBUILD_FROM: Final = 100_000
"""Nombre de lignes à partir duquel refaire un index unique coûte moins que d'y insérer chacune."""

BULK_TIMEOUT_SECONDS: Final = 300
"""Temps laissé à une copie en masse."""

MIGRATION_LOCK: Final = 0x61636C6D
"""Clé du verrou consultatif de migration (« aclm » en ASCII)."""


_BEGUN: Final = text("SELECT 1")
"""SQLAlchemy ne commence la transaction qu'à sa première instruction ; le pilote seul validerait les siennes."""

_PLACE: Final = select(
    func.current_database(),
    func.current_setting("port"),
    cast(func.extract("epoch", func.pg_postmaster_start_time()), Text),
)

_NAMESPACE: Final = text("SELECT to_regnamespace(quote_ident(:schema))::text")

_USAGE: Final = text("SELECT has_schema_privilege(:schema, 'USAGE')")

_IS_READ_ONLY: Final = text("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean")

_MISSING_RIGHTS: Final = text(
    "SELECT relname, string_agg(wanted, ', ' ORDER BY wanted) FROM pg_class"
    " JOIN pg_namespace AS mine ON mine.oid = relnamespace"
    " JOIN unnest(CAST(:tables AS text[]), CAST(:rights AS text[])) AS needed (name, wanted) ON name = relname"
    " WHERE mine.nspname = :schema AND relkind IN ('r', 'p', 'v')"
    " AND NOT has_table_privilege(pg_class.oid, wanted) GROUP BY relname ORDER BY relname"
)

_MISSING_SEQUENCE: Final = text(
    "SELECT sequence FROM pg_get_serial_sequence(quote_ident(:schema) || '.casbin_rule', 'id') AS sequence"
    " WHERE NOT has_sequence_privilege(sequence, 'UPDATE')"
)

_ACCOUNT: Final = text("SELECT quote_ident(current_user)")

_OURS: Final = text("SELECT to_regclass(quote_ident(:schema) || '.acl_revision')::text")

_STRANGERS: Final = text(
    "SELECT relname, pg_get_userbyid(relowner) FROM pg_class JOIN pg_namespace AS mine ON mine.oid = relnamespace"
    " WHERE mine.nspname = :schema AND relname::text = ANY(CAST(:tables AS text[]))"
    " AND NOT pg_has_role(relowner, 'USAGE') AND relowner <> mine.nspowner"
    " AND NOT (SELECT rolsuper FROM pg_roles WHERE oid = relowner)"
    " AND relowner <> (SELECT datdba FROM pg_database WHERE datname = current_database())"
)
"""Relations de nos noms, de quelque sorte qu'elles soient, que ni nous, ni le propriétaire de la base ou du schéma
n'avons faites."""

_OWNED: Final = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass($1)"

_LOCK_TIMEOUT: Final = text("SELECT set_config('lock_timeout', :wait, true)")

_ADVANCE: Final = text(
    "SELECT setval(sequence, greatest(nextval(sequence), :last))"
    " FROM (SELECT pg_get_serial_sequence(:table, 'id')::regclass AS sequence) AS known"
)


STALE: Final = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
"""Erreurs d'une instruction préparée sous un schéma qui a changé depuis."""


@asynccontextmanager
async def _driver(transaction: Transaction) -> AsyncIterator[asyncpg.Connection]:
    """Donne la connexion du pilote, transaction commencée, pour ce que SQLAlchemy ne sait pas demander."""
    await transaction.connection.execute(_BEGUN)
    connection = await (await transaction.connection.connection()).get_raw_connection()
    with naming(asyncpg.IntegrityConstraintViolationError):
        yield connection.driver_connection


async def _may_rebuild(driver: asyncpg.Connection, name: str) -> bool:
    """Réserve une table jusqu'à la fin de la transaction, si elle est à nous et que personne ne s'en sert."""
    if not await driver.fetchval(_OWNED, name):
        return False
    try:
        async with driver.transaction():  # un point de reprise : l'échec n'annule que lui
            await driver.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE NOWAIT")
    except asyncpg.LockNotAvailableError:
        return False
    return True


@final
class PostgreSQLDatabase(SQLDatabase):
    """PostgreSQL : connexions éprouvées avant usage, délais bornés, verrou de migration consultatif.

    Source : https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
    """

    def __init__(
        self, uri: str, *, auto_migrate: bool = True, pool: PoolSettings = DEFAULT_POOL, schema: str = "public"
    ) -> None:
        """Retient l'adresse ; voir `SQLDatabase`.

        Args:
            uri: adresse, telle que la configuration la donne.
            auto_migrate: met le schéma à jour au démarrage.
            pool: les connexions à garder.
            schema: schéma de PostgreSQL où sont nos tables.

        Raises:
            ConfigurationError: l'adresse a un paramètre que le pilote ne sait pas honorer.
        """
        super().__init__(uri, auto_migrate=auto_migrate, pool=pool)
        self._schema = schema
        self._translation: Final[SchemaTranslateMapType] = {None: schema}
        self._link = PostgreSQLLink(
            uri, lock_timeout_seconds=LOCK_TIMEOUT_SECONDS, connect_timeout=CONNECT_TIMEOUT_SECONDS
        )

    def create_engine(self, use: Use = Use.REQUESTS) -> AsyncEngine:
        """Fait un moteur et sa réserve."""
        engine = create_async_engine(
            f"{DIALECT}://",
            pool_pre_ping=True,
            hide_parameters=True,
            execution_options={TRANSLATED: self._translation},
            **self._pool_for(use),
            connect_args={"async_creator_fn": partial(self._link.open, patience_for(use, COMMAND_TIMEOUT_SECONDS))},
        )
        event.listen(engine.sync_engine, "do_connect", lambda *given: self._link.prepare(given[3]))
        event.listen(engine.sync_engine, "begin", self._link.begin)
        return engine

    async def answers(self) -> bool:
        """Dit si la base répond ; derrière un pooler, une file se tait comme une base muette : on n'en conclut rien."""
        return bool(self._link.is_pooled) or await super().answers()

    def cut(self, driver_connection: asyncpg.Connection) -> None:
        """Coupe net une connexion."""
        driver_connection.terminate()

    def abandon(self) -> None:
        """Oublie la réserve, et ce que l'on savait du chemin vers le serveur."""
        super().abandon()
        self._link.forget()

    def check_owners(self, connection: Connection) -> None:
        """Refuse des tables que quelqu'un d'autre aurait mises là où nous cherchons les nôtres.

        Raises:
            ConfigurationError: le schéma manque, ou une table n'est ni à nous, ni au propriétaire de la base ou du
                schéma.
        """
        wanted = {"schema": self._schema, "tables": [VERSION_TABLE, *metadata.tables]}
        strangers = connection.execute(_STRANGERS, wanted).all()
        if strangers:
            table, owner = strangers[0]
            message = (
                f"la table « {self._schema}.{table} » appartient à « {owner} », qui n’est ni ce compte, ni le "
                "propriétaire de la base ou du schéma : quelqu’un a pu la mettre à la place de la nôtre. Si c’est "
                "voulu, donnez-lui le schéma (ALTER SCHEMA … OWNER TO …) ; sinon, supprimez-la."
            )
            raise ConfigurationError(message)

    def prepare_schema(self, connection: Connection) -> None:
        """Vérifie que le schéma existe, et que nos tables ne sont pas restées dans un autre.

        Raises:
            ConfigurationError: il n'existe pas, nous est fermé, ou nos tables sont ailleurs.
        """
        if connection.scalar(_NAMESPACE, {"schema": self._schema}) is None:
            message = (
                f"le schéma « {self._schema} » (ACL_POSTGRESQL_SCHEMA) n’existe pas : faites-le par CREATE SCHEMA."
            )
            raise ConfigurationError(message)
        if not connection.scalar(_USAGE, {"schema": self._schema}):
            raise missing_rights(self.account(connection), self._missing(connection))
        elsewhere = self._link.found_schema
        if elsewhere not in {None, self._schema} and connection.scalar(_OURS, {"schema": self._schema}) is None:
            message = (
                f"des tables à nos noms sont dans le schéma « {elsewhere} », et aucune dans « {self._schema} » : si "
                f"elles sont à vous, réglez ACL_POSTGRESQL_SCHEMA={elsewhere} ; sinon, supprimez-les."
            )
            raise ConfigurationError(message)

    def try_rights(self, connection: Connection) -> None:
        """Demande au serveur les droits qui manquent, que rien n'essaie ici : une erreur annulerait la transaction.

        Raises:
            ConfigurationError: il en manque un, ou le serveur n'admet aucune écriture.
        """
        if connection.scalar(_IS_READ_ONLY):
            raise refuse_start(Refusal("en lecture seule", READ_ONLY))
        missing = self._missing(connection)
        if missing:
            raise missing_rights(self.account(connection), missing)
        for table in metadata.sorted_tables:  # les droits ne disent rien d'une colonne qui manque
            connection.execute(select(*table.c).where(false()))

    def _missing(self, connection: Connection) -> list[str]:
        """Renvoie tous les droits qui manquent, chacun comme « SELECT ON acl_users »."""
        needed = [(table, right) for table in metadata.tables for right in rights_on(table)]
        tables, rights = zip((VERSION_TABLE, "SELECT"), *needed, strict=True)
        wanted = {"schema": self._schema, "tables": list(tables), "rights": list(rights)}
        is_in = connection.scalar(_USAGE, {"schema": self._schema})
        missing = [] if is_in else [f"USAGE ON SCHEMA {quote_name(self._schema)}"]
        missing += (
            f"{rights} ON {quote_name(self._schema, table)}"
            for table, rights in connection.execute(_MISSING_RIGHTS, wanted)
        )
        sequence = connection.scalar(_MISSING_SEQUENCE, {"schema": self._schema}) if is_in else None
        return [*missing, f"USAGE, UPDATE ON SEQUENCE {sequence}"] if sequence else missing

    def account(self, connection: Connection) -> str:
        """Renvoie le nom du rôle."""
        return str(connection.scalar(_ACCOUNT))

    def migration_rights(self) -> str:
        """Dit ce qu'il faut pour créer et changer des tables."""
        return (
            f"{RIGHTS} ; créer une table demande « GRANT CREATE ON SCHEMA {quote_name(self._schema)} TO … », et en "
            "changer une d’en être propriétaire (« ALTER TABLE … OWNER TO … ») ; « fastapi-acl migrate » peut le faire "
            "sous un autre compte"
        )

    def place_query(self) -> Select[Any]:
        """Demande le nom de la base, le port du serveur et l'instant de son démarrage.

        L'adresse vue du serveur ne dirait pas mieux : elle change selon qu'on vient par une socket ou par le réseau, et
        deux conteneurs peuvent avoir la même.
        """
        return _PLACE

    async def advance_numbers(self, transaction: Transaction, table: Table, last: int) -> None:
        """Avance la séquence de la colonne `id`, que les numéros donnés par nous n'avancent pas."""
        await transaction.connection.execute(_ADVANCE, {"table": self._qualify(table), "last": last})

    async def packets(self, transaction: Transaction, query: Select[Any], size: int) -> AsyncGenerator[Sequence[Any]]:
        """Lit par un cursor du pilote, dont les lignes coûtent le tiers de celles de SQLAlchemy."""
        try:
            async with _driver(transaction) as driver:
                cursor = await driver.cursor(*self._compile(query))
                while packet := await cursor.fetch(size, timeout=COMMAND_TIMEOUT_SECONDS):
                    yield packet
        except STALE:
            await (
                transaction.connection.invalidate()
            )  # le pilote garderait l'instruction périmée, et elle échouerait sans fin
            raise

    async def bulk_insert(self, transaction: Transaction, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insère par COPY, le plus rapide de PostgreSQL, dès qu'il y a de quoi."""
        if len(rows) < COPY_FROM:
            await super().bulk_insert(transaction, table, rows)
            return
        names = list(rows[0])
        records = [tuple(row[name] for name in names) for row in rows]
        async with _driver(transaction) as driver:
            await driver.copy_records_to_table(table.name, schema_name=self._schema, records=records, columns=names)

    async def bulk_copy(self, transaction: Transaction, table: Table, names: Sequence[str], source: Select[Any]) -> int:
        """Copie en masse ; refaire un index unique coûte alors moins que d'y insérer chaque ligne.

        Un lecteur de la table l'interdit, et tout se fait sinon par l'insertion ordinaire.
        """
        async with _driver(transaction) as driver:
            # Le planificateur qui croit la table vide la relirait pour chaque ligne qu'il y met.
            await driver.execute("SET LOCAL enable_nestloop = off")
            unique = await self._unique_to_rebuild(driver, table, source)
            for name in unique:
                await driver.execute(f'ALTER TABLE {self._qualify(table)} DROP CONSTRAINT "{name}"')
            added = await super().bulk_copy(transaction, table, names, source)
            for name, columns in unique.items():
                rebuilt = f'ALTER TABLE {self._qualify(table)} ADD CONSTRAINT "{name}" UNIQUE ({columns})'
                await driver.execute(rebuilt, timeout=BULK_TIMEOUT_SECONDS)
            await driver.execute("SET LOCAL enable_nestloop = on")
        return added

    async def bulk_execute(self, transaction: Transaction, statement: Executable) -> int:
        """Exécute une instruction en masse par le pilote, qui seul sait lui laisser plus de temps."""
        async with _driver(transaction) as driver:
            done: str = await driver.execute(*self._compile(statement), timeout=BULK_TIMEOUT_SECONDS)
        return int(done.rpartition(" ")[2])

    async def _unique_to_rebuild(self, driver: asyncpg.Connection, table: Table, source: Select[Any]) -> dict[str, str]:
        """Renvoie les contraintes d'unicité à refaire : aucune pour peu de lignes, ou si la table est lue."""
        size, present = [
            await driver.fetchval(*self._compile(select(func.count()).select_from(counted)))
            for counted in (source.order_by(None).subquery(), table)
        ]
        if size < max(REBUILD_FROM, present) or not await _may_rebuild(driver, self._qualify(table)):
            return {}
        uniques = (found for found in table.constraints if isinstance(found, UniqueConstraint))
        return {str(found.name): ", ".join(column.name for column in found.columns) for found in uniques}

    def _qualify(self, table: Table) -> str:
        """Écrit le nom d'une table, schéma compris, pour une instruction que SQLAlchemy ne fait pas."""
        return quote_name(self._schema, table.name)

    def _compile(self, statement: Any) -> list[Any]:  # noqa: ANN401 - une instruction SQLAlchemy
        """Renvoie le texte d'une instruction et ses paramètres, tels que le pilote les veut."""
        compiled: Any = statement.compile(
            dialect=postgresql.asyncpg.dialect(),  # type: ignore[no-untyped-call]
            schema_translate_map=self._translation,
            render_schema_translate=True,
        )
        return [str(compiled), *(compiled.params[name] for name in compiled.positiontup or ())]

    def connect_errors(self) -> tuple[type[Exception], ...]:
        """Refus du serveur à l'ouverture : arrêt, démarrage en cours, mot de passe, base absente."""
        return (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

    def is_stale(self, error: Exception) -> bool:
        """Reconnaît un plan gardé, ou un schéma lu, d'avant que des colonnes changent ; SQLAlchemy l'a alors oublié."""
        return is_caused_by(error, STALE)

    def take_migration_lock(self, connection: Connection) -> None:
        """Attend le verrou consultatif, rendu à la fin de la transaction ; les verrous de tables s'attendent moins.

        Raises:
            DatabaseUnavailableError: une autre réplique le tient encore.
        """
        self.prepare_schema(connection)
        key = {"key": MIGRATION_LOCK}
        if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), key):
            tell_migration_awaited(MIGRATION_TIMEOUT_SECONDS)
            connection.execute(_LOCK_TIMEOUT, {"wait": f"{MIGRATION_TIMEOUT_SECONDS * 1_000:.0f}ms"})
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), key)
        connection.execute(_LOCK_TIMEOUT, {"wait": f"{COMMAND_TIMEOUT_SECONDS * 1_000:.0f}ms"})

    def snapshot_options(self) -> Mapping[str, Any]:
        """Demande un instant unique pour toute la lecture."""
        return {"isolation_level": "REPEATABLE READ"}
