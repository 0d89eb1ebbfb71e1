"""Passage des entités aux documents, et retour."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from fastapi_acl.auth.domain.entities.auth_user import fold
from fastapi_acl.auth.infrastructure.mappers.stored_rows import read_account, read_session
from fastapi_acl.shared.database.mongodb import as_text

if TYPE_CHECKING:
    from fastapi_acl.auth.domain.entities.auth_user import AuthUser
    from fastapi_acl.auth.domain.entities.session import Session
    from fastapi_acl.auth.infrastructure.models.mongodb_models import MongoAuthUserModel, MongoSessionModel


class MongoAuthUserMapper:
    """Compte <-> `acl_users`."""

    @staticmethod
    def to_model(user: AuthUser) -> MongoAuthUserModel:
        """Renvoie le document d'un compte, clés repliées comprises."""
        keys = {
            "username_key": fold(user.username),
            "email_key": fold(user.email) if user.email is not None else None,
        }
        return cast("MongoAuthUserModel", _write_fields(asdict(user)) | keys)

    @staticmethod
    def to_entity(found: MongoAuthUserModel) -> AuthUser:
        """Refait un compte de son document."""
        return read_account(_read_columns(found))


class MongoSessionMapper:
    """Session <-> `acl_sessions`."""

    @staticmethod
    def to_model(session: Session) -> MongoSessionModel:
        """Renvoie le document d'une session."""
        return cast("MongoSessionModel", _write_fields(asdict(session)))

    @staticmethod
    def to_entity(found: MongoSessionModel) -> Session:
        """Refait une session de son document."""
        return read_session(_read_columns(found))


def _write_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Écrit les identifiants et les instants en textes ; `id` est la clé du document."""
    written = {name: _write_value(value) for name, value in fields.items()}
    written["_id"] = written.pop("id")
    return written


def _write_value(value: Any) -> Any:  # noqa: ANN401 - valeur d'un champ
    """Écrit un identifiant ou un instant ; le reste va tel quel."""
    if isinstance(value, datetime):
        return as_text(value)
    return str(value) if isinstance(value, UUID) else value


def _read_columns(found: MongoAuthUserModel | MongoSessionModel) -> dict[str, Any]:
    """Range un document comme une ligne de table."""
    return {**found, "id": found["_id"]}
