"""L'histoire des règles : rebâtir l'état d'une révision, y revenir, et ne pas garder le journal pour toujours."""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from fastapi_acl.engine.adapters.base import PACKET, blame_batch
from fastapi_acl.engine.kernel.loading import row_rule, without_tail
from fastapi_acl.engine.kernel.pacing import aside
from fastapi_acl.engine.writing.transfer import Batch
from fastapi_acl.shared.exceptions import InvalidRequestError, RevisionCompactedError
from fastapi_acl.shared.identity import SYSTEM, USER_PREFIX
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.stored import read_number, read_text
from fastapi_acl.shared.sync.changes import LOG_COMPACTED, POLICY_CHANGED, POLICY_IMPORTED, ROW_QUARANTINED, find_done

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from typing import Any

    from fastapi_acl.engine.adapters.base import PolicyAdapter
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.writing.guards import Guards
    from fastapi_acl.engine.writing.store import PolicyStore
    from fastapi_acl.engine.writing.transfer import PolicyTransfer
    from fastapi_acl.shared.database.base import AmbientDatabase, Head, Transaction
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.sync.changes import Change, ChangeLog, IdempotencyKey
    from fastapi_acl.shared.sync.replica import Replica

Numbered = dict[PolicyRule, int]
"""Des règles et leur numéro."""

PAGE: Final = 500
"""Entrées du journal lues à la fois."""

DEFAULT_RETENTION: Final = timedelta(days=90)
"""Âge au-delà duquel une compaction retire les entrées du journal."""


class KnownAccounts(Protocol):
    """Ce que l'histoire demande aux comptes."""

    async def existing_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes qui existent, actifs ou non."""


class _Compaction(NamedTuple):
    """Une compaction qui se prépare.

    Attributes:
        up_to: révision jusqu'à laquelle les entrées partent.
        snapshot: lot qui garde les règles de cette révision.
        rules: leur nombre.
        useless: lots que plus rien ne nommera.
    """

    up_to: int
    snapshot: str
    rules: int
    useless: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyHistory:
    """Relit le journal des règles.

    Attributes:
        accounts: les comptes ; None s'ils ne sont pas à nous.
    """

    policy: Policy
    adapter: PolicyAdapter
    database: AmbientDatabase
    replica: Replica
    log: ChangeLog
    guards: Guards
    store: PolicyStore
    transfer: PolicyTransfer
    accounts: KnownAccounts | None

    async def changes(self, *, since: int = 0, limit: int = 50) -> Sequence[Change]:
        """Lit les entrées du journal après une révision, dans l'ordre.

        Args:
            since: dernière révision déjà vue.
            limit: nombre d'entrées au plus.
        """
        async with self.database.snapshot() as reading:
            return await self.log.since(reading, since, limit=limit)

    async def rules_at(self, revision: int) -> Numbered:
        """Rebâtit, du journal seul, les règles d'une révision, avec leur numéro.

        Raises:
            InvalidRequestError: cette révision n'existe pas encore.
            RevisionCompactedError: le journal a été compacté au-delà d'elle.
            StoredDataError: une entrée ou un lot ne se lit pas : on ne saurait pas ce qu'étaient les règles.
        """
        async with self.database.snapshot() as reading:
            head = await self.log.head(reading)
            _check_known(revision, head)
            rules = await self._snapshot_of(reading, head)
            async for change in self._between(reading, head.compacted, revision):
                await self._replay(rules, change)
        return rules

    async def rollback(self, to_revision: int, actor: Principal = SYSTEM, *, key: IdempotencyKey | None = None) -> int:
        """Revient aux règles d'une révision, par un changement de plus ; comptes et sessions restent ce qu'ils sont.

        Les règles d'un compte supprimé depuis ne reviennent pas.

        Args:
            to_revision: révision dont les règles sont voulues.
            actor: son auteur, qui doit tout détenir.
            key: clé du client ; la même demande, renvoyée, n'est faite qu'une fois.

        Returns:
            La révision du changement, ou la dernière s'il n'y avait rien à changer.

        Raises:
            InvalidRequestError: cette révision n'existe pas encore.
            RevisionCompactedError: le journal a été compacté au-delà d'elle.
            EscalationRefusedError: l'auteur ne détient pas tout.
            InvalidRuleError: le modèle n'admet plus une des règles.
            LastAdministratorError: plus aucun compte actif ne serait administrateur.
        """
        self.database.require_alone()
        target = await self.rules_at(to_revision)
        async with self.replica.writing() as transaction:
            done = await find_done(self.log, transaction, actor, key)
            if done is not None:
                return done.revision
            self.guards.check_actor(actor)
            change = await self._way_to(target)
            if not change and key is None:
                return transaction.check_ordered().revision
            if len(change.added) + len(change.removed) <= PACKET:
                self.policy.check(change)
                await self.guards.check_whole(actor, partial(self.policy.trial, change))
                return await self.store.put(transaction, change, actor, key, rollback_to=to_revision)
        return await self._replace_all(to_revision, target, actor, key)  # trop long à écrire verrou tenu

    async def way_back(self, to_revision: int) -> PolicyChange:
        """Renvoie ce que revenir à une révision changerait aux droits, sans rien changer.

        Une règle qui ne ferait que retrouver sa place n'y est pas : personne n'y perd rien.

        Raises:
            InvalidRequestError: cette révision n'existe pas encore.
            RevisionCompactedError: le journal a été compacté au-delà d'elle.
        """
        change = await self._way_to(await self.rules_at(to_revision))
        moved = set(change.added) & set(change.removed)
        return PolicyChange(
            added=tuple(rule for rule in change.added if rule not in moved),
            removed=tuple(rule for rule in change.removed if rule not in moved),
        )

    async def compactable(self, *, older_than: timedelta = DEFAULT_RETENTION) -> tuple[int, int]:
        """Dit ce que compacter retirerait.

        Args:
            older_than: âge à partir duquel une entrée part.

        Returns:
            La révision en deçà de laquelle plus rien ne se rebâtirait, et le nombre d'entrées qui partiraient au plus.
        """
        async with self.database.snapshot() as reading:
            head = await self.log.head(reading)
            up_to = await self.log.revision_at(reading, datetime.now(timezone.utc) - older_than)
        return up_to, max(up_to - head.compacted, 0)

    async def renew(self) -> None:
        """Fait tout relire à chaque processus, après la restauration d'une sauvegarde.

        Une base revenue en arrière se reconnaît d'elle-même au premier regard ; le journal d'une autre identité l'est
        aussi de ce qui s'annonçait encore de l'ancien.

        Raises:
            DatabaseUnavailableError: la base ne répond pas.
        """
        async with self.database.transaction(log=True) as transaction:
            await self.log.renew(transaction)

    async def compact(self, *, older_than: timedelta = DEFAULT_RETENTION, actor: Principal = SYSTEM) -> int:
        """Retire du journal ce qui est plus vieux qu'une durée ; les règles de cette révision sont gardées dans un lot.

        Les révocations encore en vigueur restent, de même que ce que le démarrage cherche.

        Args:
            older_than: âge à partir duquel une entrée part.
            actor: son auteur.

        Returns:
            Le nombre d'entrées retirées.
        """
        self.database.require_alone()
        async with self.database.snapshot() as reading:
            head = await self.log.head(reading)
            up_to = await self.log.revision_at(reading, datetime.now(timezone.utc) - older_than)
        await self.transfer.sweep()
        with suppress(RevisionCompactedError):  # une autre réplique a compacté entre-temps
            return await self._compact(head, up_to, actor) if up_to > head.compacted else 0
        return 0

    async def _compact(self, head: Head, up_to: int, actor: Principal) -> int:
        """Range les règles d'une révision, retire ce qui l'a faite, puis les lots que plus rien ne nomme."""
        useless = await self._useless_batches(head, up_to)
        async with self.transfer.open_batch("snapshot") as snapshot:
            count = await self._snapshot(snapshot, up_to)
            removed = await self._discard(head, _Compaction(up_to, snapshot, count, useless), actor)
        for batch_id in useless:
            await self.adapter.drop(batch_id)
        return removed

    # --- rebâtir ----------------------------------------------------------------------------------------------------

    async def _between(self, reading: Transaction, after: int, up_to: int) -> AsyncIterator[Change]:
        """Parcourt les entrées d'après une révision, jusqu'à une autre.

        Raises:
            RevisionCompactedError: il en manque une.
        """
        while after < up_to:
            page = await self.log.since(reading, after, limit=min(PAGE, up_to - after))
            if not page:
                raise RevisionCompactedError
            for change in page:
                if change.revision != after + 1:
                    raise RevisionCompactedError
                after = change.revision
                yield change

    async def _replay(self, rules: Numbered, change: Change) -> None:
        """Refait une entrée sur des règles.

        Raises:
            StoredDataError: nul ne sait ce qu'elle a changé.
        """
        if not change.is_known:
            raise change.unreadable()
        if change.kind == POLICY_CHANGED:
            _replay(rules, PolicyChange.from_json(change.payload))
        elif change.kind == POLICY_IMPORTED:
            said = change.payload
            if said["replaces"]:
                rules.clear()
            for rule, number in (await self._batch(said["batch"], said["added"], after=said["after"])).items():
                rules.setdefault(rule, number)
        elif change.kind == ROW_QUARANTINED:
            row = change.payload["row"]
            if rules.get(row_rule(row)) == row["id"]:
                del rules[row_rule(row)]

    async def _snapshot_of(self, reading: Transaction, head: Head) -> Numbered:
        """Lit les règles de la dernière compaction ; l'entrée de celle-ci en dit le nombre.

        Raises:
            RevisionCompactedError: la tête du journal a été refaite, et plus rien ne nomme ces règles.
        """
        if head.snapshot is None and not head.compacted:
            return {}
        if head.snapshot is None:
            raise RevisionCompactedError
        said = await self.log.last(reading, LOG_COMPACTED)
        is_its = said is not None and said.payload.get("snapshot") == head.snapshot
        return await self._batch(head.snapshot, said.payload.get("rules", 0) if said is not None and is_its else 0)

    async def _batch(self, batch_id: str, least: int, *, after: int = 0) -> Numbered:
        """Lit les règles d'un lot ; la première de chacune l'emporte.

        Args:
            batch_id: le lot.
            least: nombre de règles qu'il a, au moins.
            after: ce qui s'ajoute à leurs numéros.

        Raises:
            StoredDataError: une règle ne se lit pas, ou il en manque.
        """
        rules: Numbered = {}
        async with aclosing(self.adapter.lines(batch_id)) as packets:
            async for packet in packets:
                await aside(partial(_feed, rules, batch_id, packet, after), is_short=False)
        if len(rules) < least:
            raise blame_batch(batch_id, f"{len(rules)} règles sur {least}")
        return rules

    # --- revenir ----------------------------------------------------------------------------------------------------

    async def _replace_all(
        self, to_revision: int, target: Numbered, actor: Principal, key: IdempotencyKey | None
    ) -> int:
        """Revient en remplaçant toutes les règles, par un lot."""
        gone = await self._of_deleted(target)
        rules = iter([(number, rule) for rule, number in target.items() if rule not in gone])
        count = 0
        async with self.transfer.open_batch() as batch_id:
            while packet := list(islice(rules, PACKET)):
                await self.adapter.stage(batch_id, packet)
                count += len(packet)
            revision, _ = await self.transfer.publish(
                Batch(batch_id, count, replaces=True, rollback_to=to_revision), actor, key
            )
        return revision

    async def _way_to(self, target: Numbered) -> PolicyChange:
        """Renvoie ce qui mène des règles en vigueur à d'autres, à leur place, sans celles des comptes supprimés."""
        current = await aside(self._current)
        missing = await aside(partial(_difference, target, current))
        removed = await aside(partial(_difference, current, target))
        gone = await self._of_deleted(missing)
        wanted = {rule: number for rule, number in missing.items() if rule not in gone}
        return PolicyChange(added=tuple(wanted), removed=tuple(removed), ids=tuple(wanted.values()))

    def _current(self) -> Numbered:
        """Renvoie les règles en vigueur et leurs numéros."""
        with self.policy.lock:
            rules = self.policy.rules
            return dict(zip(rules, self.policy.numbers(rules), strict=True))

    async def _of_deleted(self, rules: Iterable[PolicyRule]) -> set[PolicyRule]:
        """Renvoie, parmi des règles, celles dont le sujet est un compte qui n'existe plus."""
        accounts, schema = self.accounts, self.policy.schema
        named = {rule: schema.subject_of(rule) for rule in rules} if accounts is not None else {}
        held = {rule: subject[len(USER_PREFIX) :] for rule, subject in named.items() if subject.startswith(USER_PREFIX)}
        known = await self._existing(sorted(set(held.values())))
        return {rule for rule, account in held.items() if account not in known}

    async def _existing(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes qui existent."""
        accounts, known = self.accounts, set[str]()
        for start in range(0, len(ids), PAGE):
            known |= await accounts.existing_ids(ids[start : start + PAGE]) if accounts is not None else set()
        return known

    # --- compacter --------------------------------------------------------------------------------------------------

    async def _useless_batches(self, head: Head, up_to: int) -> list[str]:
        """Renvoie les lots que plus rien ne nommera : l'ancien instantané, et les imports d'avant."""
        async with self.database.snapshot() as reading:
            imports = [
                change.payload["batch"]
                async for change in self._between(reading, head.compacted, up_to)
                if change.kind == POLICY_IMPORTED
            ]
        return imports + ([head.snapshot] if head.snapshot is not None else [])

    async def _snapshot(self, batch_id: str, revision: int) -> int:
        """Range dans un lot les règles d'une révision, sous leurs numéros, et renvoie leur nombre."""
        found = await self.rules_at(revision)
        rules = iter(found.items())
        while packet := [(number, rule) for rule, number in islice(rules, PACKET)]:
            await self.adapter.stage(batch_id, packet)
        return len(found)

    async def _discard(self, seen: Head, made: _Compaction, actor: Principal) -> int:
        """Retire les entrées, et note où se trouvent les règles qu'elles faisaient.

        Raises:
            RevisionCompactedError: une autre compaction l'a fait entre-temps.
        """
        async with self.replica.writing() as transaction:
            head = transaction.check_ordered()
            if (head.compacted, head.snapshot) != (seen.compacted, seen.snapshot):
                raise RevisionCompactedError
            removed = await self.log.discard(transaction, made.up_to)
            await self.adapter.seal(made.snapshot)
            await self.adapter.release(made.useless)
            transaction.compact(made.up_to, made.snapshot)
            payload = {"up_to": made.up_to, "snapshot": made.snapshot, "rules": made.rules, "removed": removed}
            _ = await self.replica.record(transaction, LOG_COMPACTED, payload, actor=actor)
        return removed


def _check_known(revision: int, head: Head) -> None:
    """Refuse une révision qui n'existe pas, ou plus."""
    if revision > head.revision:
        message = f"La révision {revision} n’existe pas encore : la dernière est {head.revision}."
        raise InvalidRequestError(message)
    if revision < head.compacted:
        raise RevisionCompactedError(oldest=head.compacted)


def _difference(rules: Numbered, others: Numbered) -> Numbered:
    """Renvoie les règles que d'autres n'ont pas, ou pas sous le même numéro."""
    return {rule: number for rule, number in rules.items() if others.get(rule) != number}


def _replay(rules: Numbered, change: PolicyChange) -> None:
    """Refait un changement sur des règles."""
    for rule in change.removed:
        rules.pop(rule, None)
    last = max(rules.values(), default=0) if len(change.ids) < len(change.added) else 0
    numbers = change.ids or range(last + 1, last + 1 + len(change.added))
    for rule, number in zip(change.added, numbers, strict=True):
        rules.setdefault(rule, number)


def _feed(rules: Numbered, batch_id: str, packet: Sequence[Sequence[Any]], after: int) -> None:
    """Ajoute les lignes d'un lot.

    Raises:
        StoredDataError: une valeur n'est pas un texte, ou un numéro n'en est pas un.
    """
    try:
        for row_id, ptype, *values in packet:
            rule = PolicyRule(read_text(ptype), tuple(map(read_text, without_tail(values))))
            rules.setdefault(rule, read_number(row_id) + after)
    except TypeError as error:
        raise blame_batch(batch_id, "une règle ne se lit pas") from error
