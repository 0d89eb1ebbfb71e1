"""Ce que la tranche demande à la politique en service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.policy import Grant, PolicyStamp


class IGrants(Protocol):
    """Les droits d'un appelant ; de quoi les montrer, jamais de quoi décider."""

    def stamp(self, principal: Principal, domain: str | None) -> PolicyStamp:
        """Renvoie de quoi reconnaître les droits d'un appelant sans les lire."""

    async def of(self, principal: Principal, domain: str | None) -> tuple[PolicyStamp, Sequence[Grant]]:
        """Renvoie les droits d'un appelant, refus compris, et la politique qui les donne."""
