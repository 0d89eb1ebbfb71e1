"""Métadonnées communes et tables du journal ordonné."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
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
    text,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.orm import DeclarativeBase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.engine import Connection
    from sqlalchemy.types import TypeEngine

VERSION_TABLE: Final = "acl_alembic_version"
"""Table de version d'Alembic, à part de celle de l'application."""

TABLE_OPTIONS: Final[dict[str, Any]] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
"""Options de chaque table sur MySQL, dont la collation par défaut confond « alice », « Alice » et « alicé ».

Celle-ci oublie encore les espaces de fin. La collation exacte n'a pas le même nom sur MySQL et sur MariaDB : une
migration la donne ensuite (`steps.make_exact`), ce que toute table nouvelle doit aussi faire.
"""

TRANSLATED: Final = "schema_translate_map"
"""Option d'exécution par laquelle SQLAlchemy qualifie nos tables, qui n'ont pas de schéma à elles."""

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
    __table_args__: Any = TABLE_OPTIONS


class _AnyDateTime(sqlite.DATETIME):
    """Date de SQLite, dont une colonne garde n'importe quoi : ce qui n'est pas une date reste tel quel."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Renvoie ce qui lit une date, sans lever."""
        read: Any = super().result_processor(dialect, coltype)

        def read_or_keep(value: Any) -> Any:  # noqa: ANN401 - ce que la base a rendu
            try:
                return read(value)
            except (ValueError, TypeError):
                return value

        return read_or_keep


class UTCDateTime(TypeDecorator[datetime]):
    """Instant en UTC, à la microseconde ; SQLite et MySQL, qui oublient le fuseau, le retrouvent à la lecture.

    Une valeur qui n'est pas une date passe telle quelle : `fastapi_acl.shared.stored` juge ce qu'une ligne contient.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Demande à MySQL ses microsecondes, qu'il couperait."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(_AnyDateTime())  # type: ignore[no-untyped-call]  # de SQLAlchemy
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name == "mysql" else self.impl_instance)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - signature de SQLAlchemy
        """Ramène l'instant en UTC avant de l'écrire."""
        return value.astimezone(timezone.utc) if value is not None else None

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ANN401, ARG002 - idem
        """Renvoie un instant qui porte son fuseau."""
        if not isinstance(value, datetime):
            return value
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


class Flag(Boolean):
    """Booléen ; SQLite et MySQL, qui gardent un nombre, rendent tel quel celui qui n'est ni 0 ni 1."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:  # noqa: ARG002 - signature de SQLAlchemy
        """Renvoie ce qui lit un booléen, sans rien deviner."""
        return lambda value: bool(value) if type(value) is int and value in {0, 1} else value


def schema_of(connection: Connection) -> str | None:
    """Renvoie le schéma dont une connexion qualifie nos tables, pour qui les nomme lui-même ; None sans schéma."""
    translated: Mapping[str | None, str] = connection.get_execution_options().get(TRANSLATED, {})
    return translated.get(None)


LongText: Final = Text().with_variant(mysql.LONGTEXT(), "mysql")
"""Texte sans limite utile ; TEXT en a une sur MySQL : 65 535 octets."""

OLDEST_VERSION: Final = "0.1.0"
"""Plus ancienne version du paquet que ce schéma admet."""

revision_table: Final = Table(
    "acl_revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("log_id", String(36), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("policy_revision", BigInteger, nullable=False),
    Column("rule_id", BigInteger, nullable=False, server_default=text("0")),
    Column("compacted", BigInteger, nullable=False, server_default=text("0")),
    Column("snapshot", String(36), nullable=True),
    Column("min_code_version", String(32), nullable=False, server_default=OLDEST_VERSION),
    CheckConstraint("id = 1", name="single_row"),
    **TABLE_OPTIONS,
)
"""Une seule ligne, dont le verrou ordonne les écritures : identité du journal, compteurs, ce qui en a été compacté.

Les valeurs par défaut servent aux processus d'une version antérieure, qui ne connaissent pas ces colonnes et tournent
encore pendant un déploiement progressif.
"""

changes_table: Final = Table(
    "acl_changes",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UTCDateTime(), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("payload", LongText, nullable=False),
    Column("live_until", UTCDateTime(), nullable=True),
    Column("change_id", String(36), nullable=False, server_default=text("''")),
    Column("idempotency_key", String(64), nullable=True),
    Column("request_digest", String(64), nullable=True),
    Index("ix_acl_changes_live_until", "live_until"),
    Index("ix_acl_changes_kind", "kind"),
    Index("uq_acl_changes_actor", "actor", "idempotency_key", unique=True),
    **TABLE_OPTIONS,
)
"""Le journal : une ligne par changement qui doit atteindre chaque processus, dans l'ordre des validations."""

batches_table: Final = Table(
    "acl_batches",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("created_at", UTCDateTime(), nullable=False),
    Column("published", Boolean, nullable=False),
    **TABLE_OPTIONS,
)
"""Les lots de règles : un import qui se prépare, ou les règles telles qu'elles étaient à une révision compactée."""

batch_rules_table: Final = Table(
    "acl_batch_rules",
    metadata,
    Column("batch_id", String(36), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("ptype", String(255), nullable=False),
    *(Column(f"v{index}", String(255), nullable=True) for index in range(6)),
    Column("digest", String(64), nullable=False),
    **TABLE_OPTIONS,
)
"""Les règles d'un lot, dans l'ordre de leurs numéros ; elles n'ont pas cours tant que rien ne les publie."""
