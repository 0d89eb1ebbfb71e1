"""Fixtures communes : de vraies bases, une application protégée, et rien qui traîne après un essai."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.bases import Bases, MongoDBBases, MySQLBases, PostgreSQLBases, SQLiteBases, with_template
from tests.support.servers import (
    MariaDBServer,
    MongoDBServer,
    PostgreSQLServer,
    RedisServer,
    Server,
    ServerUnavailableError,
    fast_folder,
)
from tests.support.waits import PATIENCE_SECONDS

tempfile.tempdir = fast_folder()  # les serveurs et `tmp_path` y font leurs dossiers

REQUIRED = os.environ.get("ACL_TEST_REQUIRE_SERVICES") == "1"
missing_services = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[missing_services] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # interrompue, la session arrête ses serveurs
    for name in [name for name in os.environ if name.startswith("ACL_") and not name.startswith("ACL_TEST_")]:
        del os.environ[name]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    terminalreporter.write_line(f"BASES ÉPROUVÉES : {', '.join(DATABASES)}")
    for service, reason in config.stash[missing_services].items():
        terminalreporter.write_line(f"SERVICE ABSENT : {service} — {reason}", yellow=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Dit à la session qui mène les autres les services que celle-ci n'a pas trouvés."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["missing_services"] = session.config.stash[missing_services]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[missing_services].update(getattr(node, "workeroutput", {}).get("missing_services", {}))


Launched = TypeVar("Launched", bound=Server)


def launched(config: pytest.Config, make: Callable[[], Launched]) -> Iterator[Launched]:
    """Lance un serveur le temps d'une fixture ; absent, ses essais sont sautés et le résumé le nomme."""
    name = getattr(make, "name", MongoDBServer.name)
    try:
        server = make()
        server.start()
    except ServerUnavailableError as error:
        config.stash[missing_services][name] = str(error)
        if REQUIRED:
            pytest.fail(f"{name} est exigé : {error}")
        pytest.skip(f"{name} : {error}")
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgresql_server(request: pytest.FixtureRequest) -> Iterator[PostgreSQLServer]:
    """Un PostgreSQL pour toute la session."""
    yield from launched(request.config, PostgreSQLServer)


@pytest.fixture(scope="session")
def mysql_server(request: pytest.FixtureRequest) -> Iterator[MariaDBServer]:
    """Un MariaDB pour toute la session."""
    yield from launched(request.config, MariaDBServer)


@pytest.fixture(scope="session")
def mongodb_server(request: pytest.FixtureRequest) -> Iterator[MongoDBServer]:
    """Un serveur compatible avec MongoDB pour toute la session."""
    yield from launched(request.config, MongoDBServer)


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Un Redis pour toute la session."""
    yield from launched(request.config, RedisServer)


@pytest.fixture
def own_postgresql(request: pytest.FixtureRequest) -> Iterator[PostgreSQLServer]:
    """Un PostgreSQL à cet essai seul, qui peut l'arrêter et le relancer."""
    yield from launched(request.config, PostgreSQLServer)


@pytest.fixture
def own_mysql(request: pytest.FixtureRequest) -> Iterator[MariaDBServer]:
    """Un MariaDB à cet essai seul."""
    yield from launched(request.config, MariaDBServer)


@pytest.fixture
def own_mongodb(request: pytest.FixtureRequest) -> Iterator[MongoDBServer]:
    """Un serveur compatible avec MongoDB à cet essai seul, dont une validation survit à une panne."""
    yield from launched(request.config, lambda: MongoDBServer(durable=True))


@pytest.fixture
def own_redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Un Redis à cet essai seul."""
    yield from launched(request.config, RedisServer)


@pytest.fixture
def standalone_mongodb_uri(request: pytest.FixtureRequest) -> Iterator[str]:
    """L'adresse d'un serveur qui n'est pas un jeu de répliques."""
    for server in launched(request.config, lambda: MongoDBServer(standalone=True)):
        yield server.uri()


def admin_uri(request: pytest.FixtureRequest, kind: str) -> str:
    """Rend l'adresse du serveur où les essais font leurs bases : celui qui est donné, ou le nôtre."""
    given = os.environ.get(f"ACL_TEST_{kind.upper()}_URI")
    return given or str(request.getfixturevalue(f"{kind}_server").uri())


@pytest.fixture(scope="session")
def sqlite_bases() -> Iterator[Bases]:
    yield from with_template(SQLiteBases())


@pytest.fixture(scope="session")
def postgresql_bases(request: pytest.FixtureRequest) -> Iterator[Bases]:
    yield from with_template(PostgreSQLBases(admin_uri(request, "postgresql")))


@pytest.fixture(scope="session")
def mysql_bases(request: pytest.FixtureRequest) -> Iterator[Bases]:
    yield from with_template(MySQLBases(admin_uri(request, "mysql")))


@pytest.fixture(scope="session")
def mongodb_bases(request: pytest.FixtureRequest) -> Iterator[Bases]:
    yield from with_template(MongoDBBases(admin_uri(request, "mongodb")))


@pytest.fixture
async def postgresql_uri(postgresql_bases: Bases) -> AsyncIterator[str]:
    """Une base PostgreSQL à cet essai seul : notre schéma y est fait, et rien n'y est écrit."""
    async with postgresql_bases.migrated() as uri:
        yield uri


@pytest.fixture
async def mysql_uri(mysql_bases: Bases) -> AsyncIterator[str]:
    """Une base MariaDB à cet essai seul, schéma fait."""
    async with mysql_bases.migrated() as uri:
        yield uri


@pytest.fixture
async def mongodb_uri(mongodb_bases: Bases) -> AsyncIterator[str]:
    """Une base MongoDB à cet essai seul."""
    async with mongodb_bases.migrated() as uri:
        yield uri


@pytest.fixture
def sqlite_uri(tmp_path: Path, sqlite_bases: SQLiteBases) -> str:
    """Un fichier SQLite à cet essai seul, schéma fait."""
    sqlite_bases.copy_to(tmp_path / "acl.db")
    return f"sqlite:///{tmp_path / 'acl.db'}"


@pytest.fixture
async def empty_postgresql_uri(postgresql_bases: Bases) -> AsyncIterator[str]:
    """Une base PostgreSQL vide, à cet essai seul."""
    async with postgresql_bases.empty() as uri:
        yield uri


@pytest.fixture
async def empty_mysql_uri(mysql_bases: Bases) -> AsyncIterator[str]:
    """Une base MariaDB vide, à cet essai seul."""
    async with mysql_bases.empty() as uri:
        yield uri


@pytest.fixture
def empty_mongodb_uri(mongodb_uri: str) -> str:
    """Une base MongoDB vide, à cet essai seul : aucune ne naît autrement."""
    return mongodb_uri


@pytest.fixture
def empty_sqlite_uri(tmp_path: Path) -> str:
    """Un fichier SQLite qui n'existe pas encore."""
    return f"sqlite:///{tmp_path / 'acl.db'}"


DATABASES = (os.environ.get("ACL_TEST_DATABASES") or "sqlite,postgresql,mysql,mongodb").split(",")
"""Bases sur lesquelles passe la suite commune."""


@pytest.fixture(params=DATABASES)
def database_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Réglages d'une base à cet essai seul, schéma fait, sur chacune des bases servies."""
    return settings_of(request, request.param)


@pytest.fixture(params=[name for name in DATABASES if name != "mongodb"])
def sql_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Réglages d'une base SQL à cet essai seul, schéma fait, sur chacune de celles qui sont servies."""
    return settings_of(request, request.param)


@pytest.fixture(params=DATABASES)
def empty_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Réglages d'une base vide, sur chacune des bases servies : le premier démarrage y fait le schéma."""
    return settings_of(request, request.param, "empty_")


def settings_of(request: pytest.FixtureRequest, kind: str, state: str = "") -> dict[str, Any]:
    """Rend les réglages d'une base, schéma fait, ou vide si `state` est « empty_ »."""
    return {"database_type": kind, f"{kind}_uri": request.getfixturevalue(f"{state}{kind}_uri")}


def is_ours(thread: threading.Thread) -> bool:
    """Écarte les fils de service de Python et de motor, qui n'en a qu'une réserve, pour tout le processus."""
    motor = sys.modules.get("motor.frameworks.asyncio")
    shared = motor._EXECUTOR._threads if motor is not None else ()
    return not (thread.daemon or thread in shared or thread.name.startswith("asyncio_"))


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    """Échoue si un essai laisse une tâche ou un fil d'exécution derrière lui."""
    before = set(threading.enumerate())
    yield
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    ours = [task for task in left if task.get_name().startswith("fastapi_acl")]
    assert not ours, ours
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while threads := [thread for thread in set(threading.enumerate()) - before if is_ours(thread)]:
        assert asyncio.get_running_loop().time() < deadline, threads
        await asyncio.sleep(0.01)
