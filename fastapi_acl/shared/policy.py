"""Une règle de politique et un changement de règles : des valeurs pures, que tout le monde peut importer."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - une annotation qui se lit pour valider
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi_acl.shared.stored import read_number, read_text

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
        """Renvoie la règle sous la forme que parlent l'API et le journal."""
        return {"ptype": self.ptype, "values": list(self.values)}


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """Effet net d'une écriture : ce qui part, puis ce qui arrive, tout ou rien.

    Attributes:
        added: règles qui arrivent.
        removed: règles qui partent.
        in_place: vrai si chaque règle qui arrive prend la place de celle qui part au même rang ; les deux suites ont
            alors la même longueur.
        ids: numéros des règles qui arrivent, une fois écrites ; leur ordre est celui de la politique.
    """

    added: tuple[PolicyRule, ...] = ()
    removed: tuple[PolicyRule, ...] = ()
    in_place: bool = False
    ids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Dit si le changement change quelque chose."""
        return bool(self.added or self.removed)

    def __iter__(self) -> Iterator[PolicyRule]:
        """Parcourt toutes les règles concernées."""
        yield from self.removed
        yield from self.added

    def then(self, later: PolicyChange) -> PolicyChange:
        """Renvoie l'effet net de ce changement suivi d'un autre."""
        mine, theirs = set(self), set(later)
        return PolicyChange(
            added=(*_without(self.added, theirs), *_without(later.added, mine)),
            removed=(*_without(self.removed, theirs), *_without(later.removed, mine)),
        )

    def as_json(self) -> dict[str, object]:
        """Renvoie le changement sous la forme que garde le journal."""
        numbers = self.ids or (None,) * len(self.added)
        return {
            "added": [rule.as_json() | {"id": number} for rule, number in zip(self.added, numbers, strict=True)],
            "removed": [rule.as_json() for rule in self.removed],
        }

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> PolicyChange:
        """Refait un changement de ce que le journal en garde.

        Raises:
            TypeError: ce n'en est pas un, ou ValueError, ou KeyError.
        """
        added, ids = (
            _read_rules(payload["added"]),
            [item["id"] for item in payload["added"] if item.get("id") is not None],
        )
        if ids and len(ids) != len(added):
            raise ValueError
        return cls(added=added, removed=_read_rules(payload["removed"]), ids=tuple(map(read_number, ids)))


@dataclass(frozen=True, slots=True)
class Grant:
    """Ce qu'une règle accorde ou refuse à un sujet.

    Attributes:
        resource: ressource de la règle, joker compris ; le gabarit de la route sous un modèle de routes.
        action: action de la règle.
        effect: `allow` ou `deny`.
        via: rôles qui mènent du sujet à la règle, du plus proche au plus lointain ; vide si elle le nomme.
        conditions: ce que la règle dit de plus (`scope`, `priority`…), par nom.
    """

    resource: str
    action: str
    effect: str
    via: tuple[str, ...] = ()
    conditions: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class PolicyStamp:
    """La politique, vue d'un sujet.

    Attributes:
        revision: dernière révision appliquée.
        policy_revision: dernière révision qui a changé les règles.
        digest: condensé de la politique, du modèle, du sujet et du domaine : le même veut dire les mêmes droits.
    """

    revision: int
    policy_revision: int
    digest: str


def _without(rules: tuple[PolicyRule, ...], others: set[PolicyRule]) -> tuple[PolicyRule, ...]:
    """Renvoie des règles, moins celles qu'un autre changement défait ou redit."""
    return tuple(rule for rule in rules if rule not in others)


def _read_rules(items: Sequence[Mapping[str, Any]]) -> tuple[PolicyRule, ...]:
    """Refait les règles d'une liste JSON.

    Raises:
        TypeError: ce n'en est pas une, ou KeyError.
    """
    if not (type(items) is list and all(type(item["values"]) is list for item in items)):
        raise TypeError
    return tuple(PolicyRule(read_text(item["ptype"]), tuple(map(read_text, item["values"]))) for item in items)
