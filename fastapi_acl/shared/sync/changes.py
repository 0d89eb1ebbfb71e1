"""Le journal ordonné : tout ce qui doit atteindre chaque processus, une entrée par changement.

Les révisions sont contiguës et suivent l'ordre des validations : qui journalise tient d'abord la tête du journal
(`acl_revision`), de sorte qu'un lecteur à la révision N n'a pu manquer aucune entrée d'avant N. Le même journal est la
piste d'audit : qui, quand, ce qu'il y avait (`removed`) et ce qu'il y a (`added`).
"""

from __future__ import annotations

import hmac
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import uuid4

from fastapi_acl.shared.database.base import COMPACTION
from fastapi_acl.shared.exceptions import IdempotencyKeyReusedError
from fastapi_acl.shared.logging import get_logger
from fastapi_acl.shared.policy import PolicyChange
from fastapi_acl.shared.stored import (
    MISREADINGS,
    Shape,
    optional,
    read_flag,
    read_instant,
    read_number,
    read_text,
    read_value,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi_acl.shared.database.base import Head, Transaction
    from fastapi_acl.shared.exceptions import StoredDataError
    from fastapi_acl.shared.identity import Principal

logger = get_logger("sync")

POLICY_CHANGED: Final = "policy_changed"
POLICY_IMPORTED: Final = "policy_imported"
POLICY_SEEDED: Final = "policy_seeded"
ROW_QUARANTINED: Final = "row_quarantined"
ADMIN_CREATED: Final = "administrator_created"
SESSION_REVOKED: Final = "session_revoked"
ACCOUNT_REVOKED: Final = "account_revoked"
LOG_COMPACTED: Final = COMPACTION
MODEL_ADOPTED: Final = "model_adopted"

UNREADABLE: Final = "unreadable"
"""Nature que prend une entrée qu'on ne sait pas lire : écrite à la main, ou abîmée."""

RESTORE_ENTRY: Final = "tout se relit ; l’histoire s’arrête avant cette entrée d’acl_changes : restaurez-la"
"""Ce que fait une entrée illisible, et ce qu'il y a à en faire."""

BULK_KINDS: Final = frozenset({POLICY_IMPORTED, ROW_QUARANTINED, UNREADABLE})
"""Natures d'entrées dont le contenu n'est pas dans l'entrée : qui les rencontre relit tout."""

POLICY_KINDS: Final = BULK_KINDS | {POLICY_CHANGED}
"""Natures d'entrées qui changent les règles, et donc `policy_revision`."""

LASTING_KINDS: Final = frozenset({ADMIN_CREATED, POLICY_SEEDED, MODEL_ADOPTED})
"""Natures d'entrées que le démarrage cherche : une compaction les garde."""

KEPT: Final = timedelta(hours=25)
"""Temps qu'une révocation reste au journal une fois inutile : la plus longue vie d'un jeton, et une heure d'écart."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Clé d'un client qui pourrait renvoyer la même écriture.

    Attributes:
        value: la clé, de 1 à 64 caractères ASCII, unique avec l'auteur.
        digest: empreinte de la demande ; la même clé avec une autre empreinte est une faute du client.

    Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
    """

    value: str
    digest: str


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
        change_id: témoin unique de cette écriture, qui dit si une transaction en doute a été validée.
        key: clé du client, s'il en a donné une.
    """

    revision: int
    at: datetime
    actor: str
    kind: str
    payload: Mapping[str, Any]
    live_until: datetime | None = None
    change_id: str = field(default_factory=lambda: str(uuid4()))
    key: IdempotencyKey | None = None

    @property
    def is_bulk(self) -> bool:
        """Vrai s'il faut tout relire : l'entrée est en masse, illisible, ou d'une nature inconnue ici."""
        return self.kind in BULK_KINDS or not self.is_known

    @property
    def is_known(self) -> bool:
        """Vrai si l'on sait ce que l'entrée a changé ; une version plus récente peut en écrire d'autres."""
        return self.kind in PAYLOADS

    def unreadable(self) -> StoredDataError:
        """Nomme l'entrée, faute de savoir ce qu'elle a changé ; rend l'erreur à lever."""
        return unreadable("acl_changes", f"revision={self.revision}")


NEVER: Final = datetime.min.replace(tzinfo=timezone.utc)


def read_entry(columns: Mapping[str, Any]) -> Change:
    """Refait une entrée de ce que la base en garde.

    Args:
        columns: ses valeurs, par colonne ; `payload` est un texte JSON.

    Returns:
        L'entrée ; de nature `UNREADABLE` si une valeur n'a pas la forme attendue.

    Raises:
        StoredDataError: son rang même ne se lit pas.
    """
    given = columns.get("revision")
    revision = read_value(("acl_changes", "revision", given, "revision"), given, read_number)
    try:
        return _read_entry(revision, columns)
    except MISREADINGS:
        logger.error("log_entry_unreadable: revision=%d ; %s", revision, RESTORE_ENTRY)  # noqa: TRY400 - rien de la base
        actor, witness = (as_found(columns.get(name)) for name in ("actor", "change_id"))
        return Change(revision=revision, at=NEVER, actor=actor, kind=UNREADABLE, payload={}, change_id=witness)


def as_found(value: object) -> str:
    """Renvoie un texte tel que la base le garde, fût-il illisible : il ne sert qu'à être comparé."""
    return str(value or "")


def _read_entry(revision: int, columns: Mapping[str, Any]) -> Change:
    """Refait une entrée bien formée ; une des fautes de `MISREADINGS` dit qu'elle ne l'est pas."""
    kind, payload = read_text(columns["kind"]), json.loads(columns["payload"])
    _check_payload(kind, payload)
    return Change(
        revision=revision,
        at=read_instant(columns["at"]),
        actor=read_text(columns["actor"]),
        kind=kind,
        payload=payload,
        live_until=optional(read_instant)(columns["live_until"]),
        change_id=read_text(columns["change_id"]),
        key=_read_key(columns["idempotency_key"], columns["request_digest"]),
    )


def _read_key(value: object, digest: object) -> IdempotencyKey | None:
    """Refait la clé d'un client, s'il en a donné une."""
    return IdempotencyKey(read_text(value), optional(read_text)(digest) or "") if value is not None else None


def _check_payload(kind: str, payload: Mapping[str, Any]) -> None:
    """Vérifie le contenu d'une entrée ; d'une note, qui la lit sait se passer."""
    _ = payload.keys(), [read(payload[name]) for name, read in PAYLOADS.get(kind, {}).items()]
    if kind == POLICY_CHANGED:
        _ = PolicyChange.from_json(payload)


def _read_quarantined(row: Mapping[str, Any]) -> None:
    """Vérifie une ligne écartée, quoi qu'elle ait contenu."""
    _ = row["id"], [optional(read_text)(row.get(name)) for name in ("ptype", *(f"v{place}" for place in range(6)))]


PAYLOADS: Final[Mapping[str, Shape]] = {
    POLICY_CHANGED: {},
    POLICY_IMPORTED: {"batch": read_text, "after": read_number, "replaces": read_flag, "added": read_number},
    ROW_QUARANTINED: {"row": _read_quarantined},
    SESSION_REVOKED: {"session_id": read_text},
    ACCOUNT_REVOKED: {"user_id": read_text, "session_version": read_number},
    LOG_COMPACTED: {"up_to": read_number, "snapshot": read_text},
    **{kind: {} for kind in LASTING_KINDS},
}
"""Les lecteurs du contenu d'une entrée, par nature ; les natures qu'on connaît."""


class Heads(Protocol):
    """La tête du journal dans une base, qui en tient le verrou."""

    async def read_head(self, transaction: Transaction) -> Head:
        """Renvoie la tête du journal."""

    async def write_head(self, transaction: Transaction, head: Head) -> None:
        """Écrit la tête du journal, dont le verrou est tenu."""

    async def check_size(self, transaction: Transaction, size: int) -> None:
        """Refuse une entrée trop grande pour la base."""


class ChangeLog(ABC):
    """Le journal d'une base ; toutes les méthodes s'exécutent dans la transaction qu'on leur donne."""

    def __init__(self, database: Heads) -> None:
        """Retient la base.

        Args:
            database: base où le journal est gardé.
        """
        self._database = database

    async def head(self, transaction: Transaction) -> Head:
        """Renvoie la tête du journal."""
        return await self._database.read_head(transaction)

    @abstractmethod
    async def since(self, transaction: Transaction, revision: int, *, limit: int) -> Sequence[Change]:
        """Renvoie les entrées d'après une révision, dans l'ordre, `limit` au plus."""

    @abstractmethod
    async def live(self, transaction: Transaction, *, margin: timedelta) -> Sequence[Change]:
        """Renvoie les entrées qui concernent encore des jetons vivants, ou en concernaient il y a peu, dans l'ordre.

        Args:
            transaction: transaction de lecture.
            margin: ce que « il y a peu » veut dire : les horloges s'écartent, et les réglages changent.
        """

    @abstractmethod
    async def last(self, transaction: Transaction, kind: str) -> Change | None:
        """Renvoie la dernière entrée de cette nature, ou None."""

    @abstractmethod
    async def find(self, transaction: Transaction, actor: str, key: str) -> Change | None:
        """Renvoie l'entrée que cet auteur a écrite sous cette clé, ou None."""

    @abstractmethod
    async def holds(self, transaction: Transaction, change: Change) -> bool:
        """Dit si cette entrée même, et non une autre de même révision, est dans le journal."""

    @abstractmethod
    async def witness(self, transaction: Transaction, revision: int) -> str | None:
        """Renvoie le témoin de l'entrée d'une révision, sans la lire ; None si elle n'est plus au journal."""

    @abstractmethod
    async def revision_at(self, transaction: Transaction, instant: datetime) -> int:
        """Renvoie la dernière révision d'avant la première entrée écrite depuis un instant ; la tête s'il n'y en a pas.

        Une entrée qu'une horloge en retard a datée d'avant ne compte donc pas parmi les anciennes.
        """

    @abstractmethod
    async def discard(self, transaction: Transaction, up_to: int) -> int:
        """Retire les entrées jusqu'à une révision, sauf ce que le démarrage cherche et les révocations récentes.

        Récentes : vivantes il y a moins de `KEPT`, quoi que disent les réglages et l'horloge de ce processus.

        Returns:
            Le nombre d'entrées retirées.
        """

    @abstractmethod
    async def _write(self, transaction: Transaction, change: Change) -> None:
        """Écrit une entrée."""

    async def append(  # noqa: PLR0913 - ce qu'est une entrée
        self,
        transaction: Transaction,
        kind: str,
        payload: Mapping[str, Any],
        *,
        actor: str,
        live_until: datetime | None = None,
        key: IdempotencyKey | None = None,
    ) -> Change:
        """Écrit l'entrée suivante ; elle témoignera de la transaction si la réponse se perd.

        Raises:
            TransactionNotOrderedError: la transaction n'a pas été ouverte avec `log=True`.
        """
        head = transaction.check_ordered().next(changes_policy=kind in POLICY_KINDS)
        now = datetime.now(timezone.utc)
        change = Change(
            revision=head.revision, at=now, actor=actor, kind=kind, payload=payload, live_until=live_until, key=key
        )
        await self._write(transaction, change)
        await self._database.write_head(transaction, head)
        transaction.head, transaction.proof = head, partial(_proof, self, change)
        transaction.recorded += 1
        return change

    async def renew(self, transaction: Transaction) -> None:
        """Donne au journal une autre identité : qui suivait l'ancienne relit tout, et n'en croit plus les annonces.

        Raises:
            TransactionNotOrderedError: la transaction n'a pas été ouverte avec `log=True`.
        """
        head = replace(transaction.check_ordered(), log_id=str(uuid4()))
        await self._database.write_head(transaction, head)
        transaction.head = head


async def _proof(log: ChangeLog, change: Change, transaction: Transaction) -> bool:
    """Cherche une entrée dans le journal."""
    return await log.holds(transaction, change)


def name_unexpected_entry(change: Change) -> StoredDataError:
    """Nomme l'entrée qui tient, au-delà de la tête du journal, la place de celle qu'on voulait écrire."""
    return unreadable("acl_changes", f"revision={change.revision} (au-delà de la tête)")


async def find_done(
    log: ChangeLog, transaction: Transaction, actor: Principal, key: IdempotencyKey | None
) -> Change | None:
    """Renvoie l'entrée d'une demande déjà faite sous cette clé, ou None.

    Raises:
        IdempotencyKeyReusedError: la clé a servi à une autre demande.
        StoredDataError: l'entrée ne se lit pas, et nul ne sait à quoi elle a servi.
    """
    done = await log.find(transaction, actor.name, key.value) if key is not None else None
    if done is None or key is None:
        return None
    if done.key is None:
        raise done.unreadable()
    if not hmac.compare_digest(done.key.digest.encode(), key.digest.encode()):
        raise IdempotencyKeyReusedError
    return done
