"""Tables des comptes et des sessions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from fastapi_acl.shared.database.tables import TABLE_OPTIONS, Base, Flag, UTCDateTime


class SQLAuthUserModel(Base):
    """Un compte ; l'unicité porte sur les clés repliées, et non sur ce qui est montré."""

    __tablename__ = "acl_users"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    username: Mapped[str] = mapped_column(String(64))
    username_key: Mapped[str] = mapped_column(String(190), unique=True)
    email: Mapped[str | None] = mapped_column(String(254))
    email_key: Mapped[str | None] = mapped_column(String(190), unique=True)
    hashed_password: Mapped[str] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(Flag())
    is_verified: Mapped[bool] = mapped_column(Flag())
    session_version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime())
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime())


class SQLSessionModel(Base):
    """Une session ; seules des empreintes de jetons s'y trouvent."""

    __tablename__ = "acl_sessions"
    __table_args__ = (
        Index("ix_acl_sessions_user_id", "user_id"),
        Index("ix_acl_sessions_expires_at", "expires_at"),
        Index("ix_acl_sessions_last_used_at", "last_used_at"),
        TABLE_OPTIONS,
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(36), ForeignKey("acl_users.id", ondelete="CASCADE"))
    session_version: Mapped[int] = mapped_column(Integer)
    refresh_digest: Mapped[str] = mapped_column(String(64))
    previous_digest: Mapped[str | None] = mapped_column(String(64))
    rotated_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    created_at: Mapped[datetime] = mapped_column(UTCDateTime())
    last_used_at: Mapped[datetime] = mapped_column(UTCDateTime())
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime())
    revoked_at: Mapped[datetime | None] = mapped_column(UTCDateTime())
    user_agent: Mapped[str | None] = mapped_column(String(255))
    ip: Mapped[str | None] = mapped_column(String(64))
