"""Les règles d'une branche du matcher, rangées par les valeurs qu'il compare : une décision ne touche que ses cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastapi_acl.engine.kernel.acl_match import Prefixes
from fastapi_acl.engine.kernel.crowd import CROWDED, Cell, Crowd
from fastapi_acl.engine.kernel.key_match import PatternGroups
from fastapi_acl.engine.kernel.pacing import drain
from fastapi_acl.engine.kernel.plan import Probe
from fastapi_acl.shared.identity import AttributedName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fastapi_acl.engine.kernel.plan import Branch, Key
    from fastapi_acl.engine.kernel.role_graph import RoleGraph
    from fastapi_acl.engine.kernel.rows import Row

Cells = dict[tuple[Any, ...], Cell]
Probing = "Callable[..., list[Cell] | None]"

FEW_PROBES: Final = 16
"""Combinaisons qu'il vaut toujours mieux chercher que de parcourir les cases."""

TEXTS: Final = frozenset({str, AttributedName})
"""Types qui se cherchent comme un texte ; tout autre objet peut redéfinir l'égalité et se compare règle par règle."""


class BranchIndex:
    """Index d'une branche : la première clé mène à un seau, les autres à une case de ce seau.

    Un motif `aclMatch` se cherche comme une valeur : on énumère, parmi les motifs que des règles ont, ceux qui couvrent
    la valeur demandée. Les motifs `keyMatch*` sont groupés par préfixe littéral. La fonction qui cherche est écrite
    pour la branche : ses boucles sont celles de ses clés, et aucune valeur de règle ou de requête n'y entre.
    """

    def __init__(self, branch: Branch, roles: Mapping[str, RoleGraph], request_size: int) -> None:
        """Prépare un index vide.

        Args:
            branch: conjonction du matcher.
            roles: liens de chaque fonction de rôles que la branche emploie.
            request_size: nombre de valeurs d'une requête.
        """
        self._keys = branch.keys
        self._first = branch.keys[0] if branch.keys and branch.keys[0].find(Probe.KEY_MATCH) is None else None
        self._others = branch.keys[1:] if self._first is not None else branch.keys
        self._motifs = [motif for key in self._others if (motif := key.find(Probe.KEY_MATCH)) is not None]
        self._buckets: dict[Any, Cells] = {}
        self._groups: dict[Any, tuple[PatternGroups, ...]] = {}
        self._prefixes = {key.field: Prefixes() for key in self._keys if key.find(Probe.PATTERN) is not None}
        self.probe: Callable[..., list[Cell] | None] = self._write(roles, request_size)

    def add(self, row: Row, mask: int) -> None:
        """Range une règle dans sa case."""
        first, key = self._place(row)
        cells = self._buckets.get(first)
        if cells is None:
            cells = self._buckets[first] = {}
        cell = cells.get(key)
        if cell is None:
            cells[key] = {row: mask}
        else:
            cell[row] = mask
            if len(cell) == CROWDED:
                cells[key] = Crowd(cell)
        if self._motifs:
            self._add_motifs(first, row)
        self._count(row, 1)

    def _add_motifs(self, first: Any, row: Row) -> None:  # noqa: ANN401 - première clé, ou rien
        """Ajoute les motifs d'une règle à ceux de sa première clé."""
        if first not in self._groups:
            self._groups[first] = tuple([PatternGroups(motif.function) for motif in self._motifs])
        for motif, group in zip(self._motifs, self._groups[first], strict=True):
            group.add(row[motif.field])

    def remove(self, row: Row) -> None:
        """Retire une règle, sans laisser de case vide."""
        first, key = self._place(row)
        cells = self._buckets[first]
        del cells[key][row]
        if not cells[key]:
            del cells[key]
        for motif, group in zip(self._motifs, self._groups.get(first, ()), strict=False):
            group.discard(row[motif.field])
        if not cells:
            del self._buckets[first]
            self._groups.pop(first, None)
        self._count(row, -1)

    def cells(self) -> Iterator[Cell]:
        """Énumère les cases."""
        return (cell for cells in self._buckets.values() for cell in cells.values())

    def dismantle(self) -> None:
        """Libère peu à peu la mémoire des cases."""
        drain(self._buckets, self._groups)

    def _place(self, row: Row) -> tuple[Any, tuple[Any, ...]]:
        """Renvoie la première clé d'une règle, et les autres."""
        first = row[self._first.field] if self._first is not None else None
        return first, tuple([row[key.field] for key in self._others])

    def _count(self, row: Row, step: int) -> None:
        """Compte les motifs, pour ne chercher que ceux que des règles emploient."""
        for field, prefixes in self._prefixes.items():
            prefixes.count(row[field], step)

    def _write(self, roles: Mapping[str, RoleGraph], request_size: int) -> Callable[..., list[Cell] | None]:
        """Écrit la fonction qui cherche : une boucle par clé à plusieurs valeurs.

        Elle renvoie les cases atteintes, ou None si une valeur de la requête ne se cherche pas comme un texte.
        """
        scope: dict[str, Any] = {
            "buckets": self._buckets,
            "groups": self._groups,
            "TEXTS": TEXTS,
            "NONE": {},
        }
        for name, key in _name_terms(self._keys):
            if key.probe is Probe.ROLE:
                scope[name] = roles[key.function]
            elif key.probe is Probe.PATTERN:
                scope[name] = self._prefixes[key.field]
        exact = self._first is not None and self._first.probe is Probe.ROLE and roles[self._first.function].is_exact
        text = _ProbeText(self._first, self._others, request_size, reads_links=exact).write()
        exec(compile(text, "<index>", "exec"), scope)  # noqa: S102 - texte fait de numéros de clés, d'aucune donnée
        written: Callable[..., list[Cell] | None] = scope["probe"]
        return written


def _name_terms(keys: Sequence[Key]) -> Iterator[tuple[str, Key]]:
    """Donne un nom à ce que cherche chaque terme simple."""
    for place, key in enumerate(keys):
        for number, term in enumerate(key.terms):
            yield f"known{place}_{number}", term


@dataclass(frozen=True, slots=True)
class _ProbeText:
    """Le texte de la fonction qui cherche, morceau par morceau.

    Les valeurs de chaque clé sont énumérées une fois ; les motifs `keyMatch*`, groupés par première clé, le sont pour
    chacune. Là où leurs combinaisons seraient plus nombreuses que les cases, ce sont les cases qui sont parcourues.

    Attributes:
        first: clé qui mène à un seau ; None s'il n'y en a qu'un.
        others: clés qui mènent à une case de ce seau.
        request_size: nombre de valeurs d'une requête.
        reads_links: vrai si les rôles de la première clé se lisent dans les liens mêmes.
    """

    first: Key | None
    others: Sequence[Key]
    request_size: int
    reads_links: bool

    @property
    def keys(self) -> list[Key]:
        """Toutes les clés ; la place d'une clé dans cette liste numérote ses variables."""
        return [*([] if self.first is None else [self.first]), *self.others]

    @property
    def placed(self) -> list[tuple[int, Key]]:
        """Les clés d'une case, et leur place."""
        return list(enumerate(self.others, start=0 if self.first is None else 1))

    @property
    def several(self) -> dict[int, Key]:
        """Celles qui peuvent chercher plusieurs valeurs, par place."""
        return {place: key for place, key in self.placed if key.probe is not Probe.EXACT}

    def write(self) -> str:
        """Écrit la fonction entière."""
        lines = [
            f"def probe({', '.join(f'r{place}' for place in range(self.request_size))}):",
            *self._refusal(),
            "    found = []",
            *self._values_once(),
            f"    for first in {self._firsts()}:",
            "        cells = buckets.get(first)",
            "        if cells is None: continue",
            *self._motifs_of_bucket(),
            *self._scan_if_fewer(),
            *self._lookups(),
            "    return found",
        ]
        return "\n".join(lines)

    def _refusal(self) -> list[str]:
        """Écrit ce qui renvoie None si une valeur de la requête ne se cherche pas comme un texte."""
        terms = [term for key in self.keys for term in key.terms]
        texts = sorted({place for term in terms for place in (term.request, term.domain) if isinstance(place, int)})
        tests = " or ".join(f"r{place}.__class__ not in TEXTS" for place in texts)
        return [f"    if {tests}: return None"] if texts else []

    def _values_once(self) -> list[str]:
        """Écrit les valeurs qui ne dépendent que de la requête."""
        fixed = {place: key for place, key in self.several.items() if not _has_motif(key)}
        return [f"    v{place} = {_values(key, place)}" for place, key in fixed.items()]

    def _firsts(self) -> str:
        """Écrit les valeurs de la première clé."""
        if self.first is None:
            return "(None,)"
        return _flat(self.first) if self.reads_links else _values(self.first, 0)

    def _motifs_of_bucket(self) -> list[str]:
        """Écrit les valeurs que couvrent les motifs rangés sous la première clé."""
        motifs = [(place, key) for place, key in self.several.items() if _has_motif(key)]
        return [
            f"        v{place} = {_values(key, place, f'groups[first][{number}]')}"
            for number, (place, key) in enumerate(motifs)
        ]

    def _scan_if_fewer(self) -> list[str]:
        """Écrit le parcours des cases, quand elles sont moins nombreuses que les combinaisons à chercher."""
        if len(self.several) < 2:  # noqa: PLR2004 - une seule énumération se cherche toujours
            return []
        sizes = " * ".join(f"len(v{place})" for place in self.several)
        tests = [
            f"key[{number}] in s{place}" if place in self.several else f"key[{number}] == {_value(key)}"
            for number, (place, key) in enumerate(self.placed)
        ]
        return [
            f"        if {sizes} > {FEW_PROBES} + len(cells):",
            *[f"            s{place} = set(v{place})" for place in self.several],
            f"            found += [cell for key, cell in cells.items() if {' and '.join(tests)}]",
            "            continue",
        ]

    def _lookups(self) -> list[str]:
        """Écrit la recherche d'une case par combinaison : une boucle par clé à plusieurs valeurs."""
        loops = [f"{'    ' * depth}for k{place} in v{place}:" for depth, place in enumerate(self.several, start=2)]
        indent = "    " * (2 + len(loops))
        components = [f"k{place}" if place in self.several else _value(key) for place, key in self.placed]
        return [
            *loops,
            f"{indent}cell = cells.get(({''.join(f'{name}, ' for name in components)}))",
            f"{indent}if cell is not None: found.append(cell)",
        ]


def _has_motif(key: Key) -> bool:
    return key.find(Probe.KEY_MATCH) is not None


def _value(key: Key) -> str:
    """Écrit la valeur que cherche une égalité."""
    return f"r{key.request}" if key.request is not None else repr(key.constant)


def _values(key: Key, place: int, groups: str = "") -> str:
    """Écrit les valeurs que cherche une clé ; celles d'une disjonction, chacune une fois."""
    found = [_simple(term, f"known{place}_{number}", groups) for number, term in enumerate(key.terms)]
    return found[0] if len(found) == 1 else f"dict.fromkeys(({''.join(f'*{values}, ' for values in found)}))"


def _simple(key: Key, known: str, groups: str) -> str:
    """Écrit les valeurs que cherche un terme simple."""
    if key.probe is Probe.EXACT:
        return f"({_value(key)},)"
    if key.probe is Probe.KEY_MATCH:
        return f"{groups}.matching(r{key.request})"
    if key.probe is Probe.PATTERN:
        return _covering(known, f"r{key.request}")
    domain = f"r{key.domain}" if isinstance(key.domain, int) else repr(key.domain or "")
    member = f"r{key.request}"
    kept = f"known.get({member}) if (known := {known}.closures.get({domain})) is not None else None"
    return f"(({kept}) or {known}.walk({member}, {domain}))"


def _covering(known: str, value: str) -> str:
    """Écrit les motifs connus qui couvrent une valeur ; sans préfixe, il n'y a pas à les chercher."""
    few = f"(({value}, '*') if {known}.anys and {value} != '*' else ({value},))"
    return f"({known}.covering({value}) if {known}.lengths else {few})"


def _flat(key: Key) -> str:
    """Écrit les rôles d'un membre, pris dans les liens mêmes quand aucun de ses rôles n'en tient d'autres."""
    domain = f"r{key.domain}" if isinstance(key.domain, int) else repr(key.domain or "")
    member, graph = f"r{key.request}", "known0_0"
    roles = f"(roles := {graph}.links.get({domain}, NONE).get({member}))"
    nested = _values(key, 0)
    return f"(({member},) if {roles} is None else ({member}, *roles) if {graph}.nested.isdisjoint(roles) else {nested})"
