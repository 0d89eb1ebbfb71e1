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
class CheckErrorDTO:
    """Une question qui n'a pas pu être décidée : sa place, et le code de l'erreur."""

    index: int
    code: str


@dataclass(frozen=True, slots=True)
class CheckResultDTO:
    """Réponses, dans l'ordre des questions, et la révision à laquelle elles valent.

    Attributes:
        revision: la révision.
        results: une réponse par question ; faux pour celle qui n'a pas pu être décidée.
        errors: celles-là.
    """

    revision: int
    results: list[bool]
    errors: list[CheckErrorDTO]
