"""Le chemin d'une écriture et son retour : la base d'abord, la mémoire après la validation."""

from __future__ import annotations

import hmac
from collections import Counter
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import filterfalse
from typing import TYPE_CHECKING, Any, Final

from fastapi_acl.engine.adapters.base import COLUMNS
from fastapi_acl.engine.administration import ACCOUNTS, ADMINISTRATION
from fastapi_acl.engine.kernel.loading import row_rule
from fastapi_acl.engine.kernel.pacing import Pace
from fastapi_acl.engine.kernel.schema import SUBJECT_NAMES
from fastapi_acl.shared.exceptions import (
    ConflictError,
    IdempotencyKeyReusedError,
    InvalidRuleError,
    RoleNotFoundError,
    RuleAlreadyExistsError,
    RuleNotFoundError,
)
from fastapi_acl.shared.identity import SYSTEM, USER_PREFIX
from fastapi_acl.shared.policy import PolicyChange
from fastapi_acl.shared.sync.changes import POLICY_CHANGED, ROW_QUARANTINED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from fastapi_acl.engine.adapters.base import PolicyAdapter
    from fastapi_acl.engine.kernel.policy import Policy, Prepared
    from fastapi_acl.engine.writing.administrators import AdministratorGuard
    from fastapi_acl.engine.writing.guards import ActorGuard, EscalationGuard
    from fastapi_acl.engine.writing.rank_guard import RankGuard
    from fastapi_acl.shared.database.base import Transaction
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.policy import PolicyRule
    from fastapi_acl.shared.sync.changes import Change, ChangeLog, IdempotencyKey
    from fastapi_acl.shared.sync.replica import Replica

EMPTIED_ROLE: Final = (
    "Ce changement ôterait sa dernière règle à un rôle qui garde des membres, et qui le remplirait plus tard leur "
    "donnerait ce qu’il y met : retirez ses liens dans le même changement. Rien n’a été changé."
)
"""Ce qui est dit d'un rôle que l'on viderait sous ses membres."""


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


@dataclass(frozen=True, slots=True)
class PolicyStore:
    """Seul chemin des changements de règles : vérifie, écrit, journalise, puis publie."""

    adapter: PolicyAdapter
    policy: Policy
    replica: Replica
    log: ChangeLog
    escalation: EscalationGuard
    ranks: RankGuard
    administrators: AdministratorGuard
    actors: ActorGuard

    @property
    def revision(self) -> int:
        """Dernière révision du journal que ce processus a appliquée."""
        return self.replica.revision

    async def page(
        self, filters: Mapping[str, str], *, after: int = 0, limit: int = 50
    ) -> Sequence[tuple[int, PolicyRule]]:
        """Lit une page de règles dans la base, avec leur numéro de ligne.

        Args:
            filters: valeurs exigées, par colonne (`ptype`, `v0` à `v5`).
            after: numéro de la dernière ligne déjà vue.
            limit: nombre de règles au plus.
        """
        return await self.adapter.page(filters, after=after, limit=limit)

    @property
    def pending(self) -> PolicyChange:
        """Effet net, sur les règles, de ce que la transaction ambiante a déjà écrit."""
        ambient = self.replica.ambient
        return ambient.pending if ambient is not None else PolicyChange()

    @contextmanager
    def as_written(self) -> Iterator[None]:
        """Montre, le temps d'un bloc, ce que la transaction ambiante a écrit ; les décisions, elles, l'ignorent."""
        pending = self.pending
        with self.policy.trial(pending) if pending else nullcontext():
            yield

    def together(self) -> AbstractAsyncContextManager[Transaction]:
        """Réunit plusieurs écritures en une transaction."""
        return self.replica.writing()

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
            InvalidRuleError: une règle n'a pas la forme du modèle, ou ferait un cycle ou une chaîne trop longue.
            RuleAlreadyExistsError: une règle à ajouter existe déjà.
            RuleNotFoundError: une règle à retirer n'existe pas.
            EscalationRefusedError: l'auteur ne détient pas ce qu'il accorde, ou abaisserait qui est au-dessus de lui.
            RoleNotFoundError: un lien donnerait un rôle qu'aucune règle ne nomme.
            ConflictError: une règle à ajouter existe déjà, et l'auteur ne peut pas lire les règles ; ou un rôle
                perdrait sa dernière règle et garderait des membres.
            LastAdministratorError: plus aucun compte actif ne serait administrateur.
            IdempotencyKeyReusedError: la clé a déjà servi à une autre demande.
            DatabaseUnavailableError: la base ne répond pas ; rien n'est changé, ou rien ne permet de le savoir.
        """
        async with self.replica.writing() as transaction:
            known = await self.known(transaction, actor, key)
            return known.revision if known is not None else await self._make(transaction, change, actor, key)

    async def known(self, transaction: Transaction, actor: Principal, key: IdempotencyKey | None) -> Change | None:
        """Rend l'entrée d'une demande déjà faite sous cette clé, ou None.

        Raises:
            IdempotencyKeyReusedError: la clé a servi à une autre demande.
            StoredDataError: l'entrée ne se lit pas, et nul ne sait à quoi elle a servi.
        """
        done = await self.log.find(transaction, actor.name, key.value) if key is not None else None
        if done is None or key is None:
            return None
        if done.key is None:
            raise done.unreadable()
        if not hmac.compare_digest(done.key.digest.encode(), key.digest.encode()):
            raise IdempotencyKeyReusedError
        return done

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
            transaction: transaction ordonnée, ouverte par `together`.
            change: règles à retirer et à ajouter.
            actor: son auteur.
            key: clé du client.
            evidence: ce que l'entrée dira de plus.
        """
        with transaction.unfinished():
            ids = await self._numbers(transaction, change)
            is_repeated = not self.policy.repeated.isdisjoint(change.removed)
            await self.adapter.delete(change.removed, by_value=is_repeated)
            await self.adapter.insert_numbered(change.added, ids)
            payload = replace(change, ids=ids).as_json() | evidence
            revision = await self.replica.record(transaction, POLICY_CHANGED, payload, actor=actor, key=key)
        transaction.pending = transaction.pending.then(change)
        transaction.touched.update(change)
        return revision

    async def remove_subject(self, user_id: str, actor: Principal) -> None:
        """Retire toutes les règles qui nomment un compte, dans la transaction ambiante s'il y en a une.

        Raises:
            EscalationRefusedError: le compte est au-dessus de l'auteur.
        """
        async with self.replica.writing() as transaction:
            self.ranks.check_account(user_id, actor)
            with self.as_written():
                change = PolicyChange(removed=self.policy.rules_naming(f"{USER_PREFIX}{user_id}"))
            if change:
                _ = await self.put(transaction, change, actor)

    async def require_administrator_after(self, change: PolicyChange) -> None:
        """Refuse, même à l'exploitant, un changement après lequel il n'y aurait plus d'administrateur actif.

        Raises:
            InvalidRuleError: le changement ferait un cycle ou une chaîne trop longue.
            LastAdministratorError: il y en avait un, et il n'y en aurait plus.
        """
        self.policy.check(change)
        await self.administrators.check_whole(lambda: self.policy.trial(change))

    async def find_row(self, row_id: int | str) -> Mapping[str, Any]:
        """Lit une ligne de la base, telle que `quarantine` l'écarterait.

        Raises:
            RuleNotFoundError: aucune ligne n'a ce numéro.
        """
        async with aclosing(self.adapter.lines()) as packets:
            async for packet in packets:
                for number, *content in packet:
                    if str(number) == str(row_id):
                        return {"id": number, **dict(zip(("ptype", *COLUMNS), content, strict=True))}
        raise RuleNotFoundError(id=row_id)

    async def check_whole(self, actor: Principal, after: Callable[[], AbstractContextManager[object]]) -> None:
        """Vérifie une politique entière, mémoires à jour, avant qu'elle ne prenne la place de celle en service.

        Args:
            actor: son auteur, qui peut encore écrire les règles.
            after: essaie cette politique, le temps d'un bloc.

        Raises:
            EscalationRefusedError: l'auteur ne détient pas tout, ou un refus priverait un pair d'administrer.
            LastAdministratorError: plus aucun compte actif n'administrerait.
        """
        self.escalation.require_everything(actor)
        await self.administrators.check_whole(after)
        await self.ranks.check_whole(actor, after)

    async def quarantine(self, row_id: int | str, actor: Principal = SYSTEM) -> Mapping[str, Any]:
        """Écarte une ligne de la base, illisible ou non ; le journal la garde, colonne par colonne, puis tout se relit.

        C'est le remède quand une ligne écrite à la main empêche de charger la politique.

        Args:
            row_id: numéro de la ligne, que le journal d'événements nomme ; sur MongoDB, sa clé peut être un texte.
            actor: son auteur.

        Returns:
            La ligne écartée.

        Raises:
            RuleNotFoundError: aucune ligne n'a ce numéro.
            LastAdministratorError: c'est une règle en service, sans laquelle il n'y aurait plus d'administrateur actif.
            PolicyUnreadableError: la ligne est écartée, mais une autre empêche encore de charger la politique.
        """
        self.replica.require_alone()
        async with self.replica.recording() as transaction:
            row = await self.adapter.take(row_id)
            await self._check_row(row_rule(row))
            _ = await self.replica.record(transaction, ROW_QUARANTINED, {"row": row}, actor=actor)
        await self.replica.reload()
        return row

    async def _check_row(self, rule: PolicyRule) -> None:
        """Refuse d'écarter une règle en service que le dernier administrateur tient ; ses copies la garderaient."""
        if self.policy.holds(rule) and rule not in self.policy.repeated:
            await self.require_administrator_after(PolicyChange(removed=(rule,)))

    async def reload(self) -> None:
        """Relit toutes les règles, même si la révision n'a pas changé."""
        await self.replica.reload()

    async def require_authority(self, user_id: str, actor: Principal) -> None:
        """Vérifie que l'auteur peut encore toucher à ce compte.

        Raises:
            InvalidTokenError: l'auteur a été révoqué entre-temps.
            PermissionDeniedError: il n'a plus `acl.users:write`.
            EscalationRefusedError: le compte tient une permission `acl.*` que l'auteur ne tient pas.
        """
        async with self.replica.writing():
            self.actors.check(actor, *ACCOUNTS)
            self.ranks.check_account(user_id, actor)

    async def require_another_than(self, user_id: str) -> None:
        """Refuse d'écarter un compte qui est le dernier administrateur actif.

        Raises:
            LastAdministratorError: il l'est.
        """
        async with self.replica.writing() as transaction:
            await self.administrators.check_account(user_id, transaction.pending)

    async def _make(
        self, transaction: Transaction, change: PolicyChange, actor: Principal, key: IdempotencyKey | None
    ) -> int:
        """Vérifie un changement, l'écrit et le journalise."""
        await self._check(transaction.pending, change, actor)
        return await self.put(transaction, change, actor, key)

    async def _numbers(self, transaction: Transaction, change: PolicyChange) -> tuple[int, ...]:
        """Rend les numéros des règles qui arrivent : donnés, ou ceux de celles qu'elles remplacent, ou à la suite."""
        if change.ids:
            return change.ids
        settled = transaction.touched.isdisjoint(change.removed)
        if change.in_place and settled and all(map(self.policy.holds, change.removed)):
            return self.policy.numbers(change.removed)
        return await self.adapter.reserve(transaction, len(change.added)) if change.added else ()

    async def _check(self, pending: PolicyChange, change: PolicyChange, actor: Principal) -> None:
        """Vérifie un changement contre la politique à jour et ce que la transaction a déjà écrit.

        Les gardes rendent la main à la boucle d'événements. Le verrou du journal est tenu : seule une relecture de
        toutes les règles peut alors les changer, et l'on recommence.
        """
        if not change or len(set(change)) != len(change.added) + len(change.removed):
            message = "Un changement nomme au moins une règle, et chacune une seule fois ; rien n’a été changé."
            raise InvalidRuleError(message)
        self.actors.check(actor, *ADMINISTRATION)
        seen = None
        while seen is not self.policy.state:
            seen = self.policy.state
            await self._guard(pending, change, actor)

    async def _guard(self, pending: PolicyChange, change: PolicyChange, actor: Principal) -> None:
        """Passe un changement devant les gardes : la forme, ce que l'auteur tient, puis seulement ce qui existe."""
        pace, whole = Pace(), pending.then(change)
        async for rule in pace.through(change.added):
            self.policy.schema.check(rule)
        await self.escalation.check(whole, actor, pace)
        await self.ranks.check(whole, actor, pace)
        self._check_existence(pending, change, actor)
        await self._check_links(whole, actor, pace)
        self._check_roles(whole, actor)
        self._check_emptied(whole, actor)
        await self.administrators.check(whole, actor, pace)

    async def _check_links(self, change: PolicyChange, actor: Principal, pace: Pace) -> None:
        """Refuse un cycle ou une chaîne trop longue ; à qui ne peut pas lire les règles, aucun rôle n'est nommé."""
        try:
            async for _ in pace.through(self.policy.check_by_steps(change)):
                pass
        except InvalidRuleError as error:
            if "reason" not in error.evidence or self.actors.may_read(actor):
                raise
            message = "Règle refusée : les rôles formeraient un cycle ou une chaîne trop longue ; rien n’a été changé."
            raise InvalidRuleError(message, reason=error.evidence["reason"]) from None

    def _check_existence(self, pending: PolicyChange, change: PolicyChange, actor: Principal) -> None:
        """Refuse d'ajouter ce qui existe et de retirer ce qui n'existe pas."""
        arrived, left = frozenset(pending.added), frozenset(pending.removed)

        def exists(rule: PolicyRule) -> bool:
            return rule in arrived or (rule not in left and self.policy.holds(rule))

        known = next(filter(exists, change.added), None)
        if known is not None and not self.actors.may_read(actor):
            raise ConflictError
        if known is not None:
            raise RuleAlreadyExistsError(rule=known.as_json())
        missing = next(filterfalse(exists, change.removed), None)
        if missing is not None:
            raise RuleNotFoundError(rule=missing.as_json())

    def _check_roles(self, change: PolicyChange, actor: Principal) -> None:
        """Refuse de donner un rôle que rien ne définit, ni avant le changement ni en lui.

        Un rôle vide, joint d'avance, donnerait un jour ce que personne n'a voulu donner à ce compte. Le système, lui,
        écrit dans l'ordre qu'il veut.
        """
        place = self.policy.schema.position("p", SUBJECT_NAMES)
        if actor is SYSTEM or place is None:
            return
        given = {rule.values[1]: rule for rule in change.added if rule.ptype == "g"}
        defined = {self.policy.schema.subject_of(rule) for rule in change.added if rule.ptype == "p"}
        known = self.policy.rows("p").known(place)
        for role, rule in given.items():
            if role not in defined and role not in known and f'"{role}"' not in self.policy.schema.matcher:
                raise RoleNotFoundError(rule=rule.as_json())

    def _check_emptied(self, change: PolicyChange, actor: Principal) -> None:
        """Refuse de retirer la dernière règle d'un rôle qui garde des membres : ils tiendraient d'avance un rôle vide.

        Une règle qui refuse en est une : le rôle reste nommé. Qui tient tout a tout à donner, et peut le faire.
        """
        place = self.policy.schema.position("p", SUBJECT_NAMES)
        if actor is SYSTEM or place is None:
            return
        arriving, leaving = self._roles_of(change.added), self._roles_of(change.removed)
        for role in leaving["p"]:
            rules = len(self.policy.rows("p").holding(place, role)) + arriving["p"][role] - leaving["p"][role]
            links = self.policy.graph.count_links(role) + arriving["g"][role] - leaving["g"][role]
            if rules > 0 or links <= 0 or f'"{role}"' in self.policy.schema.matcher:
                continue
            if self.ranks.ranks.is_whole(actor):
                return
            raise ConflictError(EMPTIED_ROLE, **({"members_count": links} if self.actors.may_read(actor) else {}))

    def _roles_of(self, rules: Iterable[PolicyRule]) -> Mapping[str, Counter[str]]:
        """Compte les règles `p` de chaque sujet, et les liens vers chaque rôle."""
        found: dict[str, Counter[str]] = {"p": Counter(), "g": Counter()}
        for rule in rules:
            if rule.ptype in found:
                found[rule.ptype][rule.values[1] if rule.ptype == "g" else self.policy.schema.subject_of(rule)] += 1
        return found
