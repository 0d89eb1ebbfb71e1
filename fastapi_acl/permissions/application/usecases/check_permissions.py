"""Répondre à l'appelant sur ses propres permissions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_acl.permissions.domain.dtos.check import CheckDTO, CheckResultDTO
from fastapi_acl.shared.exceptions import InvalidRequestError
from fastapi_acl.shared.identity import ACL_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_acl.permissions.application.interface.policy_rules import IPolicyRules
    from fastapi_acl.shared.identity import Authorizer, Principal


@dataclass(frozen=True, slots=True)
class CheckPermissionsUseCase:
    """Répond à une suite de questions, toutes à la même révision."""

    authorizer: Authorizer
    rules: IPolicyRules

    async def execute(self, principal: Principal, checks: Sequence[CheckDTO]) -> CheckResultDTO:
        """Répond pour l'appelant lui-même.

        Raises:
            InvalidRequestError: le modèle a des domaines et une question n'en nomme pas.
            PolicyUnavailableError: la politique n'est pas chargée.
        """
        self._require_domains(checks)
        decide = self.authorizer.decide
        answers = [decide(principal, check.resource, check.action, check.domain) for check in checks]
        return CheckResultDTO(self.rules.revision, answers)

    def _require_domains(self, checks: Sequence[CheckDTO]) -> None:
        """Exige un domaine là où le modèle en a ; les permissions `acl.*` ont le leur."""
        if not self.authorizer.has_domains:
            return
        missing = [
            index
            for index, check in enumerate(checks)
            if check.domain is None and not check.resource.startswith(ACL_NAMESPACE)
        ]
        if missing:
            message = "Le modèle a des domaines : donnez « domain » à chaque question."
            raise InvalidRequestError(message, checks=missing)
