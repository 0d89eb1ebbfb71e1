"""Dépendances FastAPI de la tranche « auth »."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends

from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
from fastapi_acl.auth.application.interface.services import ITokenService
from fastapi_acl.auth.application.usecases.accounts import DeleteUserUseCase, SetUserActiveUseCase
from fastapi_acl.auth.application.usecases.register import RegisterUseCase
from fastapi_acl.auth.application.usecases.sessions import LoginUseCase, LogoutUseCase, RefreshTokenUseCase
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.shared.exceptions import InvalidTokenError, UserNotFoundError
from fastapi_acl.shared.http.problems import ProblemException
from fastapi_acl.shared.http.security import CurrentPrincipal, provide

get_auth_repository: Final = provide(IAuthRepository)  # type: ignore[type-abstract]  # un port se demande, et ne se construit pas
get_token_service: Final = provide(ITokenService)  # type: ignore[type-abstract]  # idem
get_register_usecase: Final = provide(RegisterUseCase)
get_login_usecase: Final = provide(LoginUseCase)
get_refresh_token_usecase: Final = provide(RefreshTokenUseCase)
get_logout_usecase: Final = provide(LogoutUseCase)
get_set_user_active_usecase: Final = provide(SetUserActiveUseCase)
get_delete_user_usecase: Final = provide(DeleteUserUseCase)

AuthRepositoryDep = Annotated[IAuthRepository, Depends(get_auth_repository)]
RegisterUseCaseDep = Annotated[RegisterUseCase, Depends(get_register_usecase)]
LoginUseCaseDep = Annotated[LoginUseCase, Depends(get_login_usecase)]
RefreshTokenUseCaseDep = Annotated[RefreshTokenUseCase, Depends(get_refresh_token_usecase)]
LogoutUseCaseDep = Annotated[LogoutUseCase, Depends(get_logout_usecase)]
SetUserActiveUseCaseDep = Annotated[SetUserActiveUseCase, Depends(get_set_user_active_usecase)]
DeleteUserUseCaseDep = Annotated[DeleteUserUseCase, Depends(get_delete_user_usecase)]


async def get_current_user(principal: CurrentPrincipal, users: AuthRepositoryDep) -> AuthUser:
    """Renvoie le compte de l'appelant, par une lecture ; `current_user` suffit à qui n'a besoin que de l'identité.

    Raises:
        ProblemException: 401 si le compte n'existe plus, ou si la base le dit désactivé, avant même la révocation.
    """
    try:
        user = await users.get_by_id(UUID(principal.id))
    except (UserNotFoundError, ValueError) as error:
        raise ProblemException(InvalidTokenError()) from error
    if not user.is_authenticated:
        raise ProblemException(InvalidTokenError())
    return user


CurrentUser = Annotated[AuthUser, Depends(get_current_user)]
