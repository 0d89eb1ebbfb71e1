"""L'histoire entière, par HTTP, sur chacune des bases."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.app import PASSWORD, Client, protected

RULES = "/api/v1/admin/permissions/rules"


@pytest.fixture
async def visitor(database_settings: dict[str, Any]) -> AsyncIterator[Client]:
    async with protected(**database_settings) as client:
        yield client


async def test_a_person_registers_is_refused_is_granted_a_role_and_enters(visitor: Client) -> None:
    ada, admin = await visitor.newcomer("ada"), await visitor.admin()
    before = await ada.get("/documents")

    granted = await admin.add_rules(
        ("p", "role:reader", "document", "read", "allow"), ("g", f"user:{ada.id}", "role:reader")
    )
    after = await ada.get("/documents")

    assert (before.status_code, before.json()["code"]) == (403, "permission_denied")
    assert (granted.status_code, granted.json()["added"]) == (201, 2)
    assert (after.status_code, after.json()) == (200, ["Bienvenue"])


async def test_a_role_taken_back_closes_the_door_at_once(visitor: Client) -> None:
    ada, admin = await visitor.newcomer("ada"), await visitor.admin()
    link = ("g", f"user:{ada.id}", "role:reader")
    await admin.add_rules(("p", "role:reader", "document", "read", "allow"), link)

    taken = await admin.remove_rules(link)

    assert taken.json()["removed"] == 1
    assert (await ada.get("/documents")).status_code == 403


async def test_two_simultaneous_registrations_of_one_name_make_one_account(visitor: Client) -> None:
    spellings = ["ada", "Ada", "ADA", "ａｄａ"]  # noqa: RUF001 - pleine chasse, exprès

    answers = await asyncio.gather(*(visitor.register(spellings[index % 4]) for index in range(20)))

    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 19}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"user_already_exists"}


async def test_one_of_fifty_simultaneous_uses_of_a_refresh_token_wins(visitor: Client) -> None:
    ada = await visitor.newcomer("ada")
    body = {"refresh_token": ada.refresh_token}

    answers = await asyncio.gather(*(visitor.insist("POST", "/api/v1/auth/refresh", json=body) for _ in range(50)))

    assert Counter(answer.status_code for answer in answers) == {200: 1, 401: 49}
    winner = next(answer for answer in answers if answer.status_code == 200).json()
    ada.token = winner["access_token"]
    assert (await ada.get("/api/v1/auth/me")).status_code == 401, "la réutilisation ferme toute la session"


async def test_a_refresh_gives_a_new_pair_and_spends_the_old_one(visitor: Client) -> None:
    ada = await visitor.newcomer("ada")

    renewed = await visitor.post("/api/v1/auth/refresh", json={"refresh_token": ada.refresh_token})
    reused = await visitor.post("/api/v1/auth/refresh", json={"refresh_token": ada.refresh_token})
    closed = await visitor.post("/api/v1/auth/refresh", json={"refresh_token": renewed.json()["refresh_token"]})

    assert renewed.json()["refresh_token"] != ada.refresh_token
    assert renewed.headers["cache-control"] == "no-store"
    assert reused.json()["code"] == "token_reused"
    assert closed.json()["code"] == "invalid_token"


async def test_access_and_refresh_tokens_are_not_interchangeable(visitor: Client) -> None:
    ada = await visitor.newcomer("ada")

    refreshed = await visitor.post("/api/v1/auth/refresh", json={"refresh_token": ada.token})
    ada.token = ada.refresh_token
    accessed = await ada.get("/api/v1/auth/me")

    assert (refreshed.status_code, accessed.status_code) == (401, 401)


@pytest.mark.parametrize("everywhere", [False, True])
async def test_logout_stops_the_access_token_at_once(visitor: Client, *, everywhere: bool) -> None:
    ada = await visitor.newcomer("ada")
    other = await visitor.login("ada")

    left = await ada.post("/api/v1/auth/logout", json={"everywhere": everywhere})

    assert left.status_code == 204
    assert (await ada.get("/api/v1/auth/me")).status_code == 401
    assert (await other.get("/api/v1/auth/me")).status_code == (401 if everywhere else 200)
    assert (await visitor.login("ada")).id == ada.id


async def test_a_deactivated_account_is_out_at_once_and_back_when_activated(visitor: Client) -> None:
    ada, admin = await visitor.newcomer("ada"), await visitor.admin()

    out = await admin.put(f"/api/v1/admin/auth/users/{ada.id}/deactivate")
    refused = await ada.get("/api/v1/auth/me")
    login = await visitor.post("/api/v1/auth/login", json={"username": "ada", "password": PASSWORD})
    wrong = await visitor.post("/api/v1/auth/login", json={"username": "ada", "password": "autre chose, bien long"})
    back = await admin.put(f"/api/v1/admin/auth/users/{ada.id}/activate")

    assert (out.json()["is_active"], back.json()["is_active"]) == (False, True)
    assert refused.status_code == 401
    assert (login.status_code, login.json()["code"]) == (403, "user_not_active")
    assert (wrong.status_code, wrong.json()["code"]) == (401, "invalid_credentials")
    assert (await ada.get("/api/v1/auth/me")).status_code == 401, "un jeton d'avant ne ressuscite pas"
    assert (await visitor.login("ada")).id == ada.id


async def test_a_deleted_account_takes_its_sessions_and_rules_with_it(visitor: Client) -> None:
    ada, admin = await visitor.newcomer("ada"), await visitor.admin()
    await admin.add_rules(("p", f"user:{ada.id}", "document", "read", "allow"))

    gone = await admin.delete(f"/api/v1/admin/auth/users/{ada.id}")

    assert gone.status_code == 204
    assert (await ada.get("/documents")).status_code == 401
    assert (await admin.get(RULES, params={"v0": f"user:{ada.id}"})).json()["items"] == []
    assert (await visitor.post("/api/v1/auth/refresh", json={"refresh_token": ada.refresh_token})).status_code == 401
    assert (await admin.delete(f"/api/v1/admin/auth/users/{ada.id}")).json()["code"] == "user_not_found"


async def test_the_last_administrator_stays(visitor: Client) -> None:
    admin = await visitor.admin()
    account = f"/api/v1/admin/auth/users/{admin.id}"

    answers = [
        await admin.put(f"{account}/deactivate"),
        await admin.delete(account),
        await admin.remove_rules(("g", f"user:{admin.id}", "role:admin")),
        await admin.remove_rules(("p", "role:admin", "*", "*", "allow")),
    ]
    denied = await admin.add_rules(("p", "role:admin", "acl.rules", "write", "deny"))

    assert (denied.status_code, denied.json()["code"]) == (403, "escalation_refused")
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(409, "last_administrator")}
    assert (await admin.get(RULES)).status_code == 200


async def test_an_administrator_leaves_once_another_is_active(visitor: Client) -> None:
    ada, admin = await visitor.newcomer("ada"), await visitor.admin()
    await admin.add_rules(("g", f"user:{ada.id}", "role:admin"))

    left = await admin.put(f"/api/v1/admin/auth/users/{admin.id}/deactivate")
    stays = await ada.put(f"/api/v1/admin/auth/users/{ada.id}/deactivate")

    assert left.status_code == 200
    assert stays.json()["code"] == "last_administrator"


async def test_nobody_grants_what_they_do_not_hold(visitor: Client) -> None:
    ada, admin = await visitor.newcomer("ada"), await visitor.admin()
    await admin.add_rules(
        ("p", "role:manager", "acl.rules", "write", "allow"),
        ("p", "role:manager", "document:*", "read", "allow"),
        ("p", "role:other", "document", "write", "deny"),
        ("g", f"user:{ada.id}", "role:manager"),
    )

    refused = [
        await ada.add_rules(("p", "role:x", "document:*", "write", "allow")),
        await ada.add_rules(("p", "role:x", "*", "read", "allow")),
        await ada.add_rules(("g", f"user:{ada.id}", "role:admin")),
        await ada.add_rules(("p", "role:late", "secret", "read", "allow"), ("g", f"user:{ada.id}", "role:late")),
        await ada.remove_rules(("p", "role:other", "document", "write", "deny")),
        await ada.put(
            RULES,
            json={
                "old": {"ptype": "p", "values": ["role:manager", "document:*", "read", "allow"]},
                "new": {"ptype": "p", "values": ["role:manager", "*", "*", "allow"]},
            },
        ),
    ]
    allowed = await ada.add_rules(("p", "role:x", "document:1", "read", "allow"))

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(403, "escalation_refused")}
    assert allowed.status_code == 201


async def test_rules_are_listed_by_pages_and_filtered_by_value(visitor: Client) -> None:
    admin = await visitor.admin()
    added = [("p", "role:reader", f"document:{index}", "read", "allow") for index in range(5)]
    await admin.add_rules(*added)

    first = (await admin.get(RULES, params={"v0": "role:reader", "limit": 3})).json()
    second = (await admin.get(RULES, params={"v0": "role:reader", "limit": 3, "cursor": first["next_cursor"]})).json()

    assert [item["values"] for item in first["items"] + second["items"]] == [list(rule[1:]) for rule in added]
    assert second["next_cursor"] is None
    whole = (await admin.get(RULES, params={"v0": "role:reader", "limit": 5})).json()
    assert (len(whole["items"]), whole["next_cursor"]) == (5, None), "une page juste pleine est la dernière"
    for name in ("ptype", *(f"v{place}" for place in range(6))):
        assert (await admin.get(RULES, params={name: "absent"})).json()["items"] == [], name


async def test_a_replaced_rule_stays_at_its_place(visitor: Client) -> None:
    admin = await visitor.admin()
    rules = [{"ptype": "p", "values": ["role:r", f"document:{index}", "read", "allow"]} for index in range(4)]
    await admin.post(RULES, json={"rules": rules[:3]})

    assert (await admin.put(RULES, json={"old": rules[1], "new": rules[3]})).status_code == 200

    shown = (await admin.get(RULES, params={"v0": "role:r"})).json()["items"]
    assert shown == [rules[0], rules[3], rules[2]]


async def test_a_batch_of_rules_is_all_or_nothing(visitor: Client) -> None:
    admin = await visitor.admin()
    known, fresh = ("p", "role:a", "x", "read", "allow"), ("p", "role:b", "x", "read", "allow")
    await admin.add_rules(known)

    twice = await admin.add_rules(fresh, known)
    absent = await admin.remove_rules(known, fresh)

    assert (twice.status_code, twice.json()["code"]) == (409, "rule_already_exists")
    assert (absent.status_code, absent.json()["code"]) == (404, "rule_not_found")
    kept = (await admin.get(RULES, params={"v1": "x"})).json()["items"]
    assert [item["values"] for item in kept] == [list(known[1:])]


@pytest.mark.parametrize(
    "rule",
    [
        ("p", "role:a", "x", "read"),
        ("p", "role:a", "x", "read", "allow", "more"),
        ("p", "role:a", "x", "read", "ALLOW"),
        ("p", "role:a", "doc*", "read", "allow"),
        ("p", "role:a", "*:doc", "read", "allow"),
        ("p", "role:a", "", "read", "allow"),
        ("p", "role:a", "x" * 251, "read", "allow"),
        ("p", "role:a", "x\x00y", "read", "allow"),
        ("p", "ada", "x", "read", "allow"),
        ("p", "role:a b", "x", "read", "allow"),
        ("p9", "role:a", "x", "read", "allow"),
        ("q", "role:a"),
        ("g", "role:a", "role:a"),
        ("g", "role:a", "user:1"),
        ("g", "role:a"),
    ],
)
async def test_a_malformed_rule_is_refused_and_says_why(sqlite_uri: str, rule: tuple[str, ...]) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        admin = await visitor.admin()

        answer = await admin.add_rules(rule)

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_rule")
        assert answer.json()["detail"].startswith("Règle refusée")


async def test_a_role_cycle_and_a_chain_of_ten_links_are_refused(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        admin = await visitor.admin()
        chain = [("g", f"role:r{index}", f"role:r{index + 1}") for index in range(9)]
        roles = [("p", f"role:r{index}", "document", "read", "allow") for index in range(10)]

        nine = await admin.add_rules(*roles, *chain)
        ten = await admin.add_rules(("g", "user:1", "role:r0"))
        cycle = await admin.add_rules(("g", "role:r9", "role:r0"))

        assert nine.status_code == 201
        assert (ten.status_code, ten.json()["reason"]) == (422, "role_depth")
        assert (cycle.status_code, cycle.json()["reason"]) == (422, "role_cycle")


async def test_the_caller_asks_about_their_own_permissions(visitor: Client) -> None:
    admin = await visitor.admin()
    checks = [{"resource": "document", "action": "read"}, {"resource": "acl.rules", "action": "write"}]

    mine = await admin.post("/api/v1/permissions/check", json={"checks": checks})
    none = await (await visitor.newcomer("ada")).post("/api/v1/permissions/check", json={"checks": checks})
    empty = await admin.post("/api/v1/permissions/check", json={"checks": []})

    assert mine.json()["results"] == [True, True]
    assert none.json()["results"] == [False, False]
    assert empty.status_code == 422


async def test_accounts_are_listed_by_pages_and_searched_literally(visitor: Client) -> None:
    for name in ["bob", "ada", "eve_100", "cléo"]:
        await visitor.register(name)
    admin = await visitor.admin()
    users = "/api/v1/admin/auth/users"

    first = (await admin.get(users, params={"limit": 3})).json()
    second = (await admin.get(users, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    literal = (await admin.get(users, params={"q": "_1"})).json()
    percent = (await admin.get(users, params={"q": "%"})).json()

    assert [user["username"] for user in first["items"] + second["items"]] == ["ada", "admin", "bob", "cléo", "eve_100"]
    assert [user["username"] for user in literal["items"]] == ["eve_100"]
    assert percent["items"] == []
    assert (await admin.get(users, params={"cursor": "pas un curseur"})).status_code == 422


async def test_a_name_that_looks_like_a_subject_holds_nothing(visitor: Client) -> None:
    admin = await visitor.admin()

    refused = [await visitor.register(name) for name in ["role:admin", f"user:{admin.id}", "ad\u200bmin", " admin"]]
    taken = await visitor.register("ADMIN")

    assert {answer.status_code for answer in refused} == {422}
    assert taken.status_code == 409
