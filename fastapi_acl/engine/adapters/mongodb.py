"""Règles dans MongoDB : un document par règle, dont la clé est le numéro."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, final

from bson import ObjectId
from pymongo import ASCENDING, IndexModel
from pymongo.errors import PyMongoError

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
from fastapi_acl.shared.database.mongodb import as_text, is_duplicate
from fastapi_acl.shared.exceptions import (
    DatabaseUnavailableError,
    InvalidRuleError,
    RuleAlreadyExistsError,
    RuleNotFoundError,
)
from fastapi_acl.shared.stored import MISREADINGS, read_digest, read_number

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

    from fastapi_acl.shared.database.mongodb import MongoDatabase
    from fastapi_acl.shared.policy import PolicyRule
    from fastapi_acl.shared.stored import Shape

INDEXES: Final[Mapping[str, list[IndexModel]]] = {
    "casbin_rule": [IndexModel("digest", unique=True)],
    "acl_batches": [IndexModel("created_at")],
    "acl_batch_rules": [IndexModel([("batch_id", ASCENDING), ("number", ASCENDING)], unique=True)],
}
"""Les collections des règles, et leurs index au-delà de `_id`."""

_CONTENT: Final = ("ptype", *COLUMNS)
CONDEMNED: Final = "condemned"
"""Nature d'un lot qui part."""

_STAGED: Final[Shape] = {"number": read_number, "digest": read_digest}
"""Ce qu'une règle d'un lot doit avoir pour être mise en vigueur."""

_ORDER: Final = {True: "_id", False: "number"}


@final
class MongoPolicyAdapter(PolicyAdapter):
    """Adaptateur Casbin sur `MongoDatabase` : il se joint à la transaction ambiante."""

    _database: MongoDatabase

    def __init__(self, database: MongoDatabase) -> None:
        """Retient la base.

        Args:
            database: base où les règles sont gardées.
        """
        self._database = database

    async def lines(self, batch_id: str | None = None) -> AsyncGenerator[Sequence[Any]]:
        """Lit toutes les lignes, dans l'ordre, par paquets."""
        number = _ORDER[batch_id is None]
        source = self._rules if batch_id is None else self._batch_rules
        wanted = {} if batch_id is None else {"batch_id": batch_id}
        async with self._database.reading() as reading:
            found = source.find(wanted, session=reading.connection, batch_size=PACKET).sort(number, 1)
            while packet := await found.to_list(PACKET):
                yield [_line(document, number) for document in packet]

    async def page(self, filters: Mapping[str, str], *, after: int, limit: int) -> list[tuple[int, PolicyRule]]:
        """Lit, après un numéro donné, les règles dont les champs ont exactement ces valeurs."""
        wanted = {name: {"$eq": _text(value)} for name, value in filters.items()}
        async with self._database.snapshot() as reading:
            found = self._rules.find({**wanted, "_id": {"$gt": after}}, session=reading.connection)
            documents = await found.sort("_id", 1).limit(limit).to_list(limit)
        return [(one["_id"], show_rule(one.get("ptype"), [one.get(name) for name in COLUMNS])) for one in documents]

    async def last_id(self) -> int:
        """Renvoie le plus grand numéro de règle présent, ou 0."""
        async with self._database.session() as session:
            numbered = {"_id": {"$type": ["int", "long"]}}  # un document mis à la main peut avoir une autre clé
            found = await self._rules.find_one(numbered, {"_id": 1}, sort=[("_id", -1)], session=session)
        return last_number(found["_id"] if found is not None else 0)

    async def insert_numbered(self, rules: Sequence[PolicyRule], ids: Sequence[int]) -> None:
        """Ajoute des règles sous ces numéros."""
        documents = [{"_id": number, **_fields(rule)} for number, rule in zip(ids, rules, strict=True)]
        try:
            async with self._database.transaction() as transaction:
                with transaction.condemn_unless_done():
                    for part in _parts(documents):
                        await self._rules.insert_many(part, session=transaction.connection)
        except PyMongoError as error:
            if not is_duplicate(error):
                raise  # un refus, ou un conflit, que la transaction ambiante traduit
            if not _names_digest(error):
                raise DatabaseUnavailableError from error  # un numéro pris à la main entre-temps : à réessayer
            raise RuleAlreadyExistsError from error

    async def delete(self, rules: Sequence[PolicyRule], *, by_value: bool = False) -> None:
        """Retire exactement ces règles ; une empreinte refaite à la main renvoie aux valeurs."""
        async with self._database.transaction() as transaction:
            with transaction.condemn_unless_done():
                for part in _parts(rules):
                    for rule in part if by_value else await self._delete_by_digest(part, transaction.connection):
                        wanted = {"$or": [{"digest": digest(rule)}, _values_of(rule)]}
                        if not await self._delete_where(wanted, transaction.connection):
                            raise RuleNotFoundError(rule=rule.as_json())

    async def clear_policy(self) -> bool:
        """Retire toutes les règles."""
        async with self._database.session() as session:
            await self._delete_where({}, session)
        return True

    async def take(self, row_id: int | str) -> Mapping[str, Any]:
        """Retire une ligne par sa clé et la renvoie ; ce qui n'est pas un texte y est montré comme tel."""
        keys = [row_id, *([ObjectId(row_id)] if isinstance(row_id, str) and ObjectId.is_valid(row_id) else [])]
        async with self._database.session() as session:
            found = await self._rules.find_one_and_delete({"_id": {"$in": keys}}, session=session)
        if found is None:
            raise RuleNotFoundError(id=row_id)
        return {"id": row_id} | {name: show_value(found.get(name)) for name in _CONTENT}

    async def open_batch(self, batch_id: str, kind: str) -> None:
        """Ouvre un lot."""
        opened = {"_id": batch_id, "kind": kind, "created_at": as_text(datetime.now(timezone.utc)), "published": False}
        async with self._database.session() as session:
            await self._batches.insert_one(opened, session=session)

    async def stage(self, batch_id: str, rules: Sequence[tuple[int, PolicyRule]]) -> None:
        """Range des règles dans un lot."""
        documents = [{"batch_id": batch_id, "number": number, **_fields(rule)} for number, rule in rules]
        async with self._database.session() as session:
            for part in _parts(documents):
                await self._batch_rules.insert_many(part, session=session)

    async def prune(self, batch_id: str) -> None:
        """Retire d'un lot les règles qui s'y répètent."""
        seen: set[bytes] = set()
        async with self._database.session() as session:
            staged = self._batch_rules.find({"batch_id": batch_id}, {"digest": 1}, session=session, batch_size=PACKET)
            ordered = staged.sort("number", 1)
            while packet := await ordered.to_list(PACKET):
                useless = [one["_id"] for one in packet if _is_again(_read_staged(batch_id, one, "digest"), seen)]
                if useless:
                    await self._batch_rules.delete_many({"_id": {"$in": useless}}, session=session)

    async def publish(self, batch_id: str, after: int) -> int:
        """Met en vigueur les règles d'un lot."""
        added = 0
        async with self._database.transaction() as transaction:
            session = transaction.connection
            staged = self._batch_rules.find({"batch_id": batch_id}, {"_id": 0, "batch_id": 0}, session=session)
            ordered = staged.sort("number", 1)
            while packet := await ordered.to_list(PACKET):
                documents = [_in_force(batch_id, one, after) for one in packet]
                known = await self._list_present([one["digest"] for one in documents], session)
                fresh = [one for one in documents if one["digest"] not in known]
                if fresh:
                    added += await self._insert(batch_id, fresh, session)
        return added

    async def seal(self, batch_id: str) -> None:
        """Marque un lot comme définitif."""
        async with self._database.session() as session:
            wanted = {"_id": batch_id, "kind": {"$ne": CONDEMNED}}
            found = await self._batches.update_one(wanted, {"$set": {"published": True}}, session=session)
        if not found.matched_count:
            raise DatabaseUnavailableError

    async def list_abandoned(self, before: datetime) -> list[str]:
        """Renvoie les lots ouverts avant un instant et jamais rendus définitifs."""
        wanted = {"created_at": {"$lt": as_text(before)}, "published": False}
        async with self._database.session() as session:
            return [one["_id"] async for one in self._batches.find(wanted, {"_id": 1}, session=session)]

    async def release(self, batch_ids: Sequence[str]) -> None:
        """Défait `seal`."""
        async with self._database.session() as session:
            await self._batches.update_many(
                {"_id": {"$in": batch_ids}}, {"$set": {"published": False}}, session=session
            )

    async def drop(self, batch_id: str) -> None:
        """Retire un lot et ses règles : condamné d'abord, retiré en dernier, de sorte qu'un balayage puisse finir."""
        condemned = {"$set": {"kind": CONDEMNED}}
        async with self._database.session() as session:
            found = await self._batches.update_one({"_id": batch_id, "published": False}, condemned, session=session)
            if found.matched_count:
                await self._batch_rules.delete_many({"batch_id": batch_id}, session=session)
                await self._batches.delete_one({"_id": batch_id}, session=session)

    @property
    def _rules(self) -> Any:  # noqa: ANN401 - du pilote
        return self._database.collection("casbin_rule")

    @property
    def _batches(self) -> Any:  # noqa: ANN401 - du pilote
        return self._database.collection("acl_batches")

    @property
    def _batch_rules(self) -> Any:  # noqa: ANN401 - du pilote
        return self._database.collection("acl_batch_rules")

    async def _insert(self, batch_id: str, documents: Sequence[Mapping[str, Any]], session: Any) -> int:  # noqa: ANN401 - du pilote
        """Ajoute les règles d'un lot, et renvoie leur nombre.

        Raises:
            StoredDataError: une main a mis dans le lot, ou sous un de ces numéros, ce que nous n'y avons pas mis.
        """
        try:
            return len((await self._rules.insert_many(documents, session=session)).inserted_ids)
        except PyMongoError as error:
            if not is_duplicate(error):
                raise
            raise blame_batch(batch_id, "une règle s’y répète") from error

    async def _delete_by_digest(self, rules: Sequence[PolicyRule], session: Any) -> Sequence[PolicyRule]:  # noqa: ANN401 - du pilote
        """Retire des règles par leurs empreintes, et renvoie celles qui ne l'ont pas été."""
        digests = {digest(rule): rule for rule in rules}
        known = await self._list_present(list(digests), session)
        _ = await self._delete_where({"digest": {"$in": sorted(known)}}, session)
        return [rule for one, rule in digests.items() if one not in known]

    async def _delete_where(self, wanted: Mapping[str, Any], session: Any) -> int:  # noqa: ANN401 - du pilote
        return int((await self._rules.delete_many(wanted, session=session)).deleted_count)

    async def _list_present(self, digests: Sequence[str], session: Any) -> set[str]:  # noqa: ANN401 - du pilote
        """Renvoie, parmi des empreintes, celles de règles en vigueur."""
        found = self._rules.find({"digest": {"$in": digests}}, {"digest": 1}, session=session)
        return {one["digest"] async for one in found}


def _fields(rule: PolicyRule) -> dict[str, Any]:
    """Range une règle dans son document.

    Raises:
        InvalidRuleError: une valeur n'est pas un texte, et la base y lirait un opérateur.
    """
    for value in (rule.ptype, *rule.values):
        _ = _text(value)
    return columns(rule)


def _text(value: object) -> str:
    """Renvoie une valeur, qui ne peut être qu'un texte.

    Raises:
        InvalidRuleError: elle n'en est pas un.
    """
    if type(value) is not str:
        message = "Règle refusée : une valeur n’est pas un texte ; rien n’a été changé."
        raise InvalidRuleError(message)
    return value


def _values_of(rule: PolicyRule) -> dict[str, Any]:
    """Retient les documents qui ont exactement les valeurs d'une règle, quelle que soit leur empreinte."""
    return {name: {"$eq": value} for name, value in _fields(rule).items() if name != "digest"}


def _line(document: Mapping[str, Any], number: str) -> tuple[Any, ...]:
    """Renvoie une ligne : numéro, type, colonnes ; ce qu'on y a mis à la main est rendu tel quel, pour être refusé."""
    key = document.get(number)
    return (int(key) if isinstance(key, int) else key, *(_hashable(document.get(name)) for name in _CONTENT))


def _hashable(value: Any) -> Any:  # noqa: ANN401 - ce qu'un document contient
    """Renvoie une valeur qu'un dictionnaire admet."""
    return value if value is None or type(value) is str else repr(type(value)).encode()


def _in_force(batch_id: str, staged: Mapping[str, Any], after: int) -> dict[str, Any]:
    """Fait, d'une règle d'un lot, le document qui la met en vigueur."""
    number, digest = (_read_staged(batch_id, staged, name) for name in _STAGED)
    return {"_id": number + after, "digest": digest, **{name: staged.get(name) for name in _CONTENT}}


def _read_staged(batch_id: str, document: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - un texte ou un nombre
    """Lit le champ d'une règle d'un lot.

    Raises:
        StoredDataError: une main y a mis ce que nous n'y avions pas mis.
    """
    try:
        return _STAGED[name](document[name])
    except MISREADINGS as error:
        raise blame_batch(batch_id, f"« {name} » ne s’y lit pas") from error


def _is_again(found: str, seen: set[bytes]) -> bool:
    """Dit si une empreinte a déjà été vue, et la retient."""
    key = bytes.fromhex(found)
    if key in seen:
        return True
    seen.add(key)
    return False


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + PACKET] for start in range(0, len(items), PACKET))


def _names_digest(error: PyMongoError) -> bool:
    """Dit si un doublon est celui d'une empreinte ; le texte de l'erreur, lui, cite le document entier."""
    details: Mapping[str, Any] = getattr(error, "details", None) or {}
    return any("digest" in one.get("errmsg", "") for one in (details, *details.get("writeErrors", ())))
