"""Le chemin d'une écriture et son retour : la base d'abord, la mémoire après la validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi_acl.engine.guard import ACCOUNTS, ADMINISTRATION
from fastapi_acl.shared.exceptions import InvalidRuleError, RuleAlreadyExistsError, RuleNotFoundError
from fastapi_acl.shared.identity import SYSTEM, USER_PREFIX
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.changes import POLICY_CHANGED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastapi_acl.engine.adapters.sql import SQLPolicyAdapter
    from fastapi_acl.engine.enforcer import PolicyEnforcer, Prepared
    from fastapi_acl.engine.guard import ActorGuard, AdministratorGuard, EscalationGuard
    from fastapi_acl.shared.database.base import Transaction
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.sync.changes import Change
    from fastapi_acl.shared.sync.replica import Replica


@dataclass(frozen=True, slots=True)
class PolicyMemory:
    """Les règles en service, tenues à jour par le journal (voir `Replica`)."""

    adapter: SQLPolicyAdapter
    enforcer: PolicyEnforcer

    async def read(self, transaction: Transaction) -> Prepared:  # noqa: ARG002 - l'adaptateur s'y joint
        """Lit toutes les règles, à l'instant de la transaction, et construit à côté la politique qu'elles font."""
        return await self.enforcer.read()

    def install(self, state: Prepared) -> None:
        """Met en service la politique lue."""
        self.enforcer.install(state)

    def apply(self, change: Change) -> None:
        """Met en service un changement de règles."""
        if change.kind == POLICY_CHANGED:
            self.enforcer.apply(_policy_change(change.payload))


@dataclass(frozen=True, slots=True)
class PolicyStore:
    """Seul chemin des changements de règles : vérifie, écrit, journalise, puis publie."""

    adapter: SQLPolicyAdapter
    enforcer: PolicyEnforcer
    replica: Replica
    escalation: EscalationGuard
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

    async def change(self, change: PolicyChange, actor: Principal = SYSTEM) -> int:
        """Fait un changement, tout ou rien.

        Args:
            change: règles à retirer et à ajouter.
            actor: son auteur.

        Returns:
            La révision après laquelle il est en vigueur.

        Raises:
            InvalidRuleError: une règle n'a pas la forme du modèle, ou ferait un cycle ou une chaîne trop longue.
            RuleAlreadyExistsError: une règle à ajouter existe déjà.
            RuleNotFoundError: une règle à retirer n'existe pas.
            EscalationRefusedError: l'auteur ne détient pas ce qu'il accorde.
            LastAdministratorError: plus aucun compte actif ne serait administrateur.
            DatabaseUnavailableError: la base ne répond pas ; rien n'est changé.
        """
        async with self.replica.writing() as transaction:
            await self._check(change, actor)
            await self.adapter.delete(change.removed)
            await self.adapter.insert(change.added)
            return await self.replica.record(transaction, POLICY_CHANGED, change.as_json(), actor=actor)

    async def remove_subject(self, user_id: str, actor: Principal) -> None:
        """Retire toutes les règles qui nomment un compte, dans la transaction ambiante s'il y en a une."""
        async with self.replica.writing() as transaction:
            change = PolicyChange(removed=self.enforcer.rules_naming(f"{USER_PREFIX}{user_id}"))
            if change:
                await self.adapter.delete(change.removed)
                await self.replica.record(transaction, POLICY_CHANGED, change.as_json(), actor=actor)

    async def require_authority(self, user_id: str, actor: Principal) -> None:
        """Vérifie que l'auteur peut encore toucher à ce compte.

        Raises:
            InvalidTokenError: l'auteur a été révoqué entre-temps.
            PermissionDeniedError: il n'a plus `acl.users:write`.
            EscalationRefusedError: le compte est administrateur, et pas l'auteur.
        """
        async with self.replica.writing():
            self.actors.check(actor, *ACCOUNTS)
            self.administrators.require_authority(user_id, actor)

    async def require_another_than(self, user_id: str) -> None:
        """Refuse d'écarter un compte qui est le dernier administrateur actif.

        Raises:
            LastAdministratorError: il l'est.
        """
        async with self.replica.writing():
            await self.administrators.require_another_than(user_id, self.enforcer)

    async def _check(self, change: PolicyChange, actor: Principal) -> None:
        """Vérifie le changement contre la politique à jour, la ligne de révision étant tenue."""
        if not change or len(set(change)) != len(change.added) + len(change.removed):
            message = "Un changement nomme au moins une règle, et chacune une seule fois ; rien n’a été changé."
            raise InvalidRuleError(message)
        self.actors.check(actor, *ADMINISTRATION)
        self.enforcer.check(change)
        self._check_existence(change)
        self.escalation.check(change, actor, self.enforcer)
        await self.administrators.check(change, actor, self.enforcer)

    def _check_existence(self, change: PolicyChange) -> None:
        """Refuse d'ajouter ce qui existe et de retirer ce qui n'existe pas."""
        known = next((rule for rule in change.added if self.enforcer.holds(rule)), None)
        if known is not None:
            raise RuleAlreadyExistsError(rule=known.as_json())
        missing = next((rule for rule in change.removed if not self.enforcer.holds(rule)), None)
        if missing is not None:
            raise RuleNotFoundError(rule=missing.as_json())


def _policy_change(payload: Any) -> PolicyChange:  # noqa: ANN401 - JSON du journal
    """Refait un changement de ce que le journal en garde."""
    return PolicyChange(added=_rules(payload["added"]), removed=_rules(payload["removed"]))


def _rules(items: Iterable[Any]) -> tuple[PolicyRule, ...]:
    """Refait des règles de leur forme JSON."""
    return tuple(PolicyRule.of(item["ptype"], item["values"]) for item in items)
