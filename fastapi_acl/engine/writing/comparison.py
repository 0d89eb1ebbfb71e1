"""Comparer des permissions : ce qu'une règle accorde ou refuse, ce qu'un lien transmet, ce qu'un sujet en tient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.kernel.acl_match import ANY, covers, overlaps
from fastapi_acl.engine.kernel.effects import ALLOW_AND_DENY_EFFECT, ALLOW_OVERRIDE_EFFECT
from fastapi_acl.engine.kernel.links import LinksAfter
from fastapi_acl.engine.kernel.plan import Probe
from fastapi_acl.engine.kernel.schema import ACTION_NAMES, DOMAIN_NAMES, RESOURCE_NAMES, SUBJECT_NAMES
from fastapi_acl.shared.policy import PolicyRule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from typing_extensions import Self

    from fastapi_acl.engine.administration import Pair
    from fastapi_acl.engine.kernel.pacing import Pace
    from fastapi_acl.engine.kernel.plan import Key, MatcherPlan
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.kernel.schema import PolicySchema
    from fastapi_acl.shared.policy import PolicyChange

ABAC_SCOPE: Final = "(p_scope == '*' or (p_scope == 'own' and aclOwns(r_obj, r_sub, p_eft)))"
"""Ce que le plan laisse à évaluer dans le modèle `abac` fourni."""

COMPUTABLE_EFFECTS: Final = frozenset({ALLOW_OVERRIDE_EFFECT, ALLOW_AND_DENY_EFFECT})
"""Effets sous lesquels une permission ne dépend pas de l'ordre des règles."""

MEMBER_ROLE: Final = 2
"""Valeurs d'un lien sans domaine."""


@dataclass(frozen=True, slots=True)
class Power:
    """Ce qu'une règle `p` accorde ou refuse : ses champs hors sujet et effet, et le domaine où elle vaut."""

    fields: tuple[tuple[str, str], ...]
    domain: str
    allows: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compare des permissions sous un modèle où elles se comparent (voir `is_computable`).

    Attributes:
        policy: politique en service.
        keys: termes du matcher ; les lire n'est pas à refaire à chaque comparaison.
    """

    policy: Policy
    keys: tuple[Key, ...]

    @classmethod
    def over(cls, policy: Policy) -> Self:
        """Prépare la comparaison."""
        return cls(policy, policy.plan.branches[0].keys)

    @property
    def schema(self) -> PolicySchema:
        """Forme des règles."""
        return self.policy.schema

    @property
    def has_domains(self) -> bool:
        """Vrai si un lien porte un domaine."""
        return self.schema.links.get("g", MEMBER_ROLE) > MEMBER_ROLE

    def grant(self, rule: PolicyRule) -> Power:
        """Lit une règle `p`."""
        named = dict(zip(self.schema.fields["p"], rule.values, strict=True))
        domain = next((value for name, value in named.items() if name in DOMAIN_NAMES), ANY)
        kept = ((name, value) for name, value in named.items() if name not in SUBJECT_NAMES | DOMAIN_NAMES | {"eft"})
        return Power(tuple(kept), domain, named.get("eft", "allow") != "deny")

    def rules_of(self, subjects: Iterable[str]) -> list[PolicyRule]:
        """Renvoie les règles `p` dont le sujet est l'un de ceux-ci."""
        return self.policy.rules_of(subjects)

    def links_after(self, change: PolicyChange, *, removes: bool) -> LinksAfter:
        """Renvoie les liens tels qu'un changement les laisserait.

        Args:
            change: le changement.
            removes: vrai pour en compter aussi les retraits.
        """
        return LinksAfter.of(self.policy.graph, change, removes=removes)

    def is_well_formed(self, rule: PolicyRule) -> bool:
        """Dit si une règle a la longueur que le modèle demande ; celles qui partent n'ont pas été vérifiées."""
        return len(rule.values) == len(self.schema.columns(rule.ptype)) > 0

    # --- ce qu'un sujet tient -------------------------------------------------------------------------------------

    def is_granted(self, subject: str, asked: Power) -> bool:
        """Dit si une règle accorde tout cela à un sujet, dans le domaine même, refus mis à part."""
        rules = self.policy.granting(self._request(subject, asked))
        if rules is None:  # l'index ne peut pas répondre : tout ce que le sujet tient est lu
            rules = self.policy.rules_of(self.policy.closure(subject, *self.place(asked)))
        return any(grant.allows and self.covers(grant, asked) for grant in map(self.grant, rules))

    def reach(self, subject: str, domain: str) -> list[str]:
        """Renvoie un sujet et les rôles qu'il tient dans une partie d'un domaine."""
        everywhere = domain == ANY or not self.has_domains
        return self.policy.graph.reach(subject, lambda place: everywhere or overlaps(place, domain))

    def place(self, grant: Power) -> tuple[str, ...]:
        """Renvoie le domaine de liens où une permission vaut ; aucun si les liens n'en portent pas."""
        return (grant.domain,) if self.has_domains else ()

    def _request(self, subject: str, asked: Power) -> list[str]:
        """Renvoie la requête dont les cases sont celles des règles qui couvrent une permission.

        Un motif y est pris à la lettre : les règles qui le couvrent sont celles qui couvriraient ce texte.
        """
        values = dict(asked.fields)
        values |= dict.fromkeys(DOMAIN_NAMES, asked.domain) | dict.fromkeys(SUBJECT_NAMES, subject)
        request = [""] * len(self.schema.request)
        for key in self.keys:
            request[key.request or 0] = values[self.schema.fields["p"][key.field]]
        return request

    def covers(self, mine: Power, asked: Power) -> bool:
        """Dit si une permission en couvre une autre."""
        return self._compares(mine, asked, covers)

    def overlaps(self, mine: Power, asked: Power) -> bool:
        """Dit si deux permissions ont quelque chose en commun."""
        return self._compares(mine, asked, overlaps)

    def _compares(self, mine: Power, asked: Power, compare: Callable[[str, str], bool]) -> bool:
        """Compare deux permissions champ à champ : par motif où le modèle le fait, par égalité ailleurs."""
        if mine.domain != asked.domain and not (self.domains_are_patterns and compare(mine.domain, asked.domain)):
            return False
        return all(
            held == wanted or (self.is_pattern(name) and compare(held, wanted))
            for (name, held), (_, wanted) in zip(mine.fields, asked.fields, strict=True)
        )

    @property
    def domains_are_patterns(self) -> bool:
        """Vrai si le domaine d'une règle se compare par motif, ou si une règle n'en a pas."""
        return not DOMAIN_NAMES.intersection(self.schema.fields["p"]) or bool(DOMAIN_NAMES & self.schema.patterns)

    def is_pattern(self, name: str) -> bool:
        """Dit si un champ se compare par motif ; sous `abac`, la portée `*` couvre `own`."""
        return name in self.schema.patterns or (name == "scope" and self.policy.plan.residual == ABAC_SCOPE)

    def touches(self, grant: Power, pairs: Iterable[Pair]) -> bool:
        """Dit si une permission porte, dans le domaine où l'on administre, sur l'un de ces couples."""
        return grant.domain == ANY and any(self._is_about(grant, pair) for pair in pairs)

    def _is_about(self, grant: Power, pair: Pair) -> bool:
        """Dit si une permission couvre un couple ; ce qui n'est ni ressource ni action ne restreint pas."""
        asked = {**dict.fromkeys(RESOURCE_NAMES, pair[0]), **dict.fromkeys(ACTION_NAMES, pair[1])}
        named = [(name, value) for name, value in grant.fields if name in asked]
        return all(
            value == asked[name] or (self.is_pattern(name) and covers(value, asked[name])) for name, value in named
        )


class Carried:
    """Ce que des règles et des liens transmettent, un changement fait ; chaque rôle n'est lu qu'une fois."""

    def __init__(self, comparison: Comparison, change: PolicyChange, pace: Pace, *, removes: bool = False) -> None:
        """Retient le changement.

        Args:
            comparison: de quoi lire et comparer les règles.
            change: le changement.
            pace: rend la main au fil de la lecture.
            removes: faux pour garder aussi ce qui part.
        """
        self.comparison = comparison
        self._pace = pace
        self._links = comparison.links_after(change, removes=removes)
        self._gone = frozenset(change.removed) if removes else frozenset[PolicyRule]()
        self._fresh: dict[str, list[PolicyRule]] = {}
        for rule in change.added:
            if rule.ptype == "p":
                self._fresh.setdefault(comparison.schema.subject_of(rule), []).append(rule)
        self._roles: dict[str, dict[str, list[Power]]] = {}
        self._known: dict[tuple[str, str], tuple[Power, ...]] = {}

    async def of(self, rule: PolicyRule) -> tuple[Power, ...]:
        """Renvoie ce que porte une règle `p`, ou tout ce que porte le rôle d'un lien `g`."""
        await self._pace.step()
        if rule.ptype == "p":
            return (self.comparison.grant(rule),)
        if rule.ptype != "g":
            return ()
        role, domain = rule.values[1], rule.values[2] if len(rule.values) > MEMBER_ROLE else ANY
        if (role, domain) not in self._known:
            self._known[role, domain] = await self._of_role(role, domain)
        return self._known[role, domain]

    async def distinct(self, rules: Iterable[PolicyRule]) -> AsyncIterator[Power]:
        """Énumère ce que portent des règles ; mille liens vers un rôle, dans un domaine, ne le disent qu'une fois."""
        seen: set[tuple[str, ...]] = set()
        for rule in filter(self.comparison.is_well_formed, rules):
            if rule.ptype != "g" or rule.values[1:] not in seen:
                seen.add(rule.values[1:])
                for grant in await self.of(rule):
                    yield grant

    async def _of_role(self, role: str, domain: str) -> tuple[Power, ...]:
        """Renvoie ce que porte un rôle, restreint au domaine du lien qui le donne."""
        by_domain = await self._by_domain(role)
        held = [grant for place, grants in by_domain.items() if overlaps(place, domain) for grant in grants]
        await self._pace.step(len(held))
        return tuple(dict.fromkeys(_in_domain(grant, domain) for grant in held))

    async def _by_domain(self, role: str) -> dict[str, list[Power]]:
        """Renvoie ce que porte un rôle, rangé par domaine."""
        if role not in self._roles:
            found = self._roles[role] = {}
            async for rule in self._pace.through(self.rules(self._links.reach(role))):
                grant = self.comparison.grant(rule)
                found.setdefault(grant.domain, []).append(grant)
        return self._roles[role]

    def closure(self, subject: str, domain: str) -> list[str]:
        """Renvoie un sujet et les rôles qu'il tient dans un domaine, le changement fait."""
        return self._links.closure(subject, domain if self.comparison.has_domains else "")

    def rules(self, names: Sequence[str]) -> list[PolicyRule]:
        """Renvoie les règles de ces sujets, le changement fait."""
        kept = [rule for rule in self.comparison.rules_of(names) if rule not in self._gone]
        return kept + [rule for name in names for rule in self._fresh.get(name, ())]


def is_computable(policy: Policy) -> bool:
    """Dit si les permissions se comparent : une conjonction de `g`, d'égalités et d'`aclMatch`, et rien d'autre.

    La condition de portée du modèle `abac` s'y ajoute, qui ne fait que restreindre.
    """
    plan, schema = policy.plan, policy.schema
    if not _is_one_conjunction(plan):
        return False
    keys = plan.branches[0].keys
    return (
        schema.effect in COMPUTABLE_EFFECTS
        and len(schema.fields) == 1
        and schema.links.keys() <= {"g"}
        and _reads_each_field(schema, keys, by_scope=bool(plan.residual))
        and _names_one_subject(schema, keys)
        and _reads_domains(schema, keys, shares_domains=bool(schema.shares_domains))
    )


def _is_one_conjunction(plan: MatcherPlan) -> bool:
    """Dit si un plan n'a que des clés, et pour tout reste, au plus, la condition de portée du modèle `abac`."""
    return len(plan.branches) == 1 and plan.branches[0].gate is None and plan.residual in {"", ABAC_SCOPE}


def _reads_each_field(schema: PolicySchema, keys: Sequence[Key], *, by_scope: bool) -> bool:
    """Dit si le matcher lit une fois chaque champ des règles, dont un seul sujet et un seul domaine au plus.

    Deux règles qu'un champ jamais lu distingue font la même chose, et se compareraient comme si elles différaient.
    Un champ lu deux fois, ici par égalité et là par motif, ne se compare ni comme l'un ni comme l'autre.
    """
    names = schema.fields["p"]
    compared = set(names) - ({"eft", "scope"} if by_scope else {"eft"})
    single = all(len(known.intersection(names)) <= 1 for known in (SUBJECT_NAMES, DOMAIN_NAMES))
    return single and sorted(names[key.field] for key in keys) == sorted(compared)


def _names_one_subject(schema: PolicySchema, keys: Sequence[Key]) -> bool:
    """Dit si une règle nomme son sujet, par égalité ou par rôle, et le reste par égalité ou `aclMatch`."""
    asked = [key.request for key in keys]
    if None in asked or len(set(asked)) < len(asked):
        return False
    place = schema.position("p", SUBJECT_NAMES)
    own = [key for key in keys if key.field == place and schema.request[key.request or 0] in SUBJECT_NAMES]
    others = [key for key in keys if key.field != place]
    return (
        [key.probe in {Probe.EXACT, Probe.ROLE} for key in own] == [True]  # un sujet, et un seul
        and all(key.probe in {Probe.EXACT, Probe.PATTERN} for key in others)
    )


def _reads_domains(schema: PolicySchema, keys: Sequence[Key], *, shares_domains: bool) -> bool:
    """Dit si un lien et une règle valent dans le même domaine, celui de la requête.

    Un lien lu dans un domaine constant, ou dans l'objet, donne ce que son auteur ne tient pas ; de même une règle sans
    domaine, qui vaut partout où son rôle a des membres. Une règle « * », enfin, ne vaut partout pour son auteur que si
    ses liens « * » valent partout aussi.
    """
    role = next((key for key in keys if key.probe is Probe.ROLE), None)
    if role is None or schema.links["g"] == MEMBER_ROLE:
        return True
    if not isinstance(role.domain, int) or schema.request[role.domain] not in DOMAIN_NAMES:
        return False
    place = schema.position("p", DOMAIN_NAMES)
    own = next((key for key in keys if key.field == place and key.request == role.domain), None)
    return own is not None and (own.probe is Probe.EXACT or shares_domains)


def _in_domain(grant: Power, domain: str) -> Power:
    """Restreint une permission au domaine du lien qui la donne."""
    return Power(grant.fields, grant.domain if domain == ANY else domain, grant.allows)
