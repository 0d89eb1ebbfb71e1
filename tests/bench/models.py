"""Les autres modèles : ce que l'index cherche d'emblée, les motifs, les conditions ; puis tous, à cinq règles."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastapi_acl import PolicyEnforcer
from tests.bench import peers
from tests.bench.timing import NEVER_SLOWER, Row, Scale, Target, at_most, seconds_per_call
from tests.bench.worlds import (
    FAMILIES,
    World,
    abac,
    abac_by_object,
    deny_overrides,
    domains,
    key_match,
    key_match2,
    key_match2_one_role,
    key_match_one_role,
    packaged,
    packaged_domains,
    priority,
    resource_roles,
)

PACKAGED = at_most(3e-6)
INDEXED = at_most(2e-6)
ROUTES = at_most(20e-6)
CONDITIONS = at_most(40e-6)
FEW = 5

CASES: tuple[tuple[str, Callable[[int], World], int, Target], ...] = (
    ("RBAC fourni (refus, jokers)", packaged, 110_000, PACKAGED),
    ("RBAC avec domaines", domains, 20_000, INDEXED),
    ("RBAC fourni avec domaines", packaged_domains, 20_000, PACKAGED),
    ("rôles de ressources (`g2`)", resource_roles, 10_000, INDEXED),
    ("le refus l'emporte", deny_overrides, 10_000, INDEXED),
    ("priorités", priority, 10_000, INDEXED),
    ("`keyMatch`, cent rôles", key_match, 1_000, ROUTES),
    ("`keyMatch`, un seul rôle", key_match_one_role, 1_000, ROUTES),
    ("`keyMatch2`, cent rôles", key_match2, 1_000, ROUTES),
    ("`keyMatch2`, un seul rôle", key_match2_one_role, 1_000, ROUTES),
    ("ABAC `eval(p.rule)`, un seul objet", abac, 1_000, CONDITIONS),
    ("ABAC `eval(p.rule)`, un objet par règle", abac_by_object, 1_000, CONDITIONS),
)


def families(scale: Scale) -> Iterator[Row]:
    """Chaque famille de modèles à sa taille, à côté de pycasbin."""
    for label, build, size, target in CASES:
        count = min(size, scale.compared)
        world = build(count)
        yield from _beside(label, world, peers.ours(world), count, target, scale)


def few(scale: Scale) -> Iterator[Row]:
    """Chaque famille à cinq règles, là où pycasbin est à son avantage ; par l'exécuteur nu, qui prend sa place."""
    for label, build in FAMILIES.items():
        world = build(FEW)
        yield from _beside(label, world, peers.bare(world), FEW, NEVER_SLOWER, scale)


def _beside(label: str, world: World, mine: PolicyEnforcer, size: int, target: Target, scale: Scale) -> Iterator[Row]:
    theirs = peers.stock(world)
    for request in world.requests:
        spent = seconds_per_call(mine.enforce, request.values, scale)
        reference = seconds_per_call(theirs.enforce, request.values, scale)
        yield Row(f"{label}, {request.label}", size, spent, peers.STOCK, reference, target)
