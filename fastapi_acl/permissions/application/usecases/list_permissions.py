"""Montrer à l'appelant ses propres permissions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_acl.shared.exceptions import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_acl.permissions.application.interface.grants import IGrants
    from fastapi_acl.shared.identity import Authorizer, Principal
    from fastapi_acl.shared.policy import Grant, PolicyStamp


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPermissionsUseCase:
    """Renvoie les règles qui valent pour l'appelant, par lui-même ou par ses rôles."""

    authorizer: Authorizer
    grants: IGrants

    def stamp(self, principal: Principal, domain: str | None) -> PolicyStamp:
        """Renvoie de quoi savoir, sans les lire, si ses droits ont changé.

        Raises:
            InvalidRequestError: le modèle a des domaines et la demande n'en nomme pas, ou l'inverse.
        """
        if self.authorizer.has_domains and domain is None:
            message = "Le modèle a des domaines : donnez « domain »."
            raise InvalidRequestError(message)
        if domain is not None and not self.authorizer.has_domains:
            message = "Le modèle n’a pas de domaines : ne donnez pas « domain »."
            raise InvalidRequestError(message)
        return self.grants.stamp(principal, domain)

    async def execute(self, principal: Principal, domain: str | None) -> tuple[PolicyStamp, Sequence[Grant]]:
        """Renvoie ses droits, refus compris, et la politique qui les donne."""
        return await self.grants.of(principal, domain)
