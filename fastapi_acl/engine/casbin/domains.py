"""Ce que vaut le domaine `*` : tous les domaines, ou un domaine comme un autre.

Rien n'y dépend de l'endroit d'où vient le modèle : un modèle fourni se reconnaît à ce qu'il dit, et sa copie décide
comme lui. « Une règle dans `*` vaut dans tous les domaines » veut dire qu'elle compte, dans chacun, comme si elle le
nommait ; le matcher est récrit, dans son arbre, pour qu'il en soit ainsi.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, get_args

from fastapi_acl.engine.casbin.model_file import ROLE_FUNCTION
from fastapi_acl.engine.casbin.models import model_digest, read_model, read_packaged_model
from fastapi_acl.engine.kernel.checked import restore_dots
from fastapi_acl.engine.kernel.plan import UnreadableMatcherError, calls, parse
from fastapi_acl.engine.kernel.schema import DOMAIN_NAMES
from fastapi_acl.shared.config import PackagedModel
from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.identity import EVERY_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from casbin.model import Model

    from fastapi_acl.engine.kernel.schema import PolicySchema

COMPARISONS: Final = frozenset(
    {"aclMatch", "keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch", "regexMatch"}
)
"""Fonctions qui comparent une valeur de la requête à un motif d'une règle."""

KNOWN: Final = {(ast.Eq, False): True, (ast.NotEq, False): False, (ast.In, True): True, (ast.NotIn, True): False}
"""Ce que vaut la comparaison d'une chose à elle-même, ou à une liste qui la contient (vrai en second)."""


TRUE: Final = ast.dump(ast.Constant(value=True))
FALSE: Final = ast.dump(ast.Constant(value=False))


class _UnsharableError(Exception):
    """Le matcher lit le domaine d'une règle d'une façon où `*` ne peut pas valoir partout."""


def shares_domains(given: str | None, model: Model) -> bool | None:
    """Dit si `*` vaut dans tous les domaines.

    Args:
        given: le réglage `shared_domain`.
        model: le modèle.

    Returns:
        None si rien ne le dit : une règle dans `*` est alors refusée.
    """
    if given is not None:
        return given == EVERY_DOMAIN
    return True if is_packaged(model) else None


def is_packaged(model: Model) -> bool:
    """Dit si un modèle dit la même chose qu'un de ceux qui sont fournis, mise en page à part."""
    return model_digest(model) in _digest_packaged_models()


@lru_cache(maxsize=1)
def _digest_packaged_models() -> frozenset[str]:
    """Renvoie l'empreinte de chaque modèle fourni."""
    return frozenset(model_digest(read_model(read_packaged_model(name), name)) for name in get_args(PackagedModel))


def describe(schema: PolicySchema, given: str | None) -> str:
    """Dit, pour une personne, ce que vaut `*` et pourquoi ; rien si le modèle n'a pas de domaines.

    Args:
        schema: forme du modèle, et ce qui est en vigueur.
        given: le réglage `shared_domain`.
    """
    if not schema.keeps_domains:
        return ""
    if schema.shares_domains is None:
        return "domaine  : une règle ou un lien dans « * » est refusé, tant que ACL_SHARED_DOMAIN n’est pas donné"
    reason = "modèle fourni" if given is None else f"ACL_SHARED_DOMAIN={given}"
    if schema.shares_domains:
        return f"domaine  : une règle ou un lien dans « * » vaut dans tous ({reason})"
    return f"domaine  : « * » est un domaine comme un autre ({reason})"


# --- le matcher --------------------------------------------------------------------------------------------------


def spread(model: Model, change: Callable[[str, str], None]) -> None:
    """Fait valoir dans tous les domaines, sous chaque matcher d'un modèle, les règles écrites dans `*`.

    Args:
        model: le modèle.
        change: reçoit le nom d'un matcher à remplacer, et ce qui le remplace.

    Raises:
        ConfigurationError: un matcher lit le domaine d'une règle d'une façon où `*` ne peut pas valoir partout.
    """
    rules, requests = _domain_tokens(model["p"]), _domain_tokens(model["r"])
    for name, matcher in list(model["m"].items()):
        try:
            written = _everywhere(matcher.value, rules, requests)
        except _UnsharableError as error:
            message = (
                f"« * » ne peut pas valoir dans tous les domaines sous le matcher « {name} » : {error}. Écrivez-y "
                "« r.dom == p.dom » ou « aclMatch(r.dom, p.dom) », ou réglez ACL_SHARED_DOMAIN sur le vide "
                "(« * » est alors un domaine comme un autre)."
            )
            raise ConfigurationError(message) from error
        if written != matcher.value:
            change(name, written)


def _domain_tokens(definitions: dict[str, Any]) -> list[str]:
    """Renvoie les jetons de domaine de requêtes ou de règles (`r_dom`, `p2_tenant`…)."""
    tokens = (token for definition in definitions.values() for token in definition.tokens)
    return [token for token in tokens if token.partition("_")[2] in DOMAIN_NAMES]


def _everywhere(matcher: str, rules: list[str], requests: list[str]) -> str:
    """Renvoie un matcher sous lequel une règle dans `*` compte, dans chaque domaine, comme si elle le nommait."""
    if not rules:
        return matcher
    try:
        tree = parse(matcher)
    except UnreadableMatcherError as error:
        message = "il ne se lit pas"
        raise _UnsharableError(message) from error
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    read = sorted(named.intersection(rules))
    if not read:
        _refuse_eval(tree)
        return matcher
    field, asked = _only(read, "de règle"), _only(_list_asked(named, requests), "de requête")
    _refuse_odd_uses(tree, field, asked)
    tree = _Literal(field, asked).visit(tree)
    literal, anywhere = _with(tree, field, ast.Constant(value=EVERY_DOMAIN)), _with(tree, field, ast.Name(id=asked))
    if ast.dump(literal) == ast.dump(anywhere):
        return _rewrite(tree, matcher)
    return ast.unparse(ast.BoolOp(ast.Or(), [tree, _in_every_domain(field, anywhere)]))


def _rewrite(tree: ast.expr, matcher: str) -> str:
    """Écrit le matcher de cet arbre, ou le laisse tel qu'il est écrit si rien n'y a changé."""
    return matcher if ast.dump(tree) == ast.dump(parse(matcher)) else ast.unparse(tree)


def _list_asked(named: set[str], requests: list[str]) -> list[str]:
    """Renvoie les domaines de requête qu'un matcher lit, ou sinon ceux du type de requête (`r`, `r2`…) qu'il nomme."""
    read = sorted(named.intersection(requests))
    kinds = {name.partition("_")[0] for name in named}
    return read or [token for token in requests if token.partition("_")[0] in kinds] or requests[:1]


def _in_every_domain(field: str, anywhere: ast.expr) -> ast.expr:
    """Renvoie la branche des règles écrites dans `*`."""
    if ast.dump(anywhere) == FALSE:
        message = "il n’accepte jamais une règle du domaine demandé"
        raise _UnsharableError(message)
    shared = _is_shared(field)
    return shared if ast.dump(anywhere) == TRUE else ast.BoolOp(ast.And(), [shared, anywhere])


def _only(names: list[str], kind: str) -> str:
    """Renvoie le seul domaine que le matcher lit."""
    if len(names) != 1:
        message = f"il lit {len(names)} domaines {kind}, et il en faut un"
        raise _UnsharableError(message)
    return names[0]


def _refuse_eval(tree: ast.expr) -> None:
    """Refuse un matcher dont seules les expressions des règles pourraient lire le domaine."""
    if "eval" in calls(tree):
        message = "il ne lit le domaine d’une règle, s’il le lit, que par eval()"
        raise _UnsharableError(message)


def _refuse_odd_uses(tree: ast.expr, field: str, asked: str) -> None:
    """Refuse un matcher qui fait du domaine d'une règle autre chose que le comparer à celui de la requête."""
    for node in ast.walk(tree):
        operands = _operands(node)
        if not any(isinstance(one, ast.Name) and one.id == field for one in operands):
            continue
        is_role = isinstance(node, ast.Call) and ROLE_FUNCTION.fullmatch(ast.unparse(node.func)) is not None
        is_compared = isinstance(node, ast.Compare) or (
            isinstance(node, ast.Call) and ast.unparse(node.func) in COMPARISONS
        )
        known = all(isinstance(one, ast.Constant) or ast.unparse(one) in {field, asked} for one in operands)
        if not is_role and not (is_compared and known):
            term = restore_dots(ast.unparse(node))
            message = f"« {term} » fait du domaine d’une règle autre chose que le comparer à celui de la requête"
            raise _UnsharableError(message)


def _operands(node: ast.AST) -> list[ast.AST]:
    """Renvoie ce qu'un nœud lit directement ; une liste de valeurs compte pour celles-ci."""
    if isinstance(node, (ast.Tuple, ast.List)):
        return []
    children = list(ast.iter_child_nodes(node))
    values = [
        one for child in children for one in (child.elts if isinstance(child, (ast.Tuple, ast.List)) else [child])
    ]
    function = node.func if isinstance(node, ast.Call) else None
    return [one for one in values if one is not function and not isinstance(one, (ast.cmpop, ast.expr_context))]


def _with(tree: ast.expr, field: str, value: ast.expr) -> ast.expr:
    """Met une valeur à la place d'un champ, et réduit ce qui est alors certain."""
    found: ast.expr = _Reduced(field, value).visit(ast.parse(ast.unparse(tree), mode="eval").body)
    return found


class _Literal(ast.NodeTransformer):
    """Ne fait pas de `*` une expression rationnelle : ce n'en est pas une, et la lire ferait échouer la décision.

    Là où une règle écrite dans le domaine demandé serait acceptée, celle de `*` l'est, avant toute lecture.
    """

    def __init__(self, field: str, asked: str) -> None:
        self._field = field
        self._asked = asked

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Met devant `regexMatch(r.dom, p.dom)` ce qu'il en est de `*`.

        Raises:
            _UnsharableError: ce n'est pas au domaine de la requête que celui de la règle est comparé.
        """
        if ast.unparse(node.func) != "regexMatch" or [ast.unparse(one) for one in node.args[1:]] != [self._field]:
            self.generic_visit(node)
            return node
        if ast.unparse(node.args[0]) != self._asked:
            message = f"« {restore_dots(ast.unparse(node))} » lirait « * » comme une expression rationnelle"
            raise _UnsharableError(message)
        return ast.BoolOp(ast.Or(), [_is_shared(self._field), node])


def _is_shared(field: str) -> ast.expr:
    """Renvoie le terme que seules les règles de `*` vérifient."""
    return ast.Compare(ast.Name(id=field), [ast.Eq()], [ast.Constant(value=EVERY_DOMAIN)])


class _Reduced(ast.NodeTransformer):
    """Remplace un champ par une valeur, et réduit les termes dont la valeur est alors certaine."""

    def __init__(self, field: str, value: ast.expr) -> None:
        self._field = field
        self._value = value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Remplace le champ."""
        return self._value if node.id == self._field else ast.Name(id=node.id)

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """Réduit la comparaison d'une chose à elle-même, ou à une liste qui la contient."""
        self.generic_visit(node)
        if len(node.ops) != 1:
            return node
        right = node.comparators[0]
        others = right.elts if isinstance(right, (ast.Tuple, ast.List)) else [right]
        known = KNOWN.get((type(node.ops[0]), others[:1] != [right]))
        is_same = ast.dump(node.left) in map(ast.dump, others)
        return ast.Constant(value=known) if is_same and known is not None else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Réduit la comparaison d'une chose à elle-même, et `aclMatch(x, "*")`, toujours vraies."""
        node.args = [self.visit(argument) for argument in node.args]
        name = ast.unparse(node.func)
        if name not in COMPARISONS or len(node.args) != 2:  # noqa: PLR2004 - valeur et motif
            return node
        value, pattern = map(ast.dump, node.args)
        known = value == pattern or (name == "aclMatch" and pattern == ast.dump(ast.Constant(value=EVERY_DOMAIN)))
        return ast.Constant(value=True) if known else node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        """Réduit la négation d'un terme certain."""
        self.generic_visit(node)
        known = {TRUE: False, FALSE: True}.get(ast.dump(node.operand))
        return node if known is None or not isinstance(node.op, ast.Not) else ast.Constant(value=known)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        """Réduit « et » et « ou » : un terme absorbant les décide, un terme neutre en sort."""
        self.generic_visit(node)
        absorbing, neutral = (TRUE, FALSE) if isinstance(node.op, ast.Or) else (FALSE, TRUE)
        if absorbing in map(ast.dump, node.values):
            return ast.Constant(value=isinstance(node.op, ast.Or))
        kept = [value for value in node.values if ast.dump(value) != neutral]
        if not kept:
            return ast.Constant(value=isinstance(node.op, ast.And))
        return kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept)
