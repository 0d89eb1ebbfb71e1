"""Le gestionnaire de rôles que Casbin interroge : il ne lit et n'écrit que `RoleGraph`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from casbin.rbac import default_role_manager

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from casbin.rbac import RoleManager

    from fastapi_acl.engine.kernel.role_graph import RoleGraph

MAX_HIERARCHY_LEVEL: Final = 10
"""Profondeur des gestionnaires de rôles de Casbin."""


class GraphRoleManager(default_role_manager.DomainManager):
    """Les rôles d'un type `g`, avec ou sans domaine, dans l'interface de Casbin.

    Une comparaison de noms de rôles (`add_matching_func`) dépend, dans Casbin, de l'ordre des questions ; pour
    répondre comme lui, ce gestionnaire lui laisse alors la place, et l'index ne sert plus pour ces rôles.
    """

    def __init__(self, graph: RoleGraph, *, has_domains: bool, on_change: Callable[[], None]) -> None:
        """Retient les liens.

        Args:
            graph: liens d'un type `g`.
            has_domains: vrai si un lien porte un domaine.
            on_change: appelé quand une fonction de comparaison est donnée.
        """
        super().__init__(MAX_HIERARCHY_LEVEL)
        self.matching_func: Callable[[str, str], bool] | None = None
        self.has_domains = has_domains
        self.graph = graph
        self._on_change = on_change
        self._links: dict[tuple[str, str, str], None] = {}
        self._stock: RoleManager | None = None

    @property
    def is_patterned(self) -> bool:
        """Vrai si les noms de rôles se comparent par une fonction : les liens sont alors ceux que tient Casbin."""
        return self._stock is not None

    def add_matching_func(self, fn: Callable[[str, str], bool]) -> None:
        """Compare les noms de rôles par une fonction, comme Casbin le fait."""
        self.matching_func = fn
        self._stock = self._make_casbin_manager()
        self._on_change()

    def _make_casbin_manager(self) -> RoleManager:
        """Refait, des mêmes liens, le gestionnaire de Casbin."""
        kind = default_role_manager.DomainManager if self.has_domains else default_role_manager.RoleManager
        made = kind(MAX_HIERARCHY_LEVEL)
        made.add_domain_matching_func(self.domain_matching_func)
        made.add_matching_func(self.matching_func)
        for member, role, domain in self._links:
            made.add_link(member, role, *([domain] if self.has_domains else []))
        return made

    def add_domain_matching_func(self, fn: Callable[[str, str], bool] | None = None) -> None:
        """Compare les domaines par une fonction."""
        self.domain_matching_func = fn
        if self._stock is not None:
            self._stock.add_domain_matching_func(fn)
        self.graph.match_domains(fn if self.has_domains else None)
        self._on_change()

    def clear(self) -> None:
        """Retire tous les liens."""
        self._links.clear()
        self.graph.clear()
        if self._stock is not None:
            self._stock.clear()

    def add_link(self, name1: str, name2: str, *domain: str) -> None:
        """Ajoute un lien."""
        place = self._domain(domain)
        self._links[name1, name2, place] = None
        self.graph.add(name1, name2, place)
        if self._stock is not None:
            self._stock.add_link(name1, name2, *domain)

    def delete_link(self, name1: str, name2: str, *domain: str) -> None:
        """Retire un lien.

        Sous une comparaison de noms, tout est refait : Casbin y perdrait aussi les liens exacts vers le même rôle.

        Raises:
            RuntimeError: avec des domaines, le lien n'existe pas.
        """
        place = self._domain(domain)
        if (name1, name2, place) not in self._links and self.has_domains:
            message = "ce lien entre deux rôles n’existe pas"
            raise RuntimeError(message)
        self._links.pop((name1, name2, place), None)
        self.graph.remove(name1, name2, place)
        if self._stock is not None:
            self._stock = self._make_casbin_manager()

    def has_link(self, name1: str, name2: str, *domain: str) -> bool:
        """Dit si le premier tient le second."""
        if self._stock is not None:
            return bool(self._stock.has_link(name1, name2, *domain))
        return self.graph.has(name1, name2, self._domain(domain))

    def get_roles(self, name: str, *domain: str) -> list[str]:
        """Renvoie les rôles directs d'un nom."""
        if self._stock is not None:
            return list(self._stock.get_roles(name, *domain))
        return self.graph.roles_of(name, self._domain(domain))

    def get_users(self, name: str, *domain: str) -> list[str]:
        """Renvoie les membres directs d'un rôle."""
        if self._stock is not None:
            return list(self._stock.get_users(name, *domain))
        return self.graph.members_of(name, self._domain(domain))

    def print_roles(self) -> None:
        """Ne fait rien : la politique ne s'écrit pas dans un journal."""

    def _domain(self, domain: Sequence[str]) -> str:
        """Renvoie le domaine d'une question ; sans domaines, il est ignoré.

        Raises:
            RuntimeError: plus d'un domaine.
        """
        if not self.has_domains:
            return ""
        if len(domain) > 1:
            message = "un lien de rôle a un domaine au plus"
            raise RuntimeError(message)
        return domain[0] if domain else ""


class ReadOnlyRoleManager(GraphRoleManager):
    """Le gestionnaire du mode strict : les liens suivent les règles, et rien d'autre ne les change."""

    def clear(self) -> None:
        """Ne fait rien."""

    def add_link(self, *_: object) -> None:
        """Ne fait rien."""

    def delete_link(self, *_: object) -> None:
        """Ne fait rien."""


class _KeptConditions(default_role_manager.ConditionalRoleManager):
    """Se souvient de la condition de chaque lien, qu'il existe déjà ou non."""

    def __init__(self, max_hierarchy_level: int) -> None:
        """Part vide, sans condition."""
        super().__init__(max_hierarchy_level)
        self._conditions: dict[tuple[str, str, str], Callable[..., bool]] = {}

    def add_domain_link_condition_func(
        self, user_name: str, role_name: str, domain: str, fn: Callable[..., bool]
    ) -> None:
        """Donne une condition à un lien, qu'il existe déjà ou non."""
        self._conditions[user_name, role_name, domain] = fn
        super().add_domain_link_condition_func(user_name, role_name, domain, fn)


class ConditionalRoles(_KeptConditions):
    """Les rôles dont les liens ont une condition : elle se consulte pour décider, non pour les lire.

    Une condition donnée vaut jusqu'à ce qu'une autre la remplace : dans Casbin, relire la politique les oublie toutes,
    et chaque lien vaut alors sans condition.
    """

    def add_link(self, name1: str, name2: str, *domain: str) -> None:
        """Ajoute un lien, sous la condition qui lui a été donnée."""
        super().add_link(name1, name2, *domain)
        condition = self._conditions.get((name1, name2, domain[0] if domain else ""))
        if condition is not None:
            super().add_domain_link_condition_func(name1, name2, domain[0] if domain else "", condition)

    def get_roles(self, name: str, *_: str) -> list[str]:
        """Renvoie les rôles directs d'un nom, que leur condition soit tenue ou non ; un nom inconnu ne laisse rien."""
        known = self.all_roles.get(name)
        return sorted(known.get_roles()) if known is not None else []

    def get_users(self, name: str, *_: str) -> list[str]:
        """Renvoie les membres directs d'un rôle, que leur condition soit tenue ou non."""
        known = self.all_roles.get(name)
        return sorted(member.name for member in known.users) if known is not None else []


class ConditionalDomainRoles(_KeptConditions, default_role_manager.ConditionalDomainManager):
    """Les mêmes, par domaine ; un domaine inconnu ne laisse rien quand on le lit."""

    def add_link_condition_func(self, user_name: str, role_name: str, fn: Callable[..., bool]) -> None:
        """Donne une condition à un lien du domaine vide, comme Casbin."""
        self.add_domain_link_condition_func(user_name, role_name, "", fn)

    def add_link(self, name1: str, name2: str, *domain: str) -> None:
        """Ajoute un lien, sous la condition qui lui a été donnée."""
        super().add_link(name1, name2, *domain)
        place = self._get_domain(*domain)
        condition = self._conditions.get((name1, name2, place))
        if condition is not None:
            self.rm_map[place].add_domain_link_condition_func(name1, name2, place, condition)

    def get_roles(self, name: str, *domain: str) -> list[str]:
        """Renvoie les rôles directs d'un nom dans un domaine, que leur condition soit tenue ou non."""
        known = self._find_role(name, domain)
        return sorted(known.get_roles()) if known is not None else []

    def get_users(self, name: str, *domain: str) -> list[str]:
        """Renvoie les membres directs d'un rôle dans un domaine, que leur condition soit tenue ou non."""
        known = self._find_role(name, domain)
        return sorted(member.name for member in known.users) if known is not None else []

    def _find_role(self, name: str, domain: Sequence[str]) -> Any:  # noqa: ANN401 - type de pycasbin
        """Renvoie ce que Casbin tient d'un nom dans un domaine ; None s'il n'y est pas."""
        manager = self.rm_map.get(self._get_domain(*domain))
        return manager.all_roles.get(name) if manager is not None else None
