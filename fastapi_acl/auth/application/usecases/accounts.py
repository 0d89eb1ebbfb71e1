"""Activer, désactiver et supprimer un compte."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository, ISessionRepository
    from fastapi_acl.auth.application.interface.services import IAccessRevoker, IAdministrators, ISubjectRules
    from fastapi_acl.auth.domain.entities.auth_user import AuthUser
    from fastapi_acl.shared.database.base import Transactions
    from fastapi_acl.shared.identity import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUserActiveUseCase:
    """Active ou désactive un compte ; désactivé, ses jetons cessent aussitôt, partout."""

    users: IAuthRepository
    sessions: ISessionRepository
    revoker: IAccessRevoker
    administrators: IAdministrators
    transactions: Transactions

    async def execute(self, user_id: UUID, *, active: bool, actor: Principal) -> AuthUser:
        """Change l'état du compte et le renvoie ; sans effet s'il y est déjà.

        Raises:
            UserNotFoundError: aucun compte ne porte cet identifiant.
            LastAdministratorError: ce compte est le dernier administrateur actif.
            EscalationRefusedError: ce compte tient une permission `acl.*` que l'auteur ne tient pas.
        """
        return await self.transactions.retry(lambda: self._change(user_id, active=active, actor=actor))

    async def _change(self, user_id: UUID, *, active: bool, actor: Principal) -> AuthUser:
        """Change l'état du compte, en une transaction."""
        async with self.transactions.transaction(log=True):
            await self.administrators.require_authority(str(user_id), actor)
            user = await self.users.get_by_id(user_id)
            if user.is_active == active:
                return user
            if not active:
                await self.administrators.require_another_than(str(user_id))
            user = await self.users.update_user(user_id, is_active=active)
            if not active:
                await self.sessions.revoke_all(user_id, datetime.now(timezone.utc))
                await self.revoker.revoke_account(user_id, session_version=user.session_version, actor=actor)
        return user


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteUserUseCase:
    """Supprime un compte, ses sessions et ses règles, tout ou rien."""

    users: IAuthRepository
    revoker: IAccessRevoker
    rules: ISubjectRules
    administrators: IAdministrators
    transactions: Transactions

    async def execute(self, user_id: UUID, *, actor: Principal) -> None:
        """Supprime le compte.

        Raises:
            UserNotFoundError: aucun compte ne porte cet identifiant.
            LastAdministratorError: ce compte est le dernier administrateur actif.
            EscalationRefusedError: ce compte tient une permission `acl.*` que l'auteur ne tient pas.
        """
        await self.transactions.retry(lambda: self._delete(user_id, actor))

    async def _delete(self, user_id: UUID, actor: Principal) -> None:
        """Supprime le compte, ses sessions et ses règles, en une transaction."""
        async with self.transactions.transaction(log=True):
            await self.administrators.require_authority(str(user_id), actor)
            session_version = (await self.users.update_user(user_id, ends_tokens=True)).session_version
            await self.administrators.require_another_than(str(user_id))
            await self.users.delete_user(user_id)
            await self.revoker.revoke_account(user_id, session_version=session_version, actor=actor)
            await self.rules.remove_subject(str(user_id), actor)
