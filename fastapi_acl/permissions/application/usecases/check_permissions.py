"""Répondre à l'appelant sur ses propres permissions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.kernel.pacing import Pace
from fastapi_acl.permissions.domain.dtos.check import CheckDTO, CheckErrorDTO, CheckResultDTO
from fastapi_acl.shared.exceptions import (
    DecisionFailedError,
    InvalidRequestError,
    PolicyUnavailableError,
    ValueTooLongError,
)
from fastapi_acl.shared.identity import ACL_NAMESPACE
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_acl.permissions.application.interface.policy_rules import IPolicyRevision
    from fastapi_acl.shared.identity import Authorizer, Principal

logger = get_logger("permissions")

ATTEMPTS: Final = 8
"""Fois où tout est redemandé parce que la politique a changé entre deux réponses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPermissionsUseCase:
    """Répond à une suite de questions, toutes à la même révision."""

    authorizer: Authorizer
    revisions: IPolicyRevision

    async def execute(self, principal: Principal, checks: Sequence[CheckDTO]) -> CheckResultDTO:
        """Répond pour l'appelant lui-même, question par question.

        La boucle d'événements est rendue en chemin ; si la politique change pendant ce temps, tout est redemandé.

        Raises:
            InvalidRequestError: le modèle a des domaines et une question n'en nomme pas.
            PolicyUnavailableError: la politique n'est pas chargée, ou change sans cesse.
        """
        self._require_domains(checks)
        for _ in range(ATTEMPTS):
            answers = await self._answer(principal, checks)
            if answers.revision == self.revisions.revision:
                return _log_failed(answers)
        message = "La politique change sans cesse : reposez ces questions, ou moins à la fois."
        raise PolicyUnavailableError(message)

    async def _answer(self, principal: Principal, checks: Sequence[CheckDTO]) -> CheckResultDTO:
        """Répond une fois à tout ; s'arrête dès que la révision a changé."""
        found = CheckResultDTO(self.revisions.revision, [], [])
        pace = Pace()
        for index, check in enumerate(checks):
            if self.revisions.revision != found.revision:
                break
            try:
                answer = self.authorizer.decide(principal, check.resource, check.action, check.domain)
            except (DecisionFailedError, ValueTooLongError) as error:
                answer = False
                found.errors.append(CheckErrorDTO(index, error.code))
            found.results.append(answer)
            await pace.step()
        return found

    def _require_domains(self, checks: Sequence[CheckDTO]) -> None:
        """Exige un domaine là où le modèle en a ; ailleurs il ne change rien, et `acl.*` a le sien."""
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


def _log_failed(answers: CheckResultDTO) -> CheckResultDTO:
    """Journalise, en une ligne, combien de questions n'ont pas pu être décidées."""
    failed = [error for error in answers.errors if error.code == DecisionFailedError.code]
    if failed:
        logger.warning("check_undecided: failed=%d asked=%d", len(failed), len(answers.results))
    return answers
