"""Cache dans la mémoire du processus : borné, sans tâche de fond."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar, final

from fastapi_acl.shared.cache.base import DEFAULT_TTL_SECONDS, CacheBackend, CacheCounts, ValueSealer

if TYPE_CHECKING:
    from fastapi_acl.shared.cache.base import CacheKey, JsonValue

MAX_ENTRIES: Final = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """Ce qui est gardé, et l'instant monotone où cela cesse."""

    content: T
    until: float


@final
class MemoryCache(CacheBackend):
    """Cache d'un seul processus.

    Plein, il perd d'abord la valeur inutilisée depuis le plus longtemps, périmée ou non ; un compteur ne part que
    quand il ne reste plus de valeur : un flot de valeurs n'efface pas ce qui limite un débit. Les valeurs y sont
    scellées comme dans Redis : modifier ce qui en a été lu n'y change rien.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, default_ttl: float = DEFAULT_TTL_SECONDS) -> None:
        """Part vide.

        Args:
            max_entries: valeurs et compteurs, en tout.
            default_ttl: durée de vie d'une valeur, en secondes.
        """
        self._max_entries = max_entries
        self._default_ttl = default_ttl
        self._sealer = ValueSealer()
        self.counts = CacheCounts()
        self._values: OrderedDict[bytes, Entry[bytes]] = OrderedDict()
        self._counters: OrderedDict[bytes, Entry[int]] = OrderedDict()

    def __len__(self) -> int:
        """Compte ce qui est gardé, périmé compris."""
        return len(self._values) + len(self._counters)

    @property
    def status(self) -> Literal["memory"]:
        """La mémoire, toujours."""
        return "memory"

    async def get(self, key: CacheKey) -> JsonValue | None:
        """Renvoie une valeur, et la rajeunit dans l'ordre des départs."""
        name = key.encode_parts()
        entry = _living(self._values, name)
        value = None if entry is None else self._sealer.unseal(name, entry.content)
        self.counts = self.counts.after(value)
        return value

    async def set(self, key: CacheKey, value: JsonValue, ttl: float | None = None) -> None:
        """Garde une valeur ; trop grande, elle ne l'est pas, et l'ancienne s'en va."""
        name = key.encode_parts()
        sealed = self._sealer.seal(name, value)
        self._forget(name)
        if sealed is not None:
            self._values[name] = Entry(sealed, time.monotonic() + (ttl or self._default_ttl))
            self._make_room()

    async def delete(self, key: CacheKey) -> None:
        """Retire une valeur ou un compteur."""
        self._forget(key.encode_parts())

    async def increment(self, key: CacheKey, amount: int, ttl: float) -> int:
        """Ajoute à un compteur, sans en prolonger la vie, et rend son total."""
        name = key.encode_parts()
        entry = _living(self._counters, name)
        if entry is None:
            self._forget(name)
            entry = Entry(0, time.monotonic() + ttl)
        self._counters[name] = Entry(entry.content + amount, entry.until)
        self._make_room()
        return entry.content + amount

    async def take(self, key: CacheKey) -> JsonValue | None:
        """Renvoie une valeur et la retire : rien n'est attendu entre les deux."""
        name = key.encode_parts()
        entry = _living(self._values, name)
        self._forget(name)
        return None if entry is None else self._sealer.unseal(name, entry.content)

    async def revive(self) -> None:
        """Ne fait rien : la mémoire ne manque jamais."""

    def abandon(self) -> None:
        """Ne fait rien : la mémoire ne tient à aucune boucle."""

    async def close(self) -> None:
        """Oublie tout."""
        self.clear()

    def clear(self) -> None:
        """Oublie tout."""
        self._values.clear()
        self._counters.clear()

    def _forget(self, name: bytes) -> None:
        """Retire ce qui porte un nom."""
        self._values.pop(name, None)
        self._counters.pop(name, None)

    def _make_room(self) -> None:
        """Fait partir ce qui est de trop : les valeurs d'abord."""
        while len(self) > self._max_entries:
            entries = self._values or self._counters
            entries.popitem(last=False)


def _living(entries: OrderedDict[bytes, Entry[T]], name: bytes) -> Entry[T] | None:
    """Renvoie une entrée qui n'est pas périmée, et la met en dernier dans l'ordre des départs."""
    entry = entries.get(name)
    if entry is None:
        return None
    if entry.until <= time.monotonic():
        del entries[name]
        return None
    entries.move_to_end(name)
    return entry
