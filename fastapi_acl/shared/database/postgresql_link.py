"""Les connexions à PostgreSQL : l'adresse de libpq, le chemin de recherche épinglé, et ce que demande un pooler.

Un pooler qui prête une connexion le temps d'une transaction (PgBouncer) refuse les réglages de session, et fait lire
à l'un les instructions préparées d'un autre. Derrière lui, rien n'est préparé d'une transaction à l'autre, et les
réglages se posent au début de chacune.

Source : https://www.pgbouncer.org/features.html
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, final
from uuid import uuid4

import asyncpg
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.util import await_only

from fastapi_acl.shared.database.postgresql_address import UNREAD, read_address
from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.logging import one_line

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

PING_SECONDS: Final = 0.5
"""Temps laissé à une connexion gardée pour dire qu'elle vit ; au-delà, on en ouvre une autre."""

CACHE_SIZE: Final = 100
"""Instructions préparées gardées par connexion, sans pooler."""

FOUND: Final = (
    "SELECT relnamespace::pg_catalog.regnamespace::pg_catalog.text FROM pg_catalog.pg_class"
    " WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('acl_revision')"
)
"""Schéma où nos tables se trouveraient sous le nom de ce compte ; tout y est qualifié, puisque rien n'est épinglé."""

SEARCH_PATH: Final = "pg_catalog, pg_temp"
"""Chemin de recherche de toute connexion ; nos tables, elles, sont toujours nommées avec leur schéma.

À types égaux, un opérateur ou une fonction faits dans un schéma du chemin l'emporteraient sur ceux du serveur, et
s'exécuteraient avec nos droits. Source : https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATTERNS
"""

TRANSACTION: Final = (
    "SELECT pg_catalog.set_config('search_path', $1, true), pg_catalog.set_config('lock_timeout', $2, true)"
)
"""Pose les réglages d'une session pour une transaction seule."""


class PostgreSQLDialect(PGDialect_asyncpg):
    """Le dialecte de SQLAlchemy, moins ce qui prépare une instruction hors d'une transaction."""

    supports_statement_cache = True

    async def setup_asyncpg_json_codec(self, conn: object) -> None:
        """Ne fait rien : nos tables n'ont pas de JSON, et y préparer le type interrogerait le serveur."""

    async def setup_asyncpg_jsonb_codec(self, conn: object) -> None:
        """Ne fait rien, pour la même raison."""

    def do_ping(self, dbapi_connection: Any) -> bool:  # noqa: ANN401 - la connexion adaptée par SQLAlchemy
        """Éprouve une connexion par le protocole simple, et n'attend pas une base muette."""
        try:
            await_only(dbapi_connection.driver_connection.execute("SELECT 1", timeout=PING_SECONDS))
        except Exception as error:
            dbapi_connection.driver_connection.terminate()
            message = "connection is closed"
            raise self.loaded_dbapi.InterfaceError(message) from error
        return True


DIALECT: Final = "postgresql+fastapi_acl"
registry.register("postgresql.fastapi_acl", __name__, PostgreSQLDialect.__name__)


@final
class PostgreSQLLink:
    """Ouvre des connexions, et sait si un pooler est entre nous et le serveur."""

    def __init__(self, uri: str, *, connect_timeout: float, lock_timeout_seconds: int = 0) -> None:
        """Lit l'adresse.

        Args:
            uri: adresse, telle que la configuration la donne.
            connect_timeout: temps laissé à l'ouverture, si l'adresse n'en donne pas.
            lock_timeout_seconds: attente d'un verrou ; zéro, sans fin.

        Raises:
            ConfigurationError: elle a un paramètre que le pilote ne sait pas honorer.
        """
        address, given = read_address(uri)
        self.dsn = address
        self.connect_timeout = given.get("connect_timeout") or connect_timeout
        self.is_pooled: bool | None = None
        self.found_schema: str | None = None
        self._cache_size = given.get("statement_cache_size", CACHE_SIZE)
        self._looking: asyncio.Task[None] | None = None
        self._lock_timeout = f"{lock_timeout_seconds}s"

    async def open(self, command_timeout: float) -> asyncpg.Connection:
        """Ouvre une connexion, réglages de session posés s'ils peuvent l'être."""
        settings = {} if self.is_pooled else {"search_path": SEARCH_PATH, "lock_timeout": self._lock_timeout}
        cache_size = 0 if self.is_pooled else self._cache_size
        return await self.connect(command_timeout, server_settings=settings, statement_cache_size=cache_size)

    async def connect(self, command_timeout: float, **settings: Any) -> asyncpg.Connection:  # noqa: ANN401 - d'asyncpg
        """Ouvre une connexion.

        Raises:
            ConfigurationError: le pilote ne lit pas l'adresse ; son erreur, qui peut citer le mot de passe, est tue.
        """
        try:
            return await asyncpg.connect(
                self.dsn, timeout=self.connect_timeout, command_timeout=command_timeout, **settings
            )
        except OSError:  # un certificat refusé est aussi une ValueError
            raise
        except (ValueError, OverflowError) as error:
            raise ConfigurationError(_unread(error)) from None

    def prepare(self, parameters: dict[str, Any]) -> None:
        """Règle ce que SQLAlchemy prépare sur une connexion à venir ; cherche d'abord s'il y a un pooler."""
        if self.is_pooled is None:
            await_only(self._look_around_once())
        parameters["prepared_statement_name_func"] = _unique_name
        parameters["prepared_statement_cache_size"] = 0 if self.is_pooled else self._cache_size

    def begin(self, connection: Connection) -> None:
        """Pose, au début d'une transaction que porte un pooler, les réglages qu'une session aurait gardés."""
        if self.is_pooled:
            connection.exec_driver_sql(TRANSACTION, (SEARCH_PATH, self._lock_timeout))

    def forget(self) -> None:
        """Oublie s'il y a un pooler : la prochaine connexion le cherchera."""
        self.is_pooled, self._looking = None, None

    async def _look_around_once(self) -> None:
        """Regarde une fois pour toutes les ouvertures qui attendent ; un échec est celui de chacune, et s'oublie."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_around())
            self._looking.add_done_callback(self._end_look)
        await asyncio.shield(self._looking)

    def _end_look(self, task: asyncio.Task[None]) -> None:
        """Laisse regarder à nouveau ; une erreur est lue, même si plus personne ne l'attend."""
        if self._looking is task:
            self._looking = None
        if not task.cancelled():
            task.exception()

    async def _look_around(self) -> None:
        """Voit, sans rien épingler, où sont nos tables, et si un pooler répond à la place du serveur.

        Un pooler ne donne pas, à l'ouverture, le numéro du processus qui servira.
        """
        connection = await self.connect(self.connect_timeout, statement_cache_size=0)
        try:
            async with connection.transaction():
                serving = await connection.fetchval("SELECT pg_catalog.pg_backend_pid()")
                self.found_schema = await connection.fetchval(FOUND)
            self.is_pooled = serving != connection.get_server_pid()
        finally:
            connection.terminate()


def _unread(error: Exception) -> str:
    """Dit ce que le pilote ne lit pas : un paramètre ou un fichier, qu'il nomme, ou l'adresse, qu'il citerait."""
    words = one_line(error)
    if not isinstance(error, asyncpg.ClientConfigurationError) or words.startswith("invalid"):
        return UNREAD
    return f"l’adresse de la base (ACL_POSTGRESQL_URI) ne convient pas au pilote : {words.rstrip('.')}."


def quote_name(*names: str) -> str:
    """Écrit un nom, précédé de ceux qui le qualifient."""
    return ".".join('"{}"'.format(name.replace('"', '""')) for name in names)


def _unique_name() -> str:
    """Nomme une instruction préparée comme nulle autre, de ce processus ou d'un autre."""
    return f"acl_{uuid4().hex}"
