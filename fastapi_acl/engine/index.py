"""Les règles, rangées par les valeurs que le matcher compare : une décision ne touche que ses candidates."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple

from fastapi_acl.engine.matcher import Probe, compile_residual
from fastapi_acl.engine.matching import ANY, is_prefix, patterns_of
from fastapi_acl.shared.exceptions import DecisionFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fastapi_acl.engine.matcher import Key, MatcherPlan
    from fastapi_acl.engine.role_graph import RoleGraph
    from fastapi_acl.shared.policy import PolicyRule

ALLOW_OVERRIDE: Final = "some(where (p_eft == allow))"
ALLOW_AND_DENY: Final = "some(where (p_eft == allow)) && !some(where (p_eft == deny))"

INDEXED_EFFECTS: Final = frozenset({ALLOW_OVERRIDE, ALLOW_AND_DENY})
"""Effets que l'index décide ; la priorité, où l'ordre compte, reste à Casbin."""


class Entry(NamedTuple):
    """Une règle, son rang et son effet."""

    rank: int
    allows: bool
    values: tuple[str, ...]


class PolicyIndex:
    """Index des règles `p` d'un modèle à une conjonction.

    Deux étages : la première clé (le sujet) mène à une case, les autres à ses règles. Un motif de règle (`*`, `a:*`)
    se cherche comme une valeur : on énumère les motifs qui couvrent la valeur demandée, au lieu d'essayer les règles.
    """

    def __init__(
        self,
        plan: MatcherPlan,
        effect: str,
        request: Sequence[str],
        fields: Sequence[str],
        roles: RoleGraph | None,
    ) -> None:
        """Prépare un index vide.

        Args:
            plan: plan du matcher, indexable.
            effect: expression de l'effet, parmi `INDEXED_EFFECTS`.
            request: jetons de la requête.
            fields: jetons de la règle.
            roles: liens `g`, que l'index consulte sans les tenir à jour.
        """
        self._first, *self._others = plan.keys
        self._roles = roles
        self._deny_overrides = effect == ALLOW_AND_DENY
        self._eft = fields.index("p_eft") if "p_eft" in fields else None
        self._residual = compile_residual(plan.residual, request, fields) if plan.residual else None
        self._buckets: dict[str, dict[tuple[str, ...], dict[tuple[str, ...], Entry]]] = {}
        self._shapes: list[Counter[str]] = [Counter() for _ in self._others]
        self._denials = 0
        self._rank = 0

    def add(self, rule: PolicyRule) -> None:
        """Range une règle, à la fin de l'ordre."""
        self._rank += 1
        allows = self._eft is None or rule.values[self._eft] == "allow"
        key = self._key(rule)
        bucket = self._buckets.setdefault(rule.values[self._first.field], {})
        bucket.setdefault(key, {})[rule.values] = Entry(self._rank, allows, rule.values)
        self._denials += not allows
        for shapes, value in zip(self._shapes, key, strict=True):
            shapes[_shape(value)] += 1

    def remove(self, rule: PolicyRule) -> None:
        """Retire une règle."""
        subject, key = rule.values[self._first.field], self._key(rule)
        bucket = self._buckets[subject]
        self._denials -= not bucket[key].pop(rule.values).allows
        if not bucket[key]:
            del bucket[key]
        if not bucket:
            del self._buckets[subject]
        for shapes, value in zip(self._shapes, key, strict=True):
            shapes[_shape(value)] -= 1

    def decide(self, values: Sequence[str]) -> bool:
        """Décide, en s'arrêtant dès que l'effet le permet.

        Raises:
            DecisionFailedError: un terme restant ne rend pas un booléen.
        """
        stops_at_allow = not (self._deny_overrides and self._denials)
        allowed = False
        for found in self._candidates(values):
            for entry in found:
                if entry.allows:
                    if stops_at_allow:
                        return True
                    allowed = True
                elif self._deny_overrides:
                    return False
        return allowed

    def explain(self, values: Sequence[str]) -> tuple[bool, list[str]]:
        """Décide et rend la règle que Casbin nommerait.

        C'est la première qui refuse, si un refus l'emporte ; sinon le premier accord, ou, quand un refus pouvait
        encore suivre, le dernier ; sans accord, la dernière règle rencontrée.
        """
        entries = sorted(entry for found in self._candidates(values) for entry in found)
        decisive = next((entry for entry in entries if entry.allows is not self._deny_overrides), None)
        shown = decisive or (entries[-1] if entries else None)
        allowed = shown is not None and shown.allows
        return allowed, list(shown.values) if shown is not None else []

    def _candidates(self, values: Sequence[str]) -> Iterator[Iterable[Entry]]:
        """Énumère, case par case, les règles que la requête satisfait."""
        keys: list[tuple[str, ...]] | None = None
        for subject in self._subjects(values):
            bucket = self._buckets.get(subject)
            if bucket is None:
                continue
            if keys is None:
                keys = self._keys(values)
            for key in keys:
                if key in bucket:
                    yield self._matching(bucket[key].values(), values)

    def _keys(self, values: Sequence[str]) -> list[tuple[str, ...]]:
        """Rend toutes les clés, hors de la première composante, que la requête atteint."""
        probes = zip(self._others, self._shapes, strict=True)
        return list(product(*[self._variants(key, shapes, values) for key, shapes in probes]))

    def _matching(self, entries: Iterable[Entry], values: Sequence[str]) -> Iterable[Entry]:
        """Écarte les règles que les termes restants refusent."""
        if self._residual is None:
            return entries
        return [entry for entry in entries if _boolean(self._residual, values, entry.values)]

    def _subjects(self, values: Sequence[str]) -> Iterable[str]:
        """Énumère les valeurs de la première clé que la requête atteint."""
        key = self._first
        value = values[key.request]
        if key.probe is Probe.ROLE and self._roles is not None:
            return self._roles.closure(value, *(() if key.domain is None else (values[key.domain],)))
        return patterns_of(value) if key.probe is Probe.PATTERN else (value,)

    @staticmethod
    def _variants(key: Key, shapes: Counter[str], values: Sequence[str]) -> Sequence[str]:
        """Énumère ce qu'une autre clé peut valoir, en se tenant aux formes que les règles emploient."""
        value = values[key.request]
        if key.probe is Probe.EXACT:
            return (value,)
        if shapes["prefix"]:
            return patterns_of(value)
        return (value, ANY) if shapes["any"] and value != ANY else (value,)

    def _key(self, rule: PolicyRule) -> tuple[str, ...]:
        """Rend la clé d'une règle, hors de la première composante."""
        return tuple(rule.values[key.field] for key in self._others)


def _shape(value: str) -> str:
    """Rend la forme d'une valeur de règle : joker, préfixe ou texte exact."""
    return "any" if value == ANY else "prefix" if is_prefix(value) else "exact"


def _boolean(residual: Callable[..., object], request: Sequence[object], rule: Sequence[str]) -> bool:
    """Évalue les termes restants ; autre chose qu'un booléen n'est pas une réponse."""
    answer = residual(*request, *rule)
    if answer is True or answer is False:
        return answer
    raise DecisionFailedError
