from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

from fastapi_acl import ACLConfig, ConfigurationError, UnavailableError
from fastapi_acl.runtime.storage import create_storage
from fastapi_acl.shared.database.base import AmbientDatabase
from fastapi_acl.shared.database.factory import DatabaseFactory
from fastapi_acl.shared.database.mongodb import MongoDatabase
from fastapi_acl.shared.database.sql import SQLDatabase
from fastapi_acl.shared.exceptions import DatabaseUnavailableError, TransactionNotOrderedError, TransactionNotOwnedError
from fastapi_acl.shared.sync.changes import ChangeLog
from fastapi_acl.shared.sync.mongodb_changes import MongoChangeLog
from fastapi_acl.shared.sync.sql_changes import SQLChangeLog
from tests.conftest import DATABASES
from tests.support.effort import effort
from tests.support.servers import PostgreSQLServer, free_port
from tests.support.waits import insisted

PROCESSES = effort(4, 6)


@pytest.fixture
async def database(database_settings: dict[str, Any]) -> AsyncIterator[AmbientDatabase]:
    database = opened(ACLConfig(_env_file=None, **database_settings))
    await database.migrate()
    yield database
    await database.close()


def opened(config: ACLConfig) -> AmbientDatabase:
    return create_storage(config).database


def log_of(database: AmbientDatabase) -> ChangeLog:
    return SQLChangeLog(database) if isinstance(database, SQLDatabase) else MongoChangeLog(database)


async def kinds(database: AmbientDatabase) -> list[str]:
    async with database.snapshot() as reading:
        return [change.kind for change in await log_of(database).since(reading, 0, limit=1_000)]


async def append(database: AmbientDatabase, kind: str) -> int:
    async with database.transaction(log=True) as transaction:
        return (await log_of(database).append(transaction, kind, {}, actor="system")).revision


async def test_a_committed_transaction_runs_its_callbacks_once_and_a_failed_one_none(database: AmbientDatabase) -> None:
    ran: list[str] = []
    async with database.transaction() as transaction:
        async with database.transaction() as joined:
            joined.after_commit(lambda: ran.append("validée"))
        assert transaction is joined
        assert ran == []
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as transaction:
            transaction.after_commit(lambda: ran.append("annulée"))
            _ = 1 / 0

    assert ran == ["validée"]


async def test_a_transaction_that_could_not_be_validated_runs_no_callback(
    database: AmbientDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: Any) -> None:
        raise DatabaseUnavailableError

    ran: list[str] = []
    monkeypatch.setattr(database, "commit", silent)
    with pytest.raises(DatabaseUnavailableError):
        async with database.transaction() as transaction:
            transaction.after_commit(lambda: ran.append("jamais validée"))

    assert ran == []


async def test_what_is_written_in_a_failed_transaction_is_not_there(database: AmbientDatabase) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction(log=True) as transaction:
            await log_of(database).append(transaction, "perdue", {}, actor="system")
            _ = 1 / 0

    assert await kinds(database) == []


async def test_another_task_may_not_use_the_ambient_transaction(database: AmbientDatabase) -> None:
    async def intrude() -> None:
        async with database.session():
            pass

    async with database.transaction():
        with pytest.raises(TransactionNotOwnedError):
            await asyncio.create_task(intrude())


async def test_logging_asks_for_an_ordered_transaction(database: AmbientDatabase) -> None:
    async with database.transaction() as transaction:
        with pytest.raises(TransactionNotOrderedError):
            await log_of(database).append(transaction, "x", {}, actor="system")
        with pytest.raises(TransactionNotOrderedError):
            async with database.transaction(log=True):
                pass


async def test_concurrent_writers_get_contiguous_revisions(database: AmbientDatabase) -> None:
    async def written(kind: str) -> int:
        return await insisted(lambda: append(database, kind))

    revisions = await asyncio.gather(*(written(f"k{index}") for index in range(30)))

    assert sorted(revisions) == list(range(1, 31))
    assert len(await kinds(database)) == 30


async def test_a_snapshot_reads_one_instant(database: AmbientDatabase) -> None:
    log = log_of(database)
    async with database.snapshot() as snapshot:
        before = await log.head(snapshot)
        other = type(database)(database._uri)
        await append(other, "ailleurs")
        await other.close()
        after = await log.head(snapshot)

    assert before == after


async def test_a_cancelled_writer_leaves_nothing_half_done(database: AmbientDatabase) -> None:
    async def write() -> None:
        async with database.transaction(log=True) as transaction:
            await log_of(database).append(transaction, "interrompue", {}, actor="system")
            await asyncio.sleep(5)

    task = asyncio.create_task(write())
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert await append(database, "suivante") == 1
    assert await kinds(database) == ["suivante"]


async def contents(database: AmbientDatabase) -> list[str]:
    """Rend les noms de tout ce que la base contient."""
    if isinstance(database, SQLDatabase):
        async with database.engine.connect() as connection:
            return list(await connection.run_sync(lambda opened: inspect(opened).get_table_names()))
    assert isinstance(database, MongoDatabase)
    return list(await database.client.get_default_database("fastapi_acl").list_collection_names())


async def test_looking_at_the_schema_creates_nothing_and_says_what_does(empty_settings: dict[str, Any]) -> None:
    database = opened(ACLConfig(_env_file=None, **empty_settings))

    with pytest.raises(ConfigurationError, match="fastapi-acl migrate"):
        await database.check_schema()

    if empty_settings["database_type"] == "sqlite":
        assert not Path(empty_settings["sqlite_uri"].removeprefix("sqlite:///")).exists()
    assert await contents(database) == []
    await database.migrate()
    await database.check_schema()
    await database.close()


async def test_a_file_of_another_application_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    other, text = tmp_path / "autre.db", tmp_path / "texte.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE autre (x)")
        connection.commit()
    text.write_text("ceci n'est pas une base " * 100, "utf-8")
    before = other.read_bytes()

    for path, reason in ((other, "fastapi-acl migrate"), (text, "ne s’ouvre pas")):
        database = DatabaseFactory(ACLConfig(_env_file=None, sqlite_uri=f"sqlite:///{path}")).create_sql()
        with pytest.raises(ConfigurationError, match=reason):
            await database.check_schema()
        await database.close()

    assert other.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["autre.db", "texte.db"]


async def test_a_schema_behind_is_refused_when_migration_is_off(empty_settings: dict[str, Any]) -> None:
    database = opened(ACLConfig(_env_file=None, auto_migrate=False, **empty_settings))

    with pytest.raises(ConfigurationError, match="fastapi-acl migrate"):
        await database.migrate()
    await database.migrate(force=True)
    await database.migrate()

    await database.close()


async def test_an_unreachable_database_is_unavailable_and_not_an_internal_error() -> None:
    uri = f"postgresql://ada:planted@127.0.0.1:{free_port()}/base"
    database = opened(ACLConfig(_env_file=None, database_type="postgresql", postgresql_uri=uri))

    with pytest.raises(UnavailableError) as refused:
        await database.migrate()

    assert "planted" not in repr(refused.value) + str(refused.value.__cause__)
    await database.close()


async def test_a_restarted_server_fails_no_request(own_postgresql: PostgreSQLServer) -> None:
    settings = {"database_type": "postgresql", "postgresql_uri": own_postgresql.uri()}
    database = opened(ACLConfig(_env_file=None, **settings))
    await database.migrate()
    await asyncio.gather(*(kinds(database) for _ in range(5)))

    own_postgresql.stop()
    with pytest.raises(DatabaseUnavailableError):
        await kinds(database)
    own_postgresql.start()

    assert await asyncio.gather(*(kinds(database) for _ in range(5))) == [[]] * 5
    await database.close()


@pytest.mark.slow
def test_processes_that_start_at_once_all_succeed(empty_settings: dict[str, Any]) -> None:
    settings = repr(
        {
            **empty_settings,
            "jwt_secret_key": "une clé d’essai, longue et sans valeur",
            "create_default_admin": True,
            "default_admin_password": "un mot de passe long",
        }
    )
    script = (
        "import asyncio; from fastapi_acl import *\n"
        f"acl = ACLManager(ACLConfig(_env_file=None, bcrypt_rounds=4, **{settings}))\n"
        "async def main():\n"
        "    await acl.initialize(); assert acl.is_ready; print(len(acl.get_policy().rules)); await acl.close()\n"
        "asyncio.run(main())"
    )

    started = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    ended = [(process.communicate(timeout=240), process.returncode) for process in started]

    assert [code for _, code in ended] == [0] * PROCESSES, ended
    assert {output for (output, _), _ in ended} == {"2\n"}


async def test_a_memory_database_keeps_its_tables() -> None:
    database = opened(ACLConfig(_env_file=None, sqlite_uri="sqlite://"))
    await database.migrate()

    await asyncio.gather(*(append(database, "x") for _ in range(5)))

    assert await kinds(database) == ["x"] * 5
    await database.close()


@pytest.mark.skipif("mongodb" not in DATABASES, reason="MongoDB n’est pas éprouvé")
async def test_a_mongodb_alone_is_refused_with_the_command_that_changes_it(standalone_mongodb_uri: str) -> None:
    database = opened(ACLConfig(_env_file=None, database_type="mongodb", mongodb_uri=standalone_mongodb_uri))

    with pytest.raises(ConfigurationError, match="--replSet rs0"):
        await database.migrate()

    await database.close()
