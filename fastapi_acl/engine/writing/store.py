"""Le chemin d'une écriture et son retour : la base d'abord, la mémoire après la validation."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from fastapi_acl.shared.identity import SYSTEM
from fastapi_acl.shared.policy import PolicyChange
from fastapi_acl.shared.sync.changes import POLICY_CHANGED, find_done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi_acl.engine.adapters.base import PolicyAdapter
    from fastapi_acl.engine.kernel.policy import Policy, Prepared
    from fastapi_acl.engine.writing.guards import Guards
    from fastapi_acl.shared.database.base import AmbientDatabase, Transaction
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.policy import PolicyRule
    from fastapi_acl.shared.sync.changes import Change, ChangeLog, IdempotencyKey
    from fastapi_acl.shared.sync.replica import Replica


@dataclass(frozen=True, slots=True)
class PolicyMemory:
    """Les règles en service, tenues à jour par le journal (voir `Replica`)."""

    policy: Policy
    adapter: PolicyAdapter

    async def read(self, transaction: Transaction) -> Prepared:  # noqa: ARG002 - l'adaptateur s'y joint
        """Lit toutes les règles, à l'instant de la transaction, et construit à côté la politique qu'elles font."""
        return await self.policy.read(self.adapter.lines())

    def install(self, state: Prepared) -> None:
        """Met en service la politique lue."""
        self.policy.install(state)

    def apply(self, change: Change) -> None:
        """Met en service un changement de règles ; un changement de masse se relit, ou son auteur l'a déjà installé."""
        if change.kind == POLICY_CHANGED:
            self.policy.apply(PolicyChange.from_json(change.payload))


@dataclass(slots=True)
class _Written:
    """Ce qu'une transaction a écrit jusqu'ici.

    Attributes:
        net: effet net sur les règles.
        touched: règles écrites ou retirées, même si l'effet net n'en garde rien.
    """

    net: PolicyChange = field(default_factory=PolicyChange)
    touched: set[PolicyRule] = field(default_factory=set)

    def note(self, change: PolicyChange) -> None:
        """Ajoute un changement."""
        self.net = self.net.then(change)
        self.touched.update(change)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStore:
    """Seul chemin des changements de règles : vérifie, écrit, journalise, puis publie."""

    policy: Policy
    adapter: PolicyAdapter
    database: AmbientDatabase
    replica: Replica
    log: ChangeLog
    guards: Guards
    _written: WeakKeyDictionary[Transaction, _Written] = field(default_factory=WeakKeyDictionary, init=False)

    @property
    def pending(self) -> PolicyChange:
        """Effet net, sur les règles, de ce que la transaction ambiante a déjà écrit."""
        return self._get_written(self.database.ambient).net

    def _get_written(self, transaction: Transaction | None) -> _Written:
        """Renvoie ce qu'une transaction a écrit ; rien, hors de toute transaction."""
        return self._written.get(transaction, _Written()) if transaction is not None else _Written()

    @contextmanager
    def as_written(self) -> Iterator[None]:
        """Montre, le temps d'un bloc, ce que la transaction ambiante a écrit ; les décisions, elles, l'ignorent."""
        pending = self.pending
        with self.policy.trial(pending) if pending else nullcontext():
            yield

    async def write(self, build: Callable[[], PolicyChange]) -> None:
        """Fait un changement construit sous le verrou du journal, mémoires à jour ; vide, il n'en fait aucun."""
        async with self.replica.writing() as transaction:
            change = build()
            if change:
                _ = await self._make(transaction, change, SYSTEM, None)

    async def change(
        self, change: PolicyChange, actor: Principal = SYSTEM, *, key: IdempotencyKey | None = None
    ) -> int:
        """Fait un changement, tout ou rien.

        Args:
            change: règles à retirer et à ajouter.
            actor: son auteur.
            key: clé du client ; la même demande, renvoyée, n'est faite qu'une fois.

        Returns:
            La révision après laquelle il est en vigueur.

        Raises:
            ACLException: une garde le refuse (voir `Guards.check`).
            IdempotencyKeyReusedError: la clé a déjà servi à une autre demande.
            DatabaseUnavailableError: la base ne répond pas ; rien n'est changé, ou rien ne permet de le savoir.
        """
        async with self.replica.writing() as transaction:
            done = await find_done(self.log, transaction, actor, key)
            return done.revision if done is not None else await self._make(transaction, change, actor, key)

    async def _make(
        self, transaction: Transaction, change: PolicyChange, actor: Principal, key: IdempotencyKey | None
    ) -> int:
        """Vérifie un changement, l'écrit et le journalise."""
        await self.guards.check(self._get_written(transaction).net, change, actor)
        return await self.put(transaction, change, actor, key)

    async def put(
        self,
        transaction: Transaction,
        change: PolicyChange,
        actor: Principal,
        key: IdempotencyKey | None = None,
        **evidence: object,
    ) -> int:
        """Écrit un changement déjà vérifié et son entrée du journal ; interrompu, il condamne la transaction.

        Args:
            transaction: transaction ordonnée, ouverte par `Replica.writing`.
            change: règles à retirer et à ajouter.
            actor: son auteur.
            key: clé du client.
            evidence: ce que l'entrée dira de plus.
        """
        with transaction.condemn_unless_done():
            ids = await self._numbers(transaction, change)
            is_repeated = not self.policy.repeated.isdisjoint(change.removed)
            await self.adapter.delete(change.removed, by_value=is_repeated)
            await self.adapter.insert_numbered(change.added, ids)
            payload = replace(change, ids=ids).as_json() | evidence
            revision = await self.replica.record(transaction, POLICY_CHANGED, payload, actor=actor, key=key)
        self._written.setdefault(transaction, _Written()).note(change)
        return revision

    async def _numbers(self, transaction: Transaction, change: PolicyChange) -> tuple[int, ...]:
        """Renvoie les numéros des règles qui arrivent : les donnés, ceux des règles remplacées, ou les suivants."""
        if change.ids:
            return change.ids
        settled = self._get_written(transaction).touched.isdisjoint(change.removed)
        if change.in_place and settled and all(map(self.policy.holds, change.removed)):
            return self.policy.numbers(change.removed)
        return await self.adapter.reserve(transaction, len(change.added)) if change.added else ()
