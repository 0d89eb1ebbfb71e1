"""Ce qu'il faut demander à la politique pour savoir qui administre, et à quel rang."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fastapi_acl.shared.identity import ACL_PERMISSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

Pair = tuple[str, str]
"""Une ressource et une action ; un gabarit de route et une méthode sous un modèle de routes."""

ADMINISTRATION: Final = ("acl.rules", "write")
"""La permission qui fait un administrateur."""

READING: Final = ("acl.rules", "read")
"""La permission de lire les règles."""

ACCOUNTS: Final = ("acl.users", "write")
"""La permission qui touche aux comptes."""

ANYTHING: Final = ("/\x01/\x01/\x01/\x01", "\x01")
"""Une ressource et une action que nulle règle ne peut nommer : qui les a les a par des jokers, et a donc tout."""

AS_THEY_ARE: Final[Mapping[Pair, tuple[Pair, ...]]] = MappingProxyType({pair: (pair,) for pair in ACL_PERMISSIONS})
"""Hors d'un modèle de routes, une permission se demande comme elle s'écrit."""


@dataclass(frozen=True, slots=True)
class Administration:
    """Les permissions `acl.*`, dans les mots du modèle.

    Attributes:
        asked: pour chacune, ce qu'il faut demander, et obtenir ; sous un modèle de routes, les routes qu'elle garde.
    """

    asked: Mapping[Pair, tuple[Pair, ...]] = field(default_factory=lambda: AS_THEY_ARE)

    def questions(self, resource: str, action: str) -> tuple[Pair, ...]:
        """Renvoie ce qu'il faut demander pour une permission ; elle-même si aucune route ne la demande."""
        return self.asked.get((resource, action), ((resource, action),))

    @property
    def everything(self) -> frozenset[Pair]:
        """Tout ce qui fait le rang le plus haut."""
        return frozenset((ANYTHING, *(pair for pairs in self.asked.values() for pair in pairs)))

    @property
    def writes(self) -> frozenset[Pair]:
        """Ce que demandent les permissions d'écrire."""
        return frozenset(pair for (_, action), pairs in self.asked.items() if action == "write" for pair in pairs)
