"""On demande à son voisin, jamais au voisin de son voisin."""

from __future__ import annotations

import ast

import pytest

from tests.planted_bugs.fault import PACKAGE, ROOT

COLLABORATORS = {
    "accounts",
    "actors",
    "adapter",
    "administrators",
    "authorizer",
    "database",
    "enforcer",
    "guards",
    "history",
    "log",
    "policy",
    "ranks",
    "replica",
    "sessions",
    "store",
    "tokens",
    "transfer",
    "users",
}
"""Ce qu'un objet reçoit pour travailler ; ce que l'un d'eux a reçu n'est qu'à lui."""


@pytest.mark.parametrize("folder", ["engine", "auth", "permissions", "shared", "runtime/first_start.py"])
def test_nobody_reaches_through_a_neighbour(folder: str) -> None:
    place = ROOT / PACKAGE / folder
    files = [place] if place.suffix else sorted(place.rglob("*.py"))

    found = [f"{file.relative_to(ROOT)}:{line}" for file in files for line in _reaches(file.read_text("utf-8"))]

    assert found == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("self.store.replica.reload()", [1]),
        ("x = 1\nself._store._replica.revision", [2]),
        ("self.store.reload()", []),
        ("self.policy.schema.check(rule)", []),
    ],
)
def test_a_reach_is_seen(text: str, lines: list[int]) -> None:
    assert _reaches(text) == lines


def _reaches(text: str) -> list[int]:
    """Rend les lignes où l'on passe par un voisin pour en atteindre un autre."""
    return [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute) and _is_reach(node)]


def _is_reach(node: ast.Attribute) -> bool:
    """Dit si un accès a la forme « self.voisin.voisin.chose »."""
    inner = node.value
    outer = inner.value if isinstance(inner, ast.Attribute) else None
    if not isinstance(inner, ast.Attribute) or not isinstance(outer, ast.Attribute):
        return False
    is_own = isinstance(outer.value, ast.Name) and outer.value.id == "self"
    return is_own and {outer.attr.lstrip("_"), inner.attr.lstrip("_")} <= COLLABORATORS
