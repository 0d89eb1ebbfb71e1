"""Joue les migrations dans une connexion et une transaction déjà ouvertes."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from fastapi_acl.shared.database.tables import VERSION_TABLE
from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def migrate_connection(connection: Connection, *, upgrade: bool) -> None:
    """Met le schéma à la dernière version.

    Args:
        connection: connexion dont la transaction tient déjà le verrou de migration.
        upgrade: joue les migrations ; sinon, exige que le schéma soit à jour.

    Raises:
        ConfigurationError: le schéma est en retard sans qu'on puisse migrer, ou vient d'une version plus récente.
    """
    config = _config(connection)
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
    if current == scripts.get_current_head():
        return
    _check_known(current, scripts)
    if not upgrade:
        message = (
            "le schéma de la base est en retard et ACL_AUTO_MIGRATE est coupé : lancez « fastapi-acl migrate » "
            "avant de démarrer."
        )
        raise ConfigurationError(message)
    command.upgrade(config, "head")


def _check_known(current: str | None, scripts: ScriptDirectory) -> None:
    """Refuse un schéma qu'une version plus récente du paquet a écrit."""
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        message = (
            f"le schéma de la base (version « {current} ») vient d’une version plus récente de fastapi-acl : "
            "mettez le paquet à jour."
        )
        raise ConfigurationError(message)


def _config(connection: Connection) -> Config:
    """Fait la configuration d'Alembic sans fichier, pour qu'elle ne touche pas à celle de l'application."""
    config = Config()
    location = str(files("fastapi_acl.shared.database.migrations"))
    config.set_main_option("script_location", location.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
