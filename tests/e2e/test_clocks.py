"""Trois vrais processus sur un PostgreSQL, dont les horloges ne s'accordent pas, ou sautent pendant qu'ils servent.

Un jeton passe d'un processus à l'autre tant que leurs horloges diffèrent moins que la tolérance ; un retrait tient
partout en une seconde, quelles que soient les horloges, et rien de révoqué ni d'expiré ne reprend cours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import REQUIRED, missing_services
from tests.support.app import ADMIN, ADMIN_PASSWORD, PASSWORD
from tests.support.bases import Bases
from tests.support.clocks import Clock, find_faketime
from tests.support.effort import effort
from tests.support.replicas import ServedReplica, serving
from tests.support.servers import ServerUnavailableError
from tests.support.waits import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("clocks"),
    pytest.mark.asyncio(loop_scope="module"),
]

API = "/api/v1"
NAMES = ("true", "fast", "slow")
LIFE = 60
"""Durée d'un jeton d'accès, en secondes : la plus courte que la configuration admette."""

PEOPLE, ROUNDS = effort((1, 1), (8, 18))
"""Comptes à qui l'on retire et rend, et combien de fois chacun : mille retraits, sur sept essais."""

LEEWAY = 10
HOUR = 3_600
SKEWS = [(5, "slow"), *product((30, 300), NAMES)]
"""Écarts, et l'horloge de qui écrit."""

SOON_SECONDS = LIFE / 4
"""Temps laissé à un retrait sur une machine chargée ; bien moins que la vie du jeton, qui s'arrêterait seul."""


@dataclass
class Clocked(ServedReplica):
    """Un processus qui a son horloge."""

    clock: Clock = field(kw_only=True)

    async def login(self, username: str, password: str = PASSWORD) -> Session:
        answer = await self.http.post(f"{API}/auth/login", json={"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        return Session(self, answer.json()["access_token"], answer.json()["refresh_token"])


@dataclass
class Session:
    """Une session, et le processus qui l'a ouverte."""

    at: Clocked
    access: str
    renewal: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access}"}

    async def status(self, one: Clocked | None = None, revision: str | None = None) -> int:
        """Rend ce qu'un processus répond à une route gardée ; celui qui a ouvert la session, par défaut."""
        headers = self.headers | ({"X-ACL-Min-Revision": revision} if revision is not None else {})
        return (await (one or self.at).http.get("/documents", headers=headers)).status_code

    async def renew(self, one: Clocked | None = None) -> int:
        """Demande une paire neuve, qu'elle garde."""
        answer = await (one or self.at).http.post(f"{API}/auth/refresh", json={"refresh_token": self.renewal})
        if answer.status_code == 200:
            self.access, self.renewal = answer.json()["access_token"], answer.json()["refresh_token"]
        return answer.status_code

    async def logout(self, *, everywhere: bool = False) -> None:
        body = {"everywhere": everywhere}
        answer = await self.at.http.post(f"{API}/auth/logout", json=body, headers=self.headers)
        assert answer.status_code == 204, answer.text


@dataclass
class Stage:
    """Les processus, par le nom de leur horloge."""

    replicas: dict[str, Clocked]
    numbers: count[int] = field(default_factory=count)

    def __iter__(self) -> Any:
        return iter(self.replicas.values())

    def skew(self, seconds: int) -> None:
        """Met une horloge en avance de tant, et une autre en retard d'autant."""
        for name, sign in zip(NAMES, (0, 1, -1), strict=True):
            self.replicas[name].clock.shift(sign * seconds)

    async def newcomer(self) -> str:
        """Inscrit un compte qui a le droit de lire, partout, et rend son nom."""
        one, name = self.replicas["true"], f"ada{next(self.numbers)}"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        answer = await one.http.post(f"{API}/auth/register", json=body)
        assert answer.status_code == 201, answer.text
        await self.change(one, "POST", answer.json()["id"])
        for other in self:
            session = await other.login(name)
            await until(lambda session=session: _is(session.status(), 200), SOON_SECONDS)  # type: ignore[misc]
        return name

    async def change(self, one: Clocked, method: str, user_id: str) -> str:
        """Donne ou retire par un processus le droit de lire, et rend la révision."""
        admin = await one.login(ADMIN, ADMIN_PASSWORD)
        rule = {"rules": [{"ptype": "p", "values": [f"user:{user_id}", "document", "read", "allow"]}]}
        path = f"{API}/admin/permissions/rules"
        answer = await one.http.request(method, path, json=rule, headers=admin.headers)
        assert answer.status_code in {200, 201}, answer.text
        return answer.headers["x-acl-revision"]

    async def stir(self) -> None:
        """Fait appliquer à chacun un changement de plus, qui n'ôte rien à personne."""
        revision = await self.change(
            self.replicas["true"], "POST", f"{next(self.numbers):08}-0000-4000-8000-000000000000"
        )
        for one in self:
            await until(lambda one=one: _has(one, int(revision)))  # type: ignore[misc]


async def _is(answer: Awaitable[int], status: int) -> bool:
    return await answer == status


async def _has(one: Clocked, revision: int) -> bool:
    return bool((await health(one))["revision"] >= revision)


async def health(one: Clocked) -> dict[str, Any]:
    found: dict[str, Any] = (await one.http.get(f"{API}/acl/health")).json()
    return found


async def refused_everywhere(sessions: list[Session], status: int) -> None:
    """Attend que chaque processus refuse la session qu'il a ouverte, bien avant la fin du jeton."""
    for session in sessions:
        await until(lambda session=session: _is(session.status(), status), SOON_SECONDS)  # type: ignore[misc]


async def me(session: Session) -> str:
    return str((await session.at.http.get(f"{API}/auth/me", headers=session.headers)).json()["id"])


@pytest.fixture(scope="module")
def faketime(request: pytest.FixtureRequest) -> str:
    """La bibliothèque qui donne à un processus une autre heure."""
    try:
        return find_faketime()
    except ServerUnavailableError as error:
        request.config.stash[missing_services]["faketime"] = str(error)
        if REQUIRED:
            pytest.fail(f"faketime est exigé : {error}")
        pytest.skip(str(error))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def processes(
    faketime: str, postgresql_bases: Bases, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("clocks")
    async with postgresql_bases.migrated() as uri:
        settings = {
            "database_type": "postgresql",
            "postgresql_uri": uri,
            "watcher": "none",
            "policy_poll_seconds": 0.2,
            "jwt_access_token_expire_minutes": LIFE // 60,
            "rate_limit_enabled": False,
        }
        clocks = [Clock(folder / name) for name in NAMES]
        made = [Clocked(settings, environment=clock.environment(faketime), clock=clock) for clock in clocks]
        async with serving(made):
            yield Stage(dict(zip(NAMES, made, strict=True)))


@pytest.fixture
def stage(processes: Stage) -> Stage:
    """Les processus, à l'heure."""
    processes.skew(0)
    return processes


@pytest.mark.parametrize("seconds", [5, 30, 300])
async def test_a_token_passes_between_processes_only_as_far_as_the_leeway(stage: Stage, seconds: int) -> None:
    name = await stage.newcomer()
    stage.skew(seconds)
    sessions = [await one.login(name) for one in stage]

    answers = {
        (session.at.clock.offset - reader.clock.offset): await session.status(reader)
        for session, reader in product(sessions, stage)
    }

    assert answers == {ahead: 200 if -LIFE - LEEWAY < ahead <= LEEWAY else 401 for ahead in answers}
    assert len(answers) == 5


@pytest.mark.parametrize("seconds", [30, 300])
async def test_a_renewal_refused_for_its_clock_closes_no_session(stage: Stage, seconds: int) -> None:
    name = await stage.newcomer()
    stage.skew(seconds)
    session = await stage.replicas["fast"].login(name)

    refused = [await session.renew(stage.replicas[other]) for other in ("true", "slow")]

    assert refused == [401, 401]
    assert await session.renew() == 200
    assert await session.status() == 200


async def ups_and_downs(stage: Stage, writer: Clocked, name: str) -> None:
    """Retire et rend un droit par un processus ; une fois retiré, nul ne l'admet plus, quelle que soit son horloge."""
    sessions = [await one.login(name) for one in stage]
    user_id = await me(sessions[0])
    for _ in range(ROUNDS):
        revision = await stage.change(writer, "DELETE", user_id)

        assert await asyncio.gather(*(session.status(revision=revision) for session in sessions)) == [403] * 3
        await refused_everywhere(sessions, 403)
        await stage.change(writer, "POST", user_id)
        for session in sessions:
            await until(lambda session=session: _is(session.status(), 200), SOON_SECONDS)  # type: ignore[misc]


@pytest.mark.parametrize(("seconds", "writer"), SKEWS)
async def test_a_permission_taken_back_is_gone_everywhere_whatever_the_clocks(
    stage: Stage, seconds: int, writer: str
) -> None:
    names = [await stage.newcomer() for _ in range(PEOPLE)]
    stage.skew(seconds)

    await asyncio.gather(*(ups_and_downs(stage, stage.replicas[writer], name) for name in names))


@pytest.mark.parametrize(("seconds", "writer"), SKEWS)
async def test_a_logout_everywhere_holds_everywhere_whatever_the_clocks(
    stage: Stage, seconds: int, writer: str
) -> None:
    name = await stage.newcomer()
    stage.skew(seconds)
    sessions = [await one.login(name) for one in stage]
    assert [await session.status() for session in sessions] == [200] * 3

    await (await stage.replicas[writer].login(name)).logout(everywhere=True)

    await refused_everywhere(sessions, 401)
    await stage.stir()
    assert [await session.status() for session in sessions] == [401] * 3
    assert [await session.renew() for session in sessions] == [401] * 3


async def test_an_expired_token_stays_expired_when_the_clock_goes_back_an_hour(stage: Stage) -> None:
    name, one = await stage.newcomer(), stage.replicas["fast"]
    session = await one.login(name)
    assert await session.status() == 200

    one.clock.shift(LIFE + LEEWAY + 1)
    expired = await session.status()
    one.clock.shift(LIFE + LEEWAY + 1 - HOUR)

    assert (expired, await session.status()) == (401, 401)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_no_session_revives_when_the_clock_jumps_and_comes_back(stage: Stage, jump: int) -> None:
    name, one = await stage.newcomer(), stage.replicas["fast"]
    closed, spent, kept = [await one.login(name) for _ in range(3)]
    await closed.logout()
    stolen = Session(spent.at, spent.access, spent.renewal)
    assert (await spent.renew(), await stolen.renew()) == (200, 401)

    one.clock.shift(jump)
    away = [await session.status() for session in (closed, spent, stolen)]
    await stage.stir()
    one.clock.shift(0)
    back = [await session.status() for session in (closed, spent, stolen)]

    assert away == back == [401] * 3
    assert [await session.renew() for session in (closed, spent, stolen)] == [401] * 3
    assert (await kept.status(), await kept.renew()) == (200, 200)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_jump_of_the_clock_delays_no_look_at_the_database(stage: Stage, jump: int) -> None:
    name, one = await stage.newcomer(), stage.replicas["fast"]
    one.clock.shift(jump)
    session = await one.login(name)
    user_id = await me(session)
    assert await session.status() == 200

    await stage.change(stage.replicas["true"], "DELETE", user_id)

    await refused_everywhere([session], 403)
    found = await health(one)
    assert (found["status"], found["lag_seconds"] < SOON_SECONDS) == ("ok", True)
