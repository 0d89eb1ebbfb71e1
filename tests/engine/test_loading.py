"""Une politique se lit sans que rien ne s'y perde, et ce qui ne se lit pas n'ouvre rien."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from casbin.model import Model

from fastapi_acl.engine.casbin.definitions import ModelDefinitions
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.engine.kernel.loading import PolicyReader
from fastapi_acl.engine.kernel.policy import Policy
from fastapi_acl.shared.exceptions import PolicyUnreadableError
from tests.engine.worlds import MemoryAdapter
from tests.support.engines import load

Line = tuple[Any, ...]


class Lines(MemoryAdapter):
    """Des lignes tenues en mémoire, rendues par paquets ; une lecture s'arrête où l'essai le veut."""

    def __init__(self, *packets: Sequence[Line]) -> None:
        super().__init__([])
        self.packets = list(packets)
        self.gate = asyncio.Event()
        self.gate.set()

    async def lines(self) -> AsyncIterator[Sequence[Line]]:
        for packet in self.packets:
            yield packet
            await self.gate.wait()


def line(number: int, ptype: str, *values: str | None) -> Line:
    return (number, ptype, *values, *[None] * (6 - len(values)))


@pytest.fixture
def policy() -> Policy:
    model = Model()
    model.load_model_from_text(read_packaged_model("rbac"))
    return Policy(ModelDefinitions(model))


GRANT = line(1, "p", "role:a", "doc", "read", "allow")
LINK = line(2, "g", "user:1", "role:a")


async def test_a_load_that_is_cancelled_changes_nothing(policy: Policy) -> None:
    adapter = Lines([GRANT], [LINK])
    await load(policy, adapter)
    adapter.packets, rules = [[GRANT]], policy.rules
    adapter.gate.clear()
    loading = asyncio.create_task(load(policy, adapter))
    await asyncio.sleep(0.01)
    loading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await loading
    assert policy.rules == rules
    assert policy.decide("user:1", "doc", "read")


async def test_a_large_policy_is_read_in_the_order_of_its_lines(policy: Policy) -> None:
    packets = [
        [line(n, "p", f"role:r{n}", "doc", "read", "allow") for n in range(at, at + 500)] for at in range(0, 5000, 500)
    ]
    await load(policy, Lines(*packets, [line(9999, "g", "user:1", "role:r4999")]))

    assert [rule.values[0] for rule in policy.rules[:5000]] == [f"role:r{number}" for number in range(5000)]
    assert policy.decide("user:1", "doc", "read")
    assert not policy.decide("user:2", "doc", "read")


HARMLESS = {
    "un sujet sans préfixe": line(3, "p", "admin", "doc", "read", "allow"),
    "un joker au milieu": line(3, "p", "role:a", "d*c", "read", "allow"),
}
DANGEROUS = {
    "un refus illisible": line(3, "p", "role:a", "d*c", "read", "deny"),
    "un effet inconnu": line(3, "p", "role:a", "doc", "read", "Deny"),
    "un trou au milieu": line(3, "p", "role:a", None, "read", "deny"),
    "une valeur de trop": line(3, "p", "role:a", "doc", "read", "allow", "deny"),
    "un type inconnu": line(3, "p9", "role:a", "doc", "read", "allow"),
    "un lien trop court": line(3, "g", "user:1"),
    "un lien vers un nom sans préfixe": line(3, "g", "user:1", "admin"),
    "un saut de ligne": line(3, "p", "role:a", "doc\n", "read", "deny"),
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_a_bad_row_that_could_only_allow_is_left_out(policy: Policy, name: str) -> None:
    await load(policy, Lines([GRANT, LINK, HARMLESS[name]]))

    assert len(policy.rules) == 2
    assert policy.decide("user:1", "doc", "read")


@pytest.mark.parametrize("name", DANGEROUS)
async def test_a_bad_row_that_could_deny_stops_the_load_and_the_old_policy_stays(policy: Policy, name: str) -> None:
    adapter = Lines([GRANT, LINK])
    await load(policy, adapter)
    adapter.packets = [[DANGEROUS[name]]]

    with pytest.raises(PolicyUnreadableError):
        await load(policy, adapter)
    assert policy.decide("user:1", "doc", "read")


CHAIN = [line(10 + n, "g", f"role:l{n}", f"role:l{n + 1}") for n in range(10)]


@pytest.mark.parametrize(
    ("links", "named"),
    [
        (
            [line(7, "g", "role:a", "role:b"), line(8, "g", "role:c", "role:a"), line(9, "g", "role:b", "role:a")],
            [7, 9],
        ),
        (CHAIN, list(range(10, 20))),
        ([line(4, "g", "role:a", "role:a")], [4]),
    ],
)
async def test_a_cycle_written_by_hand_stops_the_load_and_its_rows_are_named(
    policy: Policy, caplog: pytest.LogCaptureFixture, links: list[Any], named: list[int]
) -> None:
    with pytest.raises(PolicyUnreadableError):
        await load(policy, Lines([GRANT, LINK, *links]))

    said = next(record.message for record in caplog.records if "policy_links_unreadable" in record.message)
    assert [int(found) for found in re.findall(r"id=(\d+)", said)] == named


def test_a_value_read_a_thousand_times_is_kept_once(policy: Policy) -> None:
    lines = [line(n, "p", f"role:a{n}"[:6], f"doc{n}", f"read{n}"[:4], "allow") for n in range(1000)]
    read = PolicyReader(policy.schema)
    read.feed(lines)

    rows = list(read.finish().rows["p"])
    assert len({id(row[0]) for row in rows}) == len({id(row[2]) for row in rows}) == 1


async def test_the_same_line_twice_is_one_rule(policy: Policy) -> None:
    await load(policy, Lines([GRANT, LINK, GRANT]))

    assert len(policy.rules) == 2
