"""Les règles d'une politique, type par type, et les liens que ses règles `g` font."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, final

from fastapi_acl.engine.kernel.role_graph import RoleGraph
from fastapi_acl.engine.kernel.rows import RowListener, Rows
from fastapi_acl.engine.kernel.schema import SUBJECT_NAMES
from fastapi_acl.engine.kernel.sequence import SequenceLock
from fastapi_acl.shared.exceptions import ConfigurationError, InvalidRuleError
from fastapi_acl.shared.policy import PolicyChange, PolicyRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastapi_acl.engine.kernel.rows import Rank, Row
    from fastapi_acl.engine.kernel.schema import PolicySchema


@final
@dataclass(frozen=True, slots=True)
class LinkRows(RowListener):
    """Tient les liens à jour des règles `g`."""

    graph: RoleGraph

    def add(self, row: Row) -> None:
        """Ajoute le lien d'une règle."""
        self.graph.add(*row[:3])

    def remove(self, row: Row) -> None:
        """Retire le lien d'une règle."""
        self.graph.remove(*row[:3])

    def dismantle(self) -> None:
        """Libère peu à peu la mémoire des liens."""
        self.graph.dismantle()


class KeptRows(Rows):
    """Les règles d'un type d'une politique : elle seule les change, et non qui les lit par le modèle de Casbin."""

    __slots__ = ()

    def take(self, row: Row) -> None:
        """Retire une règle présente."""
        with self._sequence:
            self._drop(row)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:  # noqa: ANN401 - les signatures qu'elle remplace
        """Refuse un changement que la base ignorerait.

        Raises:
            ConfigurationError: toujours.
        """
        message = (
            "les règles en service suivent la base : changez-les par les méthodes de l’enforcer, non par son modèle."
        )
        raise ConfigurationError(message)

    append = extend = remove = replace_all = _rewrite = _refuse


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Toutes les règles d'une politique.

    Attributes:
        schema: forme que le modèle leur donne.
        rows: les règles de chaque type, `p` puis `g`.
        graphs: les liens de chaque type `g`, qui suivent ses règles.
        widths: nombre de valeurs d'une règle de chaque type.
    """

    schema: PolicySchema
    rows: Mapping[str, KeptRows]
    graphs: Mapping[str, RoleGraph]
    widths: Mapping[str, int]

    @classmethod
    def of(cls, schema: PolicySchema, known: Mapping[str, dict[Row, int]]) -> RuleSet:
        """Range des règles.

        Args:
            schema: forme que le modèle leur donne.
            known: règles de chaque type et leur numéro, dans l'ordre.
        """
        sequence = SequenceLock()
        rows = {}
        for ptype in (*schema.fields, *schema.links):
            priority = schema.position(ptype, frozenset({"priority"}))
            rows[ptype] = KeptRows(sequence=sequence, priority=priority)
            rows[ptype].fill(known.get(ptype, {}))
        graphs = {ptype: _graph(rows[ptype], schema, ptype, sequence) for ptype in schema.links}
        return cls(schema, rows, graphs, {ptype: len(schema.columns(ptype)) for ptype in rows})

    def join(self, sequence: SequenceLock) -> None:
        """Prend le verrou sous lequel ces règles vont décider."""
        for rows in self.rows.values():
            rows.join(sequence)
        for graph in self.graphs.values():
            graph.join(sequence)

    def __len__(self) -> int:
        """Renvoie le nombre de règles."""
        return sum(map(len, self.rows.values()))

    def dismantle(self) -> None:
        """Libère peu à peu la mémoire d'une politique qui ne décide plus."""
        for rows in self.rows.values():
            rows.dismantle()

    # --- lecture ------------------------------------------------------------------------------------------------------

    def __contains__(self, rule: PolicyRule) -> bool:
        """Dit si une règle y est."""
        rows = self.rows.get(rule.ptype)
        return rows is not None and rule.values in rows

    def list_rules(self) -> tuple[PolicyRule, ...]:
        """Renvoie toutes les règles, type par type, dans l'ordre."""
        return tuple(PolicyRule(ptype, row) for ptype, rows in self.rows.items() for row in rows.list_ordered())

    def naming(self, subject: str) -> tuple[PolicyRule, ...]:
        """Renvoie les règles qui nomment un sujet : celles qui lui donnent ou lui refusent, et ses liens."""
        found: list[PolicyRule] = []
        for ptype, place in self._subject_places().items():
            found += [PolicyRule(ptype, row) for row in self.rows[ptype].matching(place, [subject])]
        for ptype, graph in self.graphs.items():
            found += [PolicyRule(ptype, row) for row in graph.links_of(subject) if row in self.rows[ptype]]
        return tuple(found)

    def subjects(self) -> list[str]:
        """Renvoie tous les sujets et membres que les règles nomment."""
        places = self._subject_places() | dict.fromkeys(self.graphs, 0)
        named = (subject for ptype, place in places.items() for subject in self.rows[ptype].values_of(place))
        return list(dict.fromkeys(named))

    def _subject_places(self) -> dict[str, int]:
        """Renvoie la place du sujet dans chaque type `p` qui en a un."""
        places = {ptype: self.schema.position(ptype, SUBJECT_NAMES) for ptype in self.schema.fields}
        return {ptype: place for ptype, place in places.items() if place is not None}

    # --- changement ---------------------------------------------------------------------------------------------------

    def effective(self, change: PolicyChange) -> PolicyChange:
        """Renvoie ce qu'un changement change vraiment, chaque règle une fois ; rien n'a encore été touché.

        Raises:
            InvalidRuleError: une règle n'a pas la longueur que le modèle demande, ou part sans être là.
        """
        self._check_widths(change)
        removed = _distinct(change.removed)
        self._check_presence(removed)
        added = _distinct([rule for rule in change.added if rule not in self or rule in removed])
        return PolicyChange(added=added, removed=removed)

    def _check_widths(self, change: PolicyChange) -> None:
        for rule in change:
            if len(rule.values) != self.widths.get(rule.ptype):
                message = "Règle refusée : le modèle n’a pas de règle de cette forme ; rien n’a été changé."
                raise InvalidRuleError(message, rule=rule.as_json())

    def _check_presence(self, rules: Iterable[PolicyRule]) -> None:
        for rule in rules:
            if rule not in self:
                message = "Une règle à retirer n’est pas en service ; rien n’a été changé."
                raise InvalidRuleError(message, rule=rule.as_json())

    def replace(self, change: PolicyChange, numbers: Mapping[PolicyRule, int] = MappingProxyType({})) -> list[Rank]:
        """Retire puis ajoute des règles, à leur numéro si elles en ont un ; renvoie le rang de celles qui partent."""
        ranks = [self.rows[rule.ptype].rank(rule.values) for rule in change.removed]
        for rule in change.removed:
            self.rows[rule.ptype].take(rule.values)
        for rule in change.added:
            rows = self.rows[rule.ptype]
            rows.place(rule.values, numbers.get(rule, rows.last + 1))
        return ranks

    def lasts(self, rules: Iterable[PolicyRule]) -> dict[str, int]:
        """Renvoie le dernier rang donné de chaque type de ces règles."""
        return {rule.ptype: self.rows[rule.ptype].last for rule in rules}

    def restore(self, change: PolicyChange, ranks: Sequence[Rank], lasts: Mapping[str, int]) -> None:
        """Défait un changement : chaque règle partie reprend son rang."""
        self.replace(PolicyChange(removed=change.added))
        for rule, rank in zip(change.removed, ranks, strict=True):
            self.rows[rule.ptype].restore(rule.values, rank)
        for ptype, last in lasts.items():
            self.rows[ptype].last = last


def by_type(rules: Iterable[PolicyRule]) -> dict[str, dict[Row, int]]:
    """Range des règles par type, et les numérote dans l'ordre."""
    found: dict[str, dict[Row, int]] = {}
    for rank, rule in enumerate(rules, start=1):
        found.setdefault(rule.ptype, {}).setdefault(rule.values, rank)
    return found


def _graph(rows: Rows, schema: PolicySchema, ptype: str, sequence: SequenceLock) -> RoleGraph:
    """Fait les liens des règles d'un type, et les tient à jour."""
    has_domains = schema.links[ptype] > 2  # noqa: PLR2004 - membre et rôle
    graph = RoleGraph(shares_domains=bool(schema.shares_domains) and has_domains, sequence=sequence)
    graph.fill(rows.list_ordered())
    rows.watch(LinkRows(graph))
    return graph


def _distinct(rules: Sequence[PolicyRule]) -> tuple[PolicyRule, ...]:
    return tuple(rules) if len(rules) < 2 else tuple(dict.fromkeys(rules))  # noqa: PLR2004 - une seule ne se répète pas
