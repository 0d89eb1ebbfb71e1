"""Questions posées au moteur, et leurs réponses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CheckDTO:
    """Une question sur l'appelant ; le domaine y est une question, jamais un octroi."""

    resource: str
    action: str
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class CheckResultDTO:
    """Réponses, dans l'ordre des questions, et la révision à laquelle elles valent."""

    revision: int
    results: list[bool]
