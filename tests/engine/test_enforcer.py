from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import casbin
import pytest
from casbin.model import Model
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_acl import ACLManager, ConfigurationError, PolicyChange, PolicyEnforcer, PolicyRule, Principal
from fastapi_acl.engine.adapters.base import digest
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.engine.casbin.trial import Lexicon
from fastapi_acl.engine.kernel.acl_match import acl_match, covers, is_pattern, overlaps
from fastapi_acl.engine.kernel.schema import PolicySchema
from fastapi_acl.shared.exceptions import (
    DecisionFailedError,
    InvalidRuleError,
    PolicyUnavailableError,
    PolicyUnreadableError,
    RuleAlreadyExistsError,
    RuleNotFoundError,
)
from tests.support.app import config
from tests.support.byhand import advance_revision, write_row
from tests.support.engines import strict_enforcer
from tests.support.rules import stored as in_database
from tests.support.waits import until

MODELS = ["rbac", "rbac_with_domains", "abac", "acl", "rest"]
READ = PolicyRule("p", ("role:reader", "document", "read", "allow"))
ADA = PolicyRule("g", ("user:ada", "role:reader"))


def model(name: str = "rbac") -> Model:
    loaded = Model()
    loaded.load_model_from_text(read_packaged_model(name))
    return loaded


def strict(*rules: PolicyRule, name: str = "rbac") -> PolicyEnforcer:
    enforcer = strict_enforcer(model(name))
    enforcer.policy.install(rules)
    return enforcer


@pytest.fixture
async def manager(database_settings: dict[str, Any]) -> AsyncIterator[ACLManager]:
    manager = ACLManager(config(create_default_admin=False, **database_settings))
    await manager.initialize()
    await until(lambda: manager.is_ready)
    yield manager
    await manager.close()


async def stored(manager: ACLManager) -> set[PolicyRule]:
    return set(await in_database(manager._parts.storage.adapter))


# --- décider ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_an_empty_policy_allows_nothing(name: str) -> None:
    enforcer = strict(name=name)
    size = len(enforcer.policy.schema.request)

    asked = [[word] * size for word in ("", "*", "a", "role:admin", "allow", ":*")]

    assert not any(enforcer.enforce(*values) for values in asked)


def test_an_unloaded_policy_is_an_error_and_not_an_answer() -> None:
    with pytest.raises(PolicyUnavailableError):
        strict_enforcer(model()).enforce("user:ada", "document", "read")


def test_a_deny_overrides_every_allow() -> None:
    deny = PolicyRule("p", ("user:ada", "document", "read", "deny"))

    assert strict(READ, ADA).enforce("user:ada", "document", "read")
    assert not strict(READ, ADA, deny).enforce("user:ada", "document", "read")
    assert not strict(deny, READ, ADA).enforce("user:ada", "document", "read")


@pytest.mark.parametrize("values", [(), ("user:ada",), ("user:ada", "document", "read", "more")])
def test_a_question_of_the_wrong_size_is_an_error(values: tuple[str, ...]) -> None:
    with pytest.raises(DecisionFailedError):
        strict(READ, ADA).enforce(*values)


def test_an_object_that_was_not_loaded_is_owned_by_nobody_for_an_allow_and_by_all_for_a_deny() -> None:
    own = PolicyRule("p", ("user:ada", "document", "read", "own", "allow"))
    every = PolicyRule("p", ("user:ada", "document", "read", "*", "allow"))
    never = PolicyRule("p", ("user:ada", "document", "read", "own", "deny"))

    assert not strict(own, name="abac").enforce("user:ada", "document", "read")
    assert strict(own, every, name="abac").enforce("user:ada", "document", "read")
    assert not strict(every, never, name="abac").enforce("user:ada", "document", "read")


def test_a_denied_question_is_not_written_to_any_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        strict(READ).enforce("user:planted", "document", "read")

    assert "planted" not in caplog.text


def test_building_an_enforcer_leaves_the_loggers_of_casbin_as_they_were() -> None:
    logger = logging.getLogger("casbin.enforcer")
    logger.disabled = False

    strict(READ)

    assert not logger.disabled


@pytest.mark.parametrize(
    "call",
    [
        lambda e: e.enable_enforce(False),
        lambda e: e.enable_auto_save(False),
        lambda e: e.set_model(model()),
        lambda e: e.load_model(),
        lambda e: e.clear_policy(),
        lambda e: asyncio.run(e.save_policy()),
        lambda e: asyncio.run(e.load_filtered_policy(None)),
        lambda e: asyncio.run(e.load_increment_filtered_policy(None)),
        lambda e: asyncio.run(e.add_policy("role:a", "b", "c", "allow")),
    ],
)
def test_what_would_open_access_or_bypass_the_database_is_refused(call: Any) -> None:
    with pytest.raises(ConfigurationError):
        call(strict(READ))


# --- nu, comme l'original ---------------------------------------------------------------------------------------

STOCK_MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
"""


async def test_a_bare_enforcer_answers_as_stock_does() -> None:
    def built(kind: type[casbin.AsyncEnforcer]) -> casbin.AsyncEnforcer:
        return kind(casbin.AsyncEnforcer.new_model(text=STOCK_MODEL))

    async def answers(enforcer: casbin.AsyncEnforcer) -> list[Any]:
        return [
            enforcer.enforce("", "", ""),
            await enforcer.add_policy("reader", "doc", "read"),
            await enforcer.add_policy("reader", "doc", "read"),
            await enforcer.add_policies([["writer", "doc", "write"], ["writer", "doc", "read"]]),
            await enforcer.add_grouping_policy("ada", "reader"),
            await enforcer.add_grouping_policies([["bob", "writer"], ["eve", "writer"]]),
            enforcer.enforce_ex("ada", "doc", "read"),
            enforcer.enforce_ex("ada", "doc", "write"),
            enforcer.batch_enforce([["bob", "doc", "write"], ["ada", "doc", "write"]]),
            await enforcer.update_policy(["reader", "doc", "read"], ["reader", "doc", "list"]),
            await enforcer.update_policies([["writer", "doc", "read"]], [["writer", "doc", "list"]]),
            await enforcer.update_filtered_policies([["writer", "x", "y"]], 0, "writer"),
            await enforcer.remove_policy("reader", "doc", "list"),
            await enforcer.remove_policies([["writer", "x", "y"]]),
            await enforcer.remove_filtered_grouping_policy(0, "bob"),
            await enforcer.remove_filtered_policy(0, "nobody"),
            enforcer.get_policy(),
            enforcer.get_grouping_policy(),
        ]

    ours, stock = await answers(built(PolicyEnforcer)), await answers(built(casbin.AsyncEnforcer))

    assert [tuple(a) if isinstance(a, (list, tuple)) else a for a in ours] == [
        tuple(a) if isinstance(a, (list, tuple)) else a for a in stock
    ]


# --- écrire ----------------------------------------------------------------------------------------------------


async def test_the_management_api_writes_the_database_then_the_memory(manager: ACLManager) -> None:
    enforcer = manager.get_enforcer()
    answers = [
        await enforcer.add_policy("role:reader", "document", "read", "allow"),
        await enforcer.add_policy("role:reader", "document", "read", "allow"),
        await enforcer.add_policies([["role:a", "x", "read", "allow"], ["role:b", "x", "read", "allow"]]),
        await enforcer.add_policies([["role:c", "x", "read", "allow"], ["role:b", "x", "read", "allow"]]),
        await enforcer.add_grouping_policies([["user:ada", "role:reader"], ["user:bob", "role:a"]]),
        await enforcer.add_role_for_user("user:eve", "role:a"),
        await enforcer.update_policy(["role:a", "x", "read", "allow"], ["role:a", "x", "write", "allow"]),
        await enforcer.update_policy(["role:z", "x", "read", "allow"], ["role:z", "x", "write", "allow"]),
        await enforcer.update_filtered_policies([["role:b", "y", "read", "allow"]], 0, "role:b"),
        await enforcer.remove_policy("role:z", "x", "read", "allow"),
        await enforcer.remove_policies([["role:a", "x", "write", "allow"]]),
        await enforcer.remove_filtered_policy(0, "role:b"),
        await enforcer.delete_user("user:bob"),
        await enforcer.remove_grouping_policies([["user:eve", "role:a"]]),
    ]

    expected = {READ, ADA}
    assert [bool(answer) for answer in answers] == [
        *(True, False, True, False, True, True, True, False, True, False, True, True, True, True)
    ]
    assert set(enforcer.policy.rules) == await stored(manager) == expected
    assert enforcer.enforce("user:ada", "document", "read")


async def test_the_management_api_reads_what_is_in_force(manager: ACLManager) -> None:
    enforcer = manager.get_enforcer()
    parent = PolicyRule("g", ("role:reader", "role:base"))
    await manager.get_policy_store().change(PolicyChange(added=(READ, ADA, parent)))

    answers = [
        enforcer.get_policy(),
        enforcer.get_grouping_policy(),
        enforcer.has_policy("role:reader", "document", "read", "allow"),
        enforcer.has_policy("role:reader", "document", "write", "allow"),
        enforcer.has_grouping_policy("user:ada", "role:reader"),
        enforcer.get_filtered_policy(1, "document"),
        enforcer.get_all_subjects(),
        enforcer.get_all_roles(),
        await enforcer.get_roles_for_user("user:ada"),
        await enforcer.get_users_for_role("role:reader"),
        await enforcer.has_role_for_user("user:ada", "role:base"),
        await enforcer.get_implicit_roles_for_user("user:ada"),
        await enforcer.get_implicit_permissions_for_user("user:ada"),
        await enforcer.get_permissions_for_user("role:reader"),
        await enforcer.get_implicit_users_for_permission("document", "read"),
        enforcer.batch_enforce([["user:ada", "document", "read"], ["user:ada", "document", "write"]]),
        enforcer.enforce_ex("user:ada", "document", "read"),
    ]

    assert answers == [
        [list(READ.values)],
        [list(ADA.values), list(parent.values)],
        True,
        False,
        True,
        [list(READ.values)],
        ["role:reader"],
        ["role:reader", "role:base"],
        ["role:reader"],
        ["user:ada"],
        False,
        ["role:reader", "role:base"],
        [list(READ.values)],
        [list(READ.values)],
        ["user:ada"],
        [True, False],
        (True, list(READ.values)),
    ]


async def test_a_refused_write_changes_neither_memory_nor_database(manager: ACLManager) -> None:
    store, enforcer = manager.get_policy_store(), manager.get_enforcer()
    revision = await store.change(PolicyChange(added=(READ, ADA)))
    other = PolicyRule("p", ("role:x", "y", "z", "allow"))

    for change, error in [
        (PolicyChange(), InvalidRuleError),
        (PolicyChange(added=(other, other)), InvalidRuleError),
        (PolicyChange(added=(READ,), removed=(READ,)), InvalidRuleError),
        (PolicyChange(added=(other, READ)), RuleAlreadyExistsError),
        (PolicyChange(removed=(READ, other)), RuleNotFoundError),
        (PolicyChange(added=(other, PolicyRule("p", ("role:x",)))), InvalidRuleError),
        (PolicyChange(added=(PolicyRule("g", ("user:@ada", "role:x")),)), InvalidRuleError),
    ]:
        with pytest.raises(error):
            await store.change(change)

    assert set(enforcer.policy.rules) == await stored(manager) == {READ, ADA}
    assert manager.get_replica().revision == revision


async def test_a_rolled_back_outer_transaction_leaves_the_memory_as_it_was(manager: ACLManager) -> None:
    store, enforcer = manager.get_policy_store(), manager.get_enforcer()
    before = manager.get_replica().revision

    with pytest.raises(ZeroDivisionError):
        async with manager._parts.database.transaction(log=True):
            await store.change(PolicyChange(added=(READ, ADA)))
            assert enforcer.policy.rules == ()
            _ = 1 / 0
    kept = enforcer.policy.rules
    async with manager._parts.database.transaction(log=True):
        await store.change(PolicyChange(added=(READ,)))
        await store.change(PolicyChange(added=(ADA,)))

    assert kept == ()
    assert set(enforcer.policy.rules) == await stored(manager) == {READ, ADA}
    assert manager.get_replica().revision == before + 2


async def test_concurrent_writers_of_one_process_leave_memory_equal_to_database(manager: ACLManager) -> None:
    store = manager.get_policy_store()
    rules = [PolicyRule("p", (f"role:r{index}", "x", "read", "allow")) for index in range(20)]

    await asyncio.gather(*(store.change(PolicyChange(added=(rule,))) for rule in rules))
    same = await asyncio.gather(
        *(store.change(PolicyChange(removed=(rules[0],))) for _ in range(5)), return_exceptions=True
    )

    assert sum(isinstance(answer, RuleNotFoundError) for answer in same) == 4
    assert set(manager.get_policy().rules) == await stored(manager) == set(rules[1:])


async def test_a_cancelled_write_leaves_memory_equal_to_database(manager: ACLManager) -> None:
    store = manager.get_policy_store()
    for index in range(25):
        rule = PolicyRule("p", (f"role:r{index}", "x", "read", "allow"))
        task = asyncio.create_task(store.change(PolicyChange(added=(rule,))))
        await asyncio.sleep(index / 2500)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await manager._parts.replica.refresh()

    assert set(manager.get_policy().rules) == await stored(manager)
    assert await store.change(PolicyChange(added=(READ,))), "aucun verrou n'est resté tenu"


async def test_what_another_process_writes_arrives_here(database_settings: dict[str, Any]) -> None:
    settings = config(create_default_admin=False, policy_poll_seconds=0.05, **database_settings)
    here, there = ACLManager(settings), ACLManager(settings)
    await asyncio.gather(here.initialize(), there.initialize())
    ada, before = Principal(id="ada"), there.get_replica().revision

    await there.get_policy_store().change(PolicyChange(added=(READ, ADA)))
    for _ in range(100):
        if granted := here.authorizer.decide(ada, "document", "read"):
            break
        await asyncio.sleep(0.02)
    await here.get_policy_store().change(PolicyChange(removed=(ADA,)))
    await there.get_policy_store().change(PolicyChange(added=(ADA,)))
    await there.get_policy_store().change(PolicyChange(removed=(ADA,)))
    for _ in range(100):
        revoked = not here.authorizer.decide(ada, "document", "read")
        if here.get_replica().revision == before + 4:
            break
        await asyncio.sleep(0.02)

    assert granted
    assert revoked
    assert here.get_replica().revision == there.get_replica().revision == before + 4
    await asyncio.gather(here.close(), there.close())


# --- stocker ---------------------------------------------------------------------------------------------------

VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=250)


async def test_any_string_comes_back_verbatim_or_is_refused(manager: ACLManager) -> None:
    adapter = manager._parts.storage.adapter
    hostile = [
        "mallory, admin",
        "a,b",
        '"',
        "'",
        "]",
        ")",
        "#",
        "\\",
        " a ",
        "😀",
        "é",
        "e\u0301",
        "A",
        "a",
        "NULL",
        "%",
        "_",
    ]
    rules = [PolicyRule("p", ("role:x", value, value, "allow")) for value in hostile]

    await manager.get_policy_store().change(PolicyChange(added=tuple(rules)))
    await manager.get_enforcer().load_policy()

    assert list(await in_database(adapter)) == rules
    assert list(manager.get_policy().rules) == rules


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=4, unique=True))
def test_distinct_rules_have_distinct_digests(pairs: list[tuple[str, str]]) -> None:
    rules = {PolicyRule("p", pair) for pair in pairs} | {PolicyRule("p", ("".join(pair),)) for pair in pairs}

    assert len({digest(rule) for rule in rules}) == len(rules)


async def test_removing_one_rule_leaves_its_look_alikes(manager: ACLManager) -> None:
    rules = [PolicyRule("g", (f"user:{name}", "role:x")) for name in ("alice", "Alice", "alicé", "alice😀", "alice😁")]
    store = manager.get_policy_store()
    await store.change(PolicyChange(added=tuple(rules)))

    await store.change(PolicyChange(removed=(rules[0],)))

    assert await stored(manager) == set(rules[1:])


async def test_the_adapter_serves_a_bare_enforcer(manager: ACLManager) -> None:
    adapter = manager._parts.storage.adapter
    enforcer = PolicyEnforcer(model(), adapter)

    await enforcer.add_policies([["a", "x, y", "read", "allow"], ["b", "x", "read", "allow"]])
    await enforcer.add_grouping_policy("ada", "a")
    await enforcer.update_policy(["b", "x", "read", "allow"], ["b", "z", "read", "allow"])
    await enforcer.update_filtered_policies([["c", "z", "read", "allow"]], 0, "b")
    removed = [await adapter.remove_policy("p", "p", ["zz"]), await adapter.remove_filtered_policy("p", "p", 0, "")]
    fresh = PolicyEnforcer(model(), adapter)
    await fresh.load_policy()
    await fresh.save_policy()
    await fresh.load_policy()

    assert removed == [False, False]
    assert fresh.get_policy() == [["a", "x, y", "read", "allow"], ["c", "z", "read", "allow"]]
    assert fresh.enforce("ada", "x, y", "read")


BAD_ROWS = [
    ("p", ["role:x", "y", "read", "ALLOW"], True),
    ("p", ["role:x", "y", "read"], True),
    ("p", ["role:x", "y", "read", "deny", "more"], True),
    ("g", ["user:ada", "admin"], True),
    ("zz", ["a"], True),
    ("p", ["mallory", "y", "read", "allow"], False),
    ("p", ["role:x", "*y", "read", "allow"], False),
]


@pytest.mark.parametrize(("ptype", "values", "could_deny"), BAD_ROWS)
async def test_a_bad_row_written_by_hand_opens_nothing(
    manager: ACLManager, ptype: str, values: list[str], *, could_deny: bool
) -> None:
    await manager.get_policy_store().change(PolicyChange(added=(READ, ADA)))
    await write_row(manager._parts.storage, ptype, values)
    await advance_revision(manager._parts.storage)

    if could_deny:
        with pytest.raises(PolicyUnreadableError):
            await manager._parts.replica.refresh()
    else:
        await manager._parts.replica.refresh()

    assert set(manager.get_policy().rules) == {READ, ADA}
    assert manager.authorizer.decide(Principal(id="ada"), "document", "read")


# --- comparer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "pattern", "expected"),
    [
        ("document", "document", True),
        ("document", "Document", False),
        ("document", "*", True),
        ("", "*", True),
        ("document:1", "document:*", True),
        ("document:1:2", "document:*", True),
        ("document", "document:*", False),
        ("document:", "document:*", False),
        ("documents:1", "document:*", False),
        ("document:*", "document:1", False),
        ("*", "document", False),
        ("anything", "any*", False),
        (":x", ":*", True),
    ],
)
def test_acl_match(value: str, pattern: str, *, expected: bool) -> None:
    assert acl_match(value, pattern) is expected


WORDS = st.sampled_from(["*", "a", "b", "a:*", "a:b", "a:b:*", "a:b:c", "b:*", ":*"])


@given(WORDS, WORDS, st.sampled_from(["a", "b", "a:b", "a:b:c", "a:z", "b:q", ":x", "z"]))
def test_what_covers_matches_all_and_what_matches_both_overlaps(one: str, other: str, value: str) -> None:
    if covers(one, other) and acl_match(value, other):
        assert acl_match(value, one)
    if acl_match(value, one) and acl_match(value, other):
        assert overlaps(one, other)
    assert is_pattern(one)


def test_the_schema_reads_the_packaged_models() -> None:
    models = {name: model(name) for name in MODELS}
    schemas = {name: PolicySchema.of(loaded, Lexicon.of(loaded)) for name, loaded in models.items()}

    assert schemas["rbac_with_domains"].has_domains
    assert schemas["rest"].decides_on_routes
    assert all(schema.can_deny and schema.names_rules and not schema.uses_eval for schema in schemas.values())
    assert {name: len(schema.fields["p"]) for name, schema in schemas.items()} == {
        "rbac": 4,
        "rbac_with_domains": 5,
        "abac": 5,
        "acl": 4,
        "rest": 4,
    }
