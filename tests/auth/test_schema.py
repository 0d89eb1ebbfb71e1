"""Les modèles et les migrations décrivent le même schéma."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection

from fastapi_acl.auth.infrastructure.models.auth_models import SQLAuthUserModel, SQLSessionModel
from fastapi_acl.shared.config import ACLConfig
from fastapi_acl.shared.database.factory import create_database
from fastapi_acl.shared.database.tables import metadata

KNOWN = set(metadata.tables) | {SQLAuthUserModel.__tablename__, SQLSessionModel.__tablename__}


def differences(connection: Connection) -> list[Any]:
    def ours(thing: Any, name: str | None, kind: str, _reflected: bool, _compared: Any) -> bool:
        table = name if kind == "table" else thing.table.name
        return table in KNOWN

    options = {"include_object": ours, "compare_type": True, "compare_server_default": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


async def test_the_migrated_schema_is_the_one_that_the_models_declare(database_settings: dict[str, Any]) -> None:
    database = create_database(ACLConfig(_env_file=None, **database_settings))
    await database.migrate()

    async with database.engine.connect() as connection:
        found = await connection.run_sync(differences)
    await database.close()

    assert {"acl_users", "acl_sessions"} <= KNOWN
    assert found == []
