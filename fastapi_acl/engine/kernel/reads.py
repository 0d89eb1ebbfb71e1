"""Ce qu'un matcher lit d'une requête : ce qu'une route n'a donc ni à donner pour rien, ni à oublier."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.kernel.plan import UnreadableMatcherError, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

EVAL: Final = "eval"
OWNERSHIP: Final = "aclOwns"

TEXT_FUNCTIONS: Final = frozenset(
    {"aclMatch", "regexMatch", "globMatch", "ipMatch"}
    | {f"keyMatch{number}" for number in ("", *"2345")}
    | {f"keyGet{number}" for number in ("", *"23")}
)
"""Fonctions qui ne voient d'un objet que son nom : un objet chargé ne leur apprend rien."""


@dataclass(frozen=True, slots=True)
class MatcherReads:
    """Ce qu'un matcher lit de certains jetons de la requête.

    Attributes:
        names: vrai s'il lit l'un d'eux, de quelque façon que ce soit.
        attributes: vrai s'il en lit un attribut nommé, ou le propriétaire.
        objects: vrai s'il pourrait lire un attribut : il en nomme un, ou confie le jeton à une fonction, ou à `eval`.
    """

    names: bool
    attributes: bool
    objects: bool

    @classmethod
    def of(cls, matcher: str, tokens: AbstractSet[str], links: AbstractSet[str]) -> MatcherReads:
        """Lit un matcher ; celui qui ne se lit pas est supposé tout lire.

        Args:
            matcher: expression, telle que Casbin l'a préparée (`r_sub`, `p_obj`…).
            tokens: jetons de la requête dont il s'agit (`r_obj`…).
            links: fonctions de rôles du modèle, qui ne comparent que des noms.
        """
        try:
            nodes = list(ast.walk(parse(matcher)))
        except UnreadableMatcherError:
            return cls(names=True, attributes=False, objects=True)
        attributes = any(_is_attribute(node, tokens) for node in nodes)
        given = set(_functions_given(nodes, tokens))
        evaluates = any(_function(node) == EVAL for node in nodes)
        return cls(
            names=evaluates or any(_is_token(node, tokens) for node in nodes),
            attributes=attributes or OWNERSHIP in given,
            objects=attributes or evaluates or bool(given - TEXT_FUNCTIONS - links),
        )


def _is_token(node: ast.AST, tokens: AbstractSet[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in tokens


def _is_attribute(node: ast.AST, tokens: AbstractSet[str]) -> bool:
    return isinstance(node, ast.Attribute) and _is_token(node.value, tokens)


def _function(node: ast.AST) -> str:
    """Renvoie le nom de la fonction appelée ; vide si ce n'est pas un appel, ou pas à un nom."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _functions_given(nodes: Iterable[ast.AST], tokens: AbstractSet[str]) -> Iterator[str]:
    """Énumère les fonctions qui reçoivent l'un de ces jetons."""
    for node in nodes:
        given = [part for value in getattr(node, "args", ()) for part in ast.walk(value)]
        if any(_is_token(part, tokens) for part in given):
            yield _function(node)
