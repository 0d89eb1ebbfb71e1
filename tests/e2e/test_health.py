"""La santé d'un processus, et la révision que ses écritures annoncent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fastapi_acl import Principal
from fastapi_acl.shared.exceptions import DatabaseUnavailableError, PolicyUnavailableError, StoredDataError
from fastapi_acl.shared.sync.revocations import Revocations
from tests.support import byhand
from tests.support.app import Client, protected, starting
from tests.support.servers import free_port
from tests.support.wounds import Wound

HEALTH = "/api/v1/acl/health"


async def test_a_healthy_process_says_where_it_is(tmp_path: Path) -> None:
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db") as client:
        answer = await client.get(HEALTH)

        body = answer.json()
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert body.pop("lag_seconds") < 5
        assert body == {
            "status": "ok",
            "revision": client.manager.revision,
            "database_revision": client.manager.revision,
            "watcher": "none",
            "cache": "memory",
            "quarantined_rows": 0,
            "model_differs": False,
            "database_refuses": False,
            "has_unreadable_data": False,
        }


async def test_a_process_without_its_base_is_unavailable_and_says_no_address() -> None:
    uri = f"postgresql://acl:tres-secret@127.0.0.1:{free_port()}/acl"
    async with starting(database_type="postgresql", postgresql_uri=uri) as client:
        answer = await client.get(HEALTH)

        assert answer.status_code == 503
        assert answer.json()["status"] == "unavailable"
        assert (answer.json()["revision"], answer.json()["lag_seconds"]) == (-1, None)
        assert "secret" not in answer.text
        assert "127.0.0.1" not in answer.text


async def test_a_row_that_cannot_be_read_is_counted_and_not_shown(tmp_path: Path) -> None:
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db") as client:
        await byhand.write_row(client.manager._parts.storage, "p", ["sans préfixe", "secret", "read", "allow"])
        await client.manager.get_replica().reload()

        answer = await client.get(HEALTH)

        assert (answer.status_code, answer.json()["status"], answer.json()["quarantined_rows"]) == (200, "degraded", 1)
        assert "secret" not in answer.text


async def test_a_process_that_waits_for_its_watcher_is_degraded(tmp_path: Path) -> None:
    uri = f"redis://127.0.0.1:{free_port()}/0"
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db", redis_url=uri) as client:
        answer = await client.get(HEALTH)

        assert (answer.status_code, answer.json()["status"], answer.json()["watcher"]) == (
            200,
            "degraded",
            "connecting",
        )


@pytest.mark.parametrize(
    ("age", "expected"), [(60, (200, "ok")), (200, (200, "degraded")), (400, (503, "unavailable"))]
)
async def test_a_process_that_no_longer_looks_at_its_base_says_so(
    tmp_path: Path, age: int, expected: tuple[int, str]
) -> None:
    settings: dict[str, Any] = {"policy_poll_seconds": 60, "max_staleness_seconds": 300}
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db", **settings) as client:
        client.manager.get_replica()._seen_at -= age

        answer = await client.get(HEALTH)

        assert (answer.status_code, answer.json()["status"]) == expected
        assert answer.json()["lag_seconds"] >= age


async def test_what_the_application_asks_for_itself_wants_a_fresh_policy_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"policy_poll_seconds": 60, "max_staleness_seconds": 300}
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db", **settings) as client:
        authorizer, ada = client.manager.authorizer, Principal(id="ada")
        assert not authorizer.decide(ada, "document", "read")
        assert not authorizer.holds_role(ada, "reader")

        client.manager.get_replica()._seen_at -= 400

        with pytest.raises(PolicyUnavailableError):
            authorizer.decide(ada, "document", "read")
        with pytest.raises(PolicyUnavailableError):
            authorizer.holds_role(ada, "reader")


async def test_who_only_asks_who_calls_wants_a_fresh_policy_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailableError

    settings: dict[str, Any] = {"policy_poll_seconds": 60, "max_staleness_seconds": 300}
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db", **settings) as client:
        ada, replica = await client.newcomer("ada"), client.manager.get_replica()
        monkeypatch.setattr(type(replica._log), "head", silent)
        answers = [await ada.get("/api/v1/auth/me")]
        replica._seen_at -= 400
        answers.append(await ada.get("/api/v1/auth/me"))

    assert [answer.status_code for answer in answers] == [200, 503]
    assert answers[1].json()["code"] == "policy_unavailable"


async def test_a_process_that_saw_entries_it_could_not_read_is_degraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_replicas(tmp_path) as (first, second):
        admin, replica = await first.admin(), second.manager.get_replica()
        await admin.add_rules(("p", "role:r", "document", "read", "allow"))
        await replica.refresh()
        written = (await admin.add_rules(("p", "role:s", "document", "read", "allow"))).json()["revision"]

        async def silent(*_: Any, **__: Any) -> None:
            raise DatabaseUnavailableError

        with monkeypatch.context() as broken, pytest.raises(DatabaseUnavailableError):
            broken.setattr(type(replica._log), "since", silent)
            await replica.refresh()
        late = (await second.get(HEALTH)).json()
        await replica.refresh()

        assert (late["status"], late["revision"], late["database_revision"]) == ("degraded", written - 1, written)
        assert (await second.get(HEALTH)).json()["status"] == "ok"


async def test_a_process_that_found_what_it_cannot_read_is_degraded_until_all_is_read_again(tmp_path: Path) -> None:
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db", policy_poll_seconds=60) as client:
        manager = client.manager
        await Wound("acl_revision", "revision", "x").inflict(manager._parts.storage)
        with pytest.raises(StoredDataError):
            await manager.get_replica().reload()
        found = (await client.get(HEALTH)).json()

        await byhand.empty_head(manager._parts.storage)
        await manager.migrate()  # une tête perdue se refait du journal
        await manager.get_replica().reload()
        mended = (await client.get(HEALTH)).json()

    assert [(one["status"], one["has_unreadable_data"]) for one in (found, mended)] == [
        ("degraded", True),
        ("ok", False),
    ]


async def test_every_write_says_the_revision_it_made(tmp_path: Path) -> None:
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db") as client:
        admin, someone = await client.admin(), await client.newcomer("ada")
        manager: Any = client.manager

        added = await admin.add_rules(("p", "role:r", "document", "read", "allow"))
        assert int(added.headers["x-acl-revision"]) == added.json()["revision"] == manager.revision

        gone = await admin.put(f"/api/v1/admin/auth/users/{someone.id}/deactivate")
        assert gone.status_code < 300
        assert int(gone.headers["x-acl-revision"]) == added.json()["revision"] + 1
        revocations: Revocations = manager._parts.replica._memories[1]
        assert revocations.refuses(user_id=someone.id, session_id="", session_version=0)
        assert "x-acl-revision" not in (await admin.get("/api/v1/admin/permissions/rules")).headers


@asynccontextmanager
async def two_replicas(tmp_path: Path) -> AsyncIterator[tuple[Client, Client]]:
    """Deux répliques d'une application, qui ne regardent pas d'elles-mêmes la base."""
    settings: dict[str, Any] = {"sqlite_uri": f"sqlite:///{tmp_path}/a.db", "policy_poll_seconds": 60}
    async with protected(**settings) as first, protected(**settings) as second:
        yield first, second


def exigent(revision: object) -> dict[str, dict[str, str]]:
    return {"headers": {"X-ACL-Min-Revision": str(revision)}}


async def test_a_replica_answers_only_once_it_has_the_revision_asked_for(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (first, second):
        admin, ada = await first.admin(), await first.newcomer("ada")
        there = Client(second.http, second.manager, ada.token)
        await admin.add_rules(("p", f"user:{ada.id}", "document", "read", "allow"))
        written = (await admin.add_rules(("p", "role:r", "document", "read", "allow"))).headers["x-acl-revision"]

        assert (await there.get("/documents")).status_code == 403
        assert (await there.get("/documents", **exigent(written))).status_code == 200
        assert (await there.get("/documents")).status_code == 200

        gone = await admin.remove_rules(("p", f"user:{ada.id}", "document", "read", "allow"))
        answer = await there.get("/documents", **exigent(gone.headers["x-acl-revision"]))
        assert answer.status_code == 403


async def test_a_caller_revoked_by_that_revision_is_refused(tmp_path: Path) -> None:
    async with two_replicas(tmp_path) as (first, second):
        admin, ada = await first.admin(), await first.newcomer("ada")
        there = Client(second.http, second.manager, ada.token)
        assert (await there.get("/api/v1/auth/me")).status_code == 200
        gone = await admin.put(f"/api/v1/admin/auth/users/{ada.id}/deactivate")

        answer = await there.get("/documents", **exigent(gone.headers["x-acl-revision"]))

        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


async def test_a_revision_that_does_not_come_is_refused_in_time(tmp_path: Path) -> None:
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db", revision_wait_ms=100) as client:
        admin = await client.admin()

        answer = await admin.get("/api/v1/admin/permissions/rules", **exigent(10**15 - 1))

        assert (answer.status_code, answer.json()["code"]) == (503, "revision_not_reached")
        assert answer.headers["retry-after"]


@pytest.mark.parametrize("text", ["", "-1", "1.5", "0x10", " ", "1" * 16, "\u0661", "un"])
async def test_a_revision_that_is_no_number_is_named(tmp_path: Path, text: str) -> None:
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db") as client:
        admin = await client.admin()
        headers = {"X-ACL-Min-Revision": text.encode()}

        answer = await admin.get("/api/v1/admin/permissions/rules", headers=headers)

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_min_revision")
        stranger = await client.get("/documents", headers=headers)
        assert stranger.status_code == 401
