"""Une boucle bloquée, un arrêt sous la charge, une réserve épuisée : rien de faux, rien à moitié, et vite remis."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from tests.support.app import ADMIN, ADMIN_PASSWORD, PASSWORD, Client, protected
from tests.support.effort import effort
from tests.support.proxy import before
from tests.support.replicas import ServedReplica, serving
from tests.support.servers import RedisServer
from tests.support.waits import PATIENCE_SECONDS, until

pytestmark = pytest.mark.slow

API = "/api/v1"
RULES = f"{API}/admin/permissions/rules"
OBSERVED = "tests.support.observed:app"

BLOCKED_SECONDS = 5
ENOUGH = 20
"""Réponses justes qu'il faut avoir vues pour croire qu'un processus s'est remis."""

CLIENTS = 16
PACE_SECONDS = 0.08
"""Temps entre deux requêtes d'un client : 200 par seconde en tout, si tout répondait à l'instant."""


@dataclass
class Someone:
    """Un compte et sa session.

    Attributes:
        id: identifiant du compte.
    """

    access: str
    renewal: str
    id: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access}"}

    async def reads(self, one: ServedReplica, revision: str | None = None) -> int:
        """Rend ce qu'une route gardée répond."""
        headers = self.headers | ({"X-ACL-Min-Revision": revision} if revision is not None else {})
        return (await one.http.get("/documents", headers=headers)).status_code


async def login(http: httpx.AsyncClient, username: str, password: str = PASSWORD) -> Someone:
    answer = await http.post(f"{API}/auth/login", json={"username": username, "password": password})
    assert answer.status_code == 200, answer.text
    return Someone(answer.json()["access_token"], answer.json()["refresh_token"])


async def newcomer(http: httpx.AsyncClient, username: str, admin: Someone) -> Someone:
    """Inscrit un compte qui a le droit de lire, et lui ouvre une session."""
    body = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
    assert (await http.post(f"{API}/auth/register", json=body)).status_code == 201
    someone = await login(http, username)
    someone.id = (await http.get(f"{API}/auth/me", headers=someone.headers)).json()["id"]
    await change(http, "POST", reading(someone), admin)
    return someone


def reading(someone: Someone) -> list[str]:
    return [f"user:{someone.id}", "document", "read", "allow"]


async def change(http: httpx.AsyncClient, method: str, values: list[str], admin: Someone) -> str:
    body = {"rules": [{"ptype": "p", "values": values}]}
    answer = await http.request(method, RULES, json=body, headers=admin.headers)
    assert answer.status_code in {200, 201}, answer.text
    return answer.headers["x-acl-revision"]


# --- une boucle bloquée -----------------------------------------------------------------------------------------------


async def watched(one: ServedReplica, someone: Someone, seen: list[int]) -> None:
    """Note ce qu'une route gardée répond, sans fin."""
    while True:
        seen.append(await someone.reads(one))
        await asyncio.sleep(0.02)


async def test_a_blocked_loop_catches_up_and_answers_nothing_wrong(postgresql_uri: str) -> None:
    settings = {"database_type": "postgresql", "postgresql_uri": postgresql_uri}
    blocked, other = ServedReplica(settings, app=OBSERVED), ServedReplica(settings)
    async with serving([blocked, other]):
        admin = await login(other.http, ADMIN, ADMIN_PASSWORD)
        ada, bob, eve = [await newcomer(other.http, name, admin) for name in ("ada", "bob", "eve")]
        for someone in (ada, bob, eve):
            await until(lambda someone=someone: _is(someone.reads(blocked), 200))  # type: ignore[misc]
        asleep = asyncio.create_task(
            blocked.http.get("/sleep", params={"seconds": BLOCKED_SECONDS}, timeout=PATIENCE_SECONDS)
        )
        await asyncio.sleep(0.3)
        revision = await change(other.http, "DELETE", reading(bob), admin)
        assert (await other.http.post(f"{API}/auth/logout", headers=eve.headers)).status_code == 204

        right = {"ada": 200, "bob": 403, "eve": 401}
        seen: dict[str, list[int]] = {name: [] for name in right}
        people = zip((ada, bob, eve), seen.values(), strict=True)
        watchers = [asyncio.create_task(watched(blocked, someone, answers)) for someone, answers in people]
        await asleep
        demanding = await bob.reads(blocked, revision)
        for name, answers in seen.items():
            await until(lambda answers=answers, name=name: answers.count(right[name]) > ENOUGH)  # type: ignore[misc]
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

        # Avant d'avoir rattrapé, il regarde d'abord, ou se tait (503) ; il ne répond jamais de travers, ni ne refuse
        # une session ouverte.
        for name, answers in seen.items():
            assert set(answers) <= {503, right[name]}, name
            assert set(answers[answers.index(right[name]) :]) == {right[name]}, name
        assert demanding in {403, 503}
        assert await blocked.status() == "ok"
        assert (await renewed(blocked, ada), await renewed(blocked, bob)) == (200, 200)


async def _is(answer: Awaitable[int], status: int) -> bool:
    return await answer == status


async def renewed(one: ServedReplica, someone: Someone) -> int:
    return (await one.http.post(f"{API}/auth/refresh", json={"refresh_token": someone.renewal})).status_code


# --- un arrêt sous la charge ------------------------------------------------------------------------------------------


@dataclass
class Load:
    """Des clients qui lisent et écrivent, et ce qu'on leur a répondu.

    Attributes:
        added: groupes de règles dont l'ajout a été confirmé.
        removed: groupes dont le retrait l'a été.
        doubtful: groupes dont un retrait est resté sans réponse.
        accounts: comptes dont l'inscription a été confirmée.
        sessions: jetons de renouvellement rendus.
        statuses: réponses, par code ; 0 pour une connexion coupée.
    """

    one: ServedReplica
    admin: Someone
    added: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)

    async def run(self, number: int) -> None:
        """Fait un client, jusqu'à ce qu'on ne lui réponde plus."""
        rng, turn = random.Random(number), 0
        while True:
            turn += 1
            try:
                await rng.choice((self._read, self._read, self._write, self._enter))(f"{number}-{turn}")
            except httpx.TransportError:
                self.statuses[0] += 1
                return
            await asyncio.sleep(rng.uniform(0, 2 * PACE_SECONDS))

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = await self.one.http.request(method, path, headers=self.admin.headers, **options)
        self.statuses[answer.status_code] += 1
        return answer

    async def _read(self, _name: str) -> None:
        assert (await self._ask("GET", "/documents")).status_code in {200, 503}

    async def _write(self, name: str) -> None:
        """Ajoute trois règles d'un coup, et en retire une fois sur deux."""
        body = {"rules": [{"ptype": "p", "values": values} for values in group(name)]}
        if (await self._ask("POST", RULES, json=body)).status_code != 201:
            return
        self.added.add(name)
        if len(self.added) % 2:
            self.doubtful.add(name)
            if (await self._ask("DELETE", RULES, json=body)).status_code == 200:
                self.removed.add(name)
            self.doubtful.discard(name)

    async def _enter(self, name: str) -> None:
        """Inscrit un compte et lui ouvre une session."""
        person = f"ada-{name}"
        body = {"username": person, "email": f"{person}@example.com", "password": PASSWORD}
        if (await self._ask("POST", f"{API}/auth/register", json=body)).status_code != 201:
            return
        self.accounts.add(person)
        answer = await self._ask("POST", f"{API}/auth/login", json={"username": person, "password": PASSWORD})
        if answer.status_code == 200:
            self.sessions.add(answer.json()["refresh_token"])


def group(name: str) -> list[list[str]]:
    return [[f"role:r{name}", f"thing{index}", "read", "allow"] for index in range(3)]


async def stored(connection: asyncpg.Connection) -> set[tuple[str, ...]]:
    """Rend les règles de la base."""
    rows = await connection.fetch("SELECT ptype, v0, v1, v2, v3 FROM casbin_rule")
    return {tuple(value for value in row if value is not None) for row in rows}


async def replayed(connection: asyncpg.Connection, rules: set[tuple[str, ...]], since: int) -> set[tuple[str, ...]]:
    """Refait du journal les règles qui y mènent, en vérifiant qu'aucun rang n'y manque."""
    rows = await connection.fetch("SELECT * FROM acl_changes WHERE revision > $1 ORDER BY revision", since)
    assert [row["revision"] for row in rows] == list(range(since + 1, since + len(rows) + 1))
    assert await connection.fetchval("SELECT revision FROM acl_revision") == since + len(rows)
    for row in rows:
        assert row["kind"] == "policy_changed"
        payload = json.loads(row["payload"])
        rules = (rules - {flat(rule) for rule in payload["removed"]}) | {flat(rule) for rule in payload["added"]}
    return rules


def flat(rule: dict[str, Any]) -> tuple[str, ...]:
    return (rule["ptype"], *rule["values"])


@pytest.mark.parametrize("turn", range(effort(2, 20)))
async def test_a_process_told_to_stop_under_load_cuts_no_write(
    postgresql_uri: str, own_redis: RedisServer, turn: int
) -> None:
    settings = {"database_type": "postgresql", "postgresql_uri": postgresql_uri, "redis_url": own_redis.uri()}
    one = ServedReplica(settings, app=OBSERVED)
    async with serving([one]), _connected(postgresql_uri) as connection:
        load = Load(one, await login(one.http, ADMIN, ADMIN_PASSWORD))
        before, since = await stored(connection), await connection.fetchval("SELECT revision FROM acl_revision")
        clients = [asyncio.create_task(load.run(number)) for number in range(CLIENTS)]
        await asyncio.sleep(1.5 + turn % 10 / 20)

        one.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(one.process.wait(), PATIENCE_SECONDS)
        await asyncio.gather(*clients)

        assert code in {0, -signal.SIGTERM}
        assert set(load.statuses) <= {0, 200, 201, 503}, load.statuses
        assert load.added
        assert load.accounts
        rules = await stored(connection)
        assert await replayed(connection, before, since) == rules
        await check_writes(connection, load, rules)
        await nothing_connected(connection, own_redis)


async def check_writes(connection: asyncpg.Connection, load: Load, rules: set[tuple[str, ...]]) -> None:
    """Vérifie que tout ce qui a été confirmé est là, et que rien ne l'est à moitié."""
    groups = Counter(rule[1] for rule in rules if rule[2].startswith("thing"))
    assert set(groups.values()) <= {3}
    sure = {f"role:r{name}" for name in load.added - load.removed - load.doubtful}
    assert sure <= set(groups)
    assert not {f"role:r{name}" for name in load.removed} & set(groups)
    names = {row["username"] for row in await connection.fetch("SELECT username FROM acl_users")}
    assert load.accounts <= names
    count = "SELECT count(*) FROM acl_sessions JOIN acl_users u ON u.id = user_id WHERE username LIKE 'ada-%'"
    assert await connection.fetchval(count) >= len(load.sessions)


async def nothing_connected(connection: asyncpg.Connection, redis: RedisServer) -> None:
    """Attend que ni PostgreSQL ni Redis ne voient plus le processus."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with Redis.from_url(redis.uri()) as mine:

        async def alone() -> bool:
            return not await connection.fetchval(query) and len(await mine.client_list()) == 1

        await until(alone)


@asynccontextmanager
async def _connected(uri: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(uri)
    try:
        yield connection
    finally:
        await connection.close()


# --- une réserve épuisée ----------------------------------------------------------------------------------------------


async def asked(client: Client, number: int) -> int:
    """Demande ce qui lit ou écrit la base, et rend la réponse."""
    if number % 4 == 0:
        answer = await client.add_rules(("p", f"role:r{number}", "thing", "read", "allow"))
    elif number % 4 == 1:
        answer = await client.post(f"{API}/auth/login", json={"username": ADMIN, "password": ADMIN_PASSWORD})
    else:
        answer = await client.get(f"{API}/auth/me")
    return answer.status_code


async def guarded(client: Client, seen: list[int]) -> None:
    """Note sans fin ce que répond une route gardée qui ne lit pas la base."""
    while True:
        seen.append((await client.get("/documents")).status_code)
        await asyncio.sleep(0.05)


async def test_an_exhausted_pool_queues_then_says_so_and_recovers(postgresql_uri: str) -> None:
    narrow = {"database_pool_size": 2, "database_max_overflow": 0, "database_timeout_seconds": 1}
    settings: dict[str, Any] = {"database_type": "postgresql", "watcher": "none", "rate_limit_enabled": False}
    async with before(postgresql_uri) as (uri, proxy), protected(postgresql_uri=uri, **settings, **narrow) as client:
        admin, seen = await client.admin(), list[int]()
        proxy.latency = 0.05
        watching = asyncio.create_task(guarded(admin, seen))

        statuses = Counter(await asyncio.gather(*(asked(admin, number) for number in range(200))))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        proxy.latency = 0

        assert set(statuses) == {200, 201, 503}, statuses
        assert set(seen) == {200}
        assert len(seen) > 5
        for number in range(200, 220):
            await until(lambda number=number: _is_served(admin, number))  # type: ignore[misc]


async def _is_served(client: Client, number: int) -> bool:
    return await asked(client, number) in {200, 201}
