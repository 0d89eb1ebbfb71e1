"""Point d'entrée d'Alembic : emploie la connexion qu'on lui donne, ne règle aucun journal, n'ouvre aucun moteur."""

from alembic import context

from fastapi_acl.shared.database.tables import VERSION_TABLE, metadata, schema_of

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    version_table_schema=schema_of(connection),
)
with context.begin_transaction():
    context.run_migrations()
