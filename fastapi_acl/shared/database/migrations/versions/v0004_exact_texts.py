"""Textes comparés exactement, espaces de fin compris, sur MySQL et MariaDB."""

from fastapi_acl.shared.database.migrations.steps import make_exact

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = (
    "acl_users",
    "acl_sessions",
    "casbin_rule",
    "acl_revision",
    "acl_changes",
    "acl_batches",
    "acl_batch_rules",
)


def upgrade() -> None:
    """Change la collation ; celle d'avant tenait « alice » et « alice » suivi d'un espace pour le même texte."""
    make_exact(*TABLES)
