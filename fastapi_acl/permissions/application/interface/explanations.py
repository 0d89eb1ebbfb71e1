"""Ce que la tranche demande pour expliquer une décision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_acl.shared.decisions import Question, Verdict
    from fastapi_acl.shared.identity import Principal


class IExplanations(Protocol):
    """La politique en service, et ses raisons."""

    def explain(self, question: Question) -> Verdict:
        """Décide, et dit pourquoi."""

    def may_read_accounts(self, principal: Principal) -> bool:
        """Dit si quelqu'un peut savoir ce qu'un autre peut."""


class IDenials(Protocol):
    """Les refus dont ce processus se souvient."""

    def find(self, number: str) -> Question | None:
        """Renvoie ce qui a été refusé sous un numéro."""


class IActiveAccounts(Protocol):
    """Les comptes, s'ils sont à nous."""

    async def active_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes actifs."""

    async def existing_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes qui existent, actifs ou non."""
