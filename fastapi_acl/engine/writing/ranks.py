"""Le rang : ce qu'un sujet tient de la bibliothèque elle-même, refus mis à part, et qui en tient quelque chose.

Un rang se lit des accords et des liens. Les refus n'y entrent pas : qui peut les écrire ne peut pas, par eux, se mettre
au-dessus d'un autre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_acl.engine.administration import ADMINISTRATION
from fastapi_acl.engine.kernel.inspector import PolicyInspector
from fastapi_acl.engine.kernel.plan import Probe
from fastapi_acl.engine.kernel.schema import SUBJECT_NAMES
from fastapi_acl.shared.identity import EVERY_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastapi_acl.engine.administration import Administration, Pair
    from fastapi_acl.engine.authorizer import PolicyAuthorizer
    from fastapi_acl.engine.kernel.pacing import Pace
    from fastapi_acl.engine.kernel.plan import Key
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.policy import PolicyRule

Rank = frozenset["Pair"]
"""Ce qu'un sujet tient, parmi ce qui se demande à qui administre ; un rang en couvre un autre s'il le contient."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Lit les rangs dans la politique en service."""

    authorizer: PolicyAuthorizer
    policy: Policy

    @property
    def administration(self) -> Administration:
        """Ce qui se demande à qui administre."""
        return self.authorizer.administration

    def of(self, who: Principal | str) -> Rank:
        """Renvoie le rang d'un compte ou d'un sujet de politique."""
        asked = self.administration.everything
        return frozenset(pair for pair in asked if self.authorizer.grants(who, *pair))

    def is_whole(self, who: Principal | str) -> bool:
        """Dit si quelqu'un tient tout, refus mis à part."""
        return all(self.authorizer.grants(who, *pair) for pair in self.administration.everything)

    def administers(self, account: str) -> bool:
        """Dit si un compte peut écrire les règles, refus compris."""
        return self.authorizer.allows(account, *ADMINISTRATION)

    def decides_for(self, subject: str, pair: Pair) -> bool:
        """Dit ce que la politique répond à un sujet, refus compris."""
        return self.authorizer.decides_for(subject, *pair)

    async def holding(self, pairs: Iterable[Pair], pace: Pace) -> dict[str, None]:
        """Renvoie les sujets à qui une règle accorde l'une de ces permissions ; leurs membres la tiennent aussi.

        Sous un matcher qui ne désigne pas le sujet d'une règle par son nom ou par un rôle, tous les sujets que les
        règles nomment sont rendus.
        """
        return {name: None async for name in pace.through(self.holding_now(pairs))}

    def holding_now(self, pairs: Iterable[Pair]) -> Iterator[str]:
        """Énumère les mêmes, plusieurs fois peut-être."""
        if not self.names_subjects:
            yield from self.policy.subjects
            return
        place = self.policy.schema.position("p", SUBJECT_NAMES) or 0
        for pair in pairs:
            rules = PolicyInspector(self.policy).list_concerned(*pair, EVERY_DOMAIN)
            yield from (rule.values[place] for rule in rules if not self._denies(rule))

    def under(self, names: Iterable[str]) -> dict[str, None]:
        """Renvoie ces sujets et tous ceux qui les tiennent comme rôles."""
        return dict.fromkeys(member for name in names for member in self.policy.graph.under(name))

    @property
    def names_subjects(self) -> bool:
        """Vrai si chaque branche du matcher désigne le sujet de la règle par son nom ou par un rôle."""
        branches = self.policy.plan.branches
        named = all(any(map(self._names_subject, branch.keys)) for branch in branches)
        return bool(branches) and PolicyInspector(self.policy).can_ask and named

    def _names_subject(self, key: Key) -> bool:
        """Dit si un terme compare le sujet de la règle à celui de la requête, par égalité ou par rôle."""
        is_own = key.field == self.policy.schema.position("p", SUBJECT_NAMES) and self._is_subject(key.request)
        return is_own and key.probe in {Probe.EXACT, Probe.ROLE}

    def _is_subject(self, place: int | None) -> bool:
        return place is not None and self.policy.schema.request[place] in SUBJECT_NAMES

    def _denies(self, rule: PolicyRule) -> bool:
        """Dit si une règle refuse."""
        names = self.policy.schema.fields["p"]
        return "eft" in names and rule.values[names.index("eft")] == "deny"
