"""Dépendances FastAPI de la tranche « auth »."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends

from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
from fastapi_acl.auth.application.usecases.accounts import DeleteUserUseCase, SetUserActiveUseCase
from fastapi_acl.auth.application.usecases.register import RegisterUseCase
from fastapi_acl.auth.application.usecases.sessions import LoginUseCase, LogoutUseCase, RefreshTokenUseCase
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.shared.exceptions import InvalidTokenError, UserNotFoundError
from fastapi_acl.shared.http.problems import ProblemException
from fastapi_acl.shared.http.security import CurrentPrincipal, provided

AuthRepositoryDep = Annotated[IAuthRepository, Depends(provided(IAuthRepository))]
RegisterUseCaseDep = Annotated[RegisterUseCase, Depends(provided(RegisterUseCase))]
LoginUseCaseDep = Annotated[LoginUseCase, Depends(provided(LoginUseCase))]
RefreshTokenUseCaseDep = Annotated[RefreshTokenUseCase, Depends(provided(RefreshTokenUseCase))]
LogoutUseCaseDep = Annotated[LogoutUseCase, Depends(provided(LogoutUseCase))]
SetUserActiveUseCaseDep = Annotated[SetUserActiveUseCase, Depends(provided(SetUserActiveUseCase))]
DeleteUserUseCaseDep = Annotated[DeleteUserUseCase, Depends(provided(DeleteUserUseCase))]


async def get_current_user(principal: CurrentPrincipal, users: AuthRepositoryDep) -> AuthUser:
    """Rend le compte de l'appelant, par une lecture ; `current_user` suffit à qui n'a besoin que de l'identité.

    Raises:
        ProblemException: 401 si le compte n'existe plus.
    """
    try:
        return await users.get_by_id(UUID(principal.id))
    except (UserNotFoundError, ValueError) as error:
        raise ProblemException(InvalidTokenError()) from error


CurrentUser = Annotated[AuthUser, Depends(get_current_user)]
