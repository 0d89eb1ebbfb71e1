"""Les pages d'une liste : combien d'éléments, et où reprendre."""

from typing import Annotated, Final

from fastapi import Depends, Query

from fastapi_acl.shared.exceptions import InvalidRequestError

MAX_PAGE: Final = 200
"""Éléments d'une page, au plus."""

FOREIGN_CURSOR: Final = "Le cursor n’est pas un de ceux que rend « next_cursor »."

LAST_ROW: Final = 2**31 - 1
"""Plus grand numéro de ligne qu'une base garde."""


async def row_cursor(cursor: Annotated[str | None, Query(max_length=20)] = None) -> int:
    """Lit le cursor d'une liste rangée par numéros de lignes ; 0 au début.

    Raises:
        InvalidRequestError: il ne vient pas de `next_cursor`.
    """
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit()):
        raise InvalidRequestError(FOREIGN_CURSOR)
    return min(int(cursor), LAST_ROW)


PageLimit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
RowCursor = Annotated[int, Depends(row_cursor)]
