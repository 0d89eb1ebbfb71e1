"""L'horloge murale d'un processus, mise à l'heure que veut l'essai, pendant qu'il sert (libfaketime)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import ServerUnavailableError

LIBRARIES = "lib*/*/faketime/libfaketimeMT.so.1"


@dataclass
class Clock:
    """Une horloge en avance ou en retard sur la vraie ; l'horloge monotone, elle, reste vraie.

    Attributes:
        file: fichier que le processus relit à chaque fois qu'il demande l'heure.
        offset: avance sur l'heure vraie, en secondes.
    """

    file: Path
    offset: int = 0

    def __post_init__(self) -> None:
        self.shift(self.offset)

    def shift(self, offset: int) -> None:
        """Met l'horloge en avance de tant de secondes ; le processus le voit aussitôt."""
        self.offset = offset
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{offset:+d}\n")
        fresh.replace(self.file)  # d'un seul geste : un fichier à demi écrit serait une autre heure

    def now(self) -> float:
        """Rend l'heure qu'il est pour ce processus."""
        return time.time() + self.offset

    def environment(self, library: str) -> dict[str, str]:
        """Rend les variables qui donnent cette horloge à un processus, par cette libfaketime."""
        return {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # Python croirait ses modules compilés périmés
        }


def find_faketime() -> str:
    """Rend le chemin de libfaketime.

    Raises:
        ServerUnavailableError: elle n'est pas là.
    """
    found = next(Path("/usr").glob(LIBRARIES), None)
    if found is None:
        message = "libfaketime est introuvable : « apt install faketime »"
        raise ServerUnavailableError(message)
    return str(found)
