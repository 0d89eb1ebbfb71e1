"""Choix du watcher d'après la configuration ; un pilote n'est importé que s'il sert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi_acl.shared.sync.announcements import Sealer
from fastapi_acl.shared.sync.watcher import Watcher

if TYPE_CHECKING:
    from fastapi_acl.shared.config import ACLConfig
    from fastapi_acl.shared.sync.replica import Replica
    from fastapi_acl.shared.sync.watcher import Transport


def create_watcher(config: ACLConfig, replica: Replica) -> Watcher | None:
    """Construit le watcher que la configuration demande ; None si les regards sur la base suffisent.

    Args:
        config: réglages.
        replica: mémoires du processus.
    """
    transport = _transport(config)
    keys = [config.jwt_secret_key, *config.jwt_previous_keys]
    secrets = [key.get_secret_value() for key in keys if key is not None]
    return Watcher(transport, replica, Sealer(secrets)) if transport is not None and secrets else None


def _transport(config: ACLConfig) -> Transport | None:
    """Construit ce qui porte les annonces."""
    if config.chosen_watcher == "redis" and config.redis_url is not None:
        from fastapi_acl.shared.sync.redis_watcher import RedisTransport  # noqa: PLC0415 - Redis n'est pas toujours là

        return RedisTransport(config.redis_url.get_secret_value())
    if config.chosen_watcher == "postgresql" and config.postgresql_uri is not None:
        from fastapi_acl.shared.sync.postgresql_watcher import PostgreSQLTransport  # noqa: PLC0415 - asyncpg non plus

        return PostgreSQLTransport(config.postgresql_uri.get_secret_value())
    return None
