"""La tranche « auth » composée pour de bon, sur chacune des bases, sans HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import pytest

from fastapi_acl import ACLManager
from fastapi_acl.auth.application.interface.auth_repository import ISessionRepository
from fastapi_acl.auth.application.usecases.accounts import DeleteUserUseCase, SetUserActiveUseCase
from fastapi_acl.auth.application.usecases.register import RegisterUseCase
from fastapi_acl.auth.application.usecases.sessions import LoginUseCase, LogoutUseCase, RefreshTokenUseCase
from fastapi_acl.auth.domain.dtos.auth_dtos import LoginDTO, RefreshTokenDTO, RegisterDTO, TokenDTO
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.auth.infrastructure.services.password_scheme import BcryptSHA256
from fastapi_acl.shared.identity import SYSTEM, Principal
from tests.support.app import PASSWORD, started

Component = TypeVar("Component")


@dataclass(frozen=True)
class AuthApi:
    """Les cas d'usage d'un processus, appelés comme les routes les appellent."""

    manager: ACLManager

    def part(self, kind: type[Component]) -> Component:
        return self.manager.provide(kind)

    @property
    def users(self) -> Any:
        return self.manager.get_auth_repository()

    @property
    def sessions(self) -> ISessionRepository:
        return self.manager._parts.storage.sessions

    async def register(self, username: str = "ada", password: str = PASSWORD) -> AuthUser:
        email = f"u{username.encode().hex()}@example.com"[-60:]
        return await self.part(RegisterUseCase).execute(RegisterDTO(username=username, email=email, password=password))

    async def login(self, username: str = "ada", password: str = PASSWORD, **client: str) -> TokenDTO:
        return await self.part(LoginUseCase).execute(LoginDTO(username=username, password=password, **client))

    async def refresh(self, refresh_token: str) -> TokenDTO:
        return await self.part(RefreshTokenUseCase).execute(RefreshTokenDTO(refresh_token=refresh_token))

    async def logout(self, principal: Principal, *, everywhere: bool = False) -> None:
        await self.part(LogoutUseCase).execute(principal, everywhere=everywhere)

    async def set_active(self, user_id: UUID, *, active: bool) -> AuthUser:
        return await self.part(SetUserActiveUseCase).execute(user_id, active=active, actor=SYSTEM)

    async def delete(self, user_id: UUID) -> None:
        await self.part(DeleteUserUseCase).execute(user_id, actor=SYSTEM)

    async def identify(self, access_token: str) -> Principal:
        return await self.manager.authenticator.authenticate(access_token)

    async def catch_up(self) -> None:
        """Ce que la tâche de suivi fait toutes les demi-secondes."""
        await self.manager._parts.replica.refresh()


@asynccontextmanager
async def process(settings: dict[str, Any]) -> AsyncIterator[AuthApi]:
    """Un processus de plus sur la même base : rien en mémoire n'est partagé."""
    async with started(**settings) as manager:
        yield AuthApi(manager)


@pytest.fixture
def hash_costs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Coût de chaque calcul de bcrypt, dans l'ordre."""
    costs: list[int] = []
    compute = BcryptSHA256._calc_checksum

    def counted(self: BcryptSHA256, secret: Any) -> str:
        costs.append(self.rounds)
        return compute(self, secret)

    monkeypatch.setattr(BcryptSHA256, "_calc_checksum", counted)
    return costs


@pytest.fixture
async def auth(database_settings: dict[str, Any]) -> AsyncIterator[AuthApi]:
    async with process(database_settings) as api:
        yield api
