"""Textes comparés exactement, espaces de fin compris, sur MySQL et MariaDB."""

from alembic import op

from fastapi_acl.shared.database.migrations.steps import create_foreign_key, drop_foreign_key, make_exact

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
    """Change la collation ; celle d'avant tenait « alice » et « alice » suivi d'un espace pour le même texte.

    Ailleurs que sur MySQL, rien n'oublie les espaces.
    """
    if op.get_bind().dialect.name == "mysql":
        drop_foreign_key("fk_acl_sessions_user_id", "acl_sessions")
        make_exact(*TABLES)
        create_foreign_key("fk_acl_sessions_user_id", "acl_sessions.user_id", "acl_users.id")
