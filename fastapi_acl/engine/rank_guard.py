"""Qui est au-dessus de qui : nul n'abaisse un sujet dont il ne tient pas les permissions `acl.*`.

Un refus qui prendrait à quelqu'un de quoi administrer demande un rang strictement plus haut que le sien : écrit par un
pair, il ne pourrait plus le lever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from fastapi_acl.engine.administration import ANYTHING
from fastapi_acl.engine.comparison import Carried, Comparison, is_computable
from fastapi_acl.engine.matching import ANY
from fastapi_acl.engine.pacing import Pace
from fastapi_acl.shared.exceptions import EscalationRefusedError
from fastapi_acl.shared.identity import SYSTEM, Principal
from fastapi_acl.shared.policy import PolicyChange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from fastapi_acl.engine.comparison import Grant
    from fastapi_acl.engine.ranks import Rank, Ranks

TRIED_AT_ONCE: Final = 16
"""Sujets interrogés pendant un essai de la politique, qui ne peut pas rendre la main."""


class _Loss(NamedTuple):
    """Ce qu'une règle ferait perdre.

    Attributes:
        grants: accords qui partent, ou refus qui arrivent.
        denials: parmi les refus, ceux qui portent sur l'administration.
    """

    grants: tuple[Grant, ...]
    denials: tuple[Grant, ...]


Losses = dict[str, list[_Loss]]
"""Ce que perdrait chaque nom que le changement touche."""


@dataclass(frozen=True, slots=True)
class RankGuard:
    """Refuse qu'un changement, ou l'écartement d'un compte, abaisse qui est au-dessus de son auteur."""

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
        if not is_computable(self.ranks.enforcer):
            await self._check_by_trial(change, pace)
            return
        mine, comparison = self.ranks.of(actor), Comparison.over(self.ranks.enforcer)
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
        """Rend ce que perdrait chaque nom que le changement touche."""
        losses: Losses = {}
        for allows, carried, rules in (
            (True, Carried(comparison, PolicyChange(), pace), change.removed),
            (False, Carried(comparison, change, pace), change.added),
        ):
            known: dict[tuple[str, ...], _Loss] = {}
            for rule in filter(comparison.is_well_formed, rules):
                key = (rule.ptype, *rule.values[rule.ptype == "g" :])
                if key not in known:
                    grants = [grant for grant in await carried.of(rule) if grant.allows is allows]
                    known[key] = await self._loss(grants, comparison, pace)
                if known[key].grants:
                    losses.setdefault(comparison.schema.subject_of(rule), []).append(known[key])
                await pace.step()
        return losses

    async def _loss(self, grants: Sequence[Grant], comparison: Comparison, pace: Pace) -> _Loss:
        """Trie ce qui serait perdu : parmi les refus, ceux qui portent sur l'administration."""
        pairs = self.ranks.administration.everything - {ANYTHING}
        denials = [
            grant async for grant in pace.through(grants) if not grant.allows and comparison.touches(grant, pairs)
        ]
        return _Loss(tuple(grants), tuple(denials))

    async def _check_higher(self, losses: Losses, mine: Rank, after: Carried, pace: Pace) -> None:
        """Refuse d'abaisser qui tient une permission `acl.*` que l'auteur ne tient pas."""
        everything = self.ranks.administration.everything
        if mine >= everything:
            return
        direct = await self.ranks.holding(everything, pace)
        higher = [name async for name in pace.through(direct) if self._is_above(name, mine)]
        lost = {name: [loss.grants for loss in known] for name, known in losses.items()}
        async for subject in pace.through(self.ranks.under(higher)):
            hits = _hits(subject, lost, after.comparison)
            if hits and self._is_above(subject, mine) and any(_loses(subject, grant, after) for grant in hits):
                message = "Ce changement abaisserait un sujet qui administre ce que vous n’administrez pas."
                raise EscalationRefusedError(message)

    async def _check_denials(self, losses: Losses, mine: Rank, comparison: Comparison, pace: Pace) -> None:
        """Refuse de priver par un refus, de quoi administrer, un sujet qui n'est pas strictement au-dessous."""
        denials = {name: [loss.denials for loss in known] for name, known in losses.items()}
        touching = {name: found for name, found in denials.items() if any(found)}
        if not touching:
            return
        writes = self.ranks.administration.writes
        async for subject in pace.through(self.ranks.under(await self.ranks.holding(writes, pace))):
            rank = self.ranks.of(subject) if _hits(subject, touching, comparison) else frozenset()
            if rank & writes and not rank < mine:
                raise _peer()

    def _is_above(self, subject: str, mine: Rank) -> bool:
        """Dit si un sujet tient une permission `acl.*` que l'auteur ne tient pas."""
        return not self.ranks.of(subject) <= mine

    # --- ce qui s'essaie ------------------------------------------------------------------------------------------

    async def _check_by_trial(self, change: PolicyChange, pace: Pace) -> None:
        """Refuse, sous un modèle qui ne se compare pas, de priver qui tient tout de quoi administrer.

        Là, seul qui tient tout écrit les règles : il peut retirer à un pair ce qui le fait tel, non le lui refuser.
        """
        present = tuple(filter(self.ranks.enforcer.holds, change.removed))
        named = [name for rule in change for name in (*rule.values[:2], self.ranks.enforcer.schema.subject_of(rule))]
        whole = await self._whole(named, pace)
        for start in range(0, len(whole), TRIED_AT_ONCE):
            self._try(whole[start : start + TRIED_AT_ONCE], PolicyChange(change.added, present))
            await pace.step(TRIED_AT_ONCE)

    async def _whole(self, named: Sequence[str], pace: Pace) -> list[str]:
        """Rend les sujets qui tiennent tout, parmi ceux des règles et ceux-ci.

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
        with self.ranks.enforcer.trial(PolicyChange(added=change.added)):
            blocked = any(self._administers(subject) < before[subject] for subject in subjects)
        with self.ranks.enforcer.trial(change):
            blocked = blocked or any(self._is_blocked(subject, before[subject]) for subject in subjects)
        if blocked:
            raise _peer()

    def _is_blocked(self, subject: str, before: frozenset[tuple[str, str]]) -> bool:
        """Dit si un sujet, qui tient encore tout, peut moins qu'avant."""
        return self.ranks.is_whole(subject) and self._administers(subject) < before

    def _administers(self, subject: str) -> frozenset[tuple[str, str]]:
        """Rend ce qu'un sujet peut vraiment, parmi ce qui se demande à qui administre."""
        pairs = self.ranks.administration.everything - {ANYTHING}
        return frozenset(pair for pair in pairs if self.ranks.authorizer.decides_for(subject, *pair))


def _hits(subject: str, losses: Mapping[str, Sequence[Sequence[Grant]]], comparison: Comparison) -> list[Grant]:
    """Rend ce qu'un sujet perdrait, par lui-même ou par un rôle qu'il tient, là où cela vaut."""
    names = [name for name in comparison.reached(subject, ANY) if name in losses]
    grants = dict.fromkeys(grant for name in names for known in losses[name] for grant in known)
    if not comparison.has_domains:
        return list(grants)
    reached = {domain: comparison.reached(subject, domain) for domain in {grant.domain for grant in grants}}
    return [grant for grant in grants if not set(names).isdisjoint(reached[grant.domain])]


def _loses(subject: str, grant: Grant, after: Carried) -> bool:
    """Dit si un sujet n'aurait plus une permission, ou si un refus en prendrait une qu'il tient."""
    if grant.allows:
        return not after.is_held(subject, grant)
    comparison = after.comparison
    held = map(comparison.grant, comparison.enforcer.rules_of(comparison.reached(subject, grant.domain)))
    return any(mine.allows and comparison.overlaps(mine, grant) for mine in held)


def _peer() -> EscalationRefusedError:
    """Fait l'erreur d'un refus opposé à un pair."""
    message = "Un refus qui prive d’administrer demande un rang plus haut que le rang visé, ou la ligne de commande."
    return EscalationRefusedError(message)
