"""Droits gardés dans le cache : les processus se les partagent, et un changement de règles en fait d'autres."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final, final

from pydantic import TypeAdapter, ValidationError

from fastapi_acl.permissions.application.interface.grants import IGrants
from fastapi_acl.shared.cache.base import CacheKey
from fastapi_acl.shared.policy import Grant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_acl.shared.cache.base import CacheBackend, JsonValue
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.policy import PolicyStamp

NAMESPACE: Final = "grants"

MAX_KEPT: Final = 500
"""Droits au-delà desquels rien n'est gardé : les écrire et les relire d'un coup tiendrait la boucle d'événements."""

_GRANTS: Final = TypeAdapter(list[Grant])


@final
class CachedGrants(IGrants):
    """Garde les droits d'un appelant sous le condensé de la politique qui les donne ; rien n'y est donc à périmer."""

    def __init__(self, grants: IGrants, cache: CacheBackend) -> None:
        """Retient les deux sources.

        Args:
            grants: ce qui les lit de la politique.
            cache: ce qui les garde.
        """
        self._grants = grants
        self._cache = cache

    def stamp(self, principal: Principal, domain: str | None) -> PolicyStamp:
        """Renvoie de quoi reconnaître les droits d'un appelant sans les lire."""
        return self._grants.stamp(principal, domain)

    async def of(self, principal: Principal, domain: str | None) -> tuple[PolicyStamp, Sequence[Grant]]:
        """Renvoie les droits d'un appelant, gardés ou lus ; ce qui ne se lit pas dans le cache y est absent."""
        stamp = self.stamp(principal, domain)
        kept = _read(await self._cache.get(_make_key(stamp)))
        if kept is not None:
            return stamp, kept
        stamp, grants = await self._grants.of(principal, domain)
        if len(grants) <= MAX_KEPT:
            await self._cache.set(_make_key(stamp), [asdict(grant) for grant in grants])
        return stamp, grants


def _make_key(stamp: PolicyStamp) -> CacheKey:
    """Renvoie la clé des droits que donne une politique ; le condensé porte déjà sur le sujet."""
    return CacheKey.of(NAMESPACE, stamp.digest)


def _read(value: JsonValue | None) -> list[Grant] | None:
    """Lit des droits ; None pour tout ce qui n'en est pas."""
    try:
        return None if value is None else _GRANTS.validate_python(value)
    except ValidationError:
        return None
