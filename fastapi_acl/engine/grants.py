"""Ce que la politique en service accorde à un appelant, règle par règle."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, final

from fastapi_acl.engine.kernel.inspector import PolicyInspector
from fastapi_acl.engine.kernel.pacing import Pace
from fastapi_acl.engine.kernel.schema import ACTION_NAMES, RESOURCE_NAMES, SUBJECT_NAMES
from fastapi_acl.shared.exceptions import PolicyUnavailableError
from fastapi_acl.shared.policy import Grant, PolicyStamp

if TYPE_CHECKING:
    from fastapi_acl.engine.kernel.inspector import Permission
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.sync.replica import Replica

DIGEST_BYTES: Final = 16

ATTEMPTS: Final = 8
"""Lectures recommencées parce que la politique a changé en chemin."""


@final
class PolicyGrants:
    """Lit les droits d'un appelant en mémoire ; son coût est celui de ce qu'il renvoie."""

    def __init__(self, policy: Policy, replica: Replica) -> None:
        """Retient la politique.

        Args:
            policy: la politique en service.
            replica: ce que le processus sait du journal.
        """
        self._inspector = PolicyInspector(policy)
        self._schema = policy.schema
        self._form = (self._schema.request, self._schema.fields, self._schema.links, self._schema.matcher)
        self._replica = replica

    def stamp(self, principal: Principal, domain: str | None) -> PolicyStamp:
        """Renvoie de quoi reconnaître les droits d'un appelant sans les lire."""
        policy = self._replica.policy
        seen = (tuple(policy or ()), self._form, principal.subject, domain)
        digest = hashlib.blake2b(repr(seen).encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()
        return PolicyStamp(self._replica.revision, self._replica.policy_revision, digest)

    async def of(self, principal: Principal, domain: str | None) -> tuple[PolicyStamp, list[Grant]]:
        """Renvoie les droits d'un appelant, refus compris, et la politique qui les donne.

        Args:
            principal: l'appelant.
            domain: domaine, si le modèle en a.

        Returns:
            Une entrée par règle de type `p` qui nomme le sujet ou l'un de ses rôles, toutes d'une même révision.

        Raises:
            PolicyUnavailableError: la politique a changé à chacun des essais.
        """
        for _ in range(ATTEMPTS):
            stamp, grants, pace = self.stamp(principal, domain), list[Grant](), Pace()
            for batch in self._inspector.batches_of(principal.subject, domain or ""):
                grants += [self._grant(permission) for permission in batch]
                await pace.step(len(batch) + 1)
            if self.stamp(principal, domain) == stamp:
                return stamp, grants
        message = "La politique change sans cesse : redemandez vos permissions dans un instant."
        raise PolicyUnavailableError(message)

    def _grant(self, permission: Permission) -> Grant:
        """Range les valeurs d'une règle selon ce qu'elles désignent."""
        said = dict(zip(self._schema.columns("p"), permission.rule.values, strict=True))
        resource, action = (_take(said, names) for names in (RESOURCE_NAMES, ACTION_NAMES))
        _take(said, SUBJECT_NAMES)
        return Grant(resource, action, said.pop("eft", "allow"), permission.path[1:], said)


def _take(said: dict[str, str], names: frozenset[str]) -> str:
    """Retire d'une règle la valeur qui porte l'un de ces noms, et la renvoie ; vide si elle n'y est pas."""
    return said.pop(next((name for name in said if name in names), ""), "")
