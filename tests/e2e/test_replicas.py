"""Quatre vrais processus, un vrai PostgreSQL, un vrai Redis, et des pannes : ce qui est retiré l'est partout.

Un retrait dit sa révision : qui l'exige n'est jamais servi par un processus en retard, et sans rien exiger, chacun le
sait en une seconde, que Redis soit là ou non. Le témoin, sans regards ni guetteur, montre que l'essai voit un retard.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from tests.support.app import ADMIN, ADMIN_PASSWORD, PASSWORD
from tests.support.effort import effort
from tests.support.proxy import FaultProxy, before
from tests.support.replicas import ServedReplica, replicas
from tests.support.servers import PostgreSQLServer, RedisServer
from tests.support.waits import PATIENCE_SECONDS, until

pytestmark = pytest.mark.slow

PROCESSES = effort(3, 4)
REVOKES = effort(24, 1_000)
BROKEN_REVOKES = effort(8, 1_000)
"""Retraits pendant une panne, où chacun attend un regard."""

PEOPLE = effort(4, 8)
"""Comptes à qui l'on donne et retire en même temps."""

API = "/api/v1"
SOON_SECONDS = 20
"""Temps laissé à un retrait sur une machine chargée ; bien moins qu'entre deux regards, quand ils sont rares."""


@dataclass
class Person:
    """Un compte, et la règle qu'on lui donne et lui retire."""

    headers: dict[str, str]
    rule: dict[str, Any]


@dataclass
class Stage:
    """Des processus, un administrateur, et des comptes à qui l'on donne et retire."""

    replicas: list[ServedReplica]
    admin: dict[str, str] = field(default_factory=dict)
    people: list[Person] = field(default_factory=list)

    async def open(self) -> None:
        """Ouvre les sessions."""
        self.admin = await self._session(ADMIN, ADMIN_PASSWORD)
        self.people = [await self._newcomer(f"ada{number}") for number in range(PEOPLE)]

    async def _newcomer(self, name: str) -> Person:
        http = self.replicas[0].http
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        assert (await http.post(f"{API}/auth/register", json=body)).status_code == 201
        headers = await self._session(name, PASSWORD)
        me = (await http.get(f"{API}/auth/me", headers=headers)).json()["id"]
        return Person(headers, {"rules": [{"ptype": "p", "values": [f"user:{me}", "document", "read", "allow"]}]})

    async def _session(self, username: str, password: str) -> dict[str, str]:
        body = {"username": username, "password": password}
        answer = await self.replicas[0].http.post(f"{API}/auth/login", json=body)
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    async def change(self, one: ServedReplica, method: str, person: Person) -> str:
        """Donne ou retire la permission par un processus, et rend la révision ; refait tant que la base est absente."""
        path = f"{API}/admin/permissions/rules"
        while True:
            answer = await one.http.request(method, path, json=person.rule, headers=self.admin)
            if answer.status_code in {200, 201}:
                return answer.headers["x-acl-revision"]
            if answer.status_code in {404, 409}:  # fait, mais la réponse s'est perdue
                health = await one.http.get(f"{API}/acl/health")
                return str(health.json()["revision"])
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.05)

    async def allows(self, one: ServedReplica, person: Person, revision: str | None = None) -> bool | None:
        """Dit ce qu'un processus répond ; None s'il ne se prononce pas."""
        headers = person.headers | ({"X-ACL-Min-Revision": revision} if revision is not None else {})
        status = (await one.http.get("/documents", headers=headers)).status_code
        assert status in {200, 403, 503}, status
        return None if status == 503 else status == 200

    async def grant(self, one: ServedReplica, person: Person) -> None:
        """Donne, et attend que tous le sachent."""
        await self.change(one, "POST", person)
        for other in self.replicas:
            await until(lambda other=other: self.allows(other, person))  # type: ignore[misc]

    async def revoke(self, one: ServedReplica, person: Person) -> None:
        """Retire ; qui exige la révision n'est jamais servi à tort, et tous le savent bientôt."""
        revision = await self.change(one, "DELETE", person)
        assert await self.allows(one, person) is not True
        answers = await asyncio.gather(*(self.allows(other, person, revision) for other in self.replicas))
        assert True not in answers
        for other in self.replicas:
            await until(lambda other=other: self.refuses(other, person), SOON_SECONDS)  # type: ignore[misc]

    async def refuses(self, one: ServedReplica, person: Person) -> bool:
        return await self.allows(one, person) is not True

    async def many(self, count: int) -> None:
        """Donne et retire au moins ce nombre de fois, plusieurs comptes à la fois, par un processus ou l'autre."""
        rounds = -(-count // PEOPLE)
        await asyncio.gather(*(self._ups_and_downs(person, rounds) for person in self.people))

    async def _ups_and_downs(self, person: Person, count: int) -> None:
        rng = random.Random(f"{person.rule}{count}")
        for _ in range(count):
            await self.grant(rng.choice(self.replicas), person)
            await self.revoke(rng.choice(self.replicas), person)


def settings(uri: str, redis: str | None, **others: Any) -> dict[str, Any]:
    chosen = {"database_type": "postgresql", "postgresql_uri": uri, **others}
    return chosen | ({"redis_url": redis} if redis is not None else {"watcher": "none"})


@pytest.fixture
async def stage(postgresql_uri: str, own_redis: RedisServer) -> AsyncIterator[Stage]:
    async with replicas(*[settings(postgresql_uri, own_redis.uri())] * PROCESSES) as started:
        made = Stage(started)
        await made.open()
        yield made


async def test_a_revoke_holds_everywhere_at_once_while_redis_is_there(
    postgresql_uri: str, own_redis: RedisServer
) -> None:
    announced = settings(postgresql_uri, own_redis.uri(), policy_poll_seconds=60)  # un regard viendrait trop tard
    async with replicas(*[announced] * PROCESSES) as started:
        stage = Stage(started)
        await stage.open()
        await stage.many(REVOKES)


async def test_a_revoke_holds_everywhere_whatever_happens_to_redis(stage: Stage, own_redis: RedisServer) -> None:
    await asyncio.to_thread(own_redis.stop, signal.SIGKILL)
    await stage.many(BROKEN_REVOKES)

    for _ in range(effort(2, 20)):
        await asyncio.to_thread(own_redis.start)
        await stage.many(1)
        await asyncio.to_thread(own_redis.stop, signal.SIGKILL)
        await stage.many(1)

    await asyncio.to_thread(own_redis.start)
    for one in stage.replicas:
        await asyncio.wait_for(one.ready(), PATIENCE_SECONDS)
    await stage.many(2)


async def test_a_frozen_redis_holds_nothing_back(stage: Stage, own_redis: RedisServer) -> None:
    own_redis.freeze()
    try:
        await stage.many(BROKEN_REVOKES)
    finally:
        own_redis.thaw()
    await stage.many(2)


async def test_a_process_cut_from_redis_without_a_word_keeps_up(postgresql_uri: str, own_redis: RedisServer) -> None:
    async with before(own_redis.uri()) as (uri, proxy):
        chosen = [settings(postgresql_uri, own_redis.uri())] * 3 + [settings(postgresql_uri, uri)]
        async with replicas(*chosen) as started:
            stage = Stage(started)
            await stage.open()
            proxy.stalls = True
            await stage.many(BROKEN_REVOKES)
            await heal(proxy)
            await asyncio.wait_for(started[-1].ready(), PATIENCE_SECONDS)
            await stage.many(2)


async def heal(proxy: FaultProxy) -> None:
    proxy.heal()
    proxy.reset()


@pytest.mark.parametrize("watcher", ["redis", "none"])
async def test_a_base_restarted_under_load_rouses_no_wrong_answer(
    own_postgresql: PostgreSQLServer, own_redis: RedisServer, watcher: str
) -> None:
    redis = own_redis.uri() if watcher == "redis" else None
    async with replicas(*[settings(own_postgresql.uri(), redis)] * PROCESSES) as started:
        stage = Stage(started)
        await stage.open()
        for _ in range(effort(1, 10)):
            writing = asyncio.create_task(stage.many(effort(8, BROKEN_REVOKES // 10)))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(own_postgresql.stop, signal.SIGQUIT)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(own_postgresql.start)
            await writing


async def test_without_looks_or_watcher_the_delay_is_seen(postgresql_uri: str) -> None:
    async with replicas(*[settings(postgresql_uri, None, policy_poll_seconds=60)] * 2) as started:
        stage = Stage(started)
        await stage.open()
        person = stage.people[0]
        await stage.change(started[0], "POST", person)

        await asyncio.sleep(2)

        assert await stage.allows(started[0], person) is True
        assert await stage.allows(started[1], person) is False


async def test_a_process_told_to_stop_leaves_nothing_behind(postgresql_uri: str, own_redis: RedisServer) -> None:
    async with replicas(*[settings(postgresql_uri, own_redis.uri())] * 2) as started:
        stage = Stage(started)
        await stage.open()
        await stage.many(2)

        assert {await one.stop() for one in started} <= {0, -signal.SIGTERM}

    connection = await asyncpg.connect(postgresql_uri)
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    await until(lambda: _none(connection, query))
    await connection.close()


async def _none(connection: asyncpg.Connection, query: str) -> bool:
    return not await connection.fetchval(query)
