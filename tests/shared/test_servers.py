"""Le PostgreSQL des essais : neuf, relançable au même port, et sans rien laisser, même manqué."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from fastapi_acl import ACLConfig
from fastapi_acl.shared.database.base import Head
from fastapi_acl.shared.database.factory import DatabaseFactory
from tests.conftest import DATABASES
from tests.support.bases import Bases
from tests.support.servers import PostgreSQLServer, ServerUnavailableError


async def ask(uri: str, question: str) -> Any:
    connection = await asyncpg.connect(uri)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_each_test_gets_an_empty_database(empty_postgresql_uri: str) -> None:
    tables = await ask(empty_postgresql_uri, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")

    assert tables == 0


@pytest.mark.parametrize("kind", [name for name in DATABASES if name != "mongodb"])
async def test_a_copied_base_is_up_to_date_empty_and_has_a_log_of_its_own(
    kind: str, request: pytest.FixtureRequest
) -> None:
    bases: Bases = request.getfixturevalue(f"{kind}_bases")
    heads: list[Head] = []
    for _ in range(2):
        async with bases.migrated() as uri:
            settings: dict[str, Any] = {"database_type": kind, f"{kind}_uri": uri}
            database = DatabaseFactory(ACLConfig(_env_file=None, auto_migrate=False, **settings)).create_sql()
            await database.migrate()
            async with database.snapshot() as reading:
                heads.append(await database.read_head(reading))
            await database.close()

    assert [head.revision for head in heads] == [0, 0]
    assert heads[0].log_id != heads[1].log_id


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_stopped_server_refuses_then_starts_again_on_the_same_port_with_its_data(
    own_postgresql: PostgreSQLServer, how: signal.Signals
) -> None:
    uri = own_postgresql.uri()
    await ask(uri, "CREATE TABLE kept (id int)")

    own_postgresql.stop(how)
    with pytest.raises(OSError, match=r"Connect call failed|refused"):
        await asyncpg.connect(uri)
    own_postgresql.start()

    assert await ask(uri, "SELECT count(*) FROM kept") == 0


def test_the_keyboard_interrupt_of_the_terminal_does_not_reach_the_server(own_postgresql: PostgreSQLServer) -> None:
    process = own_postgresql._process
    assert process is not None

    assert os.getpgid(process.pid) != os.getpgrp()


def test_a_server_already_dead_closes_without_a_word(own_postgresql: PostgreSQLServer) -> None:
    process, folder = own_postgresql._process, own_postgresql._folder
    assert process is not None
    os.kill(int((folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGINT)
    process.wait(timeout=120)

    own_postgresql.close()

    assert not folder.exists()


def test_a_start_on_a_taken_port_says_why_and_leaves_nothing(own_postgresql: PostgreSQLServer) -> None:
    own_postgresql.stop()

    with socket.socket() as intruder:
        intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        intruder.bind(("127.0.0.1", own_postgresql.port))
        intruder.listen()
        with pytest.raises(ServerUnavailableError, match=r"127\.0\.0\.1"):
            own_postgresql.start()

    assert own_postgresql._process is None
    assert not own_postgresql._folder.exists()


def test_a_failed_preparation_leaves_no_folder(
    postgresql_server: PostgreSQLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def nobody(*_: object) -> None:
        raise LookupError

    monkeypatch.setattr(shutil, "chown", nobody)

    with pytest.raises(ServerUnavailableError, match="postgres"):
        PostgreSQLServer()

    assert list(tmp_path.iterdir()) == []
    assert postgresql_server._process is not None


def test_the_servers_are_private_and_listen_on_loopback_only(postgresql_server: PostgreSQLServer) -> None:
    listening = subprocess.run(
        [*postgresql_server._as_user(), "cat", str(postgresql_server.data / "postmaster.pid")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()

    assert listening[5] == "127.0.0.1"
    assert postgresql_server._folder.stat().st_mode & 0o077 == 0
