"""Le journal ordonné dans une base SQL."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, final

from sqlalchemy import Select, delete, func, insert, or_, select
from sqlalchemy.exc import IntegrityError

from fastapi_acl.shared.database.tables import changes_table
from fastapi_acl.shared.stored import read_number, read_value
from fastapi_acl.shared.sync.changes import (
    KEPT,
    LASTING_KINDS,
    Change,
    ChangeLog,
    as_found,
    name_unexpected_entry,
    read_entry,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

    from fastapi_acl.shared.database.base import Transaction


@final
class SQLChangeLog(ChangeLog):
    """Les tables `acl_changes` et `acl_revision`."""

    async def since(self, transaction: Transaction, revision: int, *, limit: int) -> Sequence[Change]:
        """Renvoie les entrées d'après une révision."""
        return await self._select(transaction, _where(changes_table.c.revision > revision).limit(limit))

    async def live(self, transaction: Transaction, *, margin: timedelta) -> Sequence[Change]:
        """Renvoie les entrées qui concernent encore des jetons vivants."""
        return await self._select(transaction, _where(_is_live(margin)))

    async def last(self, transaction: Transaction, kind: str) -> Change | None:
        """Renvoie la dernière entrée de cette nature."""
        latest = _where(changes_table.c.kind == kind).order_by(None).order_by(changes_table.c.revision.desc())
        return next(iter(await self._select(transaction, latest.limit(1))), None)

    async def find(self, transaction: Transaction, actor: str, key: str) -> Change | None:
        """Renvoie l'entrée d'une clé."""
        known = _where(changes_table.c.actor == actor, changes_table.c.idempotency_key == key)
        return next(iter(await self._select(transaction, known)), None)

    async def holds(self, transaction: Transaction, change: Change) -> bool:
        """Cherche une entrée par sa révision et son témoin."""
        known = _where(changes_table.c.revision == change.revision, changes_table.c.change_id == change.change_id)
        return bool(await self._select(transaction, known))

    async def witness(self, transaction: Transaction, revision: int) -> str | None:
        """Cherche le témoin d'une entrée."""
        query = select(changes_table.c.change_id).where(changes_table.c.revision == revision)
        row = (await transaction.connection.execute(query)).one_or_none()
        return as_found(row[0]) if row is not None else None

    async def revision_at(self, transaction: Transaction, instant: datetime) -> int:
        """Renvoie la dernière révision d'avant la première entrée écrite depuis un instant."""
        query = select(func.min(changes_table.c.revision)).where(changes_table.c.at >= instant)
        first = await transaction.connection.scalar(query)
        if first is None:
            return (await self.head(transaction)).revision
        return read_value(("acl_changes", "revision", first, "revision"), first, read_number) - 1

    async def discard(self, transaction: Transaction, up_to: int) -> int:
        """Retire les entrées jusqu'à une révision."""
        useless = delete(changes_table).where(
            changes_table.c.revision <= up_to,
            changes_table.c.kind.not_in(LASTING_KINDS),
            or_(changes_table.c.live_until.is_(None), ~_is_live(KEPT)),
        )
        result: Any = await transaction.connection.execute(useless)
        return int(result.rowcount)

    async def _write(self, transaction: Transaction, change: Change) -> None:
        """Écrit une entrée, si la base en admet la taille."""
        columns = _columns(change)
        await self._database.check_size(transaction, len(columns["payload"]))
        try:
            await transaction.connection.execute(insert(changes_table).values(**columns))
        except IntegrityError as error:
            raise name_unexpected_entry(change) from error

    async def _select(self, transaction: Transaction, query: Select[Any]) -> list[Change]:
        """Exécute une lecture et refait les entrées."""
        return [read_entry(row._mapping) for row in (await transaction.connection.execute(query)).all()]  # noqa: SLF001 - l'interface publique d'une ligne


def _where(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Lit, dans l'ordre, les entrées qui remplissent des conditions."""
    return select(changes_table).where(*conditions).order_by(changes_table.c.revision)


def _is_live(margin: timedelta) -> ColumnElement[bool]:
    """Retient les entrées qui concernent encore des jetons vivants, ou en concernaient il y a peu."""
    alive: ColumnElement[bool] = changes_table.c.live_until > datetime.now(timezone.utc) - margin
    return alive


def _columns(change: Change) -> dict[str, Any]:
    """Range une entrée dans les colonnes de la table."""
    return {
        "revision": change.revision,
        "at": change.at,
        "actor": change.actor,
        "kind": change.kind,
        "payload": json.dumps(change.payload, separators=(",", ":")),
        "live_until": change.live_until,
        "change_id": change.change_id,
        "idempotency_key": change.key.value if change.key else None,
        "request_digest": change.key.digest if change.key else None,
    }
