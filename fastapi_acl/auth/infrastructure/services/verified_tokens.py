"""Mémoire des jetons d'accès déjà vérifiés : une signature ne se vérifie qu'une fois par processus."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from fastapi_acl.shared.identity import Principal

CAPACITY: Final = 10_000
"""Jetons retenus au plus : moins de 5 Mio, l'empreinte et l'identité ayant une taille bornée."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """Ce qu'un jeton vérifié affirme, et quand.

    Attributes:
        principal: l'identité.
        not_before: instant à partir duquel le jeton a cours, tolérance comprise, en secondes.
        not_after: instant à partir duquel il n'a plus cours, tolérance comprise, en secondes.
        until: le même instant, vu de l'horloge monotone : une horloge murale qui recule ne prolonge rien.
    """

    principal: Principal
    not_before: float
    not_after: int
    until: float

    @classmethod
    def of(cls, principal: Principal, not_before: float, not_after: int) -> VerifiedToken:
        """Retient un jeton qui vient d'être vérifié."""
        return cls(principal, not_before, not_after, time.monotonic() + not_after - time.time())

    def is_current(self) -> bool:
        """Dit si le jeton a cours, aux deux horloges."""
        return self.not_before <= time.time() < self.not_after and time.monotonic() < self.until


@final
class VerifiedTokens:
    """Retient les jetons vérifiés, à l'empreinte du texte entier, en deux générations.

    Quand la jeune est pleine, elle devient l'ancienne, et l'ancienne s'oublie ; un jeton dont on se sert rajeunit. Seul
    un jeton vérifié entre : qui envoie des jetons au hasard n'en chasse aucun. La mémoire ne dit rien de l'échéance ni
    de la révocation, que l'appelant vérifie à chaque fois.

    La recherche n'a pas à durer un temps constant : ce qu'un attaquant y mesurerait porte sur l'empreinte d'un texte
    qu'il a déjà en entier, et d'où aucun autre ne se déduit.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Part vide.

        Args:
            capacity: jetons retenus au plus, les deux générations ensemble.
        """
        self._half = capacity // 2
        self._young: dict[bytes, VerifiedToken] = {}
        self._old: dict[bytes, VerifiedToken] = {}

    def __len__(self) -> int:
        """Compte les jetons retenus."""
        return len(self._young.keys() | self._old.keys())

    def __repr__(self) -> str:
        """Ne montre ni identité ni empreinte."""
        return f"{type(self).__name__}({len(self)} jetons)"

    def find(self, fingerprint: bytes) -> VerifiedToken | None:
        """Renvoie le jeton de cette empreinte, ou None."""
        found = self._young.get(fingerprint)
        if found is None and (found := self._old.get(fingerprint)) is not None:
            self.add(fingerprint, found)
        return found

    def add(self, fingerprint: bytes, token: VerifiedToken) -> None:
        """Retient un jeton vérifié."""
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[fingerprint] = token


def compute_fingerprint(token: str) -> bytes:
    """Renvoie l'empreinte SHA-256 d'un texte quelconque : deux textes différents n'ont pas la même."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
