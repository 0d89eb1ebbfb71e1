"""Choix du cache d'après la configuration ; Redis n'est importé que s'il sert."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fastapi_acl.shared.cache.base import CacheKey, ValueSealer
from fastapi_acl.shared.cache.memory_cache import MemoryCache

if TYPE_CHECKING:
    from fastapi_acl.shared.cache.base import CacheBackend
    from fastapi_acl.shared.config import ACLConfig


def create_cache(config: ACLConfig) -> CacheBackend:
    """Construit le cache que la configuration demande, sans ouvrir de connexion.

    Args:
        config: réglages ; `enable_cache` coupé, la mémoire du processus porte encore compteurs et défis.

    Returns:
        La mémoire du processus, ou Redis, que cette mémoire remplace tant qu'il ne répond pas.

    Raises:
        ConfigurationError: l'adresse de Redis est fautive.
    """
    memory = MemoryCache(default_ttl=config.cache_ttl)
    if not config.enable_cache or config.cache_backend != "redis" or config.redis_url is None:
        return memory
    from fastapi_acl.shared.cache.redis_cache import FallbackCache, RedisCache  # noqa: PLC0415 - Redis ne sert pas toujours
    from fastapi_acl.shared.redis.breaker import Breaker  # noqa: PLC0415 - idem
    from fastapi_acl.shared.redis.client import create_redis  # noqa: PLC0415 - idem

    url = config.redis_url.get_secret_value()
    keys = (config.jwt_secret_key, *config.jwt_previous_keys)
    sealer = ValueSealer([key.get_secret_value() for key in keys if key is not None])
    shared = RedisCache(lambda: create_redis(url), Breaker(), _prefix(config), config.cache_ttl, sealer=sealer)
    return FallbackCache(shared, memory)


def _prefix(config: ACLConfig) -> str:
    """Rend ce qui précède les clés : deux applications d'un même Redis, aux jetons distincts, ne s'y croisent pas."""
    application = CacheKey.of(config.jwt_issuer, config.jwt_audience).encoded()
    return f"acl:{hashlib.sha256(application).hexdigest()[:16]}:"
