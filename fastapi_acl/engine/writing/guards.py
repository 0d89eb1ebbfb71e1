"""Ce qu'un changement de règles ne peut pas faire, quel que soit le chemin par lequel il vient : une seule entrée."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_acl.engine.administration import ADMINISTRATION
from fastapi_acl.engine.kernel.pacing import Pace
from fastapi_acl.shared.exceptions import InvalidRuleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.writing.actors import ActorGuard
    from fastapi_acl.engine.writing.administrators import AdministratorGuard
    from fastapi_acl.engine.writing.consistency import ConsistencyGuard
    from fastapi_acl.engine.writing.escalation import EscalationGuard
    from fastapi_acl.engine.writing.rank_guard import RankGuard
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.policy import PolicyChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """Toutes les gardes, dans l'ordre où elles parlent : ce que l'auteur tient, puis seulement ce qui existe."""

    policy: Policy
    actors: ActorGuard
    escalation: EscalationGuard
    ranks: RankGuard
    consistency: ConsistencyGuard
    administrators: AdministratorGuard

    async def check(self, pending: PolicyChange, change: PolicyChange, actor: Principal) -> None:
        """Vérifie un changement contre la politique à jour et ce que la transaction a déjà écrit.

        Les gardes rendent la main à la boucle d'événements. Le verrou du journal est tenu : seule une relecture de
        toutes les règles peut alors les changer, et l'on recommence.

        Args:
            pending: ce que la transaction a déjà écrit.
            change: règles à retirer et à ajouter.
            actor: son auteur.

        Raises:
            InvalidRuleError: une règle n'a pas la forme du modèle, ou ferait un cycle ou une chaîne trop longue.
            InvalidTokenError: l'auteur a été révoqué entre-temps.
            PermissionDeniedError: il n'a plus le droit d'écrire les règles.
            EscalationRefusedError: il ne détient pas ce qu'il accorde, ou abaisserait qui est au-dessus de lui.
            RuleAlreadyExistsError: une règle à ajouter existe.
            RuleNotFoundError: une règle à retirer n'existe pas.
            RoleNotFoundError: un lien donnerait un rôle qu'aucune règle ne nomme.
            ConflictError: un rôle perdrait sa dernière règle et garderait des membres.
            LastAdministratorError: plus aucun compte actif n'administrerait.
        """
        if not change or len(set(change)) != len(change.added) + len(change.removed):
            message = "Un changement nomme au moins une règle, et chacune une seule fois ; rien n’a été changé."
            raise InvalidRuleError(message)
        self.check_actor(actor)
        seen = None
        while seen is not self.policy.state:
            seen = self.policy.state
            await self._check_each(pending, change, actor)

    async def _check_each(self, pending: PolicyChange, change: PolicyChange, actor: Principal) -> None:
        """Passe un changement devant chaque garde."""
        pace, whole = Pace(), pending.then(change)
        await self.consistency.check_form(change, pace)
        await self.escalation.check(whole, actor, pace)
        await self.ranks.check(whole, actor, pace)
        self.consistency.check_existence(pending, change, actor)
        await self.consistency.check_links(whole, actor, pace)
        self.consistency.check_roles(whole, actor)
        self.consistency.check_emptied(whole, actor)
        await self.administrators.check(whole, actor, pace)

    def check_actor(self, actor: Principal) -> None:
        """Vérifie que l'auteur a encore le droit d'écrire les règles.

        Raises:
            InvalidTokenError: il a été révoqué entre-temps.
            PermissionDeniedError: la permission lui a été retirée.
        """
        self.actors.check(actor, *ADMINISTRATION)

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

    async def check_administrators(self, change: PolicyChange) -> None:
        """Refuse, même à l'exploitant, un changement après lequel il n'y aurait plus d'administrateur actif.

        Raises:
            InvalidRuleError: le changement ferait un cycle ou une chaîne trop longue.
            LastAdministratorError: il y en avait un, et il n'y en aurait plus.
        """
        self.policy.check(change)
        await self.administrators.check_whole(lambda: self.policy.trial(change))
