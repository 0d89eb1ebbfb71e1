"""Choix du cache d'après la configuration ; Redis n'est importé que s'il sert."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_acl.shared.cache.base import CacheKey, ValueSealer
from fastapi_acl.shared.cache.memory_cache import MemoryCache

if TYPE_CHECKING:
    from fastapi_acl.shared.cache.base import CacheBackend
    from fastapi_acl.shared.config import ACLConfig


@dataclass(frozen=True, slots=True)
class CacheFactory:
    """Fait le cache que la configuration demande, sans ouvrir de connexion."""

    config: ACLConfig

    def create(self) -> CacheBackend:
        """Fait la mémoire du processus, ou Redis, que cette mémoire remplace tant qu'il ne répond pas.

        Sans `enable_cache`, la mémoire du processus porte encore compteurs et défis.

        Raises:
            ConfigurationError: l'adresse de Redis est fautive.
        """
        config, memory = self.config, MemoryCache(default_ttl=self.config.cache_ttl)
        if not config.enable_cache or config.cache_backend != "redis" or config.redis_url is None:
            return memory
        return self._create_redis(config.redis_url.get_secret_value(), memory)

    def _create_redis(self, url: str, memory: MemoryCache) -> CacheBackend:
        # Redis ne sert pas toujours : ni lui ni son cache ne se chargent sans cela.
        from fastapi_acl.shared.cache.redis_cache import FallbackCache, RedisCache  # noqa: PLC0415
        from fastapi_acl.shared.redis.breaker import Breaker  # noqa: PLC0415
        from fastapi_acl.shared.redis.client import create_redis  # noqa: PLC0415

        config = self.config
        keys = (config.jwt_secret_key, *config.jwt_previous_keys)
        sealer = ValueSealer([key.get_secret_value() for key in keys if key is not None])
        prefix = self._make_prefix()
        shared = RedisCache(lambda: create_redis(url), Breaker(), prefix, config.cache_ttl, sealer=sealer)
        return FallbackCache(shared, memory)

    def _make_prefix(self) -> str:
        """Fait ce qui précède les clés : les applications d'un Redis, aux jetons distincts, ne s'y croisent pas."""
        application = CacheKey.of(self.config.jwt_issuer, self.config.jwt_audience).encode_parts()
        return f"acl:{hashlib.sha256(application).hexdigest()[:16]}:"
