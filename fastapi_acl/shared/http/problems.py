"""Des erreurs aux réponses `application/problem+json` (RFC 9457), sans jamais rendre ce que l'appelant a envoyé."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fastapi_acl.shared.exceptions import (
    ACLException,
    AuthenticationError,
    AuthenticationRequiredError,
    AuthorizationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    DecisionFailedError,
    GoneError,
    InvalidCredentialsError,
    InvalidInputError,
    InvalidMinRevisionError,
    InvalidRequestError,
    InvalidTokenError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    PolicyUnavailableError,
    RevisionNotReachedError,
    UnavailableError,
)
from fastapi_acl.shared.http.denials import report_failure
from fastapi_acl.shared.http.dependants import guards_in, route_of
from fastapi_acl.shared.http.json_body import UNDECLARED, UNREADABLE, StrictRequest, is_undeclared
from fastapi_acl.shared.http.overrides import overrides_of
from fastapi_acl.shared.http.scope import access_control
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from starlette.requests import Request

logger = get_logger("http")

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 1
REVISION_HEADER: Final = "X-ACL-Revision"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
POLICY_VIOLATION: Final = 1008
"""Code de fermeture d'un WebSocket refusé (RFC 6455, 7.4.1)."""

STATUSES: Final[Mapping[type[ACLException], int]] = {
    AuthenticationError: HTTPStatus.UNAUTHORIZED,
    AuthorizationError: HTTPStatus.FORBIDDEN,
    BadRequestError: HTTPStatus.BAD_REQUEST,
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    GoneError: HTTPStatus.GONE,
    InvalidInputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    PayloadTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    ConfigurationError: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""Statut de chaque famille ; une erreur d'aucune famille est un défaut, donc un 500."""

READY: Final = (PolicyUnavailableError, DatabaseUnavailableError, DatabaseRefusedError)
"""Erreurs que toute route peut rendre : le service n'est pas prêt, ou ce qu'il lui faut lui manque."""

IDENTIFIED: Final = (
    AuthenticationRequiredError,
    InvalidTokenError,
    InvalidMinRevisionError,
    RevisionNotReachedError,
    *READY,
)
"""Erreurs que peut rendre toute route qui demande `current_user`."""

GUARDED: Final = (*IDENTIFIED, PermissionDeniedError, DecisionFailedError)
"""Erreurs que peut rendre toute route gardée par `require`."""

REASONS: Final[Mapping[str, str]] = {
    "missing": "champ requis",
    "extra_forbidden": "champ inconnu",
    "json_invalid": "JSON illisible",
    "string_type": "texte attendu",
    "string_unicode": "texte Unicode valide attendu",
    "string_too_short": "texte trop court",
    "string_too_long": "texte trop long",
    "string_pattern_mismatch": "forme refusée",
    "bool_parsing": "booléen attendu",
    "bool_type": "booléen attendu",
    "int_parsing": "entier attendu",
    "int_type": "entier attendu",
    "list_type": "liste attendue",
    "too_short": "liste trop courte",
    "too_long": "liste trop longue",
    "uuid_parsing": "UUID attendu",
    "model_attributes_type": "objet JSON attendu",
    "dict_type": "objet JSON attendu",
    "greater_than_equal": "nombre trop petit",
    "less_than_equal": "nombre trop grand",
}
"""Ce qui ne va pas, par type d'erreur de Pydantic ; les messages de Pydantic peuvent citer l'entrée."""


class Problem(BaseModel):
    """Corps d'une erreur (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="URI de la nature du problème.", examples=["about:blank"])
    title: str = Field(description="Libellé du statut HTTP.")
    status: int = Field(description="Statut HTTP.")
    detail: str = Field(description="Phrase pour une personne.")
    code: str = Field(description="Identifiant stable, pour un programme.")


class ProblemException(HTTPException):
    """Erreur levée par une dépendance, sur les routes de l'application.

    Hors de la portée de notre gestionnaire (une sous-application montée), FastAPI la rend avec le bon statut.
    """

    def __init__(self, error: ACLException) -> None:
        """Habille une erreur de la bibliothèque.

        Args:
            error: l'erreur.
        """
        super().__init__(status_code(error), error.detail, dict(headers(error)))
        self.error = error


def _date(request: Request, response: Response) -> Response:
    """Dit, après une écriture, la révision qu'il faut exiger ailleurs pour la voir."""
    if request.method not in SAFE_METHODS:
        response.headers[REVISION_HEADER] = str(access_control(request).revision)
    return response


async def _forestall(request: Request) -> None:
    """Interroge les gardes d'une route avant que FastAPI ne lise le corps : qui sera refusé n'a pas à être écouté.

    Ce qui passe est demandé de nouveau, une fois le corps venu : il a pu tarder, et le droit disparaître.
    """
    route = route_of(request)
    if getattr(route, "body_field", None) is not None:
        for guard in guards_in(route.dependant, overrides_of(request)):
            await guard.forestall(request)


class ProblemRoute(APIRoute):
    """Route dont le corps se lit strictement, et dont toutes les erreurs, validation comprise, sont des problèmes.

    Ses gardes refusent avant que le corps de la demande soit lu.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Enveloppe le gestionnaire de FastAPI."""
        handle = super().get_route_handler()

        async def handle_with_problems(request: Request) -> Response:
            try:
                await _forestall(request)
                return _date(request, await handle(StrictRequest(request.scope, request.receive)))
            except RequestValidationError as error:
                sentence = UNDECLARED if is_undeclared(self.body_field, request) else None
                return problem_response(InvalidRequestError(sentence, errors=describe(error.errors())))
            except ProblemException as error:
                return problem_response(error.error)
            except HTTPException as error:
                return problem_response(_unreadable(error))
            except ACLException as error:
                report_failure(request, error)
                return problem_response(error)

        return handle_with_problems


def _unreadable(error: HTTPException) -> ACLException:
    """Traduit ce que FastAPI lève avant nos routes : un corps illisible, que nous avons pu refuser, ou trop grand."""
    if error.status_code == HTTPStatus.BAD_REQUEST:
        refused = error.__cause__
        return refused if isinstance(refused, InvalidRequestError) else InvalidRequestError(UNREADABLE)
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return PayloadTooLargeError()
    raise error


def problems(*errors: type[ACLException]) -> dict[int | str, dict[str, Any]]:
    """Décrit, pour OpenAPI, les erreurs qu'une route peut rendre.

    Args:
        *errors: classes d'erreurs.

    Returns:
        La valeur de `responses=`, un exemple par code.
    """
    described: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        entry = described.setdefault(
            status_code(error), {"model": Problem, "description": "", "content": {MEDIA_TYPE: {"examples": {}}}}
        )
        entry["description"] = "\n\n".join(
            filter(None, [entry["description"], f"`{error.code}` : {error.default_detail}"])
        )
        entry["content"][MEDIA_TYPE]["examples"][error.code] = {"value": body(error())}
    return described


def status_code(error: ACLException | type[ACLException]) -> int:
    """Renvoie le statut HTTP d'une erreur, d'après sa famille."""
    kind = error if isinstance(error, type) else type(error)
    return next((int(STATUSES[family]) for family in kind.__mro__ if family in STATUSES), 500)


def headers(error: ACLException) -> Mapping[str, str]:
    """Renvoie les en-têtes de la réponse : le défi de la RFC 6750, ou le temps à attendre s'il sert à quelque chose."""
    if isinstance(error, DatabaseRefusedError):
        return {}
    if isinstance(error, UnavailableError):
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    challenge = _challenge(error)
    return {"WWW-Authenticate": challenge} if challenge else {}


def _challenge(error: ACLException) -> str | None:
    """Renvoie le défi `Bearer` ; sans code d'erreur quand aucun jeton n'a été présenté (RFC 6750, 3.1)."""
    if isinstance(error, (AuthenticationRequiredError, InvalidCredentialsError)):
        return "Bearer"
    if isinstance(error, AuthenticationError):
        return 'Bearer error="invalid_token"'
    return 'Bearer error="insufficient_scope"' if isinstance(error, PermissionDeniedError) else None


def body(error: ACLException) -> dict[str, object]:
    """Renvoie le corps du problème ; les preuves de l'erreur s'y ajoutent."""
    status = status_code(error)
    return {
        **error.evidence,
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.detail,
        "code": error.code,
    }


def problem_response(error: ACLException) -> Response:
    """Renvoie la réponse d'une erreur ; un demi-codet isolé n'y fait rien tomber."""
    if status_code(error) == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("internal_error: %s", error.code, exc_info=error)
        error = ACLException()
    content = json.dumps(body(error), ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Response(content, status_code(error), dict(headers(error)), MEDIA_TYPE)


def describe(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Dit ce qui ne va pas dans une demande, sans citer ni les valeurs, ni les noms de champs qu'elle a inventés."""
    return [
        {
            "loc": list(error["loc"][:-1] if error["type"] == "extra_forbidden" else error["loc"]),
            "type": error["type"],
            "reason": REASONS.get(error["type"], "valeur refusée"),
        }
        for error in errors
    ]


async def handle_problem(connection: Any, error: Exception) -> Any:  # noqa: ANN401 - requête ou WebSocket, réponse ou rien
    """Gestionnaire d'exceptions de l'application : rend un problème, ou ferme le WebSocket refusé."""
    found = error.error if isinstance(error, ProblemException) else error
    if not isinstance(found, ACLException):
        raise error
    if found is error:  # une garde a déjà dit ce qu'elle habille
        report_failure(connection, found)
    if connection.scope["type"] == "websocket":
        return await connection.close(POLICY_VIOLATION, found.code)
    return problem_response(found)
