"""Importer et exporter des règles en masse : un import est un seul changement, quelle que soit sa taille.

Les règles sont d'abord rangées dans un lot que rien ne lit, vérifiées avec celles en vigueur, puis publiées d'un coup
sous le verrou du journal. Tué avant, un import n'a rien fait ; son lot est balayé par un des suivants.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

from fastapi_acl.engine.adapters.base import PACKET, show_rule
from fastapi_acl.engine.kernel.pacing import aside
from fastapi_acl.engine.writing.closing import closing_line
from fastapi_acl.engine.writing.rule_files import closing, read_rules, write_rules
from fastapi_acl.shared.database.base import to_the_end
from fastapi_acl.shared.exceptions import (
    InvalidImportError,
    InvalidInputError,
    InvalidRuleError,
    PolicyUnreadableError,
)
from fastapi_acl.shared.identity import SYSTEM
from fastapi_acl.shared.policy import PolicyRule
from fastapi_acl.shared.sync.changes import POLICY_IMPORTED, find_done

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
    from typing import TextIO

    from fastapi_acl.engine.adapters.base import PolicyAdapter
    from fastapi_acl.engine.kernel.policy import Policy, Prepared
    from fastapi_acl.engine.writing.guards import Guards
    from fastapi_acl.engine.writing.rule_files import NumberedRule, RuleFormat
    from fastapi_acl.shared.database.base import AmbientDatabase, Transaction
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.sync.changes import ChangeLog, IdempotencyKey
    from fastapi_acl.shared.sync.replica import Replica

STAGED: Final = PACKET
"""Règles lues, vérifiées et rangées à la fois."""

ABANDONED_AFTER: Final = timedelta(days=1)
"""Âge auquel le lot d'un import interrompu est balayé."""


class Imported(NamedTuple):
    """Ce qu'un import a fait.

    Attributes:
        revision: révision après laquelle il est en vigueur.
        read: nombre de règles lues.
        added: nombre de règles ajoutées ; les autres y étaient déjà, ou se répétaient.
    """

    revision: int
    read: int
    added: int


class Batch(NamedTuple):
    """Un lot rangé.

    Attributes:
        id: son nom.
        size: le nombre de ses règles.
        replaces: vrai s'il prend la place de toutes les règles.
        rollback_to: révision dont il porte les règles, sous leurs numéros ; None pour un import.
    """

    id: str
    size: int
    replaces: bool
    rollback_to: int | None = None

    def as_json(self, after: int, added: int) -> dict[str, object]:
        """Renvoie ce que l'entrée du journal en garde.

        Args:
            after: numéro auquel se sont ajoutés ceux du lot.
            added: nombre de règles qu'il a ajoutées.
        """
        told: dict[str, object] = {"batch": self.id, "after": after, "replaces": self.replaces, "added": added}
        return told if self.rollback_to is None else told | {"rollback_to": self.rollback_to}


class _Checked(NamedTuple):
    """La politique qu'un lot ferait, et l'état de la base sur lequel elle a été construite.

    Attributes:
        prepared: la politique.
        present: nombre de lignes déjà en vigueur qui y restent.
        policy_revision: révision des règles sur laquelle elle a été construite.
        after: numéro auquel s'ajoutent les numéros d'ordre du lot.
    """

    prepared: Prepared
    present: int
    policy_revision: int
    after: int

    def is_made_by(self, added: int) -> bool:
        """Dit si la base, une fois ces lignes ajoutées, a bien une ligne par règle de la politique.

        Sinon, une main a écrit ou changé des lignes, et il faut tout relire.
        """
        return len(self.prepared.rules) + self.prepared.loaded.skipped == self.present + added


def _silent(_: int) -> None:
    """Ne montre rien."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTransfer:
    """Importe et exporte des règles."""

    policy: Policy
    adapter: PolicyAdapter
    database: AmbientDatabase
    replica: Replica
    log: ChangeLog
    guards: Guards

    async def import_rules(  # noqa: PLR0913 - ce qu'est un import
        self,
        file: TextIO,
        form: RuleFormat,
        *,
        replaces: bool = False,
        actor: Principal = SYSTEM,
        key: IdempotencyKey | None = None,
        progress: Callable[[int], None] = _silent,
    ) -> Imported:
        """Importe un fichier de règles, tout ou rien.

        Args:
            file: texte en UTF-8 ; un CSV s'ouvre avec `newline=""`.
            form: `csv` ou `json`.
            replaces: vrai si le fichier prend la place de toutes les règles ; sinon il s'y ajoute.
            actor: son auteur, qui doit tout détenir.
            key: clé du client ; le même import, renvoyé, n'est fait qu'une fois.
            progress: reçoit, au fil de la lecture, le nombre de règles lues.

        Raises:
            InvalidImportError: une ligne n'est pas admise, ou son lien ferme un cycle de rôles ou une chaîne trop
                longue, et la phrase la nomme ; rien n'est changé.
            InvalidRuleError: de même, mais le fichier ne se relit pas pour dire quelle ligne.
            EscalationRefusedError: l'auteur ne détient pas tout.
            LastAdministratorError: plus aucun compte actif ne serait administrateur.
            DatabaseUnavailableError: la base ne répond pas ; rien n'est changé.
        """
        self.database.require_alone()
        await self.sweep()
        async with self.open_batch() as batch_id:
            count = await self._stage(batch_id, file, form, progress)
            try:
                revision, added = await self.publish(Batch(batch_id, count, replaces), actor, key)
            except InvalidRuleError as error:
                fault = await aside(partial(self._name_line, error, file, form, replaces=replaces), is_short=False)
                raise fault from error
        await self.replica.refresh()  # ce qu'une main a changé entre-temps se relit
        return Imported(revision, count, added)

    @asynccontextmanager
    async def open_batch(self, kind: str = "import") -> AsyncIterator[str]:
        """Ouvre un lot, et le retire si le bloc ne va pas à son terme."""
        batch_id = str(uuid4())
        try:
            await self.adapter.open_batch(batch_id, kind)
            yield batch_id
        except BaseException:
            await to_the_end(self.adapter.drop(batch_id))
            raise

    async def export_rules(self, form: RuleFormat) -> AsyncGenerator[str]:
        """Écrit toutes les règles en vigueur, morceau par morceau, à un seul instant.

        Args:
            form: `csv` ou `json`.
        """
        first = True
        async with aclosing(self.adapter.lines()) as packets:
            async for packet in packets:
                yield write_rules((show_rule(row[1], row[2:]) for row in packet), form, first=first)
                first = False
        yield (write_rules((), form) if first else "") + closing(form)

    async def sweep(self) -> None:
        """Retire les lots des imports interrompus depuis longtemps."""
        for batch_id in await self.adapter.list_abandoned(datetime.now(timezone.utc) - ABANDONED_AFTER):
            await self.adapter.drop(batch_id)

    async def _stage(self, batch_id: str, file: TextIO, form: RuleFormat, progress: Callable[[int], None]) -> int:
        """Lit, vérifie et range un fichier, par paquets ; renvoie le nombre de règles."""
        rules, count = read_rules(file, form), 0
        while packet := await aside(partial(self._packet, rules), is_short=False):
            await self.adapter.stage(batch_id, list(enumerate(packet, start=count + 1)))
            count += len(packet)
            progress(count)
        return count

    def _packet(self, rules: Iterator[NumberedRule]) -> list[PolicyRule]:
        return [self.check_rule(line, rule) for line, rule in islice(rules, STAGED)]

    def check_rule(self, line: int, rule: PolicyRule) -> PolicyRule:
        """Renvoie une règle que le modèle admet.

        Raises:
            InvalidImportError: il ne l'admet pas.
        """
        try:
            self.policy.schema.check(rule)
        except InvalidRuleError as error:
            message = f"Ligne {line} : {error.detail}"
            raise InvalidImportError(message, line=line, **error.evidence) from error
        return rule

    def _name_line(
        self, fault: InvalidRuleError, file: TextIO, form: RuleFormat, *, replaces: bool
    ) -> InvalidInputError:
        """Nomme la ligne d'un fichier dont le lien ferme un cycle de rôles, ou fait une chaîne trop longue."""
        if not file.seekable():
            return fault
        file.seek(0)
        present = () if replaces else self.policy.rules
        shares = self.policy.schema.shares_domains is True
        found = closing_line(fault, present, read_rules(file, form), shares_domains=shares)
        if found is None:
            return fault
        line, error = found
        return InvalidImportError(f"Ligne {line} : {error.detail}", line=line, **error.evidence)

    async def _prepare_unlocked(self, batch: Batch) -> _Checked:
        """Construit à côté la politique que le lot ferait, numéros compris, sans tenir le verrou du journal."""
        async with self.database.snapshot() as reading:
            head = await self.log.head(reading)
            after = 0 if batch.rollback_to is not None else max(head.rule_id, await self.adapter.last_id())
        return await self._prepare(batch, head.policy_revision, after)

    async def _prepare(self, batch: Batch, policy_revision: int, after: int) -> _Checked:
        """Construit la politique qu'un lot ferait, et retire du lot ce qui s'y répète.

        Raises:
            InvalidRuleError: les rôles feraient un cycle ou une chaîne trop longue.
        """
        prepared, present = await self._read(batch, after)
        if batch.rollback_to is not None and prepared.loaded.skipped:
            message = "Le modèle n’admet plus une des règles de cette révision ; rien n’a été changé."
            raise InvalidRuleError(message)
        if prepared.loaded.twins:
            await self.adapter.prune(batch.id)
        # le lot élagué ne répète plus rien : ne sont sur plusieurs lignes que des règles qui l'étaient déjà
        repeated = frozenset[PolicyRule]() if batch.replaces else self.policy.repeated
        made = prepared._replace(loaded=prepared.loaded._replace(twins=repeated))
        return _Checked(made, present, policy_revision, after)

    async def _read(self, batch: Batch, after: int) -> tuple[Prepared, int]:
        """Lit les règles en vigueur, si elles restent, puis celles du lot.

        Returns:
            La politique qu'elles font, et le nombre de lignes en vigueur.

        Raises:
            InvalidRuleError: les rôles feraient un cycle ou une chaîne trop longue.
        """
        present: list[int] = []
        staged = _shift(self.adapter.lines(batch.id), after)
        sources = (staged,) if batch.replaces else (_count(self.adapter.lines(), present), staged)
        try:
            prepared = await self.policy.read(*sources)
        except PolicyUnreadableError as error:
            if isinstance(error.__cause__, InvalidRuleError):
                raise error.__cause__ from error
            raise
        return prepared, sum(present)

    async def publish(self, batch: Batch, actor: Principal, key: IdempotencyKey | None) -> tuple[int, int]:
        """Vérifie un lot, puis le publie sous le verrou du journal.

        Returns:
            La révision et le nombre de règles ajoutées.
        """
        await self.replica.refresh()  # un long rattrapage ne se fait pas verrou tenu
        checked = await self._prepare_unlocked(batch)
        async with self.replica.writing() as transaction:
            known = await find_done(self.log, transaction, actor, key)
            if known is not None:
                await self.adapter.drop(batch.id)
                return known.revision, int(known.payload.get("added", 0))
            self.guards.check_actor(actor)
            current = await self._current(transaction, batch, checked)
            await self.guards.check_whole(actor, partial(self.policy.trial_of, current.prepared))
            return await self._write(transaction, batch, current, actor, key)

    async def _current(self, transaction: Transaction, batch: Batch, checked: _Checked) -> _Checked:
        """Réserve les numéros du lot, et refait la politique si une autre écriture est passée entre-temps."""
        policy_revision, after = transaction.check_ordered().policy_revision, 0
        if batch.rollback_to is None:
            after = (await self.adapter.reserve(transaction, batch.size + 1))[0] - 1
        if (policy_revision, after) == (checked.policy_revision, checked.after):
            return checked
        return await self._prepare(batch, policy_revision, after)

    async def _write(
        self,
        transaction: Transaction,
        batch: Batch,
        current: _Checked,
        actor: Principal,
        key: IdempotencyKey | None,
    ) -> tuple[int, int]:
        """Écrit les règles du lot et son entrée du journal."""
        with transaction.condemn_unless_done():
            added = await self._put_in_force(batch, current.after)
            if not added and not batch.replaces and key is None:
                await self.adapter.release([batch.id])
                await self.adapter.drop(batch.id)
                return transaction.check_ordered().revision, 0
            revision = await self.replica.record(
                transaction,
                POLICY_IMPORTED,
                batch.as_json(current.after, added),
                actor=actor,
                key=key,
                install=partial(self.policy.install, current.prepared) if current.is_made_by(added) else None,
            )
        return revision, added

    async def _put_in_force(self, batch: Batch, after: int) -> int:
        """Met les règles du lot en vigueur, à la place des autres s'il les remplace, et compte les neuves."""
        await self.adapter.seal(batch.id)
        if batch.replaces:
            await self.adapter.clear_policy()
        return await self.adapter.publish(batch.id, after)


async def _count(lines: AsyncGenerator[Sequence[Any]], counts: list[int]) -> AsyncGenerator[Sequence[Any]]:
    async with aclosing(lines) as packets:
        async for packet in packets:
            counts.append(len(packet))
            yield packet


async def _shift(lines: AsyncGenerator[Sequence[Any]], after: int) -> AsyncGenerator[Sequence[Any]]:
    """Donne aux lignes d'un lot le numéro qu'elles auront une fois publiées."""
    async with aclosing(lines) as packets:
        async for packet in packets:
            yield [(row[0] + after, *row[1:]) for row in packet]
