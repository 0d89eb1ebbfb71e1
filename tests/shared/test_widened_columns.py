"""Une colonne élargie sous des processus qui tournent : au pire un 503 qui se réessaie, jamais une erreur sans nom."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import String, text

from fastapi_acl.shared.database.sql import SQLDatabase
from fastapi_acl.shared.database.tables import metadata
from tests.conftest import settings_of
from tests.support.app import Client, protected
from tests.support.byhand import unpin

TRIES = 6


def widened(table: str, column: Any, dialect: str) -> str:
    """Écrit ce qui élargit une colonne de texte."""
    if dialect == "postgresql":
        return f"ALTER TABLE {table} ALTER COLUMN {column.name} TYPE varchar({column.type.length + 40})"
    nullity = "NULL" if column.nullable else "NOT NULL"
    return f"ALTER TABLE {table} MODIFY {column.name} VARCHAR({column.type.length + 40}) {nullity}"


async def widen_all(database: SQLDatabase) -> None:
    """Élargit chaque texte de nos tables ; MySQL l'interdit aux deux bouts d'une clé étrangère."""
    linked = {key.parent for table in metadata.sorted_tables for key in table.foreign_keys}
    linked |= {key.column for table in metadata.sorted_tables for key in table.foreign_keys}
    dialect = database.engine.dialect.name
    async with database.session() as session:
        await unpin(session)
        for table in metadata.sorted_tables:
            for column in table.c:
                if type(column.type) is String and not (dialect == "mysql" and column in linked):
                    await session.execute(text(widened(table.name, column, dialect)))


async def use(client: Client, admin: Client, number: int) -> list[int]:
    """Emploie toutes les tables, et rend les statuts."""
    listed = await admin.get("/api/v1/admin/auth/users")
    rules = await admin.get("/api/v1/admin/permissions/rules")
    login = await client.post("/api/v1/auth/login", json={"username": "ada", "password": "trois petits chats gris"})
    added = await admin.add_rules(("p", f"role:r{number}", "doc", "read", "allow"))
    me = await admin.get("/api/v1/auth/me")
    return [answer.status_code for answer in (listed, rules, login, added, me)]


@pytest.fixture(params=["postgresql", "mysql"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return settings_of(request, request.param)


async def test_a_column_widened_under_a_running_process_is_at_worst_a_503_that_passes(settings: dict[str, Any]) -> None:
    async with protected(watcher="none", **settings) as client:
        await client.newcomer("ada")
        admin = await client.admin()
        for number in range(3):  # les instructions sont préparées, et gardées
            assert max(await use(client, admin, number)) < 300

        await widen_all(client.manager._parts.database)  # type: ignore[arg-type]

        seen = [await use(client, admin, 10 + number) for number in range(TRIES)]
        assert {status for statuses in seen for status in statuses} <= {200, 201, 503}
        assert max(seen[-1]) < 300
        assert client.manager.health().status == "ok"
