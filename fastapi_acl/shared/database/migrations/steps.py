"""Gestes des migrations, chacun sans effet s'il est déjà fait.

MySQL valide chaque CREATE et chaque ALTER aussitôt : une migration interrompue y laisse ce qui précède. Rejouée, elle
passe sur ce qui est là et achève le reste.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from alembic import op

from fastapi_acl.shared.database.tables import TABLE_OPTIONS, schema_of
from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.schema import SchemaItem

_EXACT: Final = sa.text(
    "SELECT collation_name FROM information_schema.collations"
    " WHERE collation_name IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin')"
)
"""La collation exacte de MariaDB, ou celle de MySQL."""

_COLLATION: Final = sa.text(
    "SELECT table_collation FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = :table"
)


def create_table(name: str, *elements: SchemaItem) -> None:
    """Crée une table, si elle n'existe pas."""
    if not _inspector().has_table(name, _schema()):
        op.create_table(name, *elements, **TABLE_OPTIONS)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Ajoute une colonne, si la table ne l'a pas."""
    if column.name not in {known["name"] for known in _inspector().get_columns(table, _schema())}:
        schema = _schema()
        whole = sa.sql.quoted_name(schema, quote=True) if schema is not None else None
        op.add_column(table, column, schema=whole)  # Alembic nomme lui-même la table, et couperait à chaque point


def create_index(name: str, table: str, columns: Sequence[str], *, unique: bool = False) -> None:
    """Crée un index, si la table ne l'a pas."""
    if name not in {known["name"] for known in _inspector().get_indexes(table, _schema())}:
        op.create_index(name, table, columns, unique=unique)


def make_exact(*tables: str) -> None:
    """Donne à des tables de MySQL une collation qui compte les espaces de fin ; une clé étrangère l'interdirait.

    Raises:
        ConfigurationError: le serveur n'en a aucune.
    """
    connection = op.get_bind()
    collation = connection.scalar(_EXACT)
    if collation is None:
        message = "ce serveur n’a pas de collation exacte : il faut MySQL 8.0.17 ou MariaDB 10.3 au moins."
        raise ConfigurationError(message)
    for table in tables:
        if connection.scalar(_COLLATION, {"table": table}) != collation:
            op.execute(f"ALTER TABLE `{table}` CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation}")


def drop_foreign_key(name: str, table: str) -> None:
    """Retire une clé étrangère, si la table l'a."""
    if name in {known["name"] for known in _inspector().get_foreign_keys(table)}:
        op.drop_constraint(name, table, type_="foreignkey")


def create_foreign_key(name: str, column: str, target: str) -> None:
    """Fait une clé étrangère, si la table ne l'a pas ; les lignes qui ne mènent plus nulle part partent avec.

    Args:
        name: son nom.
        column: la colonne, `table.colonne`.
        target: celle où elle mène, de même ; ses lignes supprimées emportent les nôtres.
    """
    (table, source), (parent, key) = column.split("."), target.split(".")
    if name not in {known["name"] for known in _inspector().get_foreign_keys(table)}:
        op.execute(f"DELETE FROM {table} WHERE {source} NOT IN (SELECT {key} FROM {parent})")  # noqa: S608 - des noms à nous
        op.create_foreign_key(name, table, parent, [source], [key], ondelete="CASCADE")


def insert_first_row(table: str, values: Mapping[str, object]) -> None:
    """Insère une ligne, si la table est vide."""
    target = sa.table(table, *(sa.column(name) for name in values), schema=_schema())
    if op.get_bind().execute(sa.select(sa.func.count()).select_from(target)).scalar_one() == 0:
        op.execute(target.insert().values(**values))


def _schema() -> str | None:
    """Renvoie le schéma où nos tables se cherchent."""
    return schema_of(op.get_bind())


def _inspector() -> sa.Inspector:
    """Renvoie un inspecteur neuf, qui n'a rien retenu de l'étape précédente."""
    return sa.inspect(op.get_bind())
