from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fastapi_acl import ACLManager, PolicyChange, PolicyRule
from fastapi_acl.cli import app
from tests.conftest import DATABASES
from tests.support.app import SECRET, config
from tests.support.connections import connections
from tests.support.observers import hear
from tests.support.waits import until_outside

RULE = PolicyRule("p", ("role:reader", "document", "read", "allow"))
RULES = """p, role:reader, document, read, allow
# liens
g, role:writer, role:reader
p, role:writer, "a, b", write, allow
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_settings: dict[str, Any]) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in {**database_settings, "jwt_secret_key": SECRET}.items():
        monkeypatch.setenv(f"ACL_{name.upper()}", value)
    (tmp_path / "rules.csv").write_text(RULES, "utf-8")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_rules_go_in_and_out_by_files(folder: Path) -> None:
    imported = run("policy", "import", "rules.csv")
    exported = run("policy", "export", "out.json")
    again = run("policy", "import", "out.json")

    assert "3 règle(s) ajoutée(s), 0 déjà là" in imported.output
    assert exported.exit_code == 0
    assert len(json.loads((folder / "out.json").read_text("utf-8"))) == 3
    assert "0 règle(s) ajoutée(s), 3 déjà là" in again.output
    assert sorted(path.name for path in folder.glob("out*")) == ["out.json"]


@pytest.mark.parametrize(
    "database_settings", [kind for kind in DATABASES if kind in {"postgresql", "mysql"}], indirect=True
)
def test_a_command_leaves_no_connection_behind(
    folder: Path, database_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "kept_manager.py").write_text(
        "from fastapi_acl import ACLConfig, ACLManager\nacl = ACLManager(ACLConfig())\n", "utf-8"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "kept_manager", raising=False)
    others = asyncio.run(connections(database_settings))

    done = run("policy", "import", "rules.csv", "--app", "kept_manager:acl")

    assert done.exit_code == 0, done.output
    until_outside(lambda: asyncio.run(connections(database_settings)) <= others)  # le serveur en prend note après


def test_a_bad_line_is_named_and_the_command_fails(folder: Path) -> None:
    (folder / "bad.csv").write_text(f"{RULES}p, mallory\n", "utf-8")

    refused = run("policy", "import", "bad.csv")

    assert refused.exit_code == 1
    assert "Ligne 5" in refused.output
    assert "0 règle(s) ajoutée(s)" not in refused.output
    assert "vide" in run("policy", "history").output, "le modèle non plus n’est pas noté"


@pytest.mark.parametrize("arguments", [("import", "rules.txt"), ("export", "rules.txt"), ("import", "absent.csv")])
def test_a_file_that_is_neither_csv_nor_json_is_refused(folder: Path, arguments: tuple[str, ...]) -> None:
    (folder / "rules.txt").write_text(RULES, "utf-8")

    refused = run("policy", *arguments)

    assert refused.exit_code != 0
    assert "Traceback" not in refused.output


def test_the_log_is_shown_returned_to_and_compacted(folder: Path) -> None:
    run("policy", "import", "rules.csv")
    (folder / "rules.csv").write_text("p, role:x, document, read, allow\n", "utf-8")
    run("policy", "import", "--replace", "rules.csv", "--yes")

    back = run("policy", "rollback", "1", "--yes")
    shown = run("policy", "history")
    compacted = run("policy", "compact", "--days", "0", "--yes")
    gone = run("policy", "rollback", "1", "--yes")

    assert "révision 4" in back.output
    assert [line.split()[0] for line in shown.output.splitlines() if line[:1].isdigit()] == ["1", "2", "3", "4"]
    assert "3 entrée(s) retirée(s)" in compacted.output, "la note du modèle reste"
    assert gone.exit_code == 1
    assert "compacté" in gone.output


def test_a_row_is_put_aside_by_its_number() -> None:
    run("policy", "import", "rules.csv")

    aside = run("policy", "quarantine", "1", "--yes")
    missing = run("policy", "quarantine", "1", "--yes")

    assert aside.exit_code == 0
    assert "role:reader" in aside.output
    assert missing.exit_code == 1
    assert "row_quarantined" in run("policy", "history").output


async def test_a_restored_log_is_read_again_and_its_old_announcements_are_not_believed(
    database_settings: dict[str, Any],
) -> None:
    manager, other = ACLManager(config(**database_settings)), ACLManager(config(**database_settings))
    await manager.load()
    await other.load()
    said = hear(other._parts.replica)

    done = await asyncio.to_thread(run, "restored")
    await manager._parts.replica.refresh()
    await other.get_policy_store().change(PolicyChange(added=(RULE,)))

    replica = manager._parts.replica
    assert "autre identité" in done.output
    assert replica.reloads == 2
    assert not replica.offer(said[0][0]._replace(log_id="ancien"), said[0][1])
    await manager.close()
    await other.close()
