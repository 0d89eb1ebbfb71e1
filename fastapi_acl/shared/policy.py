"""Une règle de politique et un changement de règles : des valeurs pures, que tout le monde peut importer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True, order=True)
class PolicyRule:
    """Une ligne de politique Casbin, comme liste de valeurs ; elle n'est jamais jointe en un texte.

    Attributes:
        ptype: type de la règle (`p`, `p2`, `g`, `g2`…).
        values: valeurs dans l'ordre de la définition du modèle.

    Source: https://casbin.org/docs/policy-storage
    """

    ptype: str
    values: tuple[str, ...]

    @classmethod
    def of(cls, ptype: str, values: Sequence[str]) -> PolicyRule:
        """Fait une règle d'une suite quelconque de valeurs."""
        return cls(ptype, tuple(values))

    @property
    def section(self) -> str:
        """Section du modèle à laquelle la règle appartient : `p` ou `g`."""
        return self.ptype[:1]

    def as_json(self) -> dict[str, object]:
        """Rend la règle sous la forme que parlent l'API et le journal."""
        return {"ptype": self.ptype, "values": list(self.values)}


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """Effet net d'une écriture : ce qui part, puis ce qui arrive, tout ou rien."""

    added: tuple[PolicyRule, ...] = ()
    removed: tuple[PolicyRule, ...] = ()

    def __bool__(self) -> bool:
        """Dit si le changement change quelque chose."""
        return bool(self.added or self.removed)

    def __iter__(self) -> Iterator[PolicyRule]:
        """Parcourt toutes les règles concernées."""
        yield from self.removed
        yield from self.added

    def as_json(self) -> dict[str, object]:
        """Rend le changement sous la forme que garde le journal."""
        return {
            "added": [rule.as_json() for rule in self.added],
            "removed": [rule.as_json() for rule in self.removed],
        }
