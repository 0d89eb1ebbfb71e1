"""Premier démarrage et ligne de commande : le premier administrateur, le fichier de règles, le schéma."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fastapi_acl import ACLManager, ConfigurationError, Principal
from fastapi_acl.auth.application.usecases.register import RegisterUseCase
from fastapi_acl.auth.domain.dtos.auth_dtos import RegisterDTO
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.cli import app
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.shared.exceptions import DecisionFailedError, UserNotFoundError
from fastapi_acl.shared.sync.changes import ADMIN_CREATED
from tests.support.app import ADMIN, config, protected, started

POLICY = """\
# commentaire
p, role:reader, "document, secret", read, allow

p, role:reader, document, read, allow
g, user:@admin, role:reader
"""


async def admin_of(manager: ACLManager) -> str:
    account = await manager.get_auth_repository().get_by_username(ADMIN)
    return f"user:{account.id}"


async def test_a_fresh_application_has_no_account_and_no_rule(sqlite_uri: str) -> None:
    async with started(sqlite_uri=sqlite_uri, create_default_admin=False) as manager:
        assert (await manager.get_auth_repository().list_users(limit=10)).items == []
        assert manager.get_policy().rules == ()


async def test_the_first_administrator_is_created_once_even_if_removed_since(empty_settings: dict[str, Any]) -> None:
    async with started(**empty_settings) as manager:
        account = await manager.get_auth_repository().get_by_username(ADMIN)
        await manager.get_auth_repository().delete_user(account.id)
    async with started(**empty_settings) as manager:
        with pytest.raises(UserNotFoundError):
            await manager.get_auth_repository().get_by_username(ADMIN)


async def test_two_replicas_that_start_at_once_make_one_first_administrator(
    database_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, both = RegisterUseCase.prepare, asyncio.Event()
    arrived: list[object] = []

    async def together(self: RegisterUseCase, request: RegisterDTO) -> AuthUser:
        arrived.append(request)
        if len(arrived) == 2:
            both.set()
        await both.wait()
        return await prepare(self, request)

    managers = [ACLManager(config(**database_settings)) for _ in range(2)]
    await managers[0].migrate()
    monkeypatch.setattr(RegisterUseCase, "prepare", together)
    await asyncio.gather(*(manager.initialize() for manager in managers))

    entries = await managers[0].get_policy_history().changes()
    subjects = {await admin_of(manager) for manager in managers}
    assert [manager.is_ready for manager in managers] == [True, True]
    assert [entry.kind for entry in entries].count(ADMIN_CREATED) == 1
    assert {rule.values[0] for rule in managers[0].get_policy().rules if rule.ptype == "g"} == subjects
    for manager in managers:
        await manager.close()


async def test_an_existing_account_is_never_promoted(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, create_default_admin=False) as visitor:
        squatter = await visitor.newcomer(ADMIN)

    with pytest.raises(ConfigurationError, match="jamais promu"):
        async with started(sqlite_uri=sqlite_uri):
            pass
    async with started(sqlite_uri=sqlite_uri, create_default_admin=False) as manager:
        assert not manager.authorizer.decide(Principal(id=squatter.id), "acl.rules", "write")


async def test_an_administrator_who_could_not_log_in_is_not_created(sqlite_uri: str) -> None:
    by_email = {"sqlite_uri": sqlite_uri, "login_by": "email"}

    with pytest.raises(ConfigurationError, match="ACL_DEFAULT_ADMIN_EMAIL"):
        async with started(**by_email):
            pass
    async with started(**by_email, create_default_admin=False) as manager:
        with pytest.raises(ConfigurationError, match="--email"):
            await manager.create_administrator("ada", "un mot de passe assez long")
        assert (await manager.get_auth_repository().list_users(limit=10)).items == []

        account = await manager.create_administrator("ada", "un mot de passe assez long", email="ada@example.org")
        assert manager.authorizer.decide(Principal(id=str(account.id)), "acl.rules", "write")


def model_under(tmp_path: Path, matcher: str, links: str = "_, _") -> Path:
    """Écrit le modèle rbac fourni sous un autre matcher."""
    text = read_packaged_model("rbac").replace("g = _, _", f"g = {links}")
    path = tmp_path / "model.conf"
    path.write_text(text[: text.index("m = ")] + f"m = {matcher}\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("matcher", "reason"),
    [
        ("keyMatch2(r.obj, p.obj) && regexMatch(r.act, p.act)", "« regexMatch » a levé .*regexMatch"),
        ("regexMatch(r.obj, p.obj) && aclMatch(r.act, p.act)", "« regexMatch » a levé "),
        ("keyMatch(r.obj, p.obj) && r.obj.owner == r.sub", "« r.obj.owner » n’existe pas.*sans attribut"),
        ("aclMatch(r.obj, p.obj) && r.sub.team == p.obj", "r.sub.team"),
    ],
)
async def test_a_matcher_that_fails_on_the_rule_of_the_administrator_stops_the_start_with_cause_and_mend(
    sqlite_uri: str, tmp_path: Path, matcher: str, reason: str
) -> None:
    path = model_under(tmp_path, f"g(r.sub, p.sub) && {matcher}")

    with pytest.raises(ConfigurationError, match=rf"« p, role:admin, \*, \*, allow ».*{reason}.*ACL_POLICY_PATH"):
        async with started(sqlite_uri=sqlite_uri, model_path=path):
            pass
    async with started(sqlite_uri=sqlite_uri, model_path=path, create_default_admin=False) as manager:
        assert manager.is_ready


async def test_the_matcher_the_message_proposes_lets_the_administrator_in(sqlite_uri: str, tmp_path: Path) -> None:
    matcher = 'g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && (p.act == "*" || regexMatch(r.act, p.act))'
    async with started(sqlite_uri=sqlite_uri, model_path=model_under(tmp_path, matcher)) as manager:
        assert manager.get_enforcer().enforce(await admin_of(manager), "document", "read")


@pytest.mark.parametrize(
    ("matcher", "excluded", "mend"),
    [
        ("g(r.sub, p.sub) && aclMatch(r.obj, p.obj) && r.act == p.act", "« r.act == p.act »", "aclMatch(r.act, p.act)"),
        (
            "g(r.sub, p.sub) && r.obj == p.obj && p.act == r.act",
            "« r.obj == p.obj », « r.act == p.act »",
            "aclMatch(r.obj, p.obj) et aclMatch(r.act, p.act)",
        ),
        (
            'g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && (r.act == p.act || p.act == "all")',
            "« r.act == p.act || 'all' == p.act »",
            "aclMatch(r.act, p.act)",
        ),
        (
            'g(r.sub, p.sub) && (p.obj == "*" || r.obj == p.obj) && r.act == p.act',
            "« r.act == p.act »",
            "aclMatch(r.act, p.act)",
        ),
        ("r.sub == p.sub && aclMatch(r.obj, p.obj)", "« r.sub == p.sub »", "g(r.sub, p.sub)"),
        ('g(r.sub, p.sub) && r.obj == "document"', "« r.obj == 'document' »", "Corrigez le matcher"),
        ('g(r.sub, p.sub) && r.act in ("read", p.act)', "r.act in ('read', p.act)", "Corrigez le matcher"),
    ],
)
async def test_a_model_under_which_the_administrator_can_do_nothing_names_the_comparison_that_excludes_it(
    sqlite_uri: str, tmp_path: Path, matcher: str, excluded: str, mend: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"une règle « \* » ne permet rien") as caught:
        async with started(sqlite_uri=sqlite_uri, model_path=model_under(tmp_path, matcher)):
            pass

    _, _, told = caught.value.detail.partition("Ce qui l’exclut : ")
    cause, _, advice = told.partition(". ")
    assert excluded in cause
    assert cause.count("«") == excluded.count("«") or "in (" in cause
    assert mend in advice.partition(", ou réglez")[0]
    assert "ACL_CREATE_DEFAULT_ADMIN=false" in advice


async def test_a_start_postponed_by_a_decision_that_failed_logs_its_cause_and_its_rule(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing() -> None:
        raise DecisionFailedError(reason="la fonction « mienne » a levé ValueError", rule=("p", "role:a", "*"))

    manager = ACLManager(config())
    monkeypatch.setattr(manager._lifecycle, "_start", failing)
    try:
        await manager.initialize()
        assert not manager.is_ready
    finally:
        await manager.close()

    said = next(record.message for record in caplog.records if record.message.startswith("start_postponed:"))
    assert "la fonction « mienne » a levé ValueError" in said
    assert 'rule="p","role:a","*"' in said


async def test_a_generated_password_goes_to_a_file_of_its_owner_alone(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "fastapi_acl_admin_password.txt"
    file.write_text("admin ancien", "utf-8")
    file.chmod(0o644)

    async with protected(sqlite_uri=sqlite_uri, default_admin_password=None) as visitor:
        name, password = file.read_text("utf-8").split()
        admin = await visitor.login(name, password)

        assert (await admin.get("/documents")).status_code == 200

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert password not in caplog.text


async def test_a_policy_file_is_not_applied_to_rules_it_did_not_make(
    sqlite_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policy.csv"
    path.write_text(POLICY, "utf-8")
    async with started(sqlite_uri=sqlite_uri) as manager:
        before = manager.get_policy().rules

    async with started(sqlite_uri=sqlite_uri, policy_path=path) as manager:
        assert manager.get_policy().rules == before
    assert "policy_file_not_applied" in caplog.text


@pytest.mark.parametrize(
    ("name", "version", "message"), [("casbin", "1.43.0", "pip uninstall casbin"), ("python_jose", "3.3.0", "jose")]
)
def test_a_package_that_spoils_ours_stops_the_start_by_name(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str, message: str
) -> None:
    folder = tmp_path / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigurationError, match=message):
        ACLManager(config(sqlite_uri=sqlite_uri))


async def test_the_policy_file_is_read_once_into_an_empty_database(
    database_settings: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "policy.csv"
    path.write_text(POLICY, "utf-8")
    settings = {**database_settings, "policy_path": path}

    async with started(**settings) as manager:
        admin = await admin_of(manager)
        first = set(manager.get_policy().rules)
        await manager.get_enforcer().remove_policy("role:reader", "document", "read", "allow")
    async with started(**settings) as manager:
        again = set(manager.get_policy().rules)

    values = {rule.values for rule in first}
    assert ("role:reader", "document, secret", "read", "allow") in values
    assert (admin, "role:reader") in values
    assert {rule.values for rule in first - again} == {("role:reader", "document", "read", "allow")}


async def test_a_changed_file_adds_what_is_missing_in_development_and_waits_in_production(
    sqlite_uri: str, tmp_path: Path
) -> None:
    path = tmp_path / "policy.csv"
    path.write_text(POLICY, "utf-8")
    settings: dict[str, Any] = {"sqlite_uri": sqlite_uri, "policy_path": path}
    production = {**settings, "environment": "production", "bcrypt_rounds": 10}
    async with started(**settings):
        pass

    path.write_text(POLICY + "p, role:a, x, read, allow\n", "utf-8")
    async with started(**production) as manager:
        waits = len(manager.get_policy().rules)
        applied = await manager.apply_policy_file()
    path.write_text(POLICY + "p, role:a, x, read, allow\np, role:b, x, read, allow\n", "utf-8")
    async with started(**settings) as manager:
        developed = len(manager.get_policy().rules)

    assert (waits, applied, developed) == (5, 1, 7)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("p, role:reader, document, read", "ligne 6.*4 valeurs"),
        ("p, alice, document, read, allow", "ligne 6.*user:"),
        ("g, user:@nobody, role:reader", "ligne 6.*nobody"),
        ("x, y", "ligne 6.*inconnu"),
        ('p, role:a, "x, read, allow', "Ligne 6"),
    ],
)
async def test_a_faulty_line_stops_the_start_and_is_named(
    sqlite_uri: str, tmp_path: Path, line: str, reason: str
) -> None:
    path = tmp_path / "policy.csv"
    path.write_text(POLICY + line + "\n", "utf-8")

    with pytest.raises(ConfigurationError, match=reason):
        async with started(sqlite_uri=sqlite_uri, policy_path=path):
            pass
    async with started(sqlite_uri=sqlite_uri, create_default_admin=False) as manager:
        assert manager.get_policy().rules == (), "rien n'est écrit à moitié"


CHAIN = "".join(f"g, role:l{n}, role:l{n + 1}\n" for n in range(9))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("g, role:a, role:b\ng, role:c, role:d\ng, role:b, role:a\ng, role:e, role:a\n", "ligne 8.*role:a.*role:b"),
        ("g, role:a, role:a\n", "ligne 6.*role:a → role:a"),
        ("g, role:a, role:b\ng, role:b, role:c\n# rien\ng, role:c, role:a\n", "ligne 9.*cycle"),
        (CHAIN + "g, role:l9, role:l10\ng, role:z, role:l1\n", "ligne 15.*9 liens"),
        ("g, user:@admin, role:l0\n" + CHAIN, "ligne 15.*user:.*9 liens"),
        (CHAIN + "g, role:l3, role:zz\ng, user:@admin, role:l0\n", "ligne 16.*9 liens"),
    ],
)
async def test_a_cycle_or_too_long_a_chain_in_the_policy_file_stops_the_start_with_the_line_that_closes_it(
    sqlite_uri: str, tmp_path: Path, lines: str, reason: str
) -> None:
    path = tmp_path / "policy.csv"
    path.write_text(POLICY + lines, "utf-8")

    with pytest.raises(ConfigurationError, match=f"policy.csv, {reason}"):
        async with started(sqlite_uri=sqlite_uri, policy_path=path):
            pass
    async with started(sqlite_uri=sqlite_uri, create_default_admin=False) as manager:
        assert manager.get_policy().rules == (), "rien n'est écrit à moitié"


async def test_a_file_applied_later_is_refused_with_the_line_that_closes_a_cycle_of_what_is_there(
    sqlite_uri: str, tmp_path: Path
) -> None:
    path = tmp_path / "policy.csv"
    path.write_text(POLICY, "utf-8")
    async with started(sqlite_uri=sqlite_uri, policy_path=path) as manager:
        await manager.get_enforcer().add_grouping_policy("role:b", "role:a")
        before = manager.get_policy().rules
        path.write_text(POLICY + "p, role:a, x, read, allow\ng, role:a, role:b\n", "utf-8")

        with pytest.raises(ConfigurationError, match=r"policy\.csv, ligne 7.*cycle"):
            await manager.apply_policy_file()
        assert manager.get_policy().rules == before


@pytest.mark.parametrize(
    "content", [b"p, role:a, x, read, allow\n\xff\xfe\n", b"\x00", b"p, role:a\x00, x, read, allow"]
)
async def test_a_policy_file_that_is_not_text_stops_the_start_by_name(
    sqlite_uri: str, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "policy.csv"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"policy\.csv.*[Ll]igne [12]"):
        async with started(sqlite_uri=sqlite_uri, policy_path=path):
            pass


async def test_a_line_given_twice_in_the_policy_file_is_one_rule(sqlite_uri: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.csv"
    path.write_text("g, user:@admin, role:reader\n" * 2 + "p, role:reader, x, read, allow\n" * 2, "utf-8")

    async with started(sqlite_uri=sqlite_uri, policy_path=path) as manager:
        assert len(manager.get_policy().rules) == 4


def command(*arguments: str, cwd: Path, typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"ACL_BCRYPT_ROUNDS": "4", "PATH": os.environ["PATH"], "COLUMNS": "200", **environment}
    return subprocess.run(
        [sys.executable, "-m", "fastapi_acl", *arguments],
        cwd=cwd,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        env=settings,
    )


def test_create_admin_creates_one_and_promotes_nobody(tmp_path: Path) -> None:
    typed = "un mot de passe planté\n"

    created = command("create-admin", "--username", "ada", cwd=tmp_path, typed=typed)
    again = command("create-admin", "--username", "ada", cwd=tmp_path, typed=typed)
    weak = command("create-admin", "--username", "bob", cwd=tmp_path, typed="court\n")

    assert (created.returncode, again.returncode, weak.returncode) == (0, 1, 1), created.stderr
    assert "Administrateur « ada » créé" in created.stdout
    assert "existe déjà" in again.stderr
    assert "au moins 15 caractères" in weak.stderr
    assert "planté" not in created.stdout + created.stderr + again.stderr
    assert "Traceback" not in again.stderr + weak.stderr


def command_here(*arguments: str, cwd: Path, typed: str = "", **environment: str) -> Result:
    """La même commande, sans lancer de processus."""
    settings = {"ACL_BCRYPT_ROUNDS": "4", "COLUMNS": "200", **environment}
    before = Path.cwd()
    os.chdir(cwd)
    try:
        return CliRunner().invoke(app, arguments, input=typed, env=settings)
    finally:
        os.chdir(before)


def test_the_first_administrator_may_be_named_by_the_policy_file(tmp_path: Path) -> None:
    (tmp_path / "seed.csv").write_text("p,role:reader,document:*,read,allow\ng,user:@ada,role:reader\n", "utf-8")

    created = command_here(
        "create-admin", "--username", "ada", cwd=tmp_path, typed="un mot de passe assez long\n",
        ACL_POLICY_PATH="seed.csv",
    )  # fmt: skip
    exported = command_here("policy", "export", "rules.csv", cwd=tmp_path, ACL_POLICY_PATH="seed.csv")

    account = created.stdout.partition("identifiant ")[2].partition(")")[0]
    assert (created.exit_code, exported.exit_code) == (0, 0), created.stderr + exported.stderr
    assert {f"g,user:{account},role:admin", f"g,user:{account},role:reader"} <= set(
        (tmp_path / "rules.csv").read_text("utf-8").split()
    )


def test_commands_refuse_a_wrong_configuration_in_one_sentence(tmp_path: Path) -> None:
    short = command_here("migrate", cwd=tmp_path, ACL_JWT_SECRET_KEY="court")
    absent = command_here("policy", "apply", cwd=tmp_path)
    down = command_here("migrate", cwd=tmp_path, ACL_SQLITE_URI="sqlite:////absent/x.db")

    assert (short.exit_code, absent.exit_code, down.exit_code) == (1, 1, 1)
    assert "ACL_JWT_SECRET_KEY" in short.stderr
    assert "ACL_POLICY_PATH" in absent.stderr
    assert "base de données ne répond pas" in down.stderr
    assert "Traceback" not in short.stderr + absent.stderr + down.stderr


def test_migrate_and_the_reference_commands(tmp_path: Path) -> None:
    migrated = command_here("migrate", cwd=tmp_path, ACL_AUTO_MIGRATE="false")
    listed = command_here("config", "env", cwd=tmp_path)
    helped = command_here("--help", cwd=tmp_path)
    planned = command_here("policy", "plan", cwd=tmp_path, ACL_MODEL="abac")
    clean = command_here("policy", "lint", cwd=tmp_path)
    risky = tmp_path / "risky.conf"
    risky.write_text(read_packaged_model("rest").replace("aclMatch(r.path", "keyMatch(r.path"), "utf-8")
    warned = command_here("policy", "lint", cwd=tmp_path, ACL_MODEL_PATH=str(risky))

    assert (migrated.exit_code, listed.exit_code, helped.exit_code) == (0, 0, 0), migrated.stderr
    assert (tmp_path / "fastapi_acl.db").exists()
    assert "ACL_JWT_SECRET_KEY=" in listed.stdout
    assert "create-admin" in helped.stdout
    assert planned.stdout.splitlines()[0] == "clé      : g(r.sub, p.sub)", planned.stderr
    assert (clean.exit_code, clean.stdout) == (0, "Rien à signaler.\n")
    assert warned.exit_code == 1
    assert "premier « * »" in warned.stdout
