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
    *("won", "written"),
}
VERBS_IN_ED = {"bleed", "embed", "exceed", "feed", "need", "proceed", "seed", "shed", "succeed"}

REMAINING: dict[str, set[str]] = {
    "fastapi_acl/engine/adapters/base.py": {"abandoned", "shown", "shown_rule", "spoilt_batch"},
    "fastapi_acl/engine/adapters/mongodb.py": {"_inserted", "_known", "_left", "_removed", "abandoned"},
    "fastapi_acl/engine/adapters/sql.py": {"_left", "_removed", "abandoned"},
    "fastapi_acl/engine/casbin/compiler.py": {"_bound_functions", "_bounded", "_indexed_managers"},
    "fastapi_acl/engine/casbin/domains.py": {"_asked", "_packaged", "_shown"},
    "fastapi_acl/engine/casbin/enforcer.py": {"_explained", "_remembered", "_walked", "enabled"},
    "fastapi_acl/engine/casbin/language.py": {"interpreted"},
    "fastapi_acl/engine/casbin/model.py": {"_changed", "emptied"},
    "fastapi_acl/engine/casbin/model_file.py": {"_refused"},
    "fastapi_acl/engine/casbin/models.py": {"packaged_model_text"},
    "fastapi_acl/engine/casbin/role_manager.py": {"_known", "_made_by_casbin"},
    "fastapi_acl/engine/casbin/rule_lint.py": {"_cited"},
    "fastapi_acl/engine/casbin/strict.py": {"_bound", "_finished", "_walked", "_wired"},
    "fastapi_acl/engine/casbin/trial.py": {"_shown", "_told", "told_faults"},
    "fastapi_acl/engine/casbin/wildcards.py": {"_evaluated", "_listed"},
    "fastapi_acl/engine/grants.py": {"_taken"},
    "fastapi_acl/engine/kernel/acl_match.py": {"_held"},
    "fastapi_acl/engine/kernel/answers.py": {"_held", "compared", "described"},
    "fastapi_acl/engine/kernel/checked.py": {"dotted", "written"},
    "fastapi_acl/engine/kernel/decider.py": {"_accepted", "_chosen", "_reached", "_said", "reached"},
    "fastapi_acl/engine/kernel/evaluation.py": {
        "_checked",
        "_divided",
        "_evaluated",
        "_finished",
        "_joined",
        "_spliced",
        "accepted",
        "assigned",
    },
    "fastapi_acl/engine/kernel/forks.py": {"_chosen", "_searched", "reached"},
    "fastapi_acl/engine/kernel/gates.py": {"_joined", "settled"},
    "fastapi_acl/engine/kernel/index.py": {"_named"},
    "fastapi_acl/engine/kernel/inspector.py": {"_concerned", "_linked", "_named", "_reached", "_written", "concerned"},
    "fastapi_acl/engine/kernel/key_match.py": {
        "_globbed",
        "_keyed",
        "_merged",
        "_prefixed",
        "_repeated",
        "_segmented",
        "_skipped",
        "trimmed",
    },
    "fastapi_acl/engine/kernel/loading.py": {"_undecided"},
    "fastapi_acl/engine/kernel/pacing.py": {"paced"},
    "fastapi_acl/engine/kernel/plan.py": {"_bound"},
    "fastapi_acl/engine/kernel/role_graph.py": {"chained", "nested_members"},
    "fastapi_acl/engine/kernel/rows.py": {"known", "ordered", "ranked"},
    "fastapi_acl/engine/kernel/schema.py": {"_refused"},
    "fastapi_acl/engine/kernel/strict_evaluation.py": {
        "_checked",
        "_finished",
        "_named",
        "_ordered",
        "called",
        "guarded",
    },
    "fastapi_acl/engine/writing/administrators.py": {"_asked", "_found", "_kept", "_named"},
    "fastapi_acl/engine/writing/comparison.py": {"reached"},
    "fastapi_acl/engine/writing/guards.py": {"_given", "_reached", "_refused"},
    "fastapi_acl/engine/writing/history.py": {"restored"},
    "fastapi_acl/engine/writing/losses.py": {"_touched", "_touched_by", "sorted_losses", "touched_by"},
    "fastapi_acl/engine/writing/rank_guard.py": {"_kept"},
    "fastapi_acl/engine/writing/store.py": {"known"},
    "fastapi_acl/engine/writing/transfer.py": {
        "_checked",
        "_counted",
        "_named",
        "_prepared",
        "_shifted",
        "admitted",
        "opened",
    },
    "fastapi_acl/runtime/environment.py": {"installed"},
    "fastapi_acl/runtime/first_start.py": {"_identified", "_prepared", "_resolved"},
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
    "fastapi_acl/shared/http/scope.py": {"decided"},
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
    "fastapi_acl/tracing.py": {"_attempted", "_opened", "changed", "decided", "learned"},
}
"""Ceux qui restent, par fichier, dans le moteur et dans ce qui est partagé ; la liste ne fait que raccourcir."""


@pytest.mark.parametrize("path", sorted(FILES))
def test_no_participle_names_a_function(path: str) -> None:
    found = set(_participles(ast.parse(FILES[path].read_text("utf-8"))))

    assert found - REMAINING.get(path, set()) == set()


def test_what_names_a_value_is_no_function() -> None:
    tree = ast.parse("class A:\n @property\n def sealed(self): ...\n def _sealed(self): ...\n def needs(self): ...")

    assert list(_participles(tree)) == ["_sealed"]


def _participles(tree: ast.Module) -> Iterator[str]:
    """Énumère les fonctions qu'un participe nomme ; une propriété est une valeur."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not _is_value(node) and _is_past(node.name):
            yield node.name


def _is_value(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


def _is_past(name: str) -> bool:
    first = name.strip("_").partition("_")[0]
    return first not in VERBS_IN_ED and (first.endswith("ed") or first in IRREGULAR)
