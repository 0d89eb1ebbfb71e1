"""Choix de la base d'après la configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from fastapi_acl.shared.database.sql import PoolSettings
from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from fastapi_acl.shared.config import ACLConfig
    from fastapi_acl.shared.database.sql import SQLDatabase

NO_PORT: Final = 0
LAST_PORT: Final = 65_535


def create_database(config: ACLConfig) -> SQLDatabase:
    """Fait la base SQL que `database_type` nomme ; son pilote n'est importé que si elle est choisie.

    Raises:
        ConfigurationError: le pilote manque, ou l'adresse ne se lit pas.
    """
    _check_uri(config)
    if config.database_type == "sqlite":
        from fastapi_acl.shared.database.sqlite import SQLiteDatabase  # noqa: PLC0415 - pilote chargé à la demande

        return SQLiteDatabase(config.database_uri, auto_migrate=config.auto_migrate)
    if config.database_type == "postgresql":
        _need("asyncpg", extra="postgresql")
        from fastapi_acl.shared.database.postgresql import PostgreSQLDatabase  # noqa: PLC0415 - idem

        return PostgreSQLDatabase(
            config.database_uri, auto_migrate=config.auto_migrate, pool=pool_of(config), schema=config.postgresql_schema
        )
    if config.database_type == "mysql":
        _need("aiomysql", extra="mysql")
        from fastapi_acl.shared.database.mysql import MySQLDatabase  # noqa: PLC0415 - idem

        return MySQLDatabase(config.database_uri, auto_migrate=config.auto_migrate, pool=pool_of(config))
    message = f"database_type « {config.database_type} » n’est pas une base SQL."
    raise ConfigurationError(message)


def require_mongodb() -> None:
    """Vérifie que le pilote de MongoDB est installé, avant que quoi que ce soit l'importe.

    Raises:
        ConfigurationError: il manque ; le message donne la commande.
    """
    _need("pymongo", extra="mongodb")


def pool_of(config: ACLConfig) -> PoolSettings:
    """Rend la réserve que la configuration demande."""
    return PoolSettings(
        config.database_pool_size, config.database_max_overflow, timeout=config.database_timeout_seconds
    )


def _check_uri(config: ACLConfig) -> None:
    """Vérifie que l'adresse se lit, sans la citer.

    Raises:
        ConfigurationError: elle ne se lit pas.
    """
    try:
        port = make_url(config.database_uri).port
    except (ArgumentError, ValueError):
        port = NO_PORT
    if port is not None and not 0 < port <= LAST_PORT:
        message = f"l’adresse de la base (ACL_{config.database_type.upper()}_URI) ne se lit pas : vérifiez le port."
        raise ConfigurationError(message)


def _need(module: str, *, extra: str) -> None:
    """Vérifie que le pilote est installé.

    Raises:
        ConfigurationError: il manque ; le message donne la commande.
    """
    try:
        __import__(module)
    except ImportError as error:
        message = f"le pilote « {module} » manque : installez-le avec « pip install 'fastapi-acl[{extra}]' »."
        raise ConfigurationError(message) from error
