"""Les règles dans une base : une seule suite, sur chacun des stockages."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from casbin.model import Model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastapi_acl.engine.adapters.base import PACKET, PolicyAdapter
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.runtime.storage import Storage
from fastapi_acl.shared.database.base import Mode
from fastapi_acl.shared.exceptions import (
    DatabaseUnavailableError,
    RuleAlreadyExistsError,
    RuleNotFoundError,
    TransactionCondemnedError,
    TransactionConflictError,
    TransactionNotOrderedError,
)
from fastapi_acl.shared.policy import PolicyRule
from tests.conftest import DATABASES
from tests.storage.conftest import Base, rule, write_row
from tests.support.effort import effort
from tests.support.rules import stored

LOOK_ALIKES = [
    rule(value, "document", "read", "allow")
    for value in (
        "user:alice", "user:Alice", "user:ALICE", "user:alicé", "user:àlice", "user:alice ", " user:alice",
        "user:alice\u00a0", "user:alic", "user:alicee", "user:a%", "user:a_ice", "user:\u0430lice", "user:ali\u200bce",
        "user:straße", "user:strasse", "user:\u0131", "user:i", "user:😀", "user:😁", "user:", "",
    )
]  # fmt: skip
TAILS = [
    rule("a"), rule("a", "b"), rule("a", "b", "c"), rule("a", ""), rule("a", "", ""), rule("", "a"), rule("a,b"),
    rule("a, b"), rule("a", "b", ptype="p2"), rule("a", "b", ptype="g"), rule("a", "b", "c", "d", "e", "f"),
]  # fmt: skip
HOSTILE = [
    "mallory, admin", "a,b", 'a"b', "a'b", "a`b", "a\\b", "\\", "\\'", "%", "_", "100%", "a;--", "' OR '1'='1",
    "'; DROP TABLE casbin_rule; --", '{"$ne": null}', "$where", "$ne", "a.b", "a$b", "__proto__", "]", ")", "(", "[",
    "None", "NULL", "null", "true", "0", "-1", "1e9", " a", "a ", " ", "\u00a0", "\u3000", "é", "e\u0301", "\uff21",
    "\ufb01", "ß", "\u0130", "\ud7ff", "\ue000", "\ufeff", "\ufffd", "\U0001f600", "\U0010ffff", "\u202e", "\u200b",
    "\r\n", "\t", "\x01", "\x7f", "#", "--", "/*", ":a", ":v0", "%s", "%(a)s", "?", "{0}", "${a}", "{{a}}",
    "a" * 250, "\U0001f600" * 250, "é" * 250,
]  # fmt: skip
TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=250)
RULES = st.builds(
    PolicyRule,
    st.sampled_from(["p", "p2", "g", "g2"]),
    st.lists(TEXTS | st.sampled_from(HOSTILE), min_size=1, max_size=6).map(tuple),
)


@pytest.fixture
def adapter(storage: Storage) -> PolicyAdapter:
    return storage.adapter


def plain(number: int) -> PolicyRule:
    return rule(f"role:r{number}", "document", "read", "allow")


# --- garder ------------------------------------------------------------------------------------------------------


async def test_every_look_alike_is_a_rule_of_its_own(adapter: PolicyAdapter) -> None:
    await adapter.insert(LOOK_ALIKES)

    assert list(await stored(adapter)) == LOOK_ALIKES
    for one in random.Random(7).sample(LOOK_ALIKES, len(LOOK_ALIKES)):
        before = await stored(adapter)
        await adapter.delete([one])
        assert before.keys() - (await stored(adapter)).keys() == {one}


async def test_rules_that_differ_by_their_length_or_their_type_are_distinct(adapter: PolicyAdapter) -> None:
    await adapter.insert(TAILS)

    assert list(await stored(adapter)) == TAILS
    for one in TAILS:
        before = await stored(adapter)
        await adapter.delete([one])
        assert before.keys() - (await stored(adapter)).keys() == {one}


async def test_hostile_values_come_back_verbatim_from_every_column(adapter: PolicyAdapter) -> None:
    rules = [rule(*(HOSTILE[(start + place) % len(HOSTILE)] for place in range(6))) for start in range(len(HOSTILE))]

    await adapter.insert(rules)

    assert list(await stored(adapter)) == rules
    for one in rules:
        found = await adapter.page({"ptype": "p", "v0": one.values[0], "v5": one.values[5]}, after=0, limit=9)
        assert [found_rule for _, found_rule in found] == [one]
    await adapter.delete(rules[::2])
    assert list(await stored(adapter)) == rules[1::2]


@settings(max_examples=effort(12, 300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=st.lists(RULES, min_size=1, max_size=12, unique=True))
async def test_any_text_comes_back_verbatim_and_leaves_alone(storage: Storage, rules: list[PolicyRule]) -> None:
    adapter = storage.adapter
    await adapter.clear_policy()

    await adapter.insert(rules)
    assert list(await stored(adapter)) == rules
    await adapter.delete(rules[:1])

    assert list(await stored(adapter)) == rules[1:]


# --- ajouter et retirer ------------------------------------------------------------------------------------------


async def test_a_rule_exists_once(adapter: PolicyAdapter) -> None:
    await adapter.insert([plain(1)])

    with pytest.raises(RuleAlreadyExistsError):
        await adapter.insert([plain(1)])

    assert list(await stored(adapter)) == [plain(1)]


async def test_an_insertion_is_all_or_nothing(adapter: PolicyAdapter) -> None:
    await adapter.insert([plain(5)])

    with pytest.raises(RuleAlreadyExistsError):
        await adapter.insert([*map(plain, range(5)), plain(5), plain(6)])
    with pytest.raises(RuleAlreadyExistsError):
        await adapter.insert([plain(7), plain(7)])

    assert list(await stored(adapter)) == [plain(5)]


async def test_a_removal_is_all_or_nothing(adapter: PolicyAdapter) -> None:
    await adapter.insert([*map(plain, range(5))])

    with pytest.raises(RuleNotFoundError) as missing:
        await adapter.delete([plain(1), plain(2), plain(9), plain(3)])

    assert missing.value.evidence["rule"] == plain(9).as_json()
    assert list(await stored(adapter)) == [*map(plain, range(5))]


async def test_a_rule_is_removed_once_even_named_twice(adapter: PolicyAdapter) -> None:
    await adapter.insert([plain(1), plain(2)])

    await adapter.delete([plain(1), plain(1)])

    assert list(await stored(adapter)) == [plain(2)]


@pytest.mark.parametrize("designated", [kind for kind in DATABASES if kind == "mongodb"], indirect=True)
async def test_an_insertion_crossed_by_another_is_a_conflict(storage: Storage) -> None:
    """Ni un doublon, ni une panne : refaite, elle aboutit."""
    database: Any = storage.database
    async with database.begin(Mode.WRITE) as crossing:
        await database.collection("casbin_rule").insert_one({"_id": 1, "digest": "x"}, session=crossing.connection)
        with pytest.raises(TransactionConflictError):
            await storage.adapter.insert([plain(1)])

    await storage.adapter.insert([plain(1)])


async def test_one_of_many_that_add_the_same_rule_at_once_wins(storage: Storage, base: Base) -> None:
    other = base.storage()

    outcomes = await asyncio.gather(
        *(one.adapter.insert([plain(1)]) for _ in range(5) for one in (storage, other)), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["RuleAlreadyExistsError"] * 9
    assert list(await stored(storage.adapter)) == [plain(1)]


async def test_one_of_many_that_remove_the_same_rule_at_once_wins(storage: Storage, base: Base) -> None:
    other = base.storage()
    await storage.adapter.insert([plain(1), plain(2)])

    async def remove(one: Storage) -> bool:
        return await one.database.retry(lambda: one.adapter.remove_policy("p", "p", plain(1).values))

    removed = await asyncio.gather(*(remove(one) for _ in range(5) for one in (storage, other)))

    assert sorted(removed) == [False] * 9 + [True]
    assert list(await stored(storage.adapter)) == [plain(2)]


async def test_more_rules_than_a_statement_holds_go_in_and_out(adapter: PolicyAdapter) -> None:
    rules = [*map(plain, range(2 * PACKET + 3))]

    await adapter.insert(rules)
    assert list(await stored(adapter)) == rules
    await adapter.delete(rules[1:-1])

    assert list(await stored(adapter)) == [rules[0], rules[-1]]


async def test_a_write_of_an_abandoned_transaction_leaves_nothing(storage: Storage) -> None:
    adapter = storage.adapter
    await adapter.insert([plain(1)])
    await adapter.open_batch("lot", "import")
    await adapter.stage("lot", [(1, plain(3))])
    writes: list[Callable[[], Awaitable[Any]]] = [
        lambda: adapter.insert([plain(2)]),
        lambda: adapter.delete([plain(1)]),
        adapter.clear_policy,
        lambda: adapter.take(1),
        lambda: adapter.publish("lot", 100),
        lambda: adapter.stage("lot", [(9, plain(9))]),
        lambda: adapter.drop("lot"),
        lambda: adapter.seal("lot"),
    ]

    for write in writes:
        with pytest.raises(ZeroDivisionError):
            async with storage.database.transaction(log=True):
                await write()
                _ = 1 / 0

    assert await stored(adapter) == {plain(1): 1}
    assert await stored(adapter, "lot") == {plain(3): 1}
    assert await abandoned(adapter) == ["lot"]


@pytest.mark.parametrize(
    "fail", [lambda adapter: adapter.insert([plain(2), plain(1)]), lambda adapter: adapter.delete([plain(1), plain(9)])]
)
async def test_half_a_write_whose_error_is_silenced_is_never_committed(
    storage: Storage, fail: Callable[[PolicyAdapter], Awaitable[Any]]
) -> None:
    await storage.adapter.insert([plain(1)])

    with pytest.raises(TransactionCondemnedError):
        async with storage.database.transaction(log=True):
            with pytest.raises((RuleAlreadyExistsError, RuleNotFoundError)):
                await fail(storage.adapter)

    assert list(await stored(storage.adapter)) == [plain(1)]


# --- numéros -----------------------------------------------------------------------------------------------------


async def test_a_number_is_never_given_twice(storage: Storage, base: Base) -> None:
    adapter, given_out = storage.adapter, set[int]()
    for round_ in range(3):
        await adapter.insert([*map(plain, range(3))])
        numbers = set((await stored(adapter)).values())
        assert given_out.isdisjoint(numbers)
        given_out |= numbers
        await adapter.delete([*map(plain, range(3))] if round_ else [plain(2), plain(1), plain(0)])
    await base.storage().adapter.insert([plain(9)])

    assert await stored(adapter) == {plain(9): 10}


async def test_numbers_follow_the_order_of_the_writes(storage: Storage, base: Base) -> None:
    other = base.storage()

    await asyncio.gather(*(one.adapter.insert([plain(n)]) for n, one in enumerate([storage, other] * 8)))

    assert list((await stored(storage.adapter)).values()) == list(range(1, 17))


async def test_numbers_are_reserved_only_in_an_ordered_transaction(storage: Storage) -> None:
    async with storage.database.transaction() as transaction:
        with pytest.raises(TransactionNotOrderedError):
            await storage.adapter.reserve(transaction, 1)
    async with storage.database.transaction(log=True) as transaction:
        first = await storage.adapter.reserve(transaction, 2)
        second = await storage.adapter.reserve(transaction, 3)

    assert (first, second) == ((1, 2), (3, 4, 5))


async def test_a_number_taken_by_hand_is_stepped_over(storage: Storage) -> None:
    taken = await write_row(storage, "p", plain(1).values)
    await storage.adapter.insert([plain(2)])
    again = await write_row(storage, "p", plain(3).values, "y" * 64)

    await storage.adapter.insert([plain(4)])

    numbers = list((await stored(storage.adapter)).values())
    assert numbers == sorted(numbers)
    assert {taken, again} <= set(numbers)


async def test_an_explicit_number_that_is_taken_is_refused(
    storage: Storage,
) -> None:
    await storage.adapter.insert([plain(1)])

    with pytest.raises(DatabaseUnavailableError):
        await storage.adapter.insert_numbered([plain(2)], [1])

    assert await stored(storage.adapter) == {plain(1): 1}


async def test_the_last_number_is_that_of_the_rules(adapter: PolicyAdapter) -> None:
    assert await adapter.last_id() == 0
    await adapter.insert([*map(plain, range(3))])
    assert await adapter.last_id() == 3
    await adapter.delete([plain(2)])
    assert await adapter.last_id() == 2


# --- lire --------------------------------------------------------------------------------------------------------


async def test_lines_come_in_the_order_of_their_numbers_by_packets(storage: Storage) -> None:
    adapter, numbers = storage.adapter, [*range(1, PACKET + 8)]
    random.Random(7).shuffle(numbers)
    async with storage.database.transaction():
        await adapter.insert_numbered([plain(number) for number in numbers], numbers)

    async with aclosing(adapter.lines()) as packets:
        sizes = [packet async for packet in packets]

    lines = [line for packet in sizes for line in packet]
    assert [line[0] for line in lines] == sorted(numbers)
    assert [tuple(line[1:]) for line in lines] == [("p", *plain(n).values, None, None) for n in sorted(numbers)]
    assert max(map(len, sizes)) <= PACKET


async def test_lines_are_of_one_instant(storage: Storage, base: Base) -> None:
    other, rules = base.storage(), [*map(plain, range(2 * PACKET + 1))]
    await storage.adapter.insert(rules)

    async with aclosing(storage.adapter.lines()) as packets:
        read = [line async for line in _with(packets, lambda: other.adapter.delete([rules[0], rules[-1]]))]

    assert len(read) == len(rules)
    assert len(await stored(storage.adapter)) == len(rules) - 2


async def _with(packets: Any, once: Callable[[], Awaitable[Any]]) -> Any:
    """Parcourt des lignes, et fait quelque chose après le premier paquet."""
    first = True
    async for packet in packets:
        for line in packet:
            yield line
        if first:
            await once()
        first = False


async def test_a_reading_left_in_the_middle_holds_nothing(storage: Storage, base: Base) -> None:
    await storage.adapter.insert([*map(plain, range(PACKET + 1))])
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        async with aclosing(storage.adapter.lines()) as packets:
            await anext(packets)

    await base.storage().adapter.delete([plain(0)])
    assert await storage.adapter.clear_policy()

    assert await stored(storage.adapter) == {}
    assert [str(one.message) for one in complaints] == []


QUESTIONS: list[tuple[dict[str, str], list[int]]] = [
    ({}, [0, 1, 2, 3, 4, 5]),
    ({"ptype": "p"}, [0, 1, 2, 3]),
    ({"ptype": "P"}, []),
    ({"v0": "user:alice"}, [0, 4]),
    ({"v0": "user:Alice"}, [1]),
    ({"v0": "user:alice "}, [2]),
    ({"v0": "user:alicé"}, [3]),
    ({"v0": "user:%"}, []),
    ({"v0": "user:alic_"}, []),
    ({"v0": "USER:ALICE"}, []),
    ({"v1": "role:r", "ptype": "g"}, [4, 5]),
    ({"v0": "user:alice", "v1": "role:r"}, [4]),
    ({"v2": "read"}, [0, 1, 2, 3]),
    ({"v2": ""}, []),
    ({"v5": "x"}, []),
    ({"v0": "' OR 1=1 --"}, []),
    ({"v0": '{"$ne": null}'}, []),
    ({"v0": "a\x00b"}, []),
    ({"v0": "a" * 10_000}, []),
]


async def test_a_page_keeps_exactly_what_is_asked(adapter: PolicyAdapter) -> None:
    names = ["user:alice", "user:Alice", "user:alice ", "user:alicé"]
    rules = [rule(name, "document", "read", "allow") for name in names]
    rules += [rule(name, "role:r", ptype="g") for name in ("user:alice", "user:bob")]
    await adapter.insert(rules)

    for filters, found in QUESTIONS:
        assert await adapter.page(filters, after=0, limit=50) == [(n + 1, rules[n]) for n in found], filters


async def test_pages_follow_one_another_without_gap_or_repeat(adapter: PolicyAdapter) -> None:
    rules = [*map(plain, range(23))]
    await adapter.insert(rules)
    await adapter.delete([plain(3), plain(10)])

    seen, after = list[tuple[int, PolicyRule]](), 0
    while page := await adapter.page({"v1": "document"}, after=after, limit=5):
        assert len(page) <= 5
        seen += page
        after = page[-1][0]

    assert {one: number for number, one in seen} == await stored(adapter)


# --- lots --------------------------------------------------------------------------------------------------------


async def abandoned(adapter: PolicyAdapter, age: timedelta = -timedelta(days=1)) -> list[str]:
    return sorted(await adapter.list_abandoned(datetime.now(timezone.utc) - age))


async def staged(adapter: PolicyAdapter, batch_id: str, rules: Sequence[tuple[int, PolicyRule]]) -> None:
    await adapter.open_batch(batch_id, "import")
    await adapter.stage(batch_id, rules)


async def test_a_batch_is_read_by_nobody_until_it_is_published(adapter: PolicyAdapter) -> None:
    await adapter.insert([plain(1)])
    await staged(adapter, "lot", [(1, plain(2)), (2, plain(3))])
    await staged(adapter, "autre", [(1, plain(4))])

    assert await stored(adapter) == {plain(1): 1}
    assert await adapter.page({}, after=0, limit=9) == [(1, plain(1))]
    assert await stored(adapter, "lot") == {plain(2): 1, plain(3): 2}
    assert await adapter.publish("lot", 10) == 2
    assert await stored(adapter) == {plain(1): 1, plain(2): 11, plain(3): 12}


async def test_publishing_leaves_what_is_already_in_force(adapter: PolicyAdapter) -> None:
    await adapter.insert([plain(1), plain(2)])
    await staged(adapter, "lot", [(1, plain(3)), (2, plain(2)), (3, plain(4))])

    assert await adapter.publish("lot", 10) == 2

    assert await stored(adapter) == {plain(1): 1, plain(2): 2, plain(3): 11, plain(4): 13}


async def test_pruning_keeps_the_first_of_what_is_repeated(adapter: PolicyAdapter) -> None:
    numbered = [(1, plain(1)), (2, plain(2)), (3, plain(1)), (4, plain(3)), (5, plain(1)), (6, plain(2))]
    await staged(adapter, "lot", numbered)
    await staged(adapter, "autre", [(1, plain(1))])

    await adapter.prune("lot")

    assert await stored(adapter, "lot") == {plain(1): 1, plain(2): 2, plain(3): 4}
    assert await stored(adapter, "autre") == {plain(1): 1}


async def test_a_large_batch_comes_back_and_is_published_in_order(storage: Storage) -> None:
    adapter, rules = storage.adapter, [*map(plain, range(2 * PACKET + 5))]
    await adapter.open_batch("lot", "import")
    for start in range(0, len(rules), PACKET):
        part = rules[start : start + PACKET]
        await adapter.stage("lot", [*enumerate(part, start=start + 1)])

    async with storage.database.transaction(log=True):
        assert await adapter.publish("lot", 0) == len(rules)

    assert await stored(adapter) == await stored(adapter, "lot") == {one: n + 1 for n, one in enumerate(rules)}


async def test_only_an_open_batch_left_for_long_is_abandoned(adapter: PolicyAdapter) -> None:
    for name in ("ouvert", "définitif"):
        await staged(adapter, name, [(1, plain(1))])
    await adapter.seal("définitif")

    assert await abandoned(adapter) == ["ouvert"]
    assert await abandoned(adapter, timedelta(hours=1)) == []


async def test_a_dropped_batch_is_gone_and_a_sealed_one_stays(adapter: PolicyAdapter) -> None:
    for name in ("ouvert", "définitif", "voisin"):
        await staged(adapter, name, [(1, plain(1))])
    await adapter.seal("définitif")

    for name in ("ouvert", "définitif", "inconnu"):
        await adapter.drop(name)

    assert await stored(adapter, "ouvert") == {}
    assert await stored(adapter, "définitif") == await stored(adapter, "voisin") == {plain(1): 1}
    assert await abandoned(adapter) == ["voisin"]


async def test_a_released_batch_may_be_dropped(adapter: PolicyAdapter) -> None:
    await staged(adapter, "lot", [(1, plain(1))])
    await adapter.seal("lot")

    await adapter.release(["lot", "inconnu"])
    assert await abandoned(adapter) == ["lot"]
    await adapter.drop("lot")

    assert await stored(adapter, "lot") == {}


async def test_a_batch_swept_away_cannot_be_sealed(adapter: PolicyAdapter) -> None:
    await staged(adapter, "lot", [(1, plain(1))])
    await adapter.drop("lot")

    with pytest.raises(DatabaseUnavailableError):
        await adapter.seal("lot")


# --- lignes écrites à la main ------------------------------------------------------------------------------------


async def test_a_rule_written_by_hand_is_removed_by_its_values(storage: Storage) -> None:
    await write_row(storage, "p", plain(1).values)
    await storage.adapter.insert([plain(2)])

    await storage.adapter.delete([plain(1)])

    assert list(await stored(storage.adapter)) == [plain(2)]


async def test_a_twin_written_by_hand_leaves_with_the_rule_it_repeats(storage: Storage) -> None:
    await storage.adapter.insert([plain(1), plain(2)])
    await write_row(storage, "p", plain(1).values)

    await storage.adapter.delete([plain(1)], by_value=True)

    assert list(await stored(storage.adapter)) == [plain(2)]


async def test_a_look_alike_written_by_hand_stays(storage: Storage) -> None:
    await write_row(storage, "p", ("user:alice ", "document", "read", "allow"))
    await write_row(storage, "p", ("user:Alice", "document", "read", "allow"), "y" * 64)
    await write_row(storage, "p", ("user:alice", "document", "read", "allow", "more"), "z" * 64)

    with pytest.raises(RuleNotFoundError):
        await storage.adapter.delete([rule("user:alice", "document", "read", "allow")])
    with pytest.raises(RuleNotFoundError):
        await storage.adapter.delete([rule("user:alice", "document", "read")], by_value=True)

    assert len(await stored(storage.adapter)) == 3


async def test_any_line_may_be_taken_out_by_its_number(storage: Storage) -> None:
    await storage.adapter.insert([plain(1)])
    number = await write_row(storage, "zz", ("une", "deux"))

    row = await storage.adapter.take(number)

    expected = {"id": number, "ptype": "zz", "v0": "une", "v1": "deux", "v2": None, "v3": None, "v4": None, "v5": None}
    assert dict(row) == expected
    for unknown in (number, 0, -1, "x", "65f000000000000000000000"):
        with pytest.raises(RuleNotFoundError):
            await storage.adapter.take(unknown)
    assert list(await stored(storage.adapter)) == [plain(1)]


# --- l'interface de Casbin ---------------------------------------------------------------------------------------


def model() -> Model:
    loaded = Model()
    loaded.load_model_from_text(read_packaged_model("rbac"))
    return loaded


async def test_the_interface_of_casbin_writes_exact_rows(adapter: PolicyAdapter) -> None:
    first, second, third = (list(plain(number).values) for number in range(3))

    await adapter.add_policy("p", "p", first)
    await adapter.add_policies("p", "p", [second, third])
    await adapter.add_policy("g", "g", ["user:ada", "role:r0"])
    assert not await adapter.remove_policies("p", "p", [first, ["absente"]])
    assert not await adapter.remove_policy("p", "p", first[:3])
    assert not await adapter.remove_policy("p", "p", [*first, ""])
    assert await adapter.remove_policy("p", "p", second)

    assert list(await stored(adapter)) == [plain(0), plain(2), rule("user:ada", "role:r0", ptype="g")]


async def test_a_replaced_rule_keeps_its_number(adapter: PolicyAdapter) -> None:
    await adapter.insert([*map(plain, range(4))])

    await adapter.update_policy("p", "p", plain(1).values, plain(7).values)
    await adapter.update_policies("p", "p", [plain(0).values, plain(3).values], [plain(3).values, plain(0).values])

    assert await stored(adapter) == {plain(3): 1, plain(7): 2, plain(2): 3, plain(0): 4}


@pytest.mark.parametrize(("old", "new"), [([8], [9]), ([0], [1]), ([0, 8], [7, 9]), ([0, 1], [7, 2]), ([0, 1], [7, 7])])
async def test_a_replacement_that_cannot_be_made_changes_nothing(
    adapter: PolicyAdapter, old: list[int], new: list[int]
) -> None:
    await adapter.insert([*map(plain, range(4))])
    before = await stored(adapter)

    with pytest.raises((RuleAlreadyExistsError, RuleNotFoundError)):
        await adapter.update_policies("p", "p", [plain(n).values for n in old], [plain(n).values for n in new])

    assert await stored(adapter) == before


async def test_a_filtered_removal_takes_what_the_filter_says_and_an_empty_one_nothing(adapter: PolicyAdapter) -> None:
    rules = [rule("a", "b", "c"), rule("a", "x", "c"), rule("A", "b", "c"), rule("a", "b", "d"), rule("a ", "b", "c")]
    await adapter.insert(rules)

    assert not await adapter.remove_filtered_policy("p", "p", 0, "", "", "")
    assert not await adapter.remove_filtered_policy("p", "p", 0, "%")
    assert not await adapter.remove_filtered_policy("p", "p2", 0, "a")
    assert await adapter.remove_filtered_policy("p", "p", 0, "a", "b")
    assert list(await stored(adapter)) == [rules[1], rules[2], rules[4]]
    assert await adapter.remove_filtered_policy("p", "p", 1, "", "c")

    assert await stored(adapter) == {}


async def test_a_filtered_replacement_gives_back_what_it_replaced(adapter: PolicyAdapter) -> None:
    await adapter.insert([rule("a", "b"), rule("a", "c"), rule("b", "b")])

    old = await adapter.update_filtered_policies("p", "p", [["z", "z"]], 0, "a")
    none = await adapter.update_filtered_policies("p", "p", [["y", "y"]], 0, "absente")

    assert (old, none) == ([["a", "b"], ["a", "c"]], [])
    assert await stored(adapter) == {rule("b", "b"): 3, rule("z", "z"): 4}


async def test_rules_go_to_the_model_as_lists_and_come_back_the_same(adapter: PolicyAdapter) -> None:
    odd = [rule(value, "a, b", "]", "allow") for value in ("mallory, admin", 'x"y', " bords ", "😀")]
    links = [rule("mallory, admin", "role:r", ptype="g")]
    await adapter.insert([*odd, *links])
    loaded = model()

    await adapter.load_policy(loaded)
    await adapter.save_policy(loaded)

    assert list(loaded["p"]["p"].policy) == [list(one.values) for one in odd]
    assert list(await stored(adapter)) == [*odd, *links]


async def test_a_model_that_cannot_be_saved_leaves_the_rules_as_they_were(adapter: PolicyAdapter) -> None:
    kept = [*map(plain, range(3))]
    await adapter.insert(kept)
    repeated = model()
    repeated["p"]["p"].policy += [list(plain(7).values)] * 2

    with pytest.raises(RuleAlreadyExistsError):
        await adapter.save_policy(repeated)

    assert list(await stored(adapter)) == kept


async def test_a_filtered_load_takes_the_rows_that_fit(adapter: PolicyAdapter) -> None:
    await adapter.insert([*map(plain, range(3)), rule("user:ada", "role:r1", ptype="g")])
    loaded = model()
    wanted = type("Filter", (), {"ptype": ["p"], "v0": ["role:r1", "role:r2"]} | {f"v{n}": [] for n in range(1, 6)})

    await adapter.load_filtered_policy(loaded, wanted)

    assert list(loaded["p"]["p"].policy) == [list(plain(1).values), list(plain(2).values)]
    assert list(loaded["g"]["g"].policy) == []
    assert adapter.is_filtered()
