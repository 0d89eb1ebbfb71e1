"""Choix de la base d'après la configuration ; seul ce que la base choisie demande est importé."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymongo import IndexModel

    from fastapi_acl.shared.config import ACLConfig
    from fastapi_acl.shared.database.mongodb import MongoDatabase
    from fastapi_acl.shared.database.sql import PoolSettings, SQLDatabase

NO_PORT: Final = 0
LAST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class DatabaseFactory:
    """Fait la base que `database_type` nomme, sans ouvrir de connexion."""

    config: ACLConfig

    def create_sql(self) -> SQLDatabase:
        """Fait la base SQL.

        Raises:
            ConfigurationError: le pilote manque, ou l'adresse ne se lit pas.
        """
        config = self.config
        _check_uri(config)
        if config.database_type == "sqlite":
            from fastapi_acl.shared.database.sqlite import SQLiteDatabase  # noqa: PLC0415 - pilote chargé à la demande

            return SQLiteDatabase(config.database_uri, auto_migrate=config.auto_migrate)
        if config.database_type == "postgresql":
            _need("asyncpg", extra="postgresql")
            from fastapi_acl.shared.database.postgresql import PostgreSQLDatabase  # noqa: PLC0415 - idem

            return PostgreSQLDatabase(
                config.database_uri,
                auto_migrate=config.auto_migrate,
                pool=_make_pool(config),
                schema=config.postgresql_schema,
            )
        if config.database_type == "mysql":
            _need("aiomysql", extra="mysql")
            from fastapi_acl.shared.database.mysql import MySQLDatabase  # noqa: PLC0415 - idem

            return MySQLDatabase(config.database_uri, auto_migrate=config.auto_migrate, pool=_make_pool(config))
        message = f"database_type « {config.database_type} » n’est pas une base SQL."
        raise ConfigurationError(message)

    @staticmethod
    def require_mongodb() -> None:
        """Vérifie que le pilote de MongoDB est installé, avant que quoi que ce soit l'importe.

        Raises:
            ConfigurationError: il manque ; le message donne la commande.
        """
        _need("pymongo", extra="mongodb")

    def create_mongodb(self, indexes: Mapping[str, Sequence[IndexModel]]) -> MongoDatabase:
        """Fait la base MongoDB.

        Args:
            indexes: ceux que chaque dépôt demande, par collection.

        Raises:
            ConfigurationError: l'adresse ne se lit pas.
        """
        from fastapi_acl.shared.database.mongodb import MongoDatabase  # noqa: PLC0415 - pilote chargé à la demande

        return MongoDatabase(self.config.database_uri, indexes, auto_migrate=self.config.auto_migrate)


def _make_pool(config: ACLConfig) -> PoolSettings:
    """Fait la réserve que la configuration demande."""
    from fastapi_acl.shared.database.sql import PoolSettings  # noqa: PLC0415 - SQLAlchemy ne sert pas à MongoDB

    return PoolSettings(
        config.database_pool_size, config.database_max_overflow, timeout=config.database_timeout_seconds
    )


def _check_uri(config: ACLConfig) -> None:
    """Vérifie que l'adresse se lit, sans la citer.

    Raises:
        ConfigurationError: elle ne se lit pas.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - SQLAlchemy ne sert pas à MongoDB
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - idem

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
