"""Le journal ordonné dans MongoDB."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, final

from pymongo.errors import DuplicateKeyError

from fastapi_acl.shared.database.mongodb import as_text
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
    from collections.abc import Mapping, Sequence

    from fastapi_acl.shared.database.base import Transaction
    from fastapi_acl.shared.database.mongodb import MongoDatabase

FORWARD, BACKWARD = 1, -1


@final
class MongoChangeLog(ChangeLog):
    """La collection `acl_changes` ; la révision est la clé du document."""

    _database: MongoDatabase

    async def since(self, transaction: Transaction, revision: int, *, limit: int) -> Sequence[Change]:
        """Renvoie les entrées d'après une révision."""
        return await self._select(transaction, {"_id": {"$gt": revision}}, limit=limit)

    async def live(self, transaction: Transaction, *, margin: timedelta) -> Sequence[Change]:
        """Renvoie les entrées qui concernent encore des jetons vivants."""
        return await self._select(transaction, {"live_until": {"$gt": _ago(margin)}})

    async def last(self, transaction: Transaction, kind: str) -> Change | None:
        """Renvoie la dernière entrée de cette nature."""
        return next(iter(await self._select(transaction, {"kind": kind}, limit=1, order=BACKWARD)), None)

    async def find(self, transaction: Transaction, actor: str, key: str) -> Change | None:
        """Renvoie l'entrée d'une clé."""
        return next(iter(await self._select(transaction, {"actor": actor, "idempotency_key": key}, limit=1)), None)

    async def holds(self, transaction: Transaction, change: Change) -> bool:
        """Cherche une entrée par sa révision et son témoin."""
        return bool(await self._select(transaction, {"_id": change.revision, "change_id": change.change_id}))

    async def witness(self, transaction: Transaction, revision: int) -> str | None:
        """Cherche le témoin d'une entrée."""
        changes = self._database.collection("acl_changes")
        found = await changes.find_one({"_id": revision}, {"change_id": 1}, session=transaction.connection)
        return as_found(found.get("change_id")) if found is not None else None

    async def revision_at(self, transaction: Transaction, instant: datetime) -> int:
        """Renvoie la dernière révision d'avant la première entrée écrite depuis un instant."""
        found = await self._select(transaction, {"at": {"$gte": as_text(instant)}}, limit=1)
        return found[0].revision - 1 if found else (await self.head(transaction)).revision

    async def discard(self, transaction: Transaction, up_to: int) -> int:
        """Retire les entrées jusqu'à une révision."""
        useless = {
            "_id": {"$lte": up_to},
            "kind": {"$nin": sorted(LASTING_KINDS)},
            "$or": [{"live_until": None}, {"live_until": {"$lte": _ago(KEPT)}}],
        }
        changes = self._database.collection("acl_changes")
        return int((await changes.delete_many(useless, session=transaction.connection)).deleted_count)

    async def _write(self, transaction: Transaction, change: Change) -> None:
        """Écrit une entrée, si la base en admet la taille."""
        document = _document(change)
        await self._database.check_size(transaction, len(document["payload"]))
        changes = self._database.collection("acl_changes")
        try:
            await changes.insert_one(document, session=transaction.connection)
        except DuplicateKeyError as error:
            raise name_unexpected_entry(change) from error

    async def _select(
        self, transaction: Transaction, wanted: Mapping[str, Any], *, limit: int = 0, order: int = FORWARD
    ) -> list[Change]:
        """Exécute une lecture et refait les entrées."""
        changes = self._database.collection("acl_changes")
        found = changes.find(wanted, session=transaction.connection).sort("_id", order).limit(limit)
        return [read_entry(_columns(document)) async for document in found]


def _ago(margin: timedelta) -> str | None:
    """Renvoie un instant passé, tel qu'il s'écrit."""
    return as_text(datetime.now(timezone.utc) - margin)


def _document(change: Change) -> dict[str, Any]:
    """Range une entrée dans son document ; le contenu reste un texte JSON, dont aucune clé ne surprend la base."""
    return {
        "_id": change.revision,
        "at": as_text(change.at),
        "actor": change.actor,
        "kind": change.kind,
        "payload": json.dumps(change.payload, separators=(",", ":")),
        "live_until": as_text(change.live_until),
        "change_id": change.change_id,
        "idempotency_key": change.key.value if change.key else None,
        "request_digest": change.key.digest if change.key else None,
    }


def _columns(found: Mapping[str, Any]) -> dict[str, Any]:
    """Range un document comme une ligne de table."""
    return {"idempotency_key": None, "request_digest": None, "live_until": None, **found, "revision": found["_id"]}
