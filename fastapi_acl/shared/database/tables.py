"""Métadonnées communes et tables du journal ordonné."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase

VERSION_TABLE: Final = "acl_alembic_version"
"""Table de version d'Alembic, à part de celle de l'application."""

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Base(DeclarativeBase):
    """Racine des modèles ORM de la bibliothèque, à part de celle de l'application."""

    metadata = metadata


class UTCDateTime(TypeDecorator[datetime]):
    """Instant en UTC, à la microseconde ; SQLite, qui oublie le fuseau, le retrouve à la lecture."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - signature de SQLAlchemy
        """Ramène l'instant en UTC avant de l'écrire."""
        return value.astimezone(timezone.utc) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - idem
        """Rend un instant qui porte son fuseau."""
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


revision_table: Final = Table(
    "acl_revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("log_id", String(36), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("policy_revision", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single_row"),
)
"""Une seule ligne : l'identité du journal et ses deux compteurs. La verrouiller ordonne les écritures."""

changes_table: Final = Table(
    "acl_changes",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UTCDateTime(), nullable=False),
    Column("actor", String(190), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    Column("live_until", UTCDateTime(), nullable=True),
    Index("ix_acl_changes_live_until", "live_until"),
    Index("ix_acl_changes_kind", "kind"),
)
"""Le journal : une ligne par changement qui doit atteindre chaque processus, dans l'ordre des validations."""
