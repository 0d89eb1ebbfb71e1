"""Route d'administration : pourquoi cette décision ?"""

from fastapi import APIRouter, Request

from fastapi_acl.permissions.interface.admin.api import RulesReader
from fastapi_acl.permissions.interface.dependencies import ExplainDep
from fastapi_acl.permissions.interface.explain_schemas import ExplainDenial, ExplainQuestion, Explanation
from fastapi_acl.shared.exceptions import DecisionUnknownError, InvalidRequestError
from fastapi_acl.shared.http.problems import GUARDED, ProblemRoute, problems
from fastapi_acl.shared.http.security import require

router = APIRouter(prefix="/admin/permissions", tags=["admin"], route_class=ProblemRoute)

require_users_reader = require("acl.users:read")


@router.post("/explain", responses=problems(*GUARDED, InvalidRequestError, DecisionUnknownError))
async def explain_decision(
    body: ExplainQuestion | ExplainDenial, actor: RulesReader, explain: ExplainDep, request: Request
) -> Explanation:
    """Dit ce que la politique répond aujourd'hui à une question, ou à celle d'un refus, et pourquoi.

    D'un refus, seuls les noms des attributs sont retenus : une règle qui en lit la valeur renvoie `evaluation_failed` ;
    posez alors la question avec `attributes`. Sur un autre sujet que soi, `acl.users:read` est aussi demandé.
    """
    question = explain.get_denied(body.decision_id) if isinstance(body, ExplainDenial) else body.to_question()
    if question.subject != actor.subject:
        await require_users_reader(connection=request, principal=actor)
        explain.require_account_reader(actor)
    return Explanation.of(await explain.execute(question))
