"""Les liens tels qu'un changement les laisserait, lus sans toucher à ceux qui décident.

Un essai (`PolicyEnforcer.trial`) tient le verrou de la politique, et ne peut donc pas rendre la main en chemin. Ces
liens-ci se lisent par petites étapes : ceux du graphe, moins ceux qui partent, plus ceux qui arrivent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from fastapi_acl.engine.kernel.role_graph import MAX_LINKS, measure
from fastapi_acl.shared.exceptions import InvalidRuleError
from fastapi_acl.shared.identity import EVERY_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from typing_extensions import Self

    from fastapi_acl.engine.kernel.role_graph import RoleGraph
    from fastapi_acl.shared.policy import PolicyChange, PolicyRule

Link = tuple[str, str, str]
"""Membre, rôle, domaine ; un domaine vide si les liens n'en portent pas."""


class LinksAfter:
    """Les liens d'un type, un changement fait."""

    def __init__(self, graph: RoleGraph, added: Iterable[Link] = (), removed: Iterable[Link] = ()) -> None:
        """Retient ce qui change.

        Args:
            graph: liens en service.
            added: liens qui arrivent.
            removed: liens qui partent.
        """
        self._graph = graph
        self._removed = frozenset(link for link in removed if graph.has_direct(*link))
        self._gone = Counter((role, domain) for _, role, domain in self._removed)
        self._added = dict.fromkeys(added)
        self._given = frozenset(role for _, role, _ in self._added)
        self._above: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
        self._below: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
        for member, role, domain in self._added:
            self._above[domain][member][role] = None
            self._below[domain][role][member] = None

    @classmethod
    def of(cls, graph: RoleGraph, change: PolicyChange, ptype: str = "g", *, removes: bool = True) -> Self:
        """Lit les liens d'un type dans un changement.

        Args:
            graph: liens en service.
            change: le changement.
            ptype: type des liens.
            removes: faux pour garder aussi ceux qui partent.
        """
        leaving = _links(change.removed, ptype) if removes else ()
        return cls(graph, _links(change.added, ptype), leaving)

    # --- lecture --------------------------------------------------------------------------------------------------

    def roles_of(self, name: str, domain: str) -> list[str]:
        """Renvoie les rôles directs d'un nom, dans un domaine et dans ceux qui y valent."""
        return list(self._roles(name, self._graph.places_of(domain)))

    def reach(self, name: str) -> list[str]:
        """Renvoie un nom et tous les rôles qu'il atteint, par des liens de n'importe quels domaines."""
        places = self._everywhere()
        found, waiting = {name: None}, [name]
        while waiting:
            fresh = [role for role in self._roles(waiting.pop(), places) if role not in found]
            found.update(dict.fromkeys(fresh))
            waiting += fresh
        return list(found)

    def closure(self, name: str, domain: str) -> list[str]:
        """Renvoie un nom et tous les rôles qu'il tient dans un domaine."""
        found, edge = {name: None}, [name]
        for _ in range(MAX_LINKS):
            reached = (role for known in edge for role in self.roles_of(known, domain))
            edge = [role for role in dict.fromkeys(reached) if role not in found]
            found.update(dict.fromkeys(edge))
        return list(found)

    def _everywhere(self) -> list[str]:
        """Renvoie tous les domaines où il y a des liens."""
        return list(dict.fromkeys([*self._graph.links, *self._above]))

    def _roles(self, name: str, places: Sequence[str]) -> dict[str, None]:
        """Renvoie les rôles directs d'un nom dans ces domaines."""
        found: dict[str, None] = {}
        for place in places:
            kept = self._graph.links.get(place, {}).get(name, ())
            found.update((role, None) for role in kept if (name, role, place) not in self._removed)
            if place in self._above:
                found.update(self._above[place].get(name, {}))
        return found

    def _members(self, name: str, places: Sequence[str]) -> tuple[bool, list[str]]:
        """Dit si un nom a des membres dans ces domaines, et renvoie ceux qui sont eux-mêmes des rôles."""
        has_any, nested = False, dict[str, None]()
        for place in places:
            added = self._below[place].get(name, {}) if place in self._below else {}
            nested.update(dict.fromkeys(filter(self._is_role, added)))
            count, roles = self._graph.survey_members(name, place)
            has_any = has_any or bool(added) or count > self._gone[name, place]
            nested.update((role, None) for role in roles if (role, name, place) not in self._removed)
        return has_any, list(nested)

    def _is_role(self, name: str) -> bool:
        """Dit si un nom est un rôle que quelqu'un tient."""
        return self._graph.is_role(name) or name in self._given

    # --- cycles et profondeur -------------------------------------------------------------------------------------

    def checking(self) -> Iterator[None]:
        """Refuse, étape par étape, les liens ajoutés qui feraient un cycle ou une chaîne trop longue.

        Tous les domaines confondus d'abord : ce qui tient là tient dans chacun, et c'est le cas courant.

        Raises:
            InvalidRuleError: avec `reason` valant `role_cycle` ou `role_depth`.
        """
        fresh = [link for link in self._added if not self._graph.has_direct(*link)]
        try:
            yield from self._measuring(dict.fromkeys(member for member, _, _ in fresh), self._everywhere())
        except InvalidRuleError:
            yield from self._checking_each(fresh)

    def _checking_each(self, links: Iterable[Link]) -> Iterator[None]:
        """Vérifie des liens dans chaque domaine où ils valent."""
        members: dict[str, dict[str, None]] = defaultdict(dict)
        for member, _, domain in links:
            shared = domain == EVERY_DOMAIN and not self._graph.is_exact
            for place in self._everywhere() if shared else [domain]:
                members[place][member] = None
        for place, names in members.items():
            yield from self._measuring(names, self._graph.places_of(place))

    def _measuring(self, members: Iterable[str], places: Sequence[str]) -> Iterator[None]:
        """Mesure les chaînes qui passent par ces membres, dans ces domaines."""
        upward, depth = _Upward(self, places), dict[str, int]()
        for member in members:
            yield
            measure(member, upward, depth, MAX_LINKS)
            below = self._links_below(member, places)
            if depth[member] + below > MAX_LINKS:
                measure(member, upward, {}, MAX_LINKS - below)  # pour nommer le rôle où la chaîne devient trop longue

    def _links_below(self, name: str, places: Sequence[str]) -> int:
        """Mesure la plus longue suite de membres sous un nom, sans énumérer ceux qui ne sont pas des rôles."""
        links, edge = 0, [name]
        while edge and links <= MAX_LINKS:
            known = [self._members(held, places) for held in edge]
            links += any(has_members for has_members, _ in known)
            edge = list(dict.fromkeys(member for _, roles in known for member in roles))
        return links

    def upward(self, name: str, places: Sequence[str]) -> Sequence[str]:
        """Renvoie les rôles directs d'un nom dans ces domaines."""
        return list(self._roles(name, places))


class _Upward:
    """Ce que `measure` parcourt : les rôles directs d'un nom, là où un domaine les voit."""

    def __init__(self, links: LinksAfter, places: Sequence[str]) -> None:
        self._links = links
        self._places = places

    def get(self, name: str, default: Sequence[str] = ()) -> Sequence[str]:  # noqa: ARG002 - celui de `Mapping.get`
        """Renvoie les rôles directs d'un nom."""
        return self._links.upward(name, self._places)


def _links(rules: Iterable[PolicyRule], ptype: str) -> list[Link]:
    """Lit les liens d'un type, sans domaine s'ils n'en portent pas."""
    return [(*rule.values[:2], *(rule.values[2:3] or ("",))) for rule in rules if rule.ptype == ptype]  # type: ignore[misc]
