"""Expliquer une décision : celle d'une question, ou celle d'un refus que son numéro désigne."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from fastapi_acl.permissions.domain.dtos.explanation import ExplanationDTO
from fastapi_acl.shared.decisions import Verdict
from fastapi_acl.shared.exceptions import DecisionUnknownError, InvalidRequestError, PermissionDeniedError
from fastapi_acl.shared.identity import ACL_NAMESPACE, USER_PREFIX

if TYPE_CHECKING:
    from fastapi_acl.permissions.application.interface.explanations import IActiveAccounts, IDenials, IExplanations
    from fastapi_acl.permissions.application.interface.policy_rules import IPolicyRevision
    from fastapi_acl.shared.decisions import Question
    from fastapi_acl.shared.identity import Authorizer, Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainUseCase:
    """Dit ce que la politique répond aujourd'hui, et pourquoi."""

    explanations: IExplanations
    denials: IDenials
    accounts: IActiveAccounts | None
    authorizer: Authorizer
    revisions: IPolicyRevision

    def get_denied(self, decision_id: str) -> Question:
        """Renvoie la question d'un refus.

        Raises:
            DecisionUnknownError: ce processus ne s'en souvient pas.
        """
        question = self.denials.find(decision_id)
        if question is None:
            raise DecisionUnknownError
        return question

    def require_account_reader(self, actor: Principal) -> None:
        """Exige de qui interroge sur un autre que soi ce qui lit les comptes, même sous un modèle de routes.

        Raises:
            PermissionDeniedError: il ne le tient pas.
        """
        if not self.explanations.may_read_accounts(actor):
            raise PermissionDeniedError

    async def execute(self, question: Question) -> ExplanationDTO:
        """Explique une décision.

        Raises:
            InvalidRequestError: le modèle a des domaines et la question n'en nomme pas, ou l'inverse.
            DatabaseUnavailableError: la base ne répond pas.
        """
        self._require_domain(question)
        if await self._is_inactive(question.subject):
            return ExplanationDTO(self.revisions.revision, Verdict(allowed=False, denied_because="inactive"))
        return ExplanationDTO(self.revisions.revision, self.explanations.explain(question))

    def _require_domain(self, question: Question) -> None:
        """Exige un domaine là où le modèle en a ; les permissions `acl.*` et les rôles ont le leur."""
        has_own = bool(question.role) or question.resource.startswith(ACL_NAMESPACE)
        if self.authorizer.has_domains and question.domain is None and not has_own:
            message = "Le modèle a des domaines : donnez « domain »."
            raise InvalidRequestError(message)
        if question.domain is not None and not self.authorizer.has_domains:
            message = "Le modèle n’a pas de domaines : ne donnez pas « domain »."
            raise InvalidRequestError(message)

    async def _is_inactive(self, subject: str) -> bool:
        """Dit si un sujet est un compte de la bibliothèque, désactivé."""
        account = _read_account(subject)
        if self.accounts is None or account is None:
            return False
        return bool(await self.accounts.existing_ids([account]) - await self.accounts.active_ids([account]))


def _read_account(subject: str) -> str | None:
    """Renvoie l'identifiant du compte qu'un sujet désigne ; les nôtres sont des UUID, et rien d'autre n'est cherché."""
    name = subject[len(USER_PREFIX) :] if subject.startswith(USER_PREFIX) else ""
    try:
        return name if str(UUID(name)) == name else None
    except ValueError:
        return None
