"""PostgreSQL par asyncpg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import asyncpg
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from fastapi_acl.shared.database.sql import CONNECT_TIMEOUT_SECONDS, LOCK_TIMEOUT_SECONDS, SQLDatabase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Table
    from sqlalchemy.engine import Connection

    from fastapi_acl.shared.database.base import Transaction

COMMAND_TIMEOUT_SECONDS: Final = 10.0
"""Temps laissé à une commande ; sans lui, une base figée retient la requête sans fin."""

COPY_FROM: Final = 100
"""Nombre de lignes à partir duquel COPY l'emporte sur INSERT."""

MIGRATION_LOCK: Final = 0x61636C6D
"""Clé du verrou consultatif de migration (« aclm » en ASCII)."""


_ADVANCE: Final = text(
    "SELECT setval(sequence, greatest(nextval(sequence), :last))"
    " FROM (SELECT pg_get_serial_sequence(:table, 'id')::regclass AS sequence) AS known"
)


@final
class PostgreSQLDatabase(SQLDatabase):
    """PostgreSQL : connexions éprouvées avant usage, délais bornés, verrou de migration consultatif.

    Source : https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
    """

    def create_engine(self) -> AsyncEngine:
        """Fait le moteur et sa réserve."""
        url = make_url(self._uri)
        arguments: dict[str, Any] = {"timeout": CONNECT_TIMEOUT_SECONDS, "command_timeout": COMMAND_TIMEOUT_SECONDS}
        if "sslmode" in url.query:  # le nom de libpq ; asyncpg l'appelle ssl
            arguments["ssl"] = url.query["sslmode"]
        return create_async_engine(
            url.set(drivername="postgresql+asyncpg").difference_update_query(["sslmode"]),
            pool_pre_ping=True,
            pool_timeout=CONNECT_TIMEOUT_SECONDS,
            hide_parameters=True,
            connect_args={**arguments, "server_settings": {"lock_timeout": str(LOCK_TIMEOUT_SECONDS * 1_000)}},
        )

    def insert_or_ignore(self, table: Table) -> Insert:
        """Rend une insertion qui laisse telles quelles les lignes déjà là."""
        return insert(table).on_conflict_do_nothing()

    async def advance_numbers(self, transaction: Transaction, table: Table, last: int) -> None:
        """Avance la séquence de la colonne `id`, que les numéros donnés par nous n'avancent pas."""
        await transaction.connection.execute(_ADVANCE, {"table": table.name, "last": last})

    async def bulk_insert(self, transaction: Transaction, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insère par COPY, le plus rapide de PostgreSQL, dès qu'il y a de quoi."""
        if len(rows) < COPY_FROM:
            await super().bulk_insert(transaction, table, rows)
            return
        names = list(rows[0])
        connection = await (await transaction.connection.connection()).get_raw_connection()
        driver = connection.driver_connection
        records = [tuple(row[name] for name in names) for row in rows]
        await driver.copy_records_to_table(table.name, records=records, columns=names)

    def connect_errors(self) -> tuple[type[Exception], ...]:
        """Refus du serveur à l'ouverture : arrêt, démarrage en cours, mot de passe, base absente."""
        return (asyncpg.PostgresError, asyncpg.InterfaceError)

    def take_migration_lock(self, connection: Connection) -> None:
        """Attend le verrou consultatif, rendu à la fin de la transaction."""
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})

    def snapshot_options(self) -> Mapping[str, Any]:
        """Demande un instant unique pour toute la lecture."""
        return {"isolation_level": "REPEATABLE READ"}
