"""Un changement en mémoire : son coût ne dépend pas de la taille de la politique."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastapi_acl import PolicyChange, PolicyEnforcer, PolicyRule
from tests.bench import peers
from tests.bench.timing import Amount, Row, Scale, at_most, number, stopwatch
from tests.bench.worlds import Staff, World, g, p, rbac

ONE = at_most(20e-6)
LINEAR = at_most(2, "fois")
TIMES = 1_000
STOCK_TIMES = 5
BATCHES = (100, 1_000, 10_000)
Make = Callable[[int], PolicyRule]


def changes(scale: Scale) -> Iterator[Row]:
    """Une règle, un lien, un lien entre rôles ; puis des lots."""
    world = rbac(scale.largest)
    enforcer = peers.ours(world)
    stock = peers.stock(rbac(scale.compared))
    staff, small = Staff.of(scale.largest), Staff.of(scale.compared)
    for label, make, make_small in (
        ("une règle `p`", _grants(staff), _grants(small)),
        ("un lien `g`", _links(staff), _links(small)),
        ("un lien entre deux rôles", _hierarchy(staff), _hierarchy(small)),
    ):
        mine, theirs = _each(enforcer, make, scale), _stock_each(stock, make_small)
        peer = f"{peers.STOCK}, {number(scale.compared)} règles"
        for verb, spent, reference in zip(("ajouter", "retirer"), mine, theirs, strict=True):
            yield Row(f"{verb} {label}", scale.largest, spent, peer, reference, ONE)
    yield _followed(enforcer, world, scale)
    yield from _batches(enforcer, staff, scale)


def _grants(staff: Staff) -> Make:
    return lambda turn: p(f"role:r{turn * 7 % staff.roles}", f"new{turn}", "read")


def _links(staff: Staff) -> Make:
    return lambda turn: g(f"user:{turn * 7 % staff.users}", f"role:new{turn}")


def _hierarchy(staff: Staff) -> Make:
    return lambda turn: g(f"role:r{turn % staff.roles}", f"role:above{turn}")


def _each(enforcer: PolicyEnforcer, make: Make, scale: Scale) -> tuple[Amount, Amount]:
    """Rend le coût d'un ajout et celui d'un retrait, chacun par une règle à la fois."""
    rules = [make(turn) for turn in range(TIMES)]
    added, removed = _rounds(
        scale,
        _applying(enforcer, [PolicyChange(added=(rule,)) for rule in rules]),
        _applying(enforcer, [PolicyChange(removed=(rule,)) for rule in rules]),
    )
    return Amount(added / TIMES), Amount(removed / TIMES)


def _rounds(scale: Scale, *steps: Callable[[], object]) -> list[float]:
    """Rend la durée médiane de chaque étape, toutes refaites à chaque tour."""
    samples: list[list[float]] = [[] for _ in steps]
    for _ in range(scale.rounds):
        for step, kept in zip(steps, samples, strict=True):
            with stopwatch(kept):
                step()
    return [statistics.median(kept) for kept in samples]


def _applying(enforcer: PolicyEnforcer, wanted: Sequence[PolicyChange]) -> Callable[[], None]:
    def step() -> None:
        apply = enforcer.policy.apply
        for change in wanted:
            apply(change)

    return step


def _stock_each(stock: Any, make: Make) -> tuple[Amount, Amount]:
    """Fait de même par les méthodes publiques de pycasbin, quelques fois : il relit toute la liste."""
    rules = [make(turn) for turn in range(STOCK_TIMES)]

    async def every(method: str) -> None:
        for rule in rules:
            named = "named_policy" if rule.section == "p" else "named_grouping_policy"
            assert await getattr(stock, f"{method}_{named}")(rule.ptype, *rule.values)

    samples: list[float] = []
    for method in ("add", "remove"):
        with stopwatch(samples):
            asyncio.run(every(method))
    return Amount(samples[0] / STOCK_TIMES), Amount(samples[1] / STOCK_TIMES)


def _followed(enforcer: PolicyEnforcer, world: World, scale: Scale) -> Row:
    """Ajoute un lien, décide, le retire, décide : un changement ne renvoie pas sa dépense à la décision suivante."""
    subject, resource, action = world.requests[0].values
    other = g(subject, "role:elsewhere")
    there, back = PolicyChange(added=(other,)), PolicyChange(removed=(other,))

    def step() -> None:
        for _ in range(TIMES):
            enforcer.policy.apply(there)
            enforcer.enforce(subject, resource, action)
            enforcer.policy.apply(back)
            enforcer.enforce(subject, resource, action)

    (spent,) = _rounds(scale, step)
    return Row("changer un lien puis décider", scale.largest, Amount(spent / TIMES / 2), target=ONE)


def _batches(enforcer: PolicyEnforcer, staff: Staff, scale: Scale) -> Iterator[Row]:
    """Des lots de plus en plus grands : chaque règle coûte autant."""
    costs = []
    for count in BATCHES:
        rules = tuple(map(_grants(staff), range(count // 2))) + tuple(map(_links(staff), range(count // 2)))
        there, back = PolicyChange(added=rules), PolicyChange(removed=rules)
        turns = BATCHES[-1] // count
        (spent,) = _rounds(scale, _applying(enforcer, [there, back] * turns))
        costs.append(spent / turns / count / 2)
        label = f"une règle d'un lot de {number(count)}, ajout et retrait confondus"
        yield Row(label, scale.largest, Amount(costs[-1]))
    spread = Amount(max(costs) / min(costs), "fois")
    yield Row("le lot le plus cher sur le moins cher, par règle", scale.largest, spread, target=LINEAR)
