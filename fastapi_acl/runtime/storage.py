"""Le stockage : ce qu'une base fournit à toutes les tranches, et le seul endroit qui choisit entre les bases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_acl.shared.database.factory import DatabaseFactory

if TYPE_CHECKING:
    from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository, ISessionRepository
    from fastapi_acl.engine.adapters.base import PolicyAdapter
    from fastapi_acl.shared.config import ACLConfig
    from fastapi_acl.shared.database.base import AmbientDatabase
    from fastapi_acl.shared.sync.changes import ChangeLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Ce qu'une base garde, et par quoi chaque tranche y accède.

    Attributes:
        database: connexions, transactions et schéma.
        log: le journal ordonné.
        adapter: les règles.
        users: les comptes.
        sessions: les sessions.
    """

    database: AmbientDatabase
    log: ChangeLog
    adapter: PolicyAdapter
    users: IAuthRepository
    sessions: ISessionRepository


def create_storage(config: ACLConfig) -> Storage:
    """Fait le stockage que `database_type` nomme ; aucune connexion n'est encore ouverte.

    Raises:
        ConfigurationError: le pilote manque, ou l'adresse ne se lit pas.
    """
    return _mongodb(config) if config.database_type == "mongodb" else _sql(config)


def _sql(config: ACLConfig) -> Storage:
    """Fait le stockage d'une base SQL, seule à charger SQLAlchemy."""
    database = DatabaseFactory(config).create_sql()
    from fastapi_acl.auth.infrastructure.repositories import auth_repository  # noqa: PLC0415 - pour cette base seule
    from fastapi_acl.auth.infrastructure.repositories.session_repository import (  # noqa: PLC0415 - idem
        SQLSessionRepository,
    )
    from fastapi_acl.engine.adapters.sql import SQLPolicyAdapter  # noqa: PLC0415 - idem
    from fastapi_acl.shared.sync.sql_changes import SQLChangeLog  # noqa: PLC0415 - idem

    accounts = {
        "sqlite": auth_repository.SQLiteAuthRepository,
        "postgresql": auth_repository.PostgreSQLAuthRepository,
        "mysql": auth_repository.MySQLAuthRepository,
    }
    return Storage(
        database=database,
        log=SQLChangeLog(database),
        adapter=SQLPolicyAdapter(database),
        users=accounts[config.database_type](database),
        sessions=SQLSessionRepository(database),
    )


def _mongodb(config: ACLConfig) -> Storage:
    """Fait le stockage de MongoDB, seul à charger son pilote."""
    factory = DatabaseFactory(config)
    factory.require_mongodb()
    from fastapi_acl.auth.infrastructure.repositories import (  # noqa: PLC0415 - pour cette base seule
        mongodb_auth_repository as accounts,
    )
    from fastapi_acl.auth.infrastructure.repositories import (  # noqa: PLC0415 - idem
        mongodb_session_repository as sessions,
    )
    from fastapi_acl.engine.adapters import mongodb as rules  # noqa: PLC0415 - idem
    from fastapi_acl.shared.sync.mongodb_changes import MongoChangeLog  # noqa: PLC0415 - idem

    database = factory.create_mongodb({**rules.INDEXES, **accounts.INDEXES, **sessions.INDEXES})
    return Storage(
        database=database,
        log=MongoChangeLog(database),
        adapter=rules.MongoPolicyAdapter(database),
        users=accounts.MongoDBAuthRepository(database),
        sessions=sessions.MongoDBSessionRepository(database),
    )
