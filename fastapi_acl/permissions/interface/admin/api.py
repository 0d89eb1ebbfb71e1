"""Routes d'administration : lire et changer les règles de politique."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from fastapi_acl.permissions.interface.dependencies import PolicyRulesDep
from fastapi_acl.permissions.interface.schemas import (
    ReplaceRuleRequest,
    RulePage,
    RuleReplaced,
    RulesAdded,
    RuleSchema,
    RulesRemoved,
    RulesRequest,
)
from fastapi_acl.shared.exceptions import (
    ConflictError,
    EscalationRefusedError,
    IdempotencyKeyReusedError,
    InvalidRequestError,
    InvalidRuleError,
    LastAdministratorError,
    RoleNotFoundError,
    RuleAlreadyExistsError,
    RuleNotFoundError,
)
from fastapi_acl.shared.http.idempotency import IdempotencyKeyDep
from fastapi_acl.shared.http.problems import GUARDED, ProblemRoute, problems
from fastapi_acl.shared.http.security import require
from fastapi_acl.shared.identity import Principal
from fastapi_acl.shared.policy import PolicyChange

router = APIRouter(prefix="/admin/permissions", tags=["admin"], route_class=ProblemRoute)

RulesReader = Annotated[Principal, Depends(require("acl.rules:read"))]
RulesWriter = Annotated[Principal, Depends(require("acl.rules:write"))]
Filter = Annotated[str | None, Query(min_length=1, max_length=250)]


async def read_filters(  # noqa: PLR0913, PLR0917 - une par colonne
    ptype: Filter = None,
    v0: Filter = None,
    v1: Filter = None,
    v2: Filter = None,
    v3: Filter = None,
    v4: Filter = None,
    v5: Filter = None,
) -> dict[str, str]:
    """Rassemble les valeurs exigées, par colonne."""
    given = {"ptype": ptype, "v0": v0, "v1": v1, "v2": v2, "v3": v3, "v4": v4, "v5": v5}
    return {name: value for name, value in given.items() if value is not None}


async def read_row_cursor(cursor: Annotated[str | None, Query(max_length=20)] = None) -> int:
    """Lit le cursor d'une page.

    Raises:
        InvalidRequestError: il ne vient pas de `next_cursor`.
    """
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit()):
        message = "Le cursor n’est pas un de ceux que renvoie « next_cursor »."
        raise InvalidRequestError(message)
    return min(int(cursor), 2**31 - 1)


@router.get("/rules", responses=problems(*GUARDED))
async def list_rules(
    rules: PolicyRulesDep,
    _: RulesReader,
    filters: Annotated[dict[str, str], Depends(read_filters)],
    after: Annotated[int, Depends(read_row_cursor)],
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> RulePage:
    """Liste les règles, dans l'ordre où elles ont été écrites, filtrées par valeur exacte."""
    rows = await rules.page(filters, after=after, limit=limit + 1)
    shown = rows[:limit]
    following = str(shown[-1][0]) if len(rows) > limit else None
    return RulePage(items=[RuleSchema.of(rule) for _, rule in shown], next_cursor=following)


@router.post(
    "/rules",
    status_code=201,
    responses=problems(
        *GUARDED,
        InvalidRuleError,
        IdempotencyKeyReusedError,
        RuleAlreadyExistsError,
        RoleNotFoundError,
        EscalationRefusedError,
        LastAdministratorError,
        ConflictError,
    ),
)
async def add_rules(
    body: RulesRequest, actor: RulesWriter, rules: PolicyRulesDep, key: IdempotencyKeyDep
) -> RulesAdded:
    """Ajoute des règles, toutes ou aucune ; nul n'accorde ce qu'il ne détient pas."""
    added = body.to_rules()
    return RulesAdded(revision=await rules.change(PolicyChange(added=added), actor, key=key), added=len(added))


@router.put(
    "/rules",
    responses=problems(
        *GUARDED,
        InvalidRuleError,
        IdempotencyKeyReusedError,
        RuleAlreadyExistsError,
        RoleNotFoundError,
        RuleNotFoundError,
        EscalationRefusedError,
        LastAdministratorError,
        ConflictError,
    ),
)
async def replace_rule(
    body: ReplaceRuleRequest, actor: RulesWriter, rules: PolicyRulesDep, key: IdempotencyKeyDep
) -> RuleReplaced:
    """Remplace une règle par une autre, en une fois et à la même place."""
    change = PolicyChange(added=(body.new.to_rule(),), removed=(body.old.to_rule(),), in_place=True)
    return RuleReplaced(revision=await rules.change(change, actor, key=key))


@router.delete(
    "/rules",
    responses=problems(
        *GUARDED,
        InvalidRuleError,
        IdempotencyKeyReusedError,
        RuleNotFoundError,
        EscalationRefusedError,
        LastAdministratorError,
        ConflictError,
    ),
)
async def remove_rules(
    body: RulesRequest, actor: RulesWriter, rules: PolicyRulesDep, key: IdempotencyKeyDep
) -> RulesRemoved:
    """Retire exactement ces règles, toutes ou aucune."""
    removed = body.to_rules()
    change = PolicyChange(removed=removed)
    return RulesRemoved(revision=await rules.change(change, actor, key=key), removed=len(removed))
