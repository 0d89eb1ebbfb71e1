"""Point d'entrée d'Alembic : emploie la connexion qu'on lui donne, ne règle aucun journal, n'ouvre aucun moteur."""

from alembic import context

from fastapi_acl.shared.database.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
