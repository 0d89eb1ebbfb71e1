"""La santé d'un processus : où il en est du journal, et ce qui le tient au courant."""

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from fastapi_acl.shared.http.problems import ProblemRoute
from fastapi_acl.shared.http.scope import access_control

router = APIRouter(prefix="/acl", tags=["santé"], route_class=ProblemRoute)


class Health(BaseModel):
    """Ce que dit un processus de lui-même ; ni nom, ni adresse, ni secret.

    Attributes:
        status: `ok` ; `degraded`, il décide mais quelque chose est à réparer ; `unavailable`, il répond 503.
        revision: dernière révision appliquée, ou -1.
        database_revision: dernière révision vue dans la base, ou -1.
        lag_seconds: temps écoulé depuis que la base a été vue ; None si elle ne l'a jamais été.
        watcher: `connected`, `connecting`, `stopped`, ou `none` sans guetteur.
        cache: `memory`, `redis`, ou `redis_fallback` quand la mémoire remplace un Redis qui manque.
        quarantined_rows: lignes de règles illisibles, écartées à la lecture.
        model_differs: vrai si les règles ont été écrites sous un autre modèle que celui de ce processus ;
            `fastapi-acl policy apply` l'adopte.
        unreadable: table, ou collection, où quelque chose ne se lit pas, jusqu'à ce que tout ait été relu ; vide sans
            cela. Le journal d'événements nomme la ligne.
    """

    model_config = ConfigDict(frozen=True)

    status: Literal["ok", "degraded", "unavailable"]
    revision: int
    database_revision: int
    lag_seconds: float | None
    watcher: Literal["connected", "connecting", "stopped", "none"]
    cache: Literal["memory", "redis", "redis_fallback"]
    quarantined_rows: int
    model_differs: bool = False
    unreadable: str = ""


@router.get("/health", responses={503: {"model": Health, "description": "Ce processus ne décide pas."}})
async def health(request: Request, response: Response) -> Health:
    """Dit l'état de ce processus, sans toucher à la base : une sonde peut l'appeler souvent, et sans jeton."""
    found = access_control(request).health()
    if found.status == "unavailable":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    response.headers["Cache-Control"] = "no-store"
    return found
