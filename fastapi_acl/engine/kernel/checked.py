"""L'arbre d'une expression, récrit pour que rien n'y soit vrai, comparé ou lu sans surveillance.

Ce que l'arbre récrit appelle (`CHECKS`) porte des noms qu'aucune expression ne saurait écrire.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final, TypeGuard

from fastapi_acl.engine.kernel.answers import CHAIN, READ, TRUTH
from fastapi_acl.shared.identity import AttributedName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORBIDDEN_ATTRIBUTES: Final = ("_", "func_")
FORBIDDEN_METHODS: Final = frozenset(
    {"format", "format_map", "mro", "tb_frame", "gi_frame", "ag_frame", "cr_frame", "exec"}
)

OPERATORS: Final[Mapping[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
}
"""Comparaisons que l'on surveille, et comment elles s'écrivent."""

SORTS: Final[Mapping[str, frozenset[type]]] = {
    "texts": frozenset({str, AttributedName}),
    "numbers": frozenset({int, float}),
}
"""Types qui se comparent sur place, sans passer par une fonction."""


_TOKEN: Final = re.compile(r"\b([rp]\d*)_")


def is_forbidden(name: str) -> bool:
    """Dit si un attribut ne se lit jamais : il mènerait à l'interpréteur."""
    return name.startswith(FORBIDDEN_ATTRIBUTES) or name in FORBIDDEN_METHODS


def tell_term(node: ast.AST) -> str:
    """Renvoie un terme comme le modèle l'écrit : `r_obj.owner` y est `r.obj.owner`."""
    if isinstance(node, ast.Name):
        return node.id.replace("_", ".", 1)
    if isinstance(node, ast.Attribute):
        return f"{tell_term(node.value)}.{node.attr}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return f"{node.func.id}({', '.join(map(tell_term, node.args))})"
    return repr(node.value) if isinstance(node, ast.Constant) else restore_dots(ast.unparse(node))


def restore_dots(text: str) -> str:
    """Renvoie à un texte les noms du modèle : Casbin a mis « _ » à la place de leur point."""
    return _TOKEN.sub(r"\1.", text)


class Checked(ast.NodeTransformer):
    """Met chaque lecture, chaque comparaison et chaque valeur de vérité d'une expression sous surveillance."""

    def whole(self, tree: ast.expr) -> ast.expr:
        """Récrit une expression entière : elle aussi vaut vrai ou faux."""
        return self._boolean(tree)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        """Ce que « et » et « ou » joignent vaut vrai ou faux."""
        return ast.BoolOp(node.op, [self._boolean(value) for value in node.values])

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        """Ce que « non » renverse vaut vrai ou faux."""
        if isinstance(node.op, ast.Not):
            return ast.UnaryOp(node.op, self._boolean(node.operand))
        return self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """Une condition vaut vrai ou faux."""
        return ast.IfExp(self._boolean(node.test), self.visit(node.body), self.visit(node.orelse))

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        """Un filtre vaut vrai ou faux."""
        node.iter, node.ifs = self.visit(node.iter), [self._boolean(test) for test in node.ifs]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Un attribut se lit par `read` ; un nom défendu reste à qui le refuse."""
        if is_forbidden(node.attr):
            return node
        return _call(READ, self.visit(node.value), ast.Constant(node.attr), ast.Constant(tell_term(node)))

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Une comparaison n'a de réponse qu'entre deux valeurs de même sorte."""
        operands = [node.left, *node.comparators]
        words = [tell_term(operand) for operand in operands]
        names = [OPERATORS[type(op)] for op in node.ops]
        values = [self.visit(operand) for operand in operands]
        if len(names) == 1:
            return _call(names[0], *values, *map(ast.Constant, words))
        return _call(CHAIN, _texts(names), _texts(words), *values)

    def _boolean(self, node: ast.expr) -> ast.expr:
        """Récrit un terme qui doit valoir vrai ou faux."""
        words = tell_term(node) if not isinstance(node, (ast.BoolOp, ast.Compare, ast.IfExp)) else ""
        if isinstance(node, ast.IfExp):
            return ast.IfExp(self._boolean(node.test), self._boolean(node.body), self._boolean(node.orelse))
        visited: ast.expr = self.visit(node)
        return visited if is_boolean(node) else _call(TRUTH, visited, ast.Constant(words))


def is_boolean(node: ast.expr) -> bool:
    """Dit si un terme vaut vrai ou faux par sa seule forme."""
    if isinstance(node, ast.Constant):
        return node.value is True or node.value is False
    is_not = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    return is_not or isinstance(node, (ast.BoolOp, ast.Compare))


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _texts(found: Iterable[str]) -> ast.expr:
    return ast.Tuple([ast.Constant(text) for text in found], ast.Load())


class InPlace(ast.NodeTransformer):
    """Compare sur place ce qui est manifestement de même sorte : l'appel ne sert plus qu'à échouer.

    `r.sub.age > 18` devient `age > 18 if age.__class__ in numbers else …` ; deux champs de règle, qui sont toujours des
    textes, se comparent tels quels.
    """

    def __init__(self, texts: Iterable[str], *, is_supposed: bool = False) -> None:
        """Retient les noms qui désignent toujours des textes.

        Args:
            texts: champs de la règle.
            is_supposed: vrai pour tenir d'avance chaque épreuve pour bonne ; c'est alors à `unless` de les faire.
        """
        self._texts = frozenset(texts)
        self._is_supposed = is_supposed
        self._proofs: dict[tuple[str, str], ast.expr] = {}

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Remplace une comparaison surveillée dont on peut lire deux fois les termes."""
        self.generic_visit(node)
        compared = _COMPARED.get(getattr(node.func, "id", ""))
        if compared is None:
            return node
        left, right = node.args[:2]
        sort = self._sort(left) or self._sort(right) or ("texts" if _is_name(left) and _is_name(right) else "")
        if not sort or not all(_is_name(one) or self._sort(one) == sort for one in (left, right)):
            return node
        tests = {(sort, one.id): _is_of(sort, one) for one in (left, right) if _is_name(one) and not self._sort(one)}
        if self._is_supposed:
            self._proofs.update(tests)
            tests = {}
        return _either(list(tests.values()), ast.Compare(left, [compared()], [right]), node)

    def unless(self, request: Iterable[str]) -> list[ast.stmt]:
        """Écrit « si une des sortes supposées n'est pas la bonne, demander à `otherwise` »."""
        if not self._proofs:
            return []
        asked = ast.Call(ast.Name("otherwise", ast.Load()), [ast.Name(name, ast.Load()) for name in request], [])
        proofs = ast.BoolOp(ast.And(), [ast.Constant(value=True), *self._proofs.values()])
        return [ast.If(ast.UnaryOp(ast.Not(), proofs), [ast.Return(asked)], [])]

    def _sort(self, node: ast.expr) -> str:
        """Renvoie la sorte d'un terme, si elle se lit dans le texte."""
        if isinstance(node, ast.Constant):
            return "texts" if type(node.value) is str else "numbers" if type(node.value) in SORTS["numbers"] else ""
        return "texts" if isinstance(node, ast.Name) and node.id in self._texts else ""


_COMPARED: Final = {name: op for op, name in OPERATORS.items() if name in {"==", "!=", "<", "<=", ">", ">="}}


def _is_name(node: ast.expr) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name)


def _is_of(sort: str, node: ast.expr) -> ast.expr:
    """Écrit « ce nom est de cette sorte »."""
    return ast.Compare(ast.Attribute(node, "__class__", ast.Load()), [ast.In()], [ast.Name(sort, ast.Load())])


def _either(tests: list[ast.expr], quick: ast.expr, slow: ast.expr) -> ast.expr:
    """Écrit la comparaison directe si les épreuves tiennent, l'appel sinon."""
    if not tests:
        return quick
    return ast.IfExp(tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests), quick, slow)
