"""Dépôt des sessions dans une base SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from sqlalchemy import delete, exists, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from fastapi_acl.auth.application.interface.auth_repository import ISessionRepository
from fastapi_acl.auth.infrastructure.mappers.auth_mappers import SessionMapper, read_columns
from fastapi_acl.auth.infrastructure.models.auth_models import SQLAuthUserModel, SQLSessionModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import ColumnElement

    from fastapi_acl.auth.domain.dtos.auth_dtos import FinishedSessions, RefreshLifetime
    from fastapi_acl.auth.domain.entities.session import Session
    from fastapi_acl.shared.database.sql import SQLDatabase


@final
class SQLSessionRepository(ISessionRepository):
    """Sessions dans une base SQL ; les courses s'y règlent par des écritures conditionnelles."""

    def __init__(self, database: SQLDatabase) -> None:
        """Retient la base.

        Args:
            database: base où les sessions sont gardées.
        """
        self._database = database

    async def create_session(self, session: Session) -> bool:
        """Ouvre une session, si le compte est encore actif à la version que le mot de passe a prouvée."""
        columns = read_columns(SessionMapper.to_model(session))
        types = SQLSessionModel.__table__.c
        values = [literal(value, types[name].type) for name, value in columns.items()]
        source = select(*values).where(
            SQLAuthUserModel.id == str(session.user_id),
            SQLAuthUserModel.is_active,
            SQLAuthUserModel.session_version == session.session_version,
        )
        try:
            async with self._database.session() as connection:
                result: Any = await connection.execute(insert(SQLSessionModel).from_select(list(columns), source))
        except IntegrityError:
            return False  # le compte a été supprimé entre la lecture et l'écriture
        return bool(result.rowcount == 1)

    async def rotate(self, session_id: UUID, old_digest: str, new_digest: str, lifetime: RefreshLifetime) -> bool:
        """Remplace le refresh token ; la base n'en laisse gagner qu'un."""
        account_is_current = exists().where(
            SQLAuthUserModel.id == SQLSessionModel.user_id,
            SQLAuthUserModel.is_active,
            SQLAuthUserModel.session_version == SQLSessionModel.session_version,
        )
        rotated = (
            update(SQLSessionModel)
            .where(
                SQLSessionModel.id == str(session_id),
                SQLSessionModel.refresh_digest == old_digest,
                SQLSessionModel.revoked_at.is_(None),
                SQLSessionModel.expires_at > lifetime.now,
                SQLSessionModel.last_used_at > lifetime.idle_since,
                account_is_current,
            )
            .values(
                refresh_digest=new_digest,
                previous_digest=old_digest,
                rotated_at=lifetime.now,
                last_used_at=lifetime.now,
            )
        )
        async with self._database.session() as connection:
            result: Any = await connection.execute(rotated, execution_options={"synchronize_session": False})
        return bool(result.rowcount == 1)

    async def find_session(self, session_id: UUID) -> Session | None:
        """Cherche une session."""
        statement = select(SQLSessionModel).where(SQLSessionModel.id == str(session_id))
        async with self._database.snapshot() as reading:
            row = (await reading.connection.scalars(statement)).one_or_none()
        return SessionMapper.to_entity(row) if row is not None else None

    async def revoke_session(self, session_id: UUID, now: datetime) -> bool:
        """Ferme une session."""
        return await self._revoke(SQLSessionModel.id == str(session_id), now) > 0

    async def revoke_all(self, user_id: UUID, now: datetime) -> None:
        """Ferme toutes les sessions d'un compte."""
        await self._revoke(SQLSessionModel.user_id == str(user_id), now)

    async def remove_finished(self, finished: FinishedSessions, limit: int) -> int:
        """Supprime des sessions finies ; s'il n'y en a pas, comme presque toujours, rien ne s'écrit."""
        conditions = (
            SQLSessionModel.expires_at < finished.expired_before,
            SQLSessionModel.last_used_at < finished.unused_before,
        )
        ids = await self._find_ids(conditions, limit)
        if not ids:
            return 0
        gone = delete(SQLSessionModel).where(SQLSessionModel.id.in_(sorted(ids)), or_(*conditions))
        async with self._database.session() as connection:
            result: Any = await connection.execute(gone, execution_options={"synchronize_session": False})
        return int(result.rowcount)

    async def _find_ids(self, conditions: Sequence[ColumnElement[bool]], limit: int) -> set[str]:
        """Cherche des sessions qui remplissent une des conditions, par l'index de chacune."""
        found: set[str] = set()
        async with self._database.snapshot() as reading:
            for condition in conditions:
                statement = select(SQLSessionModel.id).where(condition).limit(limit - len(found))
                found.update(await reading.connection.scalars(statement))
        return found

    async def _revoke(self, condition: Any, now: datetime) -> int:  # noqa: ANN401 - expression SQLAlchemy
        """Ferme des sessions ouvertes et renvoie leur nombre."""
        closed = update(SQLSessionModel).where(condition, SQLSessionModel.revoked_at.is_(None)).values(revoked_at=now)
        async with self._database.session() as connection:
            result: Any = await connection.execute(closed, execution_options={"synchronize_session": False})
        return int(result.rowcount)
