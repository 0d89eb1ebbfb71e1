"""Les événements que la bibliothèque écrit au journal, lus dans son code."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PACKAGE: Final = Path(__file__).parents[2] / "fastapi_acl"
LEVELS: Final = {
    **{level: level.upper() for level in ("debug", "info", "warning", "error", "critical")},
    "exception": "ERROR",
}
NAME: Final = re.compile(r"[a-z]+(?:_[a-z]+)*(?=:| |$)")


class Event(NamedTuple):
    """Un événement : son logger, son nom et son niveau."""

    logger: str
    name: str
    level: str


def events() -> dict[str, set[Event]]:
    """Rend les événements, par nom."""
    found: dict[str, set[Event]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        texts, loggers = _constants(tree), _loggers(tree)
        for event in _written(tree, texts, loggers):
            found[event.name].add(event)
    return found


def _constants(tree: ast.Module) -> dict[str, str]:
    """Rend les textes nommés d'un module."""
    assigned = [(one.target, one.value) for one in tree.body if isinstance(one, ast.AnnAssign)]
    assigned += [(one.targets[0], one.value) for one in tree.body if isinstance(one, ast.Assign)]
    return {
        target.id: value.value
        for target, value in assigned
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str)
    }


def _loggers(tree: ast.Module) -> str:
    """Rend le nom du logger d'un module ; vide s'il n'en a pas."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "get_logger":
            [name] = call.args
            return f"fastapi_acl.{name.value}" if isinstance(name, ast.Constant) else ""
    return ""


def _written(tree: ast.Module, texts: dict[str, str], logger: str) -> Iterator[Event]:
    """Rend ce qu'un module écrit, par son logger ou par un ennui qui dure."""
    for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call) and one.args):
        if isinstance(call.func, ast.Name) and call.func.id == "Trouble":
            _, event, over = (_text(one, texts) for one in call.args)
            yield from (Event(logger, event, "WARNING"), Event(logger, over, "INFO"))
        elif isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "logger":
            told = NAME.match(_text(call.args[0], texts)) if call.func.attr in LEVELS else None
            if told is not None:
                yield Event(logger, told[0], LEVELS[call.func.attr])


def _text(node: ast.expr, texts: dict[str, str]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return texts.get(node.id, "") if isinstance(node, ast.Name) else ""
