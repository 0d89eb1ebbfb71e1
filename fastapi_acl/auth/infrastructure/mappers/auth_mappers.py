"""Passage des entités aux colonnes, et retour."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastapi_acl.auth.domain.entities.auth_user import AuthUser, canonical
from fastapi_acl.auth.domain.entities.session import Session

if TYPE_CHECKING:
    from fastapi_acl.auth.infrastructure.models.auth_models import SQLAuthUserModel, SQLSessionModel


class AuthUserMapper:
    """Compte <-> `acl_users`."""

    @staticmethod
    def to_columns(user: AuthUser) -> dict[str, Any]:
        """Rend les colonnes d'un compte, clés repliées comprises."""
        return {
            **asdict(user),
            "id": str(user.id),
            "username_key": canonical(user.username),
            "email_key": canonical(user.email) if user.email is not None else None,
        }

    @staticmethod
    def to_entity(row: SQLAuthUserModel) -> AuthUser:
        """Refait un compte de sa ligne."""
        return AuthUser(
            id=UUID(row.id),
            username=row.username,
            email=row.email,
            hashed_password=row.hashed_password,
            is_active=row.is_active,
            is_verified=row.is_verified,
            session_version=row.session_version,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


class SessionMapper:
    """Session <-> `acl_sessions`."""

    @staticmethod
    def to_columns(session: Session) -> dict[str, Any]:
        """Rend les colonnes d'une session."""
        return {**asdict(session), "id": str(session.id), "user_id": str(session.user_id)}

    @staticmethod
    def to_entity(row: SQLSessionModel) -> Session:
        """Refait une session de sa ligne."""
        columns = {column.key: getattr(row, column.key) for column in row.__table__.columns}
        return Session(**{**columns, "id": UUID(row.id), "user_id": UUID(row.user_id)})
