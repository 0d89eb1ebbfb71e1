"""Décider quand le matcher pose des questions sur la requête seule : chaque réponse mène à un plan, et à ses index."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi_acl.engine.kernel.decider import Decider
from fastapi_acl.engine.kernel.effects import ALLOW, MASKS, OTHER
from fastapi_acl.engine.kernel.index import TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    from fastapi_acl.engine.kernel.decider import Definition
    from fastapi_acl.engine.kernel.plan import Fork
    from fastapi_acl.engine.kernel.rows import Row, Rows

    AnyDecider: TypeAlias = "Decider | ForkedDecider | EveryRow"


def decider_of(definition: Definition, rows: Rows) -> AnyDecider:
    """Renvoie de quoi décider selon un plan : par ses index, par ses questions, ou sur toutes les règles à la fois."""
    if definition.plan.fork is not None:
        return ForkedDecider(definition, definition.plan.fork, rows)
    return EveryRow(definition, rows) if definition.plan.accepts_all else Decider(definition, rows)


class ForkedDecider:
    """Pose une question sur la requête, puis décide selon la réponse.

    Une question que Casbin peut ne pas poser (`r.sub == p.sub || isRoot(r.sub)`) ne l'est que si la première règle y
    mène ; sinon les règles sont lues comme il les lit.

    La question n'est posée que si la politique a une règle, comme Casbin, qui l'évalue avec la première. Un échec
    rend la main à Casbin, qui échouera s'il l'atteint ; en mode strict, c'est une erreur.
    """

    def __init__(self, definition: Definition, fork: Fork, rows: Rows) -> None:
        """Prépare la question, et de quoi décider après chaque réponse.

        Args:
            definition: ce dont la décision se fait.
            fork: la question et ses suites.
            rows: règles du type.
        """
        self.definition = definition
        self.arity = len(definition.request)
        self._rows = rows
        self._is_strict = definition.is_strict
        self._texts = fork.texts
        self._gate = definition.evaluation(fork.gate, fields=())
        motifs = definition.motifs | fork.motifs
        self._then: AnyDecider = decider_of(replace(definition, plan=fork.then, motifs=motifs), rows)
        self._otherwise: AnyDecider = decider_of(replace(definition, plan=fork.otherwise, motifs=motifs), rows)
        self._is_pure = fork.is_pure
        self._reaches = [definition.evaluation(tree, definition.fields) for tree in fork.reaches]
        unforked = replace(definition, plan=replace(definition.plan, fork=None), motifs=motifs)
        self._unforked: AnyDecider | None = decider_of(unforked, rows) if fork.reaches else None

    @property
    def evaluates(self) -> bool:
        """Vrai si une même question peut n'avoir pas deux fois la même réponse."""
        return not self._is_pure or self._then.evaluates or self._otherwise.evaluates

    @property
    def _deciders(self) -> list[AnyDecider]:
        return [self._then, self._otherwise, *([] if self._unforked is None else [self._unforked])]

    def stop(self) -> None:
        """Cesse de suivre les règles."""
        for decider in self._deciders:
            decider.stop()

    def warm(self) -> None:
        """Compile d'avance ce qui tiendrait la première décision."""
        for decider in self._deciders:
            decider.warm()

    def decide(self, *request: object) -> bool | None:
        """Décide ; None si l'index ne peut pas répondre."""
        chosen = self._choose(request)
        return None if chosen is None else chosen.decide(*request)

    def explain(self, request: Sequence[object]) -> tuple[bool, Row | None] | None:
        """Décide et renvoie la règle que Casbin nommerait ; None si l'index ne peut pas répondre."""
        chosen = self._choose(request)
        return None if chosen is None else chosen.explain(request)

    def grants(self, request: Sequence[object]) -> bool | None:
        """Dit si une règle accorde la requête, refus mis à part ; voir `Decider.grants`."""
        chosen = self._choose(request)
        return None if chosen is None else chosen.grants(request)

    def list_granting(self, request: Sequence[object]) -> list[Row] | None:
        """Renvoie les règles qui accordent dans les cases d'une requête ; voir `Decider.list_granting`."""
        chosen = self._choose(request)
        return None if chosen is None else chosen.list_granting(request)

    def _choose(self, request: Sequence[object]) -> AnyDecider | None:
        """Pose la question, et renvoie ce qui décide alors."""
        if not self._rows or any(request[place].__class__ not in TEXTS for place in self._texts):
            return None
        if self._unforked is not None and not self._is_asked(request):
            return self._unforked
        try:
            return self._then if self._gate.accepts(request, ()) else self._otherwise
        except Exception:
            if self._is_strict:
                raise
            return None

    def _is_asked(self, request: Sequence[object]) -> bool:
        """Dit si Casbin poserait la question à la première règle : ce que le matcher y vaut dépend de la réponse."""
        if self.definition.order is not None:
            return False
        first = next(iter(self._rows.list_ordered()))
        try:
            then, otherwise = [evaluator.accepts(request, first) for evaluator in self._reaches]
        except Exception:  # noqa: BLE001 - une règle échoue : les lire dans l'ordre dira si on l'atteint
            return False
        return then != otherwise


class EveryRow:
    """Décide quand toute règle est acceptée : ce qu'elles disent est compté, aucune n'est lue (voir `RowListener`)."""

    evaluates = False

    def __init__(self, definition: Definition, rows: Rows) -> None:
        """Compte les règles présentes, puis suit les suivantes."""
        self.definition = definition
        self.arity = len(definition.request)
        self._effect = definition.effect
        self._rows = rows
        self._said = {ALLOW: 0, MASKS["deny"]: 0, OTHER: 0}
        self._seen = 0
        self._foreign = 0
        self._shown: tuple[int, Row | None] = (-1, None)
        rows.follow(self)

    def stop(self) -> None:
        """Cesse de suivre les règles."""
        self._rows.leave(self)

    def warm(self) -> None:
        """N'a rien à préparer."""

    def dismantle(self) -> None:
        """N'a rien à rendre."""

    def add(self, row: Row) -> None:
        """Compte une règle."""
        self._count(row, 1)

    def remove(self, row: Row) -> None:
        """Cesse de compter une règle."""
        self._count(row, -1)

    def _count(self, row: Row, step: int) -> None:
        """Tient le compte de ce que les règles disent ; une règle que l'index ne sait pas comparer revient à Casbin."""
        if not self.definition.compares(row, self.definition.motifs):
            self._foreign += step
            return
        self._said[self.definition.mask(row)] += step
        self._seen = sum(mask for mask, count in self._said.items() if count)

    def decide(self, *request: object) -> bool | None:
        """Décide ; None si l'index ne peut pas répondre."""
        if self._effect.is_ordered:
            found = self.explain(request)
            return None if found is None else found[0]
        return None if self._foreign or not self._seen else self._effect.settle(self._seen)

    def explain(self, request: Sequence[object]) -> tuple[bool, Row | None] | None:  # noqa: ARG002 - toute règle vaut
        """Décide et renvoie la règle que Casbin nommerait : celle qui met fin à la lecture, ou la dernière."""
        if self._foreign or not self._seen:
            return None
        shown = self._decisive()
        stops = self._seen & self._effect.stops
        said = self.definition.mask(shown) if stops and shown is not None else self._seen
        return self._effect.settle(said), shown

    def grants(self, request: Sequence[object]) -> bool | None:  # noqa: ARG002 - toute règle vaut
        """Dit si une règle accorde, refus mis à part ; voir `Decider.grants`."""
        if self._foreign or not self._seen or not self._effect.needs:
            return None
        return bool(self._said[ALLOW])

    def list_granting(self, request: Sequence[object]) -> list[Row] | None:  # noqa: ARG002 - toute règle vaut
        """Renvoie toutes les règles qui accordent ; voir `Decider.list_granting`."""
        allows = (row for row in self._rows.list_ordered() if self.definition.mask(row) == ALLOW)
        return None if self._foreign else list(allows)

    def _decisive(self) -> Row | None:
        """Renvoie la règle qui met fin à la lecture, ou la dernière ; cherchée une fois par état de la politique."""
        version = self._rows.version
        known, shown = self._shown
        if known != version or version & 1:
            shown = self._search()
            self._shown = (version, shown)
        return shown

    def _search(self) -> Row | None:
        """Cherche cette règle, dans l'ordre."""
        rows: Iterable[Row] = self._rows.list_ordered()
        if self.definition.order is not None:
            rows = sorted(rows, key=self.definition.order)
        if self._seen & self._effect.stops:
            return next(row for row in rows if self.definition.mask(row) & self._effect.stops)
        return deque(rows, maxlen=1)[0]
