"""Fixtures communes : de vraies bases, une application protégée, et rien qui traîne après un essai."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.support.servers import PostgreSQLServer, ServerUnavailableError

REQUIRED = os.environ.get("ACL_TEST_REQUIRE_SERVICES") == "1"
missing_services = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[missing_services] = {}
    for name in [name for name in os.environ if name.startswith("ACL_") and not name.startswith("ACL_TEST_")]:
        del os.environ[name]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for service, reason in config.stash[missing_services].items():
        terminalreporter.write_line(f"SERVICE ABSENT : {service} — {reason}", yellow=True)


def launched(config: pytest.Config) -> PostgreSQLServer:
    """Lance un PostgreSQL ; absent, ses essais sont sautés et le résumé le nomme."""
    try:
        server = PostgreSQLServer()
        server.start()
    except ServerUnavailableError as error:
        config.stash[missing_services]["PostgreSQL"] = str(error)
        if REQUIRED:
            pytest.fail(f"PostgreSQL est exigé : {error}")
        pytest.skip(f"PostgreSQL : {error}")
    return server


@pytest.fixture(scope="session")
def postgresql_server(request: pytest.FixtureRequest) -> Iterator[PostgreSQLServer]:
    """Un PostgreSQL pour toute la session."""
    server = launched(request.config)
    yield server
    server.close()


@pytest.fixture
def own_postgresql(request: pytest.FixtureRequest) -> Iterator[PostgreSQLServer]:
    """Un PostgreSQL à cet essai seul, qui peut l'arrêter et le relancer."""
    server = launched(request.config)
    yield server
    server.close()


@pytest.fixture
async def postgresql_uri(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Une base PostgreSQL vide, à cet essai seul."""
    admin = os.environ.get("ACL_TEST_POSTGRESQL_URI") or request.getfixturevalue("postgresql_server").uri()
    name = f"acl_{uuid4().hex}"
    connection = await asyncpg.connect(admin)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
        yield f"{admin.rpartition('/')[0]}/{name}"
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await connection.close()


@pytest.fixture
def sqlite_uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'acl.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Réglages d'une base vide, sur chacune des bases servies."""
    kind: str = request.param
    return {"database_type": kind, f"{kind}_uri": request.getfixturevalue(f"{kind}_uri")}


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    """Échoue si un essai laisse une tâche ou un fil d'exécution derrière lui."""
    before = set(threading.enumerate())
    yield
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    ours = [task for task in left if task.get_name().startswith("fastapi_acl")]
    assert not ours, ours
    deadline = asyncio.get_running_loop().time() + 2
    while threads := [thread for thread in set(threading.enumerate()) - before if not thread.daemon]:
        assert asyncio.get_running_loop().time() < deadline, threads
        await asyncio.sleep(0.01)
