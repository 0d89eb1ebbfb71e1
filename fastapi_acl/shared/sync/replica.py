"""Ce que ce processus sait du journal : la révision appliquée, et les mémoires qu'elle tient à jour."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi_acl.shared.exceptions import PolicyUnavailableError
from fastapi_acl.shared.logging import get_logger
from fastapi_acl.shared.sync.changes import POLICY_KINDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from fastapi_acl.shared.database.base import Database, Transaction
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.sync.changes import Change, ChangeLog, Head

logger = get_logger("sync")

UNLOADED: Final = -1
"""Révision d'un processus qui n'a encore rien chargé."""


class Memory(Protocol):
    """Une mémoire que le journal tient à jour (les règles, les révocations)."""

    async def read(self, transaction: Transaction) -> Any:  # noqa: ANN401 - état propre à chaque mémoire
        """Lit l'état entier, à l'instant de la transaction, sans rien changer en mémoire."""

    def install(self, state: Any) -> None:  # noqa: ANN401 - idem
        """Met l'état lu en service, d'une seule affectation."""

    def apply(self, change: Change) -> None:
        """Applique une entrée, si elle concerne cette mémoire."""


class Replica:
    """Applique le journal aux mémoires du processus, dans l'ordre et seulement vers l'avant."""

    def __init__(self, database: Database, log: ChangeLog, memories: Sequence[Memory]) -> None:
        """Retient les mémoires à tenir ; rien n'est chargé avant `refresh`.

        Args:
            database: base où le journal se lit.
            log: le journal.
            memories: mémoires à tenir à jour.
        """
        self._database = database
        self._log = log
        self._memories = memories
        self._head: Head | None = None
        self._revision = UNLOADED
        self._policy_revision = UNLOADED
        self._seen_at = float("-inf")

    @property
    def revision(self) -> int:
        """Dernière révision appliquée, ou -1."""
        return self._revision

    @property
    def policy_revision(self) -> int:
        """Dernière révision appliquée qui a changé les règles, ou -1."""
        return self._policy_revision

    @property
    def is_loaded(self) -> bool:
        """Vrai si les mémoires sont en service."""
        return self._revision != UNLOADED

    @property
    def age_seconds(self) -> float:
        """Temps écoulé depuis que la révision de la base a été vue, en secondes."""
        return time.monotonic() - self._seen_at

    def require_fresh(self, max_staleness: float) -> None:
        """Refuse d'aller plus loin avec des mémoires absentes ou trop vieilles.

        Args:
            max_staleness: âge toléré, en secondes.

        Raises:
            PolicyUnavailableError: la base n'a pas été vue depuis plus longtemps.
        """
        if not self.is_loaded or self.age_seconds > max_staleness:
            raise PolicyUnavailableError

    async def refresh(self) -> None:
        """Regarde la révision de la base et recharge les mémoires si elle a changé.

        Raises:
            DatabaseUnavailableError: la base ne répond pas ; les mémoires restent ce qu'elles étaient.
        """
        started = time.monotonic()
        async with self._database.snapshot() as transaction:
            head, states = await self._read(transaction)
        self._install(head, states)
        self._seen_at = started

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Transaction]:
        """Ouvre une transaction ordonnée, mémoires à jour, ou se joint à celle qui est ouverte."""
        async with self._database.transaction(log=True) as transaction:
            if not transaction.recorded:
                self._install(*await self._read(transaction))
            yield transaction

    async def record(
        self,
        transaction: Transaction,
        kind: str,
        payload: Mapping[str, Any],
        *,
        actor: Principal,
        live_until: datetime | None = None,
    ) -> int:
        """Journalise un changement ; les mémoires le verront à la validation.

        Returns:
            La révision du changement.
        """
        change = await self._log.append(transaction, kind, payload, actor=actor.name, live_until=live_until)
        transaction.after_commit(lambda: self._applied(change))
        return change.revision

    async def _read(self, transaction: Transaction) -> tuple[Head, list[Any] | None]:
        """Lit la tête et, si elle n'est pas la nôtre, l'état de chaque mémoire."""
        head = await self._log.head(transaction)
        if self._is_current(head):
            return head, None
        return head, [await memory.read(transaction) for memory in self._memories]

    def _is_current(self, head: Head) -> bool:
        """Dit si les mémoires sont à cette tête."""
        return self._head is not None and head.log_id == self._head.log_id and head.revision == self._revision

    def _install(self, head: Head, states: list[Any] | None) -> None:
        """Met en service ce qui a été lu, sauf si la mémoire a avancé pendant la lecture."""
        same_log = self._head is not None and head.log_id == self._head.log_id
        if states is None or (same_log and head.revision < self._revision):
            return
        for memory, state in zip(self._memories, states, strict=True):
            memory.install(state)
        self._head, self._revision, self._policy_revision = head, head.revision, head.policy_revision
        self._seen_at = time.monotonic()
        logger.info("replica_loaded: revision=%d", head.revision)

    def _applied(self, change: Change) -> None:
        """Applique une entrée validée par ce processus ; un trou attend le prochain `refresh`."""
        if change.revision != self._revision + 1:
            return
        try:
            for memory in self._memories:
                memory.apply(change)
        except Exception:
            logger.exception("replica_apply_failed: revision=%d", change.revision)
            self._revision = UNLOADED
            return
        self._revision = change.revision
        if change.kind in POLICY_KINDS:
            self._policy_revision = change.revision
