"""De quoi donner à chaque essai une base à lui : vide, ou copiée d'un modèle dont notre schéma est fait."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import uuid4

import aiomysql
import asyncpg
from pymongo import AsyncMongoClient

from fastapi_acl import ACLConfig
from fastapi_acl.shared.database.factory import DatabaseFactory

NEW_LOG: Final = "UPDATE acl_revision SET log_id = '{}'"
"""Une copie est une autre base : son journal n'est pas celui du modèle."""


def addressed(admin: str, name: str) -> str:
    """Rend l'adresse d'une autre base du même serveur, options comprises."""
    return urlunsplit(urlsplit(admin)._replace(path=f"/{name}"))


def new_name() -> str:
    return f"acl_{uuid4().hex}"


class Bases(ABC):
    """Fait des bases sur un serveur, et les retire.

    Attributes:
        kind: la sorte de base, telle que la configuration la nomme.
        admin: adresse du serveur.
    """

    kind: ClassVar[str]

    def __init__(self, admin: str = "") -> None:
        self.admin = admin

    @abstractmethod
    def empty(self) -> AbstractAsyncContextManager[str]:
        """Fait une base vide."""

    @abstractmethod
    def migrated(self) -> AbstractAsyncContextManager[str]:
        """Fait une base dont le schéma est à jour et où rien n'est écrit ; le modèle est fait."""

    async def make_template(self) -> None:  # noqa: B027 - MongoDB n'en a pas
        """Fait le modèle, une fois pour toutes les copies."""

    async def drop_template(self) -> None:  # noqa: B027 - un fichier et une suite d'instructions ne restent pas
        """Retire le modèle."""

    async def _migrate(self, uri: str) -> None:
        """Fait notre schéma comme un démarrage le fait."""
        settings: dict[str, Any] = {"database_type": self.kind, f"{self.kind}_uri": uri}
        database = DatabaseFactory(ACLConfig(_env_file=None, **settings)).create_sql()
        await database.migrate()
        await database.close()


class SQLiteBases(Bases):
    """Des fichiers ; le modèle en est un."""

    kind = "sqlite"
    _template: bytes

    async def make_template(self) -> None:
        async with self.empty() as uri:
            await self._migrate(uri)
            self._template = self._file(uri).read_bytes()

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/acl.db"

    @asynccontextmanager
    async def migrated(self) -> AsyncIterator[str]:
        async with self.empty() as uri:
            self.copy_to(self._file(uri))
            yield uri

    def copy_to(self, file: Path) -> None:
        """Copie le modèle dans un fichier, que son propriétaire seul peut lire."""
        file.touch(mode=0o600)
        file.write_bytes(self._template)
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute(NEW_LOG.format(uuid4()))

    @staticmethod
    def _file(uri: str) -> Path:
        return Path(uri.removeprefix("sqlite:///"))


class PostgreSQLBases(Bases):
    """Des bases d'un PostgreSQL, qui sait en copier une."""

    kind = "postgresql"

    async def make_template(self) -> None:
        self._template = new_name()
        async with self._connected() as connection:
            await connection.execute(f'CREATE DATABASE "{self._template}"')
        await self._migrate(addressed(self.admin, self._template))

    async def drop_template(self) -> None:
        async with self._connected() as connection:
            await self._drop(connection, self._template)

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[str]:
        async with self._made("") as uri:
            yield uri

    @asynccontextmanager
    async def migrated(self) -> AsyncIterator[str]:
        async with self._made(f'TEMPLATE "{self._template}"') as uri:
            connection = await asyncpg.connect(uri)
            await connection.execute(NEW_LOG.format(uuid4()))
            await connection.close()
            yield uri

    @asynccontextmanager
    async def _made(self, options: str) -> AsyncIterator[str]:
        name = new_name()
        async with self._connected() as connection:
            await connection.execute(f'CREATE DATABASE "{name}" {options}')
            yield addressed(self.admin, name)
            await self._drop(connection, name)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.admin)
        try:
            yield connection
        finally:
            await connection.close()

    @staticmethod
    async def _drop(connection: Any, name: str) -> None:
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


class MySQLBases(Bases):
    """Des bases d'un MySQL ou d'un MariaDB ; le modèle est la suite d'instructions qui le refait."""

    kind = "mysql"

    async def make_template(self) -> None:
        async with self._connected() as cursor, self._made(cursor) as uri:
            await self._migrate(uri)
            self._template = await self._statements(cursor)

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[str]:
        async with self._connected() as cursor, self._made(cursor) as uri:
            yield uri

    @asynccontextmanager
    async def migrated(self) -> AsyncIterator[str]:
        async with self._connected() as cursor, self._made(cursor) as uri:
            await cursor.execute("SET foreign_key_checks = 0")  # une table peut en nommer une qui vient après
            for statement, values in self._template:
                await cursor.execute(statement, values)
            await cursor.execute(NEW_LOG.format(uuid4()))
            yield uri

    @asynccontextmanager
    async def _made(self, cursor: Any) -> AsyncIterator[str]:
        """Fait une base, dont le curseur se sert désormais."""
        name = new_name()
        await cursor.execute(f"CREATE DATABASE `{name}`")
        await cursor.execute(f"USE `{name}`")
        yield addressed(self.admin, name)
        await cursor.execute(f"DROP DATABASE `{name}`")

    @staticmethod
    async def _statements(cursor: Any) -> list[tuple[str, tuple[Any, ...] | None]]:
        """Rend de quoi refaire les tables de la base courante, et leurs lignes."""
        await cursor.execute("SHOW TABLES")
        names = [name for (name,) in await cursor.fetchall()]
        made: list[tuple[str, tuple[Any, ...] | None]] = []
        for name in names:
            await cursor.execute(f"SHOW CREATE TABLE `{name}`")
            made.append(((await cursor.fetchone())[1], None))
            await cursor.execute(f"SELECT * FROM `{name}`")  # noqa: S608 - un nom de table à nous
            for row in await cursor.fetchall():
                places = ", ".join(["%s"] * len(row))
                made.append((f"INSERT INTO `{name}` VALUES ({places})", row))  # noqa: S608 - idem
        return made

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        url = urlsplit(self.admin)
        connection = await aiomysql.connect(
            host=url.hostname,
            port=url.port or 3306,
            user=url.username,
            password=unquote(url.password or ""),
            autocommit=True,
        )
        try:
            yield await connection.cursor()
        finally:
            connection.close()


class MongoDBBases(Bases):
    """Des bases d'un MongoDB ; son schéma n'est que quelques index, qu'un démarrage fait aussi vite qu'une copie."""

    kind = "mongodb"

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[str]:
        name = new_name()
        yield addressed(self.admin, name)
        async with AsyncMongoClient(self.admin) as client:
            await client.drop_database(name)

    def migrated(self) -> AbstractAsyncContextManager[str]:
        return self.empty()


BASES: Final = {kind.kind: kind for kind in (SQLiteBases, PostgreSQLBases, MySQLBases, MongoDBBases)}


def with_template(bases: Bases) -> Iterator[Bases]:
    """Donne de quoi faire des bases le temps d'une fixture de session, modèle compris."""
    _run_apart(bases.make_template())
    yield bases
    _run_apart(bases.drop_template())


def _run_apart(work: Coroutine[Any, Any, None]) -> None:
    """Exécute une coroutine dans une boucle à elle, sans toucher à celle de l'essai."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
