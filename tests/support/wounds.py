"""Ce qu'une main étrangère abîme dans une base, contraintes levées s'il le faut."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from fastapi_acl.runtime.storage import Storage
from fastapi_acl.shared.database.mongodb import MongoDatabase
from fastapi_acl.shared.database.sql import SQLDatabase
from fastapi_acl.shared.exceptions import ACLException
from tests.support.byhand import unpin

KEYS = {"acl_changes": "revision", "acl_batch_rules": "number"}
"""Colonne qui ordonne une table ; `id` dans les autres."""


@dataclass(frozen=True)
class Wound:
    """Une valeur, mise de force dans une colonne ; `last` : dans la dernière ligne seule."""

    table: str
    column: str
    value: Any
    last: bool = True

    def __str__(self) -> str:
        return f"{self.table}.{self.column}={str(self.value)[:24]!r}"

    @property
    def key(self) -> str:
        return KEYS.get(self.table, "id")

    async def inflict(self, storage: Storage) -> None:
        database = storage.database
        if isinstance(database, MongoDatabase):
            return await self._in_mongodb(database)
        assert isinstance(database, SQLDatabase)
        kind = type(database).__name__.removesuffix("Database").lower()
        if kind == "sqlite":
            return self._in_sqlite(make_url(database._uri).database)
        try:
            await self._in_sql(database, [])
        except (DBAPIError, ACLException):
            await self._in_sql(database, RELAXED[kind])
        return None

    async def _in_mongodb(self, database: MongoDatabase) -> None:
        collection = database.collection(self.table)
        key = "_id" if self.table != "acl_batch_rules" else "number"
        name = {"id": "_id", "revision": "_id" if self.table == "acl_changes" else "revision"}.get(
            self.column, self.column
        )
        found = [one async for one in collection.find({}).sort(key, -1)]
        for one in found[: 1 if self.last else None]:
            changed = {**one, name: self.value}
            if self.value == ABSENT:
                del changed[name]
            await collection.delete_one({"_id": one["_id"]})
            await collection.insert_one(changed)

    def _in_sqlite(self, path: str | None) -> None:
        assert path is not None
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(
                "UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = ? AND type = 'table'",
                [self.table],
            )
            connection.commit()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            connection.execute(self._update("?"), [self._given])
            connection.commit()

    async def _in_sql(self, database: SQLDatabase, relaxed: list[str]) -> None:
        async with database.engine.begin() as connection:
            await unpin(connection)
            for statement in relaxed:
                await connection.exec_driver_sql(statement.format(table=self.table, column=self.column))
            await connection.exec_driver_sql(self._update(_literal(self._given)))

    @property
    def _given(self) -> Any:
        return None if self.value == ABSENT else self.value

    def _update(self, place: str) -> str:
        last = f"(SELECT m FROM (SELECT max({self.key}) AS m FROM {self.table}) AS t)"  # noqa: S608 - des noms à nous
        where = f" WHERE {self.key} = {last}" if self.last else ""
        return f"UPDATE {self.table} SET {self.column} = {place}{where}"  # noqa: S608 - idem


def _literal(value: Any) -> str:
    """Écrit une valeur en SQL : un pilote refuserait ce qui n'est pas du type de la colonne."""
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


ABSENT = "∅"
"""Une valeur qui manque : NULL, ou un champ que le document n'a pas."""

RELAXED = {
    "postgresql": [
        "ALTER TABLE acl_sessions DROP CONSTRAINT IF EXISTS fk_acl_sessions_user_id",
        "ALTER TABLE acl_revision DROP CONSTRAINT IF EXISTS ck_acl_revision_single_row",
        "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS pk_{table}",
        "ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT",
        "ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL",
        "ALTER TABLE {table} ALTER COLUMN {column} TYPE text USING {column}::text",
    ],
    "mysql": [
        "ALTER TABLE acl_sessions DROP FOREIGN KEY IF EXISTS fk_acl_sessions_user_id",
        "ALTER TABLE acl_revision DROP CONSTRAINT IF EXISTS ck_acl_revision_single_row",
        "ALTER TABLE {table} MODIFY {column} VARCHAR(400) NULL",
    ],
}


@dataclass(frozen=True)
class Lost:
    """La dernière ligne d'une table, retirée."""

    table: str

    async def inflict(self, storage: Storage) -> None:
        key = KEYS.get(self.table, "id")
        if isinstance(storage.database, MongoDatabase):
            await storage.database.collection(self.table).find_one_and_delete({}, sort=[(key, -1)])
            return
        assert isinstance(storage.database, SQLDatabase)
        last = f"(SELECT m FROM (SELECT max({key}) AS m FROM {self.table}) AS t)"  # noqa: S608 - des noms à nous
        async with storage.database.session() as session:
            await unpin(session)
            await session.execute(text(f"DELETE FROM {self.table} WHERE {key} = {last}"))  # noqa: S608 - idem
