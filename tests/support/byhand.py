"""Ce qu'une main étrangère fait dans la base, quelle qu'elle soit : sans la bibliothèque, sans le journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from fastapi_acl.auth.infrastructure.models.auth_models import SQLSessionModel
from fastapi_acl.engine.adapters.base import COLUMNS
from fastapi_acl.engine.adapters.sql import CasbinRuleModel
from fastapi_acl.runtime.storage import Storage
from fastapi_acl.shared.database.mongodb import MongoDatabase, as_text
from fastapi_acl.shared.database.sql import SQLDatabase
from fastapi_acl.shared.database.tables import changes_table
from tests.support.memory import MemoryDatabase


async def unpin(opened: AsyncSession | AsyncConnection) -> None:
    """Laisse une transaction trouver nos tables sans leur schéma, comme un autre que nous les nomme."""
    connection = await opened.connection() if isinstance(opened, AsyncSession) else opened
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql("SET LOCAL search_path TO public")


async def write_row(storage: Storage, ptype: Any, values: Sequence[Any], digest: str = "x" * 64) -> int:
    """Écrit une ligne de règle, et rend son numéro."""
    row = {"ptype": ptype, "digest": digest, **dict(zip(COLUMNS, values, strict=False))}
    if isinstance(storage.database, MongoDatabase):
        number = await storage.adapter.last_id() + 1
        await storage.database.collection("casbin_rule").insert_one({"_id": number, **row})
        return number
    assert isinstance(storage.database, SQLDatabase)
    async with storage.database.session() as session:
        await session.execute(insert(CasbinRuleModel).values(**row))
    return await storage.adapter.last_id()


async def advance_revision(storage: Storage) -> None:
    """Avance la révision sans rien journaliser : qui la regarde relit tout."""
    if isinstance(storage.database, MongoDatabase):
        await storage.database.collection("acl_revision").update_one({"_id": 1}, {"$inc": {"revision": 1}})
        return
    await _execute(storage, "UPDATE acl_revision SET revision = revision + 1")


async def lose_head(storage: Storage) -> None:
    """Fait disparaître la tête du journal."""
    if isinstance(storage.database, MongoDatabase):
        await storage.database.collection("acl_revision").drop()
        return
    await _execute(storage, "ALTER TABLE acl_revision RENAME TO lost")


async def age_sessions(storage: Storage, **instants: datetime) -> None:
    """Change des instants de toutes les sessions."""
    if isinstance(storage.database, MongoDatabase):
        change = {"$set": {name: as_text(instant) for name, instant in instants.items()}}
        await storage.database.collection("acl_sessions").update_many({}, change)
        return
    assert isinstance(storage.database, SQLDatabase)
    async with storage.database.session() as session:
        await session.execute(update(SQLSessionModel).values(**instants))


async def deactivate_all(storage: Storage) -> None:
    """Désactive tous les comptes, sans avancer la version de leurs sessions."""
    if isinstance(storage.database, MongoDatabase):
        await storage.database.collection("acl_users").update_many({}, {"$set": {"is_active": False}})
        return
    if isinstance(storage.database, MemoryDatabase):
        users = storage.database.server.state.users
        users.update({name: replace(known, is_active=False) for name, known in users.items()})
        return
    await _execute(storage, "UPDATE acl_users SET is_active = FALSE")


async def remove_entry(storage: Storage, revision: int) -> None:
    """Retire une entrée du journal."""
    if isinstance(storage.database, MongoDatabase):
        await storage.database.collection("acl_changes").delete_one({"_id": revision})
        return
    assert isinstance(storage.database, SQLDatabase)
    async with storage.database.session() as session:
        await session.execute(delete(changes_table).where(changes_table.c.revision == revision))


async def all_of(storage: Storage, name: str) -> list[dict[str, Any]]:
    """Rend tout ce qu'une table, ou une collection, contient."""
    if isinstance(storage.database, MongoDatabase):
        return [dict(one) async for one in storage.database.collection(name).find({})]
    async with storage.database.snapshot() as reading:
        await unpin(reading.connection)
        rows = await reading.connection.execute(select(text("*")).select_from(text(name)))
        return [dict(row._mapping) for row in rows]


async def _execute(storage: Storage, statement: str) -> None:
    assert isinstance(storage.database, SQLDatabase)
    async with storage.database.session() as session:
        await unpin(session)
        await session.execute(text(statement))


async def empty_head(storage: Storage) -> None:
    """Vide la table de la tête du journal."""
    if isinstance(storage.database, MongoDatabase):
        await storage.database.collection("acl_revision").delete_many({})
        return
    await _execute(storage, "DELETE FROM acl_revision")


async def spoil_last_entry(storage: Storage, payload: str) -> None:
    """Remplace le contenu de la dernière entrée du journal."""
    if isinstance(storage.database, MongoDatabase):
        changes = storage.database.collection("acl_changes")
        last = await changes.find_one({}, sort=[("_id", -1)])
        await changes.update_one({"_id": last["_id"]}, {"$set": {"payload": payload}})
        return
    assert isinstance(storage.database, SQLDatabase)
    async with storage.database.session() as session:
        await unpin(session)
        last = await session.scalar(text("SELECT max(revision) FROM acl_changes"))
        change = text("UPDATE acl_changes SET payload = :payload WHERE revision = :last")
        await session.execute(change, {"payload": payload, "last": last})
