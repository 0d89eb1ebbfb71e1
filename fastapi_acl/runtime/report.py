"""Ce qu'un manager dit de lui-même : sa santé, et ce qu'il a compté."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from fastapi_acl.shared.http.health import Health

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_acl.engine.authorizer import PolicyAuthorizer
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.writing.model_record import ModelRecord
    from fastapi_acl.shared.cache.base import CacheBackend
    from fastapi_acl.shared.config import ACLConfig
    from fastapi_acl.shared.database.base import AmbientDatabase
    from fastapi_acl.shared.sync.replica import Replica
    from fastapi_acl.shared.sync.watcher import Watcher

LATE_LOOKS: Final = 2
LATE_SECONDS: Final = 1.0
"""Retard d'un regard sur la base, en tours puis en secondes, au-delà duquel la santé s'en plaint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Lit l'état de ce processus dans ceux qui le tiennent ; ni base, ni réseau.

    Attributes:
        is_ready: dit si la politique est chargée.
    """

    config: ACLConfig
    database: AmbientDatabase
    replica: Replica
    watcher: Watcher | None
    cache: CacheBackend
    policy: Policy
    authorizer: PolicyAuthorizer
    model_record: ModelRecord
    is_ready: Callable[[], bool]

    def health(self) -> Health:
        """Dit l'état de ce processus."""
        age = self.replica.age_seconds
        return Health(
            status=self._status(),
            revision=self.replica.revision,
            database_revision=self.replica.database_revision,
            lag_seconds=round(age, 3) if math.isfinite(age) else None,
            watcher=self._watcher_status,
            cache=self.cache.status,
            quarantined_rows=self.policy.skipped_rows,
            model_differs=self.model_record.differs,
            database_refuses=self.database.is_refusing,
            has_unreadable_data=bool(self.replica.unreadable),
        )

    def counters(self) -> dict[str, int]:
        """Renvoie ce que ce processus a compté depuis son démarrage ; voir `fastapi_acl.metrics`."""
        cache = self.cache.counts
        return {
            "allowed": self.authorizer.allowed,
            "denied": self.authorizer.denied,
            "reloads": self.replica.reloads,
            "catch_up_entries": self.replica.applied,
            "cache_hits": cache.hits,
            "cache_misses": cache.misses,
        }

    def _status(self) -> Literal["ok", "degraded", "unavailable"]:
        """Résume l'état : ce processus décide-t-il, et en pleine possession de ses moyens ?"""
        if not self.is_ready() or self.replica.age_seconds > self.config.max_staleness_seconds:
            return "unavailable"
        return "degraded" if self._is_behind() or self._has_trouble() else "ok"

    def _is_behind(self) -> bool:
        """Dit si la base a été vue il y a longtemps, ou si elle en sait plus que nous."""
        is_late = self.replica.age_seconds > LATE_LOOKS * self.config.policy_poll_seconds + LATE_SECONDS
        return is_late or self.replica.database_revision != self.replica.revision

    def _has_trouble(self) -> bool:
        """Dit si quelque chose est à réparer, qui n'empêche pas de décider."""
        return (
            self._watcher_status not in {"connected", "none"}
            or self.cache.status == "redis_fallback"
            or self.policy.skipped_rows > 0
            or self.model_record.differs
            or self.database.is_refusing
            or bool(self.replica.unreadable)
        )

    @property
    def _watcher_status(self) -> Literal["connected", "connecting", "stopped", "none"]:
        """Où en est le watcher, s'il y en a un."""
        return self.watcher.status if self.watcher is not None else "none"
