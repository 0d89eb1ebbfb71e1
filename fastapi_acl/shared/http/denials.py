"""Ce qu'une garde dit au journal : chaque refus, avec son numéro ; une décision qui échoue, une fois par minute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi_acl.shared.exceptions import DecisionFailedError, PermissionDeniedError
from fastapi_acl.shared.http.resources import route_label
from fastapi_acl.shared.http.scope import access_control
from fastapi_acl.shared.logging import get_logger, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import HTTPConnection

    from fastapi_acl.shared.decisions import Question

logger = get_logger("http")

MAX_REASON: Final = 500
"""Longueur d'une cause : elle nomme l'endroit, puis ce qu'il faut y faire."""


def record_denial(connection: HTTPConnection, questions: Sequence[Question]) -> PermissionDeniedError:
    """Journalise un refus, et fait l'erreur qui en donne le numéro.

    Args:
        connection: requête en cours.
        questions: ce qui a été refusé ; c'est de la première que ce processus se souvient.
    """
    manager = access_control(connection)
    number = manager.decisions.deny(questions[0])
    logger.info(
        "denied: decision_id=%s subject=%s permission=%s domain=%s route=%s revision=%d",
        number,
        quote(questions[0].subject),
        ",".join(quote(question.permission) for question in questions),
        "-" if questions[0].domain is None else quote(questions[0].domain),
        quote(route_label(connection)),
        manager.revision,
    )
    return PermissionDeniedError(decision_id=number)


def report_failure(connection: HTTPConnection, error: Exception, asked: Sequence[str] = ()) -> None:
    """Journalise l'échec d'une décision, une fois par cause et par minute ; la pile n'est dite qu'au niveau DEBUG.

    Args:
        connection: requête en cours.
        error: ce qui a été levé ; rien n'est dit si ce n'est pas une décision qui a échoué.
        asked: permissions demandées, telles que le code de l'application les écrit.
    """
    if not isinstance(error, DecisionFailedError):
        return
    route = route_label(connection)
    logger.debug("decision_failed_here: route=%s", quote(route), exc_info=error)
    if access_control(connection).decisions.is_news((route, *asked, error.reason)):
        logger.error(
            "decision_failed: route=%s permission=%s rule=%s reason=%s",
            quote(route),
            ",".join(map(quote, asked)) or "-",
            ",".join(map(quote, error.rule)) or "-",
            quote(error.reason or type(error.__cause__ or error).__name__, MAX_REASON),
        )
