"""Évaluer un matcher en mode strict : il répond vrai ou faux, sinon la décision échoue, et dit sur quelle règle."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi_acl.engine.kernel.answers import CHECKS, describe, discard, truth
from fastapi_acl.engine.kernel.checked import SORTS, Checked, InPlace
from fastapi_acl.engine.kernel.effects import ALLOW
from fastapi_acl.engine.kernel.evaluation import Evaluator
from fastapi_acl.engine.kernel.plan import UnreadableMatcherError
from fastapi_acl.shared.exceptions import DecisionFailedError

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fastapi_acl.engine.kernel.decider import Definition
    from fastapi_acl.engine.kernel.rows import Row, Rows


class StrictEvaluator(Evaluator):
    """Évalue une expression qui doit valoir vrai ou faux ; toute erreur est dite avec la règle que l'on évaluait."""

    __slots__ = ()

    def accepts(self, request: Sequence[object], row: Row) -> bool:
        """Dit si la règle satisfait la requête.

        Raises:
            DecisionFailedError: l'expression ne vaut ni vrai ni faux, compare deux sortes de valeurs, ou échoue.
        """
        try:
            compiled = self._for_rule(row) if self._places else self._compiled
            return truth(compiled(*request, *row), "le matcher entier")
        except Exception as error:  # noqa: BLE001 - quelle qu'elle soit, elle est rendue avec la règle
            raise failure(error, self._name_rule(row)) from (error.__cause__ or error)

    def _name_rule(self, row: Row) -> tuple[str, ...]:
        """Renvoie la règle, type en tête ; rien si l'expression ne porte que sur la requête."""
        return (self.fields[0].partition("_")[0], *row) if row else ()

    def _guard(self, tree: ast.expr) -> ast.expr:
        return Checked().whole(tree)

    def _finish(self, body: ast.expr) -> ast.expr:
        """Compare sur place ce qui peut l'être."""
        finished: ast.expr = InPlace(self.fields).visit(body)
        return finished

    def _together(self, part: Sequence[Row]) -> Callable[..., Iterable[int]]:
        """Compile ensemble des règles, en supposant ce qu'elles lisent de la sorte à laquelle elles le comparent.

        Si ce n'est pas le cas, une autre fonction, compilée ce jour-là, éprouve chaque comparaison.
        """
        first, bodies = self._bodies(part)
        in_place = InPlace(self.fields, is_supposed=True)
        quick = [in_place.visit(body) for body in bodies]
        known: list[Callable[..., Iterable[int]]] = []

        def otherwise(*request: object) -> Iterable[int]:
            if not known:
                first, bodies = self._bodies(part)
                known.append(self._join(first, list(map(self._finish, bodies))))
            return known[0](*request)

        return self._join([*first, *in_place.unless(self.request)], quick, otherwise=otherwise)

    def _callables(self) -> Mapping[str, Callable[..., object]]:
        return {**self.functions, **CHECKS}

    def _scope(self) -> dict[str, Any]:
        return {**super()._scope(), **CHECKS, **SORTS}


@dataclass(frozen=True, slots=True)
class StrictWalk:
    """Décide règle par règle, comme Casbin le fait, là où l'index ne sait pas comparer la requête ou une règle.

    Attributes:
        definition: ce dont la décision se fait ; son plan n'a pas de clé.
        rows: règles du type.
        evaluator: évalue le matcher entier.
    """

    definition: Definition
    rows: Rows
    evaluator: Evaluator

    @classmethod
    def over(cls, definition: Definition, rows: Rows) -> StrictWalk:
        """Compile le matcher entier.

        Raises:
            DecisionFailedError: le matcher ne se lit pas.
        """
        tree = definition.plan.expression
        assert tree is not None  # noqa: S101 - un plan sans clé garde l'expression entière
        try:
            evaluator = definition.evaluation(tree, definition.fields)
        except UnreadableMatcherError as error:
            raise DecisionFailedError(reason=f"le matcher ne s’évalue pas : {error}") from error
        return cls(definition, rows, evaluator)

    def explain(self, request: Sequence[Any]) -> tuple[bool, Row | None]:
        """Décide et renvoie la règle qui a décidé ; sans aucune règle, le matcher est évalué sur des champs vides."""
        effect = self.definition.effect
        if not len(self.rows):
            nothing = ("",) * len(self.definition.fields)
            return effect.settle(ALLOW if self.evaluator.accepts(request, nothing) else 0), None
        seen, shown = 0, None
        for row in self._order():
            if self._is_accepted(request, row):
                shown = row
                seen |= self.definition.mask(row)
            if seen & effect.stops:
                break
        return effect.settle(seen), shown

    def _order(self) -> Iterable[Row]:
        """Énumère les règles dans l'ordre."""
        order = self.definition.order
        return self.rows.list_ordered() if order is None else sorted(self.rows.list_ordered(), key=order)

    def _is_accepted(self, request: Sequence[Any], row: Row) -> bool:
        """Dit si le matcher accepte une règle, qui doit avoir la forme du modèle."""
        if len(row) != len(self.definition.fields) or set(map(type, row)) != {str}:
            raise DecisionFailedError(reason="une règle n’a pas la forme du modèle", rule=tuple(map(str, row)))
        return self.evaluator.accepts(request, row)


def failure(error: Exception, rule: tuple[str, ...] = ()) -> DecisionFailedError:
    """Fait, d'une erreur quelconque, celle que la garde renvoie ; d'une erreur étrangère on ne dit que le type."""
    if isinstance(error, DecisionFailedError):
        return DecisionFailedError(reason=error.reason, rule=rule or error.rule)
    if isinstance(error, UnreadableMatcherError):
        return DecisionFailedError(reason=f"la règle eval() ne se lit pas : {error}", rule=rule)
    return DecisionFailedError(reason=f"l’évaluation a levé {type(error).__name__}", rule=rule)


def guard(name: str, function: Callable[..., object], *, is_textual: bool) -> Callable[..., object]:
    """Enveloppe une fonction du matcher : ce qu'elle lève la nomme, et ce qu'elle renvoie n'est pas à attendre.

    Args:
        name: son nom dans le matcher.
        function: la fonction.
        is_textual: vrai si elle ne compare que des textes ; toute autre valeur est alors une erreur.
    """

    def call(*arguments: object) -> object:
        if is_textual:
            _require_texts(name, arguments)
        try:
            answer = function(*arguments)
        except DecisionFailedError:
            raise
        except Exception as error:
            raise DecisionFailedError(reason=f"la fonction « {name} » a levé {type(error).__name__}") from error
        if answer is not True and answer is not False and inspect.isawaitable(answer):
            discard(answer)
            raise DecisionFailedError(reason=f"la fonction « {name} » rend {describe(answer)}, que rien n’attend")
        return answer

    return call


def _require_texts(name: str, arguments: Iterable[object]) -> None:
    """Refuse ce qui n'est pas un texte à une fonction qui ne compare qu'eux."""
    for place, value in enumerate(arguments, start=1):
        if not isinstance(value, str):
            discard(value)
            message = f"« {name} » compare des textes, et sa valeur n° {place} est {describe(value)}"
            raise DecisionFailedError(reason=message)
