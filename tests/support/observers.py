"""Ce qu'un essai apprend d'un processus, comme l'apprendrait un autre."""

from __future__ import annotations

from fastapi_acl.shared.sync.changes import Change
from fastapi_acl.shared.sync.replica import Observer, Position, Replica


class Hearer(Observer):
    """Retient ce qu'un processus annonce."""

    def __init__(self) -> None:
        self.said: list[tuple[Position, Change]] = []

    def note_change(self, before: Position, change: Change) -> None:
        self.said.append((before, change))


def hear(replica: Replica) -> list[tuple[Position, Change]]:
    """Rend la liste, qui s'allonge, de ce qu'un processus annonce."""
    hearer = Hearer()
    replica.observe(hearer)
    return hearer.said
