"""Une faute d'une ligne, et la façon de la semer sans dépendre de la mise en forme du fichier."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = "fastapi_acl"

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class AnchorError(Exception):
    """L'ancre d'une faute n'est pas, une fois exactement, dans le fichier."""


class Fault(NamedTuple):
    """Une faute : ce qu'elle casse, où, le fragment d'origine, le fragment fautif, et qui doit la voir.

    Les fragments sont une expression ou des instructions, comparées sur l'arbre syntaxique : espaces, guillemets,
    parenthèses et commentaires n'y comptent pas. Un fragment fautif vide retire l'instruction.
    """

    name: str
    path: str
    """Fichier, depuis le paquet."""
    place: str
    """Classe, fonction ou « Classe.méthode » ; vide, tout le fichier."""
    old: str
    new: str
    tests: str = "tests/engine"
    """Dossiers, fichiers ou essais, séparés par des espaces."""
    on: str = "sqlite"
    """Bases sur lesquelles passent ces essais."""
    equivalent: str = ""
    """Pourquoi rien ne peut la voir ; elle n'est alors pas semée."""

    @property
    def source(self) -> Path:
        """Rend le fichier où elle se sème."""
        return ROOT / PACKAGE / self.path


def planted(fault: Fault) -> ast.Module:
    """Rend l'arbre du fichier, la faute semée.

    Raises:
        AnchorError: le fragment d'origine n'y paraît pas une fois exactement.
    """
    tree = ast.parse(fault.source.read_text("utf-8"))
    old, new = _statements(fault.old), _statements(fault.new)
    whole, by = _expression(old), _expression(new)
    scopes = list(_scopes(tree, fault.place.split(".") if fault.place else []))
    if whole is not None and by is not None:
        spots = [spot for scope in scopes for spot in _expressions(scope, whole)]
        wanted: list[ast.AST] = [by]
    else:
        spots = [spot for scope in scopes for spot in _runs(scope, old)]
        wanted = list(new)
    if len(spots) != 1:
        message = f"« {fault.name} » : l'ancre paraît {len(spots)} fois dans {fault.path}, {fault.place or 'module'}"
        raise AnchorError(message)
    spots[0].put(wanted)
    return ast.fix_missing_locations(tree)


class _Spot(NamedTuple):
    """Où, dans l'arbre, se trouve le fragment."""

    node: ast.AST
    field: str
    start: int | None
    size: int = 1

    def put(self, wanted: list[ast.AST]) -> None:
        """Met un autre fragment à sa place."""
        if self.start is None:
            setattr(self.node, self.field, wanted[0])
            return
        held = getattr(self.node, self.field)
        held[self.start : self.start + self.size] = wanted
        if not held:
            held.append(ast.Pass())


def _statements(fragment: str) -> list[ast.stmt]:
    return ast.parse(dedent(fragment)).body


def _expression(fragment: list[ast.stmt]) -> ast.expr | None:
    only = fragment[0] if len(fragment) == 1 else None
    return only.value if isinstance(only, ast.Expr) else None


def _scopes(node: ast.AST, names: list[str]) -> Iterator[ast.AST]:
    if not names:
        yield node
        return
    for child in ast.walk(node):
        if child is not node and isinstance(child, _Definition) and child.name == names[0]:
            yield from _scopes(child, names[1:])


def _expressions(scope: ast.AST, wanted: ast.expr) -> Iterator[_Spot]:
    for node in ast.walk(scope):
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                yield from (_Spot(node, name, index) for index, one in enumerate(value) if _is_alike(one, wanted))
            elif _is_alike(value, wanted):
                yield _Spot(node, name, None)


def _runs(scope: ast.AST, wanted: list[ast.stmt]) -> Iterator[_Spot]:
    for node in ast.walk(scope):
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                for start in range(len(value) - len(wanted) + 1):
                    if all(map(_is_alike, value[start : start + len(wanted)], wanted)):
                        yield _Spot(node, name, start, len(wanted))


def _is_alike(one: object, wanted: object) -> bool:
    """Compare deux arbres, sans leurs places dans le texte ; la première différence suffit."""
    if isinstance(wanted, ast.AST):
        return type(one) is type(wanted) and all(
            _is_alike(getattr(one, name, None), getattr(wanted, name, None)) for name in wanted._fields
        )
    if isinstance(wanted, list):
        return isinstance(one, list) and len(one) == len(wanted) and all(map(_is_alike, one, wanted))
    return type(one) is type(wanted) and one == wanted
