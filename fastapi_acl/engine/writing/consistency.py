"""Ce que les règles exigent d'elles-mêmes : une forme, une existence, des rôles définis, et nulle chaîne sans fin."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import filterfalse
from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.kernel.schema import SUBJECT_NAMES
from fastapi_acl.shared.exceptions import (
    ConflictError,
    InvalidRuleError,
    RoleNotFoundError,
    RuleAlreadyExistsError,
    RuleNotFoundError,
)
from fastapi_acl.shared.identity import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastapi_acl.engine.kernel.pacing import Pace
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.writing.actors import ActorGuard
    from fastapi_acl.engine.writing.ranks import Ranks
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.policy import PolicyChange, PolicyRule

EMPTIED_ROLE: Final = (
    "Ce changement ôterait sa dernière règle à un rôle qui garde des membres, et qui le remplirait plus tard leur "
    "donnerait ce qu’il y met : retirez ses liens dans le même changement. Rien n’a été changé."
)
"""Ce qui est dit d'un rôle que l'on viderait sous ses membres."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyGuard:
    """Refuse un changement que la politique ne saurait tenir ; à qui ne peut pas lire les règles, rien n'en est dit."""

    policy: Policy
    actors: ActorGuard
    ranks: Ranks

    async def check_form(self, change: PolicyChange, pace: Pace) -> None:
        """Refuse une règle qui n'a pas la forme du modèle.

        Raises:
            InvalidRuleError: l'une d'elles ne l'a pas.
        """
        async for rule in pace.through(change.added):
            self.policy.schema.check(rule)

    def check_existence(self, pending: PolicyChange, change: PolicyChange, actor: Principal) -> None:
        """Refuse d'ajouter ce qui existe et de retirer ce qui n'existe pas.

        Raises:
            RuleAlreadyExistsError: une règle à ajouter existe.
            ConflictError: de même, et l'auteur ne peut pas lire les règles.
            RuleNotFoundError: une règle à retirer n'existe pas.
        """
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

    async def check_links(self, change: PolicyChange, actor: Principal, pace: Pace) -> None:
        """Refuse un cycle ou une chaîne trop longue.

        Raises:
            InvalidRuleError: les rôles en formeraient.
        """
        try:
            async for _ in pace.through(self.policy.check_by_steps(change)):
                pass
        except InvalidRuleError as error:
            if "reason" not in error.evidence or self.actors.may_read(actor):
                raise
            message = "Règle refusée : les rôles formeraient un cycle ou une chaîne trop longue ; rien n’a été changé."
            raise InvalidRuleError(message, reason=error.evidence["reason"]) from None

    def check_roles(self, change: PolicyChange, actor: Principal) -> None:
        """Refuse de donner un rôle que rien ne définit, ni avant le changement ni en lui.

        Un rôle vide, joint d'avance, donnerait un jour ce que personne n'a voulu donner à ce compte. Le système, lui,
        écrit dans l'ordre qu'il veut.

        Raises:
            RoleNotFoundError: rien ne définit le rôle.
        """
        place = self.policy.schema.position("p", SUBJECT_NAMES)
        if actor is SYSTEM or place is None:
            return
        given = {rule.values[1]: rule for rule in change.added if rule.ptype == "g"}
        defined = {self.policy.schema.subject_of(rule) for rule in change.added if rule.ptype == "p"}
        known = self.policy.rows("p").list_known(place)
        for role, rule in given.items():
            if role not in defined and role not in known and not self._is_in_matcher(role):
                raise RoleNotFoundError(rule=rule.as_json())

    def check_emptied(self, change: PolicyChange, actor: Principal) -> None:
        """Refuse de retirer la dernière règle d'un rôle qui garde des membres : ils tiendraient d'avance un rôle vide.

        Une règle qui refuse en est une : le rôle reste nommé. Qui tient tout a tout à donner, et peut le faire.

        Raises:
            ConflictError: le rôle garderait des membres.
        """
        place = self.policy.schema.position("p", SUBJECT_NAMES)
        if actor is SYSTEM or place is None:
            return
        arriving, leaving = self._roles_of(change.added), self._roles_of(change.removed)
        for role in leaving["p"]:
            rules = len(self.policy.rows("p").holding(place, role)) + arriving["p"][role] - leaving["p"][role]
            links = self.policy.graph.count_links(role) + arriving["g"][role] - leaving["g"][role]
            if rules > 0 or links <= 0 or self._is_in_matcher(role):
                continue
            if self.ranks.is_whole(actor):
                return
            raise ConflictError(EMPTIED_ROLE, **({"members_count": links} if self.actors.may_read(actor) else {}))

    def _is_in_matcher(self, role: str) -> bool:
        """Dit si le matcher nomme un rôle, qui n'a alors besoin d'aucune règle."""
        return f'"{role}"' in self.policy.schema.matcher

    def _roles_of(self, rules: Iterable[PolicyRule]) -> Mapping[str, Counter[str]]:
        """Compte les règles `p` de chaque sujet, et les liens vers chaque rôle."""
        found: dict[str, Counter[str]] = {"p": Counter(), "g": Counter()}
        for rule in rules:
            if rule.ptype in found:
                found[rule.ptype][rule.values[1] if rule.ptype == "g" else self.policy.schema.subject_of(rule)] += 1
        return found
