"""Ce que tous les adaptateurs de règles ont en commun : l'interface de Casbin, dite par quelques gestes exacts.

Une règle reste une liste, de la base au modèle ; une empreinte unique fait qu'elle n'existe qu'une fois, et son numéro,
donné sous le verrou du journal et jamais deux fois, est son rang dans la politique.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from casbin.persist.adapters.asyncio import AsyncAdapter

from fastapi_acl.engine.kernel.loading import without_tail
from fastapi_acl.shared.exceptions import RuleNotFoundError
from fastapi_acl.shared.policy import PolicyRule
from fastapi_acl.shared.stored import is_storable, read_number, read_value, unreadable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from datetime import datetime

    from casbin.model import Model

    from fastapi_acl.shared.database.base import AmbientDatabase, Transaction
    from fastapi_acl.shared.exceptions import StoredDataError

COLUMNS: Final = ("v0", "v1", "v2", "v3", "v4", "v5")

PACKET: Final = 1_000
"""Lignes lues ou écrites à la fois : assez pour aller vite, trop peu pour tenir la boucle d'événements."""


class PolicyAdapter(AsyncAdapter, ABC):
    """Les règles dans une base ; chaque écriture est tout ou rien et se joint à la transaction ambiante."""

    _database: AmbientDatabase

    # --- ce que chaque base fait à sa façon ---------------------------------------------------------------------------

    @abstractmethod
    def lines(self, batch_id: str | None = None) -> AsyncGenerator[Sequence[Any]]:
        """Lit toutes les lignes, dans l'ordre, par paquets : numéro, type, puis les six colonnes de valeurs.

        La lecture tient une connexion : on la referme (`contextlib.aclosing`) si l'on s'arrête en chemin.

        Args:
            batch_id: lot à lire ; les règles en vigueur par défaut.
        """

    @abstractmethod
    async def page(self, filters: Mapping[str, str], *, after: int, limit: int) -> list[tuple[int, PolicyRule]]:
        """Lit, après un numéro donné, les règles dont les colonnes ont exactement ces valeurs."""

    @abstractmethod
    async def last_id(self) -> int:
        """Renvoie le plus grand numéro de règle présent, ou 0."""

    @abstractmethod
    async def insert_numbered(self, rules: Sequence[PolicyRule], ids: Sequence[int]) -> None:
        """Ajoute des règles sous ces numéros, toutes ou aucune.

        Raises:
            RuleAlreadyExistsError: l'une existe déjà ; c'est la base qui le dit.
        """

    @abstractmethod
    async def delete(self, rules: Sequence[PolicyRule], *, by_value: bool = False) -> None:
        """Retire exactement ces règles, toutes ou aucune.

        Args:
            rules: règles à retirer.
            by_value: cherche les lignes par leurs valeurs, et non par leur empreinte ; il le faut quand une ligne
                écrite à la main répète une règle sous une autre empreinte.

        Raises:
            RuleNotFoundError: l'une n'existe pas.
        """

    @abstractmethod
    async def clear_policy(self) -> bool:
        """Retire toutes les règles."""

    @abstractmethod
    async def take(self, row_id: int | str) -> Mapping[str, Any]:
        """Retire une ligne par son numéro, quoi qu'elle contienne, et la renvoie colonne par colonne.

        Raises:
            RuleNotFoundError: aucune ligne n'a ce numéro.
        """

    @abstractmethod
    async def open_batch(self, batch_id: str, kind: str) -> None:
        """Ouvre un lot (`import` ou `snapshot`), que rien ne lit encore."""

    @abstractmethod
    async def stage(self, batch_id: str, rules: Sequence[tuple[int, PolicyRule]]) -> None:
        """Range des règles dans un lot, chacune sous son numéro d'ordre."""

    @abstractmethod
    async def prune(self, batch_id: str) -> None:
        """Retire d'un lot les règles qui s'y répètent, sauf la première."""

    @abstractmethod
    async def publish(self, batch_id: str, after: int) -> int:
        """Met en vigueur les règles d'un lot que `prune` a mis au net ; celles qui y sont déjà restent telles quelles.

        Args:
            batch_id: le lot.
            after: numéro de règle auquel s'ajoutent les numéros d'ordre du lot.

        Returns:
            Le nombre de règles ajoutées.
        """

    @abstractmethod
    async def seal(self, batch_id: str) -> None:
        """Marque un lot comme définitif : le journal s'y réfère désormais.

        Raises:
            DatabaseUnavailableError: il a été balayé entre-temps ; rien n'est publié, il faut recommencer.
        """

    @abstractmethod
    async def list_abandoned(self, before: datetime) -> list[str]:
        """Renvoie les lots ouverts avant un instant et jamais rendus définitifs : leur import a été interrompu."""

    @abstractmethod
    async def release(self, batch_ids: Sequence[str]) -> None:
        """Défait `seal` : le journal ne nomme plus ces lots, qu'il reste à retirer, ou qu'un balayage retirera."""

    @abstractmethod
    async def drop(self, batch_id: str) -> None:
        """Retire un lot et ses règles ; définitif, il reste en place, même si l'on vient seulement de l'apprendre."""

    # --- numéros ----------------------------------------------------------------------------------------------------

    async def reserve(self, transaction: Transaction, count: int) -> tuple[int, ...]:
        """Réserve des numéros de règles, dans l'ordre ; la prochaine entrée du journal les rend définitifs.

        Raises:
            TransactionNotOrderedError: le verrou du journal n'est pas tenu.
        """
        head = transaction.check_ordered()
        first = max(head.rule_id, await self.last_id()) + 1
        transaction.head = replace(head, rule_id=first + count - 1)
        return tuple(range(first, first + count))

    async def insert(self, rules: Sequence[PolicyRule]) -> None:
        """Ajoute des règles à la suite, toutes ou aucune, sans rien journaliser.

        Raises:
            RuleAlreadyExistsError: l'une existe déjà.
        """
        async with self._database.transaction(log=True) as transaction:
            ids = await self.reserve(transaction, len(rules))
            await self.insert_numbered(rules, ids)
            await self._database.write_head(transaction, transaction.check_ordered())

    # --- interface d'AsyncAdapter -----------------------------------------------------------------------------------

    async def load_policy(self, model: Model) -> None:
        """Charge toutes les règles dans un modèle Casbin, comme listes."""
        async with aclosing(self.lines()) as packets:
            async for packet in packets:
                for _, ptype, *values in packet:
                    model[ptype[:1]][ptype].policy.append(list(without_tail(values)))

    async def load_filtered_policy(self, model: Model, filter: Any) -> None:  # noqa: A002, ANN401 - signature amont
        """Charge les règles qu'un filtre retient (listes de valeurs admises par colonne)."""
        asked = {place: getattr(filter, name) for place, name in enumerate(("ptype", *COLUMNS))}
        wanted = [(place, values) for place, values in asked.items() if values]
        async with aclosing(self.lines()) as packets:
            async for packet in packets:
                for _, *row in packet:
                    if all(row[place] in values for place, values in wanted):
                        model[row[0][:1]][row[0]].policy.append(list(without_tail(row[1:])))
        self._filtered = True

    def is_filtered(self) -> bool:
        """Dit si le dernier chargement n'a pris qu'une partie des règles."""
        return bool(getattr(self, "_filtered", False))

    async def save_policy(self, model: Model) -> bool:
        """Remplace toute la base par les règles du modèle, en une transaction."""
        sections = (model[section] or {} for section in ("p", "g"))
        rules = [
            PolicyRule.of(ptype, values)
            for section in sections
            for ptype, assertion in section.items()
            for values in assertion.policy
        ]
        async with self._database.transaction(log=True):
            await self.clear_policy()
            await self.insert(rules)
        return True

    async def add_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> None:
        """Ajoute une règle."""
        await self.add_policies(sec, ptype, [rule])

    async def add_policies(self, sec: str, ptype: str, rules: Sequence[Sequence[str]]) -> None:  # noqa: ARG002 - signature amont
        """Ajoute des règles, toutes ou aucune."""
        await self.insert(_rules(ptype, rules))

    async def remove_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> bool:
        """Retire une règle ; False si elle n'existait pas."""
        return await self.remove_policies(sec, ptype, [rule])

    async def remove_policies(self, sec: str, ptype: str, rules: Sequence[Sequence[str]]) -> bool:  # noqa: ARG002 - idem
        """Retire exactement ces règles ; False, et rien n'est changé, si l'une n'existait pas."""
        try:
            async with self._database.transaction():
                await self.delete(_rules(ptype, rules))
        except RuleNotFoundError:
            return False
        return True

    async def remove_filtered_policy(self, sec: str, ptype: str, field_index: int, *field_values: str) -> bool:
        """Retire les règles qu'un filtre retient ; un filtre vide ne retire rien."""
        async with self._database.transaction():
            matched = await self._matching(ptype, field_index, field_values)
            return bool(matched) and await self.remove_policies(sec, ptype, [rule.values for _, rule in matched])

    async def update_policy(self, sec: str, ptype: str, old_rule: Sequence[str], new_rule: Sequence[str]) -> None:
        """Remplace une règle."""
        await self.update_policies(sec, ptype, [old_rule], [new_rule])

    async def update_policies(
        self,
        sec: str,  # noqa: ARG002 - idem
        ptype: str,
        old_rules: Sequence[Sequence[str]],
        new_rules: Sequence[Sequence[str]],
    ) -> None:
        """Remplace des règles, toutes ou aucune ; chacune prend la place de l'ancienne.

        Raises:
            RuleNotFoundError: une ancienne n'existe pas.
            RuleAlreadyExistsError: une nouvelle existe déjà.
        """
        old = _rules(ptype, old_rules)
        async with self._database.transaction():
            ids = [await self._id_of(rule) for rule in old]
            await self.delete(old)
            await self.insert_numbered(_rules(ptype, new_rules), ids)

    async def update_filtered_policies(
        self,
        sec: str,  # noqa: ARG002 - idem
        ptype: str,
        new_rules: Sequence[Sequence[str]],
        field_index: int,
        *field_values: str,
    ) -> list[list[str]]:
        """Remplace les règles qu'un filtre retient par d'autres, ajoutées à la suite, et renvoie les anciennes."""
        async with self._database.transaction(log=True):
            matched = [rule for _, rule in await self._matching(ptype, field_index, field_values)]
            if matched:
                await self.delete(matched)
                await self.insert(_rules(ptype, new_rules))
        return [list(rule.values) for rule in matched]

    async def _id_of(self, rule: PolicyRule) -> int:
        """Renvoie le numéro d'une règle.

        Raises:
            RuleNotFoundError: elle n'existe pas.
        """
        filters = {"ptype": rule.ptype, **dict(zip(COLUMNS, rule.values, strict=False))}
        for number, found in await self.page(filters, after=-1, limit=PACKET):
            if found == rule:
                return number
        raise RuleNotFoundError(rule=rule.as_json())

    async def _matching(self, ptype: str, index: int, values: Sequence[str]) -> list[tuple[int, PolicyRule]]:
        """Renvoie les règles d'un type qu'un filtre non vide retient."""
        wanted = {COLUMNS[place]: value for place, value in enumerate(values, start=index) if value}
        if not wanted:
            return []
        found: list[tuple[int, PolicyRule]] = []
        after = -1
        while packet := await self.page({"ptype": ptype, **wanted}, after=after, limit=PACKET):
            found += packet
            after = packet[-1][0]
        return found


def digest(rule: PolicyRule) -> str:
    """Renvoie l'empreinte d'une règle : SHA-256 de ses textes, chacun précédé de sa longueur, donc sans ambiguïté."""
    state = hashlib.sha256()
    for text in (rule.ptype, *rule.values):
        encoded = text.encode()
        state.update(len(encoded).to_bytes(4, "big"))
        state.update(encoded)
    return state.hexdigest()


def show_value(value: Any) -> str | None:  # noqa: ANN401 - ce que la base a rendu
    """Renvoie une valeur sous une forme que le journal garde."""
    return value if value is None or (type(value) is str and is_storable(value)) else repr(value)[:250]


def show_rule(ptype: Any, values: Sequence[Any]) -> PolicyRule:  # noqa: ANN401 - idem
    """Refait une règle pour la montrer ; ce qu'une main y a mis et qui n'est pas un texte y est montré comme tel."""
    return PolicyRule(show_value(ptype) or "", without_tail([show_value(value) for value in values]))


def last_number(value: object) -> int:
    """Lit le plus grand numéro de règle que la base ait rendu.

    Raises:
        StoredDataError: ce n'est pas un numéro que l'on puisse avancer.
    """
    return read_value(("casbin_rule", "id", value, "id"), value, read_number)


def blame_batch(batch_id: str, fault: str) -> StoredDataError:
    """Nomme un lot où une main a mis ce que nous n'y avions pas, ou d'où elle l'a retiré ; renvoie l'erreur à lever."""
    return unreadable("acl_batch_rules", f"batch_id={batch_id} ({fault})")


def columns(rule: PolicyRule) -> dict[str, str | None]:
    """Range une règle dans les colonnes de sa table ; les inutilisées sont NULL, comme l'écrit l'amont."""
    padded = (*rule.values, *[None] * (len(COLUMNS) - len(rule.values)))
    return {"ptype": rule.ptype, "digest": digest(rule), **dict(zip(COLUMNS, padded, strict=True))}


def _rules(ptype: str, rows: Iterable[Sequence[str]]) -> list[PolicyRule]:
    return [PolicyRule.of(ptype, row) for row in rows]
