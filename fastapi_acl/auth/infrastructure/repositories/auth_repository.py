"""Dépôt des comptes dans une base SQL."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, final

from sqlalchemy import delete, false, or_, select, update
from sqlalchemy.exc import IntegrityError

from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
from fastapi_acl.auth.domain.dtos.auth_dtos import UserPage
from fastapi_acl.auth.domain.entities.auth_user import AuthUser, fold
from fastapi_acl.auth.infrastructure.mappers.auth_mappers import AuthUserMapper
from fastapi_acl.auth.infrastructure.models.auth_models import SQLAuthUserModel
from fastapi_acl.auth.infrastructure.repositories.pages import MAX_PAGE, make_cursor, read_cursor
from fastapi_acl.shared.exceptions import UserAlreadyExistsError, UserNotFoundError
from fastapi_acl.shared.stored import is_storable, read_text, read_value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import ColumnElement, SQLColumnExpression, Update
    from sqlalchemy.ext.asyncio import AsyncSession

    from fastapi_acl.shared.database.sql import SQLDatabase

UNSYNCHRONIZED: Final = {"synchronize_session": False, "populate_existing": True}
"""Rien n'est gardé en mémoire d'une session à l'autre : ce qui a été lu avant une mise à jour est relu."""


class SQLAuthRepository(IAuthRepository):
    """Comptes dans une base SQL ; chaque méthode est atomique et se joint à la transaction ambiante."""

    def __init__(self, database: SQLDatabase) -> None:
        """Retient la base.

        Args:
            database: base où les comptes sont gardés.
        """
        self._database = database

    async def create_user(self, user: AuthUser) -> None:
        """Enregistre un compte ; l'unicité est jugée par la base."""
        try:
            async with self._database.session() as session:
                session.add(AuthUserMapper.to_model(user))
                await session.flush()
        except IntegrityError as error:
            raise UserAlreadyExistsError from error

    async def get_by_id(self, user_id: UUID) -> AuthUser:
        """Renvoie un compte."""
        return await self._get(SQLAuthUserModel.id == str(user_id))

    async def get_by_username(self, username: str) -> AuthUser:
        """Renvoie un compte par son nom replié."""
        return await self._get(_equals(SQLAuthUserModel.username_key, username))

    async def get_by_email(self, email: str) -> AuthUser:
        """Renvoie un compte par son adresse repliée."""
        return await self._get(_equals(SQLAuthUserModel.email_key, email))

    async def list_users(
        self, *, limit: int, cursor: str | None = None, query: str | None = None, is_active: bool | None = None
    ) -> UserPage:
        """Lit une page de comptes, dans l'ordre de leurs noms repliés."""
        limit = min(max(limit, 1), MAX_PAGE)
        wanted = _make_conditions(cursor, query, is_active=is_active)
        statement = select(SQLAuthUserModel).where(*wanted).order_by(SQLAuthUserModel.username_key).limit(limit + 1)
        async with self._database.snapshot() as reading:
            rows = (await reading.connection.scalars(statement)).all()
        following = make_cursor(_read_key(rows[limit - 1])) if len(rows) > limit else None
        return UserPage(items=[AuthUserMapper.to_entity(row) for row in rows[:limit]], next_cursor=following)

    async def update_password(self, user_id: UUID, hashed_password: str, *, replaced: str) -> None:
        """Remplace un haché, sauf si un autre mot de passe a pris sa place entre-temps."""
        changed = update(SQLAuthUserModel).where(
            SQLAuthUserModel.id == str(user_id), SQLAuthUserModel.hashed_password == replaced
        )
        async with self._database.session() as session:
            await session.execute(changed.values(hashed_password=hashed_password), execution_options=UNSYNCHRONIZED)

    async def has_hash(self, starts: Sequence[str]) -> bool:
        """Dit si le haché d'un compte commence par un de ces débuts."""
        hashed = SQLAuthUserModel.hashed_password
        found = select(SQLAuthUserModel.id).where(
            or_(false(), *(hashed.startswith(start, autoescape=True) for start in starts))
        )
        async with self._database.snapshot() as reading:
            return bool(starts) and (await reading.connection.scalars(found.limit(1))).first() is not None

    async def update_user(self, user_id: UUID, *, is_active: bool | None = None, ends_tokens: bool = False) -> AuthUser:
        """Change un compte, en une instruction : la version de session avance de celle que la base tient."""
        changes: dict[str, Any] = {"updated_at": datetime.now(timezone.utc)}
        if is_active is not None:
            changes["is_active"] = is_active
        if ends_tokens or is_active is False:
            changes["session_version"] = SQLAuthUserModel.session_version + 1
        changed = update(SQLAuthUserModel).where(SQLAuthUserModel.id == str(user_id)).values(**changes)
        async with self._database.session() as session:
            row = await self._apply(session, changed, user_id)
        return _read_required(row)

    async def delete_user(self, user_id: UUID) -> None:
        """Supprime un compte ; ses sessions partent avec lui, par la clé étrangère."""
        async with self._database.session() as session:
            result: Any = await session.execute(delete(SQLAuthUserModel).where(SQLAuthUserModel.id == str(user_id)))
        if result.rowcount == 0:
            raise UserNotFoundError

    async def active_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes actifs."""
        return await self._list_ids(SQLAuthUserModel.id.in_(ids), SQLAuthUserModel.is_active.is_(True))

    async def existing_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes qui existent."""
        return await self._list_ids(SQLAuthUserModel.id.in_(ids))

    async def _list_ids(self, *conditions: ColumnElement[bool]) -> set[str]:
        """Renvoie les identifiants des comptes qui remplissent des conditions."""
        async with self._database.snapshot() as reading:
            return set(await reading.connection.scalars(select(SQLAuthUserModel.id).where(*conditions)))

    async def _get(self, condition: ColumnElement[bool]) -> AuthUser:
        async with self._database.snapshot() as reading:
            row = (await reading.connection.scalars(select(SQLAuthUserModel).where(condition))).one_or_none()
        return _read_required(row)

    async def _apply(self, session: AsyncSession, changed: Update, user_id: UUID) -> SQLAuthUserModel | None:  # noqa: ARG002 - pour MySQL
        """Exécute une mise à jour d'un compte et renvoie sa ligne, ou None s'il n'existe pas."""
        returning = changed.returning(SQLAuthUserModel)
        return (await session.scalars(returning, execution_options=UNSYNCHRONIZED)).one_or_none()


@final
class SQLiteAuthRepository(SQLAuthRepository):
    """Comptes dans SQLite : rien n'y diffère."""


@final
class PostgreSQLAuthRepository(SQLAuthRepository):
    """Comptes dans PostgreSQL : rien n'y diffère."""


@final
class MySQLAuthRepository(SQLAuthRepository):
    """Comptes dans MySQL ou MariaDB, dont UPDATE n'a pas de RETURNING."""

    async def _apply(self, session: AsyncSession, changed: Update, user_id: UUID) -> SQLAuthUserModel | None:
        """Met à jour, puis relit dans la même transaction, qui tient la ligne."""
        await session.execute(changed, execution_options=UNSYNCHRONIZED)
        changed_row = select(SQLAuthUserModel).where(SQLAuthUserModel.id == str(user_id))
        return (await session.scalars(changed_row, execution_options=UNSYNCHRONIZED)).one_or_none()


def _read_required(row: SQLAuthUserModel | None) -> AuthUser:
    """Renvoie le compte d'une ligne.

    Raises:
        UserNotFoundError: il n'y a pas de ligne.
    """
    if row is None:
        raise UserNotFoundError
    return AuthUserMapper.to_entity(row)


def _equals(column: SQLColumnExpression[Any], text: str) -> ColumnElement[bool]:
    """Compare une clé repliée ; aucune ne finit par une espace, que MySQL oublierait de comparer."""
    key = fold(text)
    return column == key if is_storable(key) and not key.endswith(" ") else false()


def _read_key(row: SQLAuthUserModel) -> str:
    """Renvoie le nom replié d'un compte."""
    return read_value(("acl_users", "id", row.id, "username_key"), row.username_key, read_text)


def _make_conditions(cursor: str | None, query: str | None, *, is_active: bool | None) -> Sequence[ColumnElement[bool]]:
    """Renvoie les conditions d'une page ; le texte cherché est pris à la lettre."""
    found: list[ColumnElement[bool]] = []
    if cursor is not None:
        found.append(SQLAuthUserModel.username_key > read_cursor(cursor))
    if query is not None:
        found.append(_contains(fold(query)))
    if is_active is not None:
        found.append(SQLAuthUserModel.is_active.is_(is_active))
    return found


def _contains(text: str) -> ColumnElement[bool]:
    """Cherche un texte, à la lettre, dans le nom et l'adresse."""
    columns = (SQLAuthUserModel.username_key, SQLAuthUserModel.email_key)
    found = or_(*(column.contains(text, autoescape=True) for column in columns))
    return found if is_storable(text) else false()
