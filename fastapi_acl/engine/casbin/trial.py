"""L'essai d'un matcher avant de servir : chaque nom, chaque fonction, chaque champ existe, chaque terme a un sens.

Évaluer ne suffirait pas : un terme que la première requête n'atteint pas ne se trompe qu'à la millième. L'arbre est
donc parcouru en entier, sans rien appeler.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from casbin.util import SimpleEval

from fastapi_acl.engine.casbin.functions import is_textual
from fastapi_acl.engine.casbin.language import CASBIN
from fastapi_acl.engine.kernel.checked import is_boolean, is_forbidden, restore_dots, tell_term
from fastapi_acl.engine.kernel.evaluation import WHITE_LIST, read_condition
from fastapi_acl.engine.kernel.plan import UnreadableMatcherError, parse
from fastapi_acl.engine.kernel.schema import Conditions
from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from casbin.model import Model

    from fastapi_acl.engine.casbin.definitions import ModelDefinitions
    from fastapi_acl.engine.casbin.model_source import ModelSource

COMPOUND: Final = frozenset({"list", "tuple", "dict", "set"})
"""Fonctions que l'évaluateur de Casbin connaît d'emblée."""

KNOWN_NODES: Final = frozenset(
    {*WHITE_LIST, *SimpleEval("").nodes, *SimpleEval("").operators, ast.comprehension, ast.Store}
)
"""Nœuds que l'un ou l'autre évaluateur sait évaluer."""

WIDTHS: Final[Mapping[str, int]] = {"aclOwns": 3, "keyGet2": 3, "keyGet3": 3}
"""Nombre de valeurs des fonctions fournies, quand ce n'est pas deux."""


class Fault(NamedTuple):
    """Ce qui ne va pas dans une expression.

    Attributes:
        word: le terme fautif, comme le modèle l'écrit.
        reason: ce qui ne va pas, et ce que l'on voulait peut-être écrire.
    """

    word: str
    reason: str


@dataclass(frozen=True, slots=True)
class Lexicon(Conditions):
    """Ce que les noms d'une expression peuvent désigner.

    Attributes:
        request: jetons de la requête (`r_sub`…).
        fields: jetons de la règle (`p_sub`…).
        roles: nombre de valeurs de chaque fonction de rôles.
        functions: fonctions, telles que le matcher les trouve ; None pour ne pas les vérifier.
    """

    request: tuple[str, ...]
    fields: tuple[str, ...]
    roles: Mapping[str, int]
    functions: Mapping[str, Callable[..., object]] | None = None

    @classmethod
    def of(cls, model: Model, functions: Mapping[str, Any] | None = None, *, is_whole: bool = False) -> Lexicon:
        """Lit les noms d'un modèle.

        Args:
            model: modèle chargé.
            functions: fonctions du matcher.
            is_whole: vrai pour toutes les définitions (`r2`, `p2`…), qu'un contexte peut réunir à son gré.
        """
        tokens = {
            section: [
                token for name in (model[section] if is_whole else [section]) for token in model[section][name].tokens
            ]
            for section in ("r", "p")
        }
        roles = {name: assertion.value.count("_") for name, assertion in (model["g"] or {}).items()}
        return cls(tuple(tokens["r"]), tuple(tokens["p"]), roles, functions)

    @property
    def names(self) -> tuple[str, ...]:
        """Tous les noms de valeurs."""
        return (*self.request, *self.fields)

    def faults(self, tree: ast.expr, *, admits_eval: bool = True) -> list[Fault]:
        """Renvoie ce qui ne va pas dans une expression."""
        trial = _Trial(self, admits_eval=admits_eval)
        trial.boolean(tree)
        return list(dict.fromkeys(trial.found))

    def fault(self, text: str) -> str:
        """Dit ce qui ne va pas dans une règle `eval()` ; rien si tout va bien."""
        try:
            tree = read_condition(text, CASBIN)
        except UnreadableMatcherError as error:
            return f"l’expression ne se lit pas{_where(error)}" if error.__cause__ is not None else str(error)
        found = self.faults(tree, admits_eval=False)
        return f"« {found[0].word} » {found[0].reason}" if found else ""

    def without_functions(self) -> Lexicon:
        """Renvoie le même lexique, qui ne vérifie pas les fonctions."""
        return replace(self, functions=None)


class _Trial(ast.NodeVisitor):
    """Parcourt une expression, et note ce qui ne pourrait pas s'évaluer."""

    def __init__(self, lexicon: Lexicon, *, admits_eval: bool) -> None:
        self._lexicon = lexicon
        self._admits_eval = admits_eval
        self._local: set[str] = set()
        self.found: list[Fault] = []

    def boolean(self, node: ast.expr) -> None:
        """Parcourt un terme qui doit valoir vrai ou faux."""
        if not is_boolean(node) and _never_boolean(node, self._lexicon.fields):
            self._note(node, "ne vaut ni vrai ni faux : comparez-le à une valeur")
        self.visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        """Refuse ce qu'aucun évaluateur ne connaît."""
        if type(node) in KNOWN_NODES:
            super().generic_visit(node)
        else:
            self._note(node, f"est d’une forme qu’un matcher n’a pas ({type(node).__name__})")

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Chaque terme vaut vrai ou faux."""
        for value in node.values:
            self.boolean(value)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Ce qu'un « non » renverse vaut vrai ou faux."""
        if isinstance(node.op, ast.Not):
            self.boolean(node.operand)
        else:
            self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """Une condition vaut vrai ou faux."""
        self.boolean(node.test)
        self.visit(node.body)
        self.visit(node.orelse)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Les noms d'une compréhension sont les siens."""
        self.visit(node.iter)
        for test in node.ifs:
            self.boolean(test)

    def visit_ListComp(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp) -> None:
        """Les noms d'une compréhension ne valent qu'en elle."""
        kept = set(self._local)
        targets = [name for generator in node.generators for name in ast.walk(generator.target)]
        self._local |= {name.id for name in targets if isinstance(name, ast.Name)}
        self.generic_visit(node)
        self._local = kept

    visit_GeneratorExp = visit_DictComp = visit_ListComp  # noqa: N815 - noms que demande ast.NodeVisitor

    def visit_Name(self, node: ast.Name) -> None:
        """Un nom désigne une valeur de la requête ou un champ de la règle."""
        if node.id not in self._lexicon.names and node.id not in self._local:
            self._note(node, f"n’existe pas{self._nearest(tell_term(node), self._list_names())}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Un attribut se lit sur une valeur de la requête, jamais sur un champ de règle."""
        root: ast.AST = node
        while isinstance(root, ast.Attribute):
            if is_forbidden(root.attr):
                self._note(node, "n’est pas un attribut qu’un matcher puisse lire")
            root = root.value
        if isinstance(root, ast.Name) and root.id in self._lexicon.fields:
            self._note(node, "n’existe pas : un champ de règle est un texte, il n’a pas d’attribut")
        elif isinstance(root, ast.Name) and root.id not in self._local and root.id not in self._lexicon.names:
            self._note(node, f"n’existe pas{self._nearest(tell_term(node), self._list_names())}")
        elif not isinstance(root, ast.Name):
            self.visit(root)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Un champ de règle est un texte : il ne se compare pas à un nombre."""
        operands = [node.left, *node.comparators]
        for left, right in pairwise(operands):
            sorts = {self._sort(left), self._sort(right)} - {""}
            if len(sorts) > 1:
                self._note(node, "compare un texte et un nombre : un champ de règle est toujours un texte")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Une fonction existe, et reçoit autant de valeurs qu'elle en attend."""
        if not isinstance(node.func, ast.Name):
            self._note(node, "appelle une méthode : donnez une fonction par ACLManager(functions={…})")
        elif node.func.id == "eval":
            self._check_eval(node)
        elif not self._knows(node.func.id):
            known = (*(self._lexicon.functions or ()), *self._lexicon.roles, "eval")
            mend = " ; une fonction de l’application se donne par ACLManager(functions={…})"
            self._note(node.func, f"n’est pas une fonction connue{self._nearest(node.func.id, known) or mend}")
        elif node.keywords:
            self._note(node, "nomme une valeur : les fonctions d’un matcher n’en reçoivent que par leur place")
        else:
            self._check_width(node, node.func.id)
        for argument in node.args:
            self.visit(argument)

    def _knows(self, name: str) -> bool:
        """Dit si une fonction existe."""
        functions = self._lexicon.functions
        return functions is None or name in functions or name in self._lexicon.roles or name in COMPOUND

    def _check_eval(self, node: ast.Call) -> None:
        """Un `eval()` lit un champ de la règle, et n'est pas dans une règle."""
        argument = node.args[0] if len(node.args) == 1 else None
        if not self._admits_eval:
            self._note(node, "ne s’emploie pas dans une règle")
        elif not isinstance(argument, ast.Name) or argument.id not in self._lexicon.fields:
            self._note(node, "ne lit pas un champ de la règle : écrivez eval(p.champ)")

    def _check_width(self, node: ast.Call, name: str) -> None:
        """Une fonction reçoit autant de valeurs qu'elle en attend, pour autant qu'on le sache."""
        function, given = (self._lexicon.functions or {}).get(name), len(node.args)
        expected = self._lexicon.roles.get(name) or _width(name, function)
        if expected not in {None, given}:
            self._note(node, f"reçoit {given} valeur(s), « {name} » en attend {expected}")
        elif expected is None and function is not None and not _accepts(function, given):
            self._note(node, f"reçoit {given} valeur(s), ce que « {name} » n’admet pas")

    def _sort(self, node: ast.expr) -> str:
        """Renvoie la sorte d'un terme, si elle se lit dans l'expression."""
        if isinstance(node, ast.Constant):
            return "texte" if isinstance(node.value, str) else "nombre" if isinstance(node.value, (int, float)) else ""
        return "texte" if isinstance(node, ast.Name) and node.id in self._lexicon.fields else ""

    def _list_names(self) -> list[str]:
        """Renvoie les noms de valeurs, comme le modèle les écrit."""
        return [name.replace("_", ".", 1) for name in self._lexicon.names] + ["True", "False", "None"]

    @staticmethod
    def _nearest(word: str, known: Iterable[str]) -> str:
        """Propose le nom le plus proche, s'il y en a un."""
        names = list(known)
        by_end = {name.rpartition(".")[2]: name for name in names}
        near = difflib.get_close_matches(word, names, n=1) or [
            by_end[end] for end in difflib.get_close_matches(word.rpartition(".")[2], list(by_end), n=1)
        ]
        return f" : vouliez-vous « {near[0]} » ?" if near else ""

    def _note(self, node: ast.AST, reason: str) -> None:
        self.found.append(Fault(tell_term(node), reason))


def _never_boolean(node: ast.expr, fields: Iterable[str]) -> bool:
    """Dit si un terme ne peut valoir ni vrai ni faux : un texte, un nombre, une collection, un calcul."""
    if isinstance(node, ast.Name):
        return node.id in fields
    return isinstance(node, (ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.BinOp, ast.JoinedStr))


def _width(name: str, function: object) -> int | None:
    """Renvoie le nombre de valeurs d'une fonction fournie ; None d'une autre."""
    is_ours = name == "aclOwns" or is_textual(function)
    return WIDTHS.get(name, 2) if is_ours else None


def _accepts(function: Any, count: int) -> bool:  # noqa: ANN401 - fonction de l'application
    """Dit si une fonction s'appelle avec tant de valeurs ; dans le doute, oui."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return not callable(function)
    except ValueError:
        return True
    return True


def matcher_faults(definitions: ModelDefinitions) -> Iterator[tuple[str, Fault]]:
    """Essaie tous les matchers d'un modèle.

    Yields:
        Le nom du matcher, et ce qui ne va pas.
    """
    for name, assertion in definitions.model["m"].items():
        lexicon = Lexicon.of(definitions.model, definitions.functions, is_whole=name != "m")
        try:
            tree = parse(assertion.value)
        except UnreadableMatcherError as error:
            yield name, Fault("", f"le matcher ne se lit pas{_where(error)}")
        else:
            yield from ((name, fault) for fault in lexicon.faults(tree))


def _where(error: Exception) -> str:
    """Dit près de quoi la lecture s'est arrêtée."""
    cause = error.__cause__
    if not isinstance(cause, SyntaxError) or not cause.text or not cause.offset:
        return ""
    near = restore_dots(cause.text[max(cause.offset - 1, 0) :][:20].strip() or cause.text[-20:].strip())
    return f", près de « {near} »"


def check_matchers(definitions: ModelDefinitions) -> None:
    """Refuse de servir sous un matcher qui ne pourrait jamais s'évaluer.

    Raises:
        ConfigurationError: la phrase cite la ligne du modèle, le terme fautif, et le nom le plus proche.
    """
    faults = tell_faults(definitions)
    if faults:
        raise ConfigurationError("\n".join(faults))


def tell_faults(definitions: ModelDefinitions) -> list[str]:
    """Dit chaque défaut des matchers d'un modèle."""
    return [_tell(name, fault, definitions.source) for name, fault in matcher_faults(definitions)]


def _tell(name: str, fault: Fault, source: ModelSource | None) -> str:
    """Dit un défaut d'un matcher, et où il se trouve."""
    place = source.cite(name, fault.word) if source is not None else f"matcher « {name} »"
    return f"{place} : " + (f"« {fault.word} » {fault.reason}" if fault.word else fault.reason)
