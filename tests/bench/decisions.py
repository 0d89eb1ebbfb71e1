"""Une décision RBAC : à toutes les tailles, puis à côté de ce qui se fait ailleurs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.bench import peers
from tests.bench.timing import Amount, Row, Scale, at_most, faster, seconds_over, seconds_per_call
from tests.bench.worlds import RBAC_TEXT, Request, Staff, World, acl, rbac

HOT = at_most(1e-6)
RANDOM = at_most(3e-6)
FLAT = at_most(1.5, "fois")
AGAINST_STOCK = {1_100: 400, 11_000: 4_000, 110_000: 40_000}
AGAINST_ACL = 30
AGAINST_FAST = 100
AGAINST_OSO = 40
AGAINST_CEDAR = 10_000
RANDOM_REQUESTS = 100_000


def sizes(scale: Scale) -> Iterator[Row]:
    """La même question posée sans cesse, à chaque taille ; puis des comptes au hasard dans la plus grande."""
    measured: dict[str, list[float]] = {}
    for size in scale.sizes:
        world = rbac(size)
        enforcer, plain = peers.ours(world), peers.by_hand(world)
        for request in world.requests:
            mine = seconds_per_call(enforcer.enforce, request.values, scale)
            floor = seconds_per_call(plain, request.values, scale)
            measured.setdefault(request.label, []).append(mine.value)
            yield Row(f"RBAC, {request.label}, même question", size, mine, peers.BY_HAND, floor, HOT)
        if size == scale.largest:
            yield _random(enforcer.enforce, plain, size, scale)
        del world, enforcer, plain
    for label, found in measured.items():
        spread = Amount(found[-1] / found[0], "fois")
        yield Row(f"RBAC, {label}, la plus grande sur la plus petite", None, spread, target=FLAT)
    yield _probe(scale)


def _random(mine: peers.Decide, plain: peers.Decide, size: int, scale: Scale) -> Row:
    """Des comptes au hasard, dont la moitié ont droit à ce qu'ils demandent ; les textes sont neufs à chaque tour."""
    draw = random.Random(size)
    count = min(RANDOM_REQUESTS, size)
    for arguments in _questions(size, 2_000, draw):
        assert mine(*arguments) == plain(*arguments)
    times = [seconds_over(call, lambda: _questions(size, count, draw), scale) for call in (mine, plain)]
    return Row("RBAC, comptes au hasard", size, times[0], peers.BY_HAND, times[1], RANDOM)


def _questions(size: int, count: int, draw: random.Random) -> list[tuple[str, str, str]]:
    staff = Staff.of(size)
    found = []
    for turn in range(count):
        user = draw.randrange(staff.users)
        role = staff.role_of(user) if turn % 2 else draw.randrange(staff.roles)
        found.append((f"user:{user}", f"data{role // 10}", "read"))
    return found


def _probe(scale: Scale) -> Row:
    known = {(f"role:r{i}", f"data{i}", "read"): True for i in range(110_000)}
    floor = seconds_per_call(known.get, (("role:r5", "data5", "read"),), scale)
    return Row("plancher : chercher un tuple dans un dictionnaire", 110_000, None, "`dict.get`", floor)


def neighbours(scale: Scale) -> Iterator[Row]:
    """À côté de pycasbin, de son `FastEnforcer`, d'Oso et de Cedar."""
    yield from _beside(acl(1_000), "ACL", 1_000, [(peers.STOCK, peers.stock, AGAINST_ACL)], scale)
    for size in (found for found in scale.sizes if 2 < found <= scale.compared):
        known = [
            (peers.STOCK, peers.stock, AGAINST_STOCK[size]),
            ("`FastEnforcer` de pycasbin", peers.fast, AGAINST_FAST),
        ]
        world = rbac(size)
        yield from _beside(world, "RBAC", size, known, scale)
        yield _oso(world, size, scale)
    yield _cedar(rbac(scale.compared), scale.compared, scale)


def _beside(
    world: World, label: str, size: int, known: Sequence[tuple[str, Callable[[World], Any], float]], scale: Scale
) -> Iterator[Row]:
    """Mesure les deux réponses à côté de chaque pair ; la cible porte sur le refus, qui parcourt tout."""
    enforcer = peers.ours(world)
    for name, build, ratio in known:
        other = build(world)
        for request in world.requests:
            mine = seconds_per_call(enforcer.enforce, request.values, scale)
            theirs = seconds_per_call(other.enforce, request.values, scale)
            target = None if request.allowed else faster(ratio)
            yield Row(f"{label}, {request.label}", size, mine, name, theirs, target)


def _oso(world: World, size: int, scale: Scale) -> Row:
    return _foreign("Oso", peers.oso, peers.oso_arguments, AGAINST_OSO, world, size, scale)


def _cedar(world: World, size: int, scale: Scale) -> Row:
    return _foreign("Cedar (cedarpy)", peers.cedar, peers.cedar_arguments, AGAINST_CEDAR, world, size, scale)


def _foreign(
    name: str,
    build: Callable[[World], peers.Decide],
    arguments: Callable[[tuple[Any, ...]], tuple[Any, ...]],
    ratio: float,
    world: World,
    size: int,
    scale: Scale,
) -> Row:
    """Mesure un refus à côté d'une bibliothèque facultative."""
    denied = world.requests[-1]
    mine = seconds_per_call(peers.ours(world).enforce, denied.values, scale)
    try:
        decide = build(world)
    except peers.NotInstalledError as reason:
        return Row("RBAC, refus", size, mine, name, None, faster(ratio), str(reason))
    _check(decide, arguments, world.requests)
    theirs = seconds_per_call(decide, arguments(denied.values), scale)
    return Row("RBAC, refus", size, mine, name, theirs, faster(ratio))


def _check(
    decide: peers.Decide, arguments: Callable[[tuple[Any, ...]], tuple[Any, ...]], requests: tuple[Request, ...]
) -> None:
    """Vérifie les réponses d'un pair, et qu'il parle bien du modèle RBAC."""
    for request in requests:
        assert decide(*arguments(request.values)) == request.allowed, (RBAC_TEXT, request)
