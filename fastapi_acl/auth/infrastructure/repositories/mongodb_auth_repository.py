"""Dépôt des comptes dans MongoDB."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, final

from pymongo import IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError

from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
from fastapi_acl.auth.domain.dtos.auth_dtos import UserPage
from fastapi_acl.auth.domain.entities.auth_user import AuthUser, fold
from fastapi_acl.auth.infrastructure.mappers.mongodb_mappers import MongoAuthUserMapper
from fastapi_acl.auth.infrastructure.repositories.pages import MAX_PAGE, make_cursor, read_cursor
from fastapi_acl.shared.database.mongodb import IS_TEXT, as_text
from fastapi_acl.shared.exceptions import UserAlreadyExistsError, UserNotFoundError
from fastapi_acl.shared.stored import is_storable, read_text, read_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from fastapi_acl.auth.infrastructure.models.mongodb_models import MongoAuthUserModel
    from fastapi_acl.shared.database.mongodb import MongoDatabase

INDEXES: Final[Mapping[str, list[IndexModel]]] = {
    "acl_users": [
        IndexModel("username_key", unique=True),
        IndexModel("email_key", unique=True, partialFilterExpression={"email_key": IS_TEXT}),
    ]
}
"""La collection des comptes, et ses index au-delà de `_id`."""


@final
class MongoDBAuthRepository(IAuthRepository):
    """Comptes dans MongoDB ; chaque méthode est atomique et se joint à la transaction ambiante."""

    def __init__(self, database: MongoDatabase) -> None:
        """Retient la base.

        Args:
            database: base où les comptes sont gardés.
        """
        self._database = database

    @property
    def _users(self) -> Any:  # noqa: ANN401 - du pilote
        return self._database.collection("acl_users")

    async def create_user(self, user: AuthUser) -> None:
        """Enregistre un compte ; l'unicité est jugée par la base."""
        try:
            async with self._database.session() as session:
                await self._users.insert_one(MongoAuthUserMapper.to_model(user), session=session)
        except DuplicateKeyError as error:
            raise UserAlreadyExistsError from error

    async def get_by_id(self, user_id: UUID) -> AuthUser:
        """Renvoie un compte."""
        return await self._get("_id", str(user_id))

    async def get_by_username(self, username: str) -> AuthUser:
        """Renvoie un compte par son nom replié."""
        return await self._get("username_key", fold(username))

    async def get_by_email(self, email: str) -> AuthUser:
        """Renvoie un compte par son adresse repliée."""
        return await self._get("email_key", fold(email))

    async def list_users(
        self, *, limit: int, cursor: str | None = None, query: str | None = None, is_active: bool | None = None
    ) -> UserPage:
        """Lit une page de comptes, dans l'ordre de leurs noms repliés."""
        limit = min(max(limit, 1), MAX_PAGE)
        wanted = _make_conditions(cursor, query, is_active=is_active)
        if query is not None and not is_storable(fold(query)):
            return UserPage(items=[], next_cursor=None)
        async with self._database.session() as session:
            found = self._users.find(wanted, session=session).sort("username_key", 1).limit(limit + 1)
            documents = await found.to_list(limit + 1)
        following = make_cursor(_read_key(documents[limit - 1])) if len(documents) > limit else None
        return UserPage(items=[MongoAuthUserMapper.to_entity(one) for one in documents[:limit]], next_cursor=following)

    async def update_password(self, user_id: UUID, hashed_password: str, *, replaced: str) -> None:
        """Remplace un haché, sauf si un autre mot de passe a pris sa place entre-temps."""
        wanted = {"_id": str(user_id), "hashed_password": replaced}
        async with self._database.session() as session:
            await self._users.update_one(wanted, {"$set": {"hashed_password": hashed_password}}, session=session)

    async def has_hash(self, starts: Sequence[str]) -> bool:
        """Dit si le haché d'un compte commence par un de ces débuts."""
        wanted = {"hashed_password": {"$regex": f"^({'|'.join(map(re.escape, starts))})"}}
        async with self._database.session() as session:
            return bool(starts) and await self._users.find_one(wanted, {"_id": 1}, session=session) is not None

    async def update_user(self, user_id: UUID, *, is_active: bool | None = None, ends_tokens: bool = False) -> AuthUser:
        """Change un compte, en une instruction : la version de session avance de celle que la base tient."""
        changes: dict[str, Any] = {"$set": {"updated_at": as_text(datetime.now(timezone.utc))}}
        if is_active is not None:
            changes["$set"]["is_active"] = is_active
        if ends_tokens or is_active is False:
            changes["$inc"] = {"session_version": 1}
        async with self._database.session() as session:
            found = await self._users.find_one_and_update(
                {"_id": str(user_id)}, changes, return_document=ReturnDocument.AFTER, session=session
            )
        return _read_required(found)

    async def delete_user(self, user_id: UUID) -> None:
        """Supprime un compte et ses sessions, en une transaction."""
        async with self._database.transaction() as transaction:
            session = transaction.connection
            found = await self._users.delete_one({"_id": str(user_id)}, session=session)
            if not found.deleted_count:
                raise UserNotFoundError
            await self._database.collection("acl_sessions").delete_many({"user_id": str(user_id)}, session=session)

    async def active_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes actifs."""
        return await self._list_ids({"_id": {"$in": list(ids)}, "is_active": True})

    async def existing_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes qui existent."""
        return await self._list_ids({"_id": {"$in": list(ids)}})

    async def _list_ids(self, wanted: Mapping[str, Any]) -> set[str]:
        """Renvoie les identifiants des comptes qui remplissent une condition."""
        async with self._database.session() as session:
            return {one["_id"] async for one in self._users.find(wanted, {"_id": 1}, session=session)}

    async def _get(self, field: str, value: str) -> AuthUser:
        """Renvoie le compte dont un champ a cette valeur ; il n'y en a pas si elle ne peut être gardée."""
        if not is_storable(value):
            raise UserNotFoundError
        async with self._database.session() as session:
            found = await self._users.find_one({field: value}, session=session)
        return _read_required(found)


def _read_key(found: Mapping[str, Any]) -> str:
    """Renvoie le nom replié d'un compte."""
    return read_value(("acl_users", "_id", found["_id"], "username_key"), found.get("username_key"), read_text)


def _make_conditions(cursor: str | None, query: str | None, *, is_active: bool | None) -> dict[str, Any]:
    """Renvoie les conditions d'une page ; le texte cherché est pris à la lettre."""
    found: dict[str, Any] = {}
    if cursor is not None:
        found["username_key"] = {"$gt": read_cursor(cursor)}
    if query is not None:
        literal = {"$regex": re.escape(fold(query))}
        found["$or"] = [{"username_key": literal}, {"email_key": literal}]
    if is_active is not None:
        found["is_active"] = is_active
    return found


def _read_required(found: MongoAuthUserModel | None) -> AuthUser:
    """Renvoie le compte d'un document.

    Raises:
        UserNotFoundError: il n'y a pas de document.
    """
    if found is None:
        raise UserNotFoundError
    return MongoAuthUserMapper.to_entity(found)
