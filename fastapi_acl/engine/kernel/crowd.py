"""Les grandes cases : ce que disent beaucoup de règles à la fois, sans les lire une à une."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.kernel.effects import OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastapi_acl.engine.kernel.rows import Rank, Row

Cell = dict["Row", int]
"""Les règles d'une case, et ce que chacune dit : `ALLOW`, `DENY` ou `OTHER`."""

CROWDED: Final = 64
"""Règles à partir desquelles une case compte ce qu'elles disent : en deçà, les lire coûte moins que le tenir à jour."""


class Crowd(Cell):
    """Une case de beaucoup de règles.

    Sous `r.sub == "root" || …` ou `p.sub == "*"`, une décision atteint d'un coup des milliers de règles, dont il suffit
    de savoir si l'une accorde et si l'une refuse ; et sous une priorité, laquelle vient d'abord.

    Attributes:
        said: ce que disent les règles de la case, et combien le disent.
    """

    __slots__ = ("_first", "said")

    def __init__(self, rows: Cell) -> None:
        """Prend les règles d'une case devenue grande."""
        super().__init__(rows)
        self.said = Counter(rows.values())
        self._first: tuple[int, Row | None] = (-1, None)

    def __setitem__(self, row: Row, mask: int) -> None:
        """Range une règle, absente jusque-là."""
        super().__setitem__(row, mask)
        self.said[mask] += 1

    def __delitem__(self, row: Row) -> None:
        """Retire une règle."""
        mask = self[row]
        super().__delitem__(row)
        self.said[mask] -= 1
        if not self.said[mask]:
            del self.said[mask]

    def first(self, rank: Callable[[Row], Rank], version: int) -> Iterable[tuple[Row, int]]:
        """Cherche la première règle qui accorde ou refuse, une fois par état de la politique.

        Args:
            rank: rang d'une règle.
            version: numéro de la politique, impair pendant un changement : rien n'est alors gardé.
        """
        known, row = self._first
        if known != version or version & 1:
            row = min((row for row, mask in self.items() if mask != OTHER), key=rank, default=None)
            self._first = (version, row)
        return () if row is None else ((row, self[row]),)
