"""Documents des comptes et des sessions."""

from __future__ import annotations

from typing import TypedDict


class MongoAuthUserModel(TypedDict):
    """Un compte, dans `acl_users` ; l'unicité porte sur les clés repliées, et non sur ce qui est montré."""

    _id: str
    username: str
    username_key: str
    email: str | None
    email_key: str | None
    hashed_password: str
    is_active: bool
    is_verified: bool
    session_version: int
    created_at: str
    updated_at: str


class MongoSessionModel(TypedDict):
    """Une session, dans `acl_sessions` ; seules des empreintes de jetons s'y trouvent."""

    _id: str
    user_id: str
    session_version: int
    refresh_digest: str
    previous_digest: str | None
    rotated_at: str | None
    created_at: str
    last_used_at: str
    expires_at: str
    revoked_at: str | None
    user_agent: str | None
    ip: str | None
