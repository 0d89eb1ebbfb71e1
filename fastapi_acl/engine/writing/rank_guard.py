"""Qui est au-dessus de qui : nul n'abaisse un sujet dont il ne tient pas les permissions `acl.*`.

Un refus qui prendrait à quelqu'un de quoi administrer demande un rang strictement plus haut que le sien : écrit par un
pair, il ne pourrait plus le lever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.administration import ANYTHING
from fastapi_acl.engine.kernel.pacing import Pace
from fastapi_acl.engine.writing.comparison import Carried, Comparison, is_computable
from fastapi_acl.engine.writing.losses import Verdicts, hits, sort_losses
from fastapi_acl.shared.exceptions import EscalationRefusedError
from fastapi_acl.shared.identity import SYSTEM, Principal
from fastapi_acl.shared.policy import PolicyChange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.writing.comparison import Power
    from fastapi_acl.engine.writing.losses import Loss, Losses
    from fastapi_acl.engine.writing.ranks import Rank, Ranks
    from fastapi_acl.shared.policy import PolicyRule

TRIED_AT_ONCE: Final = 16
"""Sujets interrogés pendant un essai de la politique, qui ne peut pas rendre la main."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankGuard:
    """Refuse qu'un changement, ou l'écartement d'un compte, abaisse qui est au-dessus de son auteur."""

    policy: Policy
    ranks: Ranks

    def check_account(self, user_id: str, actor: Principal) -> None:
        """Refuse qu'un compte soit écarté par qui ne tient pas ses permissions `acl.*`.

        Raises:
            EscalationRefusedError: le compte est au-dessus de l'auteur.
        """
        if actor is SYSTEM:
            return
        if not self.ranks.of(Principal(id=user_id)) <= self.ranks.of(actor):
            message = "Ce compte administre ce que vous n’administrez pas : il faut en détenir autant pour y toucher."
            raise EscalationRefusedError(message)

    async def check(self, change: PolicyChange, actor: Principal, pace: Pace) -> None:
        """Refuse un changement qui abaisserait un sujet plus haut que son auteur, ou priverait un pair par un refus.

        Args:
            change: effet net du changement ; les règles qui arrivent ont la forme du modèle.
            actor: son auteur ; `SYSTEM` n'est pas limité.
            pace: rend la main au fil du travail.

        Raises:
            EscalationRefusedError: il le ferait.
        """
        if actor is SYSTEM:
            return
        if not is_computable(self.policy):
            await self._check_by_trial(change, pace)
            return
        mine, comparison = self.ranks.of(actor), Comparison.over(self.policy)
        losses = await self._losses(change, comparison, pace)
        if losses:
            await self._check_higher(losses, mine, Carried(comparison, change, pace, removes=True), pace)
            await self._check_denials(losses, mine, comparison, pace)

    async def check_whole(self, actor: Principal, after: Callable[[], AbstractContextManager[object]]) -> None:
        """Refuse une politique entière sous laquelle qui tient encore tout n'administrerait plus, fût-ce par un refus.

        Args:
            actor: son auteur, qui tient tout ; `SYSTEM` n'est pas limité.
            after: essaie cette politique, le temps d'un bloc.

        Raises:
            EscalationRefusedError: elle priverait un pair.
        """
        if actor is not SYSTEM:
            whole = await self._whole((), Pace())
            before = {subject: self._administers(subject) for subject in whole}
            with after():
                blocked = [subject for subject in whole if self._is_blocked(subject, before[subject])]
            if blocked:
                raise _peer()

    # --- ce qui se compare ----------------------------------------------------------------------------------------

    async def _losses(self, change: PolicyChange, comparison: Comparison, pace: Pace) -> Losses:
        """Renvoie ce que perdrait chaque nom que le changement touche ; les membres d'un rôle le partagent."""
        losses: Losses = {}
        alone: dict[str, list[Power]] = {}
        for allows, carried, rules in (
            (True, Carried(comparison, PolicyChange(), pace), change.removed),
            (False, Carried(comparison, change, pace), change.added),
        ):
            by_role: dict[tuple[str, ...], list[Loss]] = {}
            for rule in filter(comparison.is_well_formed, rules):
                name, place = comparison.schema.subject_of(rule), rule.values[1:]
                if rule.ptype == "p":
                    alone.setdefault(name, []).extend(await _list_carried(carried, rule, pace, allows=allows))
                    continue
                if place not in by_role:
                    by_role[place] = sort_losses(await _list_carried(carried, rule, pace, allows=allows))
                losses.setdefault(name, []).extend(by_role[place])
                await pace.step()
        for name, grants in alone.items():
            losses.setdefault(name, []).extend(sort_losses(grants))
        return {name: known for name, known in losses.items() if known}

    async def _check_higher(self, losses: Losses, mine: Rank, after: Carried, pace: Pace) -> None:
        """Refuse d'abaisser qui tient une permission `acl.*` que l'auteur ne tient pas."""
        everything = self.ranks.administration.everything
        if mine >= everything:
            return
        verdicts = Verdicts(after, pace)
        await verdicts.learn(losses)
        async for subject in pace.through(self.ranks.under(await self.ranks.holding(everything, pace))):
            async for loss in hits(subject, losses, after.comparison, pace):
                if await verdicts.loses(subject, loss):
                    self._require_below(subject, mine)
                    break

    async def _check_denials(self, losses: Losses, mine: Rank, comparison: Comparison, pace: Pace) -> None:
        """Refuse de priver par un refus, de quoi administrer, un sujet qui n'est pas strictement au-dessous."""
        touching = await self._touching(losses, comparison, pace)
        if not touching:
            return
        writes = self.ranks.administration.writes
        async for subject in pace.through(self.ranks.under(await self.ranks.holding(writes, pace))):
            async for _ in hits(subject, touching, comparison, pace):
                rank = self.ranks.of(subject)
                if rank & writes and not rank < mine:
                    raise _peer()
                break

    async def _touching(self, losses: Losses, comparison: Comparison, pace: Pace) -> Losses:
        """Renvoie, parmi les pertes, les refus qui portent sur l'administration."""
        pairs = self.ranks.administration.everything - {ANYTHING}
        touching: dict[Loss, None] = {}
        for loss in dict.fromkeys(loss for known in losses.values() for loss in known if not loss.allows):
            async for grant in pace.through(loss.grants):
                if comparison.touches(grant, pairs):
                    touching[loss] = None
                    break
        kept = {name: [loss for loss in known if loss in touching] for name, known in losses.items()}
        return {name: known for name, known in kept.items() if known}

    def _require_below(self, subject: str, mine: Rank) -> None:
        """Refuse d'abaisser un sujet s'il tient une permission `acl.*` que l'auteur ne tient pas."""
        if not self.ranks.of(subject) <= mine:
            message = "Ce changement abaisserait un sujet qui administre ce que vous n’administrez pas."
            raise EscalationRefusedError(message)

    # --- ce qui s'essaie ------------------------------------------------------------------------------------------

    async def _check_by_trial(self, change: PolicyChange, pace: Pace) -> None:
        """Refuse, sous un modèle qui ne se compare pas, de priver qui tient tout de quoi administrer.

        Là, seul qui tient tout écrit les règles : il peut retirer à un pair ce qui le fait tel, non le lui refuser.
        """
        present = tuple(filter(self.policy.holds, change.removed))
        named = [name for rule in change for name in (*rule.values[:2], self.policy.schema.subject_of(rule))]
        whole = await self._whole(named, pace)
        for start in range(0, len(whole), TRIED_AT_ONCE):
            self._try(whole[start : start + TRIED_AT_ONCE], PolicyChange(change.added, present))
            await pace.step(TRIED_AT_ONCE)

    async def _whole(self, named: Sequence[str], pace: Pace) -> list[str]:
        """Renvoie les sujets qui tiennent tout, parmi ceux des règles et ceux-ci.

        Un nom à joker en vaut un que nulle règle ne nomme : qui tient tout par un motif n'est nommé nulle part.
        """
        unnamed = [name.replace("*", ANYTHING[1]) for name in named if "*" in name]
        known = self.ranks.under(await self.ranks.holding([ANYTHING], pace))
        candidates = dict.fromkeys([*known, *filter(None, named), *unnamed])
        return [name async for name in pace.through(candidates) if self.ranks.is_whole(name)]

    def _try(self, subjects: Sequence[str], change: PolicyChange) -> None:
        """Refuse si l'un de ces sujets, qui tiennent tout, n'administrait plus, sans avoir cessé de tout tenir.

        Ce que les seuls ajouts lui prennent est un refus, quelle qu'en soit la forme.
        """
        before = {subject: self._administers(subject) for subject in subjects}
        with self.policy.trial(PolicyChange(added=change.added)):
            blocked = any(self._administers(subject) < before[subject] for subject in subjects)
        with self.policy.trial(change):
            blocked = blocked or any(self._is_blocked(subject, before[subject]) for subject in subjects)
        if blocked:
            raise _peer()

    def _is_blocked(self, subject: str, before: frozenset[tuple[str, str]]) -> bool:
        """Dit si un sujet, qui tient encore tout, peut moins qu'avant."""
        return self.ranks.is_whole(subject) and self._administers(subject) < before

    def _administers(self, subject: str) -> frozenset[tuple[str, str]]:
        """Renvoie ce qu'un sujet peut vraiment, parmi ce qui se demande à qui administre."""
        pairs = self.ranks.administration.everything - {ANYTHING}
        return frozenset(pair for pair in pairs if self.ranks.decides_for(subject, pair))


async def _list_carried(carried: Carried, rule: PolicyRule, pace: Pace, *, allows: bool) -> list[Power]:
    """Renvoie ce que porte une règle, d'un seul effet."""
    return [grant async for grant in pace.through(await carried.of(rule)) if grant.allows is allows]


def _peer() -> EscalationRefusedError:
    """Fait l'erreur d'un refus opposé à un pair."""
    message = "Un refus qui prive d’administrer demande un rang plus haut que le rang visé, ou la ligne de commande."
    return EscalationRefusedError(message)
