"""Index par lesquels se cherchent les sessions finies."""

from fastapi_acl.shared.database.migrations.steps import create_index

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Ajoute un index pour chaque façon de finir : par la fin absolue, ou faute d'usage."""
    create_index("ix_acl_sessions_expires_at", "acl_sessions", ["expires_at"])
    create_index("ix_acl_sessions_last_used_at", "acl_sessions", ["last_used_at"])
