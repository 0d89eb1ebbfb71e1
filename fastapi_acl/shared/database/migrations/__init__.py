"""Migrations Alembic, livrées dans le paquet et jouées par `ACLManager.initialize()`."""
