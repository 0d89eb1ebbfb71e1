"""GET /permissions/me : ce que la politique donne à l'appelant, gardé dans le cache et jamais cru pour décider."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from fastapi_acl import PolicyChange, PolicyRule, Principal
from fastapi_acl.engine.grants import PolicyGrants
from fastapi_acl.engine.kernel.pacing import Pace
from fastapi_acl.shared.cache.base import ValueSealer
from tests.support.app import SECRET, Client, protected, started
from tests.support.servers import RedisServer
from tests.support.waits import until

MINE = "/api/v1/permissions/me"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db") as found:
        yield found


@asynccontextmanager
async def shared_cache(tmp_path: Path, server: RedisServer, **settings: Any) -> AsyncIterator[Client]:
    """Une réplique, dont le cache est dans Redis."""
    uri = {"sqlite_uri": f"sqlite:///{tmp_path}/a.db", "redis_url": server.uri(), "watcher": "none"}
    async with protected(enable_cache=True, cache_backend="redis", **{**uri, **settings}) as found:
        yield found


def counts(client: Client) -> tuple[int, int]:
    found = client.manager.counters()
    return found["cache_hits"], found["cache_misses"]


async def test_each_rule_says_what_it_gives_and_by_which_roles(client: Client) -> None:
    admin, ada = await client.admin(), await client.newcomer("ada")
    added = await admin.add_rules(
        ("p", "role:reader", "document", "read", "allow"),
        ("p", f"user:{ada.id}", "document:secret", "*", "deny"),
        ("p", "role:writer", "draft", "write", "allow"),
        ("g", f"user:{ada.id}", "role:writer"),
        ("g", "role:writer", "role:reader"),
    )

    answer = await ada.get(MINE)

    assert answer.status_code == 200
    assert answer.json() == {
        "revision": added.json()["revision"],
        "policy_revision": added.json()["revision"],
        "permissions": [
            {"resource": "document:secret", "action": "*", "effect": "deny", "via": [], "conditions": {}},
            {"resource": "draft", "action": "write", "effect": "allow", "via": ["role:writer"], "conditions": {}},
            {
                "resource": "document",
                "action": "read",
                "effect": "allow",
                "via": ["role:writer", "role:reader"],
                "conditions": {},
            },
        ],
    }


async def test_what_a_rule_says_beyond_the_contract_is_in_its_conditions(tmp_path: Path) -> None:
    settings = {"sqlite_uri": f"sqlite:///{tmp_path}/a.db", "model": "abac"}
    async with protected(**settings) as client:
        admin, ada = await client.admin(), await client.newcomer("ada")
        await admin.add_rules(("p", f"user:{ada.id}", "document", "write", "own", "allow"))

        found = (await ada.get(MINE)).json()["permissions"]

        assert found == [
            {"resource": "document", "action": "write", "effect": "allow", "via": [], "conditions": {"scope": "own"}}
        ]


async def test_a_model_of_routes_lists_paths_and_methods(tmp_path: Path) -> None:
    settings = {"sqlite_uri": f"sqlite:///{tmp_path}/a.db", "model": "rest"}
    async with protected(**settings) as client:
        admin, ada = await client.admin(), await client.newcomer("ada")
        await admin.add_rules(("p", f"user:{ada.id}", "/documents/{name}", "GET", "allow"))

        found = (await ada.get(MINE)).json()["permissions"]

        assert [(one["resource"], one["action"]) for one in found] == [("/documents/{name}", "GET")]


async def test_permissions_are_those_of_the_domain_asked_for(tmp_path: Path) -> None:
    settings = {"sqlite_uri": f"sqlite:///{tmp_path}/a.db", "model": "rbac_with_domains"}
    async with protected(**settings) as client:
        admin, ada = await client.admin(), await client.newcomer("ada")
        await admin.add_rules(
            ("p", "role:reader", "acme", "document", "read", "allow"),
            ("p", "role:reader", "*", "notice", "read", "allow"),
            ("g", f"user:{ada.id}", "role:reader", "acme"),
        )

        answers = {domain: await ada.get(MINE, params={"domain": domain}) for domain in ("acme", "globex")}
        without = await ada.get(MINE)

        held = {domain: [one["resource"] for one in answer.json()["permissions"]] for domain, answer in answers.items()}
        assert held == {"acme": ["document", "notice"], "globex": []}
        assert answers["acme"].headers["etag"] != answers["globex"].headers["etag"]
        assert (without.status_code, without.json()["code"]) == (422, "invalid_request")
        assert "domain" in without.json()["detail"]


async def test_a_domain_without_a_model_of_domains_is_refused(client: Client) -> None:
    ada = await client.newcomer("ada")

    answer = await ada.get(MINE, params={"domain": "acme"})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_without_a_token_nothing_is_listed(client: Client) -> None:
    assert (await client.get(MINE)).status_code == 401


async def test_a_list_that_has_not_changed_is_not_sent_again(client: Client) -> None:
    admin, ada = await client.admin(), await client.newcomer("ada")
    await admin.add_rules(("p", f"user:{ada.id}", "document", "read", "allow"))
    first = await ada.get(MINE)
    tag = first.headers["etag"]

    again = [await ada.get(MINE, headers={"If-None-Match": value}) for value in (tag, f'"x", W/{tag}')]
    await admin.add_rules(("p", f"user:{ada.id}", "document", "write", "allow"))
    changed = await ada.get(MINE, headers={"If-None-Match": tag})

    assert [(one.status_code, one.content, one.headers["etag"]) for one in again] == [(304, b"", tag)] * 2
    assert (first.headers["cache-control"], first.headers["vary"]) == ("private, no-cache", "Authorization")
    assert (changed.status_code, len(changed.json()["permissions"])) == (200, 2)
    assert changed.headers["etag"].startswith(f'"{changed.json()["policy_revision"]}-')


async def test_the_tag_of_one_account_says_nothing_of_another(client: Client) -> None:
    ada, bob = await client.newcomer("ada"), await client.newcomer("bob")
    tag = (await ada.get(MINE)).headers["etag"]

    answer = await bob.get(MINE, headers={"If-None-Match": tag})

    assert answer.status_code == 200


async def test_what_leaves_the_policy_alone_leaves_the_list_alone(client: Client) -> None:
    ada, bob = await client.newcomer("ada"), await client.newcomer("bob")
    first = await ada.get(MINE)
    await bob.post("/api/v1/auth/logout", json={"refresh_token": bob.refresh_token})

    again = await ada.get(MINE, headers={"If-None-Match": first.headers["etag"]})

    assert again.status_code == 304


async def test_without_the_cache_nothing_is_kept(client: Client) -> None:
    ada = await client.newcomer("ada")

    await ada.get(MINE)
    await ada.get(MINE)

    assert counts(client) == (0, 0)


async def test_replicas_share_what_one_has_read(tmp_path: Path, redis_server: RedisServer) -> None:
    async with shared_cache(tmp_path, redis_server) as one, shared_cache(tmp_path, redis_server) as other:
        ada = await one.newcomer("ada")
        await other.manager._parts.replica.refresh()
        there = Client(other.http, other.manager, ada.token)

        answers = [await ada.get(MINE), await there.get(MINE), await there.get(MINE)]

        assert [counts(one), counts(other)] == [(0, 1), (2, 0)]
        assert len({(answer.text, answer.headers["etag"]) for answer in answers}) == 1


async def test_a_change_of_rules_is_seen_at_once(tmp_path: Path, redis_server: RedisServer) -> None:
    async with shared_cache(tmp_path, redis_server) as client:
        admin, ada = await client.admin(), await client.newcomer("ada")
        rule = ("p", f"user:{ada.id}", "document", "read", "allow")
        for _ in range(5):
            await admin.add_rules(rule)
            assert len((await ada.get(MINE)).json()["permissions"]) == 1
            await admin.remove_rules(rule)
            assert (await ada.get(MINE)).json()["permissions"] == []


async def test_rules_changed_by_hand_are_listed_once_read_again(tmp_path: Path, redis_server: RedisServer) -> None:
    async with shared_cache(tmp_path, redis_server) as client:
        admin, ada = await client.admin(), await client.newcomer("ada")
        await admin.add_rules(("p", f"user:{ada.id}", "document", "read", "allow"))
        assert len((await ada.get(MINE)).json()["permissions"]) == 1
        database: Any = client.manager._parts.database
        async with database.session() as session:
            await session.execute(text("delete from casbin_rule where v1 = 'document'"))
            await session.commit()
        await client.manager.get_replica().reload()

        answer = await ada.get(MINE)

        assert answer.json()["permissions"] == []


OURS = ValueSealer([SECRET])
"""Ce que scelle qui a la clé de l'application : le pire des cas."""

LIES: list[Any] = [
    b"n'importe quoi",
    ["texte"],
    [{"resource": "tout"}],
    [{"resource": "a", "action": "b", "effect": "allow", "via": "role:a", "conditions": []}],
    {"a": 1},
    7,
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: json.dumps(str(lie))[:20])
async def test_what_redis_holds_that_is_no_list_is_not_there(
    tmp_path: Path, redis_server: RedisServer, lie: Any
) -> None:
    async with shared_cache(tmp_path, redis_server) as client:
        raw: Redis = Redis.from_url(redis_server.uri())
        ada = await client.newcomer("ada")
        await raw.flushdb()
        true = await ada.get(MINE)
        for name in await raw.keys("*"):
            await raw.set(name, lie if isinstance(lie, bytes) else OURS.seal(name, lie) or b"")

        answer = await ada.get(MINE)

        await raw.aclose()
        assert (answer.status_code, answer.json()) == (200, true.json())


async def test_a_list_forged_in_redis_opens_no_route(tmp_path: Path, redis_server: RedisServer) -> None:
    async with shared_cache(tmp_path, redis_server) as client:
        raw: Redis = Redis.from_url(redis_server.uri())
        ada = await client.newcomer("ada")
        await raw.flushdb()
        await ada.get(MINE)
        forged = {"resource": "document", "action": "read", "effect": "allow", "via": [], "conditions": {}}
        for name in await raw.keys("*"):
            await raw.set(name, OURS.seal(name, [forged]) or b"")

        assert (await ada.get(MINE)).json()["permissions"] == [forged], "le témoin : Redis a bien été lu"
        assert (await ada.get("/documents")).status_code == 403
        await raw.aclose()


@pytest.mark.parametrize("secrets", [[], ["une clé devinée, longue d'au moins trente-deux octets"]])
async def test_a_list_forged_without_our_key_is_not_even_shown(
    tmp_path: Path, redis_server: RedisServer, secrets: list[str]
) -> None:
    async with shared_cache(tmp_path, redis_server) as client:
        raw: Redis = Redis.from_url(redis_server.uri())
        ada = await client.newcomer("ada")
        await raw.flushdb()
        true = (await ada.get(MINE)).json()
        forged = {"resource": "document", "action": "read", "effect": "allow", "via": [], "conditions": {}}
        for name in await raw.keys("*"):
            await raw.set(name, ValueSealer(secrets).seal(name, [forged]) or b"")

        assert (await ada.get(MINE)).json() == true
        await raw.aclose()


async def test_a_guarded_request_sends_redis_no_command(tmp_path: Path, own_redis: RedisServer) -> None:
    async with shared_cache(tmp_path, own_redis) as client:
        raw: Redis = Redis.from_url(own_redis.uri())
        admin, ada = await client.admin(), await client.newcomer("ada")
        await admin.add_rules(("p", f"user:{ada.id}", "document", "read", "allow"))

        async def commands() -> int:
            return int((await raw.info("stats"))["total_commands_processed"])

        before = await commands()
        for _ in range(20):
            assert (await ada.get("/documents")).status_code == 200
        during = await commands()
        await ada.get(MINE)
        after = await commands()

        await raw.aclose()
        assert during - before == 1, "la seule question du témoin"
        assert after - during > 1, "le témoin voit ce qui passe par le cache"


def tries_of(client: Client) -> list[int]:
    """Compte ce que le disjoncteur laisse partir ; une fois ouvert, il le reste."""
    cache: Any = client.manager._parts.cache
    breaker, tries = cache._redis._breaker, list[int]()
    run, breaker._open_seconds = breaker._run, 3_600

    async def counted(command: Any) -> Any:
        tries.append(1)
        return await run(command)

    breaker._run = counted
    return tries


async def test_a_redis_that_is_silent_costs_one_short_wait_and_shows_in_the_health(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    async with shared_cache(tmp_path, own_redis, policy_poll_seconds=0.1) as client:
        ada = await client.newcomer("ada")
        assert (await ada.get(MINE)).status_code == 200
        tries = tries_of(client)
        own_redis.freeze()

        answers = [await ada.get(MINE) for _ in range(20)]
        sick = (await client.get("/api/v1/acl/health")).json()
        own_redis.thaw()

        assert {answer.status_code for answer in answers} == {200}
        assert tries == [1], "une attente, puis plus aucune"
        assert (sick["cache"], sick["status"]) == ("redis_fallback", "degraded")


async def test_redis_is_used_again_without_any_traffic(tmp_path: Path, own_redis: RedisServer) -> None:
    async with shared_cache(tmp_path, own_redis, policy_poll_seconds=0.1) as client:
        cache: Any = client.manager._parts.cache
        cache._redis._breaker._open_seconds = 0.2
        ada = await client.newcomer("ada")
        own_redis.freeze()
        await ada.get(MINE)
        assert client.manager.health().cache == "redis_fallback"
        own_redis.thaw()

        await until(lambda: client.manager.health().cache == "redis")


async def test_a_list_read_while_the_policy_changes_is_read_again(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone = (PolicyRule("p", ("user:ada", name, "read", "allow")) for name in ("kept", "gone"))
    async with started(sqlite_uri=sqlite_uri) as manager:
        store, ada = manager.get_policy_store(), Principal(id="ada")
        await store.change(PolicyChange(added=(kept, gone)))
        grants, step, changed = PolicyGrants(manager.get_policy(), manager.get_replica()), Pace.step, list[bool]()

        async def meanwhile(pace: Pace, *given: int) -> None:
            if not changed:
                changed.append(True)
                await store.change(PolicyChange(removed=(gone,)))
            await step(pace, *given)

        monkeypatch.setattr(Pace, "step", meanwhile)
        stamp, found = await grants.of(ada, None)

        assert stamp == grants.stamp(ada, None)
        assert [grant.resource for grant in found] == ["kept"]
