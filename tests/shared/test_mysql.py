"""Ce que MySQL a en propre : des échéances que son pilote n'a pas, un verrou nommé, une session stricte."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import func, insert, select, text

from fastapi_acl.shared.database import mysql
from fastapi_acl.shared.database.mysql import MIGRATION_LOCK, MySQLDatabase
from fastapi_acl.shared.database.sql import LOCK_TIMEOUT_SECONDS
from fastapi_acl.shared.database.tables import batch_rules_table, metadata
from fastapi_acl.shared.exceptions import DatabaseRefusedError, DatabaseUnavailableError
from tests.conftest import launched
from tests.support.servers import MariaDBServer
from tests.support.waits import PATIENCE_SECONDS

TWO_LOOPS = """
import asyncio, gc, sys
from sqlalchemy import text
from fastapi_acl.shared.database.mysql import MySQLDatabase
async def ask():
    async with database.session() as session:
        assert await session.scalar(text("SELECT 1")) == 1
async def again():
    database.abandon()
    await ask()
    await database.close()
database = MySQLDatabase(sys.argv[1])
asyncio.run(ask())
gc.collect()
asyncio.run(again())
gc.collect()
"""


class TLSServer(MariaDBServer):
    """Un MariaDB qui offre TLS, sous un certificat qu'il se donne lui-même."""

    @property
    def certificate(self) -> Path:
        return self._folder / "certificate.pem"

    def prepare(self) -> None:
        super().prepare()
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "essai")])
        address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
        built = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(hours=1), now + timedelta(1))
        signed = built.add_extension(address, critical=False).sign(key, SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.certificate.write_bytes(signed.public_bytes(Encoding.PEM))
        (self._folder / "key.pem").write_bytes(private)

    def command(self) -> list[str]:
        return [*super().command(), f"--ssl-cert={self.certificate}", f"--ssl-key={self._folder / 'key.pem'}"]


@pytest.fixture
def tls_server(request: pytest.FixtureRequest) -> Iterator[TLSServer]:
    yield from launched(request.config, TLSServer)


@pytest.fixture
async def database(empty_mysql_uri: str) -> AsyncIterator[MySQLDatabase]:
    database = MySQLDatabase(empty_mysql_uri)
    yield database
    await database.close()


ENDLESS = "SELECT SLEEP(600)"
"""Question à laquelle le serveur ne répond pas avant qu'on se lasse."""


async def ask(database: MySQLDatabase, question: str) -> Any:
    async with database.session() as session:
        return await session.scalar(text(question))


async def cut(work: Any) -> None:
    """Vérifie qu'un travail auquel rien ne répond s'arrête de lui-même."""
    with pytest.raises(DatabaseUnavailableError):
        await asyncio.wait_for(work, PATIENCE_SECONDS)


@asynccontextmanager
async def lock_held(uri: str) -> AsyncIterator[None]:
    """Une autre réplique, qui migre."""
    other = MySQLDatabase(uri)
    async with other.engine.connect() as connection:
        assert await connection.scalar(text(f"SELECT GET_LOCK({MIGRATION_LOCK}, 0)")) == 1
        yield
        await connection.execute(text(f"SELECT RELEASE_LOCK({MIGRATION_LOCK})"))
    await other.close()


async def test_a_command_without_an_answer_is_cut_and_the_next_one_is_served(
    database: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "COMMAND_TIMEOUT_SECONDS", 0.5)
    await cut(ask(database, ENDLESS))

    monkeypatch.setattr(mysql, "COMMAND_TIMEOUT_SECONDS", PATIENCE_SECONDS)
    assert await ask(database, "SELECT 1") == 1


async def test_a_deadline_starts_again_with_each_command(
    database: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "COMMAND_TIMEOUT_SECONDS", 2)

    async with database.session() as session:
        slept = [await session.scalar(text("SELECT SLEEP(0.6)")) for _ in range(4)]
    await asyncio.sleep(2.1)

    assert slept == [0] * 4
    assert await ask(database, "SELECT 1") == 1


async def test_a_loop_held_past_the_deadline_still_reads_an_answer_that_came(
    database: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "COMMAND_TIMEOUT_SECONDS", 2)

    async with database.session() as session:
        asyncio.get_running_loop().call_later(0.2, time.sleep, 3)
        slept = await session.scalar(text("SELECT SLEEP(0.6)"))

    assert slept == 0


async def test_a_server_that_accepts_and_says_nothing_is_unavailable_and_not_waited_for() -> None:
    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _ = await reader.read()
        writer.close()

    server = await asyncio.start_server(stay_silent, "127.0.0.1", 0)
    database = MySQLDatabase(f"mysql://acl@127.0.0.1:{server.sockets[0].getsockname()[1]}/base")

    await cut(ask(database, "SELECT 1"))

    await database.close()
    server.close()
    await server.wait_closed()


async def test_a_session_is_strict_in_utc_and_reads_what_is_committed(database: MySQLDatabase) -> None:
    mode = await ask(database, "SELECT @@sql_mode")

    assert {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "NO_AUTO_VALUE_ON_ZERO"} <= set(mode.split(","))
    assert await ask(database, "SELECT @@time_zone") == "+00:00"
    assert await ask(database, "SELECT @@innodb_lock_wait_timeout") == LOCK_TIMEOUT_SECONDS
    assert await ask(database, "SELECT @@character_set_client") == "utf8mb4"


async def test_a_transaction_reads_what_is_committed_and_a_snapshot_one_instant(database: MySQLDatabase) -> None:
    await database.migrate()
    count = text("SELECT COUNT(*) FROM casbin_rule")
    other = MySQLDatabase(database._uri)
    seen = []
    for opening in (database.transaction, database.snapshot):
        async with opening() as opened:
            before = await opened.connection.scalar(count)
            async with other.session() as session:
                await session.execute(text("INSERT INTO casbin_rule (ptype, digest) VALUES ('p', UUID())"))
            seen.append(await opened.connection.scalar(count) - before)

    assert seen == [1, 0]
    await other.close()


async def test_a_lock_that_another_transaction_holds_is_not_waited_for_ever(database: MySQLDatabase) -> None:
    await database.migrate()
    other = MySQLDatabase(database._uri)
    async with other.session() as holding:
        await holding.execute(text("SELECT * FROM acl_revision FOR UPDATE"))
        await asyncio.create_task(cut(ask(database, "SELECT id FROM acl_revision FOR UPDATE")))

    await other.close()


async def test_a_replica_waits_for_the_migration_of_another_longer_than_for_a_command(
    empty_mysql_uri: str, database: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "COMMAND_TIMEOUT_SECONDS", 2)
    async with lock_held(empty_mysql_uri):
        waiting = asyncio.create_task(database.migrate())
        await asyncio.sleep(2.5)
        assert not waiting.done()
    await waiting

    await cut(ask(database, ENDLESS))


async def test_a_migration_lock_never_released_is_an_unavailable_database(
    empty_mysql_uri: str, database: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "MIGRATION_TIMEOUT_SECONDS", 0.3)
    async with lock_held(empty_mysql_uri):
        await cut(database.migrate())

    await database.migrate()


async def test_two_databases_of_one_server_do_not_share_their_migration_lock(empty_mysql_uri: str) -> None:
    names = []
    for name in (empty_mysql_uri.rpartition("/")[2], "information_schema"):
        database = MySQLDatabase(f"{empty_mysql_uri.rpartition('/')[0]}/{name}")
        names.append(await ask(database, f"SELECT {MIGRATION_LOCK}"))
        await database.close()

    assert len(set(names)) == 2
    assert max(map(len, names)) <= 64


async def test_tls_that_cannot_be_proved_is_refused(empty_mysql_uri: str) -> None:
    database = MySQLDatabase(f"{empty_mysql_uri}?ssl=true")

    with pytest.raises(DatabaseRefusedError) as refused:
        await ask(database, "SELECT 1")

    assert "TLS" in str(refused.value.__cause__) or "SSL" in str(refused.value.__cause__)
    await database.close()


async def test_tls_is_served_under_a_certificate_that_is_known_and_no_other(tls_server: TLSServer) -> None:
    question = "SHOW STATUS LIKE 'Ssl_version'"
    known = MySQLDatabase(f"{tls_server.uri()}?ssl_ca={tls_server.certificate}")
    unknown = MySQLDatabase(f"{tls_server.uri()}?ssl=true")

    async with known.session() as session:
        assert (await session.execute(text(question))).one()[1].startswith("TLSv1")
    with pytest.raises(DatabaseRefusedError) as refused:
        await ask(unknown, question)

    assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value.__cause__)
    await known.close()
    await unknown.close()


async def test_a_certificate_of_another_name_is_refused_unless_the_name_is_not_asked_for(tls_server: TLSServer) -> None:
    elsewhere = f"{tls_server.uri().replace('127.0.0.1', 'localhost')}?ssl_ca={tls_server.certificate}"
    verified, unnamed = MySQLDatabase(elsewhere), MySQLDatabase(f"{elsewhere}&ssl_check_hostname=false")
    async with AsyncExitStack() as opened:
        for database in (verified, unnamed):
            opened.push_async_callback(database.close)

        with pytest.raises(DatabaseRefusedError) as refused:
            await ask(verified, "SELECT 1")

        assert "Hostname mismatch" in str(refused.value.__cause__)
        assert await ask(unnamed, "SELECT 1") == 1


async def test_a_server_stopped_or_frozen_is_unavailable_and_serves_again_once_back(
    own_mysql: MariaDBServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "COMMAND_TIMEOUT_SECONDS", 3)
    database = MySQLDatabase(own_mysql.uri())
    served = [await asyncio.gather(*(ask(database, "SELECT 1") for _ in range(5)))]

    own_mysql.freeze()
    await asyncio.gather(*(cut(ask(database, "SELECT 1")) for _ in range(5)))
    own_mysql.thaw()
    served.append(await asyncio.gather(*(ask(database, "SELECT 1") for _ in range(5))))
    own_mysql.stop(signal.SIGKILL)
    await cut(ask(database, "SELECT 1"))
    own_mysql.start()
    served.append(await asyncio.gather(*(ask(database, "SELECT 1") for _ in range(5))))

    assert served == [[1] * 5] * 3
    await database.close()


async def test_a_bulk_copy_has_more_time_than_a_command_and_the_next_command_has_not(
    database: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.migrate()
    monkeypatch.setattr(mysql, "COMMAND_TIMEOUT_SECONDS", 2)
    staged = [{"batch_id": "1", "number": number, "ptype": "p", "digest": str(number)} for number in range(3)]
    batch = batch_rules_table.c
    slow = select(batch.number, batch.ptype, batch.digest).where(func.sleep(0.8) == 0)
    async with database.transaction() as transaction:
        await transaction.connection.execute(insert(batch_rules_table), staged)
        rules = metadata.tables["casbin_rule"]

        copied = await database.bulk_copy(transaction, rules, ["id", "ptype", "digest"], slow)

    assert copied == 3
    async with database.session() as session:
        assert list(await session.scalars(select(rules.c.id).order_by(rules.c.id))) == [0, 1, 2]
    await cut(ask(database, ENDLESS))


def test_connections_of_a_loop_that_is_gone_are_forgotten_in_silence(empty_mysql_uri: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TWO_LOOPS, empty_mysql_uri],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
