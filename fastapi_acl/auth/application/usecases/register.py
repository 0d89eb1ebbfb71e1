"""Inscrire un compte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_acl.auth.domain.entities.auth_user import AuthUser, check_password, check_username

if TYPE_CHECKING:
    from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
    from fastapi_acl.auth.application.interface.services import IEmailValidator, IPasswordHasher
    from fastapi_acl.auth.domain.dtos.auth_dtos import RegisterDTO


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterUseCase:
    """Inscrit un compte, sans aucun droit."""

    users: IAuthRepository
    hasher: IPasswordHasher
    emails: IEmailValidator
    password_min_length: int

    async def execute(self, request: RegisterDTO) -> AuthUser:
        """Crée le compte.

        Raises:
            InvalidUsernameError: le nom n'est pas admis.
            InvalidEmailError: l'adresse n'est pas admise.
            WeakPasswordError: le mot de passe n'est pas admis.
            UserAlreadyExistsError: le nom ou l'adresse est déjà pris.
        """
        user = await self.prepare(request)
        await self.users.create_user(user)
        return user

    async def prepare(self, request: RegisterDTO) -> AuthUser:
        """Valide la demande et hache le mot de passe, sans rien enregistrer ni tenir de connexion."""
        username = check_username(request.username)
        email = self.emails.check(request.email) if request.email is not None else None
        check_password(request.password, username=username, min_length=self.password_min_length)
        hashed = await self.hasher.hash_password(request.password)
        return AuthUser(username=username, email=email, hashed_password=hashed)
