"""Des histoires au hasard : trois processus sur une base, des pannes, et un modèle de quelques lignes qui a raison.

Après chaque geste, la base garde ce que le modèle dit ; coupé, un geste est fait ou ne l'est pas, et renvoyé sous la
même clé, il n'est fait qu'une fois. Les mémoires à jour, la base et le journal seul disent la même chose, numéros
compris.
"""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from fastapi_acl.runtime.composition import Composition
from fastapi_acl.shared.exceptions import DatabaseUnavailableError, RuleAlreadyExistsError, RuleNotFoundError
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.changes import IdempotencyKey
from tests.storage.conftest import KINDS, SERVERS, Base, agreed
from tests.storage.test_faults import eventually
from tests.support.bases import Bases
from tests.support.effort import IS_FULL, effort
from tests.support.proxy import FaultProxy, before
from tests.support.rules import stored

PROCESSES = 3
NOW = timedelta(seconds=-1)
USERS = [f"role:t{n}" for n in range(2)]
ROLES = [f"role:r{n}" for n in range(3)]
OBJECTS = ["document", "bill"]
RULES = [PolicyRule("p", (role, name, "read", "allow")) for role in ROLES for name in OBJECTS]
RULES += [PolicyRule("g", (user, role)) for user in USERS for role in ROLES[:2]]

Known = list[PolicyRule]
"""Des règles, dans l'ordre."""

Write = Callable[[Composition], Awaitable[Any]]


class Cut(NamedTuple):
    """Une coupure : au `at`-ième échange avec la base, avant qu'il ait lieu ou juste après."""

    at: int
    late: bool


WHO = st.integers(0, PROCESSES - 1)
SOME = st.lists(st.sampled_from(RULES), min_size=1, max_size=3, unique=True)
PICK = st.integers(0, 999)
CUT = st.none() | st.builds(Cut, st.integers(1, 10), st.booleans())

# --- couper ------------------------------------------------------------------------------------------------------


@contextmanager
def cut_by(proxy: FaultProxy, cut: Cut) -> Iterator[None]:
    """Coupe la connexion à un serveur."""
    proxy.arm(cut.at, forwarded=cut.late)
    yield
    proxy.arm(0, forwarded=False)


@contextmanager
def cut_statement(process: Composition, cut: Cut) -> Iterator[None]:
    """Fait échouer une instruction, où il n'y a pas de réseau."""
    engine: Any = process.database
    target = (engine.engine.sync_engine, "after_cursor_execute" if cut.late else "before_cursor_execute")
    fail = failing(cut.at, OperationalError("", None, sqlite3.OperationalError()))
    event.listen(*target, fail)
    yield
    event.remove(*target, fail)


@contextmanager
def cut_memory(base: Base, cut: Cut) -> Iterator[None]:
    """Fait échouer un geste du stockage en mémoire."""
    base.server.fault = failing(cut.at, DatabaseUnavailableError())
    yield
    base.server.fault = lambda _: None


def failing(at: int, error: Exception) -> Callable[..., None]:
    """Rend ce qui échoue au `at`-ième appel."""
    calls = count(1)

    def fail(*_: Any) -> None:
        if next(calls) == at:
            raise error

    return fail


# --- le monde ----------------------------------------------------------------------------------------------------


@dataclass
class World:
    """Une base neuve, des processus qui peuvent être coupés d'elle, et un témoin qui ne l'est jamais."""

    kind: str
    bases: Bases | None
    processes: list[Composition] = field(default_factory=list)
    cutters: list[Callable[[Cut], AbstractContextManager[None]]] = field(default_factory=list)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def open(self) -> None:
        self.base = Base(self.kind)
        if self.bases is not None:
            uri = await self.stack.enter_async_context(self.bases.migrated())
            self.base.settings = {"database_type": self.kind, f"{self.kind}_uri": uri}
        self.stack.push_async_callback(self.base.close)
        self.witness = await self.base.process()
        for _ in range(PROCESSES):
            await self.start()

    async def start(self) -> None:
        """Démarre un processus de plus."""
        if self.kind in SERVERS:
            name = f"{self.kind}_uri"
            uri, proxy = await self.stack.enter_async_context(before(self.base.settings[name]))
            process = await replace(self.base, settings={**self.base.settings, name: uri}).process()
            self.cutters.append(partial(cut_by, proxy))
        else:
            process = await self.base.process()
            here = partial(cut_memory, self.base) if self.kind == "memory" else partial(cut_statement, process)
            self.cutters.append(here)
        self.processes.append(process)

    async def attempt(self, who: int, write: Write, cut: Cut | None) -> BaseException | None:
        """Fait un geste, coupé ou non, et rend ce qu'il a levé."""
        with self.cutters[who](cut) if cut is not None else nullcontext():
            outcome = await asyncio.gather(asyncio.wait_for(write(self.processes[who]), 20), return_exceptions=True)
        return outcome[0] if isinstance(outcome[0], BaseException) else None

    async def kept(self) -> tuple[Known, int]:
        """Rend ce que la base garde, et sa révision, une fois achevé ce qui tenait encore son verrou."""
        async with self.witness.replica.writing() as transaction:
            revision = transaction.check_ordered().revision
            return list(await stored(self.witness.storage.adapter)), revision


# --- les gestes --------------------------------------------------------------------------------------------------


def text_of(rules: list[PolicyRule]) -> io.StringIO:
    return io.StringIO("".join(f"{one.ptype}, {', '.join(one.values)}\n" for one in rules))


async def in_two_steps(process: Composition, first: PolicyChange, second: PolicyChange, *, gives_up: bool) -> None:
    """Fait deux changements d'une transaction, et y renonce parfois."""
    async with process.replica.writing():
        await process.store.change(first)
        await process.store.change(second)
        if gives_up:
            raise InterruptedError


class Stories(RuleBasedStateMachine):
    """Ce qui peut arriver, et ce qu'il doit en rester."""

    def __init__(self, kind: str, bases: Bases | None) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World(kind, bases)
        self.known: Known = []
        self.revision = 0
        self.past: dict[int, Known] = {0: []}
        self.keys = count()
        self.wait(self.world.open())

    def teardown(self) -> None:
        self.wait(self.world.stack.aclose())
        self.loop.close()

    @property
    def absent(self) -> Known:
        return [one for one in RULES if one not in self.known]

    @staticmethod
    def one_of(items: Sequence[Any], pick: int) -> Any:
        """Choisit sans que le tirage dépende de l'histoire, que l'instant d'une coupure change."""
        return items[pick % len(items)]

    def wait(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def check(self, who: Any) -> None:
        """Vérifie que des processus mis à jour, la base et le journal disent la même chose, et décident comme elle."""
        processes = [self.world.processes[n] for n in who]
        for process in processes:
            await eventually(process.replica.refresh)
            assert process.replica.revision == self.revision
        kept = await agreed(self.world.witness, *processes)
        assert list(kept) == self.known
        assert await self.world.witness.history.rules_at(self.revision) == kept
        for process in (self.world.witness, *processes):
            self.check_decisions(process)

    def check_decisions(self, process: Composition) -> None:
        for subject in (*USERS, *ROLES):
            roles = {subject} | {one.values[1] for one in self.known if one.ptype == "g" and one.values[0] == subject}
            for name in OBJECTS:
                allowed = any(PolicyRule("p", (role, name, "read", "allow")) in self.known for role in roles)
                assert process.enforcer.enforce(subject, name, "read") is allowed

    async def settle(self, raised: BaseException | None, wanted: Known, *, refused: bool = False) -> bool:
        """Confronte la base au modèle, et dit si le geste a été fait."""
        kept, revision = await self.world.kept()
        if raised is None:
            assert kept == wanted
        elif isinstance(raised, DatabaseUnavailableError):
            assert kept in (self.known, wanted)
        else:
            assert refused, raised
            assert (kept, revision) == (self.known, self.revision)
        done, self.known, self.revision = kept == wanted, kept, revision
        self.past[revision] = kept
        return done

    def do(self, who: int, write: Write, wanted: Known, cut: Cut | None) -> None:
        """Fait un geste qui doit aboutir, ou qu'une coupure empêche."""
        raised = self.wait(self.world.attempt(who, write, cut))
        assert cut is not None or raised is None, raised
        self.wait(self.settle(raised, wanted))
        self.wait(self.check([who]))

    def send(self, who: int, change: PolicyChange, wanted: Known | None, cut: Cut | None) -> None:
        """Envoie un changement sous une clé, puis le renvoie ailleurs : il n'est fait qu'une fois."""
        key, started = IdempotencyKey(f"k{next(self.keys)}", "d"), self.revision
        raised = self.wait(self.world.attempt(who, lambda p: p.store.change(change, key=key), cut))
        if wanted is None:
            assert isinstance(raised, (RuleAlreadyExistsError, RuleNotFoundError, DatabaseUnavailableError)), raised
            self.wait(self.settle(raised, self.known, refused=True))
        else:
            self.wait(self.settle(raised, wanted))
            other = self.world.processes[(who + 1) % PROCESSES]
            assert self.wait(eventually(lambda: other.store.change(change, key=key))) == started + 1
            self.wait(self.settle(None, wanted))
            assert self.revision == started + 1
        self.wait(self.check([who]))

    @rule(who=WHO, some=SOME, cut=CUT)
    def add(self, who: int, some: list[PolicyRule], cut: Cut | None) -> None:
        wanted = None if set(some) & set(self.known) else [*self.known, *some]
        self.send(who, PolicyChange(added=tuple(some)), wanted, cut)

    @rule(who=WHO, some=SOME, cut=CUT)
    def remove(self, who: int, some: list[PolicyRule], cut: Cut | None) -> None:
        wanted = [one for one in self.known if one not in some] if set(some) <= set(self.known) else None
        self.send(who, PolicyChange(removed=tuple(some)), wanted, cut)

    @rule(who=WHO, pick=PICK, cut=CUT)
    def replace_in_place(self, who: int, pick: int, cut: Cut | None) -> None:
        if not 0 < len(self.known) < len(RULES):
            return
        old, new = self.one_of(self.known, pick), self.one_of(self.absent, pick)
        wanted = [new if one == old else one for one in self.known]
        self.send(who, PolicyChange(added=(new,), removed=(old,), in_place=True), wanted, cut)

    @rule(who=WHO, role=st.sampled_from(ROLES), cut=CUT)
    def remove_filtered(self, who: int, role: str, cut: Cut | None) -> None:
        wanted = [one for one in self.known if one.ptype == "g" or one.values[0] != role]
        self.do(who, lambda process: process.enforcer.remove_filtered_policy(0, role), wanted, cut)

    @rule(who=WHO, role=st.sampled_from(ROLES), cut=CUT)
    def delete_role(self, who: int, role: str, cut: Cut | None) -> None:
        wanted = [one for one in self.known if role not in one.values[:2]]
        self.do(who, lambda process: process.enforcer.delete_role(role), wanted, cut)

    @rule(who=WHO, pick=PICK, gives_up=st.booleans(), cut=CUT)
    def change_twice(self, who: int, pick: int, gives_up: bool, cut: Cut | None) -> None:
        if not 0 < len(self.known) < len(RULES):
            return
        old, new = self.one_of(self.known, pick), self.one_of(self.absent, pick)
        both = (PolicyChange(removed=(old,)), PolicyChange(added=(new,)))
        raised = self.wait(
            self.world.attempt(who, lambda process: in_two_steps(process, *both, gives_up=gives_up), cut)
        )
        wanted = self.known if gives_up else [*(one for one in self.known if one != old), new]
        self.wait(self.settle(raised, wanted, refused=gives_up))
        self.wait(self.check([who]))

    @rule(who=WHO, some=SOME, replaces=st.booleans(), cut=CUT)
    def import_rules(self, who: int, some: list[PolicyRule], replaces: bool, cut: Cut | None) -> None:
        wanted = some if replaces else [*self.known, *(one for one in some if one not in self.known)]
        self.do(who, lambda p: p.transfer.import_rules(text_of(some), "csv", replaces=replaces), wanted, cut)

    @rule(who=WHO, pick=PICK, cut=CUT)
    def roll_back(self, who: int, pick: int, cut: Cut | None) -> None:
        revision = self.one_of(sorted(self.past), pick)
        self.do(who, lambda process: process.history.rollback(revision), self.past[revision], cut)

    @rule(who=WHO, cut=CUT)
    def compact(self, who: int, cut: Cut | None) -> None:
        kept_from = self.revision
        self.do(who, lambda process: process.history.compact(older_than=NOW), self.known, cut)
        self.past = {revision: rules for revision, rules in self.past.items() if revision >= kept_from}

    @rule(who=WHO, cut=CUT)
    def look(self, who: int, cut: Cut | None) -> None:
        self.do(who, lambda process: process.replica.refresh(), self.known, cut)

    @rule(who=WHO)
    def restart(self, who: int) -> None:
        self.wait(self.world.start())
        self.world.processes[who] = self.world.processes.pop()
        self.world.cutters[who] = self.world.cutters.pop()
        self.wait(self.check([who]))

    @rule(some=SOME, instant=st.floats(0, 0.02))
    def cancel(self, some: list[PolicyRule], instant: float) -> None:
        fresh = tuple(one for one in some if one not in self.known) or None
        change = PolicyChange(added=fresh) if fresh else PolicyChange(removed=tuple(self.known))
        self.wait(self.cancelled(self.world.processes[0].store.change(change), instant))
        self.wait(self.settle(DatabaseUnavailableError(), [*self.known, *fresh] if fresh else []))
        self.wait(self.check([0]))

    async def cancelled(self, write: Awaitable[Any], instant: float) -> None:
        task = asyncio.ensure_future(write)
        await asyncio.sleep(instant)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @rule()
    def all_look(self) -> None:
        self.wait(self.check(range(PROCESSES)))

    @rule(some=SOME)
    def race(self, some: list[PolicyRule]) -> None:
        """Tous les processus ajoutent ou retirent la même chose ensemble : un seul y parvient."""
        present = set(some) <= set(self.known)
        fresh = tuple(one for one in some if one not in self.known)
        change = PolicyChange(removed=tuple(some)) if present else PolicyChange(added=fresh)
        outcomes = self.wait(self.together(change))
        lost = RuleNotFoundError if present else RuleAlreadyExistsError
        assert [type(one) for one in outcomes if one != self.revision + 1] == [lost] * (PROCESSES - 1)
        wanted = [one for one in self.known if one not in some] if present else [*self.known, *fresh]
        self.wait(self.settle(None, wanted))
        self.wait(self.check(range(PROCESSES)))

    async def together(self, change: PolicyChange) -> list[Any]:
        writes = (process.store.change(change) for process in self.world.processes)
        return await asyncio.gather(*writes, return_exceptions=True)


EXAMPLES = {"memory": 50, "sqlite": 5, "postgresql": 5, "mysql": 5, "mongodb": 2}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_story_leaves_processes_and_their_base_apart(kind: str, request: pytest.FixtureRequest) -> None:
    examples = EXAMPLES[kind] * effort(1, 45)
    bases = None if kind == "memory" else request.getfixturevalue(f"{kind}_bases")
    chosen = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        derandomize=not IS_FULL,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(partial(Stories, kind, bases), settings=chosen)
