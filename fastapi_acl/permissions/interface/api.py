"""Routes de chacun : poser des questions sur ses propres permissions."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Response

from fastapi_acl.engine.kernel.pacing import Pace
from fastapi_acl.permissions.interface.dependencies import CheckPermissionsDep, ListPermissionsDep
from fastapi_acl.permissions.interface.schemas import CheckRequest, CheckResponse, PermissionList, Value
from fastapi_acl.shared.exceptions import InvalidRequestError
from fastapi_acl.shared.http.problems import IDENTIFIED, ProblemRoute, problems
from fastapi_acl.shared.http.security import CurrentPrincipal
from fastapi_acl.shared.policy import Grant, PolicyStamp

LOT: Final = 100
"""Permissions écrites d'un coup."""

MINE = problems(*IDENTIFIED, InvalidRequestError)

router = APIRouter(prefix="/permissions", tags=["permissions"], route_class=ProblemRoute)


@router.post("/check", responses=MINE)
async def check_permissions(
    body: CheckRequest, principal: CurrentPrincipal, check: CheckPermissionsDep
) -> CheckResponse:
    """Dit, question par question, ce que l'appelant peut faire ; une application cliente y règle ses boutons."""
    return CheckResponse.of(await check.execute(principal, [item.to_dto() for item in body.checks]))


@router.get(
    "/me",
    response_model=PermissionList,
    responses={304: {"description": "Rien n'a changé depuis l'ETag que donne `If-None-Match`."}, **MINE},
)
async def list_my_permissions(
    principal: CurrentPrincipal,
    listing: ListPermissionsDep,
    domain: Annotated[Value | None, Query(description="Domaine (locataire), si le modèle en a.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Liste les règles qui valent pour l'appelant, refus compris : pour afficher, non pour décider."""
    headers = _make_headers(listing.stamp(principal, domain))
    if headers["ETag"] in _read_tags(if_none_match):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    stamp, grants = await listing.execute(principal, domain)
    return Response(await _write_list(stamp, grants), headers=_make_headers(stamp), media_type="application/json")


async def _write_list(stamp: PolicyStamp, grants: Sequence[Grant]) -> bytes:
    """Écrit une liste par petits lots : cent mille règles d'un coup tiendraient la boucle d'événements."""
    empty = PermissionList.of(stamp, ()).model_dump_json().encode()
    pace, lots = Pace(), list[bytes]()
    for start in range(0, len(grants), LOT):
        lots.append(PermissionList.of(stamp, grants[start : start + LOT]).model_dump_json().encode())
        await pace.step(LOT)
    head = empty.removesuffix(b"]}")
    return head + b",".join([lot.removeprefix(head).removesuffix(b"]}") for lot in lots]) + b"]}"


def _make_headers(stamp: PolicyStamp) -> dict[str, str]:
    """Renvoie de quoi garder une liste, pour ce seul appelant, et demander chaque fois si elle vaut encore.

    Source : RFC 9110, section 8.8.3 ; RFC 9111, section 5.2.2.
    """
    tag = f'"{stamp.policy_revision}-{stamp.digest}"'
    return {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}


def _read_tags(if_none_match: str | None) -> set[str]:
    """Lit les étiquettes d'un client ; la comparaison est faible (RFC 9110, section 13.1.2)."""
    return {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
