"""Liens entre rôles : cycles et profondeur, refusés à l'écriture plutôt que tus à la décision."""

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
