"""Ce qu'il reste d'un matcher une fois les cases trouvées : une fonction Python, compilée d'un arbre vérifié.

Seuls les nœuds d'une liste blanche sont compilés ; toute autre expression est confiée à l'évaluateur de la langue.
Rien de ce qu'une règle contient n'est jamais joint à un texte pour être relu : une règle `eval()` est lue seule, et son
arbre prend la place de l'appel.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fastapi_acl.engine.kernel.answers import CHECKS, READ, attribute
from fastapi_acl.engine.kernel.checked import is_forbidden
from fastapi_acl.engine.kernel.plan import UnreadableMatcherError, calls, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fastapi_acl.engine.kernel.language import Language
    from fastapi_acl.engine.kernel.rows import Row

    Part = tuple[tuple[Row, ...], Callable[..., Iterable[int]]]

WHITE_LIST: Final = (
    ast.BoolOp,
    ast.And,
    ast.Or,
    ast.UnaryOp,
    ast.Not,
    ast.USub,
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
    ast.List,
    ast.Call,
)
"""Nœuds compilés : lire, comparer, appeler une fonction connue. Ni indice, ni calcul, ni compréhension."""

MAX_CONSTANT: Final = 10_000
MAX_EXPRESSIONS: Final = 10_000
"""Expressions de règles `eval()` gardées compilées."""

PART: Final = 64
"""Règles `eval()` évaluées d'un seul appel."""

MAX_CELLS: Final = 1_000
"""Cases et parts gardées compilées."""


@dataclass(slots=True)
class Evaluator:
    """Évalue une expression sur une requête et une règle.

    Attributes:
        expression: arbre à évaluer.
        request: jetons de la requête.
        fields: jetons de la règle.
        functions: fonctions du matcher, telles qu'elles sont au moment de l'appel.
        language: langue dans laquelle il est écrit.
    """

    expression: ast.expr
    request: Sequence[str]
    fields: Sequence[str]
    functions: Mapping[str, Callable[..., object]]
    language: Language
    _compiled: Callable[..., object] = field(init=False, repr=False)
    _by_rule: dict[Row, Callable[..., object]] = field(init=False, repr=False, default_factory=dict)
    _places: tuple[int, ...] = field(init=False, repr=False, default=())
    _parts: dict[int, tuple[int, list[Part]]] = field(init=False, repr=False, default_factory=dict)
    _fused: dict[tuple[Row, ...], Callable[..., Iterable[int]]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Compile l'expression, ou note les champs que `eval()` y lit."""
        if "eval" in calls(self.expression):
            self._places = tuple(_list_evaluated(self.expression, self.fields))
        else:
            self._compiled = self._compile(self.expression)

    def accepts(self, request: Sequence[object], row: Row) -> bool:
        """Dit si la règle satisfait la requête.

        Raises:
            RuntimeError: l'expression ne renvoie ni un booléen ni un flottant, comme dans Casbin.
        """
        compiled = self._for_rule(row) if self._places else self._compiled
        answer = compiled(*request, *row)
        if answer is True or answer is False:
            return answer
        if isinstance(answer, float):
            return answer != 0
        message = "le matcher doit rendre un booléen ou un flottant"
        raise RuntimeError(message)

    @property
    def reads_rules(self) -> bool:
        """Vrai si l'expression change d'une règle à l'autre : elle emploie `eval()`."""
        return bool(self._places)

    def list_accepted(
        self, request: Sequence[object], cell: object, version: int, rows: Callable[[], Iterable[Row]]
    ) -> Iterator[Row]:
        """Énumère, dans l'ordre, les règles d'une grande case que la requête satisfait.

        Les règles sont évaluées par parts, chacune d’un seul appel qui n’écarte que celles qui valent faux ; les autres
        sont reprises une à une. Une part où une règle échoue l'est toute, pour n'échouer que là où Casbin échouerait.

        Args:
            request: valeurs de la requête.
            cell: la case.
            version: numéro de la politique, qui dit si les parts de la case valent encore.
            rows: renvoie ses règles, dans l'ordre.
        """
        for part, evaluate in self.parts(cell, version, rows):
            try:
                places: Iterable[int] = evaluate(*request)
            except Exception:  # noqa: BLE001 - une règle échoue : savoir laquelle, et si on l'atteint
                places = range(len(part))
            yield from (part[place] for place in places if self.accepts(request, part[place]))

    def parts(self, cell: object, version: int, rows: Callable[[], Iterable[Row]]) -> list[Part]:
        """Renvoie les parts d'une case, compilées une fois pour toutes tant que la politique ne change pas."""
        known = self._parts.get(id(cell))
        if known is None or known[0] != version:
            known = (version, self._divide(list(rows())))
            if len(self._parts) >= MAX_CELLS:
                self._parts.clear()
            self._parts[id(cell)] = known
        return known[1]

    def _divide(self, rows: Sequence[Row]) -> list[Part]:
        """Coupe des règles en parts compilées ; une part inchangée n'est pas recompilée."""
        parts = [tuple(rows[start : start + PART]) for start in range(0, len(rows), PART)]
        if len(self._fused) > MAX_CELLS:
            self._fused.clear()
        for part in parts:
            if part not in self._fused:
                self._fused[part] = self._fuse(part)
        return [(part, self._fused[part]) for part in parts]

    def _fuse(self, part: Sequence[Row]) -> Callable[..., Iterable[int]]:
        """Compile une part en une fonction de la requête, qui renvoie les places des règles qui ne valent pas faux."""
        if self._is_fusible(part):
            return self._together(part)
        return lambda *_: range(len(part))  # aucune n'est écartée : elles sont reprises une à une

    def _is_fusible(self, part: Sequence[Row]) -> bool:
        """Dit si les règles d'une part se lisent toutes, et ne font que lire, comparer et appeler."""
        names = {*self.request, *self.fields}
        try:
            return all(_is_simple(tree, names, self.functions) for tree in self._trees(part))
        except UnreadableMatcherError:
            return False

    def _trees(self, part: Sequence[Row]) -> list[ast.expr]:
        """Renvoie l'expression de chaque règle d'une part.

        Raises:
            UnreadableMatcherError: une règle ne se lit pas seule.
        """
        return [self._splice(tuple(row[place] for place in self._places)) for row in part]

    def _together(self, part: Sequence[Row]) -> Callable[..., Iterable[int]]:
        """Compile ensemble des règles qui ne font que lire, comparer et appeler."""
        return self._join(*self._bodies(part))

    def _bodies(self, part: Sequence[Row]) -> tuple[list[ast.stmt], list[ast.expr]]:
        """Renvoie ce qu'il faut lire d'abord, puis l'expression de chaque règle, prête à être compilée."""
        reads = _Reads(self.request)
        bodies = [
            reads.visit(_Calls().visit(_Values(self.fields, row).visit(self._guard(tree))))
            for tree, row in zip(self._trees(part), part, strict=True)
        ]
        return reads.assign(), bodies

    def _join(
        self, first: Sequence[ast.stmt], bodies: Sequence[ast.expr], **scope: object
    ) -> Callable[..., Iterable[int]]:
        """Compile des expressions en une fonction de la requête."""
        tests = [
            ast.If(ast.Compare(body, [ast.IsNot()], [ast.Constant(value=False)]), [_append(place)], [])
            for place, body in enumerate(bodies)
        ]
        found = [ast.Assign([ast.Name("found", ast.Store())], ast.List([], ast.Load()))]
        return self._function([*first, *found, *tests, ast.Return(ast.Name("found", ast.Load()))], **scope)

    def _function(self, body: Sequence[ast.stmt], **more: object) -> Callable[..., Iterable[int]]:
        """Compile des instructions en une fonction de la requête."""
        names = [ast.arg(name) for name in self.request]
        arguments = ast.arguments(posonlyargs=names, args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        made = ast.parse("def fused(): pass")
        defined = made.body[0]
        assert isinstance(defined, ast.FunctionDef)  # noqa: S101 - le texte ci-dessus
        defined.args, defined.body = arguments, list(body)
        scope = {**self._scope(), **more}
        exec(compile(ast.fix_missing_locations(made), "<matcher>", "exec"), scope)  # noqa: S102 - arbre vérifié
        compiled: Callable[..., Iterable[int]] = scope["fused"]
        return compiled

    def _for_rule(self, row: Row) -> Callable[..., object]:
        """Renvoie l'expression où les règles de `eval()` ont pris leur place ; compilée une fois par texte."""
        texts = tuple(row[place] for place in self._places)
        found = self._by_rule.get(texts)
        if found is None:
            found = self._compile(self._splice(texts))
            if len(self._by_rule) >= MAX_EXPRESSIONS:
                self._by_rule.clear()
            self._by_rule[texts] = found
        return found

    def _splice(self, texts: Sequence[str]) -> ast.expr:
        """Met l'arbre de chaque règle à la place de son `eval()`.

        Raises:
            UnreadableMatcherError: une règle ne se lit pas seule.
        """
        rules = iter(read_condition(text, self.language) for text in texts)
        spliced: ast.expr = _Splice(rules).visit(copy.deepcopy(self.expression))
        return spliced

    def _compile(self, expression: ast.expr) -> Callable[..., object]:
        """Compile une expression de la liste blanche ; la langue évalue les autres."""
        if not _is_simple(expression, {*self.request, *self.fields}, self.functions):
            checked = self._guard(copy.deepcopy(expression))
            return self.language.interpret(checked, (*self.request, *self.fields), self._callables())
        names = [ast.arg(name) for name in (*self.request, *self.fields)]
        arguments = ast.arguments(posonlyargs=names, args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        body = self._finish(_Calls().visit(self._guard(copy.deepcopy(expression))))
        tree = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, body)))
        compiled: Callable[..., object] = eval(compile(tree, "<matcher>", "eval"), self._scope())  # noqa: S307 - arbre vérifié
        return compiled

    def _guard(self, tree: ast.expr) -> ast.expr:
        """Récrit une expression avant qu'elle soit compilée ou interprétée , ce que seul le mode strict demande."""
        return tree

    def _finish(self, body: ast.expr) -> ast.expr:
        """Récrit une expression prête à être compilée."""
        return body

    def _callables(self) -> Mapping[str, Callable[..., object]]:
        """Renvoie ce qu'une expression interprétée appelle."""
        return self.functions

    def _scope(self) -> dict[str, Any]:
        """Renvoie ce qu'une expression compilée peut nommer, outre ses arguments."""
        return {"__builtins__": {}, "functions": self.functions, "attribute": attribute}


class _Splice(ast.NodeTransformer):
    """Remplace chaque `eval(p.x)` par l'arbre de la règle."""

    def __init__(self, rules: Any) -> None:  # noqa: ANN401 - itérateur d'arbres
        self._rules = rules

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Remplace un appel à `eval`."""
        if isinstance(node.func, ast.Name) and node.func.id == "eval":
            replaced: ast.AST = next(self._rules)
            return replaced
        return self.generic_visit(node)


class _Calls(ast.NodeTransformer):
    """Fait passer les appels par la table des fonctions, et les attributs par `attribute`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Cherche la fonction au moment de l'appel : une application peut la remplacer."""
        self.generic_visit(node)
        name = getattr(node.func, "id", "")
        if name in CHECKS:
            return node
        table = ast.Name("functions", ast.Load())
        return ast.Call(ast.Subscript(table, ast.Constant(name), ast.Load()), node.args, [])

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Lit un attribut, ou la clé d'un dictionnaire."""
        self.generic_visit(node)
        return ast.Call(ast.Name("attribute", ast.Load()), [node.value, ast.Constant(node.attr)], [])


class _Values(ast.NodeTransformer):
    """Met les valeurs d'une règle, comme constantes, à la place des champs qui la nomment."""

    def __init__(self, fields: Sequence[str], row: Row) -> None:
        self._values = dict(zip(fields, row, strict=True))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Remplace un champ."""
        return ast.Constant(self._values[node.id]) if node.id in self._values else node


class _Reads(ast.NodeTransformer):
    """Lit une fois, pour toute une part, chaque attribut d'une valeur de la requête."""

    def __init__(self, request: Sequence[str]) -> None:
        self._request = frozenset(request)
        self._known: dict[tuple[str, str], tuple[str, ast.Call]] = {}

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Remplace une lecture d'attribut par la variable qui la tient."""
        self.generic_visit(node)
        if getattr(node.func, "id", "") not in {"attribute", READ} or not isinstance(node.args[0], ast.Name):
            return node
        owner, name = node.args[0].id, node.args[1]
        if owner not in self._request or not isinstance(name, ast.Constant):
            return node
        variable, _ = self._known.setdefault((owner, str(name.value)), (f"read{len(self._known)}", node))
        return ast.Name(variable, ast.Load())

    def assign(self) -> list[ast.stmt]:
        """Renvoie les lectures, à faire d'abord."""
        return [ast.Assign([ast.Name(variable, ast.Store())], read) for variable, read in self._known.values()]


def _append(place: int) -> ast.stmt:
    """Écrit `found.append(place)`."""
    method = ast.Attribute(ast.Name("found", ast.Load()), "append", ast.Load())
    return ast.Expr(ast.Call(method, [ast.Constant(place)], []))


def read_condition(text: str, language: Language) -> ast.expr:
    """Lit la règle d'un `eval()`.

    Raises:
        UnreadableMatcherError: elle ne se lit pas seule, ou met un texte en forme, ce dont rien ne borne le temps.
    """
    tree = parse(language.escape(text))
    if any(isinstance(node, ast.JoinedStr) for node in ast.walk(tree)):
        message = "une règle ne met pas de texte en forme"
        raise UnreadableMatcherError(message)
    return tree


def _list_evaluated(expression: ast.expr, fields: Sequence[str]) -> list[int]:
    """Renvoie la place du champ que chaque `eval()` lit, dans l'ordre où l'expression les nomme.

    Raises:
        UnreadableMatcherError: un `eval()` lit autre chose qu'un champ.
    """
    places: list[int] = []
    for node in _in_order(expression):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "eval":
            read = [getattr(argument, "id", "") for argument in node.args]
            if len(read) != 1 or read[0] not in fields:
                message = "eval() ne lit qu'un champ de la règle"
                raise UnreadableMatcherError(message)
            places.append(fields.index(read[0]))
    return places


def _in_order(node: ast.AST) -> Any:  # noqa: ANN401 - itérateur de nœuds
    """Parcourt un arbre dans l'ordre du texte, comme le fait `ast.NodeTransformer`."""
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _in_order(child)


def _is_simple(expression: ast.expr, names: set[str], functions: Mapping[str, object]) -> bool:
    """Dit si l'expression ne fait que lire, comparer et appeler des fonctions connues."""
    called = {id(node.func) for node in ast.walk(expression) if isinstance(node, ast.Call)}
    return all(_is_allowed(node, names, functions, is_call=id(node) in called) for node in ast.walk(expression))


def _is_allowed(node: ast.AST, names: set[str], functions: Mapping[str, object], *, is_call: bool) -> bool:
    """Dit si un nœud est de la liste blanche."""
    if isinstance(node, ast.Name):
        return node.id in (functions if is_call else names)
    if isinstance(node, ast.Attribute):
        return not is_call and not is_forbidden(node.attr)
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, (str, bytes)) or len(node.value) <= MAX_CONSTANT
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and not node.keywords
    return isinstance(node, WHITE_LIST)
