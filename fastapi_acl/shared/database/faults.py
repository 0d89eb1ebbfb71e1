"""Ce qu'une instruction SQL lève sans être une panne : la base refuse une valeur, ou le pilote ne la lit pas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.exc import DataError, IntegrityError

from fastapi_acl.shared.database.refusals import codes_of
from fastapi_acl.shared.exceptions import StoredDataError, TransactionConflictError
from fastapi_acl.shared.logging import get_logger, quote
from fastapi_acl.shared.stored import MISREADINGS

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

    from fastapi_acl.shared.exceptions import UnavailableError

logger = get_logger("database")

AWAITED: Final = frozenset(
    {
        "23505",
        "23503",
        "1062",
        "1216",
        "1217",
        "1451",
        "1452",
        "UNIQUE constraint failed",
        "FOREIGN KEY constraint failed",
    }
)
"""Codes d'un doublon ou d'une clé étrangère (PostgreSQL, MySQL, SQLite), que les dépôts attendent."""

STALE: Final = "InvalidCachedStatementError"
"""Ce que le dialecte de PostgreSQL lève d'une instruction préparée sous un autre schéma."""

REFUSED: Final = "La base refuse ou rend une valeur qui ne tient pas dans sa colonne ; l’exploitant doit y remédier."


def name_faults(engine: AsyncEngine) -> None:
    """Fait une seule erreur de tout ce que les instructions d'un moteur lèvent, pannes et doublons mis à part."""
    event.listen(engine.sync_engine, "handle_error", _named, retval=True)


def _named(context: ExceptionContext) -> UnavailableError | None:
    """Rend l'erreur à lever à la place de celle de SQLAlchemy ou du pilote ; None s'il n'y a rien à changer."""
    wrapped, raised = context.sqlalchemy_exception, context.original_exception
    if type(raised).__name__ == STALE:
        return TransactionConflictError()  # préparée sous un schéma qui a changé depuis ; refaite, elle aboutit
    codes = _codes(wrapped) if wrapped is not None else []  # le texte, lui, peut citer toute la ligne
    is_refused = isinstance(wrapped, (DataError, IntegrityError)) and AWAITED.isdisjoint(codes)
    if not is_refused and (wrapped is not None or not isinstance(raised, MISREADINGS)):
        return None
    logger.error("stored_data_refused: %s %s", type(raised).__name__, quote(" ".join(codes), 60))
    return StoredDataError(REFUSED, "")


def _codes(error: Any) -> list[str]:  # noqa: ANN401 - une erreur de SQLAlchemy
    """Rend les codes que le serveur a donnés à une erreur ; de SQLite, ce qu'il dit avant de nommer la colonne.

    Un pilote de MySQL donne le numéro seul, ou le SQLSTATE aussi, qui ne distingue pas un doublon d'un NULL.
    """
    found = sorted(code.partition(":")[0] for code in codes_of(error) if code != "None")
    return [code for code in found if code.isalnum()] or found
