"""Un mot du métier a une seule forme, celle que fixe `docs/lexique.md`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/lexique.md"

FORBIDDEN = {
    "grappe": "cluster",
    "curseur": "cursor",
    "exécuteur": "enforcer",
    "intergiciel": "middleware",
    "réserve de connexions": "pool",
    "mandataire": "proxy",
    "jetons? de renouvellement": "refresh token",
    "guetteur": "watcher",
}
"""Ce qui ne s'écrit pas, et ce qui s'écrit à la place."""

KEPT_ALIVE = r"survi(t|vent|vre)\b|vieilli|dit adieu"

FILES = [
    *ROOT.glob("docs/**/*.md"),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "mkdocs.yml", ".env.example")),
    *ROOT.glob("fastapi_acl/**/*.py"),
    *ROOT.glob("examples/*.py"),
]
READ = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in FILES if path != PAGE}


def test_the_page_tells_each_forbidden_word() -> None:
    told = PAGE.read_text("utf-8")

    rows = [rf"^\| {right} \|.*\| {wrong.replace('s?', '')} \|$" for wrong, right in FORBIDDEN.items()]
    assert [row for row in rows if re.search(row, told, re.MULTILINE) is None] == []


@pytest.mark.parametrize("wrong", [*FORBIDDEN, KEPT_ALIVE])
def test_a_forbidden_word_is_written_nowhere(wrong: str) -> None:
    pattern = re.compile(rf"\b({wrong})", re.IGNORECASE)

    assert [name for name, text in READ.items() if pattern.search(text)] == []


def test_a_docstring_says_what_a_function_renvoie() -> None:
    assert [name for name, text in READ.items() if name.endswith(".py") and re.search(r'"""Rend\b', text)] == []
