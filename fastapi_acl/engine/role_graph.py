"""Liens entre rôles : fermetures gardées à jour ; cycles et profondeur, refusés à l'écriture."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from fastapi_acl.shared.exceptions import InvalidRuleError
from fastapi_acl.shared.identity import EVERY_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastapi_acl.shared.policy import PolicyRule

MAX_LINKS: Final = 9
"""Nombre de liens qu'une chaîne peut compter : au-delà, Casbin refuse en silence.

Source: https://casbin.org/docs/rbac (max hierarchy level 10)
"""

Graph = dict[str, list[str]]
Domains = tuple[tuple[str, ...], ...]


def check_links(rules: Iterable[PolicyRule]) -> None:
    """Refuse un cycle ou une chaîne trop longue, dans chaque domaine où les liens se combinent.

    Args:
        rules: toutes les règles d'un même type `g…`.

    Raises:
        InvalidRuleError: avec `reason` valant `role_cycle` ou `role_depth`, et les noms en cause.
    """
    by_domain: dict[tuple[str, ...], Graph] = defaultdict(lambda: defaultdict(list))
    for rule in rules:
        member, role, *place = rule.values
        by_domain[tuple(place)][member].append(role)
    for domain, graph in by_domain.items():
        _check_graph(_with_shared(domain, graph, by_domain))


def _with_shared(domain: tuple[str, ...], graph: Graph, by_domain: Mapping[tuple[str, ...], Graph]) -> Graph:
    """Ajoute aux liens d'un domaine ceux du domaine `*`, qui valent partout."""
    shared = by_domain.get((EVERY_DOMAIN,))
    if shared is None or domain == (EVERY_DOMAIN,):
        return graph
    return {name: [*graph.get(name, ()), *shared.get(name, ())] for name in {*graph, *shared}}


def _check_graph(graph: Mapping[str, Sequence[str]]) -> None:
    """Mesure la plus longue chaîne depuis chaque nœud, sans récursion : la profondeur vient d'un client."""
    depth: dict[str, int] = {}
    for start in graph:
        _measure(start, graph, depth)


def _measure(start: str, graph: Mapping[str, Sequence[str]], depth: dict[str, int]) -> None:
    """Remplit `depth` pour tout ce que `start` atteint."""
    path: list[str] = [start]
    on_path = {start}
    while path:
        name = path[-1]
        waiting = next((parent for parent in graph.get(name, ()) if parent not in depth), None)
        if waiting is None:
            depth[name] = max((depth[parent] + 1 for parent in graph.get(name, ())), default=0)
            _check_depth(name, depth[name])
            on_path.discard(path.pop())
        elif waiting in on_path:
            cycle = [*path[path.index(waiting) :], waiting]
            message = f"Règle refusée : les rôles formeraient un cycle ({' → '.join(cycle)}) ; rien n’a été changé."
            raise InvalidRuleError(message, reason="role_cycle", cycle=cycle)
        else:
            path.append(waiting)
            on_path.add(waiting)


def _check_depth(name: str, links: int) -> None:
    """Refuse une chaîne plus longue que Casbin n'en suit."""
    if links > MAX_LINKS:
        message = f"Règle refusée : au-dessus de « {name} », la chaîne de rôles dépasserait {MAX_LINKS} liens."
        raise InvalidRuleError(message, reason="role_depth", subject=name)


class RoleGraph:
    """Les liens d'un type `g`, et ce que chaque membre en tient.

    La fermeture d'un membre est calculée une fois et gardée ; un lien n'invalide que les membres qu'il touche. Un nom
    sans lien n'y laisse rien : demander ne coûte pas de mémoire.
    """

    def __init__(self, *, shares_domains: bool = False) -> None:
        """Part vide.

        Args:
            shares_domains: un lien dans le domaine `*` vaut dans tous.
        """
        self._shares_domains = shares_domains
        self._roles: dict[tuple[str, ...], dict[str, dict[str, None]]] = {}
        self._members: dict[str, dict[tuple[str, tuple[str, ...]], None]] = {}
        self._closures: dict[Domains, dict[str, tuple[str, ...]]] = {}

    def add(self, values: Sequence[str]) -> None:
        """Ajoute un lien (membre, rôle, domaine…)."""
        member, role, *place = values
        domain = tuple(place)
        self._roles.setdefault(domain, {}).setdefault(member, {})[role] = None
        self._members.setdefault(role, {})[member, domain] = None
        self._forget(member)

    def remove(self, values: Sequence[str]) -> None:
        """Retire un lien."""
        member, role, *place = values
        domain = tuple(place)
        links, members = self._roles[domain], self._members[role]
        del links[member][role], members[member, domain]
        if not links[member]:
            del links[member]
        if not links:
            del self._roles[domain]
        if not members:
            del self._members[role]
        self._forget(member)

    def closure(self, member: str, *domain: str) -> tuple[str, ...]:
        """Rend le membre et tous les rôles qu'il tient, du plus proche au plus lointain."""
        places = self._places(domain)
        known = self._closures.get(places)
        found = known.get(member) if known is not None else None
        return found if found is not None else self._walk(member, places)

    def has(self, member: str, role: str, *domain: str) -> bool:
        """Dit si un membre tient un rôle, ou est ce rôle."""
        return member == role or role in self.closure(member, *domain)

    def roles_of(self, member: str, *domain: str) -> list[str]:
        """Rend les rôles directs d'un membre."""
        links = (self._roles[place].get(member, ()) for place in self._places(domain))
        return list(dict.fromkeys(role for roles in links for role in roles))

    def members_of(self, role: str, *domain: str) -> list[str]:
        """Rend les membres directs d'un rôle."""
        places = set(self._places(domain))
        return list(dict.fromkeys(member for member, place in self._members.get(role, ()) if place in places))

    def _walk(self, member: str, domains: Domains) -> tuple[str, ...]:
        """Parcourt les liens, en largeur, sur `MAX_LINKS` liens au plus."""
        graphs = [self._roles[place] for place in domains]
        found = {member: None}
        edge: list[str] = [member]
        for _ in range(MAX_LINKS):
            reached = (role for name in edge for graph in graphs for role in graph.get(name, ()))
            edge = [role for role in dict.fromkeys(reached) if role not in found]
            found.update(dict.fromkeys(edge))
        closure = tuple(found)
        if len(closure) > 1:
            self._closures.setdefault(domains, {})[member] = closure
        return closure

    def _places(self, domain: tuple[str, ...]) -> Domains:
        """Rend les domaines qui ont des liens et dont les liens valent dans celui-ci.

        Un domaine inconnu s'y réduit à `*` : demander ce qui se passe dans mille domaines ne garde rien pour mille.
        """
        places = {domain, (EVERY_DOMAIN,)} if self._shares_domains and len(domain) == 1 else {domain}
        return tuple(sorted(place for place in places if place in self._roles))

    def _forget(self, member: str) -> None:
        """Oublie les fermetures que ce membre peut changer : la sienne, ou toutes s'il est lui-même un rôle."""
        if member in self._members:
            self._closures.clear()
        else:
            for known in self._closures.values():
                known.pop(member, None)
