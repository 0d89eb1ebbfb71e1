"""Les migrations, sur les trois bases SQL : de rien, d'une version à l'autre, à plusieurs, et coupées n'importe où."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, Table, event, insert, inspect, select, text, update
from sqlalchemy.engine import Connection

import fastapi_acl  # noqa: F401 - toutes les tables sont déclarées
from fastapi_acl import ACLConfig, ConfigurationError
from fastapi_acl.shared.database.factory import DatabaseFactory
from fastapi_acl.shared.database.migrations import runner
from fastapi_acl.shared.database.mysql import MIGRATION_LOCK
from fastapi_acl.shared.database.sql import SQLDatabase, Use
from fastapi_acl.shared.database.tables import VERSION_TABLE, changes_table, metadata, revision_table
from fastapi_acl.shared.exceptions import DatabaseUnavailableError
from tests.conftest import settings_of
from tests.support.byhand import unpin
from tests.support.effort import effort
from tests.support.waits import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
HEAD = "0004"
NOW = datetime.now(timezone.utc)
PROCESSES = effort(3, 6)

MIGRATE = """
import asyncio, sys
from fastapi_acl import ACLConfig
from fastapi_acl.shared.database.factory import DatabaseFactory
async def main():
    database = DatabaseFactory(ACLConfig(_env_file=None, **{settings!r})).create_sql()
    await database.migrate()
    await database.close()
    import fastapi_acl; print(fastapi_acl.__file__)
asyncio.run(main())
"""


class CrashError(Exception):
    """La mort du processus, comme la base la voit : sa connexion disparaît."""


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return settings_of(request, request.param, "empty_")


def at(settings: dict[str, Any], **changes: Any) -> SQLDatabase:
    return DatabaseFactory(ACLConfig(_env_file=None, **settings, **changes)).create_sql()


@pytest.fixture
async def database(settings: dict[str, Any]) -> AsyncIterator[SQLDatabase]:
    database = at(settings)
    yield database
    await database.close()


async def run(database: SQLDatabase, *statements: Any) -> list[Any]:
    """Exécute des instructions en une transaction, et rend les lignes de la dernière."""
    async with database.session() as session:
        await unpin(session)
        for statement in statements[:-1]:
            await session.execute(statement)
        result: Any = await session.execute(statements[-1])
        return list(result) if result.returns_rows else []


async def version(database: SQLDatabase) -> str:
    return str((await run(database, text(f"SELECT version_num FROM {VERSION_TABLE}")))[0][0])  # noqa: S608 - une constante


async def to_first_version(database: SQLDatabase) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(lambda found: command.upgrade(runner._config(found), "0001"))


async def differences(database: SQLDatabase) -> list[Any]:
    """Ce qui manque au schéma ou y est de trop."""

    def compare(connection: Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}), metadata)

    async with database.engine.connect() as connection:
        await unpin(connection)
        return list(await connection.run_sync(compare))


async def tables(database: SQLDatabase) -> set[str]:
    async with database.engine.connect() as connection:
        await unpin(connection)
        return set(await connection.run_sync(lambda found: inspect(found).get_table_names()))


async def empty(database: SQLDatabase) -> None:
    async with database.engine.begin() as connection:
        await unpin(connection)
        await connection.run_sync(metadata.drop_all)
        await connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))


async def crash_after(database: SQLDatabase, count: int) -> bool:
    """Migre et meurt après la n-ième écriture ; False si la migration a fini avant."""
    written = 0

    def watch(connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        nonlocal written
        written += statement.lstrip().startswith(("CREATE", "ALTER", "INSERT", "UPDATE"))
        if written == count:
            connection.invalidate()
            raise CrashError

    event.listen(database.engine_for(Use.MIGRATIONS).sync_engine, "after_cursor_execute", watch)
    try:
        await database.migrate()
    except CrashError:
        return True
    finally:
        event.remove(database.engine_for(Use.MIGRATIONS).sync_engine, "after_cursor_execute", watch)
    return False


async def test_an_empty_database_gets_the_schema_and_its_single_row(database: SQLDatabase) -> None:
    await database.migrate()
    await database.migrate()

    [row] = await run(database, select(revision_table))
    assert await differences(database) == []
    assert await version(database) == HEAD
    assert (row.id, row.revision, row.policy_revision, row.rule_id, row.compacted) == (1, 0, 0, 0, 0)
    assert (row.snapshot, row.min_code_version) == (None, "0.1.0")


async def test_what_the_first_version_wrote_is_kept(database: SQLDatabase) -> None:
    await to_first_version(database)
    at, old = {"now": NOW}, "INSERT INTO acl_changes (revision, at, actor, kind, payload) VALUES "
    await run(
        database,
        text("INSERT INTO casbin_rule (ptype, v0, v1, digest) VALUES ('p', 'role:lecteur', 'livre', 'abc')"),
        text(f"{old} (1, :now, 'system', 'rules', '[]')").bindparams(**at),
        text("UPDATE acl_revision SET revision = 1, policy_revision = 1"),
    )
    [log_id] = await run(database, select(revision_table.c.log_id))

    await database.migrate()

    [head], [change] = await run(database, select(revision_table)), await run(database, select(changes_table))
    rules = await run(database, text("SELECT id, ptype, v0, v1, v2, digest FROM casbin_rule"))
    assert (head.log_id, head.revision, head.policy_revision, head.rule_id) == (*log_id, 1, 1, 0)
    assert (change.kind, change.change_id, change.idempotency_key) == ("rules", "", None)
    assert rules == [(1, "p", "role:lecteur", "livre", None, "abc")]
    assert await differences(database) == []


async def test_a_process_of_the_first_version_still_writes_on_the_new_schema(database: SQLDatabase) -> None:
    await database.migrate()
    written = insert(changes_table).values(revision=1, at=NOW, actor="system", kind="rules", payload="[]")

    await run(database, written, update(revision_table).values(revision=1, policy_revision=1))

    [change] = await run(database, select(changes_table.c.change_id, changes_table.c.idempotency_key))
    assert change == ("", None)


async def test_processes_that_start_at_once_migrate_once(settings: dict[str, Any], database: SQLDatabase) -> None:
    script = MIGRATE.format(settings=settings)
    started = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", script, stderr=asyncio.subprocess.PIPE)
        for _ in range(PROCESSES)
    ]

    errors = [(await process.communicate())[1] for process in started]

    assert [process.returncode for process in started] == [0] * PROCESSES, errors
    assert len(await run(database, select(revision_table))) == 1
    assert await version(database) == HEAD
    assert await differences(database) == []


async def test_a_migration_that_dies_anywhere_is_finished_by_the_next_one(database: SQLDatabase) -> None:
    count = 0
    while await crash_after(database, count := count + effort(3, 1)):
        await database.migrate()

        assert await differences(database) == [], count
        assert await version(database) == HEAD
        assert len(await run(database, select(revision_table))) == 1
        await empty(database)

    assert count > 20


async def test_a_migration_that_dies_again_and_again_ends_up_finished(database: SQLDatabase) -> None:
    for count in range(1, 30, 3):
        _ = await crash_after(database, count)

    await database.migrate()

    assert await differences(database) == []
    assert await version(database) == HEAD
    assert len(await run(database, select(revision_table))) == 1


async def test_data_survives_an_upgrade_that_dies_anywhere(database: SQLDatabase) -> None:
    count = 0
    died = True
    while died:
        await to_first_version(database)
        await run(database, text("UPDATE acl_revision SET revision = 41"))
        died = await crash_after(database, count := count + effort(3, 1))
        await database.migrate()

        assert await run(database, select(revision_table.c.revision, revision_table.c.rule_id)) == [(41, 0)]
        assert await differences(database) == [], count
        await empty(database)

    assert count > 10


async def test_a_failed_migration_frees_the_lock(settings: dict[str, Any], database: SQLDatabase) -> None:
    def refuse(_connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().startswith("CREATE"):
            raise CrashError

    event.listen(database.engine_for(Use.MIGRATIONS).sync_engine, "after_cursor_execute", refuse)
    with pytest.raises(CrashError):
        await database.migrate()
    event.remove(database.engine_for(Use.MIGRATIONS).sync_engine, "after_cursor_execute", refuse)

    other = at(settings)
    await asyncio.wait_for(other.migrate(), PATIENCE_SECONDS)

    await other.close()


async def test_a_schema_behind_is_refused_when_migration_is_off(settings: dict[str, Any]) -> None:
    database = at(settings, auto_migrate=False)

    with pytest.raises(ConfigurationError, match="fastapi-acl migrate"):
        await database.migrate()
    assert not await tables(database)
    await database.migrate(force=True)
    await database.migrate()

    assert await version(database) == HEAD
    await database.close()


def slow(database: SQLDatabase, seconds: float, on: str = r"CREATE TABLE \S*acl_users ") -> None:
    """Rend lente une étape de migration."""

    def sleep(connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        if re.match(on, statement.lstrip()):
            asked = {"postgresql": f"SELECT pg_sleep({seconds})", "mysql": f"SELECT SLEEP({seconds})"}
            connection.exec_driver_sql(asked[connection.dialect.name])

    event.listen(database.engine_for(Use.MIGRATIONS).sync_engine, "before_cursor_execute", sleep)


@pytest.mark.parametrize("settings", ["postgresql", "mysql"], indirect=True)
async def test_a_step_longer_than_a_command_may_be_is_not_cut(
    settings: dict[str, Any], database: SQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"fastapi_acl.shared.database.{settings['database_type']}"
    monkeypatch.setattr(f"{module}.COMMAND_TIMEOUT_SECONDS", 1)
    slow(database, 3)

    await database.migrate()

    assert await version(database) == HEAD


@pytest.mark.parametrize("settings", ["postgresql", "mysql"], indirect=True)
async def test_a_replica_waits_for_the_migration_of_another_and_says_so(
    settings: dict[str, Any], database: SQLDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    slow(database, 2)
    other = at(settings)
    caplog.set_level(logging.INFO, "fastapi_acl")
    first = asyncio.create_task(database.migrate())
    while not await is_migrating(other):
        await asyncio.sleep(0.05)

    await other.migrate()

    assert first.done() or await asyncio.wait_for(first, 10) is None
    assert "migration_awaited" in caplog.text
    assert await version(other) == HEAD
    await other.close()


async def is_migrating(database: SQLDatabase) -> bool:
    """Dit si quelqu'un tient le verrou de migration."""
    held = {
        "postgresql": "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())",
        "mysql": f"SELECT IS_USED_LOCK({MIGRATION_LOCK}) IS NOT NULL",
    }
    return bool((await run(database, text(held[database.engine.dialect.name])))[0][0])


@pytest.mark.parametrize("settings", ["postgresql", "mysql"], indirect=True)
async def test_a_replica_does_not_wait_for_ever(
    settings: dict[str, Any], database: SQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"fastapi_acl.shared.database.{settings['database_type']}.MIGRATION_TIMEOUT_SECONDS", 0.5)
    slow(database, 5)
    other = at(settings)
    first = asyncio.create_task(database.migrate())
    while not await is_migrating(other):
        await asyncio.sleep(0.05)

    with pytest.raises(DatabaseUnavailableError):
        await other.migrate()

    assert not first.done()
    await first
    await other.close()


@pytest.mark.parametrize("settings", ["mysql"], indirect=True)
async def test_an_upgrade_makes_every_text_exact_and_keeps_what_it_finds(database: SQLDatabase) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(lambda found: command.upgrade(runner._config(found), "0003"))
    await run(
        database,
        text(
            "INSERT INTO acl_users (id, username, username_key, hashed_password, is_active, is_verified,"
            " session_version, created_at, updated_at) VALUES ('u', 'alice', 'alice', 'x', 1, 0, 1, NOW(), NOW())"
        ),
        text("INSERT INTO acl_sessions VALUES ('s', 'u', 1, 'd', NULL, NULL, NOW(), NOW(), NOW(), NULL, NULL, NULL)"),
    )

    await database.migrate()

    texts = (
        "SELECT collation_name FROM information_schema.columns WHERE table_schema = DATABASE()"
        " AND character_set_name IS NOT NULL AND table_name <> 'acl_alembic_version'"
    )
    collations = {row[0] for row in await run(database, text(texts))}
    assert len(collations) == 1
    assert collations <= {"utf8mb4_nopad_bin", "utf8mb4_0900_bin"}
    assert await run(database, text("SELECT id, user_id FROM acl_sessions")) == [("s", "u")]
    assert await run(database, text("SELECT id FROM acl_users WHERE username_key = 'alice '")) == []
    await run(database, text("DELETE FROM acl_users"))
    assert await run(database, text("SELECT id FROM acl_sessions")) == [], "la clé étrangère est restée"


@pytest.mark.parametrize("settings", ["mysql"], indirect=True)
async def test_a_table_of_the_application_that_leads_to_ours_refuses_the_upgrade_and_says_what_to_do(
    database: SQLDatabase,
) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(lambda found: command.upgrade(runner._config(found), "0003"))
    column = "owner VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    leading = "CONSTRAINT to_ours FOREIGN KEY (owner) REFERENCES acl_users (id)"
    await run(database, text(f"CREATE TABLE documents ({column}, {leading})"))

    with pytest.raises(ConfigurationError, match=r"to_ours.*clé étrangère"):
        await database.migrate()

    await run(database, text("ALTER TABLE documents DROP FOREIGN KEY to_ours"))
    await database.migrate()


async def ahead(database: SQLDatabase, needed: str) -> None:
    """Met la base dans l'état où une version plus récente l'aurait laissée."""
    await database.migrate()
    await run(
        database,
        text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"),  # noqa: S608 - une constante
        update(revision_table).values(min_code_version=needed),
    )


@pytest.mark.parametrize("needed", ["0.0.9", "0.1.0", "0.1"])
async def test_a_schema_ahead_is_served_while_it_admits_this_version(
    database: SQLDatabase, needed: str, caplog: pytest.LogCaptureFixture
) -> None:
    await ahead(database, needed)

    with caplog.at_level(logging.WARNING, "fastapi_acl"):
        await database.migrate()

    assert await version(database) == "9999"
    assert any("schema_ahead" in record.message and "9999" in record.message for record in caplog.records)


@pytest.mark.parametrize("needed", ["0.1.1", "0.10.0", "1.0.0"])
async def test_a_schema_that_needs_a_newer_version_is_refused_and_names_it(database: SQLDatabase, needed: str) -> None:
    await ahead(database, needed)

    with pytest.raises(ConfigurationError, match=f"fastapi-acl {needed} ou plus récent"):
        await database.migrate()


async def test_the_rules_table_of_another_adapter_is_refused_and_left_alone(database: SQLDatabase) -> None:
    await run(
        database,
        text("CREATE TABLE casbin_rule (id INTEGER PRIMARY KEY, ptype VARCHAR(255), v0 VARCHAR(255))"),
        text("INSERT INTO casbin_rule VALUES (1, 'p', 'alice')"),
    )

    with pytest.raises(ConfigurationError, match="autre adaptateur de Casbin : renommez-la"):
        await database.migrate()

    assert await tables(database) == {"casbin_rule"}
    assert await run(database, text("SELECT * FROM casbin_rule")) == [(1, "p", "alice")]


async def test_a_renamed_rules_table_lets_the_migration_run(database: SQLDatabase) -> None:
    await run(database, text("CREATE TABLE casbin_rule (id INTEGER PRIMARY KEY, ptype VARCHAR(255))"))

    await run(database, text("ALTER TABLE casbin_rule RENAME TO casbin_rule_avant"))
    await database.migrate()

    assert await tables(database) >= {"casbin_rule", "casbin_rule_avant"}


async def test_the_applications_own_migrations_are_not_touched(database: SQLDatabase) -> None:
    await run(
        database,
        text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"),
        text("INSERT INTO alembic_version VALUES ('la_leur')"),
    )

    await database.migrate()

    assert await run(database, text("SELECT version_num FROM alembic_version")) == [("la_leur",)]
    assert await version(database) == HEAD


async def test_the_documented_filter_keeps_our_tables_out_of_an_applications_autogenerate(
    database: SQLDatabase,
) -> None:
    page = (ROOT / "docs/bases-de-donnees.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(def include_name.*?)\n\n\n", page, re.DOTALL)
    documented: dict[str, Any] = {}
    exec(example, documented)  # noqa: S102 - notre documentation
    await database.migrate()
    theirs = MetaData()
    Table("livres", theirs, Column("id", Integer, primary_key=True))

    def proposed(connection: Connection) -> list[Any]:
        options = {"include_name": documented["include_name"]}
        return compare_metadata(MigrationContext.configure(connection, opts=options), theirs)

    async with database.engine.connect() as connection:
        operations = await connection.run_sync(proposed)

    assert [(name, table.name) for name, table in operations] == [("add_table", "livres")]


@pytest.mark.slow
def test_an_installed_wheel_carries_its_migrations(tmp_path: Path, empty_sqlite_uri: str) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "fastapi_acl", source / "fastapi_acl", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, source]
    subprocess.run(build, check=True, timeout=240)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)

    script = MIGRATE.format(settings={"database_type": "sqlite", "sqlite_uri": empty_sqlite_uri})
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": ""},
    )  # fmt: skip

    packed = {path.name for path in (site / "fastapi_acl/shared/database/migrations/versions").iterdir()}
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert packed >= {path.name for path in (ROOT / "fastapi_acl/shared/database/migrations/versions").glob("v*.py")}
