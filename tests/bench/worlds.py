"""Les politiques mesurées : un modèle, ses règles à la taille voulue, et des requêtes dont la réponse est connue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastapi_acl import PolicyRule
from fastapi_acl.engine.casbin.models import read_packaged_model

ALLOW = "some(where (p.eft == allow))"
DENY_OVERRIDES = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"
PRIORITY = "priority(p.eft) || deny"


class Request(NamedTuple):
    """Une question et sa réponse."""

    label: str
    values: tuple[Any, ...]
    allowed: bool


@dataclass(frozen=True)
class World:
    """Une politique et de quoi l'interroger."""

    text: str
    rules: list[PolicyRule]
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Person:
    """Un sujet à attributs."""

    age: int
    level: int


def model_text(
    policy: str, matcher: str, *, roles: tuple[str, ...] = (), effect: str = ALLOW, request: str = "sub, obj, act"
) -> str:
    """Écrit un modèle au format de Casbin."""
    definitions = "\n".join(["[role_definition]", *roles]) if roles else ""
    return (
        f"[request_definition]\nr = {request}\n[policy_definition]\np = {policy}\n{definitions}\n"
        f"[policy_effect]\ne = {effect}\n[matchers]\nm = {matcher}\n"
    )


def p(*values: str) -> PolicyRule:
    return PolicyRule("p", values)


def g(*values: str) -> PolicyRule:
    return PolicyRule("g", values)


class Staff(NamedTuple):
    """Des rôles et des comptes, chacun tenant un rôle : dix comptes par rôle, comme les mesures de Casbin."""

    roles: int
    users: int

    @classmethod
    def of(cls, size: int) -> Staff:
        """Compte les rôles (une règle `p` chacun) et les comptes (un lien `g` chacun)."""
        roles = max(1, size // 11)
        return cls(roles, size - roles)

    def role_of(self, user: int) -> int:
        """Rend le rôle d'un compte."""
        return user * self.roles // self.users

    def user_of(self, role: int) -> int:
        """Rend un compte qui tient un rôle."""
        return -(-role * self.users // self.roles)

    def links(self, *domain: str) -> list[PolicyRule]:
        """Rend les liens."""
        return [g(f"user:{user}", f"role:r{self.role_of(user)}", *domain) for user in range(self.users)]


# --- sans rôle, et RBAC ----------------------------------------------------------------------------------------------


def acl(size: int) -> World:
    """Chaque compte a ses propres règles."""
    rules = [p(f"user:{i}", f"data{i // 10}", "read") for i in range(size)]
    held, other = f"data{size // 2 // 10}", f"data{(size - 1) // 10 + 1}"
    return World(
        model_text("sub, obj, act", "r.sub == p.sub && r.obj == p.obj && r.act == p.act"),
        rules,
        _both(f"user:{size // 2}", held, other, "read"),
    )


def _both(subject: str, held: str, other: str, action: str) -> tuple[Request, ...]:
    return Request("accord", (subject, held, action), True), Request("refus", (subject, other, action), False)


RBAC_TEXT = model_text("sub, obj, act", "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act", roles=("g = _, _",))


def rbac(size: int) -> World:
    """Le modèle RBAC d'exemple de Casbin ; dix rôles lisent chaque objet, et le refus porte sur l'objet d'un autre."""
    staff = Staff.of(size)
    grants = [p(f"role:r{role}", f"data{role // 10}", "read") for role in range(staff.roles)]
    user = staff.users // 2
    held, other = f"data{staff.role_of(user) // 10}", f"data{(staff.roles - 1) // 10}"
    denied = (f"user:{user}", other, "read") if other != held else (f"user:{user}", held, "write")
    allowed = Request("accord", (f"user:{user}", held, "read"), True)
    return World(RBAC_TEXT, [*grants, *staff.links()], (allowed, Request("refus", denied, False)))


def packaged(size: int) -> World:
    """Le modèle fourni par défaut : refus, jokers, un motif pour cent règles."""
    staff = Staff.of(size - 1)
    grants = [p(f"role:r{role}", _pattern(role), "read", "allow") for role in range(staff.roles)]
    refusal = p("role:r0", "secret", "read", "deny")
    literal, covered = min(staff.roles - 1, staff.roles // 2 // 100 * 100 + 1), staff.roles // 2 // 100 * 100
    requests = (
        Request("accord", (f"user:{staff.user_of(literal)}", _below(literal), "read"), True),
        Request("accord par joker", (f"user:{staff.user_of(covered)}", _below(covered), "read"), True),
        Request("refus", (f"user:{staff.user_of(covered)}", _below(covered), "write"), False),
    )
    return World(read_packaged_model("rbac"), [*grants, *staff.links(), refusal], requests)


def _pattern(role: int) -> str:
    return f"data{role}" if role % 100 else f"data{role}:*"


def _below(role: int) -> str:
    return _pattern(role).replace("*", "note")


def resource_roles(size: int) -> World:
    """Des rôles de comptes et des rôles de ressources (`g2`)."""
    roles = max(1, size // 5)
    links = [g(f"user:{i}", f"role:r{i // 2}") for i in range(roles * 2)]
    groups = [PolicyRule("g2", (f"data{i}", f"group{i // 2}")) for i in range(roles * 2)]
    grants = [p(f"role:r{i}", f"group{i}", "read") for i in range(roles)]
    matcher = "g(r.sub, p.sub) && g2(r.obj, p.obj) && r.act == p.act"
    text = model_text("sub, obj, act", matcher, roles=("g = _, _", "g2 = _, _"))
    return World(text, [*grants, *links, *groups], _both(f"user:{roles}", f"data{roles}", f"data{2 * roles}", "read"))


# --- domaines --------------------------------------------------------------------------------------------------------

DOMAINS_TEXT = model_text(
    "sub, dom, obj, act",
    "g(r.sub, p.sub, r.dom) && r.dom == p.dom && r.obj == p.obj && r.act == p.act",
    roles=("g = _, _, _",),
    request="sub, dom, obj, act",
)


def domains(size: int) -> World:
    """RBAC avec domaines : autant de règles que de liens, cent comptes par domaine."""
    return _in_domains(DOMAINS_TEXT, size)


def packaged_domains(size: int) -> World:
    """Le modèle à domaines fourni : refus, jokers."""
    return _in_domains(read_packaged_model("rbac_with_domains"), size, "allow")


def _in_domains(text: str, size: int, *effect: str) -> World:
    half = max(1, size // 2)
    grants = [p(f"role:r{i % 100}", f"domain{i // 100}", f"data{i}", "read", *effect) for i in range(half)]
    links = [g(f"user:{i}", f"role:r{i % 100}", f"domain{i // 100}") for i in range(half)]
    user = half // 2
    here, elsewhere = f"domain{user // 100}", f"domain{0 if user >= 100 else 1}"
    requests = (
        Request("accord", (f"user:{user}", here, f"data{user}", "read"), True),
        Request("refus", (f"user:{user}", here, f"data{half}", "read"), False),
        Request("refus, autre domaine", (f"user:{user}", elsewhere, f"data{user}", "read"), False),
    )
    return World(text, [*grants, *links], requests)


# --- effets ----------------------------------------------------------------------------------------------------------


def deny_overrides(size: int) -> World:
    """Un accord par rôle, et un refus pour un rôle sur deux."""
    roles = max(2, size * 2 // 5)
    grants = [p(f"role:r{i}", f"data{i}", "read", "allow") for i in range(roles)]
    refusals = [p(f"role:r{i}", f"data{i}", "read", "deny") for i in range(1, roles, 2)]
    return World(
        model_text("sub, obj, act, eft", _RBAC_MATCHER, roles=("g = _, _",), effect=DENY_OVERRIDES),
        [*grants, *refusals, *_one_user_each(roles)],
        _even_and_odd(roles),
    )


def priority(size: int) -> World:
    """Un accord et un refus par rôle ; le plus prioritaire décide."""
    roles = max(2, size // 3)
    first = [p("10", f"role:r{i}", f"data{i}", "read", "deny" if i % 2 else "allow") for i in range(roles)]
    second = [p("20", f"role:r{i}", f"data{i}", "read", "allow" if i % 2 else "deny") for i in range(roles)]
    return World(
        model_text("priority, sub, obj, act, eft", _RBAC_MATCHER, roles=("g = _, _",), effect=PRIORITY),
        [*second, *first, *_one_user_each(roles)],
        _even_and_odd(roles),
    )


_RBAC_MATCHER = "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"


def _one_user_each(roles: int) -> list[PolicyRule]:
    return [g(f"user:{i}", f"role:r{i}") for i in range(roles)]


def _even_and_odd(roles: int) -> tuple[Request, ...]:
    even = roles // 2 // 2 * 2
    return (
        Request("accord", (f"user:{even}", f"data{even}", "read"), True),
        Request("refus", (f"user:{even + 1}", f"data{even + 1}", "read"), False),
    )


# --- motifs et conditions --------------------------------------------------------------------------------------------


def _routes(function: str, tail: str, roles: int, size: int) -> World:
    rules = [p(f"role:r{i % roles}", f"/api/v1/r{i}/{tail}", "GET") for i in range(size)]
    text = model_text(
        "sub, obj, act", f"g(r.sub, p.sub) && {function}(r.obj, p.obj) && r.act == p.act", roles=("g = _, _",)
    )
    middle = size // 2
    subject = f"user:{middle % roles}"
    requests = _both(subject, f"/api/v1/r{middle}/42", f"/api/v1/r{size}/42", "GET")
    return World(text, [*rules, *_one_user_each(roles)], requests)


def key_match(size: int) -> World:
    """Des routes `keyMatch`, réparties entre cent rôles."""
    return _routes("keyMatch", "*", min(100, size), size)


def key_match_one_role(size: int) -> World:
    """Des routes `keyMatch`, toutes au même rôle."""
    return _routes("keyMatch", "*", 1, size)


def key_match2(size: int) -> World:
    """Des routes `keyMatch2`, réparties entre cent rôles."""
    return _routes("keyMatch2", ":id", min(100, size), size)


def key_match2_one_role(size: int) -> World:
    """Des routes `keyMatch2`, toutes au même rôle."""
    return _routes("keyMatch2", ":id", 1, size)


def abac(size: int) -> World:
    """Une condition par règle (`eval`), toutes différentes et sur le même objet : un index n'y trouve rien."""
    return _conditions(size, lambda _: "data")


def abac_by_object(size: int) -> World:
    """Une condition par règle, chacune sur son objet."""
    return _conditions(size, lambda number: f"data{number}")


def _conditions(size: int, resource: Callable[[int], str]) -> World:
    rules = [p(f"r.sub.age > {i + 18} && r.sub.level == {i}", resource(i), "read") for i in range(size)]
    middle = size // 2
    asked = resource(middle)
    return World(
        model_text("sub_rule, obj, act", "eval(p.sub_rule) && r.obj == p.obj && r.act == p.act"),
        rules,
        (
            Request("accord", (Person(middle + 19, middle), asked, "read"), True),
            Request("refus", (Person(size + 19, -1), asked, "read"), False),
        ),
    )


FAMILIES: dict[str, Callable[[int], World]] = {
    "ACL": acl,
    "RBAC": rbac,
    "RBAC fourni (refus, jokers)": packaged,
    "RBAC avec domaines": domains,
    "RBAC fourni avec domaines": packaged_domains,
    "rôles de ressources (`g2`)": resource_roles,
    "le refus l'emporte": deny_overrides,
    "priorités": priority,
    "`keyMatch`": key_match,
    "`keyMatch2`": key_match2,
    "ABAC `eval(p.rule)`, un seul objet": abac,
    "ABAC `eval(p.rule)`, un objet par règle": abac_by_object,
}
