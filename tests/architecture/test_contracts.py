"""Chaque mur de l'architecture est cassé une fois exprès : le contrat qui le garde doit tomber."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from importlinter.api import read_configuration

ROOT = Path(__file__).parents[2]

BREACHES = {
    "Les étages de la maison": [
        ("fastapi_acl/shared/policy.py", "import fastapi_acl.engine.kernel.acl_match"),
        ("fastapi_acl/engine/kernel/acl_match.py", "import fastapi_acl.auth.domain.entities.auth_user"),
        ("fastapi_acl/auth/interface/api.py", "import fastapi_acl.permissions.interface.api"),
        ("fastapi_acl/permissions/interface/api.py", "import fastapi_acl.manager"),
        ("fastapi_acl/manager.py", "import fastapi_acl.cli"),
        ("fastapi_acl/shared/policy.py", "if TYPE_CHECKING:\n    import fastapi_acl.engine.kernel.acl_match"),
    ],
    "Dans une tranche": [
        ("fastapi_acl/auth/domain/dtos/auth_dtos.py", "import fastapi_acl.auth.application.usecases.register"),
        ("fastapi_acl/auth/application/usecases/register.py", "import fastapi_acl.auth.infrastructure.services.access"),
        ("fastapi_acl/auth/interface/api.py", "import fastapi_acl.auth.infrastructure.services.access"),
        ("fastapi_acl/auth/infrastructure/services/access.py", "import fastapi_acl.auth.interface.schemas"),
        ("fastapi_acl/auth/interface/api.py", "import fastapi_acl.auth.slice"),
        ("fastapi_acl/permissions/infrastructure/cached_grants.py", "import fastapi_acl.permissions.slice"),
    ],
    "Les étages du partagé": [
        ("fastapi_acl/shared/database/base.py", "import fastapi_acl.shared.sync.changes"),
        ("fastapi_acl/shared/cache/base.py", "import fastapi_acl.shared.sync.changes"),
        ("fastapi_acl/shared/identity.py", "import fastapi_acl.shared.config"),
    ],
    "Les étages du moteur": [
        ("fastapi_acl/engine/kernel/rows.py", "import fastapi_acl.engine.casbin.model"),
        ("fastapi_acl/engine/casbin/lint.py", "import fastapi_acl.engine.adapters.sql"),
        ("fastapi_acl/engine/authorizer.py", "import fastapi_acl.engine.writing.store"),
    ],
    "Le noyau décide seul": [
        ("fastapi_acl/engine/kernel/plan.py", "import simpleeval"),
        ("fastapi_acl/engine/kernel/schema.py", "import fastapi_acl.shared.config"),
    ],
    "Seules deux pièces parlent à Casbin": [
        ("fastapi_acl/engine/writing/store.py", "import casbin"),
        ("fastapi_acl/shared/policy.py", "import casbin"),
    ],
    "Ni cadre ni pilote dans le domaine et l'application": [
        ("fastapi_acl/auth/domain/entities/auth_user.py", "import sqlalchemy"),
        ("fastapi_acl/permissions/application/usecases/check_permissions.py", "import fastapi_acl.shared.config"),
    ],
    "Les valeurs et les ports partagés sont purs": [
        ("fastapi_acl/shared/database/base.py", "import fastapi_acl.shared.database.tables"),
    ],
    "Un pilote ou Casbin ne s'importe que": [
        ("fastapi_acl/shared/http/security.py", "import casbin"),
        ("fastapi_acl/auth/interface/api.py", "import jose"),
        ("fastapi_acl/auth/slice.py", "import jose"),
        ("fastapi_acl/manager.py", "import sqlalchemy"),
    ],
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports_command as main; sys.path.insert(0, '.'); main()"
    command = [sys.executable, "-c", program, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def broken(report: str) -> list[str]:
    """Rend les noms des contrats tombés ; le rapport coupe les lignes longues."""
    verdicts = " ".join(report.rpartition("dependencies.")[2].partition("Contracts:")[0].replace("-", "").split())
    found = re.findall(r"(.*?) (KEPT|BROKEN)(?: \(\d+ ignored imports?\))?", verdicts)
    return [name.strip() for name, verdict in found if verdict == "BROKEN"]


def contracts() -> dict[str, dict[str, Any]]:
    """Rend les contrats déclarés, par leur nom."""
    return {contract["name"]: contract for contract in read_configuration()["contracts_options"]}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walls")
    shutil.copytree(ROOT / "fastapi_acl", folder / "fastapi_acl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_code_keeps_every_contract(copy: Path) -> None:
    done = lint(copy)

    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_each_contract_is_broken_at_least_once_below() -> None:
    unbroken = [name for name in contracts() if not any(name.startswith(contract) for contract in BREACHES)]

    assert not unbroken


def test_each_slice_has_its_floors_guarded() -> None:
    slices = {f"fastapi_acl.{folder.parent.name}" for folder in (ROOT / "fastapi_acl").glob("*/domain")}
    (floors,) = (contract for name, contract in contracts().items() if name.startswith("Dans une tranche"))

    assert set(floors["containers"]) == slices


def test_each_module_that_may_not_import_a_driver_is_under_a_contract() -> None:
    tops = {path.stem for path in (ROOT / "fastapi_acl").iterdir() if path.suffix == ".py" or path.is_dir()}
    shared = {f"shared.{path.stem}" for path in (ROOT / "fastapi_acl/shared").iterdir()}
    slices = {folder.parent.name for folder in (ROOT / "fastapi_acl").glob("*/domain")}
    may = {"engine", "shared", "shared.database", "shared.cache", "shared.redis", "shared.sync", *slices}
    others = {f"fastapi_acl.{name}" for name in (tops | shared) - may if not name.endswith(("__init__", "__pycache__"))}
    forbidden = (contract for contract in contracts().values() if contract["type"] == "forbidden")

    guarded = {source for contract in forbidden for source in contract["source_modules"]}

    assert others <= guarded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("contract", "file", "line"),
    [(contract, file, line) for contract, breaches in BREACHES.items() for file, line in breaches],
)
def test_a_breach_is_seen_by_its_contract(copy: Path, contract: str, file: str, line: str) -> None:
    module = copy / file
    kept = module.read_text("utf-8")
    module.write_text(f"{kept}\n{line}\n", "utf-8")

    done = lint(copy)
    module.write_text(kept, "utf-8")

    assert done.returncode == 1, done.stdout
    assert any(name.startswith(contract) for name in broken(done.stdout)), done.stdout
