"""Ce que la tranche demande au stockage des règles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.policy import PolicyChange, PolicyRule
    from fastapi_acl.shared.sync.changes import IdempotencyKey


class IPolicyRevision(Protocol):
    """Ce que ce processus sait du journal."""

    @property
    def revision(self) -> int:
        """Dernière révision que ce processus a appliquée."""


class IRulePages(Protocol):
    """Les règles, telles que la base les tient."""

    async def page(
        self, filters: Mapping[str, str], *, after: int = 0, limit: int = 50
    ) -> Sequence[tuple[int, PolicyRule]]:
        """Lit une page de règles, avec leur numéro.

        Raises:
            DatabaseUnavailableError: la base ne répond pas.
        """


class IPolicyRules(Protocol):
    """Le chemin des changements de règles."""

    async def change(self, change: PolicyChange, actor: Principal, *, key: IdempotencyKey | None = None) -> int:
        """Fait un changement, tout ou rien, et renvoie sa révision ; la même clé ne le fait qu'une fois.

        Raises:
            IdempotencyKeyReusedError: la clé a déjà servi à une autre demande.
            InvalidRuleError: une règle n'est pas admise.
            RuleAlreadyExistsError: une règle à ajouter existe déjà.
            RuleNotFoundError: une règle à retirer n'existe pas.
            EscalationRefusedError: l'auteur ne détient pas ce qu'il accorde.
            LastAdministratorError: plus aucun compte actif ne serait administrateur.
        """
