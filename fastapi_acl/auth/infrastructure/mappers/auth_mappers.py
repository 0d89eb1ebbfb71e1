"""Passage des entités aux lignes, et retour."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi_acl.auth.domain.entities.auth_user import fold
from fastapi_acl.auth.infrastructure.mappers.stored_rows import read_account, read_session
from fastapi_acl.auth.infrastructure.models.auth_models import SQLAuthUserModel, SQLSessionModel

if TYPE_CHECKING:
    from fastapi_acl.auth.domain.entities.auth_user import AuthUser
    from fastapi_acl.auth.domain.entities.session import Session


class AuthUserMapper:
    """Compte <-> `acl_users`."""

    @staticmethod
    def to_model(user: AuthUser) -> SQLAuthUserModel:
        """Fait la ligne d'un compte, clés repliées comprises."""
        keys = {
            "id": str(user.id),
            "username_key": fold(user.username),
            "email_key": fold(user.email) if user.email is not None else None,
        }
        return SQLAuthUserModel(**asdict(user) | keys)

    @staticmethod
    def to_entity(row: SQLAuthUserModel) -> AuthUser:
        """Refait un compte de sa ligne."""
        return read_account(read_columns(row))


class SessionMapper:
    """Session <-> `acl_sessions`."""

    @staticmethod
    def to_model(session: Session) -> SQLSessionModel:
        """Fait la ligne d'une session."""
        return SQLSessionModel(**asdict(session) | {"id": str(session.id), "user_id": str(session.user_id)})

    @staticmethod
    def to_entity(row: SQLSessionModel) -> Session:
        """Refait une session de sa ligne."""
        return read_session(read_columns(row))


def read_columns(row: SQLAuthUserModel | SQLSessionModel) -> dict[str, Any]:
    """Range une ligne par colonne."""
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}
