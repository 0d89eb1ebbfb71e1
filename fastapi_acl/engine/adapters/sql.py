"""Règles dans une base SQL : l'adaptateur amont, dont chaque lecture et chaque écriture est refaite.

L'amont joint les colonnes par « , » pour les relire : un compte nommé `mallory, admin` y devient administrateur.
"""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, cast, final

from casbin_async_sqlalchemy_adapter import Adapter
from sqlalchemy import BigInteger, Integer, String, and_, delete, exists, func, insert, literal, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from fastapi_acl.engine.adapters.base import (
    COLUMNS,
    PACKET,
    PolicyAdapter,
    blame_batch,
    columns,
    digest,
    last_number,
    show_rule,
    show_value,
)
from fastapi_acl.shared.database.tables import Base, batch_rules_table, batches_table
from fastapi_acl.shared.exceptions import DatabaseUnavailableError, RuleAlreadyExistsError, RuleNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.ext.asyncio import AsyncSession

    from fastapi_acl.shared.database.base import Transaction
    from fastapi_acl.shared.database.sql import SQLDatabase
    from fastapi_acl.shared.policy import PolicyRule

BATCH: Final = 400
"""Empreintes par instruction : SQLite n'admet que 32 766 paramètres, et d'anciennes versions 999."""


class CasbinRuleModel(Base):
    """Une règle ; son numéro est son rang dans la politique."""

    __tablename__ = "casbin_rule"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    ptype: Mapped[str] = mapped_column(String(255))
    v0: Mapped[str | None] = mapped_column(String(255))
    v1: Mapped[str | None] = mapped_column(String(255))
    v2: Mapped[str | None] = mapped_column(String(255))
    v3: Mapped[str | None] = mapped_column(String(255))
    v4: Mapped[str | None] = mapped_column(String(255))
    v5: Mapped[str | None] = mapped_column(String(255))
    digest: Mapped[str] = mapped_column(String(64), unique=True)


_RULES: Final = cast("Table", CasbinRuleModel.__table__)
_CONTENT: Final = ("ptype", *COLUMNS)
_QUERY: Final = select(_RULES.c.id, *(_RULES.c[name] for name in _CONTENT)).order_by(_RULES.c.id)
_BATCH_QUERY: Final = select(batch_rules_table.c.number, *(batch_rules_table.c[name] for name in _CONTENT)).order_by(
    batch_rules_table.c.number
)


@final
class SQLPolicyAdapter(PolicyAdapter, Adapter):
    """Adaptateur Casbin sur `SQLDatabase` : il se joint à la transaction ambiante."""

    _database: SQLDatabase

    def __init__(self, database: SQLDatabase) -> None:
        """Retient la base.

        Le constructeur amont n'est pas appelé : il remplacerait les métadonnées de l'amont pour tout le processus.

        Args:
            database: base où les règles sont gardées.
        """
        self._database = database
        self._db_class = CasbinRuleModel
        self._filtered = False
        self.softdelete_attribute = None

    def _session_scope(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Donne la session ambiante, ou une transaction à elle seule."""
        return self._database.session()

    async def lines(self, batch_id: str | None = None) -> AsyncGenerator[Sequence[Any]]:
        """Lit toutes les lignes, dans l'ordre, par paquets."""
        query = _QUERY if batch_id is None else _BATCH_QUERY.where(batch_rules_table.c.batch_id == batch_id)
        reading = self._database.reading()
        async with reading as opened, aclosing(self._database.packets(opened, query, PACKET)) as packets:
            async for packet in packets:
                yield packet

    async def page(self, filters: Mapping[str, str], *, after: int, limit: int) -> list[tuple[int, PolicyRule]]:
        """Lit, après un numéro donné, les règles dont les colonnes ont exactement ces valeurs."""
        if any("\x00" in value for value in filters.values()):
            return []  # aucune règle ne contient NUL, que PostgreSQL refuse jusque dans une question
        wanted = [_is(name, value) for name, value in filters.items()]
        async with self._database.snapshot() as reading:
            query = _QUERY.where(_RULES.c.id > after, *wanted).limit(limit)
            rows = (await reading.connection.execute(query)).all()
        return [(row[0], show_rule(row[1], row[2:])) for row in rows]

    async def last_id(self) -> int:
        """Renvoie le plus grand numéro de règle présent, ou 0."""
        async with self._session_scope() as session:
            return last_number((await session.scalar(select(func.max(_RULES.c.id)))) or 0)

    async def reserve(self, transaction: Transaction, count: int) -> tuple[int, ...]:
        """Réserve des numéros, que la base ne donnera pas non plus à une ligne écrite à la main."""
        ids = await super().reserve(transaction, count)
        await self._database.advance_numbers(transaction, _RULES, ids[-1])
        return ids

    async def insert_numbered(self, rules: Sequence[PolicyRule], ids: Sequence[int]) -> None:
        """Ajoute des règles sous ces numéros."""
        rows = [{"id": number, **columns(rule)} for number, rule in zip(ids, rules, strict=True)]
        try:
            async with self._session_scope() as session:
                for part in _parts(rows, PACKET):
                    await session.execute(insert(_RULES), part)
        except IntegrityError as error:
            if "digest" not in str(error.orig):
                raise DatabaseUnavailableError from error  # un numéro pris à la main entre-temps : à réessayer
            raise RuleAlreadyExistsError from error

    async def delete(self, rules: Sequence[PolicyRule], *, by_value: bool = False) -> None:
        """Retire exactement ces règles ; une empreinte refaite à la main renvoie aux valeurs."""
        async with self._session_scope() as session:
            for part in _parts(rules, BATCH):
                for rule in part if by_value else await _delete_by_digest(session, part):
                    if not await _delete_where(session, (_RULES.c.digest == digest(rule)) | _has_values_of(rule)):
                        raise RuleNotFoundError(rule=rule.as_json())

    async def clear_policy(self) -> bool:
        """Retire toutes les règles."""
        async with self._database.transaction() as transaction:
            await self._database.bulk_execute(transaction, delete(_RULES))
        return True

    async def take(self, row_id: int | str) -> Mapping[str, Any]:
        """Retire une ligne par son numéro et la renvoie."""
        if not isinstance(row_id, int):
            raise RuleNotFoundError(id=row_id)
        async with self._session_scope() as session:
            row = (await session.execute(_QUERY.where(_RULES.c.id == row_id))).one_or_none()
            if row is None:
                raise RuleNotFoundError(id=row_id)
            await session.execute(delete(_RULES).where(_RULES.c.id == row_id))
        return {"id": row_id} | {name: show_value(row._mapping[name]) for name in _CONTENT}  # noqa: SLF001 - l'interface publique d'une ligne, malgré son nom

    async def open_batch(self, batch_id: str, kind: str) -> None:
        """Ouvre un lot."""
        row = {"id": batch_id, "kind": kind, "created_at": datetime.now(timezone.utc), "published": False}
        async with self._session_scope() as session:
            await session.execute(insert(batches_table).values(row))

    async def stage(self, batch_id: str, rules: Sequence[tuple[int, PolicyRule]]) -> None:
        """Range des règles dans un lot."""
        rows = [{"batch_id": batch_id, "number": number, **columns(rule)} for number, rule in rules]
        async with self._database.transaction() as transaction:
            await self._database.bulk_insert(transaction, batch_rules_table, rows)

    async def prune(self, batch_id: str) -> None:
        """Retire d'un lot les règles qui s'y répètent."""
        batch = batch_rules_table.c
        inside = batch.batch_id == batch_id
        place = func.row_number().over(partition_by=batch.digest, order_by=batch.number).label("place")
        placed = select(batch.number, place).where(inside).subquery()
        repeated = select(placed.c.number).where(placed.c.place > 1)
        async with self._database.transaction() as transaction:
            useless = delete(batch_rules_table).where(inside, batch.number.in_(repeated))
            await self._database.bulk_execute(transaction, useless)

    async def publish(self, batch_id: str, after: int) -> int:
        """Met les règles d'un lot en vigueur."""
        batch = batch_rules_table.c
        content = [batch[name] for name in (*_CONTENT, "digest")]
        absent = ~exists().where(_RULES.c.digest == batch.digest)
        fresh = select(batch.number + literal(after), *content).where(batch.batch_id == batch_id, absent)
        source = fresh.order_by(batch.number)
        async with self._database.transaction() as transaction:
            try:
                return await self._database.bulk_copy(transaction, _RULES, ["id", *_CONTENT, "digest"], source)
            except IntegrityError as error:
                raise blame_batch(batch_id, "une règle s’y répète") from error

    async def seal(self, batch_id: str) -> None:
        """Marque un lot comme définitif."""
        sealed = update(batches_table).where(batches_table.c.id == batch_id).values(published=True)
        async with self._session_scope() as session:
            result: Any = await session.execute(sealed)
            if not result.rowcount:
                raise DatabaseUnavailableError

    async def list_abandoned(self, before: datetime) -> list[str]:
        """Renvoie les lots ouverts avant un instant et jamais rendus définitifs."""
        batches = batches_table.c
        query = select(batches.id).where(batches.created_at < before, batches.published.is_(False))
        async with self._session_scope() as session:
            return list(await session.scalars(query))

    async def release(self, batch_ids: Sequence[str]) -> None:
        """Défait `seal`."""
        released = update(batches_table).where(batches_table.c.id.in_(batch_ids)).values(published=False)
        async with self._session_scope() as session:
            await session.execute(released)

    async def drop(self, batch_id: str) -> None:
        """Retire un lot et ses règles ; la ligne du lot d'abord, dont le verrou attend une validation en doute."""
        batches = batches_table.c
        found = delete(batches_table).where(batches.id == batch_id, batches.published.is_(False))
        content = delete(batch_rules_table).where(batch_rules_table.c.batch_id == batch_id)
        async with self._database.transaction() as transaction:
            if await self._database.bulk_execute(transaction, found):
                await self._database.bulk_execute(transaction, content)


async def _delete_by_digest(session: AsyncSession, rules: Sequence[PolicyRule]) -> Sequence[PolicyRule]:
    """Retire des règles par leurs empreintes, et renvoie celles qui ne l'ont pas été."""
    digests = {digest(rule): rule for rule in rules}
    known = list(digests)
    if len(known) > 1:
        known = list(await session.scalars(select(_RULES.c.digest).where(_RULES.c.digest.in_(known))))
    found = await _delete_where(session, _RULES.c.digest.in_(known)) if known else 0
    return [] if found == len(rules) else [rule for one, rule in digests.items() if one not in known or not found]


async def _delete_where(session: AsyncSession, wanted: ColumnElement[bool]) -> int:
    result: Any = await session.execute(delete(_RULES).where(wanted))
    return int(result.rowcount)


def _has_values_of(rule: PolicyRule) -> ColumnElement[bool]:
    """Retient les lignes qui ont exactement les valeurs d'une règle, quelle que soit leur empreinte."""
    return and_(*(_is(name, value) for name, value in columns(rule).items() if name != "digest"))


def _is(name: str, value: str | None) -> ColumnElement[bool]:
    """Compare une colonne à une valeur exacte."""
    column = _RULES.c[name]
    return column.is_(None) if value is None else column == value


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Coupe une longue suite en instructions de taille admise."""
    return (items[start : start + size] for start in range(0, len(items), size))
