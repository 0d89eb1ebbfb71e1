"""Ce qu'un matcher lit de l'objet chargé : seuls ces attributs-là en sont lus, car une propriété est du code."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from casbin.model import FunctionMap

from fastapi_acl.engine.kernel.acl_match import OWNER
from fastapi_acl.engine.kernel.plan import UnreadableMatcherError, parse
from fastapi_acl.engine.kernel.reads import OWNERSHIP
from fastapi_acl.engine.kernel.schema import RESOURCE_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastapi_acl.engine.kernel.schema import PolicySchema

_RESOURCE: Final = re.compile(rf"r\d*_(?:{'|'.join(sorted(RESOURCE_NAMES))})")

TEXT_FUNCTIONS: Final[Mapping[str, Any]] = FunctionMap.load_function_map().get_functions()
"""Fonctions de Casbin, qui ne comparent que le texte d'une valeur ; une application peut en remplacer une."""


@dataclass(frozen=True, slots=True)
class ResourceReads:
    """Ce qu'un matcher lit de la ressource.

    Attributes:
        attributes: noms des attributs que le matcher écrit ; None s'il peut les lire tous.
        functions: fonctions de Casbin à qui la ressource est donnée, et qui n'en lisent aucun tant qu'on ne les a pas
            remplacées.
    """

    attributes: frozenset[str] | None
    functions: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: PolicySchema, owner: str = OWNER) -> ResourceReads:
        """Lit les matchers d'un modèle.

        Args:
            schema: forme du modèle.
            owner: attribut que lit `aclOwns`.
        """
        try:
            nodes = [node for matcher in schema.matchers for node in ast.walk(parse(matcher))]
        except UnreadableMatcherError:
            return cls(None)
        called = set(_list_called(nodes))
        read = [node for node in nodes if isinstance(node, ast.Attribute)]
        if any(not isinstance(node.value, ast.Name) for node in read):
            return cls(None)
        if schema.uses_eval or called - TEXT_FUNCTIONS.keys() - schema.links.keys() - {"aclMatch", OWNERSHIP}:
            return cls(None)
        named = {node.attr for node in read if _is_resource(node.value)}
        owned = {owner} if OWNERSHIP in called else set()
        return cls(frozenset(named | owned), tuple(called & TEXT_FUNCTIONS.keys()))

    def among(self, functions: Mapping[str, Any]) -> frozenset[str] | None:
        """Renvoie les attributs lus, sous ces fonctions ; None s'ils peuvent l'être tous."""
        replaced = any(functions.get(name) is not TEXT_FUNCTIONS[name] for name in self.functions)
        return None if replaced else self.attributes


def _list_called(nodes: list[ast.AST]) -> Iterator[str]:
    """Énumère les fonctions à qui la ressource elle-même est donnée."""
    for node in nodes:
        if isinstance(node, ast.Call) and any(map(_is_resource, _parts(node))):
            yield node.func.id if isinstance(node.func, ast.Name) else ""


def _parts(call: ast.Call) -> Iterator[ast.AST]:
    """Énumère ce qu'un appel reçoit, attributs mis à part : `f(r.obj.owner)` ne donne pas l'objet."""
    waiting: list[ast.AST] = [*call.args, *(keyword.value for keyword in call.keywords)]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.Attribute, ast.Call)):
            waiting.extend(ast.iter_child_nodes(node))


def _is_resource(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and _RESOURCE.fullmatch(node.id) is not None
