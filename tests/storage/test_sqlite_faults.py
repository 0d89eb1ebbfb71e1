"""SQLite, sans serveur à couper : une instruction qui échoue, un disque plein, un verrou, un écrivain tué."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from fastapi_acl.runtime.composition import Composition, compose
from fastapi_acl.shared.exceptions import DatabaseRefusedError, DatabaseUnavailableError
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from tests.storage.test_faults import MUTATORS, attempt, same, start_over
from tests.support.app import config
from tests.support.waits import PATIENCE_SECONDS

BATCH = 50


@pytest.fixture
async def process(sqlite_uri: str) -> AsyncIterator[Composition]:
    made = compose(config(create_default_admin=False, sqlite_uri=sqlite_uri))
    await made.database.migrate()
    await made.replica.refresh()
    yield made
    await made.database.close()


@contextmanager
def failing(process: Composition, at: int, *, after: bool) -> Iterator[list[str]]:
    """Fait échouer la `at`-ième instruction, avant ou après qu'elle s'exécute ; zéro ne fait que compter."""
    seen: list[str] = []

    def fail(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)
        if len(seen) == at:
            raise OperationalError(statement, None, sqlite3.OperationalError())

    engine: Any = process.database
    name = "after_cursor_execute" if after else "before_cursor_execute"
    event.listen(engine.engine.sync_engine, name, fail)
    try:
        yield seen
    finally:
        event.remove(engine.engine.sync_engine, name, fail)


@pytest.mark.parametrize("name", MUTATORS)
async def test_a_write_whose_statement_fails_changes_nothing_and_a_retry_ends_right(
    process: Composition, name: str
) -> None:
    await start_over(process)
    initial = set(await same(process))
    with failing(process, 0, after=False) as seen:
        assert await attempt(process, MUTATORS[name]) == "done"
    final = set(await same(process))

    for at in range(1, len(seen) + 1):
        for after in (False, True):
            await start_over(process)
            with failing(process, at, after=after):
                outcome = await attempt(process, MUTATORS[name])

            assert outcome == "failed"
            assert set(await same(process)) == initial
    assert await attempt(process, MUTATORS[name]) == "done"
    assert set(await same(process)) == final


async def test_a_full_disk_is_a_refusal_that_changes_nothing(process: Composition) -> None:
    def shrink(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA page_count")
        cursor.execute(f"PRAGMA max_page_count = {cursor.fetchone()[0] + 2}")
        cursor.close()

    await start_over(process)
    engine: Any = process.database
    event.listen(engine.engine.sync_engine, "connect", shrink)
    before = await same(process)
    rules = tuple(PolicyRule("p", (f"role:r{n}", "x" * 200, "read", "allow")) for n in range(500))

    with pytest.raises(DatabaseRefusedError):
        await process.store.change(PolicyChange(added=rules))

    event.remove(engine.engine.sync_engine, "connect", shrink)
    assert await same(process) == before
    await process.store.change(PolicyChange(added=rules))
    assert set(rules) <= set(await same(process))


@pytest.mark.slow
async def test_a_file_locked_by_another_is_waited_for_then_an_outage(process: Composition, sqlite_uri: str) -> None:
    holder = sqlite3.connect(sqlite_uri.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()

    with pytest.raises(DatabaseUnavailableError):
        await asyncio.wait_for(process.enforcer.add_policy("role:r", "document", "read", "allow"), PATIENCE_SECONDS)

    assert time.monotonic() - started > 2, "il attend d'abord"
    holder.execute("ROLLBACK")
    holder.close()
    assert await process.enforcer.add_policy("role:r", "document", "read", "allow")


@pytest.mark.slow
async def test_a_writer_killed_in_a_batch_leaves_whole_batches(
    process: Composition, sqlite_uri: str, tmp_path: Path
) -> None:
    script = (
        "import asyncio\n"
        "from fastapi_acl.runtime.composition import compose\n"
        "from fastapi_acl.shared.policy import PolicyChange, PolicyRule\n"
        "from tests.support.app import config\n"
        f"made = compose(config(create_default_admin=False, sqlite_uri={sqlite_uri!r}))\n"
        "async def main():\n"
        "    await made.replica.refresh()\n"
        "    for batch in range(10_000):\n"
        f"        rules = [PolicyRule('p', (f'role:b{{batch}}', f'd{{n}}', 'read', 'allow')) for n in range({BATCH})]\n"
        "        await made.store.change(PolicyChange(added=tuple(rules)))\n"
        f"        open({str(tmp_path / 'begun')!r}, 'w').close()\n"
        "asyncio.run(main())"
    )
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2], env={**os.environ})
        while not (tmp_path / "begun").exists() and writer.poll() is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.037)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        (tmp_path / "begun").unlink(missing_ok=True)

        kept = await same(process)
        assert len(kept) % BATCH == 0
        assert kept
        await process.store.change(PolicyChange(removed=tuple(kept)))
