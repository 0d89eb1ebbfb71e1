"""Pourquoi la politique répond ce qu'elle répond : la règle décisive, le chemin qui y mène, et ce qui manque."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast, final

from fastapi_acl.engine.kernel.inspector import PolicyInspector
from fastapi_acl.shared.decisions import Verdict
from fastapi_acl.shared.exceptions import DecisionFailedError, InvalidRuleError
from fastapi_acl.shared.identity import EVERY_DOMAIN, ROLE_PREFIX
from fastapi_acl.shared.policy import PolicyChange, PolicyRule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_acl.engine.authorizer import PolicyAuthorizer
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.shared.decisions import Question
    from fastapi_acl.shared.identity import Principal

ACCOUNTS_READING: Final = ("acl.users", "read")
"""Ce qu'il faut tenir pour savoir ce qu'un autre peut."""


@final
class PolicyExplainer:
    """Explique les décisions de la politique en service."""

    def __init__(self, authorizer: PolicyAuthorizer, policy: Policy) -> None:
        """Retient la politique.

        Args:
            authorizer: ce qui fait d'une question la requête du modèle.
            policy: la politique en service.
        """
        self._authorizer = authorizer
        self._policy = policy
        self._inspector = PolicyInspector(policy)

    def may_read_accounts(self, principal: Principal) -> bool:
        """Dit si quelqu'un tient `acl.users:read`, ou, sous un modèle de routes, celles qui la demandent."""
        return self._authorizer.permits(principal, *ACCOUNTS_READING)

    def explain(self, question: Question) -> Verdict:
        """Décide, et dit pourquoi, le tout sur un même état de la politique.

        Raises:
            PolicyUnavailableError: aucune politique n'est chargée.
        """
        with self._policy.lock:
            return self._role(question) if question.role else self._permission(question)

    def _permission(self, question: Question) -> Verdict:
        """Explique une permission."""
        try:
            request = cast("Sequence[Any]", self._authorizer.request(question))
            found = self._inspector.judge(*request)
        except DecisionFailedError:
            return Verdict(allowed=False, denied_because="evaluation_failed")
        if found.allowed:
            return Verdict(allowed=True, rule=found.rule, role_path=found.path)
        because = "no_rule" if found.rule is None else "denied_by_rule"
        nearest = self._inspector.smallest(*request)
        return Verdict(allowed=False, rule=found.rule, role_path=found.path, denied_because=because, nearest=nearest)

    def _role(self, question: Question) -> Verdict:
        """Explique ce que demande `require_role` ; aucune règle `p` n'y décide."""
        subject, role = question.subject, f"{ROLE_PREFIX}{question.role}"
        with_domain = self._policy.schema.links.get("g", 2) > 2  # noqa: PLR2004 - membre, rôle, domaine
        domain = (question.domain or EVERY_DOMAIN,) if with_domain else ()
        path = self._inspector.path(subject, role, *domain)
        if self._policy.has_link(subject, role, *domain):
            return Verdict(allowed=True, role_path=path)
        link = PolicyChange(added=(PolicyRule("g", (subject, role, *domain)),))
        return Verdict(allowed=False, denied_because="no_rule", nearest=link if self._is_sound(link) else None)

    def _is_sound(self, change: PolicyChange) -> bool:
        """Dit si le modèle admet un changement."""
        try:
            self._policy.check(change)
        except InvalidRuleError:
            return False
        return True
