"""Ce qu'un changement ferait perdre, et à qui : chaque nom n'est lu, et chaque verdict rendu, qu'une fois.

Deux mille membres d'un même rôle perdent la même chose : ce qu'un nom tient est confronté d'un coup, par un index, à
tout ce qui part ou se refuse, et ce qui en reste se juge par des ensembles partagés.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.kernel.acl_match import ANY, patterns_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from fastapi_acl.engine.kernel.pacing import Pace
    from fastapi_acl.engine.writing.comparison import Carried, Comparison, Power

_NONE: Final[frozenset[Power]] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """Ce qui se perdrait d'un coup, dans un domaine ; deux pertes sont la même si c'est le même objet.

    Attributes:
        domain: domaine de ces permissions.
        allows: vrai pour des accords qui partent, faux pour des refus qui arrivent.
        grants: ces accords ou ces refus.
    """

    domain: str
    allows: bool
    grants: frozenset[Power]


Losses = dict[str, list[Loss]]
"""Ce que perdrait chaque nom que le changement touche."""


def sort_losses(grants: Iterable[Power]) -> list[Loss]:
    """Range des accords ou des refus en pertes, une par domaine."""
    found: dict[tuple[str, bool], list[Power]] = defaultdict(list)
    for grant in grants:
        found[grant.domain, grant.allows].append(grant)
    return [Loss(domain, allows, frozenset(known)) for (domain, allows), known in found.items()]


async def hits(subject: str, losses: Losses, comparison: Comparison, pace: Pace) -> AsyncIterator[Loss]:
    """Énumère ce qu'un sujet perdrait, par lui-même ou par un rôle qu'il tient, là où cela vaut."""
    names = [name for name in comparison.reach(subject, ANY) if name in losses]
    holds: dict[str, bool] = {}
    for loss in dict.fromkeys(loss for name in names for loss in losses[name]):
        await pace.step()
        if loss.domain not in holds:
            reached = comparison.reach(subject, loss.domain) if comparison.has_domains else names
            holds[loss.domain] = not set(names).isdisjoint(reached)
        if holds[loss.domain]:
            yield loss


class GrantIndex:
    """Des permissions rangées champ par champ : ce qu'une autre en couvre, ou touche, se trouve sans comparer."""

    def __init__(self, comparison: Comparison, *, overlapping: bool) -> None:
        """Part vide.

        Args:
            comparison: dit quels champs se comparent par motif.
            overlapping: vrai pour trouver ce qui a quelque chose en commun, faux pour ce qui est couvert tout entier.
        """
        self._comparison = comparison
        self._overlapping = overlapping
        self._exact: dict[tuple[str, str], set[Power]] = defaultdict(set)
        self._below: dict[tuple[str, str], set[Power]] = defaultdict(set)

    def add(self, grant: Power) -> None:
        """Range une permission, sous sa valeur et sous les motifs qui la couvrent."""
        for name, value, by_pattern in self._values(grant):
            self._exact[name, value].add(grant)
            for pattern in patterns_of(value) if by_pattern else (value,):
                self._below[name, pattern].add(grant)

    def list_touched(self, held: Power) -> frozenset[Power]:
        """Renvoie les permissions rangées que celle-ci couvre, ou touche."""
        found: set[Power] | frozenset[Power] | None = None
        for name, value, by_pattern in self._values(held):
            near = self._near(name, value, by_pattern=by_pattern)
            found = near if found is None else found & near
            if not found:
                return _NONE
        return frozenset(found or _NONE)

    def _near(self, name: str, value: str, *, by_pattern: bool) -> set[Power] | frozenset[Power]:
        """Renvoie les permissions rangées que ce champ-ci n'écarte pas."""
        below = self._below.get((name, value), _NONE)
        if not self._overlapping or not by_pattern:
            return below
        return below.union(*(self._exact.get((name, pattern), _NONE) for pattern in patterns_of(value)))

    def _values(self, grant: Power) -> Iterator[tuple[str, str, bool]]:
        """Énumère les champs d'une permission, domaine compris, et dit lesquels se comparent par motif."""
        yield "", grant.domain, self._comparison.domains_are_patterns
        for name, value in grant.fields:
            yield name, value, self._comparison.is_pattern(name)


class Verdicts:
    """Dit qui perdrait quoi, un changement fait."""

    def __init__(self, after: Carried, pace: Pace) -> None:
        """Part sans rien savoir.

        Args:
            after: ce qui se tient, le changement fait.
            pace: rend la main au fil du travail.
        """
        self._after = after
        self._pace = pace
        self._indexes = {allows: GrantIndex(after.comparison, overlapping=not allows) for allows in (True, False)}
        self._by_grant: dict[tuple[bool, Power], frozenset[Power]] = {}
        self._by_name: dict[tuple[bool, str], frozenset[Power]] = {}
        self._shared: dict[frozenset[Power], frozenset[Power]] = {}
        self._known: dict[tuple[Loss, tuple[frozenset[Power], ...]], bool] = {}

    async def learn(self, losses: Losses) -> None:
        """Range tout ce qui se perdrait."""
        for loss in dict.fromkeys(loss for known in losses.values() for loss in known):
            async for grant in self._pace.through(loss.grants):
                self._indexes[loss.allows].add(grant)

    async def loses(self, subject: str, loss: Loss) -> bool:
        """Dit si un sujet n'aurait plus une de ces permissions, ou si un de ces refus en prendrait une qu'il tient."""
        reached = self._after.closure if loss.allows else self._after.comparison.reach
        touched = [await self._list_touched(name, allows=loss.allows) for name in reached(subject, loss.domain)]
        key = (loss, tuple(dict.fromkeys(filter(None, touched))))
        if key not in self._known:
            self._known[key] = await self._judge(*key)
        return self._known[key]

    async def _judge(self, loss: Loss, touched: Sequence[frozenset[Power]]) -> bool:
        """Renvoie le verdict : tout ce qui part doit être couvert, rien de ce qui se refuse ne doit être tenu."""
        await self._pace.step()
        if loss.allows:
            return bool(loss.grants.difference(*touched))
        return not all(map(loss.grants.isdisjoint, touched))

    async def _list_touched(self, name: str, *, allows: bool) -> frozenset[Power]:
        """Renvoie ce que les accords d'un nom couvrent de ce qui part, ou touchent de ce qui se refuse."""
        if (allows, name) not in self._by_name:
            await self._pace.step()
            read = self._after.rules if allows else self._after.comparison.rules_of
            found: set[Power] = set()
            async for grant in self._pace.through(map(self._after.comparison.grant, read([name]))):
                found |= self._list_touched_by(grant, allows=allows) if grant.allows else _NONE
            kept = frozenset(found)
            self._by_name[allows, name] = self._shared.setdefault(kept, kept)
        return self._by_name[allows, name]

    def _list_touched_by(self, grant: Power, *, allows: bool) -> frozenset[Power]:
        """Renvoie ce qu'un accord couvre de ce qui part, ou touche de ce qui se refuse."""
        if (allows, grant) not in self._by_grant:
            found = self._indexes[allows].list_touched(grant)
            self._by_grant[allows, grant] = self._shared.setdefault(found, found)
        return self._by_grant[allows, grant]
