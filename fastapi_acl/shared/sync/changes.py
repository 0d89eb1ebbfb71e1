"""Le journal ordonné : tout ce qui doit atteindre chaque processus, une entrée par changement.

Les révisions sont contiguës et suivent l'ordre des validations : qui journalise tient d'abord la ligne unique de
`acl_revision`, de sorte qu'un lecteur à la révision N n'a pu manquer aucune entrée d'avant N.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select, update

from fastapi_acl.shared.database.tables import changes_table, revision_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from fastapi_acl.shared.database.base import Transaction

POLICY_CHANGED: Final = "policy_changed"
POLICY_SEEDED: Final = "policy_seeded"
ADMIN_CREATED: Final = "administrator_created"
SESSION_REVOKED: Final = "session_revoked"
ACCOUNT_REVOKED: Final = "account_revoked"

POLICY_KINDS: Final = frozenset({POLICY_CHANGED})
"""Natures d'entrées qui changent les règles, et donc `policy_revision`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Une entrée du journal.

    Attributes:
        revision: son rang, contigu.
        at: l'instant de l'écriture, en UTC.
        actor: sujet de celui qui l'a faite (`user:<id>` ou `system`).
        kind: sa nature, un nom stable.
        payload: le changement lui-même, en JSON.
        live_until: instant après lequel elle ne concerne plus aucun jeton vivant ; None si elle n'en concerne pas.
    """

    revision: int
    at: datetime
    actor: str
    kind: str
    payload: Mapping[str, Any]
    live_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Tête du journal : son identité et ses deux compteurs."""

    log_id: str
    revision: int
    policy_revision: int


class ChangeLog:
    """Le journal dans une base SQL ; toutes les méthodes s'exécutent dans la transaction qu'on leur donne."""

    async def head(self, transaction: Transaction) -> Head:
        """Rend la tête du journal."""
        session: AsyncSession = transaction.connection
        columns = revision_table.c
        row = (await session.execute(select(columns.log_id, columns.revision, columns.policy_revision))).one()
        return Head(row.log_id, row.revision, row.policy_revision)

    async def append(
        self,
        transaction: Transaction,
        kind: str,
        payload: Mapping[str, Any],
        *,
        actor: str,
        live_until: datetime | None = None,
    ) -> Change:
        """Écrit l'entrée suivante.

        Raises:
            TransactionNotOrderedError: la transaction n'a pas été ouverte avec `log=True`.
        """
        transaction.check_ordered()
        change = Change(
            revision=await self._advance(transaction.connection, changes_policy=kind in POLICY_KINDS),
            at=datetime.now(timezone.utc),
            actor=actor,
            kind=kind,
            payload=payload,
            live_until=live_until,
        )
        await transaction.connection.execute(insert(changes_table).values(**_columns(change)))
        transaction.recorded += 1
        return change

    async def live(self, transaction: Transaction) -> Sequence[Change]:
        """Rend les entrées qui concernent encore des jetons vivants, dans l'ordre."""
        alive = changes_table.c.live_until > datetime.now(timezone.utc)
        query = select(changes_table).where(alive).order_by(changes_table.c.revision)
        return [_change(row) for row in (await transaction.connection.execute(query)).all()]

    async def last(self, transaction: Transaction, kind: str) -> Change | None:
        """Rend la dernière entrée de cette nature, ou None."""
        query = select(changes_table).where(changes_table.c.kind == kind)
        latest = query.order_by(changes_table.c.revision.desc()).limit(1)
        row = (await transaction.connection.execute(latest)).one_or_none()
        return _change(row) if row is not None else None

    async def _advance(self, session: AsyncSession, *, changes_policy: bool) -> int:
        """Avance les compteurs, dont la ligne est déjà tenue, et rend la nouvelle révision."""
        revision: int = (await session.scalars(select(revision_table.c.revision))).one() + 1
        counters = {"revision": revision} | ({"policy_revision": revision} if changes_policy else {})
        await session.execute(update(revision_table).values(**counters))
        return revision


def _columns(change: Change) -> dict[str, Any]:
    """Range une entrée dans les colonnes de la table."""
    return {
        "revision": change.revision,
        "at": change.at,
        "actor": change.actor,
        "kind": change.kind,
        "payload": json.dumps(change.payload, separators=(",", ":")),
        "live_until": change.live_until,
    }


def _change(row: Any) -> Change:  # noqa: ANN401 - ligne SQLAlchemy
    """Refait une entrée d'une ligne de la table."""
    return Change(
        revision=row.revision,
        at=row.at,
        actor=row.actor,
        kind=row.kind,
        payload=json.loads(row.payload),
        live_until=row.live_until,
    )
