"""Les tables : leurs clés tiennent partout, et les migrations font exactement ce que les modèles disent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

import fastapi_acl  # noqa: F401 - toutes les tables sont déclarées
from fastapi_acl import ACLConfig
from fastapi_acl.shared.database.factory import DatabaseFactory
from fastapi_acl.shared.database.sql import SQLDatabase
from fastapi_acl.shared.database.tables import (
    VERSION_TABLE,
    batch_rules_table,
    batches_table,
    changes_table,
    metadata,
)
from fastapi_acl.shared.exceptions import StoredDataError
from tests.conftest import settings_of
from tests.support.byhand import unpin

NOW = datetime.now(timezone.utc)
LOOKALIKES = ("alice", "Alice", "alicé", "alice\N{COMBINING ACUTE ACCENT}", "😀", "😁")


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return settings_of(request, request.param, "empty_")


async def opened(settings: dict[str, Any]) -> SQLDatabase:
    database = DatabaseFactory(ACLConfig(_env_file=None, **settings)).create_sql()
    await database.migrate()
    return database


@pytest.fixture
async def database(settings: dict[str, Any]) -> AsyncIterator[SQLDatabase]:
    database = await opened(settings)
    yield database
    await database.close()


@pytest.fixture
async def mysql(empty_mysql_uri: str) -> AsyncIterator[SQLDatabase]:
    database = await opened({"database_type": "mysql", "mysql_uri": empty_mysql_uri})
    yield database
    await database.close()


def change(revision: int, **columns: Any) -> dict[str, Any]:
    return {"revision": revision, "at": NOW, "actor": "user:1", "kind": "x", "payload": "{}", **columns}


def user(number: int, username: str) -> dict[str, Any]:
    return {
        "id": str(number), "username": username, "username_key": username, "hashed_password": "haché",
        "is_active": True, "is_verified": False, "session_version": 0, "created_at": NOW, "updated_at": NOW,
    }  # fmt: skip


def test_every_key_fits_the_768_characters_of_mysql() -> None:
    for table in metadata.tables.values():
        keys = [*table.indexes, *(found for found in table.constraints if hasattr(found, "columns"))]
        for key in keys:
            width = sum(getattr(column.type, "length", None) or 8 for column in key.columns)
            assert width <= 768, (table.name, key.name)


def test_every_table_asks_mysql_for_innodb_and_a_collation_that_tells_names_apart() -> None:
    for table in metadata.tables.values():
        options = [table.dialect_options["mysql"][name] for name in ("engine", "charset", "collate")]
        assert options == ["InnoDB", "utf8mb4", "utf8mb4_bin"], table.name


async def test_the_migrated_schema_is_the_one_the_models_declare(database: SQLDatabase) -> None:
    options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}

    def differences(connection: Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async with database.engine.connect() as connection:
        await unpin(connection)
        found = await connection.run_sync(differences)

    assert found == []


async def test_every_table_and_column_of_mysql_has_the_engine_and_the_collation_asked_for(mysql: SQLDatabase) -> None:
    tables = text(
        "SELECT table_name, engine, table_collation FROM information_schema.tables WHERE table_schema = DATABASE()"
    )
    columns = text(
        "SELECT table_name, column_name, collation_name FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND collation_name IS NOT NULL"
    )
    async with mysql.session() as session:
        made = {name: rest for name, *rest in await session.execute(tables) if name in metadata.tables}
        collations = {rest[-1] for name, *rest in await session.execute(columns) if name in metadata.tables}

    assert set(made) == set(metadata.tables)
    assert all(rest == ["InnoDB", "utf8mb4_nopad_bin"] for rest in made.values()), made
    assert collations == {"utf8mb4_nopad_bin"}


async def test_names_that_only_look_alike_are_different_accounts(database: SQLDatabase) -> None:
    users = metadata.tables["acl_users"]
    async with database.session() as session:
        await session.execute(insert(users), [user(number, name) for number, name in enumerate(LOOKALIKES)])
        found = [
            list(await session.scalars(select(users.c.username).where(users.c.username_key == name)))
            for name in LOOKALIKES
        ]

    assert found == [[name] for name in LOOKALIKES]


async def test_values_that_only_look_alike_are_different_rules(database: SQLDatabase) -> None:
    rules = metadata.tables["casbin_rule"]
    rows = [{"ptype": "p", "v0": name, "digest": str(number)} for number, name in enumerate(LOOKALIKES)]
    async with database.session() as session:
        await session.execute(insert(rules), rows)
        found = [list(await session.scalars(select(rules.c.v0).where(rules.c.v0 == name))) for name in LOOKALIKES]

    assert found == [[name] for name in LOOKALIKES]


async def test_an_idempotency_key_is_unique_with_its_actor_and_its_absence_is_not(database: SQLDatabase) -> None:
    async with database.session() as session:
        await session.execute(insert(changes_table), [change(1), change(2)])
        await session.execute(insert(changes_table).values(change(3, idempotency_key="k")))
        await session.execute(insert(changes_table).values(change(4, idempotency_key="k", actor="user:2")))
    with pytest.raises(IntegrityError):
        async with database.session() as session:
            await session.execute(insert(changes_table).values(change(5, idempotency_key="k")))

    async with database.session() as session:
        assert list(await session.scalars(select(changes_table.c.revision).order_by("revision"))) == [1, 2, 3, 4]


async def test_an_instant_keeps_its_microseconds_and_its_zone(database: SQLDatabase) -> None:
    instant = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone(timedelta(hours=5)))
    async with database.session() as session:
        await session.execute(insert(batches_table).values(id="1", kind="import", created_at=instant, published=False))
        found = await session.scalar(select(batches_table.c.created_at))

    assert found == instant
    assert found.utcoffset() == timedelta(0)


async def test_a_long_change_is_kept_whole(database: SQLDatabase) -> None:
    payload = "é" * 1_000_000
    async with database.session() as session:
        await session.execute(insert(changes_table).values(change(1, payload=payload)))
        found = await session.scalar(select(changes_table.c.payload))

    assert found == payload


async def test_the_database_numbers_a_rule_written_by_hand(database: SQLDatabase) -> None:
    rules = metadata.tables["casbin_rule"]
    async with database.session() as session:
        await unpin(session)
        for digest in ("un", "deux"):
            await session.execute(text(f"INSERT INTO casbin_rule (ptype, digest) VALUES ('p', '{digest}')"))  # noqa: S608
        found = list(await session.scalars(select(rules.c.id).order_by(rules.c.id)))

    assert found == [1, 2]


async def test_mysql_refuses_a_value_too_long_and_never_cuts_it(mysql: SQLDatabase) -> None:
    row = {"batch_id": "1", "number": 2**40, "ptype": "p", "v0": "x" * 256, "digest": ""}

    with pytest.raises(StoredDataError):
        async with mysql.session() as session:
            await session.execute(insert(batch_rules_table).values(row))
