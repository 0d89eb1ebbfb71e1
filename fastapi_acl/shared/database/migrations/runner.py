"""Joue les migrations dans une connexion et une transaction déjà ouvertes."""

from __future__ import annotations

from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, insert, inspect, select

from fastapi_acl.shared.database.base import COMPACTION, Head
from fastapi_acl.shared.database.tables import VERSION_TABLE, changes_table, revision_table, schema_of
from fastapi_acl.shared.database.versions import check_runs_ahead, refuse_without_schema, schema_behind
from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

logger = get_logger("database")

_REVISION: Final = changes_table.c.revision

RULES_TABLE: Final = "casbin_rule"
"""Nom que tous les adaptateurs de Casbin donnent à leur table."""


def migrate_connection(connection: Connection, *, upgrade: bool) -> None:
    """Met le schéma à la dernière version, ou vérifie qu'on peut tourner sur un schéma plus récent.

    Args:
        connection: connexion dont la transaction tient déjà le verrou de migration.
        upgrade: joue les migrations ; sinon, exige que le schéma soit à jour.

    Raises:
        ConfigurationError: le schéma est en retard sans qu'on puisse migrer, il demande une version plus récente du
            paquet, ou une table `casbin_rule` d'un autre adaptateur tient la place de la nôtre.
    """
    config = _config(connection)
    if _is_usable(connection, config):
        return
    _check_rules_table(connection)
    schema_behind(upgrade=upgrade)
    command.upgrade(config, "head")


def check_connection(connection: Connection) -> None:
    """Vérifie, sans rien écrire, que le schéma est à jour, ou assez récent pour qu'on y tourne.

    Args:
        connection: connexion, dans une transaction quelconque.

    Raises:
        ConfigurationError: il est absent, en retard, ou d'une version future qui en demande une plus récente du paquet.
    """
    if not _is_usable(connection, _config(connection)):
        _check_rules_table(connection)
        refuse_without_schema()


def _is_usable(connection: Connection, config: Config) -> bool:
    """Dit si le schéma est à jour, ou plus récent que le paquet sans le lui interdire."""
    scripts = ScriptDirectory.from_config(config)
    versions = {"version_table": VERSION_TABLE, "version_table_schema": schema_of(connection)}
    current = MigrationContext.configure(connection, opts=versions).get_current_revision()
    if current == scripts.get_current_head():
        return True
    if current is None or current in {script.revision for script in scripts.walk_revisions()}:
        return False
    check_runs_ahead(current, connection.scalar(select(revision_table.c.min_code_version)) or "0")
    return True


def restore_head(connection: Connection) -> None:
    """Refait la tête du journal si sa ligne manque : sous une autre identité, car nul ne sait ce qui s'est perdu.

    Args:
        connection: connexion dont la transaction tient le verrou de migration, schéma à jour.
    """
    if connection.scalar(select(func.count()).select_from(revision_table)):
        return
    first, last = connection.execute(select(func.min(_REVISION), func.max(_REVISION))).one()
    compactions = select(changes_table.c.payload).where(changes_table.c.kind == COMPACTION)
    compaction = connection.scalar(compactions.order_by(_REVISION.desc()).limit(1))
    head = Head.rebuilt(first, last, compaction)
    connection.execute(insert(revision_table).values(id=1, **asdict(head)))
    logger.error("log_head_restored: revision=%d", head.revision)


def _check_rules_table(connection: Connection) -> None:
    """Refuse de prendre pour la nôtre la table d'un autre adaptateur de Casbin.

    Raises:
        ConfigurationError: elle n'a pas nos colonnes.
    """
    found, schema = inspect(connection), schema_of(connection)
    if not found.has_table(RULES_TABLE, schema):
        return
    if "digest" not in {one["name"] for one in found.get_columns(RULES_TABLE, schema)}:
        message = (
            f"la table « {RULES_TABLE} » de cette base vient d’un autre adaptateur de Casbin : renommez-la "
            f"(par exemple en « {RULES_TABLE}_avant »), démarrez, puis importez ses règles."
        )
        raise ConfigurationError(message)


def _config(connection: Connection) -> Config:
    """Fait la configuration d'Alembic sans fichier, pour qu'elle ne touche pas à celle de l'application."""
    config = Config()
    location = str(files("fastapi_acl.shared.database.migrations"))
    config.set_main_option("script_location", location.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
