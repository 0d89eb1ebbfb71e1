"""Un refus sans appel d'une base, quelle qu'elle soit."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """Un refus sans appel.

    Attributes:
        words: ce que le serveur en dit.
        advice: ce que l'exploitant doit faire.
    """

    words: str
    advice: str
