"""Nul n'écrit après avoir perdu, sur un autre processus, le droit d'écrire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_acl.engine.administration import READING
from fastapi_acl.shared.exceptions import InvalidTokenError, PermissionDeniedError
from fastapi_acl.shared.identity import SYSTEM

if TYPE_CHECKING:
    from fastapi_acl.engine.authorizer import PolicyAuthorizer
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.sync.revocations import Revocations


@dataclass(frozen=True, slots=True)
class ActorGuard:
    """Refuse l'écriture de qui a perdu, sur un autre processus, le droit de la faire.

    Ce processus a pu ne pas encore le savoir quand la route a été ouverte ; sous le verrou de révision, il le sait.
    """

    authorizer: PolicyAuthorizer
    revocations: Revocations

    def check(self, actor: Principal, resource: str, action: str) -> None:
        """Vérifie, mémoires à jour, que l'auteur est encore là et encore en droit.

        Raises:
            InvalidTokenError: sa session ou son compte a été révoqué.
            PermissionDeniedError: la permission lui a été retirée.
        """
        if actor is SYSTEM:
            return
        if actor.session_id is not None and self.revocations.refuses(
            user_id=actor.id, session_id=actor.session_id, session_version=actor.session_version
        ):
            raise InvalidTokenError
        if not self.authorizer.still_allows(actor, resource, action):
            raise PermissionDeniedError

    def may_read(self, actor: Principal) -> bool:
        """Dit si l'auteur peut lire les règles ; à qui ne le peut pas, une erreur n'en nomme aucune."""
        return actor is SYSTEM or self.authorizer.permits(actor, *READING)
