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

REMAINING: dict[str, set[str]] = {
    "fastapi_acl/runtime/environment.py": {"installed"},
    "fastapi_acl/runtime/lifecycle.py": {"_told"},
    "fastapi_acl/shared/cache/base.py": {"_parsed", "_sealed", "encoded"},
    "fastapi_acl/shared/cache/redis_cache.py": {"_incremented", "_tried"},
    "fastapi_acl/shared/database/base.py": {"_joined_or", "_proved", "joined", "refused", "retried", "unfinished"},
    "fastapi_acl/shared/database/faults.py": {"_named"},
    "fastapi_acl/shared/database/mongodb.py": {"_installed_client", "_translated", "settled"},
    "fastapi_acl/shared/database/postgresql.py": {"_compiled"},
    "fastapi_acl/shared/database/postgresql_link.py": {"_looked", "_quoted", "_refused"},
    "fastapi_acl/shared/database/refusals.py": {"explained", "refused_start"},
    "fastapi_acl/shared/database/sql.py": {"_forgotten", "_made", "_served", "_translated"},
    "fastapi_acl/shared/database/sqlite_files.py": {"named_file"},
    "fastapi_acl/shared/database/vigil.py": {"_heard", "answered"},
    "fastapi_acl/shared/development_key.py": {"_created"},
    "fastapi_acl/shared/http/guarded_routes.py": {"_found", "_told", "described"},
    "fastapi_acl/shared/http/json_body.py": {"_refused"},
    "fastapi_acl/shared/http/overrides.py": {"solved"},
    "fastapi_acl/shared/http/places.py": {"_flattened"},
    "fastapi_acl/shared/http/problems.py": {"_dated"},
    "fastapi_acl/shared/http/resources.py": {"_encoded", "expanded"},
    "fastapi_acl/shared/http/security.py": {"_authenticated", "_decided", "provided"},
    "fastapi_acl/shared/policy.py": {"_listed"},
    "fastapi_acl/shared/redis.py": {"_made", "_verified", "_written"},
    "fastapi_acl/shared/sync/announcements.py": {"_emptied", "_sealed"},
    "fastapi_acl/shared/sync/changes.py": {"unexpected_entry"},
    "fastapi_acl/shared/sync/postgresql_watcher.py": {"subscribed"},
    "fastapi_acl/shared/sync/redis_watcher.py": {"subscribed"},
    "fastapi_acl/shared/sync/replica.py": {"_committed", "moved", "moved_from"},
    "fastapi_acl/shared/sync/watcher.py": {"subscribed"},
    "fastapi_acl/shared/tasks.py": {"ended"},
}
"""Ceux qui restent, par fichier, dans ce qui est partagé ; la liste ne fait que raccourcir."""


@pytest.mark.parametrize("path", sorted(FILES))
def test_no_participle_names_a_function(path: str) -> None:
    found = set(_participles(ast.parse(FILES[path].read_text("utf-8"))))

    assert found - REMAINING.get(path, set()) == set()


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
