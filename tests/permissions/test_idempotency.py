from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.app import Client, protected

PATH = "/api/v1/admin/permissions/rules"
RULE = {"ptype": "p", "values": ["role:reader", "document", "read", "allow"]}
OTHER = {"ptype": "p", "values": ["role:reader", "document", "write", "allow"]}


@pytest.fixture
async def admin(database_settings: dict[str, Any]) -> AsyncIterator[Client]:
    async with protected(**database_settings) as visitor:
        yield await visitor.admin()


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def test_a_write_sent_again_under_its_key_has_the_same_answer_and_is_one_change(admin: Client) -> None:
    sent = {"json": {"rules": [RULE]}, "headers": keyed("ajout-1")}
    first = await admin.post(PATH, **sent)
    await admin.post(PATH, json={"rules": [OTHER]})

    again = await admin.post(PATH, **sent)

    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert first.status_code == 201
    assert admin.manager.get_replica().revision == first.json()["revision"] + 1


async def test_each_kind_of_write_takes_a_key(admin: Client) -> None:
    await admin.post(PATH, json={"rules": [RULE]})
    replace = {"json": {"old": RULE, "new": OTHER}, "headers": keyed("k1")}
    remove = {"json": {"rules": [OTHER]}, "headers": keyed("k2")}

    answers = [await admin.put(PATH, **replace), await admin.put(PATH, **replace)]
    answers += [await admin.delete(PATH, **remove), await admin.delete(PATH, **remove)]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.json()["revision"] for answer in answers] == [3 + 2, 5, 6, 6]


async def test_a_key_that_served_another_request_is_refused(admin: Client) -> None:
    await admin.post(PATH, json={"rules": [RULE]}, headers=keyed("k"))

    body = await admin.post(PATH, json={"rules": [OTHER]}, headers=keyed("k"))
    method = await admin.delete(PATH, json={"rules": [RULE]}, headers=keyed("k"))

    for answer in (body, method):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert not (await admin.get(PATH, params={"v2": "write"})).json()["items"]


async def test_a_key_is_its_authors_own(admin: Client) -> None:
    everything = ("p", "role:second", "*", "*", "allow")
    other = await admin.newcomer("seconde")
    await admin.add_rules(everything, ("g", f"user:{other.id}", "role:second"))
    await admin.post(PATH, json={"rules": [RULE]}, headers=keyed("k"))

    theirs = await other.post(PATH, json={"rules": [OTHER]}, headers=keyed("k"))

    assert theirs.status_code == 201


async def test_a_failed_write_does_not_spend_its_key(admin: Client) -> None:
    missing = await admin.delete(PATH, json={"rules": [RULE]}, headers=keyed("k"))

    assert missing.status_code == 404
    assert (await admin.post(PATH, json={"rules": [RULE]}, headers=keyed("k"))).status_code == 201


async def test_a_write_sent_twice_at_once_is_one_change(admin: Client) -> None:
    sent = {"json": {"rules": [RULE]}, "headers": keyed("k")}

    answers = await asyncio.gather(*(admin.post(PATH, **sent) for _ in range(8)))

    assert {(answer.status_code, answer.json()["revision"]) for answer in answers} == {(201, 4)}


@pytest.mark.parametrize("key", ["", " ", "é", "x" * 65, "a b", "a\tb"])
async def test_a_key_is_one_to_sixty_four_printable_ascii_characters(sqlite_uri: str, key: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        admin = await visitor.admin()

        answer = await admin.post(PATH, json={"rules": [RULE]}, headers={b"idempotency-key": key.encode()})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
