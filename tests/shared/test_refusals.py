"""Un refus pour de bon n'est pas une panne : il se dit au démarrage, à l'exploitant, et dans la santé."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiomysql
import asyncpg
import pytest
from pymongo import AsyncMongoClient

from fastapi_acl.runtime.composition import Composition, compose
from fastapi_acl.shared.exceptions import (
    ChangeTooLargeError,
    ConfigurationError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
)
from fastapi_acl.shared.policy import PolicyRule
from tests.conftest import DATABASES, launched, settings_of
from tests.support import byhand
from tests.support.app import Client, config, protected
from tests.support.rules import stored
from tests.support.servers import MariaDBServer, MongoDBServer

LESSER = "moindre"
PASSWORD = "un mot de passe de base"
TABLES = ("acl_users", "acl_sessions", "casbin_rule", "acl_changes", "acl_revision", "acl_batches", "acl_batch_rules")
SERVERS = [kind for kind in ("postgresql", "mysql", "mongodb") if kind in DATABASES]


class AuthMongoDBServer(MongoDBServer):
    """Un serveur compatible avec MongoDB qui demande qui l'on est, une fois ses comptes faits."""

    is_guarded = False

    def command(self) -> list[str]:
        return [*super().command(), *(["--auth"] if self.is_guarded else [])]

    def as_account(self, name: str) -> str:
        return self.uri().replace("mongodb://", f"mongodb://{name}:{PASSWORD.replace(' ', '%20')}@") + "&authSource=acl"


@dataclass
class Lesser:
    """Une base dont le schéma est fait, et un compte qui n'a que les droits qu'on lui donne.

    Attributes:
        kind: la sorte de base.
        uri: adresse sous ce compte.
        owner: adresse sous celui qui a fait le schéma.
        revoke: retire à ce compte un droit sur une table.
        grant: le rend.
    """

    kind: str
    uri: str
    owner: str
    revoke: Callable[[str, str], Any]
    grant: Callable[[str, str], Any]

    @property
    def settings(self) -> dict[str, Any]:
        return {"database_type": self.kind, f"{self.kind}_uri": self.uri, "create_default_admin": False}


async def make_schema(kind: str, uri: str) -> None:
    made = compose(config(create_default_admin=False, database_type=kind, **{f"{kind}_uri": uri}))
    await made.database.migrate()
    await made.database.close()
    made.hasher.close()


@asynccontextmanager
async def lesser_postgresql(request: pytest.FixtureRequest) -> AsyncIterator[Lesser]:
    async with request.getfixturevalue("postgresql_bases").empty() as owner, known_postgresql(owner) as found:
        yield found


@asynccontextmanager
async def known_postgresql(owner: str) -> AsyncIterator[Lesser]:
    await make_schema("postgresql", owner)
    connection = await asyncpg.connect(owner)
    name = f"{LESSER}_{urlsplit(owner).path[-12:]}"
    rights = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
    await connection.execute(f"CREATE ROLE {name} LOGIN; {rights} TO {name}")
    await connection.execute(f"GRANT USAGE, UPDATE ON ALL SEQUENCES IN SCHEMA public TO {name}")
    yield Lesser(
        "postgresql",
        owner.replace("acl@", f"{name}@", 1),
        owner,
        lambda right, table: connection.execute(f"REVOKE {right} ON {table} FROM {name}"),
        lambda right, table: connection.execute(f"GRANT {right} ON {table} TO {name}"),
    )
    await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
    await connection.close()


@asynccontextmanager
async def lesser_mysql(request: pytest.FixtureRequest) -> AsyncIterator[Lesser]:
    async with request.getfixturevalue("mysql_bases").empty() as owner, known_mysql(owner) as found:
        yield found


@asynccontextmanager
async def known_mysql(owner: str) -> AsyncIterator[Lesser]:
    await make_schema("mysql", owner)
    url = urlsplit(owner)
    connection = await aiomysql.connect(host=url.hostname, port=url.port, user="acl", db=url.path[1:], autocommit=True)
    cursor = await connection.cursor()
    account = f"{LESSER}_{url.path[-8:]}"
    await cursor.execute(f"CREATE USER {account}@'127.0.0.1'")
    for table in TABLES:
        await cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {account}@'127.0.0.1'")
    await cursor.execute(f"GRANT SELECT ON acl_alembic_version TO {account}@'127.0.0.1'")
    yield Lesser(
        "mysql",
        owner.replace("acl@", f"{account}@", 1),
        owner,
        lambda right, table: cursor.execute(f"REVOKE {right} ON {table} FROM {account}@'127.0.0.1'"),
        lambda right, table: cursor.execute(f"GRANT {right} ON {table} TO {account}@'127.0.0.1'"),
    )
    await cursor.execute(f"DROP USER {account}@'127.0.0.1'")
    connection.close()


@pytest.fixture(scope="module")
def guarded_mongodb(request: pytest.FixtureRequest) -> Iterator[AuthMongoDBServer]:
    yield from launched(request.config, AuthMongoDBServer)


@asynccontextmanager
async def lesser_mongodb(request: pytest.FixtureRequest) -> AsyncIterator[Lesser]:
    server = request.getfixturevalue("guarded_mongodb")
    if not server.is_guarded:
        async with AsyncMongoClient(server.uri()) as client:
            await client["acl"].command("createUser", "maitre", pwd=PASSWORD, roles=["dbOwner", "userAdmin"])
            await client["acl"].command("createUser", LESSER, pwd=PASSWORD, roles=["readWrite"])
        server.stop()
        server.is_guarded = True
        server.start()
    owner = server.as_account("maitre")
    await make_schema("mongodb", owner)
    async with AsyncMongoClient(owner) as client:

        async def become(role: str) -> None:
            await client["acl"].command("updateUser", LESSER, roles=[role])

        yield Lesser(
            "mongodb",
            server.as_account(LESSER),
            owner,
            lambda *_: become("read"),
            lambda *_: become("readWrite"),
        )
        await become("readWrite")


LESSERS: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Lesser]]] = {
    "postgresql": lesser_postgresql,
    "mysql": lesser_mysql,
    "mongodb": lesser_mongodb,
}


@pytest.fixture(params=SERVERS)
async def lesser(request: pytest.FixtureRequest) -> AsyncIterator[Lesser]:
    async with LESSERS[request.param](request) as found:
        yield found


async def try_start(settings: dict[str, Any]) -> None:
    made = compose(config(**settings))
    try:
        await made.database.migrate()
    finally:
        await made.database.close()
        made.hasher.close()


async def test_an_account_with_just_its_rights_starts_and_leaves_no_trace(lesser: Lesser) -> None:
    before = await revision_of(lesser)
    for _ in range(2):
        await try_start(lesser.settings)

    assert await revision_of(lesser) == before == 0
    assert await count_of(lesser) == 0


async def revision_of(lesser: Lesser) -> int:
    made = compose(config(**{**lesser.settings, f"{lesser.kind}_uri": lesser.owner}))
    await made.replica.refresh()
    await made.database.close()
    made.hasher.close()
    return made.replica.revision


async def count_of(lesser: Lesser) -> int:
    """Compte ce que les tables gardent, hors de la tête du journal."""
    made = compose(config(**{**lesser.settings, f"{lesser.kind}_uri": lesser.owner}))
    rows = [await byhand.all_of(made.storage, table) for table in TABLES if table != "acl_revision"]
    await made.database.close()
    made.hasher.close()
    return sum(map(len, rows))


@pytest.mark.parametrize(
    ("right", "table"),
    [("INSERT", "acl_changes"), ("SELECT", "acl_users"), ("UPDATE", "acl_revision"), ("DELETE", "acl_batch_rules")],
)
async def test_a_missing_right_refuses_to_start_and_is_named_with_its_remedy(
    lesser: Lesser, right: str, table: str
) -> None:
    await lesser.revoke(right, table)

    with pytest.raises(ConfigurationError) as refused:
        await try_start(lesser.settings)

    if lesser.kind == "mongodb":
        assert "readWrite" in refused.value.detail
        return
    assert table in refused.value.detail
    assert right in refused.value.detail
    assert "GRANT" in refused.value.detail


@pytest.mark.parametrize("lesser", [kind for kind in SERVERS if kind != "mongodb"], indirect=True)
async def test_all_that_is_missing_is_told_at_once_with_what_gives_it(lesser: Lesser) -> None:
    """Les instructions que le message donne suffisent, telles quelles."""
    for right, table in (("INSERT", "acl_changes"), ("DELETE", "acl_users"), ("SELECT", "acl_users")):
        await lesser.revoke(right, table)
    if lesser.kind == "postgresql":
        await close_schema(lesser)

    with pytest.raises(ConfigurationError) as refused:
        await try_start(lesser.settings)

    [told] = re.findall("« (GRANT .*); »", refused.value.detail)
    for grant in told.split("; "):
        right, place, _ = re.fullmatch(r"GRANT (.+) ON (.+) TO (\S+)", grant).groups()  # type: ignore[union-attr]
        await lesser.grant(right, place)
    await try_start(lesser.settings)


@pytest.mark.parametrize("lesser", [kind for kind in SERVERS if kind == "postgresql"], indirect=True)
async def test_a_schema_that_closes_while_running_is_a_refusal(lesser: Lesser) -> None:
    made = compose(config(**lesser.settings))
    await made.replica.refresh()

    await close_schema(lesser)

    with pytest.raises(DatabaseRefusedError):
        await made.enforcer.add_policy("role:r", "doc", "read", "allow")
    await lesser.grant("USAGE", "SCHEMA public")
    await made.database.recover()
    assert not made.database.is_refusing
    await made.database.close()
    made.hasher.close()


async def close_schema(lesser: Lesser) -> None:
    owner = await asyncpg.connect(lesser.owner)
    await owner.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    await owner.close()


async def test_a_table_that_is_gone_is_a_refusal(sql_settings: dict[str, Any]) -> None:
    made = compose(config(create_default_admin=False, **sql_settings))
    await made.replica.refresh()

    await byhand.lose_head(made.storage)

    with pytest.raises(DatabaseRefusedError):
        await made.replica.refresh()
    await made.database.close()
    made.hasher.close()


async def test_a_column_that_is_gone_is_refused_until_it_is_back(sql_settings: dict[str, Any]) -> None:
    made = compose(config(create_default_admin=False, **sql_settings))
    await made.replica.refresh()

    await rename(made, "v1", "ailleurs")
    with pytest.raises(DatabaseRefusedError):
        await made.enforcer.add_policy("role:r", "doc", "read", "allow")
    await made.database.recover()
    assert made.database.is_refusing

    await rename(made, "ailleurs", "v1")
    await made.database.recover()
    assert not made.database.is_refusing
    assert await made.enforcer.add_policy("role:r", "doc", "read", "allow")
    await made.database.close()
    made.hasher.close()


async def rename(made: Composition, old: str, new: str) -> None:
    database: Any = made.database
    async with database.session() as session:
        await byhand.unpin(session)
        await (await session.connection()).exec_driver_sql(f"ALTER TABLE casbin_rule RENAME COLUMN {old} TO {new}")


@pytest.mark.skipif("postgresql" not in DATABASES, reason="PostgreSQL n’est pas éprouvé")
async def test_too_many_connections_is_an_outage_that_says_what_would_mend_it(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    async with lesser_postgresql(request) as lesser:
        owner = await asyncpg.connect(lesser.owner)
        await owner.execute(f"ALTER ROLE {urlsplit(lesser.uri).username} CONNECTION LIMIT 0")
        await owner.close()
        made = compose(config(**lesser.settings))

        with pytest.raises(DatabaseUnavailableError):
            await made.replica.refresh()

        assert "max_connections" in caplog.text
        assert not made.database.is_refusing
        await made.database.close()
        made.hasher.close()


@pytest.mark.parametrize("lesser", [kind for kind in SERVERS if kind == "postgresql"], indirect=True)
async def test_a_closed_sequence_refuses_to_start(lesser: Lesser) -> None:
    await lesser.revoke("ALL", "SEQUENCE casbin_rule_id_seq")

    with pytest.raises(ConfigurationError, match=r"SEQUENCE .*casbin_rule_id_seq"):
        await try_start(lesser.settings)


@pytest.mark.parametrize("table", ["acl_alembic_version", "acl_revision"])
@pytest.mark.parametrize("lesser", [kind for kind in SERVERS if kind != "mongodb"], indirect=True)
async def test_whoever_never_migrates_is_not_told_to_ask_for_what_migrating_needs(lesser: Lesser, table: str) -> None:
    await lesser.revoke("SELECT", table)

    with pytest.raises(ConfigurationError, match=f"{table}.*GRANT") as refused:
        await try_start({**lesser.settings, "auto_migrate": False})

    assert "CREATE" not in refused.value.detail


@pytest.mark.parametrize("lesser", [kind for kind in SERVERS if kind != "mongodb"], indirect=True)
async def test_whoever_may_not_make_tables_is_told_so_and_does_not_wait(lesser: Lesser) -> None:
    owner = compose(config(**{**lesser.settings, f"{lesser.kind}_uri": lesser.owner}))
    database: Any = owner.database
    async with database.session() as session:
        await byhand.unpin(session)
        connection = await session.connection()
        await connection.exec_driver_sql("UPDATE acl_alembic_version SET version_num = '0002'")
        await connection.exec_driver_sql("DROP INDEX ix_acl_sessions_expires_at" + on_table(lesser.kind))
    await database.close()
    owner.hasher.close()

    with pytest.raises(ConfigurationError, match=r"(?i)refuse.*(owner|denied).*CREATE.*fastapi-acl migrate"):
        await try_start(lesser.settings)


def on_table(kind: str) -> str:
    return " ON acl_sessions" if kind == "mysql" else ""


async def test_a_right_lost_while_running_is_a_refusal_that_health_tells_until_it_is_back(
    lesser: Lesser, caplog: pytest.LogCaptureFixture
) -> None:
    async with protected(**{**lesser.settings, "policy_poll_seconds": 60}) as client:
        await client.newcomer("ada")
        await change(lesser.revoke, client)
        answer = await client.register("bob")

        assert (answer.status_code, answer.json()["code"]) == (503, "database_refused")
        assert "retry-after" not in answer.headers
        assert "réessayez" not in answer.text
        assert "acl_users" not in answer.text
        assert health_of(client) == ("degraded", True)
        [told] = [record.getMessage() for record in caplog.records if "database_refused" in record.getMessage()]
        assert ("readWrite" if lesser.kind == "mongodb" else "acl_users") in told

        kept = await count_of(lesser)
        await client.manager._parts.database.recover()
        assert health_of(client) == ("degraded", True)

        await change(lesser.grant, client)
        await client.manager._parts.database.recover()
        assert await count_of(lesser) == kept
        assert health_of(client) == ("ok", False)
        assert (await client.register("bob")).status_code == 201


@pytest.mark.parametrize("lesser", [kind for kind in SERVERS if kind != "mongodb"], indirect=True)
async def test_a_right_lost_before_an_import_is_published_is_a_refusal(lesser: Lesser) -> None:
    """Ce qui s'écrit en masse ne passe pas toujours par SQLAlchemy, et se refuse de même."""
    made = compose(config(**lesser.settings))
    await made.replica.refresh()
    adapter = made.storage.adapter
    await adapter.open_batch("lot", "import")
    await adapter.stage("lot", [(1, PolicyRule("p", ("role:r", "doc", "read", "allow")))])

    for right, table, work in (
        ("INSERT", "casbin_rule", lambda: adapter.publish("lot", 0)),
        ("DELETE", "acl_batch_rules", lambda: adapter.prune("lot")),
        ("SELECT", "casbin_rule", lambda: stored(adapter)),
    ):
        await lesser.revoke(right, table)
        with pytest.raises(DatabaseRefusedError):
            await work()
        assert made.database.is_refusing
        await lesser.grant(right, table)
        await made.database.recover()
        assert not made.database.is_refusing
    await made.database.close()
    made.hasher.close()


async def change(how: Callable[[str, str], Any], client: Client) -> None:
    """Change un droit ; le serveur compatible avec MongoDB ne l'apprend qu'à une connexion neuve."""
    await how("INSERT", "acl_users")
    if client.manager.config.database_type == "mongodb":
        await client.manager._parts.database.close()


def health_of(client: Client) -> tuple[str, bool]:
    health = client.manager.health()
    return health.status, health.database_refuses


# Lecture seule


@asynccontextmanager
async def read_only(request: pytest.FixtureRequest, kind: str) -> AsyncIterator[dict[str, Any]]:
    """Une base dont le schéma est fait, et qui n'admet plus aucune écriture."""
    if kind == "sqlite":
        uri = request.getfixturevalue("sqlite_uri")
        await make_schema(kind, uri)
        path = uri.removeprefix("sqlite:///")
        yield {"database_type": kind, "sqlite_uri": f"sqlite:///file:{path}?mode=ro&uri=true"}
        return
    async with LESSERS[kind](request) as lesser:
        if kind == "postgresql":
            options = "options=-c%20default_transaction_read_only%3Don"
            yield {**lesser.settings, "postgresql_uri": f"{lesser.uri}?{options}"}
            return
        url = urlsplit(lesser.owner)
        connection = await aiomysql.connect(host=url.hostname, port=url.port, user="acl", autocommit=True)
        cursor = await connection.cursor()
        await cursor.execute("SET GLOBAL read_only = 1")
        try:
            yield lesser.settings
        finally:
            await cursor.execute("SET GLOBAL read_only = 0")
            connection.close()


@pytest.mark.parametrize("kind", [kind for kind in DATABASES if kind != "mongodb"])
async def test_a_read_only_server_refuses_to_start(request: pytest.FixtureRequest, kind: str) -> None:
    async with read_only(request, kind) as settings:
        with pytest.raises(ConfigurationError, match="n’admet aucune écriture"):
            await try_start(settings)


@pytest.mark.parametrize("kind", [kind for kind in DATABASES if kind != "mongodb"])
async def test_a_server_that_becomes_read_only_is_a_refusal(request: pytest.FixtureRequest, kind: str) -> None:
    async with read_only(request, kind) as settings:
        made = compose(config(**{**settings, "create_default_admin": False}))
        await made.replica.refresh()

        with pytest.raises(DatabaseRefusedError):
            await made.enforcer.add_policy("role:r", "doc", "read", "allow")

        assert made.database.is_refusing
        await made.database.recover()
        assert made.database.is_refusing
        await made.database.close()
        made.hasher.close()


@pytest.mark.skipif("postgresql" not in DATABASES, reason="PostgreSQL n’est pas éprouvé")
async def test_connections_kept_from_before_do_not_make_a_refusal_last(request: pytest.FixtureRequest) -> None:
    """Une bascule, ou un droit rendu, ne se voit parfois que d'une connexion neuve."""
    async with lesser_postgresql(request) as lesser:
        owner = await asyncpg.connect(lesser.owner)
        role = urlsplit(lesser.uri).username
        await owner.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        made = compose(config(**lesser.settings))
        await made.replica.refresh()
        with pytest.raises(DatabaseRefusedError):
            await made.enforcer.add_policy("role:r", "doc", "read", "allow")
        await owner.execute(f"ALTER ROLE {role} RESET default_transaction_read_only")
        await owner.close()

        await made.database.recover()

        assert not made.database.is_refusing
        assert await made.enforcer.add_policy("role:r", "doc", "read", "allow")
        await made.database.close()
        made.hasher.close()


# Taille


class NarrowMariaDB(MariaDBServer):
    """Un MariaDB qui n'admet que de petits paquets."""

    def command(self) -> list[str]:
        return [*super().command(), f"--max-allowed-packet={2 << 20}"]


@pytest.fixture
def narrow_mysql(request: pytest.FixtureRequest) -> Iterator[NarrowMariaDB]:
    yield from launched(request.config, NarrowMariaDB)


@pytest.fixture(params=DATABASES)
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Réglages d'une base qui n'admet que de petites entrées, autant que faire se peut."""
    monkeypatch.setattr("fastapi_acl.shared.database.sql.MAX_ENTRY_BYTES", 1 << 20)
    if request.param == "mysql":
        return {"database_type": "mysql", "mysql_uri": request.getfixturevalue("narrow_mysql").uri("acl")}
    return settings_of(request, request.param)


async def test_a_change_too_large_for_the_base_is_refused_before_it_is_sent(narrow: dict[str, Any]) -> None:
    made = compose(config(create_default_admin=False, **narrow))
    await made.database.migrate()
    await made.replica.refresh()

    async def write(size: int) -> None:
        async with made.replica.writing() as transaction:
            quotes = {"text": '"' * (size // 2)}  # un guillemet s'écrit en deux caractères, puis en quatre pour MySQL
            await made.storage.log.append(transaction, "essai", quotes, actor="system")

    with pytest.raises(ChangeTooLargeError) as refused:
        await write(1 << 25)
    limit = refused.value.evidence["max_bytes"]
    assert isinstance(limit, int)
    await made.replica.refresh()
    assert made.replica.revision == 0
    await write(limit - 100)
    await made.replica.refresh()
    assert made.replica.revision == 1
    assert not made.database.is_refusing
    await made.database.close()
    made.hasher.close()
