"""Ce que les règles disent d'un compte que l'on écarte : qui peut y toucher, et ce qui part avec lui."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_acl.engine.administration import ACCOUNTS
from fastapi_acl.shared.identity import USER_PREFIX
from fastapi_acl.shared.policy import PolicyChange

if TYPE_CHECKING:
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.writing.actors import ActorGuard
    from fastapi_acl.engine.writing.administrators import AdministratorGuard
    from fastapi_acl.engine.writing.rank_guard import RankGuard
    from fastapi_acl.engine.writing.store import PolicyStore
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.sync.replica import Replica


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRules:
    """Tient les règles d'accord avec les comptes."""

    policy: Policy
    store: PolicyStore
    replica: Replica
    actors: ActorGuard
    ranks: RankGuard
    administrators: AdministratorGuard

    async def require_authority(self, user_id: str, actor: Principal) -> None:
        """Vérifie que l'auteur peut encore toucher à ce compte.

        Raises:
            InvalidTokenError: l'auteur a été révoqué entre-temps.
            PermissionDeniedError: il n'a plus `acl.users:write`.
            EscalationRefusedError: le compte tient une permission `acl.*` que l'auteur ne tient pas.
        """
        async with self.replica.writing():
            self.actors.check(actor, *ACCOUNTS)
            self.ranks.check_account(user_id, actor)

    async def require_another_than(self, user_id: str) -> None:
        """Refuse d'écarter un compte qui est le dernier administrateur actif.

        Raises:
            LastAdministratorError: il l'est.
        """
        async with self.replica.writing():
            await self.administrators.check_account(user_id, self.store.pending)

    async def remove_subject(self, user_id: str, actor: Principal) -> None:
        """Retire toutes les règles qui nomment un compte, dans la transaction ambiante s'il y en a une.

        Raises:
            EscalationRefusedError: le compte est au-dessus de l'auteur.
        """
        async with self.replica.writing() as transaction:
            self.ranks.check_account(user_id, actor)
            with self.store.as_written():
                change = PolicyChange(removed=self.policy.rules_naming(f"{USER_PREFIX}{user_id}"))
            if change:
                _ = await self.store.put(transaction, change, actor)
