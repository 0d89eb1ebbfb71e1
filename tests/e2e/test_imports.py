"""Ce qui se charge : rien de ce dont la configuration ne se sert pas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.waits import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]

SQL = {"sqlalchemy", "alembic", "casbin_async_sqlalchemy_adapter", "aiosqlite", "asyncpg", "aiomysql"}
MONGODB = {"pymongo", "motor"}
ACCOUNTS = {"jose", "passlib", "bcrypt"}
EXTRAS = {"redis", "prometheus_client", "typer", "rich"}

ROUTES = {
    "fastapi_acl.auth.interface.api",
    "fastapi_acl.auth.interface.admin.api",
    "fastapi_acl.permissions.interface.api",
    "fastapi_acl.permissions.interface.admin.api",
    "fastapi_acl.permissions.interface.admin.explain",
}

IMPORT = """
import json, sys
import fastapi
already = set(sys.modules)
import fastapi_acl
print(json.dumps(sorted(set(sys.modules) - already)))
"""

START = """
import asyncio, json, sys
from fastapi import FastAPI
already = set(sys.modules)
from fastapi_acl import ACLConfig, ACLManager, Principal

class Trusting:
    async def authenticate(self, token):
        return Principal(id=token)

async def start():
    given = json.loads(sys.argv[1])
    authenticator = Trusting() if given.pop("is_foreign") else None
    manager = ACLManager(ACLConfig(_env_file=None, **given), app=FastAPI(), authenticator=authenticator)
    await manager.initialize()
    while not manager.is_ready:
        await asyncio.sleep(0.05)
    await manager.close()

asyncio.run(start())
print(json.dumps(sorted(set(sys.modules) - already)))
"""


def loaded(program: str, **settings: Any) -> set[str]:
    """Exécute un programme dans un processus neuf ; rend les modules qu'il charge, et leurs paquets."""
    command = [sys.executable, "-c", program, json.dumps(settings)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return {*modules, *(module.partition(".")[0] for module in modules)}


def test_importing_the_library_loads_no_database_no_signature_and_no_route() -> None:
    assert loaded(IMPORT) & (SQL | MONGODB | ACCOUNTS | EXTRAS | ROUTES) == set()


@pytest.mark.parametrize("is_foreign", [True, False])
def test_mongodb_alone_loads_no_sql(mongodb_uri: str, is_foreign: bool) -> None:
    found = loaded(START, is_foreign=is_foreign, database_type="mongodb", mongodb_uri=mongodb_uri)

    assert found & (SQL | EXTRAS) == set()
    assert "pymongo" in found


def test_another_authenticator_without_our_accounts_loads_neither_signature_nor_password(sqlite_uri: str) -> None:
    found = loaded(START, is_foreign=True, sqlite_uri=sqlite_uri, enable_auth_feature=False)

    assert found & (MONGODB | ACCOUNTS | EXTRAS) == set()
    assert "fastapi_acl.auth.interface.api" not in found


@pytest.mark.parametrize(
    ("off", "unseen"),
    [
        ("enable_api_routes", ROUTES),
        ("enable_auth_feature", {route for route in ROUTES if "auth" in route}),
        ("enable_permissions_feature", {route for route in ROUTES if "permissions" in route}),
    ],
)
def test_routes_that_are_off_are_not_loaded(sqlite_uri: str, off: str, unseen: set[str]) -> None:
    found = loaded(START, is_foreign=False, sqlite_uri=sqlite_uri, **{off: False})

    assert found & ROUTES == ROUTES - unseen


def test_what_signs_is_loaded_before_the_first_token(sqlite_uri: str) -> None:
    assert "jose" in loaded(START, is_foreign=False, sqlite_uri=sqlite_uri)
