"""Routes de chacun : s'inscrire, se connecter, renouveler, se déconnecter."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import OAuth2PasswordRequestForm

from fastapi_acl.auth.domain.dtos.auth_dtos import LoginDTO
from fastapi_acl.auth.interface.dependencies import (
    CurrentUser,
    LoginUseCaseDep,
    LogoutUseCaseDep,
    RefreshTokenUseCaseDep,
    RegisterUseCaseDep,
)
from fastapi_acl.auth.interface.schemas import (
    LoginRequest,
    LoginResponse,
    LogoutRequest,
    RefreshTokenRequest,
    RefreshTokenResponse,
    RegisterRequest,
    UserResponse,
)
from fastapi_acl.shared.exceptions import (
    HashingSaturatedError,
    InvalidCredentialsError,
    InvalidEmailError,
    InvalidRequestError,
    InvalidTokenError,
    InvalidUsernameError,
    PolicyUnreadableError,
    StoredDataError,
    TokenReusedError,
    UserAlreadyExistsError,
    UserNotActiveError,
    WeakPasswordError,
)
from fastapi_acl.shared.http.problems import IDENTIFIED, READY, ProblemRoute, problems
from fastapi_acl.shared.http.security import CurrentPrincipal

LOGIN = (
    InvalidRequestError,
    InvalidCredentialsError,
    UserNotActiveError,
    HashingSaturatedError,
    StoredDataError,
    *READY,
)
REPEATED_FIELD = "Dans le formulaire, un champ est répété : ne gardez qu’une de ses valeurs."

router = APIRouter(prefix="/auth", tags=["auth"], route_class=ProblemRoute)
token_router = APIRouter(prefix="/auth", tags=["auth"], route_class=ProblemRoute)


@router.post(
    "/register",
    status_code=201,
    responses=problems(
        UserAlreadyExistsError,
        InvalidUsernameError,
        InvalidEmailError,
        WeakPasswordError,
        HashingSaturatedError,
        InvalidRequestError,
        *READY,
    ),
)
async def register(body: RegisterRequest, register_user: RegisterUseCaseDep) -> UserResponse:
    """Inscrit un compte, sans aucun droit, et le renvoie sans son mot de passe."""
    return UserResponse.of(await register_user.execute(body.to_dto()))


@router.post("/login", responses=problems(*LOGIN))
async def login(
    body: LoginRequest, request: Request, response: Response, open_session: LoginUseCaseDep
) -> LoginResponse:
    """Ouvre une session et renvoie ses deux jetons."""
    user_agent, ip = _read_client(request)
    _forbid_storing(response)
    return LoginResponse.of(await open_session.execute(body.to_dto(user_agent=user_agent, ip=ip)))


@token_router.post("/token", responses=problems(*LOGIN))
async def token(
    form: Annotated[OAuth2PasswordRequestForm, Depends()],
    request: Request,
    response: Response,
    open_session: LoginUseCaseDep,
) -> LoginResponse:
    """Fait la même chose d'un formulaire, pour le bouton « Authorize » de Swagger.

    Raises:
        InvalidRequestError: un champ y est répété (RFC 6749, 3.2).
    """
    given = [name for name, _ in (await request.form()).multi_items()]
    if len(set(given)) != len(given):
        raise InvalidRequestError(REPEATED_FIELD)
    user_agent, ip = _read_client(request)
    login = LoginDTO(username=form.username[:256], password=form.password[:2048], user_agent=user_agent, ip=ip)
    _forbid_storing(response)
    return LoginResponse.of(await open_session.execute(login))


@router.post(
    "/refresh",
    responses=problems(
        InvalidRequestError, InvalidTokenError, TokenReusedError, StoredDataError, PolicyUnreadableError, *READY
    ),
)
async def refresh(body: RefreshTokenRequest, response: Response, renew: RefreshTokenUseCaseDep) -> RefreshTokenResponse:
    """Échange un refresh token contre une paire neuve ; l'ancien est dépensé."""
    _forbid_storing(response)
    return RefreshTokenResponse.of(await renew.execute(body.to_dto()))


@router.get("/me", responses=problems(*IDENTIFIED, StoredDataError))
async def me(user: CurrentUser) -> UserResponse:
    """Renvoie le compte de l'appelant."""
    return UserResponse.of(user)


@router.post(
    "/logout",
    status_code=204,
    responses=problems(*IDENTIFIED, InvalidRequestError, StoredDataError, PolicyUnreadableError),
)
async def logout(
    principal: CurrentPrincipal, close_session: LogoutUseCaseDep, body: LogoutRequest | None = None
) -> None:
    """Ferme la session de l'appelant, ou toutes ; leurs jetons d'accès cessent aussitôt."""
    await close_session.execute(principal, everywhere=body is not None and body.everywhere)


def _read_client(request: Request) -> tuple[str | None, str | None]:
    """Renvoie le navigateur et l'adresse de l'appelant ; aucun en-tête de proxy n'est cru."""
    user_agent = request.headers.get("user-agent")
    return user_agent[:255] if user_agent else None, request.client.host[:64] if request.client else None


def _forbid_storing(response: Response) -> None:
    """Interdit de garder la réponse (RFC 6749, 5.1)."""
    response.headers["Cache-Control"] = "no-store"
