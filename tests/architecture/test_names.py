"""Une fonction porte un verbe : un participe passé ne dit pas si elle demande ou si elle fait."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {path.relative_to(ROOT).as_posix(): path for path in ROOT.glob("fastapi_acl/**/*.py")}
FILES |= {path.relative_to(ROOT).as_posix(): path for path in ROOT.glob("examples/*.py")}

IRREGULAR = {
    *("begun", "born", "bound", "broken", "brought", "built", "caught", "chosen", "done", "drawn", "driven", "fallen"),
    *("forgotten", "found", "frozen", "given", "gone", "grown", "heard", "held", "hidden", "kept", "known", "laid"),
    *("led", "left", "lost", "made", "met", "paid", "said", "seen", "sent", "shown", "sold", "spent", "spoilt"),
    *("stood", "stuck", "swept", "taken", "taught", "thought", "thrown", "told", "torn", "understood", "worn"),
    *("overridden", "rewritten", "unwound", "won", "written"),
}
VERBS_IN_ED = {"bleed", "embed", "exceed", "feed", "need", "proceed", "seed", "shed", "succeed"}

IMPOSED = {"fastapi_acl/shared/database/mongodb_pulse.py": {"started", "succeeded", "failed"}}
"""Noms que le pilote impose à qui l'écoute."""


@pytest.mark.parametrize("path", sorted(FILES))
def test_no_participle_names_a_function(path: str) -> None:
    found = set(_participles(ast.parse(FILES[path].read_text("utf-8"))))

    assert found - IMPOSED.get(path, set()) == set()


def test_what_names_a_value_is_no_function() -> None:
    tree = ast.parse(
        "class A:\n @property\n def sealed(self): ...\n @sealed.setter\n def sealed(self, value): ...\n"
        " def _sealed(self): ...\n def needs(self): ..."
    )

    assert list(_participles(tree)) == ["_sealed"]


def _participles(tree: ast.Module) -> Iterator[str]:
    """Énumère les fonctions qu'un participe nomme ; une propriété est une valeur."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not _is_value(node) and _is_past(node.name):
            yield node.name


def _is_value(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    decorators = map(ast.unparse, function.decorator_list)
    return any("property" in decorator or decorator.endswith(".setter") for decorator in decorators)


def _is_past(name: str) -> bool:
    first = name.strip("_").partition("_")[0]
    return first not in VERBS_IN_ED and (first.endswith("ed") or first in IRREGULAR)
