"""Ce qu'un appelant choisit : des valeurs longues, beaucoup de questions, et la place d'un administrateur."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi_acl import PolicyEnforcer, Principal
from fastapi_acl.permissions.application.usecases.check_permissions import CheckPermissionsUseCase
from fastapi_acl.permissions.domain.dtos.check import CheckDTO
from tests.bench import peers
from tests.bench.timing import Amount, Row, Scale, Target, at_most, seconds_per_call
from tests.bench.worlds import ALLOW, DENY_OVERRIDES, PRIORITY, World, g, model_text, p, packaged, packaged_domains

RULE_LENGTH = at_most(10e-6)
ANY_LENGTH = at_most(100e-6)
FLAT = at_most(1.5, "fois")
HELD = at_most(0.020)
BEAT = 0.001
IDLE_SECONDS = 1.0
CHECKS = 1_000
ROUNDS = 5
FEW, MANY = 500, 8_000

LENGTHS: tuple[tuple[int, Target], ...] = ((250, RULE_LENGTH), (4_096, ANY_LENGTH))
FILLINGS = {"« : »": ":", "« a: »": "a:", "« / »": "/", "« /a »": "/a"}
ROUTES = {
    "keyMatch2, `/:id/x…`": ("keyMatch2", "/:id/x{}"),
    "keyMatch2, `/*/x…/*`": ("keyMatch2", "/*/x{}/*"),
    "keyMatch3, `/{a}-x…`": ("keyMatch3", "/{{a}}-x{}"),
    "keyMatch4, `/{a}/{a}/x…`": ("keyMatch4", "/{{a}}/{{a}}/x{}"),
    "globMatch, `**/x…`": ("globMatch", "**/x{}"),
}
HOLDS = "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"
SUPER = {
    "`g(r.sub, admin) || …`": f'g(r.sub, "role:admin") || {HOLDS}',
    "`… || g(r.sub, admin)`": f'{HOLDS} || g(r.sub, "role:admin")',
    "`r.sub == root || …`": f'r.sub == "user:root" || {HOLDS}',
    "une fonction de la requête": f"isRoot(r.sub) || {HOLDS}",
    "`p.sub == * || p.sub == r.sub`": '(p.sub == "*" || p.sub == r.sub) && (r.obj == p.obj || p.obj == "*")',
}
EFFECTS = {"accord": ALLOW, "refus": DENY_OVERRIDES, "priorité": PRIORITY}


def rows(scale: Scale) -> Iterator[Row]:
    """Les valeurs longues, les questions en nombre, puis les super-administrateurs."""
    yield from _values(scale)
    yield from _routes(scale)
    yield from _checks(scale)
    yield from _supers(scale)


def _values(scale: Scale) -> Iterator[Row]:
    """Une décision sur les modèles fournis, à côté de la même sur une valeur courte."""
    for label, build in (("RBAC fourni", packaged), ("RBAC fourni avec domaines", packaged_domains)):
        world = build(scale.compared)
        enforcer, usual = peers.ours(world), world.requests[-1].values
        short = seconds_per_call(enforcer.enforce, usual, scale)
        for length, target in LENGTHS:
            yield from _filled(label, enforcer, usual, scale.compared, length, target, short, scale)


def _filled(
    label: str,
    enforcer: PolicyEnforcer,
    usual: tuple[Any, ...],
    size: int | None,
    length: int,
    target: Target,
    short: Amount,
    scale: Scale,
) -> Iterator[Row]:
    for name, filling in FILLINGS.items():
        value = (filling * length)[:length]
        spent = seconds_per_call(enforcer.enforce, (usual[0], *[value] * (len(usual) - 1)), scale)
        yield Row(f"{label}, {name} sur {length} caractères", size, spent, "une valeur courte", short, target)


def _routes(scale: Scale) -> Iterator[Row]:
    """Cent motifs de même début, tenus par un seul rôle."""
    for label, (function, made) in ROUTES.items():
        text = model_text("sub, obj, act", f"g(r.sub, p.sub) && {function}(r.obj, p.obj)", roles=("g = _, _",))
        rules = [p("role:a", made.format(place), "read") for place in range(100)]
        enforcer = peers.ours(World(text, [*rules, g("user:1", "role:a")], ()))
        usual = ("user:1", "/x/y/z", "read")
        short = seconds_per_call(enforcer.enforce, usual, scale)
        for length, target in LENGTHS:
            yield from _filled(label, enforcer, usual, 100, length, target, short, scale)


# --- mille questions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """Ce que le cas d'usage demande, sur un exécuteur."""

    enforcer: PolicyEnforcer
    has_domains: bool = False
    revision: int = 1

    def decide(self, principal: Principal, resource: str, action: str, _: str | None = None) -> bool:
        """Pose une question."""
        return self.enforcer.enforce(principal.subject, resource, action)


def _checks(scale: Scale) -> Iterator[Row]:
    """Mille questions d'un coup : le pire retard d'une coroutine qui s'éveille chaque milliseconde."""
    asked = Asked(peers.ours(packaged(scale.compared)))
    for name, filling in FILLINGS.items():
        value = (filling * 4_096)[:4_096]
        idle, busy = asyncio.run(_held(asked, [CheckDTO(value, value)] * CHECKS))
        label = f"{CHECKS} questions, {name} sur 4096 caractères, pire retard"
        yield Row(label, scale.compared, Amount(busy), "au repos (témoin)", Amount(idle), HELD)


async def _held(asked: Any, checks: list[CheckDTO]) -> tuple[float, float]:
    """Rend le pire retard au repos, puis pendant les questions."""
    late: list[float] = []
    beat = asyncio.create_task(_beat(late))
    await asyncio.sleep(IDLE_SECONDS)
    idle = max(late)
    late.clear()
    for _ in range(ROUNDS):
        await CheckPermissionsUseCase(authorizer=asked, revisions=asked).execute(Principal(id="1"), checks)
        await asyncio.sleep(2 * BEAT)
    beat.cancel()
    return idle, max(late)


async def _beat(late: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(BEAT)
        late.append(time.perf_counter() - began - BEAT)


# --- super-administrateurs --------------------------------------------------------------------------------------------


def _supers(scale: Scale) -> Iterator[Row]:
    """Chaque matcher à huit mille règles, à côté du même à cinq cents ; un administrateur, un membre, un inconnu."""
    for label, matcher in SUPER.items():
        for effect, text in EFFECTS.items():
            few, many = [_super(matcher, text, size) for size in (FEW, MANY)]
            for who, request in (
                ("administrateur", ("user:root", "data1", "read")),
                ("membre", ("user:1", "data15", "read")),
                ("inconnu", ("user:x", "data15", "read")),
            ):
                small, large = [seconds_per_call(one.enforce, request, scale) for one in (few, many)]
                yield Row(f"{label}, {effect}, {who}", MANY, large, f"à {FEW} règles", small)
                spread = Amount(large.value / small.value, "fois")
                yield Row(f"{label}, {effect}, {who}, {MANY} sur {FEW}", None, spread, target=FLAT)


def _super(matcher: str, effect: str, size: int) -> PolicyEnforcer:
    """Une politique de cette taille, dont une règle refuse."""
    text = model_text("sub, obj, act, eft", matcher, roles=("g = _, _",), effect=effect)
    actions = ("write", "read")
    rules = [p(f"role:r{place // 10}", f"data{place}", actions[place % 2], "allow") for place in range(size)]
    links = [g(f"user:{place}", f"role:r{place}") for place in range(20)]
    links.append(g("user:root", "role:admin"))
    enforcer = peers.ours(World(text, [], ()))
    enforcer.add_function("isRoot", lambda subject: subject == "user:root")
    enforcer.policy.install([*rules, p("role:nobody", "nothing", "never", "deny"), *links])
    return enforcer
