"""Ce que l'interface de gestion de Casbin lit en mode strict : des vues sur nos règles, pas des copies à tenir."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from casbin.rbac import RoleManager

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastapi_acl.engine.role_graph import RoleGraph


class RuleRows:
    """Les règles d'un type, comme la liste de listes que Casbin attend ; retirer n'y coûte pas un parcours."""

    def __init__(self) -> None:
        """Part vide."""
        self._rows: dict[tuple[str, ...], None] = {}

    def append(self, row: Sequence[str]) -> None:
        """Ajoute une règle à la fin."""
        self._rows[tuple(row)] = None

    def remove(self, row: Sequence[str]) -> None:
        """Retire une règle."""
        del self._rows[tuple(row)]

    def __contains__(self, row: object) -> bool:
        """Dit si la règle y est."""
        return isinstance(row, (list, tuple)) and tuple(row) in self._rows

    def __iter__(self) -> Iterator[list[str]]:
        """Parcourt les règles, dans l'ordre."""
        return (list(row) for row in self._rows)

    def __len__(self) -> int:
        """Rend le nombre de règles."""
        return len(self._rows)

    def __getitem__(self, place: int) -> list[str]:
        """Rend la règle de ce rang."""
        return list(next(islice(self._rows, place, None)))


class GraphRoleManager(RoleManager):
    """Le gestionnaire de rôles que Casbin interroge ; il ne lit que `RoleGraph`, qui seul suit les règles."""

    matching_func = None
    domain_matching_func = None

    def __init__(self, roles: RoleGraph) -> None:
        """Retient les liens.

        Args:
            roles: liens d'un type `g`.
        """
        self._roles = roles

    def has_link(self, name1: str, name2: str, *domain: str) -> bool:
        """Dit si le premier tient le second."""
        return self._roles.has(name1, name2, *domain)

    def get_roles(self, name: str, *domain: str) -> list[str]:
        """Rend les rôles directs d'un nom."""
        return self._roles.roles_of(name, *_named(domain))

    def get_users(self, name: str, *domain: str) -> list[str]:
        """Rend les membres directs d'un rôle."""
        return self._roles.members_of(name, *_named(domain))

    def clear(self) -> None:
        """Ne fait rien : les liens suivent les règles."""

    def add_link(self, *_: object) -> None:
        """Ne fait rien : les liens suivent les règles."""

    def delete_link(self, *_: object) -> None:
        """Ne fait rien : les liens suivent les règles."""

    def print_roles(self) -> None:
        """Ne fait rien : la politique ne s'écrit pas dans un journal."""


def _named(domain: Sequence[str]) -> Sequence[str]:
    """Écarte le domaine vide, par lequel Casbin dit « sans domaine »."""
    return [place for place in domain if place]
