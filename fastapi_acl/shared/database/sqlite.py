"""SQLite : la base embarquée, sans serveur, qui sert par défaut."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import weakref
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final
from uuid import uuid4

from sqlalchemy import event, literal, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, Pool

from fastapi_acl.shared.database.sql import DEFAULT_POOL, PoolSettings, SQLDatabase, Use
from fastapi_acl.shared.database.sqlite_files import find_file, make_private
from fastapi_acl.shared.database.tables import VERSION_TABLE
from fastapi_acl.shared.database.versions import refuse_without_schema
from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Select
    from sqlalchemy.engine import URL, Connection

    from fastapi_acl.shared.database.base import Transaction

BUSY_TIMEOUT_MS: Final = 5_000
"""Temps, en millisecondes, pendant lequel un écrivain attend le verrou d'un autre processus."""

WRITE_OPTION: Final = "fastapi_acl_write"


@final
class SQLiteDatabase(SQLDatabase):
    """SQLite en WAL, avec `BEGIN IMMEDIATE` pour qui écrit.

    Un début différé laisse deux écrivains lire le même état puis s'écraser ; le début immédiat les ordonne.
    Source : https://www.sqlite.org/lang_transaction.html
    """

    has_look_engine = False

    def __init__(self, uri: str, *, auto_migrate: bool = True, pool: PoolSettings = DEFAULT_POOL) -> None:
        """Retient l'adresse ; voir `SQLDatabase`."""
        super().__init__(uri, auto_migrate=auto_migrate, pool=pool)
        self._private_name = self._place = str(uuid4())
        self._anchor: sqlite3.Connection | None = None

    def create_engine(self, use: Use = Use.REQUESTS) -> AsyncEngine:  # noqa: ARG002 - un fichier n'a pas de réserve
        """Fait le moteur ; une connexion par session pour un fichier, une seule, partagée, en mémoire."""
        _quiet_driver()
        url = self._address().set(drivername="sqlite+aiosqlite")
        _check_folder(url)
        make_private(url.database, url.query)
        engine = create_async_engine(url, hide_parameters=True, **_pool(url))
        event.listen(engine.sync_engine, "connect", _prepare_connection)
        event.listen(engine.sync_engine, "begin", _begin)
        event.listen(engine.sync_engine, "invalidate", _release_lock)
        return engine

    def _address(self) -> URL:
        """Renvoie l'adresse à ouvrir ; une base en mémoire a un nom, et une ancre qui la garde d'une boucle à l'autre.

        Source: https://www.sqlite.org/inmemorydb.html
        """
        url = make_url(self._uri)
        if url.query or find_file(url.database, url.query) is not None:
            return url
        name = f"file:fastapi_acl_{self._private_name}"
        if self._anchor is None:
            self._anchor = sqlite3.connect(f"{name}?mode=memory&cache=shared", uri=True, check_same_thread=False)
            _ = weakref.finalize(self, self._anchor.close)
        return url.set(database=name, query={"mode": "memory", "cache": "shared", "uri": "true"})

    async def close(self) -> None:
        """Ferme les connexions, et l'ancre : une base en mémoire disparaît alors."""
        await super().close()
        anchor, self._anchor = self._anchor, None
        if anchor is not None:
            anchor.close()

    def place_query(self) -> Select[Any]:
        """Nomme la base comme on vient de la trouver."""
        return select(literal(self._place))

    async def read_place(self, transaction: Transaction) -> str:
        """Cherche d'abord le fichier, hors de la boucle d'événements."""
        self._place = await asyncio.to_thread(self._find_place)
        return await super().read_place(transaction)

    def _find_place(self) -> str:
        """Renvoie le chemin réel du fichier ; une base en mémoire n'est qu'à ce manager."""
        url = make_url(self._uri)
        file = find_file(url.database, url.query)
        return self._private_name if file is None else str(file.resolve())

    async def check_schema(self) -> None:
        """Vérifie d'abord le fichier, que la première connexion créerait."""
        await asyncio.to_thread(_check_file, make_url(self._uri))
        await super().check_schema()

    def take_migration_lock(self, connection: Connection) -> None:
        """Ne fait rien : `BEGIN IMMEDIATE` est déjà le verrou."""

    def write_options(self) -> Mapping[str, Any]:
        """Demande le début immédiat."""
        return {WRITE_OPTION: True}


def _quiet_driver() -> None:
    """Tait le journal du pilote, qui écrit chaque paramètre en DEBUG, hachés compris ; un niveau déjà choisi reste."""
    driver = logging.getLogger("aiosqlite")
    if driver.level == logging.NOTSET:
        driver.setLevel(logging.INFO)


def _check_folder(url: URL) -> None:
    """Vérifie le dossier du fichier, que SQLite ne nommerait pas (« unable to open database file »).

    Raises:
        FileNotFoundError: il n'existe pas.
    """
    folder = (find_file(url.database, url.query) or Path()).parent
    if not folder.is_dir():
        message = f"le dossier « {folder} » n’existe pas : créez-le, ou changez ACL_SQLITE_URI"
        raise FileNotFoundError(message)


def _check_file(url: URL) -> None:
    """Vérifie que le fichier est une base qui porte notre schéma, en l'ouvrant en lecture seule.

    Nos connexions, elles, feraient le fichier, ou mettraient en WAL celui d'une autre application.

    Raises:
        ConfigurationError: il n'existe pas, n'est pas une base SQLite, ou n'a pas nos tables.
    """
    if "uri" in url.query:  # l'adresse dit elle-même comment le fichier s'ouvre
        return
    if url.database in {None, "", ":memory:"}:
        message = "la base SQLite est en mémoire : il n’y a rien à y lire d’ici ; donnez un fichier à ACL_SQLITE_URI."
        raise ConfigurationError(message)
    path = Path(url.database or "").resolve()
    if not path.is_file():
        message = (
            f"la base « {path} » n’existe pas, et une lecture n’en crée pas : vérifiez ACL_SQLITE_URI et le dossier "
            "courant, ou créez-la par « fastapi-acl migrate »."
        )
        raise ConfigurationError(message)
    if not _has_our_tables(path):
        refuse_without_schema()


def _has_our_tables(path: Path) -> bool:
    """Dit si un fichier a notre table de version, sans rien y écrire.

    Raises:
        ConfigurationError: ce n'est pas une base SQLite.
    """
    question = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            return bool(connection.execute(question, [VERSION_TABLE]).fetchone()[0])
    except sqlite3.DatabaseError as error:
        message = f"« {path} » ne s’ouvre pas comme une base SQLite ({error}) : vérifiez ACL_SQLITE_URI."
        raise ConfigurationError(message) from error


def _pool(url: URL) -> dict[str, Any]:
    """Choisit la réserve : une base en mémoire n'existe que dans sa connexion."""
    pool: type[Pool] = NullPool
    if find_file(url.database, url.query) is None:
        return {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0, "pool_recycle": -1}
    return {"poolclass": pool}


def _prepare_connection(connection: Any, _record: object) -> None:  # noqa: ANN401 - connexion DBAPI adaptée
    """Renvoie le début des transactions à SQLAlchemy et règle la connexion."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    """Commence en écriture ou en lecture selon l'option de la transaction."""
    writes = connection.get_execution_options().get(WRITE_OPTION, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _release_lock(connection: Any, _record: object, _error: BaseException | None) -> None:  # noqa: ANN401 - idem
    """Annule la transaction d'une connexion qu'une annulation de tâche fait fermer.

    SQLite garde son verrou d'écriture tant qu'une lecture inachevée de la connexion fermée est encore référencée.
    """
    connection.rollback()
