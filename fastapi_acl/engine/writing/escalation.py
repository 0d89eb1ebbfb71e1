"""Nul n'accorde ce qu'il ne détient pas, quel que soit le chemin par lequel le changement vient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_acl.engine.kernel.acl_match import ANY
from fastapi_acl.engine.writing.comparison import Carried, Comparison, is_computable
from fastapi_acl.shared.exceptions import EscalationRefusedError
from fastapi_acl.shared.identity import SYSTEM

if TYPE_CHECKING:
    from fastapi_acl.engine.kernel.pacing import Pace
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.writing.actors import ActorGuard
    from fastapi_acl.engine.writing.comparison import Power
    from fastapi_acl.engine.writing.ranks import Ranks
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.policy import PolicyChange


@dataclass(frozen=True, slots=True, kw_only=True)
class EscalationGuard:
    """Refuse qu'un changement donne à quelqu'un ce que son auteur ne détient pas.

    Où cela ne se calcule pas (un modèle qui compare autrement que par égalité ou `aclMatch`), l'auteur doit tout
    détenir : là, qui écrit les règles peut tout.
    """

    policy: Policy
    ranks: Ranks
    actors: ActorGuard

    async def check(self, change: PolicyChange, actor: Principal, pace: Pace) -> None:
        """Compare ce que le changement accorde à ce que l'auteur détient avant lui.

        Args:
            change: effet net du changement ; les règles qui arrivent ont la forme du modèle.
            actor: son auteur ; `SYSTEM` n'est pas limité.
            pace: rend la main au fil du travail.

        Raises:
            EscalationRefusedError: le changement accorde plus que l'auteur ne détient.
        """
        if actor is SYSTEM:
            return
        if not is_computable(self.policy):
            self.require_everything(actor)
            return
        held = _Held(Comparison.over(self.policy), actor)
        may_lift = self.ranks.is_whole(actor)
        async for grant in pace.through(await self._list_given(change, pace)):
            if not (may_lift and not grant.allows) and not held.includes(grant):
                raise self._make_refusal(grant, actor)

    def require_everything(self, actor: Principal) -> None:
        """Exige de l'auteur qu'il détienne tout, refus mis à part : ce qu'il écrit ne se compare pas.

        Raises:
            EscalationRefusedError: il ne détient pas tout.
        """
        if actor is not SYSTEM and not self.ranks.is_whole(actor):
            message = "Sous ce modèle, ou en masse, seul qui détient tout, ou la ligne de commande, change les règles."
            raise EscalationRefusedError(message)

    async def _list_given(self, change: PolicyChange, pace: Pace) -> dict[Power, None]:
        """Renvoie ce que le changement donne : accords et rôles ajoutés, refus et rôles qui refusent retirés."""
        comparison = Comparison.over(self.policy)
        carried = Carried(comparison, change, pace)
        given = {grant: None async for grant in carried.distinct(change.added) if grant.allows}
        given.update([(grant, None) async for grant in carried.distinct(change.removed) if not grant.allows])
        return given

    def _make_refusal(self, grant: Power, actor: Principal) -> EscalationRefusedError:
        """Fait l'erreur ; ce qu'il aurait fallu détenir n'est dit qu'à qui peut lire les règles."""
        if not self.actors.may_read(actor):
            return EscalationRefusedError()
        return EscalationRefusedError(needed=dict(grant.fields))


class _Held:
    """Ce que l'auteur d'un changement détient, sans qu'aucun refus n'en retranche."""

    def __init__(self, comparison: Comparison, actor: Principal) -> None:
        self._comparison = comparison
        self._actor = actor
        self._denials = {name: found for name in self._reach(ANY) if (found := self._denials_of(name))}
        self._by_domain: dict[str, list[Power]] = {}

    def includes(self, asked: Power) -> bool:
        """Dit si l'auteur détient tout ce qui est demandé.

        Un accord doit lui venir dans le domaine même ; un refus compte dès qu'il vaut dans une partie du domaine.
        """
        denied = any(self._comparison.overlaps(denial, asked) for denial in self._denials_in(asked.domain))
        return not denied and self._comparison.is_granted(self._actor.subject, asked)

    def _denials_in(self, domain: str) -> list[Power]:
        """Renvoie les refus qui visent l'auteur dans une partie d'un domaine ; lus une fois par domaine."""
        if not self._denials:
            return []
        if domain not in self._by_domain:
            names = filter(self._denials.__contains__, self._reach(domain))
            self._by_domain[domain] = [grant for name in names for grant in self._denials[name]]
        return self._by_domain[domain]

    def _reach(self, domain: str) -> list[str]:
        return self._comparison.reach(self._actor.subject, domain)

    def _denials_of(self, name: str) -> list[Power]:
        """Renvoie les refus qui nomment un sujet."""
        grants = map(self._comparison.grant, self._comparison.rules_of([name]))
        return list(dict.fromkeys(grant for grant in grants if not grant.allows))
