"""Les questions qu'un matcher pose sur la requête seule, et ce qu'il reste de lui une fois qu'on y a répondu.

`g(r.sub, "admin") || g(r.sub, p.sub) && r.obj == p.obj` demande, pour chaque règle, si le sujet est administrateur : la
réponse est la même pour toutes. Posée une fois, elle laisse « toute règle » ou des termes que l'index sait chercher.

Casbin évalue les termes de gauche à droite et s'arrête dès qu'il sait. Une question n'est donc posée d'avance que s'il
la poserait d'abord, à la première règle ; ou si, sans effet ni échec possible, la poser plus tôt ne se voit pas. Une
autre ne l'est qu'une fois vérifié que la première règle y mène (voir `forks`).
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Test = Callable[[ast.expr], bool]


def find(tree: ast.expr, is_free: Test, is_sure: Test) -> tuple[ast.expr | None, bool]:
    """Renvoie la première question à poser d'avance, et s'il suffit pour cela qu'il y ait une règle.

    Args:
        tree: matcher, ou ce qu'il en reste.
        is_free: dit si un terme ne lit rien de la règle.
        is_sure: dit si un terme vaut toujours vrai ou faux, sans échec ni effet.

    Returns:
        Un nœud de l'arbre ; None s'il n'y en a pas sous une disjonction. Ailleurs, il ne fait qu'écarter des règles, et
        l'index s'en passe.
    """
    asked = list(_questions(tree, is_free, under_or=False, is_first=True))
    found = next((term for term, is_first in asked if is_first or is_sure(term)), None)
    return (found, True) if found is not None or not asked else (asked[0][0], False)


def _questions(tree: ast.expr, is_free: Test, *, under_or: bool, is_first: bool) -> Iterator[tuple[ast.expr, bool]]:
    """Énumère les plus grands termes sur la requête seule sous une disjonction, et si Casbin les évalue d'abord."""
    if is_free(tree):
        if under_or and not isinstance(tree, ast.Constant):
            yield tree, is_first
    elif isinstance(tree, ast.BoolOp):
        under_or = under_or or isinstance(tree.op, ast.Or)
        for place, value in enumerate(tree.values):
            yield from _questions(value, is_free, under_or=under_or, is_first=is_first and not place)
    elif isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        yield from _questions(tree.operand, is_free, under_or=under_or, is_first=is_first)


def settle(tree: ast.expr, gate: ast.expr, told: bool, is_sure: Test) -> ast.expr:  # noqa: FBT001 - la réponse même
    """Renvoie ce qu'il reste d'un matcher quand une question est répondue.

    Args:
        tree: le matcher.
        gate: la question, un nœud de cet arbre.
        told: la réponse.
        is_sure: dit si un terme vaut toujours vrai ou faux : les autres, qui peuvent échouer, restent évalués.
    """
    if tree is gate:
        return ast.Constant(value=told)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        operand = settle(tree.operand, gate, told, is_sure)
        is_known = isinstance(operand, ast.Constant) and isinstance(operand.value, bool)
        return ast.Constant(value=not operand.value) if is_known else ast.UnaryOp(tree.op, operand)  # type: ignore[attr-defined]
    if not isinstance(tree, ast.BoolOp):
        return tree
    return _join(tree.op, [settle(value, gate, told, is_sure) for value in tree.values], is_sure)


def _join(operator: ast.boolop, terms: list[ast.expr], is_sure: Test) -> ast.expr:
    """Joint des termes, sans ceux qui n'y changent plus rien ; ce que Casbin évaluerait et qui peut échouer y reste."""
    ends = isinstance(operator, ast.Or)
    kept: list[ast.expr] = []
    for place, term in enumerate(terms):
        if not isinstance(term, ast.Constant) or not isinstance(term.value, bool):
            kept.append(term)
        elif term.value is ends:
            if all(map(is_sure, kept)):
                return ast.Constant(value=ends)
            kept.append(term)
            break
        elif place == len(terms) - 1 and kept and not is_sure(kept[-1]):
            kept.append(term)  # « f(…) || faux » vaut faux là où f(…) ne vaut rien, et qui n'est pas une réponse
    if not kept:
        return ast.Constant(value=not ends)
    return kept[0] if len(kept) == 1 else ast.BoolOp(operator, kept)
