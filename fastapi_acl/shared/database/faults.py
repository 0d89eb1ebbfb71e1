"""Ce qu'une instruction SQL lève sans être une panne : la base refuse une valeur, ou le pilote ne la lit pas."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import event
from sqlalchemy.exc import DataError, IntegrityError

from fastapi_acl.shared.database.refusals import codes_of
from fastapi_acl.shared.exceptions import StoredDataError
from fastapi_acl.shared.logging import get_logger, quote
from fastapi_acl.shared.stored import MISREADINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine.interfaces import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine


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

DATA_CLASSES: Final = ("22", "54")
"""Débuts des SQLSTATE d'une valeur que le serveur refuse, ou qui passe ses limites ; asyncpg n'a pas d'erreur pour eux.

Source : https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

SQLSTATE_LENGTH: Final = 5

REFUSED: Final = "La base refuse ou rend une valeur qui ne tient pas dans sa colonne ; l’exploitant doit y remédier."


def name_faults(engine: AsyncEngine) -> None:
    """Fait une seule erreur de tout ce que les instructions d'un moteur lèvent, pannes et doublons mis à part."""
    event.listen(engine.sync_engine, "handle_error", _translate, retval=True)


@contextmanager
def naming(integrity: type[Exception]) -> Iterator[None]:
    """Donne aux erreurs d'un pilote, appelé sans SQLAlchemy, le nom qu'elles auraient par lui.

    Args:
        integrity: l'erreur du pilote quand une contrainte n'est pas tenue.

    Raises:
        IntegrityError: un doublon, qu'un dépôt attend.
        StoredDataError: la base refuse une valeur, ou en rend une qui ne se lit pas.
    """
    try:
        yield
    except Exception as error:
        wrapped = IntegrityError(None, None, error) if isinstance(error, integrity) else None
        found = _fault_of(wrapped, error) or wrapped
        if found is None:
            raise
        raise found from error


def _translate(context: ExceptionContext) -> StoredDataError | None:
    """Renvoie l'erreur à lever à la place de celle de SQLAlchemy ou du pilote ; None s'il n'y a rien à changer."""
    return _fault_of(context.sqlalchemy_exception, context.original_exception)


def _fault_of(wrapped: Exception | None, raised: BaseException) -> StoredDataError | None:
    """Renvoie ce que vaut une erreur du pilote, que SQLAlchemy l'habille ou non ; None si ce n'est pas une valeur."""
    codes = codes_of(raised)
    is_refused = isinstance(wrapped, (DataError, IntegrityError)) and not codes & AWAITED
    is_misread = wrapped is None and isinstance(raised, MISREADINGS)
    if not (is_refused or is_misread or any(map(_is_of_data, codes))):
        return None
    said = [] if is_misread else sorted(codes)  # le texte, lui, peut citer toute la ligne
    logger.error("stored_data_refused: %s %s", type(raised).__name__, quote(" ".join(said), 60))
    return StoredDataError(REFUSED, "")


def _is_of_data(code: str) -> bool:
    """Dit si un code est celui d'une valeur que PostgreSQL refuse."""
    return len(code) == SQLSTATE_LENGTH and code.startswith(DATA_CLASSES)
