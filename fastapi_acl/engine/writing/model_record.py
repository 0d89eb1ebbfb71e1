"""Le modèle sous lequel les règles d'une base ont été écrites : le journal en garde l'empreinte.

Lues sous un autre modèle, des règles justes paraissent illisibles, et l'on détruirait ce qu'il fallait garder. Le
premier démarrage note le modèle ; changé, il est adopté au démarrage en développement, et attend
`fastapi-acl policy apply` en production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastapi_acl.engine.casbin.models import model_digest
from fastapi_acl.shared.identity import SYSTEM
from fastapi_acl.shared.logging import get_logger
from fastapi_acl.shared.sync.changes import MODEL_ADOPTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi_acl.engine.casbin.definitions import ModelDefinitions
    from fastapi_acl.shared.database.base import Database, Transaction
    from fastapi_acl.shared.sync.changes import Change, ChangeLog
    from fastapi_acl.shared.sync.replica import Replica

logger = get_logger("engine")


class NotedModel(NamedTuple):
    """Un modèle, tel que le journal le note.

    Attributes:
        digest: empreinte de ses sections, une fois lues.
        source: d'où il vient, pour le nommer.
        widths: pour chaque type de règle, le nombre de ses valeurs.
    """

    digest: str
    source: str
    widths: Mapping[str, int]

    @classmethod
    def of(cls, definitions: ModelDefinitions, source: str) -> NotedModel:
        """Décrit un modèle."""
        schema = definitions.schema
        widths = {ptype: len(schema.columns(ptype)) for ptype in (*schema.fields, *schema.links)}
        return cls(model_digest(definitions.model), source, widths)

    def as_json(self) -> dict[str, object]:
        """Renvoie le modèle sous la forme que garde le journal."""
        return {"digest": self.digest, "source": self.source, "widths": dict(self.widths)}

    @classmethod
    def of_entry(cls, change: Change) -> NotedModel | None:
        """Refait un modèle de ce que le journal en garde ; None d'une note abîmée, qu'une autre remplacera."""
        digest, source, widths = (change.payload.get(name) for name in ("digest", "source", "widths"))
        if not (isinstance(digest, str) and isinstance(source, str) and isinstance(widths, dict)):
            logger.error("model_note_unreadable: revision=%d", change.revision)
            return None
        return cls(digest, source, widths)


class Standing(NamedTuple):
    """Ce que le journal dit du modèle d'un processus.

    Attributes:
        mine: le modèle du processus.
        noted: celui du journal ; None s'il n'en a noté aucun.
        is_first: vrai si le journal est encore vide.
    """

    mine: NotedModel
    noted: NotedModel | None
    is_first: bool

    @property
    def differs(self) -> bool:
        """Vrai si les règles ont été écrites sous un autre modèle."""
        return self.noted is not None and self.noted.digest != self.mine.digest

    @property
    def is_unreadable(self) -> bool:
        """Vrai si le modèle du journal ne saurait pas lire ce que celui-ci écrit."""
        return self.noted is not None and dict(self.noted.widths) != dict(self.mine.widths)


class ModelRecord:
    """Note le modèle dans le journal, et suit ce qui y est noté : c'est une mémoire du journal, comme les règles.

    Attributes:
        mine: le modèle du processus.
        noted: celui que le journal tient, autant que ce processus l'a lu ; None s'il n'en tient aucun.
    """

    def __init__(self, database: Database, log: ChangeLog, mine: NotedModel) -> None:
        """Retient le modèle du processus ; rien n'est lu encore.

        Args:
            database: la base du journal.
            log: le journal.
            mine: le modèle du processus.
        """
        self._database = database
        self._log = log
        self.mine = mine
        self.noted: NotedModel | None = None

    @property
    def differs(self) -> bool:
        """Vrai si, autant que ce processus l'a lu, les règles ont été écrites sous un autre modèle."""
        return self.noted is not None and self.noted.digest != self.mine.digest

    # --- ce que le journal demande à une mémoire --------------------------------------------------------------------

    async def read(self, transaction: Transaction) -> NotedModel | None:
        """Relit la dernière note."""
        last = await self._log.last(transaction, MODEL_ADOPTED)
        return NotedModel.of_entry(last) if last is not None else None

    def install(self, state: NotedModel | None) -> None:
        """Retient la note lue."""
        self.noted = state

    def apply(self, change: Change) -> None:
        """Retient une note qui arrive."""
        if change.kind == MODEL_ADOPTED:
            self.noted = NotedModel.of_entry(change)

    # --- ce que le démarrage et la ligne de commande demandent --------------------------------------------------------

    async def standing(self) -> Standing:
        """Compare le modèle du processus à celui du journal, sans charger de règle.

        Raises:
            DatabaseUnavailableError: la base ne répond pas.
        """
        async with self._database.snapshot() as reading:
            head = await self._log.head(reading)
            return Standing(self.mine, await self.read(reading), is_first=not head.revision)

    async def adopt(self, replica: Replica) -> bool:
        """Note le modèle du processus, sauf si le journal le tient déjà.

        Args:
            replica: ce par quoi la note s'écrit.

        Returns:
            Vrai s'il vient d'être noté.

        Raises:
            DatabaseUnavailableError: la base ne répond pas.
        """
        async with self._database.transaction(log=True) as transaction:
            noted = await self.read(transaction)
            if noted is not None and noted.digest == self.mine.digest:
                return False
            _ = await replica.record(transaction, MODEL_ADOPTED, self.mine.as_json(), actor=SYSTEM)
        return True
