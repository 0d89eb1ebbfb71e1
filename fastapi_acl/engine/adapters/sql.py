"""Règles dans une base SQL : l'adaptateur amont, dont chaque lecture et chaque écriture est refaite.

L'amont joint les colonnes par « , » pour les relire : un compte nommé `mallory, admin` y devient administrateur. Ici
une règle reste une liste, de la base au modèle, et une empreinte unique fait qu'elle n'existe qu'une fois.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, cast, final

from casbin_async_sqlalchemy_adapter import Adapter
from sqlalchemy import Integer, Select, String, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from fastapi_acl.engine.loading import without_tail
from fastapi_acl.shared.database.tables import Base
from fastapi_acl.shared.exceptions import RuleAlreadyExistsError, RuleNotFoundError
from fastapi_acl.shared.policy import PolicyRule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from casbin.model import Model
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncSession

    from fastapi_acl.shared.database.sql import SQLDatabase

COLUMNS: Final = ("v0", "v1", "v2", "v3", "v4", "v5")
BATCH: Final = 400
"""Règles par instruction : SQLite n'admet que 32 766 paramètres, et d'anciennes versions 999."""


class CasbinRuleModel(Base):
    """Une règle ; ses valeurs inutilisées sont NULL, comme l'écrit l'amont."""

    __tablename__ = "casbin_rule"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    ptype: Mapped[str] = mapped_column(String(255))
    v0: Mapped[str | None] = mapped_column(String(255))
    v1: Mapped[str | None] = mapped_column(String(255))
    v2: Mapped[str | None] = mapped_column(String(255))
    v3: Mapped[str | None] = mapped_column(String(255))
    v4: Mapped[str | None] = mapped_column(String(255))
    v5: Mapped[str | None] = mapped_column(String(255))
    digest: Mapped[str] = mapped_column(String(64), unique=True)


PACKET: Final = 1_000
"""Lignes lues à la fois : assez pour aller vite, trop peu pour tenir la boucle d'événements."""

_TABLE: Final = cast("Table", CasbinRuleModel.__table__)
_QUERY: Final = select(_TABLE.c.id, _TABLE.c.ptype, *(_TABLE.c[name] for name in COLUMNS)).order_by(_TABLE.c.id)


@final
class SQLPolicyAdapter(Adapter):
    """Adaptateur Casbin sur `SQLDatabase` : il se joint à la transaction ambiante."""

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

    async def lines(self) -> AsyncIterator[Sequence[Any]]:
        """Lit toutes les lignes, dans l'ordre, par paquets : numéro, type, puis les colonnes de valeurs."""
        async with self._session_scope() as session:
            result = await session.stream(_QUERY, execution_options={"yield_per": PACKET})
            async for packet in result.partitions():
                yield packet

    async def read_rules(self) -> list[tuple[int, PolicyRule]]:
        """Lit toutes les règles, dans l'ordre, avec leur numéro de ligne."""
        return await self._select(_QUERY)

    async def page(self, filters: Mapping[str, str], *, after: int, limit: int) -> list[tuple[int, PolicyRule]]:
        """Lit, après une ligne donnée, les règles dont les colonnes ont ces valeurs."""
        if any("\x00" in value for value in filters.values()):
            return []  # aucune règle ne contient NUL, que PostgreSQL refuse jusque dans une question
        wanted = [_TABLE.c[name] == value for name, value in filters.items()]
        return await self._select(_QUERY.where(_TABLE.c.id > after, *wanted).limit(limit))

    async def _select(self, query: Select[Any]) -> list[tuple[int, PolicyRule]]:
        """Exécute une lecture et refait les règles."""
        async with self._session_scope() as session:
            rows = (await session.execute(query)).all()
        return [(row[0], PolicyRule(row[1], without_tail(row[2:]))) for row in rows]

    async def insert(self, rules: Sequence[PolicyRule]) -> None:
        """Ajoute des règles, toutes ou aucune.

        Raises:
            RuleAlreadyExistsError: l'une existe déjà ; c'est la base qui le dit.
        """
        try:
            async with self._session_scope() as session:
                for part in _batches(rules):
                    await session.execute(insert(_TABLE), [_row(rule) for rule in part])
        except IntegrityError as error:
            raise RuleAlreadyExistsError from error

    async def delete(self, rules: Sequence[PolicyRule]) -> None:
        """Retire exactement ces règles, toutes ou aucune.

        Raises:
            RuleNotFoundError: l'une n'existe pas.
        """
        async with self._session_scope() as session:
            for part in _batches(rules):
                digests = [digest(rule) for rule in part]
                result: Any = await session.execute(delete(_TABLE).where(_TABLE.c.digest.in_(digests)))
                if result.rowcount != len(digests):
                    raise RuleNotFoundError

    # --- interface d'AsyncAdapter ---------------------------------------------------------------------------------

    async def load_policy(self, model: Model) -> None:
        """Charge toutes les règles dans un modèle Casbin, comme listes."""
        for _, rule in await self.read_rules():
            model[rule.section][rule.ptype].policy.append(list(rule.values))

    async def load_filtered_policy(self, model: Model, filter: Any) -> None:  # noqa: A002, ANN401 - signature amont
        """Charge les règles qu'un filtre retient (listes de valeurs admises par colonne)."""
        wanted = {name: getattr(filter, name) for name in ("ptype", *COLUMNS) if getattr(filter, name)}
        for _, rule in await self.read_rules():
            row = _row(rule)
            if all(row[name] in values for name, values in wanted.items()):
                model[rule.section][rule.ptype].policy.append(list(rule.values))
        self._filtered = True

    async def save_policy(self, model: Model) -> bool:
        """Remplace toute la base par les règles du modèle, en une transaction."""
        sections = (model[section] or {} for section in ("p", "g"))
        rules = [
            PolicyRule.of(ptype, values)
            for section in sections
            for ptype, assertion in section.items()
            for values in assertion.policy
        ]
        async with self._database.transaction():
            await self.clear_policy()
            await self.insert(rules)
        return True

    async def clear_policy(self) -> bool:
        """Retire toutes les règles."""
        async with self._session_scope() as session:
            await session.execute(delete(_TABLE))
        return True

    async def add_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> None:
        """Ajoute une règle."""
        await self.add_policies(sec, ptype, [rule])

    async def add_policies(self, sec: str, ptype: str, rules: Sequence[Sequence[str]]) -> None:  # noqa: ARG002 - signature amont
        """Ajoute des règles, toutes ou aucune."""
        await self.insert([PolicyRule.of(ptype, rule) for rule in rules])

    async def remove_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> bool:
        """Retire une règle ; False si elle n'existait pas."""
        return await self.remove_policies(sec, ptype, [rule])

    async def remove_policies(self, sec: str, ptype: str, rules: Sequence[Sequence[str]]) -> bool:  # noqa: ARG002 - idem
        """Retire exactement ces règles ; False, et rien n'est changé, si l'une n'existait pas."""
        try:
            async with self._database.transaction():
                await self.delete([PolicyRule.of(ptype, rule) for rule in rules])
        except RuleNotFoundError:
            return False
        return True

    async def remove_filtered_policy(self, sec: str, ptype: str, field_index: int, *field_values: str) -> bool:
        """Retire les règles qu'un filtre retient ; un filtre vide ne retire rien."""
        matched = await self._matching(ptype, field_index, field_values)
        return bool(matched) and await self.remove_policies(sec, ptype, [rule.values for rule in matched])

    async def update_policy(self, sec: str, ptype: str, old_rule: Sequence[str], new_rule: Sequence[str]) -> None:
        """Remplace une règle."""
        await self.update_policies(sec, ptype, [old_rule], [new_rule])

    async def update_policies(
        self,
        sec: str,  # noqa: ARG002 - signature amont
        ptype: str,
        old_rules: Sequence[Sequence[str]],
        new_rules: Sequence[Sequence[str]],
    ) -> None:
        """Remplace des règles, toutes ou aucune.

        Raises:
            RuleNotFoundError: une ancienne n'existe pas.
            RuleAlreadyExistsError: une nouvelle existe déjà.
        """
        async with self._database.transaction():
            await self.delete([PolicyRule.of(ptype, rule) for rule in old_rules])
            await self.insert([PolicyRule.of(ptype, rule) for rule in new_rules])

    async def update_filtered_policies(
        self, sec: str, ptype: str, new_rules: Sequence[Sequence[str]], field_index: int, *field_values: str
    ) -> list[list[str]]:
        """Remplace les règles qu'un filtre retient, et rend les anciennes."""
        async with self._database.transaction():
            matched = await self._matching(ptype, field_index, field_values)
            await self.update_policies(sec, ptype, [rule.values for rule in matched], new_rules)
        return [list(rule.values) for rule in matched]

    async def _matching(self, ptype: str, index: int, values: Sequence[str]) -> list[PolicyRule]:
        """Rend les règles d'un type qu'un filtre non vide retient."""
        wanted = {place: value for place, value in enumerate(values, start=index) if value}
        return [
            rule
            for _, rule in (await self.read_rules() if wanted else [])
            if rule.ptype == ptype
            and all(place < len(rule.values) and rule.values[place] == value for place, value in wanted.items())
        ]


def digest(rule: PolicyRule) -> str:
    """Rend l'empreinte d'une règle : SHA-256 de ses textes, chacun précédé de sa longueur, donc sans ambiguïté."""
    state = hashlib.sha256()
    for text in (rule.ptype, *rule.values):
        encoded = text.encode()
        state.update(len(encoded).to_bytes(4, "big"))
        state.update(encoded)
    return state.hexdigest()


def _row(rule: PolicyRule) -> dict[str, str | None]:
    """Range une règle dans les colonnes de la table."""
    padded = (*rule.values, *[None] * (len(COLUMNS) - len(rule.values)))
    return {"ptype": rule.ptype, "digest": digest(rule), **dict(zip(COLUMNS, padded, strict=True))}


def _batches(rules: Sequence[PolicyRule]) -> Iterator[Sequence[PolicyRule]]:
    """Coupe une longue suite en instructions de taille admise."""
    return (rules[start : start + BATCH] for start in range(0, len(rules), BATCH))
