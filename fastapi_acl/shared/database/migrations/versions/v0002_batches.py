"""Lots de règles, compaction du journal, clés d'idempotence et témoins des changements."""

import sqlalchemy as sa

from fastapi_acl.shared.database.migrations.steps import add_column, create_index, create_table
from fastapi_acl.shared.database.tables import UTCDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Ajoute des colonnes et des tables ; ce que lit et écrit la version d'avant ne change pas.

    Les valeurs par défaut restent : un processus de la version d'avant peut encore écrire pendant un déploiement.
    """
    _extend_revision()
    _extend_changes()
    _create_batches()


def _extend_revision() -> None:
    add_column("acl_revision", sa.Column("rule_id", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    add_column("acl_revision", sa.Column("compacted", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    add_column("acl_revision", sa.Column("snapshot", sa.String(36), nullable=True))
    add_column("acl_revision", sa.Column("min_code_version", sa.String(32), nullable=False, server_default="0.1.0"))


def _extend_changes() -> None:
    add_column("acl_changes", sa.Column("change_id", sa.String(36), nullable=False, server_default=sa.text("''")))
    add_column("acl_changes", sa.Column("idempotency_key", sa.String(64), nullable=True))
    add_column("acl_changes", sa.Column("request_digest", sa.String(64), nullable=True))
    create_index("uq_acl_changes_actor", "acl_changes", ["actor", "idempotency_key"], unique=True)


def _create_batches() -> None:
    create_table(
        "acl_batches",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("published", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_acl_batches"),
    )
    create_table(
        "acl_batch_rules",
        sa.Column("batch_id", sa.String(36), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ptype", sa.String(255), nullable=False),
        *(sa.Column(f"v{index}", sa.String(255), nullable=True) for index in range(6)),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_acl_batch_rules"),
    )
