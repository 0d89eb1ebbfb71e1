"""PostgreSQL tel qu'on le trouve : adresses de libpq, TLS, schémas d'un autre, et un pooler entre nous et lui."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit
from uuid import uuid4

import asyncpg
import pytest

from fastapi_acl import ACLManager
from fastapi_acl.shared.database.postgresql import COPY_FROM, PostgreSQLDatabase
from fastapi_acl.shared.database.postgresql_link import SEARCH_PATH, PostgreSQLLink, quote_name
from fastapi_acl.shared.database.sql import LOCK_TIMEOUT_SECONDS
from fastapi_acl.shared.exceptions import ConfigurationError, DatabaseRefusedError
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from tests.conftest import launched
from tests.support.app import Client, config, protected
from tests.support.bases import addressed
from tests.support.rules import stored
from tests.support.servers import PgBouncerServer, PostgreSQLServer, TLSPostgreSQLServer
from tests.support.waits import until


def rule(name: str) -> PolicyRule:
    return PolicyRule("p", (f"role:{name}", "document", "read", "allow"))


async def add(manager: ACLManager, name: str) -> None:
    await manager.get_policy_store().change(PolicyChange(added=(rule(name),)))


@asynccontextmanager
async def started(uri: str, *, waits: bool = True, **settings: Any) -> AsyncIterator[ACLManager]:
    given = {"database_type": "postgresql", "postgresql_uri": uri, "create_default_admin": False, "watcher": "none"}
    manager = ACLManager(config(**{**given, **settings}))
    try:
        await manager.initialize()
        if waits:
            await until(lambda: manager.is_ready)
        yield manager
    finally:
        await manager.close()


@asynccontextmanager
async def connected(uri: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(uri)
    yield connection
    await connection.close()


def link_of(manager: ACLManager) -> PostgreSQLLink:
    database = manager._parts.database
    assert isinstance(database, PostgreSQLDatabase)
    return database._link


# Adresses


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("channel_binding=require", "verify-full"),
        ("ssl=require", "sslmode="),
        ("hostaddr=10.0.0.1", "host="),
        ("prepared_statement_cache_size=0", "statement_cache_size="),
        ("search_path=acl", "ACL_POSTGRESQL_SCHEMA"),
        ("statement_timeout=3", "options=-c"),
        ("connect_timeout=bientôt", "nombre entier"),
        ("ssl_mode=require", "« sslmode »"),
        ("aplication_name=Ada", "« application_name »"),
        ("sslmode=require&keepalives=1", "keepalives"),
        ("sslrootcert=system", "verify-full"),
        ("sslmode=require&sslrootcert=system", "verify-full"),
        ("service=absent", "PGSERVICEFILE"),
    ],
)
def test_a_parameter_that_cannot_be_honoured_is_refused_with_the_one_to_use(query: str, said: str) -> None:
    settings = {"database_type": "postgresql", "postgresql_uri": f"postgresql://acl@127.0.0.1:1/acl?{query}"}

    with pytest.raises(ConfigurationError) as refused:
        ACLManager(config(**settings))

    assert said in refused.value.detail
    assert "ACL_POSTGRESQL_URI" in refused.value.detail


async def test_a_service_is_found_in_its_file(
    empty_postgresql_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = urlsplit(empty_postgresql_uri)
    lines = f"[acl]\nhost={url.hostname}\nport={url.port}\nuser={url.username}\ndbname={url.path[1:]}\n"
    (tmp_path / "services").write_text(lines, "utf-8")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))

    async with started("postgresql://?service=acl") as manager:
        await add(manager, "r")


def test_the_authorities_of_the_machine_are_a_file_of_it(
    tls_postgresql: TLSPostgreSQLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_postgresql.certificate))
    uri = "postgresql://acl@127.0.0.1:1/acl?sslmode=verify-full&sslrootcert=system"

    link = PostgreSQLLink(uri, connect_timeout=1)

    assert quote_plus(str(tls_postgresql.certificate)) in link.dsn


async def test_the_parameters_of_libpq_reach_the_server(empty_postgresql_uri: str) -> None:
    options = "application_name=Facturation&options=-c%20statement_timeout%3D7s&connect_timeout=3"
    async with started(f"{empty_postgresql_uri}?{options}&statement_cache_size=0") as manager:
        async with manager._parts.database.snapshot() as transaction:
            connection = await transaction.connection.connection()
            said = [
                (await connection.exec_driver_sql(f"SHOW {name}")).scalar()
                for name in ("application_name", "statement_timeout", "lock_timeout", "search_path")
            ]

        assert said == ["Facturation", "7s", f"{LOCK_TIMEOUT_SECONDS}s", SEARCH_PATH]
        assert link_of(manager).connect_timeout == 3


@pytest.fixture
def tls_postgresql(request: pytest.FixtureRequest) -> Iterator[TLSPostgreSQLServer]:
    yield from launched(request.config, TLSPostgreSQLServer)


async def test_a_server_is_verified_by_an_authority_of_ones_own(tls_postgresql: TLSPostgreSQLServer) -> None:
    verified = f"{tls_postgresql.uri()}?sslmode=verify-full&sslrootcert={tls_postgresql.certificate}"

    async with started(verified) as manager:
        await add(manager, "r")
        async with manager._parts.database.snapshot() as transaction:
            connection = await transaction.connection.connection()
            used = (
                await connection.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            ).scalar()

    assert used
    async with started(verified.replace("127.0.0.1", "localhost"), waits=False) as manager:
        assert not manager.is_ready
        with pytest.raises(DatabaseRefusedError):
            await manager.load()
    with pytest.raises(ConfigurationError, match="root certificate"):
        async with started(f"{tls_postgresql.uri()}?sslmode=verify-full"):
            pass


# Schémas


@asynccontextmanager
async def shared_with_an_intruder(admin: str) -> AsyncIterator[tuple[str, str]]:
    """Une base à un compte, et un autre compte qui ne peut qu'y faire des schémas."""
    async with connected(admin) as connection:
        name = (await connection.fetchval("SELECT current_database()"))[-12:]
        ours, theirs = f"app_{name}", f"intrus_{name}"
        await connection.execute(f"CREATE ROLE {ours} LOGIN; CREATE ROLE {theirs} LOGIN")
        await connection.execute(f'ALTER DATABASE "{urlsplit(admin).path[1:]}" OWNER TO {ours}')
        await connection.execute(f'GRANT CREATE ON DATABASE "{urlsplit(admin).path[1:]}" TO {theirs}')
        await connection.execute(f"GRANT CREATE ON SCHEMA public TO {ours}")
        yield admin.replace("acl@", f"{ours}@"), admin.replace("acl@", f"{theirs}@")
        await connection.execute(f"DROP OWNED BY {theirs} CASCADE; DROP OWNED BY {ours} CASCADE")
        await connection.execute(f'ALTER DATABASE "{urlsplit(admin).path[1:]}" OWNER TO acl')
        await connection.execute(f"DROP ROLE {theirs}; DROP ROLE {ours}")


async def test_a_schema_that_bears_the_name_of_our_account_takes_nothing_over(empty_postgresql_uri: str) -> None:
    async with shared_with_an_intruder(empty_postgresql_uri) as (ours, theirs):
        async with started(ours) as manager:
            await add(manager, "vraie")
        account = urlsplit(ours).username
        async with connected(theirs) as intruder:
            await intruder.execute(f"CREATE SCHEMA {account}; GRANT USAGE ON SCHEMA {account} TO PUBLIC")
            for table in ("casbin_rule", "acl_revision", "acl_changes", "acl_users", "acl_alembic_version"):
                await intruder.execute(f"CREATE TABLE {account}.{table} (id int, ptype text, v0 text)")
                await intruder.execute(f"GRANT ALL ON {account}.{table} TO PUBLIC")

        async with started(ours) as manager:
            assert manager.get_policy().rules == (rule("vraie"),)
            await manager.get_replica().reload()
            assert await stored(manager._parts.storage.adapter)


async def test_a_table_made_by_another_account_refuses_to_start(empty_postgresql_uri: str) -> None:
    async with shared_with_an_intruder(empty_postgresql_uri) as (ours, theirs):
        async with started(ours):
            pass
        account = urlsplit(theirs).username
        async with connected(empty_postgresql_uri) as superuser:
            await superuser.execute(f"ALTER TABLE casbin_rule OWNER TO {account}")
            await superuser.execute("GRANT ALL ON casbin_rule TO PUBLIC")

        with pytest.raises(ConfigurationError, match=f"casbin_rule.*{account}"):
            async with started(ours):
                pass


async def test_a_partitioned_table_of_another_account_takes_nothing_over(empty_postgresql_uri: str) -> None:
    """Une table découpée n'est pas, pour le catalogue, une table ordinaire ; elle se lit de même."""
    columns = ", ".join(f"{name} varchar(255)" for name in ("ptype", "v0", "v1", "v2", "v3", "v4", "v5", "digest"))
    async with shared_with_an_intruder(empty_postgresql_uri) as (ours, theirs):
        async with connected(empty_postgresql_uri) as superuser:
            await superuser.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {urlsplit(theirs).username}")
        async with connected(theirs) as intruder:
            await intruder.execute(f"CREATE TABLE casbin_rule (id bigint, {columns}) PARTITION BY HASH (id)")
            await intruder.execute("GRANT ALL ON casbin_rule TO PUBLIC")

        with pytest.raises(ConfigurationError, match=f"casbin_rule.*{urlsplit(theirs).username}"):
            async with started(ours):
                pass


TRAPS = """
CREATE SEQUENCE calls;
GRANT USAGE, UPDATE ON SEQUENCE calls TO PUBLIC;
DO $do$
DECLARE
  kinds regtype[] := '{varchar,text,bpchar,name,smallint,integer,bigint,oid,regclass,timestamptz,boolean}';
  trap text := 'BEGIN PERFORM pg_catalog.nextval(''public.calls''); RETURN NULL; END';
  one regtype; two regtype; sign text; known record;
BEGIN
  FOREACH one IN ARRAY kinds LOOP
    FOREACH two IN ARRAY kinds LOOP
      EXECUTE format('CREATE FUNCTION trap(%s, %s) RETURNS boolean LANGUAGE plpgsql AS %L', one, two, trap);
      FOREACH sign IN ARRAY '{=,<>,<,<=,>,>=}'::text[] LOOP
        EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, PROCEDURE = trap)', sign, one, two);
      END LOOP;
    END LOOP;
  END LOOP;
  FOR known IN
    SELECT proname, prorettype::regtype AS given, array_to_string(ARRAY(
      SELECT CASE taken WHEN 25 THEN 1043 ELSE taken END::regtype FROM unnest(proargtypes) AS taken), ', ') AS taken
    FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND 25 = ANY (proargtypes) AND prokind = 'f'
  LOOP
    BEGIN
      EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L',
        known.proname, known.taken, known.given, trap);
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
END $do$;
ALTER SEQUENCE calls RESTART
"""
"""Tous les opérateurs de comparaison, pour des types que les nôtres valent exactement, et toutes les fonctions du
serveur qui prennent un texte, refaites pour un varchar : chacun compte ses appels."""

CALLS = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM calls"


@asynccontextmanager
async def trapped(admin: str) -> AsyncIterator[tuple[str, Any]]:
    """Une base dont le schéma « public » est plein de pièges, et de quoi en compter les appels."""
    async with shared_with_an_intruder(admin) as (ours, theirs), connected(admin) as superuser:
        await superuser.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {urlsplit(theirs).username}")
        async with connected(theirs) as intruder:
            await intruder.execute(TRAPS)
        yield ours, superuser


@pytest.mark.parametrize("path", ["direct", "pooled"])
async def test_nothing_that_another_account_makes_in_our_schema_is_ever_run(
    request: pytest.FixtureRequest, empty_postgresql_uri: str, path: str
) -> None:
    async with trapped(empty_postgresql_uri) as (ours, superuser):
        uri = ours if path == "direct" else request.getfixturevalue("pooled_uri")
        watcher = "postgresql" if path == "direct" else "none"
        for _ in ("le schéma se fait", "le schéma y est"):
            settings = {"database_type": "postgresql", "postgresql_uri": uri, "watcher": watcher}
            async with protected(**settings) as client:
                assert link_of(client.manager).is_pooled == (path == "pooled")
                await use_everything(client)

        assert await superuser.fetchval(CALLS) == 0
        await superuser.execute("SET search_path TO public")
        await superuser.execute("SELECT 1 FROM casbin_rule WHERE v0 = 'admin'::varchar")
        assert await superuser.fetchval("SELECT last_value FROM calls") > 0, "les pièges n'en étaient pas"


async def use_everything(client: Client) -> None:
    """Lit et écrit chaque table, en masse aussi."""
    admin, name = await client.admin(), uuid4().hex
    await (await client.newcomer(name)).post("/api/v1/auth/logout")
    await admin.add_rules(("p", f"role:{name}", "document", "read", "allow"))
    assert (await admin.get(f"/api/v1/admin/permissions/rules?v0=role:{name}")).json()["items"]
    await admin.remove_rules(("p", f"role:{name}", "document", "read", "allow"))
    storage = client.manager._parts.storage
    rules = [(number, rule(f"{name}{number}")) for number in range(1, COPY_FROM + 2)]
    await storage.adapter.open_batch(name, "import")
    await storage.adapter.stage(name, rules)
    await storage.adapter.prune(name)
    await storage.adapter.publish(name, await storage.adapter.last_id())
    await storage.adapter.drop(name)
    await client.manager.get_replica().reload()
    await client.manager.get_replica().refresh()


async def test_the_view_of_another_account_is_not_even_read(empty_postgresql_uri: str) -> None:
    """Une vue exécute ses fonctions avec les droits de qui la lit."""
    async with trapped(empty_postgresql_uri) as (ours, superuser):
        async with connected(ours.replace("app_", "intrus_")) as intruder:
            view = "CREATE VIEW acl_alembic_version AS SELECT nextval('calls')::varchar AS version_num"
            await intruder.execute(f"{view}; GRANT SELECT ON acl_alembic_version TO PUBLIC")

        for reads in (ACLManager.initialize, ACLManager.load):
            with pytest.raises(ConfigurationError, match="acl_alembic_version"):
                await only(ours, reads)

        assert await superuser.fetchval(CALLS) == 0


async def only(uri: str, reads: Callable[[ACLManager], Awaitable[None]]) -> None:
    manager = ACLManager(config(database_type="postgresql", postgresql_uri=uri, create_default_admin=False))
    try:
        await reads(manager)
    finally:
        await manager.close()


async def test_a_table_that_only_resembles_ours_is_not_our_business(empty_postgresql_uri: str) -> None:
    async with shared_with_an_intruder(empty_postgresql_uri) as (ours, theirs):
        async with connected(empty_postgresql_uri) as superuser:
            await superuser.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {urlsplit(theirs).username}")
        async with connected(theirs) as neighbour:
            await neighbour.execute("CREATE TABLE acl_object_identity (id bigint)")

        async with started(ours) as manager:
            await add(manager, "r")


@pytest.mark.parametrize("schema", ["À moi", 'a.b "c"'])
async def test_the_schema_is_the_one_that_is_set(empty_postgresql_uri: str, schema: str) -> None:
    with pytest.raises(ConfigurationError, match="CREATE SCHEMA"):
        async with started(empty_postgresql_uri, postgresql_schema=schema):
            pass
    async with connected(empty_postgresql_uri) as connection:
        await connection.execute(f"CREATE SCHEMA {quote_name(schema)}")

    async with started(empty_postgresql_uri, postgresql_schema=schema) as manager:
        await add(manager, "r")

    async with connected(empty_postgresql_uri) as connection:
        assert await connection.fetchval(f"SELECT count(*) FROM {quote_name(schema)}.casbin_rule") == 1  # noqa: S608 - un nom à nous
        assert await connection.fetchval("SELECT to_regclass('public.casbin_rule')") is None


async def test_tables_left_in_the_schema_of_the_account_are_not_forgotten(empty_postgresql_uri: str) -> None:
    async with connected(empty_postgresql_uri) as connection:
        await connection.execute("CREATE SCHEMA acl")
    async with started(empty_postgresql_uri, postgresql_schema="acl") as manager:
        await add(manager, "r")

    with pytest.raises(ConfigurationError, match="ACL_POSTGRESQL_SCHEMA=acl"):
        async with started(empty_postgresql_uri):
            pass


# PgBouncer


@pytest.fixture
def pooled_uri(
    request: pytest.FixtureRequest, postgresql_server: PostgreSQLServer, empty_postgresql_uri: str
) -> Iterator[str]:
    """La base de l'essai, derrière un pooler qui prête trois connexions, une transaction à la fois."""
    for pooler in launched(request.config, lambda: PgBouncerServer(postgresql_server)):
        yield addressed(pooler.uri(), urlsplit(empty_postgresql_uri).path[1:])


async def test_a_pooler_is_seen_and_a_server_is_not_taken_for_one(empty_postgresql_uri: str, pooled_uri: str) -> None:
    async with started(empty_postgresql_uri) as direct, started(pooled_uri) as pooled:
        assert (link_of(direct).is_pooled, link_of(pooled).is_pooled) == (False, True)


async def test_behind_a_pooler_each_transaction_has_its_settings(pooled_uri: str) -> None:
    async with started(pooled_uri) as manager, manager._parts.database.transaction() as transaction:
        connection = await transaction.connection.connection()
        said = [(await connection.exec_driver_sql(f"SHOW {name}")).scalar() for name in ("lock_timeout", "search_path")]

        assert said == [f"{LOCK_TIMEOUT_SECONDS}s", SEARCH_PATH]


async def test_listening_through_a_pooler_is_refused_aloud(pooled_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    async with started(pooled_uri, watcher="postgresql") as manager:
        while "ACL_WATCHER" not in caplog.text:
            await asyncio.sleep(0.01)

        assert (manager.health().watcher, manager.health().status) == ("connecting", "degraded")


@pytest.fixture
def counts_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chaque connexion nomme ses instructions sans rien savoir des autres, comme le pilote de chaque processus."""
    counts = Counter[int]()

    def named(connection: asyncpg.Connection, prefix: str) -> str:
        counts[id(connection)] += 1
        return f"__asyncpg_{prefix}_{counts[id(connection)]:x}__"

    monkeypatch.setattr(asyncpg.Connection, "_get_unique_id", named)


@pytest.mark.usefixtures("counts_apart")
async def test_behind_a_pooler_processes_read_and_write_what_is_theirs(pooled_uri: str) -> None:
    async with started(pooled_uri) as first, started(pooled_uri) as second:

        async def write(manager: ACLManager, name: str) -> None:
            for number in range(15):
                await add(manager, f"{name}{number}")
                adapter = manager._parts.storage.adapter
                [(_, found)] = await adapter.page({"v0": f"role:{name}{number}"}, after=0, limit=2)
                assert found == rule(f"{name}{number}")

        await asyncio.gather(*(write(one, name) for one, names in ((first, "ab"), (second, "cd")) for name in names))
        for manager in (first, second):
            await manager.get_replica().refresh()

        kept = await stored(first._parts.storage.adapter)
        assert len(kept) == 60
        assert set(first.get_policy().rules) == set(second.get_policy().rules) == set(kept)
