"""Ce que la politique dit, dans l'autre sens : qui peut quoi, par quel chemin, et ce qui manque pour le pouvoir.

Chaque question passe par les index de champs et par les liens : son coût est celui de sa réponse, non de la politique.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Concatenate, Final, NamedTuple, TypeVar

from typing_extensions import ParamSpec

from fastapi_acl.engine.kernel.acl_match import ANY, acl_match, patterns_of
from fastapi_acl.engine.kernel.key_match import compile_pattern
from fastapi_acl.engine.kernel.plan import Probe
from fastapi_acl.engine.kernel.schema import ACTION_NAMES, DOMAIN_NAMES, MAX_VALUE_LENGTH, RESOURCE_NAMES, SUBJECT_NAMES
from fastapi_acl.shared.exceptions import DecisionFailedError, InvalidRuleError
from fastapi_acl.shared.policy import PolicyChange, PolicyRule

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from fastapi_acl.engine.kernel.plan import Branch, Key
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.kernel.rows import Rank, Row

P = ParamSpec("P")
T = TypeVar("T")

MAX_SUGGESTIONS: Final = 5
"""Changements proposés pour lever un refus."""

BATCH: Final = 100
"""Règles rendues d'un coup à qui en lit beaucoup."""

MAX_TRIALS: Final = 50
"""Changements essayés avant de renoncer à en trouver d'autres."""


@dataclass(frozen=True, slots=True)
class Permission:
    """Une règle qui vaut pour un sujet.

    Attributes:
        rule: la règle.
        path: du sujet au sujet de la règle, rôle par rôle ; le sujet seul si elle le nomme.
    """

    rule: PolicyRule
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Une décision, et ce qui l'a faite.

    Attributes:
        allowed: la réponse.
        rule: la règle décisive ; None si aucune ne concerne la requête.
        path: du sujet de la requête à celui de la règle, rôle par rôle.
        nearest: pour un refus, des changements dont chacun, seul, l'accorderait.
    """

    allowed: bool
    rule: PolicyRule | None = None
    path: tuple[str, ...] = ()
    nearest: tuple[PolicyChange, ...] = ()


class _Levers(NamedTuple):
    """Ce qui pourrait lever un refus.

    Attributes:
        denials: les règles qui refusent, à retirer.
        links: les rôles à donner.
        rules: la règle à écrire, si elle ne l'est pas.
    """

    denials: tuple[PolicyRule, ...]
    links: tuple[PolicyChange, ...]
    rules: tuple[PolicyChange, ...]

    @property
    def lifts(self) -> tuple[PolicyChange, ...]:
        """Le retrait de chaque règle qui refuse."""
        return tuple(PolicyChange(removed=(rule,)) for rule in self.denials)


def _steady(method: Callable[Concatenate[PolicyInspector, P], T]) -> Callable[Concatenate[PolicyInspector, P], T]:
    """Fait répondre une question entière sur un même état de la politique."""

    @wraps(method)
    def steady(self: PolicyInspector, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.policy.lock:
            return method(self, *args, **kwargs)

    return steady


@dataclass(frozen=True, slots=True)
class PolicyInspector:
    """Interroge la politique en service d'un enforcer strict."""

    policy: Policy

    # --- rôles ------------------------------------------------------------------------------------------------------

    @_steady
    def roles_of(self, member: str, domain: str = "", *, inherited: bool = True) -> list[str]:
        """Renvoie les rôles d'un membre, les directs d'abord.

        Args:
            member: sujet.
            domain: domaine, si le modèle en a.
            inherited: vrai pour y joindre les rôles hérités.
        """
        graph, place = self.policy.graph, self._link_domain(domain)
        return list(graph.closure(member, place)[1:]) if inherited else graph.roles_of(member, place)

    @_steady
    def members_of(self, role: str, domain: str = "", *, inherited: bool = True) -> list[str]:
        """Renvoie les membres d'un rôle, les directs d'abord."""
        graph, place = self.policy.graph, self._link_domain(domain)
        return graph.everyone(role, place)[1:] if inherited else graph.members_of(role, place)

    def _link_domain(self, domain: str) -> str:
        """Renvoie le domaine où chercher des liens ; aucun si les liens n'en portent pas."""
        return domain if self.policy.schema.links.get("g", 2) > 2 else ""  # noqa: PLR2004 - membre et rôle

    # --- permissions ------------------------------------------------------------------------------------------------

    @_steady
    def permissions_of(self, subject: str, domain: str = "") -> list[Permission]:
        """Renvoie les règles qui valent pour un sujet, refus compris, dans l'ordre où ses rôles les lui donnent."""
        return [permission for batch in self.batches_of(subject, domain) for permission in batch]

    def batches_of(self, subject: str, domain: str = "") -> Iterator[list[Permission]]:
        """Renvoie les mêmes règles par petits lots, vides parfois : entre deux, la politique peut changer.

        Ce n'est alors plus un seul état d'elle, et c'est à qui lit de recommencer.
        """
        place = self._place(SUBJECT_NAMES)
        if place is None:
            return
        with self.policy.lock:
            rows, holds = self.policy.rows("p"), self._in_domain(domain)
            paths = self.policy.graph.paths(subject, self._link_domain(domain))
            held = [(path, rows.holding(place, name)) for name, path in paths.items()]
        for path, known in held:
            ranked: list[tuple[Rank, Row]] = []
            for start in range(0, len(known), BATCH):
                ranked += rows.rank_all(known[start : start + BATCH])
                yield []
            ranked.sort()
            for start in range(0, len(ranked), BATCH):
                lot = ranked[start : start + BATCH]
                yield [Permission(PolicyRule("p", row), path) for _, row in lot if holds(row)]
            if not known:
                yield []

    @_steady
    def path(self, subject: str, holder: str, domain: str = "") -> tuple[str, ...]:
        """Renvoie le plus court chemin de rôles d'un sujet à celui d'une règle ; vide s'il n'y en a pas."""
        return tuple(self.policy.graph.path(subject, holder, self._link_domain(domain)))

    @_steady
    def subjects_of(self, resource: str, action: str, domain: str = "") -> list[str]:
        """Renvoie les sujets, rôles compris, à qui la politique permet une action sur une ressource.

        Sous un matcher que l'index ne sait pas lire, toutes les règles sont regardées. Aucun sujet n'est rendu si la
        requête porte une valeur que la bibliothèque ne sait pas nommer.
        """
        if not self.can_ask:
            return []
        named = {"resource": resource, "action": action, "domain": domain}
        holders = dict.fromkeys(row[self._place(SUBJECT_NAMES) or 0] for row in self._list_concerned(named))
        graph, place = self.policy.graph, self._link_domain(domain)
        subjects = dict.fromkeys(name for holder in holders for name in graph.everyone(holder, place))
        return [subject for subject in subjects if self._allows(self._request({**named, "subject": subject}))]

    @_steady
    def list_concerned(self, resource: str, action: str, domain: str = "") -> list[PolicyRule]:
        """Renvoie les règles `p` qui portent sur une permission, quel que soit leur sujet, refus compris."""
        rows = self._list_concerned({"resource": resource, "action": action, "domain": domain})
        return [PolicyRule("p", row) for row in rows]

    # --- explication ------------------------------------------------------------------------------------------------

    @_steady
    def explain(self, *request: str) -> Explanation:
        """Décide, et dit pourquoi.

        Args:
            request: valeurs de la requête, dans l'ordre du modèle.
        """
        found = self.judge(*request)
        return found if found.allowed else replace(found, nearest=tuple(self.nearest(*request)))

    @_steady
    def judge(self, *request: str) -> Explanation:
        """Décide, et nomme la règle décisive : celle qui accorde, ou celle qui refuse.

        Args:
            request: valeurs de la requête, dans l'ordre du modèle.
        """
        allowed, values = self.policy.explain(*request)
        rule = PolicyRule.of("p", values) if values else None
        if rule is None or not (allowed or self._denies(rule)):
            return Explanation(allowed)
        return Explanation(allowed, rule, self._path_to(rule, request))

    @_steady
    def nearest(self, *request: str) -> list[PolicyChange]:
        """Renvoie des changements dont chacun, à lui seul, ferait accorder une requête refusée.

        D'abord les refus à lever, puis les rôles à donner, puis la règle à écrire. Chacun a été essayé.
        """
        levers = self._levers(request)
        tried = islice((*levers.lifts, *levers.links, *levers.rules), MAX_TRIALS)
        return list(islice((change for change in tried if self._would_allow(change, request)), MAX_SUGGESTIONS))

    @_steady
    def smallest(self, *request: str) -> PolicyChange:
        """Renvoie le plus petit changement trouvé qui ferait accorder une requête refusée ; vide si aucun ne l'a été.

        Un changement seul, s'il suffit : la règle à écrire, un refus à lever, puis un rôle à donner. Sinon les refus
        qu'il faut lever, et ce qu'il faut donner avec. Tout a été essayé. Rien n'est cherché si la requête porte une
        valeur que la bibliothèque ne sait pas nommer.
        """
        if not self.can_ask:
            return PolicyChange()
        levers = self._levers(request)
        tried = (*levers.rules, *levers.lifts, *levers.links)
        alone = next((change for change in tried if self._would_allow(change, request)), None)
        return alone if alone is not None else self._combine(levers, request)

    def _combine(self, levers: _Levers, request: Sequence[str]) -> PolicyChange:
        """Renvoie les refus à lever, et ce qu'il faut donner avec, moins ce dont on peut se passer."""
        if not levers.denials:
            return PolicyChange()
        gifts = (PolicyChange(), *levers.rules, *levers.links)
        changes = (PolicyChange(added=gift.added, removed=levers.denials) for gift in gifts)
        found = next((change for change in changes if self._would_allow(change, request)), PolicyChange())
        for rule in found.removed:
            fewer = replace(found, removed=tuple(other for other in found.removed if other != rule))
            found = fewer if self._would_allow(fewer, request) else found
        return found

    def _would_allow(self, change: PolicyChange, request: Sequence[str]) -> bool:
        """Dit si un changement, que le modèle admet, ferait accorder une requête."""
        try:
            self.policy.check(change)
            with self.policy.trial(change):
                return self._allows(request)
        except (InvalidRuleError, DecisionFailedError):
            return False

    def _levers(self, request: Sequence[str]) -> _Levers:
        """Rassemble ce qui pourrait lever un refus."""
        named = self._name_values(request)
        rows = self._list_concerned(named)
        mine = set(self.policy.closure(named["subject"], self._link_domain(named["domain"])))
        place = self._place(SUBJECT_NAMES) or 0
        reaching = (PolicyRule("p", row) for row in rows if row[place] in mine or ANY in row[place])
        denials = islice((rule for rule in reaching if self._denies(rule)), MAX_TRIALS)
        given = dict.fromkeys(row[place] for row in rows if row[place] not in mine)
        roles = islice(given, MAX_TRIALS) if "g" in self.policy.schema.links else ()
        links = tuple(PolicyChange(added=(self._link(named, role),)) for role in roles)
        written = self._make_rule(named)
        rules = () if self.policy.holds(written) else (PolicyChange(added=(written,)),)
        return _Levers(tuple(denials), links, rules)

    # --- champs -----------------------------------------------------------------------------------------------------

    def _list_concerned(self, named: dict[str, str]) -> list[Row]:
        """Renvoie les règles qui portent sur ces valeurs, quel que soit leur sujet."""
        request = self._request({**named, "subject": ""})
        branches = self.policy.plan.branches or (None,)
        return list(dict.fromkeys(row for branch in branches for row in self._list_reached(branch, request)))

    def _list_reached(self, branch: Branch | None, request: Sequence[str]) -> Iterable[Row]:
        """Renvoie les règles que les clés d'une branche désignent, rôles du sujet mis à part."""
        accepted = self._accept(branch, request)
        if not accepted:
            return self.policy.rows("p").list_ordered()
        action = self._place(ACTION_NAMES)  # une action est de beaucoup de règles : ne chercher par elle qu'à défaut
        narrow = min(accepted, key=lambda field: (field == action, len(accepted[field])))
        rows = self._rows(narrow, accepted[narrow])
        return [row for row in rows if all(row[field] in values for field, values in accepted.items())]

    def _accept(self, branch: Branch | None, request: Sequence[str]) -> dict[int, set[str]]:
        """Renvoie les valeurs qu'une branche admet de chaque champ qu'elle compare à la requête, sujet mis à part."""
        keys = branch.keys if branch is not None else ()
        compared = [key for key in keys if key.reads_request and not self._is_subject(key)]
        return {
            key.field: {value for term in key.terms for value in self._list_values(term, request)} for key in compared
        }

    def _list_values(self, key: Key, request: Sequence[str]) -> Iterable[str]:
        """Énumère les valeurs de règle qui satisfont un terme, pour cette requête."""
        if key.request is None:
            return (key.constant,)
        value = request[key.request]
        if key.probe is Probe.PATTERN:
            return patterns_of(value, MAX_VALUE_LENGTH)
        if key.probe is Probe.ROLE:
            domain = request[key.domain] if isinstance(key.domain, int) else key.domain or ""
            return self.policy.graph_of(key.function).closure(value, domain)
        if key.probe is Probe.KEY_MATCH:
            return self._list_motifs(key, value)
        return (value,)

    def _list_motifs(self, key: Key, value: str) -> Iterator[str]:
        """Énumère les motifs de règles que satisfait une valeur."""
        for motif in self.policy.rows("p").list_known(key.field):
            matches = compile_pattern(key.function, motif)
            if matches is not None and matches(value):
                yield motif

    def _is_subject(self, key: Key) -> bool:
        """Dit si un terme porte sur le sujet de la requête."""
        asked = {term.request for term in key.terms if term.request is not None}
        return any(self.policy.schema.request[place] in SUBJECT_NAMES for place in asked)

    def _in_domain(self, domain: str) -> Callable[[Row], bool]:
        """Renvoie de quoi dire si une règle vaut dans un domaine ; le plan n'est lu qu'une fois."""
        place = self._place(DOMAIN_NAMES)
        if place is None or not domain:
            return lambda _: True
        keys = [key for branch in self.policy.plan.branches for key in branch.keys if key.field == place]
        named = {domain, *(term.constant for key in keys for term in key.terms if term.request is None)}
        is_pattern = any(key.find(Probe.PATTERN) is not None for key in keys)
        return lambda row: row[place] in named or (is_pattern and acl_match(domain, row[place]))

    def _rows(self, field: int, values: Collection[str]) -> list[Row]:
        """Renvoie les règles dont un champ a l'une de ces valeurs."""
        rows = self.policy.rows("p")
        return [row for value in values for row in rows.matching(field, [value])]

    def _place(self, names: frozenset[str]) -> int | None:
        return self.policy.schema.position("p", names)

    # --- requêtes et règles -------------------------------------------------------------------------------------------

    @property
    def can_ask(self) -> bool:
        """Vrai si chaque valeur de la requête a un nom connu."""
        known = SUBJECT_NAMES | DOMAIN_NAMES | RESOURCE_NAMES | ACTION_NAMES
        return known.issuperset(self.policy.schema.request)

    def _request(self, named: dict[str, str]) -> tuple[str, ...]:
        """Range des valeurs dans l'ordre du modèle."""
        return tuple(named[_kind(name)] for name in self.policy.schema.request)

    def _name_values(self, request: Sequence[str]) -> dict[str, str]:
        """Nomme les valeurs d'une requête, sans les attributs qu'un texte peut porter."""
        kinds = map(_kind, self.policy.schema.request)
        named = dict(zip(kinds, map(_plain, request), strict=True))
        return {"subject": "", "resource": "", "action": "", "domain": "", **named}

    def _make_rule(self, named: dict[str, str]) -> PolicyRule:
        """Renvoie la règle qui accorderait exactement la requête à son sujet."""
        known = {"eft": "allow", "scope": "*", "priority": "1"}
        names = self.policy.schema.fields["p"]
        return PolicyRule("p", tuple(known[name] if name in known else named.get(_kind(name), "*") for name in names))

    def _link(self, named: dict[str, str], role: str) -> PolicyRule:
        """Renvoie le lien qui donnerait un rôle au sujet, dans le domaine de la requête."""
        domain = (named["domain"],) if self.policy.schema.links["g"] > 2 else ()  # noqa: PLR2004 - membre et rôle
        return PolicyRule("g", (named["subject"], role, *domain))

    def _path_to(self, rule: PolicyRule, request: Sequence[str]) -> tuple[str, ...]:
        """Renvoie le chemin de rôles du sujet d'une requête à celui d'une règle."""
        named, place = self._name_values(request), self._place(SUBJECT_NAMES)
        return () if place is None else self.path(named["subject"], rule.values[place], named["domain"])

    def _denies(self, rule: PolicyRule) -> bool:
        """Dit si une règle refuse."""
        names = self.policy.schema.fields["p"]
        return "eft" in names and rule.values[names.index("eft")] == "deny"

    def _allows(self, request: Sequence[str]) -> bool:
        return self.policy.decide(*request)


def _kind(name: str) -> str:
    """Renvoie ce qu'un jeton désigne."""
    kinds = {"subject": SUBJECT_NAMES, "domain": DOMAIN_NAMES, "resource": RESOURCE_NAMES, "action": ACTION_NAMES}
    return next((kind for kind, names in kinds.items() if name in names), name)


def _plain(value: Any) -> Any:  # noqa: ANN401 - `request_builder` donne ce qu'il veut sous les noms qui sont à lui
    """Renvoie un texte sans les attributs qu'il porte ; toute autre valeur telle quelle."""
    return str.__str__(value) if isinstance(value, str) else value
