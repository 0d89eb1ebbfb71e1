"""Une décision prise pendant un changement est celle d'un état d'avant ou d'après, jamais d'un mélange."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from casbin.model import Model

from fastapi_acl import PolicyChange, PolicyEnforcer, PolicyRule
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.engine.kernel.inspector import PolicyInspector
from fastapi_acl.engine.kernel.pacing import aside, gc_paused
from tests.support.engines import strict_enforcer

LEFT, RIGHT = PolicyRule("g", ("user:1", "role:left")), PolicyRule("g", ("user:1", "role:right"))
GRANTS = [PolicyRule("p", (role, "doc", "read", "allow")) for role in ("role:left", "role:right")]
OTHERS = [PolicyRule("p", (f"role:r{number}", f"doc{number}", "read", "allow")) for number in range(50)]


def enforcer(rules: list[PolicyRule]) -> PolicyEnforcer:
    model = Model()
    model.load_model_from_text(read_packaged_model("rbac"))
    made = strict_enforcer(model)
    made.policy.install(rules)
    return made


@pytest.fixture(autouse=True)
def eager_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def while_reading(read: Callable[[], bool], write: Callable[[int], None], *, times: int = 400) -> list[bool]:
    """Lit dans trois fils pendant que celui-ci écrit, et rend tout ce qui a été lu."""
    seen: list[bool] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def reading() -> None:
        try:
            while not stop.is_set():
                seen.append(read())
        except BaseException as error:  # noqa: BLE001 - montrée par l'essai
            failed.append(error)

    threads = [threading.Thread(target=reading) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(times):
        write(number)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert seen
    return seen


def test_a_role_that_moves_is_never_seen_missing() -> None:
    asked = enforcer([*GRANTS, LEFT])

    def move(number: int) -> None:
        before, after = (LEFT, RIGHT) if number % 2 == 0 else (RIGHT, LEFT)
        asked.policy.apply(PolicyChange(removed=(before,), added=(after,)))

    assert all(while_reading(lambda: asked.enforce("user:1", "doc", "read"), move))


def test_a_rule_explained_during_a_change_is_one_that_was_there() -> None:
    asked = enforcer([*GRANTS, LEFT])

    def move(number: int) -> None:
        before, after = (LEFT, RIGHT) if number % 2 == 0 else (RIGHT, LEFT)
        asked.policy.apply(PolicyChange(removed=(before,), added=(after,)))

    def explained() -> bool:
        allowed, rule = asked.enforce_ex("user:1", "doc", "read")
        return allowed and PolicyRule.of("p", rule) in GRANTS

    assert all(while_reading(explained, move))


def test_a_policy_put_in_force_is_never_seen_empty_nor_half_read() -> None:
    asked = enforcer([*GRANTS, LEFT])
    policies = [[*GRANTS, LEFT], [*OTHERS, *GRANTS, RIGHT]]

    assert all(
        while_reading(
            lambda: asked.enforce("user:1", "doc", "read"),
            lambda number: asked.policy.install(policies[number % 2]),
            times=150,
        )
    )


def test_a_trial_is_seen_by_nobody_else() -> None:
    asked = enforcer([*GRANTS, LEFT])

    def try_without(_: int) -> None:
        with asked.policy.trial(PolicyChange(removed=(LEFT,))):
            assert not asked.enforce("user:1", "doc", "read")

    assert all(while_reading(lambda: asked.enforce("user:1", "doc", "read"), try_without))


@pytest.mark.parametrize("question", ["has_link", "closure", "holds", "rules_of", "has_grouping_policy"])
def test_no_question_sees_the_trial_of_another(question: str) -> None:
    asked = enforcer([*GRANTS, LEFT])
    grant = PolicyRule("p", ("role:right", "other", "read", "allow"))
    ask: Callable[[], bool] = {
        "has_link": lambda: not asked.policy.has_link("user:1", "role:right"),
        "closure": lambda: asked.policy.closure("user:1") == ("user:1", "role:left"),
        "holds": lambda: not asked.policy.holds(RIGHT),
        "rules_of": lambda: asked.policy.rules_of(["role:right"]) == [GRANTS[1]],
        "has_grouping_policy": lambda: not asked.has_grouping_policy("user:1", "role:right"),
    }[question]

    def try_both(_: int) -> None:
        with asked.policy.trial(PolicyChange(added=(RIGHT, grant))):
            assert asked.policy.holds(RIGHT)

    assert all(while_reading(ask, try_both))


@pytest.mark.parametrize(
    ("method", "count"),
    [
        ("get_policy", 2_500),
        ("get_all_subjects", 2_500),
        ("get_all_roles", 1),
        ("rules_naming", 1),
        ("subjects", 2_501),
    ],
)
def test_a_list_read_while_the_policy_is_replaced_is_whole(method: str, count: int) -> None:
    many = [PolicyRule("p", (f"role:r{number}", "doc", "read", "allow")) for number in range(2_500)]
    rules = [*many, PolicyRule("g", ("user:1", "role:r1"))]
    asked = enforcer(rules)
    read: Callable[[], int] = {
        "rules_naming": lambda: len(asked.policy.rules_naming("user:1")),
        "subjects": lambda: len(asked.policy.subjects),
    }.get(method, lambda: len(getattr(asked, method)()))

    assert set(while_reading(lambda: read() == count, lambda _: asked.policy.install(rules), times=15)) == {True}


def test_questions_about_the_policy_survive_its_changes() -> None:
    asked = enforcer([*GRANTS, LEFT])
    inspector = PolicyInspector(asked.policy)

    def move(number: int) -> None:
        before, after = (LEFT, RIGHT) if number % 2 == 0 else (RIGHT, LEFT)
        asked.policy.apply(PolicyChange(removed=(before,), added=(after,)))

    assert all(while_reading(lambda: bool(inspector.subjects_of("doc", "read")), move, times=200))


def test_a_trial_that_fails_leaves_nothing_behind() -> None:
    asked = enforcer([*GRANTS, LEFT])
    before = asked.policy.rules

    with pytest.raises(ZeroDivisionError), asked.policy.trial(PolicyChange(removed=(GRANTS[0],), added=(RIGHT,))):
        _ = 1 // 0

    assert asked.policy.rules == before
    assert asked.policy.decisions.sequence.version % 2 == 0


async def test_a_long_work_leaves_the_loop_free_and_its_error_comes_back() -> None:
    release = threading.Event()
    waiting = asyncio.create_task(aside(release.wait))
    await asyncio.sleep(0.01)

    assert not waiting.done()
    release.set()
    assert await waiting
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 // 0)


async def test_the_collector_comes_back_when_the_last_load_ends_even_cancelled() -> None:
    assert gc.isenabled()
    release = threading.Event()

    async def load() -> None:
        with gc_paused():
            await aside(release.wait)

    first, second = asyncio.create_task(load()), asyncio.create_task(load())
    await asyncio.sleep(0.01)
    assert not gc.isenabled()
    first.cancel()
    await asyncio.sleep(0.01)
    assert not gc.isenabled()
    release.set()
    await second

    assert gc.isenabled()
