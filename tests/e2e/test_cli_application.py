"""La ligne de commande et son application : elle la trouve, dit sur quoi elle travaille, demande avant de détruire."""

from __future__ import annotations

import asyncio
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from fastapi_acl import ACLManager
from fastapi_acl.auth.application.usecases.sessions import LoginUseCase
from fastapi_acl.auth.domain.dtos.auth_dtos import LoginDTO
from fastapi_acl.cli import app, losses
from fastapi_acl.cli.files import replace_file
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.shared.config import ACLConfig, unknown_variables
from fastapi_acl.shared.exceptions import AuthenticationError
from tests.support import byhand
from tests.support.app import SECRET, config, started

ROOT = Path(__file__).parents[2]
APPLICATION = """
from fastapi import APIRouter, Depends, FastAPI

from fastapi_acl import ACLConfig, ACLManager, require

app, bare = FastAPI(), FastAPI()
acl = ACLManager(ACLConfig(model="rbac_with_domains"), app=app)
invoices = APIRouter(dependencies=[Depends(require("invoice:read", domain="{tenant}"))])
mounted = FastAPI()


class holder:
    acl = acl


@invoices.get("/{tenant}")
async def list_invoices(tenant: str) -> None: ...


@app.get("/documents/{tenant}/{name}", dependencies=[Depends(require("document:{name}:read", domain="{tenant}"))])
async def read_document(tenant: str, name: str) -> None: ...


@mounted.get("/{tenant}", dependencies=[Depends(require("report:publish", domain="{tenant}"))])
async def publish(tenant: str) -> None: ...


app.include_router(invoices, prefix="/invoices")
app.mount("/reports", mounted)
"""
RULES = """p, role:reader, acme, document:*, read, allow
p, role:auditor, acme, report, publish, allow
g, role:chief, role:reader, acme
g, role:chief, role:auditor, acme
"""
PASSWORD = "un mot de passe planté"


@pytest.fixture
def name() -> Iterator[str]:
    """Un module que rien d'autre n'a importé."""
    module = f"application_{uuid4().hex}"
    yield module
    sys.modules.pop(module, None)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ACL_JWT_SECRET_KEY", SECRET)
    monkeypatch.setenv("ACL_BCRYPT_ROUNDS", "4")
    (tmp_path / f"{name}.py").write_text(APPLICATION, "utf-8")
    (tmp_path / "rules.csv").write_text(RULES, "utf-8")
    return tmp_path


def run(*arguments: str, typed: str = "") -> Result:
    """Exécute une commande, dont l'application s'importe à neuf comme dans un processus à elle."""
    for module in [module for module in sys.modules if module.startswith("application_")]:
        del sys.modules[module]
    return CliRunner().invoke(app, arguments, input=typed)


def start(name: str) -> str:
    """Crée l'administrateur de l'application et ses règles ; rend son sujet."""
    created = run("--app", f"{name}:acl", "create-admin", "--username", "ada", typed=f"{PASSWORD}\n")
    imported = run("policy", "import", "rules.csv", "--app", f"{name}:acl")
    assert (created.exit_code, imported.exit_code) == (0, 0), created.output + imported.output
    return "user:" + created.stdout.partition("identifiant ")[2].partition(")")[0]


def rules() -> set[str]:
    """Rend les règles de la base, telles qu'un export les écrit."""
    file = Path(f"{uuid4().hex}.csv")
    assert run("policy", "export", str(file)).exit_code == 0
    text = file.read_text("utf-8")
    file.unlink()
    return set(text.splitlines())


# --- l'application ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["acl", "app", "holder.acl"])
def test_the_application_is_a_manager_or_what_received_one(name: str, attribute: str) -> None:
    before = run("--app", f"{name}:{attribute}", "policy", "plan")
    after = run("policy", "plan", "--app", f"{name}:{attribute}")

    assert "g(r.sub, p.sub, r.dom)" in before.stdout
    assert before.stdout == after.stdout
    assert "modèle : rbac_with_domains (fourni)" in after.stderr


def test_the_application_is_named_by_the_option_then_the_environment_then_the_project(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pyproject.toml").write_text(f'[tool.fastapi-acl]\napp = "{name}:acl"\n', "utf-8")
    from_project = run("policy", "plan")
    (folder / ".env").write_text("ACL_APP=absent_du_fichier:acl\n", "utf-8")
    from_file = run("policy", "plan")
    monkeypatch.setenv("ACL_APP", "absent_du_milieu:acl")
    from_environment = run("policy", "plan")
    from_option = run("policy", "plan", "--app", f"{name}:acl")

    assert "rbac_with_domains" in from_project.stderr
    assert "absent_du_fichier" in from_file.stderr
    assert "absent_du_milieu" in from_environment.stderr
    assert from_option.exit_code == 0
    assert unknown_variables(["ACL_APP"]) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{name}", "module:attribut"),
        ("{name}:", "module:attribut"),
        (":acl", "module:attribut"),
        ("absent:acl", "« absent » est introuvable"),
        ("{name}.absent:acl", "est introuvable"),
        ("{name}:acll", "vouliez-vous « acl » ?"),
        ("{name}:holder.alc", "vouliez-vous « acl » ?"),
        ("{name}:bare", "n’a pas reçu d’ACLManager"),
        ("{name}:publish", "est de type function"),
        ("{name}:ACLManager", "est de type type"),
        ("divides:acl", "divides.py, ligne 3 : ZeroDivisionError"),
        ("unreadable:acl", "unreadable.py, ligne 1"),
        ("exits:acl", "exits.py, ligne 1 : SystemExit"),
        ("imports:acl", "imports.py, ligne 1 : ModuleNotFoundError"),
        ("settings:acl", "settings.py, ligne 2"),
    ],
)
def test_what_is_not_an_application_is_said_in_one_sentence(folder: Path, name: str, path: str, reason: str) -> None:
    (folder / "divides.py").write_text("import json\n\nx = 1 / 0\n", "utf-8")
    (folder / "unreadable.py").write_text("x = (\n", "utf-8")
    (folder / "exits.py").write_text("raise SystemExit(3)\n", "utf-8")
    (folder / "imports.py").write_text("import bibliotheque_absente\n", "utf-8")
    (folder / "settings.py").write_text(
        "from fastapi_acl import ACLConfig\nACLConfig(jwt_secret_key='trop court planté')\n", "utf-8"
    )

    refused = run("policy", "plan", "--app", path.format(name=name))

    assert refused.exit_code == 1
    assert reason in refused.stderr
    assert "Traceback" not in refused.output
    assert "planté" not in refused.output


@pytest.mark.parametrize(
    "text", ["[tool.fastapi-acl\n", "[tool.fastapi-acl]\napp = 3\n", '[tool.fastapi-acl]\napp = "x"\n']
)
def test_a_faulty_project_file_is_named(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text, "utf-8")

    refused = run("policy", "plan")

    assert refused.exit_code == 1
    assert "pyproject.toml" in refused.stderr or "module:attribut" in refused.stderr


def test_a_project_that_does_not_speak_of_us_changes_nothing(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["fastapi-acl"]\n', "utf-8")

    assert "modèle : rbac (fourni)" in run("policy", "plan").stderr


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://ada:planted@db.local:5432/acl?sslpassword=planted", "postgresql://ada@db.local:5432/acl"),
        ("postgresql://ada:plan/ted@db.local/acl", "postgresql://ada@db.local/acl"),
        ("postgresql://ada:plan@ted@db.local/acl", "postgresql://ada@db.local/acl"),
        ("postgresql://db.local/acl?password=planted", "postgresql://db.local/acl"),
    ],
)
def test_the_address_is_shown_without_what_opens_it(uri: str, shown: str) -> None:
    settings = ACLConfig(_env_file=None, database_type="postgresql", postgresql_uri=uri)

    assert settings.shown_database == shown


def test_a_relative_file_is_shown_where_it_is(folder: Path) -> None:
    assert ACLConfig(_env_file=None).shown_database == f"sqlite:///{folder.resolve() / 'fastapi_acl.db'}"
    assert ACLConfig(_env_file=None, sqlite_uri="sqlite://").shown_database == "sqlite://"


# --- lire ne crée rien ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("policy", "history"),
        ("policy", "export", "out.csv"),
        ("policy", "rollback", "1", "--yes"),
        ("policy", "compact", "--yes"),
        ("policy", "quarantine", "1", "--yes"),
        ("restored",),
    ],
)
def test_a_command_that_creates_nothing_refuses_an_absent_database(folder: Path, arguments: tuple[str, ...]) -> None:
    before = sorted(folder.iterdir())

    refused = run(*arguments)

    assert refused.exit_code == 1
    assert "fastapi_acl.db » n’existe pas" in refused.stderr
    assert "fastapi-acl migrate" in refused.stderr
    assert sorted(folder.iterdir()) == before


def test_the_model_is_read_again_without_a_database(folder: Path) -> None:
    before = sorted(folder.iterdir())

    read = run("policy", "lint")

    assert (read.exit_code, read.stdout) == (0, "Rien à signaler.\n")
    assert "n’existe pas" in read.stderr
    assert sorted(folder.iterdir()) == before


EVALUATED = "g(r.sub, p.sub) && aclMatch(r.path, p.path) && aclMatch(r.method, p.method) && r.sub != p.path"


@pytest.mark.parametrize("model", ["rbac", "rbac_with_domains", "abac", "acl", "rest", "mine.conf"])
def test_what_remains_to_evaluate_on_the_rules_found_is_told_by_plan_and_is_no_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    text = read_packaged_model("rest")
    matcher = text[text.index("m = ") :]
    (folder / "mine.conf").write_text(text.replace(matcher, f"m = {EVALUATED}\n"), "utf-8")
    monkeypatch.setenv("ACL_MODEL_PATH" if model.endswith(".conf") else "ACL_MODEL", model)

    read, planned = run("policy", "lint"), run("policy", "plan")

    assert (read.exit_code, read.stdout) == (0, "Rien à signaler.\n"), read.output
    assert planned.exit_code == 0
    assert ("évalué   : " in planned.stdout) is (model in {"abac", "mine.conf"}), planned.stdout


@pytest.mark.parametrize("arguments", [("policy", "history"), ("policy", "export", "out.csv"), ("restored",)])
async def test_reading_creates_no_table(
    empty_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    for key, value in empty_settings.items():
        monkeypatch.setenv(f"ACL_{key.upper()}", value)
    if empty_settings["database_type"] == "sqlite":
        Path(empty_settings["sqlite_uri"].removeprefix("sqlite:///")).touch()

    refused = await asyncio.to_thread(run, *arguments)
    again = await asyncio.to_thread(run, *arguments)

    assert refused.exit_code == 1
    assert "fastapi-acl migrate" in refused.stderr
    assert "fastapi-acl migrate" in again.stderr
    assert not Path("out.csv").exists()


# --- sous un autre modèle ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("policy", "import", "rules.csv"),
        ("policy", "import", "--replace", "rules.csv", "--yes"),
        ("policy", "rollback", "1", "--yes"),
        ("policy", "compact", "--days", "0", "--yes"),
        ("policy", "quarantine", "1", "--yes"),
        ("policy", "quarantine", "3", "--yes"),
    ],
)
def test_writing_under_another_model_is_refused_and_changes_nothing(name: str, arguments: tuple[str, ...]) -> None:
    start(name)
    before = rules()

    refused = run(*arguments)

    assert refused.exit_code == 1
    assert "rbac_with_domains (fourni)" in refused.stderr
    assert "« rbac (fourni) »" in refused.stderr
    assert "--app" in refused.stderr
    assert rules() == before


def test_reading_under_another_model_only_warns(name: str) -> None:
    start(name)

    shown = run("policy", "history")

    assert shown.exit_code == 0
    assert "Attention" in shown.stderr
    assert "rbac_with_domains" in shown.stderr
    assert "policy_imported" in shown.stdout


@pytest.mark.parametrize("arguments", [("migrate",), ("restored",)])
def test_what_reads_no_rule_does_not_compare_models(name: str, arguments: tuple[str, ...]) -> None:
    start(name)

    done = run(*arguments)

    assert done.exit_code == 0
    assert "rbac_with_domains" not in done.stderr


def test_a_changed_model_is_adopted_by_apply_and_only_by_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start(name)
    monkeypatch.setenv("ACL_MODEL_PATH", "model.conf")
    monkeypatch.setenv("ACL_SHARED_DOMAIN", "*")
    text = (ROOT / "fastapi_acl/engine/casbin/models/rbac_with_domains.conf").read_text("utf-8")
    Path("model.conf").write_text(text.replace("p.act)", 'p.act) && r.sub != "user:x"'), "utf-8")

    before = run("policy", "import", "rules.csv")
    applied = run("policy", "apply")
    after = run("policy", "import", "rules.csv")
    again = run("policy", "apply")

    assert before.exit_code == 1
    assert applied.exit_code == 0
    assert "Modèle adopté : model.conf" in applied.stdout
    assert after.exit_code == 0
    assert again.exit_code == 1
    assert "ACL_POLICY_PATH" in again.stderr


def test_a_model_that_cannot_read_the_rules_is_adopted_and_they_leave_one_by_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(name)
    monkeypatch.setenv("ACL_MODEL", "rbac")

    applied = run("policy", "apply")
    listed = run("policy", "lint")
    left = [run("policy", "quarantine", str(number), "--yes").exit_code for number in range(1, 7)]

    assert (applied.exit_code, "Modèle adopté : rbac" in applied.stdout) == (1, True), applied.output
    assert "quarantine" in applied.output
    assert listed.exit_code != 0
    assert set(left) == {0}
    assert run("policy", "lint").exit_code == 0


def test_create_admin_refuses_a_model_that_the_rules_in_place_do_not_share(name: str) -> None:
    start(name)
    before = rules()

    refused = run("create-admin", "--username", "bob", typed=f"{PASSWORD}\n")

    assert refused.exit_code == 1
    assert "--app" in refused.stderr
    assert rules() == before


# --- ce qui détruit ---------------------------------------------------------------------------------------------------


def test_a_replacement_shows_who_loses_what_and_needs_yes(name: str) -> None:
    admin = start(name)
    before = rules()
    Path("fewer.csv").write_text("".join(RULES.splitlines(keepends=True)[1:]), "utf-8")

    refused = run("policy", "import", "--replace", "fewer.csv", "--app", f"{name}:acl")

    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert "p, role:reader, acme, document:*, read, allow   [role:reader, donné 1 fois]" in refused.stderr
    assert f"g, {admin}, role:admin, *   [compte « ada »]" in refused.stderr
    assert rules() == before


def test_what_takes_nothing_away_does_not_ask(name: str) -> None:
    start(name)
    whole = Path("whole.csv")
    run("policy", "export", str(whole))
    whole.write_text(whole.read_text("utf-8") + "p,role:reader,acme,document:*,write,allow\n", "utf-8")

    done = run("policy", "import", "--replace", str(whole), "--app", f"{name}:acl")

    assert done.exit_code == 0, done.output
    assert "p,role:reader,acme,document:*,write,allow" in rules()


def test_rules_that_only_change_places_ask_nothing_of_who_goes_back(name: str) -> None:
    start(name)
    whole = Path("whole.csv")
    run("policy", "export", str(whole))
    whole.write_text("\n".join(sorted(rules(), reverse=True)), "utf-8")
    imported = run("policy", "import", "--replace", str(whole), "--app", f"{name}:acl")
    revision = int(imported.stdout.rpartition("révision ")[2].strip(" .\n"))
    before = rules()

    back = run("policy", "rollback", str(revision - 1), "--app", f"{name}:acl")

    assert (imported.exit_code, back.exit_code) == (0, 0), imported.output + back.output
    assert rules() == before


def test_a_denial_that_arrives_is_shown(name: str) -> None:
    start(name)
    whole = Path("whole.csv")
    run("policy", "export", str(whole))
    whole.write_text(whole.read_text("utf-8") + "p,role:reader,acme,document:*,read,deny\n", "utf-8")

    refused = run("policy", "import", "--replace", str(whole), "--app", f"{name}:acl")

    assert refused.exit_code == 2
    assert "p, role:reader, acme, document:*, read, deny" in refused.stderr


def test_many_losses_are_counted(name: str) -> None:
    start(name)
    Path("many.csv").write_text("".join(f"p, role:r{i}, acme, x, read, allow\n" for i in range(50)), "utf-8")
    run("policy", "import", "many.csv", "--app", f"{name}:acl")

    refused = run("policy", "rollback", "4", "--app", f"{name}:acl")

    assert refused.exit_code == 2
    assert refused.stderr.count("  - p, role:r") == 20
    assert "… et 30 autre(s)." in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("import", "--replace", "rules.csv"),
        ("rollback", "1"),
        ("quarantine", "1"),
        ("quarantine", "2"),
        ("import", "deny.csv"),
    ],
)
def test_the_last_administrator_holds_against_the_command_line(name: str, arguments: tuple[str, ...]) -> None:
    start(name)
    before = rules()
    Path("deny.csv").write_text("p, role:admin, *, *, *, deny\n", "utf-8")
    yes = () if "deny.csv" in arguments else ("--yes",)

    refused = run("policy", *arguments, *yes, "--app", f"{name}:acl")

    assert refused.exit_code == 1
    assert "dernier administrateur" in refused.stderr
    assert rules() == before


def test_a_policy_file_does_not_take_the_last_administrator_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start(name)
    before = rules()
    Path("deny.csv").write_text("p, role:admin, *, *, *, deny\n", "utf-8")
    monkeypatch.setenv("ACL_POLICY_PATH", "deny.csv")
    monkeypatch.setenv("ACL_MODEL", "rbac_with_domains")

    refused = run("policy", "apply")

    assert refused.exit_code == 1
    assert "dernier administrateur" in refused.stderr
    assert rules() == before


def test_a_compaction_says_what_will_not_be_found_again(name: str) -> None:
    start(name)

    refused = run("policy", "compact", "--days", "0", "--app", f"{name}:acl")
    done = run("policy", "compact", "--days", "0", "--app", f"{name}:acl", "--yes")

    assert refused.exit_code == 2
    assert "4 entrée(s) au plus partent" in refused.stderr
    assert (done.exit_code, "2 entrée(s) retirée(s)" in done.stdout) == (0, True)


async def write_by_hand(*effects: str, subject: str = "role:reader") -> None:
    """Écrit des règles qu'aucune vérification n'a vues."""
    manager = ACLManager(config(sqlite_uri="sqlite:///fastapi_acl.db", model="rbac_with_domains"))
    for effect in effects:
        row = [subject, "acme", "report", "publish", effect]
        await byhand.write_row(manager._parts.storage, "p", row, digest=effect.ljust(64))
    await manager.close()


def test_an_unreadable_row_is_shown_put_aside_and_the_command_succeeds(name: str) -> None:
    start(name)
    asyncio.run(write_by_hand("DENY", "Deny"))
    option = ("--app", f"{name}:acl")

    asked = run("policy", "quarantine", "7", *option)
    first = run("policy", "quarantine", "7", *option, "--yes")
    second = run("policy", "quarantine", "8", *option, "--yes")
    third = run("policy", "quarantine", "8", *option, "--yes")

    assert asked.exit_code == 2
    assert "ne se lit pas" in asked.stderr
    assert first.exit_code == 0, "elle est écartée, même si une autre empêche encore de charger"
    assert "une autre ligne empêche encore" in first.stderr
    assert (second.exit_code, "empêche" in second.stderr) == (0, False)
    assert third.exit_code == 1
    assert not any("eny" in rule for rule in rules())


def test_a_readable_row_is_said_to_be_a_rule_before_it_goes(name: str) -> None:
    start(name)

    asked = run("policy", "quarantine", "3", "--app", f"{name}:acl")
    done = run("policy", "quarantine", "3", "--app", f"{name}:acl", "--yes")

    assert asked.exit_code == 2
    assert "p, role:reader, acme, document:*, read, allow   [role:reader, donné 1 fois]" in asked.stderr
    assert done.exit_code == 0


def terminal(*arguments: str, answer: str) -> tuple[int, str]:
    """Exécute une commande dans un terminal où quelqu'un répond."""
    master, slave = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "fastapi_acl", *arguments],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.write(master, answer.encode())
    said = done.communicate()[0].decode()
    os.close(master)
    os.close(slave)
    return done.returncode, said


def test_who_is_at_a_terminal_is_asked_and_obeyed(name: str) -> None:
    start(name)
    before = rules()
    arguments = ("policy", "quarantine", "3", "--app", f"{name}:acl")

    no = [terminal(*arguments, answer=answer) for answer in ("n\n", "\n", "peut-être\n", "\x04")]
    kept = rules()
    yes = terminal(*arguments, answer="oui\n")

    assert [code for code, _ in no] == [1, 1, 1, 1]
    assert all("Rien n’a été changé" in said and "Abort" not in said for _, said in no)
    assert kept == before
    assert yes[0] == 0, yes[1]
    assert before - rules() == {"p,role:reader,acme,document:*,read,allow"}


def test_a_policy_that_changes_while_one_is_asked_is_left_as_it_is(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(name)
    (folder / "other.csv").write_text("p, role:late, acme, report, publish, allow\n", "utf-8")

    def meanwhile(**_: bool) -> None:
        command = [sys.executable, "-m", "fastapi_acl", "policy", "import", "other.csv", "--app", f"{name}:acl"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join([".", str(ROOT)])})

    before = rules()
    monkeypatch.setattr(losses, "confirm", meanwhile)
    done = run("policy", "import", "rules.csv", "--replace", "--yes", "--app", f"{name}:acl")

    assert done.exit_code == 1
    assert "a changé entre-temps" in done.stderr
    assert rules() - before == {"p,role:late,acme,report,publish,allow"}


# --- exporter ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planted", ["out.csv.partiel", "out.csv"])
def test_an_export_follows_no_planted_link(folder: Path, name: str, planted: str) -> None:
    start(name)
    victim = folder / "victime"
    victim.write_text("intacte", "utf-8")
    (folder / planted).symlink_to(victim)

    done = run("policy", "export", "out.csv", "--app", f"{name}:acl")

    assert done.exit_code == 0
    assert victim.read_text("utf-8") == "intacte"
    assert not (folder / "out.csv").is_symlink()
    assert "role:reader" in (folder / "out.csv").read_text("utf-8")
    assert stat.S_IMODE((folder / "out.csv").stat().st_mode) == 0o600
    assert ("est un lien" in done.stderr) == (planted == "out.csv")


def test_an_export_that_fails_leaves_nothing_and_the_old_file_as_it_was(folder: Path, name: str) -> None:
    start(name)
    (folder / "out.csv").write_text("ancien", "utf-8")
    (folder / "fastapi_acl.db").rename(folder / "ailleurs.db")
    before = sorted(path.name for path in folder.iterdir())

    refused = run("policy", "export", "out.csv", "--app", f"{name}:acl")
    nowhere = run("policy", "export", "absent/out.csv")

    assert (refused.exit_code, nowhere.exit_code) == (1, 1)
    assert (folder / "out.csv").read_text("utf-8") == "ancien"
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_file_half_written_takes_no_place(folder: Path) -> None:
    file = folder / "out.csv"
    file.write_text("ancien", "utf-8")
    before = sorted(path.name for path in folder.iterdir())

    with pytest.raises(ZeroDivisionError), replace_file(file) as text:
        text.write("à moitié")
        _ = 1 / 0

    assert file.read_text("utf-8") == "ancien"
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_password_read_from_a_pipe_is_the_line_without_its_end(folder: Path, name: str) -> None:
    start(name)

    async def entered(password: str) -> bool:
        async with started(sqlite_uri=f"sqlite:///{folder / 'fastapi_acl.db'}", model="rbac_with_domains") as manager:
            with suppress(AuthenticationError):
                await manager.provide(LoginUseCase).execute(LoginDTO(username="ada", password=password))
                return True
            return False

    assert [asyncio.run(entered(password)) for password in (PASSWORD, f"{PASSWORD}\n")] == [True, False]


def test_what_looks_like_markup_is_written_as_it_is(name: str) -> None:
    start(name)
    Path("marked.csv").write_text("p, role:reader, acme, [red]invoic[/red], raed, allow\n", "utf-8")
    assert run("policy", "import", "marked.csv", "--app", f"{name}:acl").exit_code == 0

    found = run("policy", "lint", "--app", f"{name}:acl")

    assert "p, role:reader, acme, [red]invoic[/red], raed, allow" in found.stdout, found.output


# --- relire -----------------------------------------------------------------------------------------------------------


def test_names_that_nothing_knows_are_cited_with_the_nearest(name: str) -> None:
    admin = start(name)
    Path("wrong.csv").write_text(
        "g, user:ada, role:manger, acme\n"
        "g, user:00000000-0000-0000-0000-000000000000, role:chief, acme\n"
        "p, role:manager, acme, invoic, raed, allow\n"
        "p, role:manager, acme, report, publish, allow\n"
        "g, user:adda, role:manager, acme\n",
        "utf-8",
    )
    clean = run("policy", "lint", "--app", f"{name}:acl")
    assert run("policy", "import", "wrong.csv", "--app", f"{name}:acl").exit_code == 0

    found = run("policy", "lint", "--app", f"{name}:acl")
    blind = run("policy", "lint")

    assert (clean.exit_code, clean.stdout) == (0, "Rien à signaler.\n"), clean.output
    assert found.exit_code == 1
    lines = found.stdout.splitlines()
    assert len(lines) == 6, found.stdout
    assert (
        f"g, user:ada, role:manger, acme : aucun compte n’a l’identifiant « ada » ; le compte « ada » est {admin}."
        in lines[0]
    )
    assert "« 00000000-0000-0000-0000-000000000000 »" in lines[1]
    assert f"« adda » ; le compte « ada » est {admin}." in lines[2]
    assert "« role:manger » n’a aucune règle ; vouliez-vous « role:manager » ?" in lines[3]
    assert "« obj » vaut « invoic », aucune route ne le demande ; vouliez-vous « invoice » ?" in lines[4]
    assert "« act » vaut « raed », aucune route ne le demande ; vouliez-vous « read » ?" in lines[5]
    assert blind.exit_code == 1, "sous un autre modèle, les règles ne se lisent pas"


def test_rows_that_cannot_be_read_are_counted(name: str) -> None:
    start(name)
    asyncio.run(write_by_hand("allow", subject="sans préfixe"))

    found = run("policy", "lint", "--app", f"{name}:acl")

    assert found.exit_code == 1
    assert "1 ligne(s) ne se lisent pas" in found.stdout
