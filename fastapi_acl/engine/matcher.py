"""Un matcher, lu une fois : quels termes deviennent des clés d'index, et ce qu'il reste à évaluer par règle.

`g(r.sub, p.sub) && aclMatch(r.obj, p.obj) && r.act == p.act` n'a pas à être évalué règle par règle : les trois termes
désignent des cases. Ce que le plan ne sait pas lire entièrement revient à l'évaluation de Casbin : plus lent, jamais
faux.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.matching import acl_owns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from casbin.model import Model


class Probe(Enum):
    """Comment un terme se cherche dans l'index."""

    EXACT = "=="
    PATTERN = "aclMatch"
    ROLE = "g"


@dataclass(frozen=True, slots=True)
class Key:
    """Un terme du matcher qui devient une composante de clé.

    Attributes:
        probe: façon de chercher.
        request: place de la valeur dans la requête.
        field: place de la valeur dans la règle.
        domain: pour un rôle, place du domaine dans la requête ; None sans domaine.
    """

    probe: Probe
    request: int
    field: int
    domain: int | None = None

    def describe(self, request: Sequence[str], fields: Sequence[str]) -> str:
        """Rend le terme tel que le modèle l'écrit."""
        left, right = f"r.{request[self.request]}", f"p.{fields[self.field]}"
        if self.probe is Probe.EXACT:
            return f"{left} == {right}"
        domain = f", r.{request[self.domain]}" if self.domain is not None else ""
        return f"{self.probe.value}({left}, {right}{domain})"


@dataclass(frozen=True, slots=True)
class MatcherPlan:
    """Ce qu'il faut chercher, et ce qu'il reste à évaluer sur les règles trouvées.

    Attributes:
        keys: composantes de clé, le sujet d'abord.
        residual: termes restants, en Python ; vide s'il n'y en a pas.
        reason: pourquoi rien n'est indexé ; vide si le plan sert.
    """

    keys: tuple[Key, ...] = ()
    residual: str = ""
    reason: str = ""

    @property
    def is_indexed(self) -> bool:
        """Vrai si les décisions passent par l'index."""
        return not self.reason

    def describe(self, request: Sequence[str], fields: Sequence[str]) -> str:
        """Rend le plan en quelques lignes, pour une personne."""
        if self.reason:
            return f"évaluation de Casbin, règle par règle : {self.reason}"
        lines = [f"clé      : {key.describe(request, fields)}" for key in self.keys]
        return "\n".join([*lines, f"évalué   : {self.residual}"] if self.residual else lines)


class _NotPlannable(Exception):  # noqa: N818 - un détour, pas une erreur
    """Le matcher sort de ce que le plan sait lire."""


_STRING_OR_OPERATOR: Final = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(&&)|(\|\|)|(!(?!=))""")
_PYTHON: Final = {2: " and ", 3: " or ", 4: " not "}

CONDITIONS: Final[Mapping[str, Callable[..., bool]]] = {"aclOwns": acl_owns}
"""Nos fonctions qu'un terme restant peut appeler."""

SIMPLE_NODES: Final = (
    ast.BoolOp,
    ast.And,
    ast.Or,
    ast.UnaryOp,
    ast.Not,
    ast.Compare,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
    ast.In,
    ast.NotIn,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.Attribute,
    ast.Tuple,
)
"""Nœuds qu'un terme restant peut contenir : ni appel, ni indice, ni compréhension."""


def plan_matcher(model: Model) -> MatcherPlan:
    """Lit le matcher d'un modèle.

    Args:
        model: modèle Casbin chargé, à une seule définition `r`, `p`, `e` et `m`.

    Returns:
        Un plan ; `reason` dit pourquoi rien n'est indexé, le cas échéant.
    """
    try:
        return _Planner(model).plan()
    except _NotPlannable as detour:
        return MatcherPlan(reason=str(detour))


class _Planner:
    """Lit une conjonction, terme par terme."""

    def __init__(self, model: Model) -> None:
        """Range les noms de la requête et de la règle à leur place."""
        if any(len(model[section]) != 1 for section in ("r", "p", "e", "m")):
            message = "plusieurs définitions r, p, e ou m"
            raise _NotPlannable(message)
        self._request: Mapping[str, int] = {name: place for place, name in enumerate(model["r"]["r"].tokens)}
        self._fields: Mapping[str, int] = {name: place for place, name in enumerate(model["p"]["p"].tokens)}
        self._links = {name: assertion.value.count("_") for name, assertion in (model["g"] or {}).items()}
        self._tree = _parse(model["m"]["m"].value)

    def plan(self) -> MatcherPlan:
        """Rend le plan : une clé par terme reconnu, le reste à évaluer."""
        keys: list[Key] = []
        residual: list[ast.expr] = []
        for term in _conjunction(self._tree):
            key = self._key(term)
            if key is not None and key.field not in {other.field for other in keys}:
                keys.append(key)
            else:
                residual.append(self._checked(term))
        if not keys:
            message = "aucun terme ne compare une valeur de la requête à un champ de la règle"
            raise _NotPlannable(message)
        keys.sort(key=lambda key: key.probe is not Probe.ROLE)
        return MatcherPlan(tuple(keys), " and ".join(f"({ast.unparse(term)})" for term in residual))

    def _key(self, term: ast.expr) -> Key | None:
        """Reconnaît un terme indexable."""
        if isinstance(term, ast.Compare) and len(term.ops) == 1 and isinstance(term.ops[0], ast.Eq):
            return self._pair(Probe.EXACT, term.left, term.comparators[0]) or self._pair(
                Probe.EXACT, term.comparators[0], term.left
            )
        if isinstance(term, ast.Call) and isinstance(term.func, ast.Name) and not term.keywords:
            return self._call(term.func.id, term.args)
        return None

    def _call(self, name: str, arguments: Sequence[ast.expr]) -> Key | None:
        """Reconnaît `aclMatch(r.x, p.y)` et `g(r.x, p.y[, r.dom])`."""
        if name == "aclMatch" and len(arguments) == 2:  # noqa: PLR2004 - valeur et motif
            return self._pair(Probe.PATTERN, arguments[0], arguments[1])
        if name == "g" and len(arguments) == self._links.get(name):
            domain = self._place(self._request, arguments[2]) if len(arguments) > 2 else None  # noqa: PLR2004 - le domaine
            return self._pair(Probe.ROLE, arguments[0], arguments[1], domain)
        return None

    def _pair(self, probe: Probe, left: ast.expr, right: ast.expr, domain: int | None = None) -> Key | None:
        """Fait une clé d'une valeur de la requête et d'un champ de la règle."""
        request, field = self._place(self._request, left), self._place(self._fields, right)
        return Key(probe, request, field, domain) if request is not None and field is not None else None

    @staticmethod
    def _place(places: Mapping[str, int], node: ast.expr) -> int | None:
        """Rend la place d'un nom simple."""
        return places.get(node.id) if isinstance(node, ast.Name) else None

    def _checked(self, term: ast.expr) -> ast.expr:
        """Vérifie qu'un terme restant ne fait que lire et comparer."""
        for node in ast.walk(term):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CONDITIONS:
                continue
            if not isinstance(node, SIMPLE_NODES):
                message = f"« {ast.unparse(term)} » n'est pas une simple comparaison"
                raise _NotPlannable(message)
            known = (self._request, self._fields, CONDITIONS)
            if isinstance(node, ast.Name) and not any(node.id in names for names in known):
                message = f"« {node.id} » n'est ni de la requête ni de la règle"
                raise _NotPlannable(message)
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                message = f"l'attribut « {node.attr} » est privé"
                raise _NotPlannable(message)
        return term


def compile_residual(expression: str, request: Sequence[str], fields: Sequence[str]) -> Callable[..., object]:
    """Compile les termes restants, déjà vérifiés, en une fonction de toutes les valeurs.

    Args:
        expression: termes restants d'un plan.
        request: jetons de la requête (`r_sub`…).
        fields: jetons de la règle (`p_sub`…).
    """
    arguments = ast.arguments(
        posonlyargs=[ast.arg(name) for name in (*request, *fields)], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    body = ast.parse(expression, mode="eval").body
    tree = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, body)))
    function: Callable[..., object] = eval(compile(tree, "<matcher>", "eval"), {"__builtins__": {}, **CONDITIONS})  # noqa: S307 - arbre vérifié
    return function


def _parse(matcher: str) -> ast.expr:
    """Lit l'expression, opérateurs de Casbin compris."""
    try:
        return ast.parse(_STRING_OR_OPERATOR.sub(_to_python, matcher).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        message = "l'expression ne se lit pas"
        raise _NotPlannable(message) from error


def _to_python(found: re.Match[str]) -> str:
    """Traduit un opérateur ; un texte entre guillemets reste ce qu'il est."""
    return found[0] if found[1] is not None else _PYTHON[found.lastindex or 0]


def _conjunction(tree: ast.expr) -> Iterator[ast.expr]:
    """Énumère les termes d'une conjonction, à plat."""
    if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And):
        for value in tree.values:
            yield from _conjunction(value)
    else:
        yield tree
