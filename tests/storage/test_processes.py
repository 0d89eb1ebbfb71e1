"""Plusieurs processus, tués, annulés, en nombre, ou dont le serveur redémarre : il n'y a jamais qu'une vérité."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event

from fastapi_acl.runtime.composition import Composition
from fastapi_acl.shared.exceptions import DatabaseRefusedError, DatabaseUnavailableError
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.changes import IdempotencyKey
from tests.conftest import DATABASES
from tests.storage.conftest import Base, agreed, base_of
from tests.storage.writer import BATCH, batch
from tests.support.effort import effort
from tests.support.rules import stored
from tests.support.servers import Server

ROOT = Path(__file__).parents[2]
IMPORTED = effort(3_000, 50_000)


def rule(number: int) -> PolicyRule:
    return PolicyRule("p", (f"role:r{number}", "doc", "read", "allow"))


@pytest.fixture(params=DATABASES)
def designated(request: pytest.FixtureRequest) -> Base:
    """Une base qu'un autre processus du système peut ouvrir."""
    return base_of(request, request.param)


async def launched(base: Base, work: str, *numbers: int) -> Process:
    """Lance un écrivain."""
    arguments = [json.dumps(base.settings), work, *map(str, numbers)]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.storage.writer", *arguments, stdin=PIPE, stdout=PIPE, cwd=ROOT
    )


async def told(writer: Process) -> Any:
    """Rend ce que dit un écrivain."""
    assert writer.stdout is not None
    return json.loads(await asyncio.wait_for(writer.stdout.readline(), 600))


def go_on(*writers: Process) -> None:
    """Laisse continuer des écrivains."""
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")


@pytest.mark.slow
async def test_two_processes_that_write_the_same_rules_share_one_truth(process: Composition, base: Base) -> None:
    writers = [await launched(base, "at_random", seed, effort(60, 5_000)) for seed in (1, 2)]
    for writer in writers:
        assert await told(writer) == "ready"

    go_on(*writers)
    balance = Counter[str]()
    for writer in writers:
        balance.update(await told(writer))
    go_on(*writers)
    memories = [await told(writer) for writer in writers]

    kept = {repr(one): number for one, number in (await agreed(process)).items()}
    assert memories == [kept, kept]
    assert {name: total for name, total in balance.items() if total} == dict.fromkeys(kept, 1)
    assert await process.history.rules_at(process.replica.revision) == await stored(process.storage.adapter)
    assert [await writer.wait() for writer in writers] == [0, 0]


@pytest.mark.slow
async def test_a_writer_killed_at_any_instant_leaves_whole_batches_and_no_lock(
    process: Composition, base: Base
) -> None:
    rng, last = random.Random(7), -1
    for _ in range(effort(3, 20)):
        writer = await launched(base, "batches")
        done = [await told(writer)]
        await asyncio.sleep(rng.uniform(0, 0.08))
        done += await killed(writer)
        await forget_the_dead(process, base)

        assert await process.enforcer.add_policy(*rule(last).values), "un verrou resté pris serait une panne"
        kept = await agreed(process)
        found = Counter(int(one.values[0][6:]) for one in kept if one.values[0].startswith("role:b"))
        assert set(found.values()) == {BATCH}
        assert max(found) in {done[-1], done[-1] + 1}
        assert await process.history.rules_at(process.replica.revision) == kept
        last -= 1
        await process.store.change(PolicyChange(removed=tuple(one for n in found for one in batch(n))))


@pytest.mark.slow
async def test_an_import_killed_at_any_instant_is_whole_or_absent(process: Composition, base: Base) -> None:
    rng, size = random.Random(7), IMPORTED
    whole = await an_import(base, size, None)
    await process.store.write(lambda: PolicyChange(removed=process.policy.rules))

    for _ in range(effort(3, 20)):
        await an_import(base, size, rng.uniform(0, whole))
        await forget_the_dead(process, base)

        assert await process.enforcer.add_policy(*rule(0).values)
        kept = await agreed(process)
        assert len(kept) in {1, size + 1}
        assert await process.history.rules_at(process.replica.revision) == kept
        await process.store.write(lambda: PolicyChange(removed=process.policy.rules))

    assert await an_import(base, size, None) > 0
    assert len(await agreed(process)) == size


async def an_import(base: Base, size: int, seconds: float | None) -> float:
    """Fait importer des règles par un processus, tué après ce temps ; rend le temps de l'import mené à son terme."""
    writer = await launched(base, "import", size)
    assert await told(writer) == "ready"
    started = time.monotonic()
    if seconds is None:
        assert await told(writer) == size
    else:
        await asyncio.sleep(seconds)
        await killed(writer)
    await writer.wait()
    return time.monotonic() - started


async def killed(writer: Process) -> list[Any]:
    """Tue un écrivain, et rend ce qu'il avait encore dit."""
    assert writer.stdout is not None
    with suppress(ProcessLookupError):
        writer.send_signal(signal.SIGKILL)
    said = (await writer.stdout.read()).splitlines()
    await writer.wait()
    return [json.loads(line) for line in said]


async def forget_the_dead(process: Composition, base: Base) -> None:
    """Fait ce que MongoDB fait de lui-même d'une transaction dont le client est mort, après une minute."""
    database: Any = process.database
    if base.kind == "mongodb":
        await database.client.admin.command("killAllSessions", [])


# --- annulations -------------------------------------------------------------------------------------------------


async def writes(process: Composition, turn: int) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Rend de quoi changer des règles, de toutes les façons."""
    enforcer, fresh = process.enforcer, list(rule(turn + 100).values)
    known = [list(one.values) for one in enforcer.policy.rules if one.ptype == "p"] or [fresh]
    revision = max(process.replica.revision - 2, 0)
    return {
        "ajout": lambda: enforcer.add_policies([fresh, list(rule(turn + 1_000).values)]),
        "retrait": lambda: enforcer.remove_policies(known[:2]),
        "remplacement": lambda: enforcer.update_policy(known[0], fresh),
        "rôle": lambda: enforcer.delete_role(known[-1][0]),
        "retour": lambda: process.history.rollback(revision),
        "relecture": enforcer.load_policy,
    }


async def cancelled_at_random(process: Composition, rng: random.Random, turn: int) -> None:
    """Fait une écriture au hasard, et l'annule à un instant au hasard, parfois plusieurs fois."""
    name, write = rng.choice(list((await writes(process, turn)).items()))
    task = asyncio.ensure_future(write())
    await asyncio.sleep(rng.choice([0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016]) * rng.random())
    for _ in range(rng.randint(1, 3)):
        task.cancel(name)
        await asyncio.sleep(0)
    with suppress(asyncio.CancelledError):
        await task


async def test_a_write_cancelled_at_any_instant_is_whole_or_absent(
    any_process: tuple[Composition, Composition],
) -> None:
    process, twin = any_process
    rng = random.Random(7)
    await process.store.change(PolicyChange(added=tuple(map(rule, range(6)))))
    for turn in range(effort(60, 1_000)):
        await cancelled_at_random(process, rng, turn)

        kept = await agreed(process, twin)
        assert await twin.history.rules_at(twin.replica.revision) == kept
        if len(kept) < 4:
            await twin.store.change(PolicyChange(added=tuple(rule(turn * 10 + n + 10_000) for n in range(4))))
            await process.replica.refresh()


@pytest.fixture(params=["memory", *DATABASES])
def any_base(request: pytest.FixtureRequest) -> Base:
    return base_of(request, request.param)


@pytest.fixture
async def any_process(any_base: Base) -> Any:
    yield await any_base.process(), await any_base.process()
    await any_base.close()


async def test_many_writers_behind_one_that_dawdles_all_end_and_none_lies(
    any_process: tuple[Composition, Composition],
) -> None:
    process, twin = any_process
    held = asyncio.Event()

    async def dawdle() -> None:
        async with twin.replica.writing():
            held.set()
            await twin.enforcer.add_policy(*rule(0).values)
            await asyncio.sleep(1.2)

    dawdling = asyncio.create_task(dawdle())
    await held.wait()
    outcomes = await asyncio.gather(
        *(process.store.change(PolicyChange(added=(rule(n),))) for n in range(1, 41)), return_exceptions=True
    )
    await dawdling

    made = {rule(n) for n, outcome in enumerate(outcomes, start=1) if isinstance(outcome, int)}
    assert all(isinstance(outcome, (int, DatabaseUnavailableError)) for outcome in outcomes)
    assert set(await agreed(process, twin)) == {rule(0), *made}
    assert await process.enforcer.add_policy(*rule(99).values)


# --- serveurs ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=[kind for kind in DATABASES if kind != "sqlite"])
def restartable(request: pytest.FixtureRequest) -> tuple[Base, Server]:
    """Une base dont le serveur peut être arrêté et relancé."""
    server: Server = request.getfixturevalue(f"own_{request.param}")
    uri = server.uri("postgres" if request.param == "postgresql" else "acl")
    return Base(request.param, {"database_type": request.param, f"{request.param}_uri": uri}), server


@pytest.mark.slow
async def test_a_server_restarted_under_writes_keeps_every_acknowledged_one(
    restartable: tuple[Base, Server],
) -> None:
    base, server = restartable
    try:
        await restart_under_writes(base, server)
    finally:
        await base.close()


async def restart_under_writes(base: Base, server: Server) -> None:
    """Fait écrire trois processus pendant que leur serveur tombe et revient."""
    processes = [await base.process() for _ in range(3)]
    acknowledged, uncertain, stop = set[PolicyRule](), set[PolicyRule](), asyncio.Event()

    async def write(process: Composition, first: int) -> None:
        number = first
        while not stop.is_set():
            one, number = rule(number), number + len(processes)
            try:
                await process.store.change(PolicyChange(added=(one,)), key=IdempotencyKey(f"k{number}", "d"))
                acknowledged.add(one)
            except DatabaseUnavailableError:
                uncertain.add(one)

    writing = [asyncio.create_task(write(process, n)) for n, process in enumerate(processes)]
    for _ in range(effort(2, 5)):
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.stop, server.brutal)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(server.start)
    await asyncio.sleep(0.3)
    stop.set()
    await asyncio.gather(*writing)

    assert acknowledged
    kept = set(await agreed(*processes))
    assert acknowledged <= kept <= acknowledged | uncertain
    assert await processes[0].history.rules_at(processes[0].replica.revision) == await stored(
        processes[0].storage.adapter
    )
    for process in processes:
        await process.enforcer.add_policy(f"role:after{id(process)}", "doc", "read", "allow")


@pytest.fixture
def read_only(request: pytest.FixtureRequest) -> Base:
    return base_of(request, request.param)


@pytest.mark.parametrize("read_only", [kind for kind in DATABASES if kind in {"sqlite", "postgresql"}], indirect=True)
async def test_a_base_that_can_only_be_read_refuses_writers_and_not_deciders(read_only: Base) -> None:
    process = await read_only.process()
    await process.store.change(PolicyChange(added=(rule(1),)))
    await forbid_writing(process, read_only)

    for write in (lambda: process.enforcer.add_policy(*rule(2).values), lambda: process.history.rollback(0)):
        with pytest.raises(DatabaseRefusedError):
            await write()

    assert list(await agreed(process)) == [rule(1)]
    assert process.enforcer.enforce("role:r1", "doc", "read")
    await read_only.close()


async def forbid_writing(process: Composition, base: Base) -> None:
    """Met la base en lecture seule, pour toute connexion à venir."""
    database: Any = process.database
    if base.kind == "sqlite":
        event.listen(database.engine.sync_engine, "connect", query_only)
        return
    await process.database.close()
    uri = base.settings["postgresql_uri"]
    connection = await asyncpg.connect(uri)
    await connection.execute(f'ALTER DATABASE "{uri.rpartition("/")[2]}" SET default_transaction_read_only = on')
    await connection.close()


def query_only(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA query_only = ON")
