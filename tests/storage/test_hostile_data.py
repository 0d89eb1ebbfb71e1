"""Ce que personne n'a écrit par nous : jamais une erreur sans nom, jamais une porte ouverte, et un redémarrage part."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest

from fastapi_acl.runtime.composition import Composition
from fastapi_acl.shared.database.mongodb import MongoDatabase
from fastapi_acl.shared.database.postgresql import COPY_FROM
from fastapi_acl.shared.exceptions import (
    ConfigurationError,
    DatabaseUnavailableError,
    PolicyUnavailableError,
    PolicyUnreadableError,
    StoredDataError,
)
from fastapi_acl.shared.identity import SYSTEM
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.changes import SESSION_REVOKED
from tests.conftest import DATABASES
from tests.storage.conftest import Base, agreed, base_of, rule, share_of
from tests.support import byhand
from tests.support.rules import stored
from tests.support.waits import insisted
from tests.support.wounds import ABSENT, RELAXED, Lost, Wound


@pytest.fixture(params=DATABASES)
def designated(request: pytest.FixtureRequest) -> Base:
    """Chaque vraie base : c'est dans ses tables qu'une main étrangère écrit."""
    return base_of(request, request.param)


async def add(process: Composition, *rules: PolicyRule) -> None:
    await process.store.change(PolicyChange(added=rules))


def added(*items: Any) -> str:
    """Rend le contenu d'une entrée qui ajouterait ceci."""
    return json.dumps({"added": items, "removed": []})


VALUES = ["role:r", "doc", "read", "allow"]
SPOILT = [
    "{",
    "null",
    "[]",
    '"texte"',
    "7",
    "{}",
    '{"added": 7, "removed": []}',
    '{"added": {}, "removed": []}',
    added(7),
    added({"ptype": "p"}),
    added({"ptype": "p", "values": "abcd"}),
    added({"ptype": "p", "values": ["a", 7, None]}),
    added({"ptype": "p", "values": VALUES, "id": "x"}),
    added({"ptype": "p", "values": VALUES, "id": 10**30}),
    added({"ptype": "p", "values": VALUES, "id": float("nan")}),
    added({"ptype": "p", "values": VALUES, "id": 9}, {"ptype": "p", "values": ["role:u", *VALUES[1:]]}),
    added({"ptype": "p", "values": ["\ud800", *VALUES[1:]], "id": 9}),
    added({"ptype": "p", "values": ["a\x00b", *VALUES[1:]], "id": 9}),
    '{"a":' + "9" * 5_000 + "}",
    "[" * 100_000,
    "é" * 50,
]


SPOILT_ON = [
    pytest.param(kind, payload, id=f"{kind}-{place}")
    for kind in DATABASES
    for place, payload in enumerate(SPOILT)
    if kind == "sqlite" or payload in share_of(kind, SPOILT)
]
"""Toutes sur SQLite, et chacune sur un des serveurs : ce qui se lit est le même texte, d'où qu'il vienne."""


@pytest.mark.parametrize(("designated", "payload"), SPOILT_ON, indirect=["designated"])
async def test_an_entry_that_cannot_be_read_makes_all_be_read_again(
    base: Base, process: Composition, twin: Composition, payload: str
) -> None:
    kept, last = rule("role:r", "doc", "read", "allow"), rule("role:s", "doc", "read", "allow")
    await add(process, kept)
    await twin.replica.refresh()
    await add(process, last)
    await byhand.spoil_last_entry(process.storage, payload)

    for _ in range(2):  # le premier regard peut ne voir que la faute, le second relit tout
        await twin.replica.refresh()
    restarted = await base.process()
    await add(twin, rule("role:t", "doc", "read", "allow"))

    assert list(await agreed(process, twin, restarted)) == [kept, last, rule("role:t", "doc", "read", "allow")]
    assert (twin.replica.unreadable, restarted.replica.unreadable) == ("", "")
    spoilt = process.replica.revision - 1
    assert set(await process.history.rules_at(spoilt - 1)) == {kept}
    for revision in (spoilt, spoilt + 1):  # nul ne sait ce que l'entrée avait changé : l'histoire s'arrête avant elle
        with pytest.raises(StoredDataError, match="acl_changes"):
            await process.history.rules_at(revision)
        with pytest.raises(StoredDataError, match="acl_changes"):
            await process.history.rollback(revision)
    with pytest.raises(StoredDataError, match="acl_changes"):
        await process.history.compact(older_than=timedelta(seconds=-1))


@pytest.mark.parametrize("payload", ["{", "{}", '{"session_id": 7}', "[]"])
async def test_a_live_revocation_that_cannot_be_read_opens_nothing(
    base: Base, process: Composition, payload: str
) -> None:
    until = datetime.now(timezone.utc) + timedelta(minutes=5)
    async with process.replica.writing() as transaction:
        said = {"session_id": "s"}
        await process.replica.record(transaction, SESSION_REVOKED, said, actor=SYSTEM, live_until=until)
    await byhand.spoil_last_entry(process.storage, payload)
    newcomer = base.storage()
    await newcomer.database.migrate()

    with pytest.raises(PolicyUnreadableError):
        await base.process()

    process.replica.require_fresh(60)


async def test_a_log_without_its_head_is_told_and_a_restart_gives_it_another(base: Base, process: Composition) -> None:
    kept = rule("role:r", "doc", "read", "allow")
    await add(process, kept)
    known = process.replica._at
    await byhand.empty_head(process.storage)

    with pytest.raises(DatabaseUnavailableError, match="acl_revision"):
        await process.replica.refresh()
    with pytest.raises(DatabaseUnavailableError, match="acl_revision"):
        await add(process, rule("role:s", "doc", "read", "allow"))

    restarted = await base.process()
    await add(restarted, rule("role:t", "doc", "read", "allow"))
    assert known is not None
    assert restarted.replica._at is not None
    assert restarted.replica._at.log_id != known.log_id
    assert restarted.replica.revision == known.revision + 1
    assert list(await agreed(process, restarted)) == [kept, rule("role:t", "doc", "read", "allow")]


async def test_what_is_unreadable_grows_old_until_nothing_is_decided(process: Composition) -> None:
    await byhand.empty_head(process.storage)
    with pytest.raises(DatabaseUnavailableError):
        await process.replica.refresh()

    process.replica._seen_at -= 31
    with pytest.raises(PolicyUnavailableError):
        process.replica.require_fresh(30)


@pytest.mark.parametrize("designated", [kind for kind in DATABASES if kind == "mongodb"], indirect=True)
async def test_indexes_lost_by_a_restore_are_made_again_or_refused(base: Base) -> None:
    storage = base.storage()
    database: Any = storage.database
    assert isinstance(database, MongoDatabase)
    await database.migrate()
    users = database.collection("acl_users")
    await users.drop_indexes()
    await base.storage().database.migrate()
    assert "username_key_1" in await users.index_information()

    await users.drop_indexes()
    await users.insert_many([{"_id": number, "username_key": "ada"} for number in range(4)])
    with pytest.raises(ConfigurationError, match=r"acl_users.*doublons"):
        await base.storage().database.migrate()


async def test_a_kind_nobody_knows_makes_all_be_read_again(process: Composition, twin: Composition) -> None:
    await add(process, rule("role:r", "doc", "read", "allow"))
    await twin.replica.refresh()
    await add(process, rule("role:s", "doc", "read", "allow"))
    await Wound("acl_changes", "kind", "inconnue").inflict(process.storage)

    reloads = twin.replica.reloads
    await agreed(process, twin)

    assert twin.replica.reloads == reloads + 1
    with pytest.raises(StoredDataError, match="acl_changes"):
        await twin.history.rules_at(twin.replica.revision)


@pytest.mark.parametrize("column", ["ptype", "digest"])
async def test_a_batch_that_lost_its_rules_rebuilds_no_history(process: Composition, column: str) -> None:
    await add(process, rule("role:r", "doc", "read", "allow"), rule("role:s", "doc", "read", "allow"))
    await process.history.compact(older_than=timedelta(seconds=-1))
    revision = process.replica.revision
    assert len(await process.history.rules_at(revision)) == 2
    await (Wound("acl_batch_rules", column, ABSENT) if column == "ptype" else Lost("acl_batch_rules")).inflict(
        process.storage
    )

    for call in (process.history.rules_at, process.history.rollback):
        with pytest.raises(StoredDataError, match="acl_batch_rules"):
            await insisted(partial(call, revision))
    with pytest.raises(StoredDataError, match="acl_batch_rules"):
        await process.history.compact(older_than=timedelta(seconds=-1))
    assert len(process.policy.rules) == 2


async def test_a_head_that_is_made_again_still_knows_the_last_compaction(base: Base, process: Composition) -> None:
    first, second = rule("role:r", "doc", "read", "allow"), rule("role:s", "doc", "read", "allow")
    await add(process, first)
    await process.history.compact(older_than=timedelta(seconds=-1))
    compacted = process.replica.revision
    await add(process, second)
    await byhand.empty_head(process.storage)

    restarted = await base.process()

    assert set(await restarted.history.rules_at(compacted)) == {first}
    assert set(await restarted.history.rules_at(restarted.replica.revision)) == {first, second}
    await restarted.history.compact(older_than=timedelta(seconds=-1))
    assert set(await restarted.history.rules_at(restarted.replica.revision)) == {first, second}


@pytest.mark.parametrize("count", [2, COPY_FROM + 1])
@pytest.mark.parametrize("spoilt", ["se répète", "numéro pris", "sans empreinte"])
async def test_a_batch_where_a_hand_was_is_told_and_nothing_else_is_refused(
    base: Base, process: Composition, spoilt: str, count: int
) -> None:
    await add(process, rule("role:r", "doc", "read", "allow"))
    adapter, kept = process.storage.adapter, await stored(process.storage.adapter)
    staged = [(number, rule(f"role:{number}", "doc", "read", "allow")) for number in range(1, count + 1)]
    if spoilt == "se répète":
        staged[-1] = (count, staged[0][1])
    await adapter.open_batch("lot", "import")
    await adapter.stage("lot", staged)
    if spoilt == "sans empreinte":
        await Wound("acl_batch_rules", "digest", ABSENT).inflict(process.storage)

    async def publish() -> None:
        async with process.database.transaction():
            if spoilt == "sans empreinte":
                await adapter.prune("lot")
            await adapter.publish("lot", 0 if spoilt == "numéro pris" else 10)

    with pytest.raises(StoredDataError):
        await insisted(publish)

    assert not process.database.is_refusing
    assert await stored(adapter) == kept
    await add(process, rule("role:t", "doc", "read", "allow"))
    await agreed(process, await base.process())


@pytest.mark.parametrize(("column", "value"), [("revision", "x"), ("compacted", ABSENT), ("rule_id", 2**63 - 1)])
async def test_a_head_that_cannot_be_read_is_told_until_all_is_read_again(
    base: Base, process: Composition, column: str, value: Any
) -> None:
    kept = rule("role:r", "doc", "read", "allow")
    await add(process, kept)
    await Wound("acl_revision", column, value).inflict(process.storage)

    for call in (
        process.replica.refresh,
        process.replica.reload,
        lambda: add(process, rule("role:s", "doc", "read", "allow")),
    ):
        with pytest.raises(StoredDataError, match=rf"acl_revision\.{column}"):
            await insisted(call)  # une colonne d'un autre type refait d'abord l'instruction préparée
    with pytest.raises(StoredDataError, match="acl_revision"):
        await base.process()
    assert process.replica.unreadable == "acl_revision"

    await byhand.empty_head(process.storage)
    if base.kind in RELAXED and column != "rule_id":  # la main a aussi changé le type de la colonne
        with pytest.raises(StoredDataError, match="acl_revision"):
            await base.process()
        return
    restarted = await base.process()
    assert list(await agreed(process, restarted)) == [kept]
    assert process.replica.unreadable == ""
