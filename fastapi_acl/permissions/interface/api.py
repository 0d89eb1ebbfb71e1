"""Routes de chacun : poser des questions sur ses propres permissions."""

from fastapi import APIRouter

from fastapi_acl.permissions.interface.dependencies import CheckPermissionsDep
from fastapi_acl.permissions.interface.schemas import CheckRequest, CheckResponse
from fastapi_acl.shared.exceptions import (
    AuthenticationRequiredError,
    InvalidRequestError,
    InvalidTokenError,
    PolicyUnavailableError,
)
from fastapi_acl.shared.http.problems import ProblemRoute, problems
from fastapi_acl.shared.http.security import CurrentPrincipal

router = APIRouter(prefix="/permissions", tags=["permissions"], route_class=ProblemRoute)


@router.post(
    "/check",
    responses=problems(AuthenticationRequiredError, InvalidTokenError, InvalidRequestError, PolicyUnavailableError),
)
async def check_permissions(
    body: CheckRequest, principal: CurrentPrincipal, check: CheckPermissionsDep
) -> CheckResponse:
    """Dit, question par question, ce que l'appelant peut faire ; une application cliente y règle ses boutons."""
    return CheckResponse.of(await check.execute(principal, [item.to_dto() for item in body.checks]))
