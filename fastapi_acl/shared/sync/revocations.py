"""Révocations en mémoire : ce qui permet de refuser un jeton sans entrée-sortie."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

from fastapi_acl.shared.exceptions import PolicyUnreadableError
from fastapi_acl.shared.logging import get_logger
from fastapi_acl.shared.sync.changes import ACCOUNT_REVOKED, SESSION_REVOKED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastapi_acl.shared.database.base import Transaction
    from fastapi_acl.shared.sync.changes import Change, ChangeLog

logger = get_logger("sync")

CLOCK_MARGIN: Final = timedelta(hours=1)
"""Écart entre deux horloges, ou saut de l'une, qui ne rend cours à aucun jeton révoqué."""


class _Minimum(NamedTuple):
    """Version de session en deçà de laquelle un compte est refusé, et l'instant monotone où cela s'oublie."""

    version: int
    until: float


@dataclass(slots=True)
class _Revoked:
    """Sessions mortes, avec l'instant monotone où chacune s'oublie, et versions minimales ; d'abord les anciennes."""

    sessions: dict[str, float] = field(default_factory=dict)
    versions: dict[str, _Minimum] = field(default_factory=dict)

    def add(self, change: Change, until: float) -> None:
        """Range une entrée du journal, si elle est une révocation."""
        if change.kind == SESSION_REVOKED:
            key = change.payload["session_id"]
            self.sessions[key] = max(until, self.sessions.pop(key, until))
        elif change.kind == ACCOUNT_REVOKED:
            key, version = change.payload["user_id"], change.payload["session_version"]
            known = self.versions.pop(key, _Minimum(version, until))
            self.versions[key] = _Minimum(max(known.version, version), max(known.until, until))

    def purge(self) -> None:
        """Oublie ce qui ne concerne plus aucun jeton vivant ; ne coûte que ce qui part."""
        now = time.monotonic()
        for key in list(takewhile(lambda key: self.sessions[key] <= now, self.sessions)):
            del self.sessions[key]
        for key in list(takewhile(lambda key: self.versions[key].until <= now, self.versions)):
            del self.versions[key]


class Revocations:
    """Mémoire des révocations vivantes, alimentée par le journal (voir `Replica`).

    Une révocation s'oublie sur l'horloge monotone, bien après la vie d'un jeton : les horloges murales s'écartent,
    sautent, et ne disent donc pas qu'un jeton révoqué a expiré.
    """

    def __init__(self, log: ChangeLog, token_life: timedelta) -> None:
        """Part vide.

        Args:
            log: journal où les révocations vivantes se relisent.
            token_life: temps pendant lequel un jeton signé peut avoir cours, tolérance comprise.
        """
        self._log = log
        self._kept = token_life + CLOCK_MARGIN
        self._revoked = _Revoked()

    def refuses(self, *, user_id: str, session_id: str, session_version: int) -> bool:
        """Dit si un jeton d'accès de cette session n'a plus cours."""
        minimum = self._revoked.versions.get(user_id)
        return session_id in self._revoked.sessions or (minimum is not None and session_version < minimum.version)

    async def read(self, transaction: Transaction) -> Sequence[Change]:
        """Lit les révocations vivantes, et celles qui l'étaient il y a peu.

        Raises:
            PolicyUnreadableError: l'une ne se lit pas : elle révoquait quelqu'un, et l'ignorer lui rouvrirait.
        """
        found = await self._log.live(transaction, margin=self._kept)
        lost = next((change for change in found if not change.is_known), None)
        if lost is not None:
            logger.error(
                "revocation_unreadable: revision=%d ; corrigez l'entrée, ou retirez-la d'acl_changes", lost.revision
            )
            raise PolicyUnreadableError(table="acl_changes")
        return found

    def install(self, state: Iterable[Change]) -> None:
        """Joint ce qui a été lu à ce que l'on savait : une base revenue en arrière ne rend pas cours à un jeton."""
        revoked = _Revoked(dict(self._revoked.sessions), dict(self._revoked.versions))
        for change in state:
            revoked.add(change, self._until(change))
        revoked.purge()
        self._revoked = revoked

    def apply(self, change: Change) -> None:
        """Ajoute une révocation que ce processus vient de valider."""
        self._revoked.add(change, self._until(change))
        self._revoked.purge()

    def _until(self, change: Change) -> float:
        """Renvoie l'instant monotone où une entrée s'oublie : après la vie d'un jeton, ici comme chez son auteur."""
        written = (change.live_until - change.at if change.live_until is not None else timedelta()) + CLOCK_MARGIN
        return time.monotonic() + max(written, self._kept).total_seconds()
