"""Gestes des migrations, chacun sans effet s'il est déjà fait.

MySQL valide chaque CREATE et chaque ALTER aussitôt : une migration interrompue y laisse ce qui précède. Rejouée, elle
passe sur ce qui est là et achève le reste.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import op

from fastapi_acl.shared.database.tables import TABLE_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.schema import SchemaItem


def create_table(name: str, *elements: SchemaItem) -> None:
    """Crée une table, si elle n'existe pas."""
    if not _inspector().has_table(name):
        op.create_table(name, *elements, **TABLE_OPTIONS)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Ajoute une colonne, si la table ne l'a pas."""
    if column.name not in {known["name"] for known in _inspector().get_columns(table)}:
        op.add_column(table, column)


def create_index(name: str, table: str, columns: Sequence[str], *, unique: bool = False) -> None:
    """Crée un index, si la table ne l'a pas."""
    if name not in {known["name"] for known in _inspector().get_indexes(table)}:
        op.create_index(name, table, columns, unique=unique)


def insert_first_row(table: str, values: Mapping[str, object]) -> None:
    """Insère une ligne, si la table est vide."""
    target = sa.table(table, *(sa.column(name) for name in values))
    if op.get_bind().execute(sa.select(sa.func.count()).select_from(target)).scalar_one() == 0:
        op.execute(target.insert().values(**values))


def _inspector() -> sa.Inspector:
    """Rend un inspecteur neuf, qui n'a rien retenu de l'étape précédente."""
    return sa.inspect(op.get_bind())
