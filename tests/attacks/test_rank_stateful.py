"""Des milliers de pas au hasard : nul ne gagne par ses propres écritures, nul n'est abaissé par moindre que lui.

L'oracle ne sait rien des gardes : il pose à l'exécuteur toutes les questions d'un petit univers, avant et après chaque
pas, et lit le rang sur les mêmes règles, refus ôtés. `ACL_TEST_FULL=1` fait quinze fois plus de pas.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from uuid import UUID

import pytest

from fastapi_acl import ACLConfig, ACLManager, PolicyChange, PolicyEnforcer, PolicyRule
from fastapi_acl.auth.application.usecases.accounts import DeleteUserUseCase, SetUserActiveUseCase
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.shared.exceptions import ACLException
from fastapi_acl.shared.identity import SYSTEM, Principal
from tests.support.app import config
from tests.support.effort import effort
from tests.support.engines import strict_enforcer

STEPS = effort(240, 3_600)
"""Pas par modèle ; il y a quatorze modèles."""

AGAIN = 20
"""Pas après lesquels on repart de la politique du début."""

RULES, USERS = "/api/v1/admin/permissions/rules", "/api/v1/admin/auth/users/{user_id}"
ASKED = {
    "add": (RULES, "POST"),
    "replace": (RULES, "PUT"),
    "remove": (RULES, "DELETE"),
    "activate": (f"{USERS}/activate", "PUT"),
    "deactivate": (f"{USERS}/deactivate", "PUT"),
    "delete": (USERS, "DELETE"),
}
UNSEEN = ("/a/b/c/d/e", "unseen")
"""Ce que seul qui tient tout obtient : aucune règle ne le nomme."""

BOTH = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"
PLAIN = "aclMatch(r.obj, p.obj) && aclMatch(r.act, p.act)"


def text(
    matcher: str,
    *,
    request: str = "sub, obj, act",
    policy: str = "sub, obj, act, eft",
    roles: str = "g = _, _",
    effect: str = BOTH,
) -> str:
    parts = (f"[request_definition]\nr = {request}", f"[policy_definition]\np = {policy}")
    return "\n".join(
        [*parts, f"[role_definition]\n{roles}", f"[policy_effect]\ne = {effect}", f"[matchers]\nm = {matcher}\n"]
    )


DOMAINS = {"request": "sub, dom, obj, act", "policy": "sub, dom, obj, act, eft", "roles": "g = _, _, _"}
CUSTOM = {
    "un domaine constant": text(f'g(r.sub, p.sub, "*") && aclMatch(r.dom, p.dom) && {PLAIN}', **DOMAINS),
    "l'objet pour domaine": text(f"g(r.sub, p.sub, r.obj) && aclMatch(r.dom, p.dom) && {PLAIN}", **DOMAINS),
    "des règles sans domaine": text(
        f"g(r.sub, p.sub, r.dom) && {PLAIN}", request="sub, dom, obj, act", roles="g = _, _, _"
    ),
    "des domaines égaux": text(f"g(r.sub, p.sub, r.dom) && r.dom == p.dom && {PLAIN}", **DOMAINS),
    "des priorités": text(
        f"g(r.sub, p.sub) && {PLAIN}", policy="priority, sub, obj, act, eft", effect="priority(p.eft) || deny"
    ),
    "sans effet": text(f"g(r.sub, p.sub) && {PLAIN}", policy="sub, obj, act", effect="some(where (p.eft == allow))"),
    "des groupes de ressources": text(
        "g(r.sub, p.sub) && (g2(r.obj, p.obj) || aclMatch(r.obj, p.obj)) && aclMatch(r.act, p.act)",
        roles="g = _, _\ng2 = _, _",
    ),
    "des routes à motifs": text(
        'g(r.sub, p.sub) && keyMatch2(r.path, p.path) && (r.method == p.method || p.method == "*")',
        request="sub, path, method",
        policy="sub, path, method, eft",
    ),
    "des sujets à motifs": text(f"(g(r.sub, p.sub) || keyMatch(r.sub, p.sub)) && {PLAIN}"),
}
MODELS = ["rbac", "rbac_with_domains", "abac", "acl", "rest", *CUSTOM]
NAMES = ("root", "peer", "ada", "bob", "eve")

Power = set[tuple[tuple[str, str], str]]
"""Ce qu'un compte peut : des couples de ressource et d'action, dans un domaine."""


@dataclass
class World:
    """Une application, ses comptes, et l'univers des questions que l'oracle pose."""

    manager: ACLManager
    random: random.Random
    ids: dict[str, str] = field(default_factory=dict)
    start: tuple[PolicyRule, ...] = ()
    outcomes: Counter[str] = field(default_factory=Counter)

    # --- questions ---

    @property
    def enforcer(self) -> PolicyEnforcer:
        return self.manager.get_enforcer()

    @property
    def is_routed(self) -> bool:
        return self.enforcer.policy.schema.decides_on_routes

    @property
    def domains(self) -> tuple[str, ...]:
        return ("*", "acme") if self.enforcer.policy.schema.has_domains else ("*",)

    @property
    def administration(self) -> list[tuple[str, str]]:
        named = product(("acl.rules", "acl.users"), ("read", "write"))
        return [*(ASKED.values() if self.is_routed else named), UNSEEN]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        if self.is_routed:
            return [*self.administration, ("/documents", "GET"), ("/documents/{name}", "GET")]
        return [*self.administration, *product(("document", "document:1"), ("read", "write"))]

    def asks(self, enforcer: PolicyEnforcer, account: str, pair: tuple[str, str], domain: str) -> bool:
        known = {"dom": domain, "obj": pair[0], "path": pair[0], "act": pair[1], "method": pair[1]}
        known["sub"] = Principal(id=account).subject
        return enforcer.enforce(*(known[name] for name in enforcer.policy.schema.request))

    def power(self, account: str) -> Power:
        """Rend tout ce qu'un compte peut, refus compris."""
        asked = product(self.pairs, self.domains)
        return {(pair, domain) for pair, domain in asked if self.asks(self.enforcer, account, pair, domain)}

    def ranks(self) -> dict[str, set[tuple[str, str]]]:
        """Rend ce que chaque compte tient de l'administration, sur les mêmes règles sans leurs refus."""
        kept = strict_enforcer(self.enforcer.model.blank(), share_domains=self.shares)
        kept.policy.install(
            rule for rule in self.enforcer.policy.rules if not (rule.section == "p" and "deny" in rule.values)
        )
        found = {
            name: [p for p in self.administration if self.asks(kept, one, p, "*")] for name, one in self.ids.items()
        }
        return {name: set(pairs) for name, pairs in found.items()}

    @property
    def shares(self) -> bool:
        return self.enforcer.policy.schema.shares_domains

    async def active(self) -> set[str]:
        known = await self.manager.get_auth_repository().active_ids(list(self.ids.values()))
        return {name for name, one in self.ids.items() if one in known}

    # --- règles ---

    def rule(self, ptype: str, **values: str) -> PolicyRule:
        known = {"dom": "*", "eft": "allow", "scope": "*", "priority": "5", **values}
        known |= {"path": known.get("obj", ""), "method": known.get("act", "")}
        return PolicyRule(ptype, tuple(known[name] for name in self.enforcer.policy.schema.fields[ptype]))

    def link(self, member: str, role: str, domain: str = "*") -> PolicyRule:
        return PolicyRule("g", (member, role, domain)[: self.enforcer.policy.schema.links["g"]])

    def some(self) -> PolicyRule:
        """Rend une règle au hasard ; elle peut viser plus haut que son auteur."""
        pick, links = self.random.choice, self.enforcer.policy.schema.links
        subjects = [f"user:{one}" for one in self.ids.values()] + ["role:admin", "role:a", "role:b"]
        if "g2" in links and self.random.random() < 0.1:
            return PolicyRule("g2", (pick(["acl.rules", "document"]), "sys"))
        if "g" in links and self.random.random() < 0.4:
            return self.link(pick(subjects), pick(["role:admin", "role:a", "role:b"]), pick(self.domains))
        pair = pick(
            [
                *(known for known in self.pairs[:-1] if known != UNSEEN),
                ("/*" if self.is_routed else "*", pick(["*", "read", "GET"])),
                ("document:*", "read"),
            ]
        )
        effect = pick(["allow", "allow", "deny"])
        values = {"obj": pair[0], "act": pair[1], "dom": pick(self.domains), "eft": effect, "scope": pick(["*", "own"])}
        return self.rule("p", sub=pick(subjects), priority=pick(["1", "5", "9"]), **values)

    async def restart(self) -> None:
        """Revient aux règles du début, tous les comptes actifs, comme la ligne de commande le ferait."""
        now, wanted = set(self.enforcer.policy.rules), set(self.start)
        change = PolicyChange(tuple(sorted(wanted - now)), tuple(sorted(now - wanted)))
        if change:
            await self.manager.get_policy_store().change(change, SYSTEM)
        users = self.manager.get_auth_repository()
        for one in set(self.ids.values()) - await users.existing_ids(list(self.ids.values())):
            await users.create_user(account(one))
        for name in set(self.ids) - await self.active():
            await self.manager.provide(SetUserActiveUseCase).execute(UUID(self.ids[name]), active=True, actor=SYSTEM)

    def beginning(self) -> tuple[PolicyRule, ...]:
        """Rend une politique où deux comptes tiennent tout, deux administrent en partie, et un n'administre pas."""
        users = {name: f"user:{one}" for name, one in self.ids.items()}
        whole = "/*" if "keyMatch2" in self.enforcer.policy.schema.matcher else "*"
        has_roles = "g" in self.enforcer.policy.schema.links
        by_role = has_roles and "p_sub, r_obj" not in self.enforcer.policy.schema.matcher
        tops = ["role:admin"] if by_role else [users["root"], users["peer"]]
        writes, desks = (ASKED["add"], ASKED["remove"], ASKED["replace"]), (ASKED["deactivate"], ASKED["delete"])
        if not self.is_routed:
            writes, desks = (("acl.rules", "write"),), (("acl.users", "write"),)  # type: ignore[assignment]
        rules = [self.rule("p", sub=top, obj=whole, act="*") for top in tops]
        rules += [
            self.rule("p", sub=users["ada"], obj=obj, act=act) for obj, act in (*writes, self.pairs[-1], self.pairs[-2])
        ]
        rules += [self.rule("p", sub=users["bob"], obj=obj, act=act) for obj, act in (*desks, *writes)]
        rules += [self.rule("p", sub=users["eve"], obj=self.pairs[-1][0], act=self.pairs[-1][1])]
        if has_roles:
            rules += [
                self.rule("p", sub=role, obj=self.pairs[-2][0], act=self.pairs[-2][1]) for role in ("role:a", "role:b")
            ]
            places = self.domains if self.enforcer.policy.schema.links["g"] > 2 else ("*",)
            rules += [self.link(users[name], "role:admin", place) for name in ("root", "peer") for place in places]
            rules += [self.link(users[name], "role:a") for name in ("root", "ada", "eve")]
        if "eft" in self.enforcer.policy.schema.fields["p"]:
            refused = {"obj": self.pairs[-2][0], "act": self.pairs[-2][1], "eft": "deny", "priority": "1"}
            rules.append(self.rule("p", sub=users["ada"], **refused))
        return tuple(dict.fromkeys(rules))

    # --- un pas ---

    async def step(self) -> None:
        """Laisse un compte actif tenter quelque chose, puis vérifie ce qui ne doit jamais arriver."""
        actives = await self.active()
        actor = self.random.choice(sorted(actives - {"eve"} or actives))
        before = {name: self.power(one) for name, one in self.ids.items()}
        ranks, rules = self.ranks(), set(self.enforcer.policy.rules)
        kind = self.random.choice(("add", "add", "remove", "replace", "activate", "deactivate", "delete"))
        target, change = self.random.choice(NAMES), self.change(kind)
        try:
            await self.attempt(kind, Principal(id=self.ids[actor], asked=ASKED[kind]), change, target)
        except ACLException as error:
            self.outcomes[error.code] += 1
            assert set(self.enforcer.policy.rules) == rules
            return
        self.outcomes[kind] += 1
        told = f"{actor} {kind} {change or target}"
        after = {name: self.power(one) for name, one in self.ids.items()}
        left = await self.active() if not change else actives
        for name in NAMES:
            gained = after[name] - before[name] - before[actor]
            assert UNSEEN in ranks[actor] or not gained, f"{told} : {name} gagne {gained}"
            is_above = not ranks[name] <= ranks[actor]
            assert not is_above or (before[name] <= after[name] and (name in left or name not in actives)), (
                f"{told} : {name}"
            )
        await self.check_mending(told, actor, change, before, after, left)
        assert any(UNSEEN in self.ranks()[name] for name in left), f"{told} : plus personne ne tient tout"

    async def check_mending(
        self,
        told: str,
        actor: str,
        change: PolicyChange,
        before: dict[str, Power],
        after: dict[str, Power],
        left: set[str],
    ) -> None:
        """Vérifie que qui tient tout peut encore administrer, et lever ce qu'un pair vient de refuser."""
        administered = {(pair, "*") for pair in self.administration[:-1]}
        whole = [name for name, rank in self.ranks().items() if UNSEEN in rank and name in left]
        for name in whole:
            lost = (before[name] - after[name]) & administered
            assert not lost, f"{told} : {name} tient tout mais ne peut plus {lost}"
        denies = tuple(rule for rule in change.added if rule.section == "p" and "deny" in rule.values)
        able = [name for name in whole if name != actor and administered <= after[name]]
        if denies and able:
            mender = Principal(id=self.ids[able[0]], asked=ASKED["remove"])
            await self.manager.get_policy_store().change(PolicyChange(removed=denies), mender)
            self.outcomes["mended"] += 1

    def change(self, kind: str) -> PolicyChange:
        rules = sorted(self.enforcer.policy.rules)
        some = tuple(dict.fromkeys(self.some() for _ in range(self.random.choice((1, 1, 2)))))
        gone = tuple(self.random.sample(rules, 1))
        if kind == "replace":
            return (
                PolicyChange(some[:1], gone)
                if some[0].ptype == gone[0].ptype and some[0] != gone[0]
                else PolicyChange(some)
            )
        return {"add": PolicyChange(some), "remove": PolicyChange(removed=gone)}.get(kind, PolicyChange())

    async def attempt(self, kind: str, actor: Principal, change: PolicyChange, target: str) -> None:
        user = UUID(self.ids[target])
        if change:
            await self.manager.get_policy_store().change(change, actor)
        elif kind == "delete":
            await self.manager.provide(DeleteUserUseCase).execute(user, actor=actor)
        else:
            await self.manager.provide(SetUserActiveUseCase).execute(user, active=kind == "activate", actor=actor)


def account(one: str) -> AuthUser:
    return AuthUser(id=UUID(one), username=f"u{one[:12]}", email=f"{one[:12]}@example.com", hashed_password="-")


def settings(name: str, folder: Path) -> ACLConfig:
    if name not in CUSTOM:
        return config(model=name, sqlite_uri=f"sqlite:///{folder}/a.db", create_default_admin=False)
    path = folder / "m.conf"
    path.write_text(CUSTOM[name], encoding="utf-8")
    more = {"shared_domain": ""} if "shared_domain" in ACLConfig.model_fields else {}
    return config(model_path=path, sqlite_uri=f"sqlite:///{folder}/a.db", create_default_admin=False, **more)


@asynccontextmanager
async def world(name: str, folder: Path, seed: Sequence[object]) -> AsyncIterator[World]:
    manager = ACLManager(settings(name, folder))
    await manager.initialize()
    try:
        made = World(manager, random.Random(repr(seed)))
        for person in NAMES:
            made.ids[person] = str(UUID(int=made.random.getrandbits(128)))
            await manager.get_auth_repository().create_user(account(made.ids[person]))
        made.start = made.beginning()
        yield made
    finally:
        await manager.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
async def test_no_power_grows_and_nobody_above_is_lowered(name: str, tmp_path: Path) -> None:
    async with world(name, tmp_path, (name, 1)) as here:
        for turn in range(STEPS):
            if not turn % AGAIN:
                await here.restart()
            await here.step()

    assert here.outcomes["escalation_refused"] > STEPS / 20
    assert here.outcomes["add"] + here.outcomes["remove"] > STEPS / 20
