"""Cache dans Redis, et la mémoire du processus quand Redis manque.

Source : https://redis.io/docs/latest/commands/eval/
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from redis.exceptions import ResponseError

from fastapi_acl.shared.cache.base import (
    DEFAULT_TTL_SECONDS,
    MAX_VALUE_BYTES,
    CacheBackend,
    CacheCounts,
    CacheKey,
    ValueSealer,
)
from fastapi_acl.shared.redis.breaker import RedisRefusedError, RedisUnavailableError
from fastapi_acl.shared.redis.client import close_redis

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fastapi_acl.shared.cache.base import CacheStatus, JsonValue
    from fastapi_acl.shared.cache.memory_cache import MemoryCache
    from fastapi_acl.shared.redis.breaker import Breaker

T = TypeVar("T")

MAX_COMMANDS: Final = 50
"""Commandes en cours à la fois : le pool de redis-py en refuse au-delà de cent, comme une panne."""

MAX_SUSPECTS: Final = 10_000
"""Clés dont on retient, pendant une panne, que Redis en garde peut-être une valeur périmée."""

BATCH: Final = 500

PROBE: Final = CacheKey.of("probe")
"""Clé que personne n'écrit : la lire dit si Redis répond."""

TAKE: Final = """
local value = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[1])
redis.call('DEL', KEYS[1])
return type(value) == 'string' and value or false
"""
"""Lit et retire ; en Lua, car GETDEL n'existe qu'à partir de Redis 6.2, et n'est pas borné."""

INCREMENT: Final = """
local total = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(total) == 'table' then
  redis.call('SET', KEYS[1], ARGV[1])
  total = tonumber(ARGV[1])
end
if redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return total
"""
"""Ajoute ; ce qui n'est pas un compteur est remplacé, et seul un compteur sans échéance en reçoit une."""


@final
class RedisCache:
    """Cache que les processus partagent.

    Chaque méthode lève RedisUnavailableError quand Redis ne répond pas : voir `FallbackCache`.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        breaker: Breaker,
        prefix: str,
        default_ttl: float = DEFAULT_TTL_SECONDS,
        *,
        sealer: ValueSealer,
    ) -> None:
        """Fait un client, qu'il ferme à la fin.

        Args:
            connect: fait un client sans ouvrir de connexion ; voir `create_redis`.
            breaker: ce qui décide d'essayer.
            prefix: ce qui précède chaque clé, propre à une application.
            default_ttl: durée de vie d'une valeur, en secondes.
            sealer: ce qui écrit et relit les valeurs ; les processus qui partagent le cache ont les mêmes secrets.
        """
        self._sealer = sealer
        self._connect = connect
        self._client = connect()
        self._breaker = breaker
        self._prefix = prefix.encode()
        self._default_ttl = default_ttl
        self._slots = asyncio.Semaphore(MAX_COMMANDS)

    def abandon(self) -> None:
        """Repart d'un client neuf : les connexions de l'ancien tiennent à leur boucle."""
        self._client, self._slots = self._connect(), asyncio.Semaphore(MAX_COMMANDS)
        self._breaker.abandon()

    async def get(self, key: CacheKey) -> JsonValue | None:
        """Renvoie une valeur ; d'une valeur démesurée, seul le début est lu, et ne vaut rien."""
        name = self._name(key)
        return self._sealer.unseal(name, await self._run(lambda: self._read(name)))

    async def set(self, key: CacheKey, value: JsonValue, ttl: float | None = None) -> None:
        """Garde une valeur ; trop grande, elle ne l'est pas, et l'ancienne s'en va."""
        name = self._name(key)
        sealed = self._sealer.seal(name, value)
        if sealed is None:
            await self.delete(key)
            return
        await self._run(lambda: self._client.set(name, sealed, px=_milliseconds(ttl or self._default_ttl)))

    async def delete(self, key: CacheKey) -> None:
        """Retire une valeur ou un compteur."""
        await self.delete_all([key.encode_parts()])

    async def delete_all(self, keys: Sequence[bytes]) -> None:
        """Retire des valeurs et des compteurs, par leurs clés écrites."""
        await self._run(lambda: self._client.delete(*(self._prefix + key for key in keys)))

    async def increment(self, key: CacheKey, amount: int, ttl: float) -> int:
        """Ajoute à un compteur, sans en prolonger la vie, et rend son total."""
        return await self._run(lambda: self._increment(key, amount, _milliseconds(ttl)))

    async def take(self, key: CacheKey) -> JsonValue | None:
        """Renvoie une valeur et la retire : Redis n'exécute rien d'autre entre les deux."""
        return self._sealer.unseal(self._name(key), await self._run(lambda: self._eval(TAKE, key, MAX_VALUE_BYTES)))

    async def close(self) -> None:
        """Ferme les connexions."""
        await close_redis(self._client)

    def _name(self, key: CacheKey) -> bytes:
        return self._prefix + key.encode_parts()

    async def _increment(self, key: CacheKey, amount: int, milliseconds: int) -> int:
        return int(await self._eval(INCREMENT, key, amount, milliseconds))

    def _eval(self, script: str, key: CacheKey, *arguments: int) -> Awaitable[Any]:
        evaluated: Awaitable[Any] = self._client.eval(script, 1, self._name(key), *arguments)
        return evaluated

    async def _read(self, name: bytes) -> object:
        """Lit une valeur, au plus un octet de trop ; ce qui n'est pas une chaîne est absent."""
        try:
            found: object = await self._client.getrange(name, 0, MAX_VALUE_BYTES)
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                return None
            raise
        return found

    async def _run(self, command: Callable[[], Awaitable[T]]) -> T:
        """Exécute une commande quand une place se libère.

        Raises:
            RedisUnavailableError: Redis ne répond pas.
        """
        async with self._slots:
            return await self._breaker.call(lambda: self._try(command))

    async def _try(self, command: Callable[[], Awaitable[T]]) -> T:
        """Exécute une commande ; après une panne, par une connexion neuve : chaque ancienne coûterait un échec."""
        pool = getattr(self._client, "connection_pool", None)  # un cluster ferme d'elle-même celles qui échouent
        if self._breaker.is_open and pool is not None:
            await pool.disconnect(inuse_connections=False)
        return await command()


@final
class FallbackCache(CacheBackend):
    """Cache dans Redis ; tant que Redis manque, dans la mémoire du processus.

    Au retour de Redis, ce que la mémoire a gardé est oublié, et les clés qui y ont changé sont retirées de Redis
    avant toute lecture : une valeur d'avant la panne ne reparaît pas. Au-delà de `MAX_SUSPECTS` de ces clés, les plus
    anciennes ne sont plus bornées que par leur durée de vie.
    """

    def __init__(self, redis: RedisCache, memory: MemoryCache) -> None:
        """Part de Redis.

        Args:
            redis: le cache partagé.
            memory: celui du processus, à lui seul.
        """
        self._redis = redis
        self._memory = memory
        self.counts = CacheCounts()
        self._is_fallen = False
        self._suspects: dict[bytes, None] = {}

    @property
    def status(self) -> CacheStatus:
        """Redis, ou la mémoire à sa place."""
        return "redis_fallback" if self._is_fallen else "redis"

    async def get(self, key: CacheKey) -> JsonValue | None:
        """Renvoie une valeur."""
        value = await self._either(lambda: self._redis.get(key), lambda: self._memory.get(key))
        self.counts = self.counts.after(value)
        return value

    async def set(self, key: CacheKey, value: JsonValue, ttl: float | None = None) -> None:
        """Garde une valeur.

        Une écriture tentée et restée sans réponse a pu aboutir : la garder aussi en mémoire permettrait à deux
        processus de la prendre. Elle est donc perdue ; seule une écriture que le disjoncteur a refusée va en mémoire.
        """
        try:
            await self._through(lambda: self._redis.set(key, value, ttl))
        except RedisRefusedError:
            await self._memory.set(key, value, ttl)
            self._suspect(key)
        except RedisUnavailableError:
            await self._memory.delete(key)
            self._suspect(key)

    async def delete(self, key: CacheKey) -> None:
        """Retire une valeur ou un compteur."""
        try:
            await self._through(lambda: self._redis.delete(key))
        except RedisUnavailableError:
            await self._memory.delete(key)
            self._suspect(key)

    async def increment(self, key: CacheKey, amount: int, ttl: float) -> int:
        """Ajoute à un compteur ; pendant une panne, chaque processus compte pour soi."""
        return await self._either(
            lambda: self._redis.increment(key, amount, ttl), lambda: self._memory.increment(key, amount, ttl)
        )

    async def take(self, key: CacheKey) -> JsonValue | None:
        """Renvoie une valeur et la retire."""
        return await self._either(lambda: self._redis.take(key), lambda: self._memory.take(key))

    async def revive(self) -> None:
        """Essaie Redis s'il manquait ; le disjoncteur dit s'il est temps."""
        if self._is_fallen:
            with suppress(RedisUnavailableError):
                await self._through(lambda: self._redis.get(PROBE))

    def abandon(self) -> None:
        """Oublie les connexions d'une boucle d'événements qui n'existe plus."""
        self._redis.abandon()

    async def close(self) -> None:
        """Ferme les deux."""
        await self._memory.close()
        await self._redis.close()

    async def _either(self, through: Callable[[], Awaitable[T]], instead: Callable[[], Awaitable[T]]) -> T:
        """Passe par Redis, ou par la mémoire."""
        try:
            return await self._through(through)
        except RedisUnavailableError:
            return await instead()

    async def _through(self, command: Callable[[], Awaitable[T]]) -> T:
        """Passe par Redis, une fois retirées les clés suspectes.

        Raises:
            RedisUnavailableError: il ne répond pas.
        """
        try:
            await self._clear_suspects()
            result = await command()
        except RedisUnavailableError:
            self._is_fallen = True
            raise
        if self._is_fallen:
            self._is_fallen = False
            self._memory.clear()
        return result

    async def _clear_suspects(self) -> None:
        """Retire de Redis ce qui y est peut-être périmé ; interrompu, reprendra où il en est."""
        while self._suspects:
            batch = list(self._suspects)[:BATCH]
            await self._redis.delete_all(batch)
            for key in batch:
                self._suspects.pop(key, None)

    def _suspect(self, key: CacheKey) -> None:
        """Retient une clé dont Redis garde peut-être une valeur périmée."""
        self._suspects[key.encode_parts()] = None
        if len(self._suspects) > MAX_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]


def _milliseconds(seconds: float) -> int:
    """Renvoie une durée de vie telle que Redis l'entend : entière, et jamais nulle."""
    return max(1, round(seconds * 1000))
