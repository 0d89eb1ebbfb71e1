"""PostgreSQL par asyncpg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from fastapi_acl.shared.database.sql import CONNECT_TIMEOUT_SECONDS, SQLDatabase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Connection

COMMAND_TIMEOUT_SECONDS: Final = 10.0
"""Temps laissé à une commande ; sans lui, une base figée retient la requête sans fin."""

MIGRATION_LOCK: Final = 0x61636C6D
"""Clé du verrou consultatif de migration (« aclm » en ASCII)."""


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
            connect_args=arguments,
        )

    def connect_errors(self) -> tuple[type[Exception], ...]:
        """Refus du serveur à l'ouverture : arrêt, démarrage en cours, mot de passe, base absente."""
        return (asyncpg.PostgresError, asyncpg.InterfaceError)

    def take_migration_lock(self, connection: Connection) -> None:
        """Attend le verrou consultatif, rendu à la fin de la transaction."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})

    def snapshot_options(self) -> Mapping[str, Any]:
        """Demande un instant unique pour toute la lecture."""
        return {"isolation_level": "REPEATABLE READ"}
