"""Routes d'administration : lister, activer, désactiver et supprimer des comptes."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from fastapi_acl.auth.interface.dependencies import AuthRepositoryDep, DeleteUserUseCaseDep, SetUserActiveUseCaseDep
from fastapi_acl.auth.interface.schemas import UserPageResponse, UserResponse
from fastapi_acl.shared.exceptions import (
    ChangeTooLargeError,
    EscalationRefusedError,
    InvalidRequestError,
    LastAdministratorError,
    PolicyUnreadableError,
    StoredDataError,
    UserNotFoundError,
)
from fastapi_acl.shared.http.pages import PageLimit
from fastapi_acl.shared.http.problems import GUARDED, ProblemRoute, problems
from fastapi_acl.shared.http.security import require
from fastapi_acl.shared.identity import Principal

router = APIRouter(prefix="/admin/auth", tags=["admin"], route_class=ProblemRoute)

WRITTEN = (
    *GUARDED,
    InvalidRequestError,
    UserNotFoundError,
    EscalationRefusedError,
    StoredDataError,
    PolicyUnreadableError,
)
"""Erreurs que peut rendre toute route qui change un compte."""

UsersReader = Annotated[Principal, Depends(require("acl.users:read"))]
UsersWriter = Annotated[Principal, Depends(require("acl.users:write"))]


@router.get("/users", responses=problems(*GUARDED, InvalidRequestError, StoredDataError))
async def list_users(
    users: AuthRepositoryDep,
    _: UsersReader,
    limit: PageLimit = 50,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    q: Annotated[str | None, Query(min_length=1, max_length=64, description="Texte du nom ou de l'adresse.")] = None,
    is_active: Annotated[bool | None, Query(description="Actifs seulement, ou inactifs seulement.")] = None,
) -> UserPageResponse:
    """Liste les comptes, dans l'ordre de leurs noms."""
    return UserPageResponse.of(await users.list_users(limit=limit, cursor=cursor, query=q, is_active=is_active))


@router.put("/users/{user_id}/activate", responses=problems(*WRITTEN))
async def activate_user(user_id: UUID, actor: UsersWriter, set_active: SetUserActiveUseCaseDep) -> UserResponse:
    """Active un compte."""
    return UserResponse.of(await set_active.execute(user_id, active=True, actor=actor))


@router.put(
    "/users/{user_id}/deactivate",
    responses=problems(*WRITTEN, LastAdministratorError),
)
async def deactivate_user(user_id: UUID, actor: UsersWriter, set_active: SetUserActiveUseCaseDep) -> UserResponse:
    """Désactive un compte ; ses jetons cessent aussitôt."""
    return UserResponse.of(await set_active.execute(user_id, active=False, actor=actor))


@router.delete(
    "/users/{user_id}",
    status_code=204,
    responses=problems(*WRITTEN, LastAdministratorError, ChangeTooLargeError),
)
async def delete_user(user_id: UUID, actor: UsersWriter, remove: DeleteUserUseCaseDep) -> None:
    """Supprime un compte, ses sessions et ses règles, tout ou rien."""
    await remove.execute(user_id, actor=actor)
