"""Lecture d'une ligne ou d'un document : la même, quelle que soit la base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.auth.domain.entities.session import Session
from fastapi_acl.shared.stored import (
    Shape,
    optional,
    read_digest,
    read_flag,
    read_identifier,
    read_instant,
    read_number,
    read_row,
    read_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCOUNT: Final[Shape] = {
    "id": read_identifier,
    "username": read_text,
    "email": optional(read_text),
    "hashed_password": read_text,
    "is_active": read_flag,
    "is_verified": read_flag,
    "session_version": read_number,
    "created_at": read_instant,
    "updated_at": read_instant,
}

SESSION: Final[Shape] = {
    "id": read_identifier,
    "user_id": read_identifier,
    "session_version": read_number,
    "refresh_digest": read_digest,
    "previous_digest": optional(read_digest),
    "rotated_at": optional(read_instant),
    "created_at": read_instant,
    "last_used_at": read_instant,
    "expires_at": read_instant,
    "revoked_at": optional(read_instant),
    "user_agent": optional(read_text),
    "ip": optional(read_text),
}


def read_account(columns: Mapping[str, Any]) -> AuthUser:
    """Refait un compte de ses colonnes, quelle que soit la base.

    Raises:
        StoredDataError: une valeur n'est pas de celles que nous y mettons.
    """
    return AuthUser(**read_row("acl_users", "id", columns, ACCOUNT))


def read_session(columns: Mapping[str, Any]) -> Session:
    """Refait une session de ses colonnes, quelle que soit la base.

    Raises:
        StoredDataError: une valeur n'est pas de celles que nous y mettons.
    """
    return Session(**read_row("acl_sessions", "id", columns, SESSION))
