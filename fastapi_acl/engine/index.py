"""Les règles d'une branche du matcher, rangées par les valeurs qu'il compare : une décision ne touche que ses cases."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from fastapi_acl.engine.matcher import Probe
from fastapi_acl.engine.matching import ANY, is_prefix, patterns_of
from fastapi_acl.engine.pacing import drain
from fastapi_acl.engine.patterns import PatternGroups
from fastapi_acl.shared.identity import AttributedName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fastapi_acl.engine.matcher import Branch, Key
    from fastapi_acl.engine.role_graph import RoleGraph
    from fastapi_acl.engine.rows import Row

ALLOW: Final = 1
DENY: Final = 2
OTHER: Final = 4
MASKS: Final = {"allow": ALLOW, "deny": DENY}

Cell = dict["Row", int]
"""Les règles d'une case, et ce que chacune dit : `ALLOW`, `DENY` ou `OTHER`."""

Cells = dict[tuple[Any, ...], Cell]
Probing = "Callable[..., list[Cell] | None]"

TEXTS: Final = frozenset({str, AttributedName})
"""Types qui se cherchent comme un texte ; tout autre objet peut redéfinir l'égalité et se compare règle par règle."""


class BranchIndex:
    """Index d'une branche : la première clé mène à un seau, les autres à une case de ce seau.

    Un motif `aclMatch` se cherche comme une valeur : on énumère les motifs qui couvrent la valeur demandée. Les motifs
    `keyMatch*` sont groupés par préfixe littéral. La fonction qui cherche est écrite pour la branche : ses boucles sont
    celles de ses clés, et aucune valeur de règle ou de requête n'y entre.
    """

    def __init__(self, branch: Branch, roles: Mapping[str, RoleGraph], request_size: int) -> None:
        """Prépare un index vide.

        Args:
            branch: conjonction du matcher.
            roles: liens de chaque fonction de rôles que la branche emploie.
            request_size: nombre de valeurs d'une requête.
        """
        self._keys = branch.keys
        self._first = branch.keys[0] if branch.keys and branch.keys[0].probe is not Probe.KEY_MATCH else None
        self._others = branch.keys[1:] if self._first is not None else branch.keys
        self._motifs = [key for key in self._others if key.probe is Probe.KEY_MATCH]
        self._buckets: dict[Any, Cells] = {}
        self._groups: dict[Any, tuple[PatternGroups, ...]] = {}
        self.shapes = [Counter[str]() for _ in self._keys]
        self._shaped = [
            (key.field, shapes)
            for key, shapes in zip(self._keys, self.shapes, strict=True)
            if key.probe is Probe.PATTERN
        ]
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
        """Rend peu à peu les cases à la mémoire."""
        drain(self._buckets, self._groups)

    def _place(self, row: Row) -> tuple[Any, tuple[Any, ...]]:
        """Rend la première clé d'une règle, et les autres."""
        first = row[self._first.field] if self._first is not None else None
        return first, tuple([row[key.field] for key in self._others])

    def _count(self, row: Row, step: int) -> None:
        """Compte les formes de motifs, pour ne chercher que celles que des règles emploient."""
        for field, shapes in self._shaped:
            value = row[field]
            if value[-1:] == ANY:
                shape = _shape(value)
                shapes[shape] += step
                if not shapes[shape]:
                    del shapes[shape]

    def _write(self, roles: Mapping[str, RoleGraph], request_size: int) -> Callable[..., list[Cell] | None]:
        """Écrit la fonction qui cherche : une boucle par clé à plusieurs valeurs.

        Elle rend les cases atteintes, ou None si une valeur de la requête ne se cherche pas comme un texte.
        """
        scope: dict[str, Any] = {
            "buckets": self._buckets,
            "groups": self._groups,
            "TEXTS": TEXTS,
            "patterns_of": patterns_of,
            "ANY": ANY,
            "NONE": {},
        }
        for place, key in enumerate(self._keys):
            scope[f"shapes{place}"] = self.shapes[place]
            if key.probe is Probe.ROLE:
                scope[f"graph{place}"] = roles[key.function]
        exact = self._first is not None and self._first.probe is Probe.ROLE and roles[self._first.function].is_exact
        source = _source(self._first, self._others, request_size, reads_links=exact)
        exec(compile(source, "<index>", "exec"), scope)  # noqa: S102 - texte fait de numéros de clés, d'aucune donnée
        written: Callable[..., list[Cell] | None] = scope["probe"]
        return written


def _source(first: Key | None, others: Sequence[Key], request_size: int, *, reads_links: bool) -> str:
    """Écrit le texte de la fonction qui cherche."""
    offset = 0 if first is None else 1
    keys = ([first] if first is not None else []) + list(others)
    texts = sorted({place for key in keys for place in (key.request, key.domain) if isinstance(place, int)})
    lines = [f"def probe({', '.join(f'r{place}' for place in range(request_size))}):"]
    if texts:
        lines.append(f"    if {' or '.join(f'r{place}.__class__ not in TEXTS' for place in texts)}: return None")
    lines += ["    found = []", f"    for first in {_firsts(first, reads_links=reads_links)}:"]
    lines += ["        cells = buckets.get(first)", "        if cells is None: continue"]
    indent, components, motif = "        ", [], 0
    for place, key in enumerate(others, start=offset):
        if key.probe is Probe.EXACT:
            components.append(_value(key))
            continue
        values = (
            f"groups[first][{motif}].matching(r{key.request})" if key.probe is Probe.KEY_MATCH else _values(key, place)
        )
        motif += key.probe is Probe.KEY_MATCH
        lines.append(f"{indent}for k{place} in {values}:")
        indent += "    "
        components.append(f"k{place}")
    lines.append(f"{indent}cell = cells.get(({''.join(f'{name}, ' for name in components)}))")
    lines += [f"{indent}if cell is not None: found.append(cell)", "    return found"]
    return "\n".join(lines)


def _firsts(first: Key | None, *, reads_links: bool) -> str:
    """Écrit les valeurs de la première clé."""
    if first is None:
        return "(None,)"
    return _flat(first, 0) if reads_links else _values(first, 0)


def _value(key: Key) -> str:
    """Écrit la valeur que cherche une égalité."""
    return f"r{key.request}" if key.request is not None else repr(key.constant)


def _values(key: Key, place: int) -> str:
    """Écrit les valeurs que cherche une clé."""
    if key.probe is Probe.EXACT:
        return f"({_value(key)},)"
    if key.probe is Probe.PATTERN:
        shapes, value = f"shapes{place}", f"r{key.request}"
        few = f"(({value}, ANY) if 'any' in {shapes} and {value} != ANY else ({value},))"
        return f"(patterns_of({value}) if 'prefix' in {shapes} else {few})"
    domain = f"r{key.domain}" if isinstance(key.domain, int) else repr(key.domain or "")
    graph, member = f"graph{place}", f"r{key.request}"
    kept = f"known.get({member}) if (known := {graph}.closures.get({domain})) is not None else None"
    return f"(({kept}) or {graph}.walk({member}, {domain}))"


def _flat(key: Key, place: int) -> str:
    """Écrit les rôles d'un membre, pris dans les liens mêmes quand aucun de ses rôles n'en tient d'autres."""
    domain = f"r{key.domain}" if isinstance(key.domain, int) else repr(key.domain or "")
    graph, member = f"graph{place}", f"r{key.request}"
    roles = f"(roles := {graph}.links.get({domain}, NONE).get({member}))"
    nested = _values(key, place)
    return f"(({member},) if {roles} is None else ({member}, *roles) if {graph}.nested.isdisjoint(roles) else {nested})"


def _shape(value: str) -> str:
    """Rend la forme d'une valeur de règle : joker, préfixe ou texte exact."""
    return "any" if value == ANY else "prefix" if is_prefix(value) else "exact"
