"""La décision : les cases que la requête atteint, dans l'ordre que l'effet demande, et pas une règle de plus."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from fastapi_acl.engine.kernel.crowd import Crowd
from fastapi_acl.engine.kernel.effects import ALLOW, DENY, MASKS, OTHER, Effect
from fastapi_acl.engine.kernel.evaluation import Evaluator
from fastapi_acl.engine.kernel.index import BranchIndex
from fastapi_acl.engine.kernel.key_match import compile_pattern
from fastapi_acl.engine.kernel.plan import Probe

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from fastapi_acl.engine.kernel.crowd import Cell
    from fastapi_acl.engine.kernel.language import Language
    from fastapi_acl.engine.kernel.plan import MatcherPlan
    from fastapi_acl.engine.kernel.role_graph import RoleGraph
    from fastapi_acl.engine.kernel.rows import Row, Rows

TEXT: Final = {str}

MANY_RULES: Final = 32
"""Règles `eval()` d'une case à partir desquelles elles sont évaluées ensemble."""

NOTHING: Final[Mapping[Row, int]] = {}


@dataclass(frozen=True, slots=True)
class Definition:
    """Ce dont une décision se fait.

    Attributes:
        plan: plan du matcher.
        effect: effet du modèle.
        request: jetons de la requête.
        fields: jetons de la règle.
        eft: place de l'effet dans la règle ; None si toute règle accorde.
        functions: fonctions du matcher.
        language: langue dans laquelle il est écrit.
        roles: liens de chaque fonction de rôles indexée.
        order: rang d'une règle, si ce n'est pas celui de la liste.
        evaluator: ce qui évalue le reste du matcher ; celui du mode strict n'admet que vrai et faux.
        motifs: comparaisons de motifs, et champ de chacune, que la décision peut écarter mais que Casbin évaluerait.
        is_strict: vrai si une erreur est à rendre, et non à laisser à Casbin.
    """

    plan: MatcherPlan
    effect: Effect
    request: Sequence[str]
    fields: Sequence[str]
    eft: int | None
    functions: Mapping[str, Callable[..., object]]
    language: Language
    roles: Mapping[str, RoleGraph]
    order: Callable[[Row], Any] | None = None
    evaluator: type[Evaluator] = Evaluator
    motifs: frozenset[tuple[str, int]] = frozenset()
    is_strict: bool = False

    def compares(self, row: Row, motifs: Collection[tuple[str, int]]) -> bool:
        """Dit si l'index sait comparer une règle : des textes, au bon nombre, et des motifs qu'il sait lire."""
        if len(row) != len(self.fields) or set(map(type, row)) != TEXT:
            return False
        return all(compile_pattern(function, row[field]) is not None for function, field in motifs)

    def evaluation(self, expression: ast.expr, fields: Sequence[str]) -> Evaluator:
        """Renvoie de quoi évaluer une expression qui lit la requête et ces champs.

        Raises:
            UnreadableMatcherError: elle ne se lit pas.
        """
        return self.evaluator(expression, self.request, fields, self.functions, self.language)

    def mask(self, row: Row) -> int:
        """Lit ce qu'une règle dit."""
        return ALLOW if self.eft is None else MASKS.get(row[self.eft], OTHER)


class Decider:
    """Décide pour un matcher, un type de règles et un effet ; suit les règles de ce type (voir `RowListener`)."""

    def __init__(self, definition: Definition, rows: Rows) -> None:
        """Range les règles présentes, puis suit les suivantes.

        Args:
            definition: ce dont la décision se fait.
            rows: règles du type.
        """
        self.definition = definition
        self.arity = len(definition.request)
        self._effect = definition.effect
        self._rows = rows
        self._order = definition.order or rows.rank
        self._gates = [self._evaluator(branch.gate, fields=()) for branch in definition.plan.branches]
        self.indexes = [BranchIndex(branch, definition.roles, self.arity) for branch in definition.plan.branches]
        self._rest = self._evaluator(definition.plan.expression, fields=definition.fields)
        self._motifs = definition.motifs | _motifs_of(definition.plan)
        self._foreign: dict[Row, None] = {}
        self._size = 0
        self._denials = 0
        self._single = self.indexes[0].probe if len(self.indexes) == 1 and self._gates == [None] else None
        self.decide: Callable[..., bool | None] = self._choose()
        rows.follow(self)

    @property
    def evaluates(self) -> bool:
        """Vrai s'il évalue autre chose que l'index : une même question peut alors ne pas avoir deux fois la réponse."""
        return self._rest is not None

    def stop(self) -> None:
        """Cesse de suivre les règles."""
        self._rows.leave(self)

    def dismantle(self) -> None:
        """Libère peu à peu la mémoire des cases."""
        for index in self.indexes:
            index.dismantle()

    def _evaluator(self, expression: Any, *, fields: Sequence[str]) -> Evaluator | None:  # noqa: ANN401 - arbre ou rien
        """Compile un reste de matcher, s'il y en a un."""
        if expression is None:
            return None
        return self.definition.evaluation(expression, fields)

    def _choose(self) -> Callable[..., bool | None]:
        """Choisit la façon de décider : sans rien évaluer ni ranger quand les cases suffisent."""
        if self._rest is not None or (self._effect.is_ordered and self.definition.order is not None):
            return self._decide_in_order
        if self._effect.is_ordered:
            return self._decide_first
        return self._decide_first_allow if self._effect.forbids == 0 else self._decide_without_deny

    # --- règles ---------------------------------------------------------------------------------------------------

    def add(self, row: Row) -> None:
        """Range une règle ; une règle que l'index ne sait pas comparer le met hors service tant qu'elle est là."""
        self._size += 1
        if not self.definition.compares(row, self._motifs):
            self._foreign[row] = None
            return
        mask = self.definition.mask(row)
        self._denials += mask == DENY
        for index in self.indexes:
            index.add(row, mask)

    def remove(self, row: Row) -> None:
        """Retire une règle."""
        self._size -= 1
        if row in self._foreign:
            del self._foreign[row]
            return
        self._denials -= self.definition.mask(row) == DENY
        for index in self.indexes:
            index.remove(row)

    # --- décision -------------------------------------------------------------------------------------------------

    def explain(self, request: Sequence[Any]) -> tuple[bool, Row | None] | None:
        """Décide et renvoie la règle que Casbin nommerait : celle qui a mis fin à la lecture, ou la dernière acceptée.

        Returns:
            None si l'index ne peut pas répondre : politique vide, règle ou requête qu'il ne sait pas comparer.
        """
        masks = self._reach(request)
        if masks is None or self._foreign or not self._size:
            return None
        seen, shown = 0, None
        for row in self._list_accepted(masks, request):
            shown = row
            seen |= masks[row]
            if seen & self._effect.stops:
                break
        return self._effect.settle(seen), shown

    def list_granting(self, request: Sequence[Any]) -> list[Row] | None:
        """Renvoie les règles qui accordent dans les cases d'une requête, sans évaluer ce qu'il reste du matcher.

        Returns:
            None si l'index ne peut pas répondre.
        """
        masks = self._reach(request)
        return None if masks is None or self._foreign else [row for row, mask in masks.items() if mask == ALLOW]

    def grants(self, request: Sequence[Any]) -> bool | None:
        """Dit si une règle accorde la requête, refus mis à part.

        Returns:
            None si l'index ne peut pas répondre, ou si l'effet accorde sans règle : les refus y sont tout.
        """
        masks = self._reach(request)
        if masks is None or self._foreign or not self._size or not self._effect.needs:
            return None
        return any(masks[row] == ALLOW for row in self._list_accepted(masks, request))

    def _decide_first_allow(self, *request: object) -> bool | None:
        """Décide quand un accord suffit."""
        cells = self._single(*request) if self._single is not None else self._cells(request)
        if cells:
            for cell in cells:
                if ALLOW in _list_masks(cell):
                    return True if not self._foreign else None
        return self._otherwise(cells, allowed=False)

    def _decide_without_deny(self, *request: object) -> bool | None:
        """Décide quand un refus l'emporte ; tant qu'aucune règle ne refuse, le premier accord suffit."""
        cells = self._single(*request) if self._single is not None else self._cells(request)
        allowed = not self._effect.needs
        for cell in cells or ():
            masks = _list_masks(cell)
            if self._denials and DENY in masks:
                return self._otherwise(cells, allowed=False)
            allowed = allowed or ALLOW in masks
            if allowed and not self._denials:
                break
        return self._otherwise(cells, allowed=allowed)

    def _decide_first(self, *request: object) -> bool | None:
        """Décide quand la première règle qui accorde ou refuse l'emporte, et que les cases suffisent."""
        cells = self._single(*request) if self._single is not None else self._cells(request)
        first, allowed, rank = None, False, self._rows.rank
        for cell in cells or ():
            known = cell.first(rank, self._rows.version) if isinstance(cell, Crowd) else cell.items()
            for row, mask in known:
                if mask != OTHER and (first is None or rank(row) < first):  # type: ignore[operator]
                    first, allowed = rank(row), mask == ALLOW
        return self._otherwise(cells, allowed=allowed)

    def _decide_in_order(self, *request: object) -> bool | None:
        """Décide en lisant les règles dans l'ordre."""
        found = self.explain(request)
        return None if found is None else found[0]

    def _otherwise(self, cells: Sequence[Cell] | None, *, allowed: bool) -> bool | None:
        """Renvoie la réponse, sauf si l'index ne peut pas répondre."""
        return None if cells is None or self._foreign or not self._size else allowed

    def _cells(self, request: Sequence[Any]) -> list[Cell] | None:
        """Renvoie les cases que la requête atteint, toutes branches confondues."""
        found: list[Cell] = []
        for gate, index in zip(self._gates, self.indexes, strict=True):
            if gate is None or gate.accepts(request, ()):
                cells = index.probe(*request)
                if cells is None:
                    return None
                found += cells
        return found

    def _reach(self, request: Sequence[Any]) -> Mapping[Row, int] | None:
        """Renvoie les règles que la requête atteint, et ce que chacune dit."""
        cells = self._cells(request)
        if cells is None:
            return None
        if len(cells) < 2:  # noqa: PLR2004 - une case sert telle quelle
            return cells[0] if cells else NOTHING
        return {row: mask for cell in cells for row, mask in cell.items()}

    def _list_accepted(self, masks: Mapping[Row, int], request: Sequence[Any]) -> Iterable[Row]:
        """Énumère, dans l'ordre, les règles que le matcher accepte."""
        rest = self._rest
        if rest is not None and self._is_many(masks):
            return rest.list_accepted(request, masks, self._rows.version, lambda: self._in_order(masks))
        rows = self._in_order(masks)
        return rows if rest is None else (row for row in rows if rest.accepts(request, row))

    def _is_many(self, masks: Mapping[Row, int]) -> bool:
        """Dit si une case a tant de règles `eval()` qu'elles s'évaluent ensemble."""
        reads_rules = self._rest is not None and self._rest.reads_rules
        return reads_rules and len(masks) >= MANY_RULES and not self._rows.has_copies

    def warm(self) -> None:
        """Compile d'avance les grandes cases de règles `eval()`, qui tiendraient sinon la première décision."""
        for cell in (cell for index in self.indexes for cell in index.cells()):
            if self._rest is not None and self._is_many(cell):
                self._rest.parts(cell, self._rows.version, partial(self._in_order, cell))

    def _in_order(self, masks: Mapping[Row, int]) -> Iterable[Row]:
        """Range des règles, copies comprises ; si c'est toute la liste, son ordre est déjà connu."""
        if self._rows.has_copies:
            places = [(rank, row) for row in masks for rank in self._rows.ranks(row)]
            return [row for _, row in sorted(places, key=itemgetter(0))]
        if len(masks) == self._size and self.definition.order is None:
            return self._rows.list_ordered()
        return sorted(masks, key=self._order) if len(masks) > 1 else masks


def _list_masks(cell: Cell) -> Iterable[int]:
    """Renvoie ce que disent les règles d'une case ; une grande le sait sans les lire."""
    return cell.said if isinstance(cell, Crowd) else cell.values()


def _motifs_of(plan: MatcherPlan) -> set[tuple[str, int]]:
    """Renvoie les comparaisons de motifs d'un plan, et le champ de chacune : l'index doit en lire chaque motif."""
    keys = [key for branch in plan.branches for key in branch.keys]
    motifs = [motif for key in keys if (motif := key.find(Probe.KEY_MATCH)) is not None]
    return {(motif.function, motif.field) for motif in motifs}
