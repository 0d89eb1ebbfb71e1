"""Écarter une ligne écrite à la main, quand elle empêche de charger la politique."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi_acl.engine.adapters.base import COLUMNS
from fastapi_acl.engine.kernel.loading import row_rule
from fastapi_acl.shared.exceptions import RuleNotFoundError
from fastapi_acl.shared.identity import SYSTEM
from fastapi_acl.shared.policy import PolicyChange
from fastapi_acl.shared.sync.changes import ROW_QUARANTINED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi_acl.engine.adapters.base import PolicyAdapter
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.writing.guards import Guards
    from fastapi_acl.shared.database.base import AmbientDatabase
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.policy import PolicyRule
    from fastapi_acl.shared.sync.replica import Replica


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Écarte des lignes de la base, illisibles ou non."""

    policy: Policy
    adapter: PolicyAdapter
    database: AmbientDatabase
    replica: Replica
    guards: Guards

    async def find_row(self, row_id: int | str) -> Mapping[str, Any]:
        """Lit une ligne de la base, telle que `quarantine` l'écarterait.

        Raises:
            RuleNotFoundError: aucune ligne n'a ce numéro.
        """
        async with aclosing(self.adapter.lines()) as packets:
            async for packet in packets:
                for number, *content in packet:
                    if str(number) == str(row_id):
                        return {"id": number, **dict(zip(("ptype", *COLUMNS), content, strict=True))}
        raise RuleNotFoundError(id=row_id)

    async def quarantine(self, row_id: int | str, actor: Principal = SYSTEM) -> Mapping[str, Any]:
        """Écarte une ligne de la base ; le journal la garde, colonne par colonne, puis tout se relit.

        Args:
            row_id: numéro de la ligne, que le journal d'événements nomme ; sur MongoDB, sa clé peut être un texte.
            actor: son auteur.

        Returns:
            La ligne écartée.

        Raises:
            RuleNotFoundError: aucune ligne n'a ce numéro.
            LastAdministratorError: c'est une règle en service, sans laquelle il n'y aurait plus d'administrateur actif.
            PolicyUnreadableError: la ligne est écartée, mais une autre empêche encore de charger la politique.
        """
        self.database.require_alone()
        async with self.database.transaction(log=True) as transaction:
            row = await self.adapter.take(row_id)
            await self._check_row(row_rule(row))
            _ = await self.replica.record(transaction, ROW_QUARANTINED, {"row": row}, actor=actor)
        await self.replica.reload()
        return row

    async def _check_row(self, rule: PolicyRule) -> None:
        """Refuse d'écarter une règle en service que le dernier administrateur tient ; ses copies la garderaient."""
        if self.policy.holds(rule) and rule not in self.policy.repeated:
            await self.guards.check_administrators(PolicyChange(removed=(rule,)))
