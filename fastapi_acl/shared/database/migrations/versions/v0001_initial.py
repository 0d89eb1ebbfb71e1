"""Premier schéma : comptes, sessions, règles, journal."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

from fastapi_acl.shared.database.migrations.steps import create_index, create_table, insert_first_row
from fastapi_acl.shared.database.tables import LongText, UTCDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Crée les tables et la ligne unique des compteurs."""
    _create_accounts()
    _create_sessions()
    _create_rules()
    _create_log()


def _create_accounts() -> None:
    create_table(
        "acl_users",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("username", sa.String(64), nullable=False),
        sa.Column("username_key", sa.String(190), nullable=False),
        sa.Column("email", sa.String(254), nullable=True),
        sa.Column("email_key", sa.String(190), nullable=True),
        sa.Column("hashed_password", sa.String(255), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("is_verified", sa.Boolean(), nullable=False),
        sa.Column("session_version", sa.Integer(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("updated_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_acl_users"),
        sa.UniqueConstraint("username_key", name="uq_acl_users_username_key"),
        sa.UniqueConstraint("email_key", name="uq_acl_users_email_key"),
    )


def _create_sessions() -> None:
    create_table(
        "acl_sessions",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("session_version", sa.Integer(), nullable=False),
        sa.Column("refresh_digest", sa.String(64), nullable=False),
        sa.Column("previous_digest", sa.String(64), nullable=True),
        sa.Column("rotated_at", UTCDateTime(), nullable=True),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("last_used_at", UTCDateTime(), nullable=False),
        sa.Column("expires_at", UTCDateTime(), nullable=False),
        sa.Column("revoked_at", UTCDateTime(), nullable=True),
        sa.Column("user_agent", sa.String(255), nullable=True),
        sa.Column("ip", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_acl_sessions"),
        sa.ForeignKeyConstraint(["user_id"], ["acl_users.id"], name="fk_acl_sessions_user_id", ondelete="CASCADE"),
    )
    create_index("ix_acl_sessions_user_id", "acl_sessions", ["user_id"])


def _create_rules() -> None:
    create_table(
        "casbin_rule",
        sa.Column("id", _number(), autoincrement=True, nullable=False),
        sa.Column("ptype", sa.String(255), nullable=False),
        *(sa.Column(f"v{index}", sa.String(255), nullable=True) for index in range(6)),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_casbin_rule"),
        sa.UniqueConstraint("digest", name="uq_casbin_rule_digest"),
    )


def _number() -> sa.types.TypeEngine[int]:
    """Renvoie le type d'un numéro que la base donne ; SQLite ne le fait que d'un INTEGER."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _create_log() -> None:
    create_table(
        "acl_revision",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("log_id", sa.String(36), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("policy_revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_acl_revision"),
        sa.CheckConstraint("id = 1", name=op.f("ck_acl_revision_single_row")),
    )
    insert_first_row("acl_revision", {"id": 1, "log_id": str(uuid4()), "revision": 0, "policy_revision": 0})
    create_table(
        "acl_changes",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("payload", LongText, nullable=False),
        sa.Column("live_until", UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("revision", name="pk_acl_changes"),
    )
    create_index("ix_acl_changes_live_until", "acl_changes", ["live_until"])
    create_index("ix_acl_changes_kind", "acl_changes", ["kind"])
