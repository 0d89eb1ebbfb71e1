"""Révocations en mémoire : ce qui permet de refuser un jeton sans entrée-sortie."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from fastapi_acl.shared.sync.changes import ACCOUNT_REVOKED, SESSION_REVOKED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastapi_acl.shared.database.base import Transaction
    from fastapi_acl.shared.sync.changes import Change, ChangeLog


@dataclass(slots=True)
class _Revoked:
    """Sessions mortes et versions minimales, avec l'instant où chaque ligne devient inutile."""

    sessions: dict[str, datetime] = field(default_factory=dict)
    versions: dict[str, tuple[int, datetime]] = field(default_factory=dict)

    def add(self, change: Change) -> None:
        """Range une entrée du journal, si elle est une révocation."""
        if change.live_until is None:
            return
        if change.kind == SESSION_REVOKED:
            self.sessions[change.payload["session_id"]] = change.live_until
        elif change.kind == ACCOUNT_REVOKED:
            known, until = self.versions.get(change.payload["user_id"], (0, change.live_until))
            version = max(known, change.payload["session_version"])
            self.versions[change.payload["user_id"]] = (version, max(until, change.live_until))

    def purge(self) -> None:
        """Oublie ce qui ne concerne plus aucun jeton vivant."""
        now = datetime.now(timezone.utc)
        self.sessions = {key: until for key, until in self.sessions.items() if until > now}
        self.versions = {key: entry for key, entry in self.versions.items() if entry[1] > now}


class Revocations:
    """Mémoire des révocations vivantes, alimentée par le journal (voir `Replica`)."""

    def __init__(self, log: ChangeLog) -> None:
        """Part vide.

        Args:
            log: journal où les révocations vivantes se relisent.
        """
        self._log = log
        self._revoked = _Revoked()

    def refuses(self, *, user_id: str, session_id: str, session_version: int) -> bool:
        """Dit si un jeton d'accès de cette session n'a plus cours."""
        minimum = self._revoked.versions.get(user_id)
        return session_id in self._revoked.sessions or (minimum is not None and session_version < minimum[0])

    async def read(self, transaction: Transaction) -> Sequence[Change]:
        """Lit les révocations vivantes."""
        return await self._log.live(transaction)

    def install(self, state: Iterable[Change]) -> None:
        """Joint ce qui a été lu à ce que l'on savait : une base revenue en arrière ne rend pas cours à un jeton."""
        revoked = replace(self._revoked)
        revoked.purge()
        for change in state:
            revoked.add(change)
        self._revoked = revoked

    def apply(self, change: Change) -> None:
        """Ajoute une révocation que ce processus vient de valider."""
        self._revoked.add(change)
        self._revoked.purge()
