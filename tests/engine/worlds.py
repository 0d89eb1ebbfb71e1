"""Les mondes où l'exécuteur est comparé à pycasbin : peu de noms, tous hostiles, pour que tout se heurte souvent."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import casbin
from casbin.model import Model
from casbin.persist.adapters.asyncio import AsyncAdapter
from casbin.util import glob_match_func, key_match2_func, key_match_func

Pool = Sequence[Any]
Row = list[Any]

ALLOW = "some(where (p.eft == allow))"
DENY = "!some(where (p.eft == deny))"
BOTH = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"
PRIORITY = "priority(p.eft) || deny"
SUBJECT = "subjectPriority(p.eft) || deny"

USERS = ["alice", "bob"]
ROLES = ["admin", "staff"]
SUBJECTS = [*USERS, *ROLES]
OBJECTS = ["doc", "file", "note"]
ACTIONS = ["read", "write"]
DOMAINS = ["north", "south"]
EFFECTS = [*["allow"] * 5, *["deny"] * 4, "peut-être", ""]
HOSTILE = [
    "",
    " ",
    ", ",
    "::",
    '"',
    "'",
    "*",
    "é",
    "e\u0301",
    "\n",
    "a, b",
    "p, alice",
    "north::alice",
    "None",
    "\\",
    "#",
]
EQUAL = "r.obj == p.obj && r.act == p.act"


@dataclass(frozen=True)
class World:
    """Un modèle, de quoi tirer ses règles et ses requêtes, et ce qu'il faut régler sur l'exécuteur.

    Attributes:
        terms: conjonction du matcher, terme à terme ; elle sert à savoir quelle règle concerne une requête.
        rows: pour chaque type de règle, un tirage par champ.
        request: un tirage par valeur de requête.
        contexts: suffixes des EnforceContext à employer.
        prepare: réglage de l'exécuteur après sa construction, et après chaque changement de modèle.
        base: règles dont tout scénario part.
        is_plain: vrai si les noms peuvent être remplacés par des textes hostiles.
        sizes: vrai si des règles de mauvaise longueur se glissent parmi les autres.
        asks_roles: faux si pycasbin rend des rôles qui dépendent des questions déjà posées.
    """

    name: str
    terms: tuple[str, ...]
    rows: Mapping[str, tuple[Pool, ...]]
    request: tuple[Pool, ...]
    head: str = "r = sub, obj, act"
    policy: str = "p = sub, obj, act"
    roles: tuple[str, ...] = ()
    effect: str = ALLOW
    matchers: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    contexts: tuple[tuple[str, str, str, str], ...] = ()
    prepare: Callable[[Any], object] = lambda _: None
    base: tuple[tuple[str, Row], ...] = ()
    is_plain: bool = True
    sizes: bool = False
    asks_roles: bool = True

    @property
    def text(self) -> str:
        """Le modèle, au format de Casbin."""
        matcher = " && ".join(f"({term})" for term in self.terms)
        roles = "\n".join(["[role_definition]", *self.roles]) if self.roles else ""
        effects = "\n".join([f"e = {self.effect}", *self.effects])
        matchers = "\n".join([f"m = {matcher}", *self.matchers])
        sections = [f"[request_definition]\n{self.head}", f"[policy_definition]\n{self.policy}", roles]
        return "\n".join([*sections, f"[policy_effect]\n{effects}", f"[matchers]\n{matchers}"])

    @property
    def has_links(self) -> bool:
        """Vrai si le modèle a des rôles."""
        return "g" in self.rows


class Step(NamedTuple):
    """Un geste : une méthode de l'exécuteur (ou un nom de `GESTURES`) et ses arguments."""

    method: str
    arguments: tuple[Any, ...] = ()


# --- valeurs de requêtes -----------------------------------------------------------------------------------------


@dataclass
class Person:
    """Une valeur de requête à attributs ; comme toute dataclass comparable, elle ne se hache pas."""

    name: str
    age: Any
    tags: tuple[str, ...] = ()


class Shouting(str):
    """Un texte qui se compare sans égard à la casse, mais se hache comme un autre."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        """Compare en minuscules."""
        return isinstance(other, str) and self.lower() == other.lower()

    __hash__ = str.__hash__


class Anyone:
    """Une valeur égale à tout, qui ne se hache pas."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        """Se dit égale à tout."""
        return True


ODD: Pool = [
    None,
    1,
    1.0,
    True,
    0,
    "1",
    ("alice",),
    ["alice"],
    {"name": "alice"},
    *[Shouting("ALICE"), Shouting("bob"), Anyone()] * 2,
    b"alice",
]


# --- familles ----------------------------------------------------------------------------------------------------


def rbac(name: str, **changes: Any) -> World:
    """Rôles, objet et action égaux ; tout le reste se change."""
    settings: dict[str, Any] = {
        "terms": ("g(r.sub, p.sub)", "r.obj == p.obj", "r.act == p.act"),
        "rows": {"p": (SUBJECTS, OBJECTS, ACTIONS), "g": (SUBJECTS, ROLES)},
        "request": (SUBJECTS, OBJECTS, ACTIONS),
        "roles": ("g = _, _",),
    }
    return World(name=name, **{**settings, **changes})


def with_effect(name: str, effect: str, **changes: Any) -> World:
    """Les mêmes rôles, et un effet par règle."""
    settings: dict[str, Any] = {
        "policy": "p = sub, obj, act, eft",
        "rows": {"p": (SUBJECTS, OBJECTS, ACTIONS, EFFECTS), "g": (SUBJECTS, ROLES)},
    }
    return rbac(name, effect=effect, **{**settings, **changes})


def in_domains(name: str, domains: Pool = DOMAINS, **changes: Any) -> World:
    """Des rôles par domaine."""
    settings: dict[str, Any] = {
        "head": "r = sub, dom, obj, act",
        "policy": "p = sub, dom, obj, act",
        "roles": ("g = _, _, _",),
        "terms": ("g(r.sub, p.sub, r.dom)", "r.dom == p.dom", "r.obj == p.obj", "r.act == p.act"),
        "rows": {"p": (SUBJECTS, domains, OBJECTS[:2], ACTIONS), "g": (SUBJECTS, ROLES, domains)},
        "request": (SUBJECTS, [*domains, "east"], OBJECTS[:2], ACTIONS),
    }
    return rbac(name, **{**settings, **changes})


def rest(name: str, patterns: Pool, paths: Pool) -> World:
    """Un motif de chemin, comparé par la fonction nommée."""
    return World(
        name=name,
        terms=("r.sub == p.sub", f"{name}(r.obj, p.obj)", 'r.act == p.act || p.act == "*"'),
        rows={"p": (USERS, patterns, [*ACTIONS, "*"])},
        request=(USERS, paths, ACTIONS),
        is_plain=False,
    )


def acl(name: str, **changes: Any) -> World:
    """Sans rôles."""
    settings: dict[str, Any] = {
        "terms": ("r.sub == p.sub", "r.obj == p.obj", "r.act == p.act"),
        "rows": {"p": (USERS, OBJECTS, ACTIONS)},
        "request": (USERS, OBJECTS, ACTIONS),
    }
    return World(name=name, **{**settings, **changes})


def starts_with(*values: Any) -> bool:
    """Une fonction de l'application."""
    return str(values[0]).startswith(str(values[1]))


def matched_roles(enforcer: Any) -> None:
    """Compare les noms de rôles par motif."""
    enforcer.add_named_matching_func("g", key_match_func)


def matched_domains(enforcer: Any) -> None:
    """Compare les domaines par motif."""
    enforcer.add_named_domain_matching_func("g", key_match_func)


def both_matched(enforcer: Any) -> None:
    """Compare noms et domaines par motif."""
    matched_roles(enforcer)
    matched_domains(enforcer)


def matched_resources(enforcer: Any) -> None:
    """Compare les ressources par motif."""
    enforcer.add_named_matching_func("g2", key_match2_func)


def own_functions(enforcer: Any) -> None:
    """Ajoute une fonction, et en remplace une de Casbin."""
    enforcer.add_function("startsWith", starts_with)
    enforcer.add_function("keyMatch", glob_match_func)


def is_chief(subject: Any) -> Any:
    """Une fonction de la requête seule, qui échoue pour l'un et ne rend pas toujours un booléen."""
    answers: dict[Any, Any] = {"alice": True, "bob": False, "admin": 1.0, "staff": None, "": 0.0, "*": "oui"}
    if subject == "carol":
        message = "inconnue"
        raise LookupError(message)
    return answers.get(subject, False)


def with_chiefs(enforcer: Any) -> None:
    """Ajoute la fonction des chefs."""
    enforcer.add_function("isChief", is_chief)


CHANGED: dict[str, list[Callable[..., bool]]] = {
    "keyMatch": [key_match_func, glob_match_func],
    "startsWith": [starts_with, key_match_func],
}
"""Fonctions qu'un scénario remplace, et par quoi."""

PATHS = ["/a", "/a/", "/a/b", "/a/b/c", "/b", "", "/", "/a?x=1", "/a/*", "/é/b", "/a\n"]
DEEP = [f"n{number}" for number in range(13)]
CHAIN = tuple(("g", [member, role]) for member, role in pairwise(DEEP))
PEOPLE: Pool = [
    *[Person("alice", 20), Person("bob", 18), {"name": "alice", "age": 30}, Person("alice", 3)] * 6,
    Person("bob", "vingt"),
    {"age": 3},
    "alice",
    Shouting("bob"),
    None,
]
PAPERS: Pool = [*[{"owner": "alice"}, {"owner": "bob"}, {"owner": None}] * 5, Person("bob", 0), {}, "doc"]

TWO_OF_EACH = World(
    name="several_types",
    head="r = sub, obj, act\nr2 = sub, act",
    policy="p = sub, obj, act\np2 = sub, act, eft",
    roles=("g = _, _",),
    terms=("g(r.sub, p.sub)", "r.obj == p.obj", "r.act == p.act"),
    effects=(f"e2 = {ALLOW}",),
    matchers=("m2 = r2.sub == p2.sub && r2.act == p2.act", "m3 = g(r2.sub, p2.sub)", "m4 = r.sub == p2.sub"),
    rows={"p": (SUBJECTS, OBJECTS, ACTIONS), "p2": (SUBJECTS, ACTIONS, EFFECTS), "g": (SUBJECTS, ROLES)},
    request=(SUBJECTS, OBJECTS, ACTIONS),
    contexts=(("r2", "p2", "e2", "m2"), ("r2", "p2", "e", "m3"), ("r", "p2", "e", "m4"), ("r", "p", "e", "m")),
)

RESOURCE_ROLES = rbac(
    "resource_roles",
    roles=("g = _, _", "g2 = _, _"),
    terms=("g(r.sub, p.sub)", "g2(r.obj, p.obj)", "r.act == p.act"),
    rows={
        "p": (SUBJECTS, [*OBJECTS, "shelf"], ACTIONS),
        "g": (SUBJECTS, ROLES),
        "g2": ([*OBJECTS, "shelf"], ["shelf", "note"]),
    },
)

HELD = f"g(r.sub, p.sub) && {EQUAL}"
PRIORITIES: dict[str, Any] = {
    "policy": "p = priority, sub, obj, act, eft",
    "rows": {"p": (["1", "2", "10"], SUBJECTS, OBJECTS[:2], ACTIONS, EFFECTS), "g": (SUBJECTS, ROLES)},
    "is_plain": False,
}
CHIEFS: dict[str, Any] = {"prepare": with_chiefs, "request": ([*SUBJECTS, "carol"], OBJECTS, ACTIONS)}
STARS: dict[str, Any] = {
    "rows": {"p": ([*SUBJECTS, "*"], [*OBJECTS, "*"], ACTIONS, EFFECTS), "g": (SUBJECTS, ROLES)},
    "request": ([*SUBJECTS, "*"], [*OBJECTS, "*"], ACTIONS),
}
GATED = [
    rbac("gate_first", terms=(f'g(r.sub, "admin") || {HELD}',)),
    rbac("gate_odd_values", terms=(f'{HELD} || g(r.sub, "admin")',), request=([*SUBJECTS, *ODD], OBJECTS, ACTIONS)),
    rbac("gate_wrong_sizes", terms=(f'g(r.sub, "admin") || {HELD}',), sizes=True),
    with_effect("gate_deny", DENY, terms=(f'{HELD} || g(r.sub, "admin")',)),
    with_effect("gate_both", BOTH, terms=(f'g(r.sub, "admin") || r.sub == "bob" || {HELD}',)),
    with_effect("gate_priority", PRIORITY, terms=(f'g(r.sub, "admin") || {HELD}',)),
    with_effect("gate_priority_field", PRIORITY, terms=(f'r.sub == "alice" || {HELD}',), **PRIORITIES),
    with_effect(
        "gate_factor", BOTH, terms=('g(r.sub, "admin") || g(r.sub, p.sub)', 'r.act == p.act || r.act == "read"')
    ),
    with_effect("gate_negated", BOTH, terms=(f'!(g(r.sub, "admin") && r.act == "write") && {HELD} || r.act != p.act',)),
    with_effect("gate_function", BOTH, terms=(f"isChief(r.sub) || {HELD}",), **CHIEFS),
    with_effect("gate_function_factor", ALLOW, terms=("isChief(r.sub) || g(r.sub, p.sub)", EQUAL), **CHIEFS),
    with_effect("gate_function_last", BOTH, terms=(f"{HELD} || isChief(r.sub)",), **CHIEFS),
    with_effect("gate_two_functions", PRIORITY, terms=(f"!isChief(r.sub) && {HELD} || isChief(r.obj)",), **CHIEFS),
    with_effect("gate_after_failure", BOTH, terms=(f"isChief(p.sub) && {HELD} || g(r.sub, 'admin')",), **CHIEFS),
    in_domains(
        "gate_domains", terms=(f'g(r.sub, "admin", r.dom) || g(r.sub, p.sub, r.dom) && r.dom == p.dom && {EQUAL}',)
    ),
    in_domains(
        "gate_domains_matched",
        terms=(f'g(r.sub, "admin", r.dom) || r.sub == p.sub && {EQUAL}',),
        prepare=matched_domains,
        is_plain=False,
    ),
    with_effect(
        "gate_motifs",
        BOTH,
        terms=('r.sub == p.sub && globMatch(r.obj, p.obj) || g(r.sub, "admin")',),
        rows={"p": (SUBJECTS, ["/a", "/a/*", "[", "/**"], ACTIONS, EFFECTS), "g": (SUBJECTS, ROLES)},
        request=(SUBJECTS, PATHS, ACTIONS),
        is_plain=False,
    ),
    with_effect(
        "stars",
        BOTH,
        terms=('g(r.sub, p.sub) || p.sub == "*"', 'r.obj == p.obj || p.obj == "*"', "r.act == p.act"),
        **STARS,
    ),
    with_effect("stars_alone", PRIORITY, terms=('p.sub == "*" || p.sub == r.sub',), **STARS),
    with_effect(
        "stars_or_keys",
        DENY,
        terms=('p.sub == "*" || r.sub == p.sub', "keyMatch(r.obj, p.obj) || p.obj == r.act"),
        **STARS,
    ),
]
"""Des matchers de super-administrateur : des questions sur la requête seule, et des disjonctions sur un champ."""

WORLDS = [
    *GATED,
    acl("acl"),
    acl("acl_odd_values", request=([*USERS, *ODD], [*OBJECTS, *ODD], ACTIONS)),
    acl("acl_odd_subjects", request=([*USERS, *ODD], OBJECTS, ACTIONS), is_plain=False),
    acl(
        "acl_odd_rules",
        rows={"p": ([*USERS, 1, None, True], [*OBJECTS, "1", 0], ACTIONS)},
        request=([*USERS, *ODD], [*OBJECTS, *ODD], ACTIONS),
        is_plain=False,
    ),
    acl(
        "acl_root",
        terms=(f'r.sub == p.sub && {EQUAL} || r.sub == "root"',),
        request=([*USERS, "root"], OBJECTS, ACTIONS),
    ),
    acl(
        "acl_without_users",
        head="r = obj, act",
        policy="p = obj, act",
        terms=("r.obj == p.obj", "r.act == p.act"),
        rows={"p": (OBJECTS, ACTIONS)},
        request=(OBJECTS, ACTIONS),
    ),
    acl(
        "acl_without_resources",
        head="r = sub, act",
        policy="p = sub, act",
        terms=("r.sub == p.sub", "r.act == p.act"),
        rows={"p": (USERS, ACTIONS)},
        request=(USERS, ACTIONS),
    ),
    acl(
        "acl_one_field_twice",
        terms=("r.sub == p.sub", "p.sub == r.obj", "r.act == p.act"),
        request=(USERS, USERS, ACTIONS),
    ),
    acl("acl_without_rules", terms=('r.sub == "alice"', 'r.act != "write"')),
    acl("acl_wrong_sizes", sizes=True),
    rbac("rbac"),
    rbac("rbac_odd_values", request=([*SUBJECTS, *ODD], OBJECTS, [*ACTIONS, *ODD])),
    rbac("rbac_odd_actions", request=(SUBJECTS, OBJECTS, [*ACTIONS, Shouting("READ"), Anyone(), None]), is_plain=False),
    rbac("rbac_wrong_sizes", sizes=True),
    rbac("rbac_turned", terms=("p.act == r.act", "p.obj == r.obj", "g(r.sub, p.sub)")),
    rbac("rbac_link_backwards", terms=("g(p.sub, r.sub)", "r.obj == p.obj", "r.act == p.act")),
    rbac("rbac_constant_role", terms=('g(r.sub, "admin")', "r.obj == p.obj", "r.act == p.act")),
    rbac("rbac_self_link", rows={"p": (SUBJECTS, OBJECTS, ACTIONS), "g": (SUBJECTS, SUBJECTS)}),
    rbac(
        "rbac_deep",
        rows={"p": (DEEP[8:], OBJECTS[:1], ACTIONS[:1]), "g": (DEEP[:4], DEEP[1:5])},
        request=(DEEP[:4], OBJECTS[:1], ACTIONS[:1]),
        base=CHAIN,
        is_plain=False,
    ),
    rbac("rbac_or", terms=("g(r.sub, p.sub) || r.sub == p.obj", f'({EQUAL}) || !(r.act != "write") && p.act != r.act')),
    rbac("rbac_negated", terms=("!g(r.sub, p.sub)", "!(r.obj == p.obj || r.act != p.act)")),
    rbac("rbac_in", terms=("g(r.sub, p.sub)", 'r.obj in ("doc", "note")', "r.act in (p.act, p.obj)")),
    rbac("rbac_unequal", terms=("g(r.sub, p.sub)", "r.obj != p.obj", "r.act == p.act", 'r.sub != "bob"')),
    with_effect("allow_override", ALLOW),
    with_effect("deny_override", DENY),
    with_effect("allow_and_deny", BOTH),
    with_effect("allow_and_deny_wrong_sizes", BOTH, sizes=True),
    with_effect("priority", PRIORITY),
    with_effect(
        "priority_field",
        PRIORITY,
        policy="p = priority, sub, obj, act, eft",
        rows={"p": (["1", "2", "10"], SUBJECTS, OBJECTS[:2], ACTIONS, EFFECTS), "g": (SUBJECTS, ROLES)},
        is_plain=False,
    ),
    with_effect(
        "priority_field_last",
        BOTH,
        policy="p = sub, obj, act, eft, priority",
        rows={"p": (SUBJECTS, OBJECTS[:2], ACTIONS, EFFECTS, ["1", "2", "10"]), "g": (SUBJECTS, ROLES)},
        is_plain=False,
    ),
    with_effect("subject_priority", SUBJECT, rows={"p": (SUBJECTS, OBJECTS, ACTIONS, EFFECTS), "g": (USERS, ROLES)}),
    in_domains(
        "subject_priority_domains",
        effect=SUBJECT,
        policy="p = sub, dom, obj, act, eft",
        rows={"p": (SUBJECTS, DOMAINS, OBJECTS[:1], ACTIONS, EFFECTS), "g": (USERS, ROLES, DOMAINS)},
    ),
    in_domains("domains"),
    in_domains("domains_wrong_sizes", sizes=True),
    in_domains("domains_odd_values", request=(SUBJECTS, [*DOMAINS, 1, None, ["north"]], OBJECTS[:2], ACTIONS)),
    in_domains("domain_of_the_rule", terms=("g(r.sub, p.sub, p.dom)", "r.dom == p.dom", EQUAL)),
    in_domains("domain_is_constant", terms=('g(r.sub, p.sub, "north")', EQUAL)),
    in_domains(
        "domains_star", [*DOMAINS, "*"], terms=("g(r.sub, p.sub, r.dom)", 'r.dom == p.dom || p.dom == "*"', EQUAL)
    ),
    in_domains(
        "domains_matched",
        [*DOMAINS, "*", "n*"],
        terms=("g(r.sub, p.sub, r.dom)", "keyMatch(r.dom, p.dom)", EQUAL),
        rows={
            "p": ([*ROLES, "chief"], ["*", "north"], OBJECTS[:1], ACTIONS[:1]),
            "g": (["alice", "alice", "admin"], [*ROLES, "chief"], ["north", "*", "n*"]),
        },
        request=(["alice", "admin"], ["north", "south"], OBJECTS[:1], ACTIONS[:1]),
        prepare=matched_domains,
        is_plain=False,
    ),
    in_domains(
        "domains_and_names_matched",
        [*DOMAINS, "*"],
        terms=("g(r.sub, p.sub, r.dom)", "keyMatch(r.dom, p.dom)", EQUAL),
        rows={
            "p": (SUBJECTS, [*DOMAINS, "*"], OBJECTS[:2], ACTIONS),
            "g": ([*SUBJECTS, "*", "a*"], ROLES, [*DOMAINS, "*"]),
        },
        prepare=both_matched,
        is_plain=False,
        asks_roles=False,
    ),
    RESOURCE_ROLES,
    rbac(
        "prefixes",
        terms=("g(r.sub, p.sub)", "keyMatch(r.obj, p.obj)", "r.act == p.act"),
        effect=BOTH,
        policy="p = sub, obj, act, eft",
        rows={"p": (SUBJECTS, ["/a/*", "/*", "*", "/a", "/a/b"], ACTIONS, EFFECTS), "g": (SUBJECTS, ROLES)},
        request=(SUBJECTS, PATHS, ACTIONS),
        is_plain=False,
    ),
    rbac(
        "resources_matched",
        roles=("g = _, _", "g2 = _, _"),
        terms=("g(r.sub, p.sub)", "g2(r.obj, p.obj)", "r.act == p.act"),
        rows={
            "p": (SUBJECTS, ["/a/1", "shelf"], ACTIONS),
            "g": (SUBJECTS, ROLES),
            "g2": (["/a/:id", "/a/1", "/*"], ["shelf"]),
        },
        request=(SUBJECTS, ["/a/1", "/a/2", "/b"], ACTIONS),
        prepare=matched_resources,
        is_plain=False,
        asks_roles=False,
    ),
    rbac(
        "roles_matched",
        rows={"p": (SUBJECTS, OBJECTS, ACTIONS), "g": ([*SUBJECTS, "*", "a*", "ali*"], ROLES)},
        prepare=matched_roles,
        is_plain=False,
        asks_roles=False,
    ),
    rest("keyMatch", ["/a", "/a/*", "/*", "*", "/a*c", "", "/*/b", "/a/b"], PATHS),
    rest("keyMatch2", ["/a", "/a/:x", "/:x/b", "/*", "*", "/a/*", "/:x", "/a.b", "/a/:x/c", "/(", ""], PATHS),
    rest("keyMatch3", ["/a", "/a/{x}", "/{x}/b", "/*", "/a/*", "/{x}", "/{x}/{y}", ""], PATHS),
    rest("keyMatch4", ["/a", "/{x}/{x}", "/a/{x}", "/{x}/b/{x}", "/*", "/{x}/{y}"], [*PATHS, "/b/b", "/c/b/c"]),
    rest("keyMatch5", ["/a", "/a/*", "/{x}", "/a/{x}", "/*", "/a?x=1", ""], PATHS),
    rest("globMatch", ["/a", "/a/*", "/**", "*/b", "/[ab]", "/a/{b,c}", "/a/**", "[", "/?"], PATHS),
    rest("regexMatch", ["^/a$", "/a", ".*", "/a/.+", "[", "", "(?i)/A", "/a|/b"], PATHS),
    rest(
        "ipMatch",
        ["10.0.0.0/8", "10.1.2.3", "0.0.0.0/0", "192.168.1.0/24", "::1", "nulle part", "10.1.2.3/33"],
        ["10.1.2.3", "10.9.9.9", "192.168.1.7", "::1", "ailleurs", "10.1.2.3/32"],
    ),
    rest("startsWith", ["/a", "/", "", "/b"], PATHS),
    rbac(
        "own_functions",
        terms=("g(r.sub, p.sub)", "keyMatch(r.obj, p.obj)", "startsWith(r.act, p.act)"),
        rows={"p": (SUBJECTS, ["/a", "/a/*", "/[ab]"], ["read", "re", ""]), "g": (SUBJECTS, ROLES)},
        request=(SUBJECTS, PATHS, ACTIONS),
        prepare=own_functions,
        is_plain=False,
    ),
    acl(
        "list_of_the_request",
        terms=("p.sub in r.sub", "r.obj == p.obj", "r.act == p.act"),
        request=([["alice"], ("bob", "alice"), {"bob": 1}, "alice, bob", [], 3], OBJECTS, ACTIONS),
    ),
    acl("abac_older", terms=("r.sub.age > 18", "r.obj == p.obj", "r.act == p.act"), request=(PEOPLE, OBJECTS, ACTIONS)),
    acl(
        "abac_owner",
        terms=("r.obj.owner == r.sub.name", "r.act == p.act"),
        request=(PEOPLE, PAPERS, ACTIONS),
    ),
    acl(
        "abac_attribute_of_a_rule",
        terms=("r.sub.name == p.sub", "r.obj == p.obj", "r.act == p.act"),
        request=(PEOPLE, OBJECTS, ACTIONS),
    ),
    acl(
        "eval",
        policy="p = rule, obj, act",
        terms=("eval(p.rule)", "r.obj == p.obj", "r.act == p.act"),
        rows={
            "p": (
                [
                    "r.sub.age > 18",
                    'r.sub.name == "alice" || r.sub.age < 5',
                    "True",
                    "r.sub.name == p.obj",
                    "r.sub.age >",
                    "!False",
                ],
                OBJECTS[:2],
                ACTIONS,
            )
        },
        request=(PEOPLE, OBJECTS[:2], ACTIONS),
        is_plain=False,
    ),
    acl(
        "not_a_boolean",
        terms=("r.sub == p.sub", "r.obj"),
        request=(USERS, [True, False, 1.0, 0.0, 1, 0, "", "x", None, []], ACTIONS),
    ),
    TWO_OF_EACH,
]

BY_NAME = {world.name: world for world in WORLDS}


# --- l'exécuteur et son stockage ---------------------------------------------------------------------------------


class MemoryAdapter(AsyncAdapter):
    """Un stockage en mémoire, assez fidèle pour que tout relire redonne ce qui a été écrit."""

    def __init__(self, rows: Sequence[tuple[str, Row]] = ()) -> None:
        """Part de ces règles."""
        self.rows: list[tuple[str, Row]] = [(ptype, list(row)) for ptype, row in rows]
        self._filtered = False

    def is_filtered(self) -> bool:
        """Vrai après un chargement partiel."""
        return self._filtered

    async def load_policy(self, model: Model) -> None:
        """Charge tout."""
        self._filtered = False
        self._load(model, None)

    async def load_filtered_policy(self, model: Model, filter: Any) -> None:  # noqa: A002 - signature de pycasbin
        """Charge les règles dont la première valeur est donnée."""
        self._filtered = True
        self._load(model, filter)

    def _load(self, model: Model, wanted: str | None) -> None:
        """Ajoute les règles au modèle, comme les adaptateurs de pycasbin."""
        for ptype, row in self.rows:
            if wanted is None or row[0] == wanted:
                model[ptype[0]][ptype].policy.append(list(row))

    async def save_policy(self, model: Model) -> bool:
        """Remplace tout par les règles du modèle."""
        lists = [(ptype, ast.policy) for section in "pg" for ptype, ast in (model[section] or {}).items()]
        self.rows = [(ptype, list(row)) for ptype, rows in lists for row in rows]
        return True

    async def add_policy(self, _sec: str, ptype: str, rule: Row) -> None:
        """Ajoute une règle."""
        self.rows.append((ptype, list(rule)))

    async def add_policies(self, _sec: str, ptype: str, rules: Sequence[Row]) -> None:
        """Ajoute des règles."""
        self.rows += [(ptype, list(rule)) for rule in rules]

    async def remove_policy(self, _sec: str, ptype: str, rule: Row) -> None:
        """Retire une règle."""
        await self.remove_policies(_sec, ptype, [rule])

    async def remove_policies(self, _sec: str, ptype: str, rules: Sequence[Row]) -> None:
        """Retire des règles."""
        for rule in rules:
            if (ptype, list(rule)) in self.rows:
                self.rows.remove((ptype, list(rule)))

    async def remove_filtered_policy(self, _sec: str, ptype: str, index: int, *values: str) -> None:
        """Retire les règles que le filtre retient."""
        self.rows = [item for item in self.rows if item[0] != ptype or not _kept(item[1], index, values)]

    async def update_policy(self, _sec: str, ptype: str, old: Row, new: Row) -> None:
        """Remplace une règle."""
        self.rows[self.rows.index((ptype, list(old)))] = (ptype, list(new))

    async def update_policies(self, sec: str, ptype: str, olds: Sequence[Row], news: Sequence[Row]) -> None:
        """Remplace des règles."""
        for old, new in zip(olds, news, strict=True):
            if (ptype, list(old)) in self.rows:
                await self.update_policy(sec, ptype, old, new)

    async def update_filtered_policies(
        self, sec: str, ptype: str, news: Sequence[Row], index: int, *values: str
    ) -> list[Row]:
        """Remplace les règles que le filtre retient, et rend les anciennes."""
        olds = [row for kind, row in self.rows if kind == ptype and _kept(row, index, values)]
        await self.remove_filtered_policy(sec, ptype, index, *values)
        await self.add_policies(sec, ptype, news)
        return olds


def _kept(row: Row, index: int, values: Sequence[str]) -> bool:
    """Dit si un filtre retient une règle."""
    return all(value in {"", row[place]} for place, value in enumerate(values, start=index))


async def replace_adapter(enforcer: Any, rows: Sequence[tuple[str, Row]]) -> None:
    """Un voisin a réécrit la base ; on relit tout."""
    enforcer.adapter.rows = [(ptype, list(row)) for ptype, row in rows]
    await enforcer.load_policy()


async def append_rows(enforcer: Any, rows: Sequence[tuple[str, Row]]) -> None:
    """Ajoute des règles comme le font les chargeurs, puis refait les liens."""
    for ptype, row in rows:
        enforcer.model[ptype[0]][ptype].policy.append(list(row))
    enforcer.build_role_links()


async def clear(enforcer: Any) -> None:
    """Vide tout, liens compris."""
    enforcer.clear_policy()
    enforcer.build_role_links()


async def change_function(enforcer: Any, name: str, function: Callable[..., Any]) -> None:
    """Remplace une fonction du matcher entre deux décisions."""
    enforcer.add_function(name, function)


async def switch(enforcer: Any, enabled: bool) -> None:
    """Coupe ou rétablit l'exécution."""
    enforcer.enable_enforce(enabled)


async def match_again(enforcer: Any, prepare: Callable[[Any], object]) -> None:
    """Redonne les fonctions de comparaison, comme une application qui se règle tard."""
    prepare(enforcer)


GESTURES: dict[str, Callable[..., Any]] = {
    "replace_adapter": replace_adapter,
    "append_rows": append_rows,
    "clear": clear,
    "change_function": change_function,
    "switch": switch,
    "match_again": match_again,
}


def model_of(text: str) -> Model:
    """Lit un modèle."""
    model = Model()
    model.load_model_from_text(text)
    return model


def build(kind: type[Any], world: World) -> Any:
    """Fait un exécuteur vide, réglé pour ce monde."""
    enforcer = kind(model_of(world.text), MemoryAdapter())
    enforcer.add_function("startsWith", starts_with)
    world.prepare(enforcer)
    return enforcer


def fresh_stock(world: World, lived: Any) -> casbin.AsyncEnforcer:
    """Un pycasbin neuf, sur les règles et les fonctions d'un autre ; un lien trop court n'en est pas un."""
    enforcer = build(casbin.AsyncEnforcer, world)
    enforcer.fm, enforcer.enabled = lived.fm, lived.enabled
    for section in "pg":
        for ptype, assertion in (lived.model[section] or {}).items():
            width = assertion.value.count("_") if section == "g" else 0
            enforcer.model[section][ptype].policy = [list(row) for row in assertion.policy if len(row) >= width]
    enforcer.build_role_links()
    for ptype, assertion in (lived.model["g"] or {}).items():
        enforcer.model["g"][ptype].policy = [list(row) for row in assertion.policy]
    return enforcer


# --- tirages -----------------------------------------------------------------------------------------------------


@dataclass
class Drawer:
    """Tire les règles, les requêtes et les gestes d'un exemple."""

    world: World
    draw: random.Random
    names: dict[str, str] = field(default_factory=dict)
    seen: dict[str, list[Row]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Choisit les noms hostiles de cet exemple."""
        if self.world.is_plain and self.draw.random() < 0.5:
            spared = [*SUBJECTS, *OBJECTS, *ACTIONS, *DOMAINS]
            taken = self.draw.sample(HOSTILE, k=self.draw.randrange(1, 5))
            self.names = dict(zip(self.draw.sample(spared, k=len(taken)), taken, strict=True))

    def value(self, pool: Pool) -> Any:
        """Tire une valeur, sous son nom de cet exemple."""
        found = self.draw.choice(pool)
        return self.names.get(found, found) if type(found) is str else found

    def row(self, ptype: str) -> Row:
        """Tire une règle ; souvent, une déjà tirée."""
        known = self.seen.setdefault(ptype, [])
        if known and self.draw.random() < 0.4:
            return list(self.draw.choice(known))
        row = self._sized([self.value(pool) for pool in self.world.rows[ptype]])
        known.append(row)
        return list(row)

    def _sized(self, row: Row) -> Row:
        """Rend la règle trop courte ou trop longue, si ce monde en a."""
        if not self.world.sizes or self.draw.random() < 0.8:
            return row
        return row[:-1] if self.draw.random() < 0.5 else [*row, "allow"]

    def known(self, ptype: str) -> Row:
        """Tire une règle déjà tirée, s'il y en a."""
        known = self.seen.get(ptype)
        return list(self.draw.choice(known)) if known and self.draw.random() < 0.85 else self.row(ptype)

    def rows(self, at_least: int, at_most: int) -> list[tuple[str, Row]]:
        """Tire des règles de tous les types, des règles `p` surtout."""
        weights = [2 if ptype == "p" else 1 for ptype in self.world.rows]
        types = self.draw.choices(list(self.world.rows), weights, k=self.draw.randint(at_least, at_most))
        return [*self.world.base, *((ptype, self.row(ptype)) for ptype in types)]

    def values(self) -> list[Any]:
        """Tire les valeurs d'une requête ; une fois sur deux, celles d'une règle."""
        values = [self.value(pool) for pool in self.world.request]
        return self._aimed(values) if self.draw.random() < 0.5 else values

    def request(self) -> tuple[Any, ...]:
        """Tire une requête, parfois dans un contexte, rarement de mauvaise longueur."""
        values = self.values()
        if self.draw.random() < 0.01:
            values = values[:-1] if self.draw.random() < 0.5 else [*values, "de trop"]
        if self.world.contexts and self.draw.random() < 0.6:
            context = self.draw.choice(self.world.contexts)
            width = 2 if context[0] == "r2" else 3
            return (casbin.core_enforcer.EnforceContext(*context), *[values[0], *values[-2:]][-width:])
        return tuple(values)

    def _aimed(self, values: list[Any]) -> list[Any]:
        """Remplace presque toutes les valeurs par celles d'une règle, nom par nom."""
        held = dict(zip(_names(self.world.policy), self.known("p"), strict=False))
        if "g" in self.world.rows and "sub" in held and self.draw.random() < 0.6:
            held["sub"] = self._member_of(held["sub"])
        names = _names(self.world.head)
        return [
            held[name] if name in held and self.draw.random() < 0.9 else value
            for name, value in zip(names, values, strict=True)
        ]

    def _member_of(self, role: Any) -> Any:
        """Tire qui tient, ou a tenu, un rôle ; sinon n'importe qui."""
        members = [row[0] for row in self.seen.get("g", []) if len(row) > 1 and row[1] == role]
        return self.draw.choice(members) if members else self.value(self.world.request[0])

    # --- gestes ---------------------------------------------------------------------------------------------------

    def step(self) -> Step:
        """Tire un geste."""
        weights = [45, 30, 10, 5] if self.world.is_plain else [45, 30, 10, 15]
        kind = self.draw.choices(["rules", "links", "reload", "rare"], weights)[0]
        if kind == "links" and not self.world.has_links:
            kind = "rules"
        step = {"rules": self._rules, "links": self.link, "reload": self._reload, "rare": self._rare}[kind]()
        if "priority" in self.world.policy and step.method in {"append_rows", "load_increment_filtered_policy"}:
            return Step("load_policy")  # Casbin n'y range pas ce qui arrive ainsi (voir docs/differences.md)
        return self._loaded(step)

    def _rules(self) -> Step:
        """Tire un changement de règles `p`."""
        ptype = self.draw.choice([name for name in self.world.rows if name[0] == "p"])
        by_name = self._by_name("policy", "policies", ptype)
        return self.draw.choice([*by_name, self.draw.choice(self._users())])()

    def link(self) -> Step:
        """Tire un changement de rôles."""
        ptype = self.draw.choice([name for name in self.world.rows if name[0] == "g"])
        named = [*self._by_name("grouping_policy", "grouping_policies", ptype)]
        return self.draw.choice([*named, *self._roles()] if ptype == "g" and self.draw.random() < 0.4 else named)()

    def _by_name(self, one: str, many: str, ptype: str) -> list[Callable[[], Step]]:
        """Les gestes de gestion d'un type."""
        adds, removes = f"add_named_{one}", f"remove_named_{one}"
        common = [
            *[partial(self.addition, ptype)] * (7 if ptype[0] == "p" else 3),
            lambda: Step(adds, (ptype, *self.row(ptype))),
            lambda: Step(f"add_named_{many}", (ptype, self._batch(ptype, self.row))),
            lambda: Step(removes, (ptype, *self.known(ptype))),
            lambda: Step(removes, (ptype, self.known(ptype))),
            lambda: Step(f"remove_named_{many}", (ptype, self._batch(ptype, self.known))),
            lambda: Step(f"remove_filtered_named_{one}", (ptype, *self._filter(ptype))),
        ]
        return [*common, *self._updates(ptype)] if ptype[0] == "p" else common

    def addition(self, ptype: str) -> Step:
        """Ajoute une règle tirée, donnée comme liste."""
        method = "add_named_policy" if ptype[0] == "p" else "add_named_grouping_policy"
        return self._loaded(Step(method, (ptype, self.row(ptype))))

    def _loaded(self, step: Step) -> Step:
        """Fait passer par un chargement ce qui n'est pas un texte : `add_policy` ne l'admet qu'à demi."""
        return step if _is_text(step) else Step("append_rows", (self.rows(1, 2),))

    def _updates(self, ptype: str) -> list[Callable[[], Step]]:
        """Les remplacements ; Casbin n'en a pas pour les rôles."""
        return [
            lambda: Step("update_named_policy", (ptype, self.known(ptype), self.row(ptype))),
            lambda: Step("update_named_policy", (ptype, *self._same_priority(ptype))),
            lambda: Step("update_named_policies", (ptype, *self._pairs(ptype))),
            lambda: Step("update_filtered_named_policies", (ptype, self._batch(ptype, self.row), *self._filter(ptype))),
        ]

    def _same_priority(self, ptype: str) -> tuple[Row, Row]:
        """Tire une règle et sa remplaçante, de même premier et de même dernier champ."""
        old, new = self.known(ptype), self.row(ptype)
        return old, [*old[:1], *new[1:-1], *old[-1:]] if len(old) > 1 else new

    def _pairs(self, ptype: str) -> tuple[list[Row], list[Row]]:
        """Tire des règles et leurs remplaçantes."""
        pairs = [self._same_priority(ptype) for _ in range(self.draw.randrange(1, 4))]
        return [old for old, _ in pairs], [new for _, new in pairs]

    def _batch(self, ptype: str, draw: Callable[[str], Row]) -> list[Row]:
        """Tire un lot."""
        return [draw(ptype) for _ in range(self.draw.randrange(4))]

    def _filter(self, ptype: str) -> tuple[Any, ...]:
        """Tire un filtre : une place, et les valeurs d'une règle à partir d'elle, certaines vides."""
        row = self.known(ptype)
        start = self.draw.randrange(len(row)) if row else 0
        values = [value if self.draw.random() < 0.7 else "" for value in row[start : start + self.draw.randrange(1, 4)]]
        return (start, *values)

    def _users(self) -> list[Callable[[], Step]]:
        """Les gestes de l'interface RBAC sur les permissions."""
        methods = ["add_permission_for_user", "delete_permission_for_user", "delete_permission"]
        whole = ["delete_permissions_for_user"] + (["delete_user", "delete_role"] if self.world.has_links else [])
        return [
            *(partial(self._permission, method) for method in methods),
            lambda: Step(self.draw.choice(whole), (self.row("p")[0],)),
        ]

    def _permission(self, method: str) -> Step:
        """Tire une permission d'un compte."""
        row = self.row("p") if method.startswith("add") else self.known("p")
        return Step(method, tuple(row[1:] if method == "delete_permission" else row))

    def _roles(self) -> list[Callable[[], Step]]:
        """Les gestes de l'interface RBAC sur les rôles."""
        if len(self.world.rows["g"]) > 2:
            return [
                lambda: Step("add_role_for_user_in_domain", tuple(_three(self.row("g")))),
                lambda: Step("delete_roles_for_user_in_domain", tuple(_three(self.known("g")))),
            ]
        return [
            lambda: Step("add_role_for_user", tuple(_two(self.row("g")))),
            lambda: Step("delete_role_for_user", tuple(_two(self.known("g")))),
            lambda: Step("delete_roles_for_user", tuple(self.known("g")[:1])),
        ]

    def _reload(self) -> Step:
        """Tire un rechargement."""
        wanted = self.value(self.world.rows["p"][0])
        return self.draw.choice(
            [
                Step("load_policy"),
                Step("load_policy"),
                Step("save_policy"),
                *[Step("replace_adapter", (self.rows(4, 12),))] * 3,
                Step("append_rows", (self.rows(1, 3),)),
                Step("load_filtered_policy", (wanted,)),
                Step("load_increment_filtered_policy", (wanted,)),
                Step("clear"),
            ]
        )

    def _rare(self) -> Step:
        """Tire un réglage : une fonction que le matcher emploie, l'exécution, les comparaisons de rôles."""
        used = [name for name in CHANGED if name in "".join(self.world.terms)]
        changes = [Step("change_function", (name, self.draw.choice(CHANGED[name]))) for name in used]
        switches = [Step("switch", (False,)), Step("switch", (True,)), Step("match_again", (self.world.prepare,))]
        return self.draw.choice([*changes * 4, *switches])


def _is_text(step: Step) -> bool:
    """Dit si un ajout n'a que des textes : sinon Casbin échoue après avoir ajouté (voir docs/differences.md)."""
    replaces = step.method == "update_filtered_named_policies"
    adds = replaces or step.method.startswith("add_")
    return not adds or all(type(value) is str for value in _flat(step.arguments[: 2 if replaces else None]))


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    """Énumère les valeurs de listes emboîtées."""
    for value in values:
        yield from _flat(value) if isinstance(value, (list, tuple)) else [value]


def _names(definition: str) -> list[str]:
    """Rend les noms que donne la première ligne d'une définition."""
    return [name.strip() for name in definition.splitlines()[0].partition("=")[2].split(",")]


def _two(row: Row) -> Row:
    """Complète ou coupe un lien à deux noms."""
    return [*row, "admin", "admin"][:2]


def _three(row: Row) -> Row:
    """Complète ou coupe un lien à trois noms."""
    return [*row, "admin", "north", "north"][:3]
