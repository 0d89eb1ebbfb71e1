"""Dépôt des sessions dans MongoDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from pymongo import IndexModel

from fastapi_acl.auth.application.interface.auth_repository import ISessionRepository
from fastapi_acl.auth.infrastructure.mappers.mongodb_mappers import MongoSessionMapper
from fastapi_acl.shared.database.mongodb import as_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from fastapi_acl.auth.domain.dtos.auth_dtos import FinishedSessions, RefreshLifetime
    from fastapi_acl.auth.domain.entities.session import Session
    from fastapi_acl.shared.database.mongodb import MongoDatabase

INDEXES: Final[Mapping[str, list[IndexModel]]] = {
    "acl_sessions": [IndexModel("user_id"), IndexModel("expires_at"), IndexModel("last_used_at")]
}
"""La collection des sessions, et ses index au-delà de `_id`."""


@final
class MongoDBSessionRepository(ISessionRepository):
    """Sessions dans MongoDB.

    Les courses s'y règlent par l'écriture conditionnelle d'un seul document. Une transaction n'y ajouterait rien : deux
    transactions qui lisent le compte et écrivent l'une le compte, l'autre la session, se valideraient toutes deux.
    C'est la version de session, portée par chaque jeton, qui rend sans effet ce qu'une désactivation a croisé.
    """

    def __init__(self, database: MongoDatabase) -> None:
        """Retient la base.

        Args:
            database: base où les sessions sont gardées.
        """
        self._database = database

    @property
    def _sessions(self) -> Any:  # noqa: ANN401 - du pilote
        return self._database.collection("acl_sessions")

    async def create_session(self, session: Session) -> bool:
        """Ouvre une session, si le compte est encore actif à la version que le mot de passe a prouvée."""
        document = MongoSessionMapper.to_model(session)
        async with self._database.session() as connection:
            if not await self._is_current(document, connection):
                return False
            await self._sessions.insert_one(document, session=connection)
            if await self._is_current(document, connection):
                return True
            await self._sessions.delete_one({"_id": document["_id"]}, session=connection)
        return False

    async def rotate(self, session_id: UUID, old_digest: str, new_digest: str, lifetime: RefreshLifetime) -> bool:
        """Remplace le refresh token ; la base n'en laisse gagner qu'un."""
        now = as_text(lifetime.now)
        wanted = {
            "_id": str(session_id),
            "refresh_digest": old_digest,
            "revoked_at": None,
            "expires_at": {"$gt": now},
            "last_used_at": {"$gt": as_text(lifetime.idle_since)},
        }
        change = {
            "refresh_digest": new_digest,
            "previous_digest": old_digest,
            "rotated_at": now,
            "last_used_at": now,
        }
        async with self._database.session() as connection:
            found = await self._sessions.find_one({"_id": str(session_id)}, session=connection)
            if found is None or not await self._is_current(found, connection):
                return False
            rotated = await self._sessions.update_one(wanted, {"$set": change}, session=connection)
            return bool(rotated.modified_count) and await self._is_current(found, connection)

    async def find_session(self, session_id: UUID) -> Session | None:
        """Cherche une session."""
        async with self._database.session() as connection:
            found = await self._sessions.find_one({"_id": str(session_id)}, session=connection)
        return MongoSessionMapper.to_entity(found) if found is not None else None

    async def revoke_session(self, session_id: UUID, now: datetime) -> bool:
        """Ferme une session."""
        return await self._revoke({"_id": str(session_id)}, now) > 0

    async def revoke_all(self, user_id: UUID, now: datetime) -> None:
        """Ferme toutes les sessions d'un compte."""
        await self._revoke({"user_id": str(user_id)}, now)

    async def remove_finished(self, finished: FinishedSessions, limit: int) -> int:
        """Supprime des sessions finies."""
        conditions = [
            {"expires_at": {"$lt": as_text(finished.expired_before)}},
            {"last_used_at": {"$lt": as_text(finished.unused_before)}},
        ]
        async with self._database.session() as connection:
            found: set[str] = set()
            for condition in conditions:
                some = self._sessions.find(condition, {"_id": 1}, session=connection).limit(limit)
                found.update([one["_id"] async for one in some])
            wanted = {"_id": {"$in": sorted(found)[:limit]}, "$or": conditions}
            return int((await self._sessions.delete_many(wanted, session=connection)).deleted_count) if found else 0

    async def _revoke(self, wanted: Mapping[str, Any], now: datetime) -> int:
        """Ferme des sessions ouvertes et renvoie leur nombre."""
        async with self._database.session() as connection:
            closed = await self._sessions.update_many(
                {**wanted, "revoked_at": None}, {"$set": {"revoked_at": as_text(now)}}, session=connection
            )
        return int(closed.modified_count)

    async def _is_current(self, session: Mapping[str, Any], connection: Any) -> bool:  # noqa: ANN401 - du pilote
        """Dit si le compte d'une session est actif, à la version de celle-ci."""
        said = {"_id": session.get("user_id"), "session_version": session.get("session_version")}
        wanted = {"is_active": True, **{name: {"$eq": value, "$ne": None} for name, value in said.items()}}
        users = self._database.collection("acl_users")
        return await users.find_one(wanted, {"_id": 1}, session=connection) is not None
