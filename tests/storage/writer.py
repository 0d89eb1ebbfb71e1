"""Un processus qui écrit sans relâche dans une base, pour être mis en concurrence avec un autre, ou tué."""

from __future__ import annotations

import asyncio
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi_acl.runtime.composition import Composition, compose
from fastapi_acl.shared.exceptions import DatabaseUnavailableError
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from tests.support.app import config

BATCH = 40
"""Règles d'un lot : elles y sont toutes, ou aucune."""

POOL = [PolicyRule("p", (f"role:r{n}", "doc", "read", "allow")) for n in range(8)]
POOL += [PolicyRule("g", (f"user:u{n}", "role:r0")) for n in range(4)]


def say(line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def write_at_random(process: Composition, seed: int, count: int) -> None:
    """Ajoute et retire les mêmes règles que l'autre ; dit le solde de ses succès, puis, sur demande, sa mémoire."""
    rng, balance = random.Random(seed), Counter[str]()
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    for _ in range(count):
        one, adds = rng.choice(POOL), rng.random() < 0.5
        call = process.enforcer._add_policy if adds else process.enforcer._remove_policy
        try:
            if await call(one.section, one.ptype, list(one.values)):
                balance[repr(one)] += 1 if adds else -1
        except DatabaseUnavailableError:
            balance["failures"] += 1
    say(balance)
    await asyncio.to_thread(sys.stdin.readline)
    await process.replica.refresh()
    rules = process.policy.rules
    say({repr(one): number for one, number in zip(rules, process.policy.numbers(rules), strict=True)})


async def write_batches(process: Composition) -> None:
    """Remplace un lot par le suivant, sans fin ; dit chacun, une fois fait."""
    for number in range(100_000):
        say(await write_batch(process, number))


async def write_batch(process: Composition, number: int) -> int:
    """Remplace un lot par le suivant, en un seul changement."""
    before, after = batch(number - 1), batch(number)
    held = tuple(one for one in before if process.policy.holds(one))
    await process.store.change(PolicyChange(added=after, removed=held))
    return number


def batch(number: int) -> tuple[PolicyRule, ...]:
    return tuple(PolicyRule("p", (f"role:b{number}", f"doc{n}", "read", "allow")) for n in range(BATCH))


async def import_many(process: Composition, size: int) -> None:
    """Importe un fichier, et le dit."""
    say("ready")
    lines = "".join(f"p, role:i{number}, doc, read, allow\n" for number in range(size))
    done = await process.transfer.import_rules(io.StringIO(lines), "csv")
    say(done.added)


WORKS: dict[str, Callable[..., Awaitable[None]]] = {
    "at_random": write_at_random,
    "batches": write_batches,
    "import": import_many,
}


async def main(settings: dict[str, Any], work: str, numbers: list[int]) -> None:
    process = compose(config(create_default_admin=False, **settings))
    try:
        await process.replica.refresh()
        await WORKS[work](process, *numbers)
    finally:
        process.hasher.close()
        await process.database.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), sys.argv[2], [int(number) for number in sys.argv[3:]]))
