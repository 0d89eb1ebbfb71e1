"""Comparer un chemin à un motif segment par segment, par des recherches de texte et non caractère par caractère.

Un motif est une suite de segments, où `[^/]+` tient lieu d'un texte sans « / », et de `.*`, qui valent n'importe quel
texte sans saut de ligne. Avant le premier `.*` et après le dernier, un seul découpage est possible ; entre deux, un
texte se cherche au plus tôt, ce qui ne ferme aucune porte. Rien ne revient donc sur ses pas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

HOLE: Final = ""
"""Tient lieu de `[^/]+` entre deux textes d'un segment."""

Segment = tuple[str, ...]
"""Les textes d'un segment, séparés par autant de `[^/]+`."""


@dataclass(frozen=True, slots=True)
class Path:
    """Un motif sans `.*` : autant de segments que la valeur en a."""

    segments: tuple[Segment, ...]

    def matches(self, value: str) -> bool:
        """Dit si la valeur satisfait le motif ; comme `$`, un dernier saut de ligne peut être en trop."""
        return self._accepts(value) or (value.endswith("\n") and self._accepts(value[:-1]))

    def _accepts(self, value: str) -> bool:
        """Compare toute la valeur, sans la découper au-delà de ce que le motif compte."""
        texts = value.split("/", len(self.segments))
        return len(texts) == len(self.segments) and _all_fit(self.segments, texts)


@dataclass(frozen=True, slots=True)
class Gapped:
    """Un motif qui a au moins un `.*`.

    Attributes:
        head: segments entiers du début.
        start: texte qui les suit, juste avant le premier `.*`.
        middle: textes à trouver entre deux `.*`.
        end: texte qui suit le dernier `.*`.
        tail: segments entiers de la fin.
    """

    head: tuple[Segment, ...]
    start: str
    middle: tuple[str, ...]
    end: str
    tail: tuple[Segment, ...]

    def matches(self, value: str) -> bool:
        """Dit si la valeur satisfait le motif ; comme `$`, un dernier saut de ligne peut être en trop."""
        return self._accepts(value) or (value.endswith("\n") and self._accepts(value[:-1]))

    def _accepts(self, value: str) -> bool:
        """Compare le début, puis la fin, puis ce qui est entre eux ; un texte absent épargne tout le reste."""
        if self.middle and self.middle[0] not in value:
            return False
        *before, rest = value.split("/", len(self.head))
        start, *after = value.rsplit("/", len(self.tail))
        if len(before) != len(self.head) or len(after) != len(self.tail):
            return False
        if not rest.startswith(self.start) or not start.endswith(self.end):
            return False
        first, last = len(value) - len(rest) + len(self.start), len(start) - len(self.end)
        if first > last or value.find("\n", first, last) >= 0:
            return False
        return _all_fit(self.head, before) and _all_fit(self.tail, after) and self._finds(value, first, last)

    def _finds(self, value: str, first: int, last: int) -> bool:
        """Cherche, dans l'ordre, les textes du milieu."""
        for text in self.middle:
            found = value.find(text, first, last)
            if found < 0:
                return False
            first = found + len(text)
        return True


def read(atoms: Sequence[str]) -> Path | Gapped | None:
    """Lit un motif.

    Args:
        atoms: caractères du motif, un `HOLE` par `[^/]+`, et un texte de deux caractères par `.*`.

    Returns:
        De quoi comparer ; None si un `[^/]+` touche un `.*` ou se trouve entre deux : leur partage ne se devine pas.
    """
    blocks: list[list[str]] = [[]]
    for atom in atoms:
        if len(atom) > 1:
            blocks.append([])
        else:
            blocks[-1].append(atom)
    if len(blocks) == 1:
        return Path(_segments(blocks[0]))
    *head, start = _segments(blocks[0])
    end, *tail = _segments(blocks[-1])
    inner = blocks[1:-1]
    if len(start) > 1 or len(end) > 1 or any(HOLE in block for block in inner):
        return None
    return Gapped(tuple(head), start[0], tuple(map("".join, inner)), end[0], tuple(tail))


def _segments(atoms: Sequence[str]) -> tuple[Segment, ...]:
    """Découpe des caractères en segments, et chaque segment en textes."""
    segments: list[list[str]] = [[""]]
    for atom in atoms:
        if atom == "/":
            segments.append([""])
        elif atom == HOLE:
            segments[-1].append("")
        else:
            segments[-1][-1] += atom
    return tuple(map(tuple, segments))


def _all_fit(segments: Sequence[Segment], texts: Sequence[str]) -> bool:
    return all(_fits(segment, text) for segment, text in zip(segments, texts, strict=True))


def _fits(segment: Segment, text: str) -> bool:
    """Dit si un texte est fait de ceux d'un segment, dans l'ordre, et d'un caractère au moins entre deux."""
    if len(segment) == 1:
        return text == segment[0]
    first, *inner, last = segment
    if "/" in text or not text.startswith(first) or not text.endswith(last):
        return False
    place, stop = len(first) + 1, len(text) - len(last)
    for found in inner:
        place = text.find(found, place, stop)
        if place < 0:
            return False
        place += len(found) + 1
    return place <= stop
