"""Ce qu'une politique veut dire, en ensembles : ni Casbin ni le moteur n'y entrent, leurs fautes non plus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

CHAIN = 9
"""Liens qu'une chaîne de rôles peut compter."""

Rule = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Meaning:
    """Une famille de modèles.

    Attributes:
        request: noms des valeurs d'une requête.
        fields: noms des champs d'une règle `p`.
        effect: `allow`, `deny`, `both` ou `first`.
        by_role: champs où une règle vise aussi qui tient le rôle : nom du champ, type de lien.
        by_prefix: champs où une règle peut finir par `*`.
        root: sujet à qui tout est permis.
    """

    request: tuple[str, ...]
    fields: tuple[str, ...]
    effect: str = "allow"
    by_role: Mapping[str, str] = field(default_factory=dict)
    by_prefix: frozenset[str] = frozenset()
    root: str | None = None

    def allows(self, rules: Sequence[Rule], request: Sequence[str], *, strict: bool) -> bool:
        """Répond ; une politique vide refuse en mode strict, et compte sinon pour une règle de textes vides."""
        asked = dict(zip(self.request, request, strict=True))
        rows = [dict(zip(self.fields, values, strict=True)) for ptype, values in rules if ptype == "p"]
        if not rows and strict:
            return False
        rows = rows or [dict.fromkeys(self.fields, "") | {"eft": "allow"}]
        held = {name: self._held(name, asked, rules) for name in self.by_role}
        effects = [row.get("eft", "allow") for row in rows if self._concerns(row, asked, held)]
        return self._decide([effect for effect in effects if effect in {"allow", "deny"}])

    def _held(self, name: str, asked: Mapping[str, str], rules: Sequence[Rule]) -> set[str]:
        """Rend une valeur et tous les rôles qu'elle tient, dans le domaine demandé s'il y en a un."""
        kind = self.by_role[name]
        pairs = {
            (values[0], values[1])
            for ptype, values in rules
            if ptype == kind and (len(values) == 2 or values[2] == asked["dom"])
        }
        found = {asked[name]}
        for _ in range(CHAIN):
            found |= {role for member, role in pairs if member in found}
        return found

    def _concerns(self, row: Mapping[str, str], asked: Mapping[str, str], held: Mapping[str, set[str]]) -> bool:
        """Dit si une règle vise la requête."""
        if self.root is not None and asked["sub"] == self.root:
            return True
        return all(self._fits(name, row[name], asked[name], held) for name in asked)

    def _fits(self, name: str, wanted: str, given: str, held: Mapping[str, set[str]]) -> bool:
        """Compare un champ."""
        if name in held:
            return wanted in held[name]
        if name in self.by_prefix and "*" in wanted:
            return given.startswith(wanted.partition("*")[0])
        return wanted == given

    def _decide(self, effects: Sequence[str]) -> bool:
        """Tranche entre les effets des règles qui visent la requête, dans leur ordre."""
        if self.effect == "first":
            return effects[:1] == ["allow"]
        return ("deny" not in effects or self.effect == "allow") and ("allow" in effects or self.effect == "deny")


def in_priority(rules: Iterable[Rule], place: int) -> list[Rule]:
    """Range les règles `p` par priorité, les autres à leur suite ; à égalité, l'ordre d'arrivée."""
    kept = list(rules)
    ranked = sorted((rule for rule in kept if rule[0] == "p"), key=lambda rule: int(rule[1][place]))
    return [*ranked, *(rule for rule in kept if rule[0] != "p")]
