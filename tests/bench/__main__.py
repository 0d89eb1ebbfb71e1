"""Mesure le moteur à côté de pycasbin, dans la même exécution, et écrit `docs/performances.md`.

Chaque ligne est la médiane de plusieurs tours ; le dictionnaire nu donne le plancher de la machine.
"""

from __future__ import annotations

import asyncio
import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from casbin import AsyncEnforcer
from casbin.model import Model

from fastapi_acl import PolicyChange, PolicyEnforcer, PolicyRule
from fastapi_acl.engine.matching import acl_match
from fastapi_acl.engine.schema import packaged_model_text

PAGE = Path(__file__).parents[2] / "docs/performances.md"
ROUNDS = 7
SIZES = (1_100, 11_000, 110_000)

PLAIN = (
    packaged_model_text("rbac")
    .replace("aclMatch(r.obj, p.obj)", "r.obj == p.obj")
    .replace("aclMatch(r.act, p.act)", "r.act == p.act")
)
"""RBAC sans jokers : le modèle d'exemple de Casbin, avec refus."""

MODELS = {"RBAC, égalités": PLAIN, "RBAC fourni (jokers, refus)": packaged_model_text("rbac")}


def world(size: int) -> list[PolicyRule]:
    """Dix comptes par rôle, un rôle par règle, comme les mesures de Casbin ; un rôle sur cent tient un joker."""
    roles = size // 11
    rules = [PolicyRule("p", (f"role:r{i}", _resource(i), "read", "allow")) for i in range(roles)]
    links = [PolicyRule("g", (f"user:{i}", f"role:r{i // 10}")) for i in range(roles * 10)]
    return [*rules, *links, PolicyRule("p", ("role:r0", "secret", "read", "deny"))]


def _resource(number: int) -> str:
    return f"data{number // 10}:*" if number % 100 == 7 else f"data{number // 10}"


def stock(text: str, rules: list[PolicyRule]) -> AsyncEnforcer:
    model = Model()
    model.load_model_from_text(text)
    enforcer = AsyncEnforcer(model)
    enforcer.add_function("aclMatch", acl_match)
    for rule in rules:
        enforcer.model[rule.section][rule.ptype].policy.append(list(rule.values))
    enforcer.build_role_links()
    return enforcer


def ours(text: str, rules: list[PolicyRule]) -> PolicyEnforcer:
    model = Model()
    model.load_model_from_text(text)
    enforcer = PolicyEnforcer(model, strict=True)
    enforcer.install(rules)
    return enforcer


def median(call: Callable[[], Any], times: int) -> float:
    """Rend le temps médian d'un appel, en secondes."""
    samples = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(times):
            call()
        samples.append((time.perf_counter() - started) / times)
    return statistics.median(samples)


def shown(seconds: float) -> str:
    """Écrit une durée dans l'unité qui convient."""
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def compared(label: str, size: int, mine: float, theirs: float) -> str:
    print(f"  {label}, {size} règles : {shown(mine)} contre {shown(theirs)}", flush=True)
    return row(
        label, f"{size:,}".replace(",", " "), shown(mine), shown(theirs), f"{theirs / mine:,.0f} fois".replace(",", " ")
    )


def decisions() -> list[str]:
    """Une décision, accordée et refusée, par modèle et par taille."""
    rows = []
    for name, text in MODELS.items():
        for size in SIZES:
            rules = world(size)
            mine, theirs = ours(text, rules), stock(text, rules)
            roles = size // 11
            subject, resource = f"user:{roles * 5 + 1}", _resource((roles * 5 + 1) // 10).removesuffix(":*")
            for label, action in (("accord", "read"), ("refus", "write")):
                request = (subject, resource, action)
                assert mine.enforce(*request) == theirs.enforce(*request) == (action == "read")
                slow = max(1, 2_000 // (size // 1_100) ** 2 // 20)
                rows.append(
                    compared(
                        f"{name}, {label}",
                        size,
                        median(lambda r=request, e=mine: e.enforce(*r), 5_000),
                        median(lambda r=request, e=theirs: e.enforce(*r), slow),
                    )
                )
    return rows


def changes() -> list[str]:
    """Un changement en mémoire, à la plus grande taille."""
    size = SIZES[-1]
    rules = world(size)
    mine, theirs = ours(PLAIN, rules), stock(PLAIN, rules)
    rule = PolicyRule("p", ("role:r5", "new", "write", "allow"))
    values = list(rule.values)
    loop = asyncio.new_event_loop()

    def mine_both() -> None:
        mine.apply(PolicyChange(added=(rule,)))
        mine.apply(PolicyChange(removed=(rule,)))

    def theirs_both() -> None:
        loop.run_until_complete(theirs.add_policy(values))
        loop.run_until_complete(theirs.remove_policy(values))

    found = compared("ajouter puis retirer une règle", size, median(mine_both, 500), median(theirs_both, 3))
    loop.close()
    return [found]


def loading() -> list[str]:
    """Mettre en service une politique déjà lue, à la plus grande taille."""
    size = SIZES[-1]
    rules = world(size)
    mine, theirs = median(lambda: ours(PLAIN, rules), 1), median(lambda: stock(PLAIN, rules), 1)
    return [compared("mettre en service", size, mine, theirs)]


def floor() -> float:
    """Le plancher : une recherche dans un dictionnaire de tuples."""
    known = {(f"role:r{i}", f"data{i}", "read"): True for i in range(SIZES[-1])}
    request = ("role:r5", "data5", "read")
    return median(lambda: known.get(request), 100_000)


def main() -> None:
    """Mesure, montre et écrit la page."""
    gc.collect()
    print("→ décisions", flush=True)
    rows = decisions()
    print("→ changements et mise en service", flush=True)
    rows += changes() + loading()
    table = "\n".join([row("travail", "règles", "fastapi-acl", "pycasbin", "rapport"), row(*["---"] * 5), *rows])
    versions = ", ".join(f"{name} {version(name)}" for name in ("pycasbin", "simpleeval"))
    PAGE.write_text(
        "# Performances\n\n"
        "Ce que coûte une décision, à côté de pycasbin dans la même exécution, sur les mêmes règles et les\n"
        f"mêmes questions ; chaque nombre est la médiane de {ROUNDS} tours. Dix comptes par rôle, un rôle par\n"
        "règle, un joker pour cent règles, une règle de refus.\n\n"
        f"{table}\n\n"
        f"Plancher : une recherche dans un dictionnaire prend {shown(floor())} sur cette machine.\n\n"
        f"Python {platform.python_version()}, {versions}, {platform.system()} {platform.machine()}. Commande :\n"
        "`make bench`.\n\n"
        "Ne sont pas encore mesurés ici : les modèles que l'index ne sait pas lire (évalués par Casbin), la\n"
        "mémoire, les politiques d'un million de règles, la lecture depuis une base et les bibliothèques autres\n"
        "que pycasbin.\n",
        "utf-8",
    )
    print(f"→ {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")


if __name__ == "__main__":
    sys.exit(main())
