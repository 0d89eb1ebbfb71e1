"""Le mandataire : il laisse tout passer, sauf ce qu'on lui demande, et ne laisse rien derrière lui."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from pymongo import AsyncMongoClient

from tests.support import proxy as module
from tests.support.proxy import FaultProxy, before, through
from tests.support.waits import PATIENCE_SECONDS

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """Un serveur qui répond ce qu'il reçoit, et s'en souvient."""

    def __init__(self) -> None:
        self.received = b""
        self.delay = 0.0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                self.received += data
                await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    yield echo
    server.close()
    await server.wait_closed()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", echo.port) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[Stream]:
    """Une connexion à travers le mandataire, qui a déjà servi."""
    client = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await ask(client, b"bonjour") == b"bonjour"
    proxy.arm(0, forwarded=False)
    yield client
    client[1].close()


async def ask(client: Stream, question: bytes, within: float = PATIENCE_SECONDS) -> bytes:
    client[1].write(question)
    return await asyncio.wait_for(client[0].readexactly(len(question)), within)


async def asked_anew(proxy: FaultProxy, question: bytes) -> bytes:
    client = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        return await ask(client, question)
    finally:
        client[1].close()


async def test_everything_passes_in_both_directions_and_each_chunk_is_counted(
    proxy: FaultProxy, client: Stream
) -> None:
    big = bytes(range(256)) * 4_096

    answers = [await ask(client, b"un"), await ask(client, b"deux"), await ask(client, big)]

    assert answers == [b"un", b"deux", big]
    assert proxy.chunks >= 3


async def test_the_end_of_the_client_reaches_the_server_and_the_end_of_the_server_the_client(proxy: FaultProxy) -> None:
    ended = asyncio.Event()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"":
            ended.set()
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    proxy.target_port = server.sockets[0].getsockname()[1]
    leaver = await asyncio.open_connection("127.0.0.1", proxy.port)
    stayer = await asyncio.open_connection("127.0.0.1", proxy.port)

    leaver[1].close()
    stayer[1].write(b"x")

    await asyncio.wait_for(ended.wait(), PATIENCE_SECONDS)
    assert await asyncio.wait_for(stayer[0].read(), PATIENCE_SECONDS) == b""
    stayer[1].close()
    server.close()
    await server.wait_closed()


async def test_a_refused_connection_is_reset_and_the_open_ones_go_on(proxy: FaultProxy, client: Stream) -> None:
    proxy.refuses = True

    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asked_anew(proxy, b"perdu")

    assert await ask(client, b"encore") == b"encore"
    proxy.heal()
    assert await asked_anew(proxy, b"de retour") == b"de retour"


async def test_an_absent_server_is_a_reset_connection(proxy: FaultProxy) -> None:
    proxy.target_port = 1

    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asked_anew(proxy, b"perdu")


async def test_a_reset_cuts_the_open_connections_and_new_ones_pass(proxy: FaultProxy, client: Stream) -> None:
    proxy.reset()

    with pytest.raises(ConnectionResetError):
        await ask(client, b"perdu")

    assert await asked_anew(proxy, b"de retour") == b"de retour"


async def test_a_stall_swallows_all_and_answers_nothing_on_old_and_new_connections(
    echo: Echo, proxy: FaultProxy, client: Stream
) -> None:
    proxy.stalls = True
    newcomer = await asyncio.open_connection("127.0.0.1", proxy.port)

    for one in (client, newcomer):
        with pytest.raises(asyncio.TimeoutError):
            await ask(one, b"perdu", within=0.2)

    proxy.heal()
    assert await ask(newcomer, b"de retour") == b"de retour"
    assert echo.received == b"bonjourde retour"
    newcomer[1].close()


async def test_a_latency_delays_each_direction(proxy: FaultProxy, client: Stream) -> None:
    proxy.latency = 0.1
    started = time.monotonic()

    answer = await ask(client, b"lentement")

    assert answer == b"lentement"
    assert time.monotonic() - started >= 0.2


async def test_a_rate_slows_what_passes_without_losing_any(proxy: FaultProxy, client: Stream) -> None:
    proxy.rate = 100_000
    question = bytes(50_000)
    started = time.monotonic()

    answer = await ask(client, question)

    assert answer == question
    assert time.monotonic() - started >= 0.4


async def test_a_truncated_answer_stops_at_the_byte_then_resets_and_the_next_one_is_whole(proxy: FaultProxy) -> None:
    loop, raw = asyncio.get_running_loop(), module.socket.socket()
    raw.setblocking(False)
    with raw:
        await loop.sock_connect(raw, ("127.0.0.1", proxy.port))
        proxy.truncate(3)
        await loop.sock_sendall(raw, b"bonjour")
        received = b""
        with pytest.raises(ConnectionResetError):
            while True:
                received += await asyncio.wait_for(loop.sock_recv(raw, 1), PATIENCE_SECONDS) or pytest.fail(
                    "fin propre"
                )

    assert received == b"bon"
    assert await asked_anew(proxy, b"en entier") == b"en entier"


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_the_chosen_chunk_is_cut_before_the_server_sees_it_whatever_its_connection(
    echo: Echo, proxy: FaultProxy, client: Stream, count: int
) -> None:
    proxy.arm(count, forwarded=False)
    other = await asyncio.open_connection("127.0.0.1", proxy.port)
    chunks = [(client, b"1"), (other, b"2"), (client, b"3")]

    for one, question in chunks[: count - 1]:
        await ask(one, question)
    with pytest.raises(ConnectionResetError):
        await ask(*chunks[count - 1])

    assert proxy.chunks == count
    assert echo.received == b"bonjour123"[: 6 + count]
    assert await asked_anew(proxy, b"apres") == b"apres"
    other[1].close()


async def test_a_lost_answer_reached_a_slow_server_and_no_other_connection_loses_any(
    echo: Echo, proxy: FaultProxy, client: Stream
) -> None:
    other = await asyncio.open_connection("127.0.0.1", proxy.port)
    echo.delay = 0.2
    proxy.arm(1, forwarded=True)

    client[1].write(b"fait")
    await asyncio.sleep(0.05)
    spared = await ask(other, b"autre")
    with pytest.raises(ConnectionResetError):
        await ask(client, b"")

    assert spared == b"autre"
    assert b"fait" in echo.received
    assert await asked_anew(proxy, b"apres") == b"apres"
    other[1].close()


async def test_a_chunk_that_gets_no_answer_is_cut_in_a_bounded_time(
    echo: Echo, proxy: FaultProxy, client: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    echo.delay = 60
    proxy.arm(1, forwarded=True)

    with pytest.raises(ConnectionResetError):
        await ask(client, b"sans reponse")

    assert echo.received == b"bonjoursans reponse"


@pytest.mark.parametrize("fault", ["none", "stalls", "latency", "rate", "armed"])
async def test_leaving_ends_every_connection_and_task_even_in_the_middle_of_a_fault(echo: Echo, fault: str) -> None:
    before_it = asyncio.all_tasks()
    async with FaultProxy("127.0.0.1", echo.port) as proxy:
        clients = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(3)]
        proxy.stalls, proxy.latency, proxy.rate = fault == "stalls", 60 * (fault == "latency"), fault == "rate"
        echo.delay = 60 * (fault == "armed")
        proxy.arm(fault == "armed", forwarded=True)
        for _, writer in clients:
            writer.write(b"bonjour")
        await asyncio.sleep(0.05)

    with pytest.raises(OSError, match=r"Connect call failed|refused"):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    for reader, writer in clients:
        with pytest.raises(ConnectionResetError):
            await _all_of(reader)
        writer.close()
    echo.delay = 0
    assert not proxy._tasks
    assert not {task for task in asyncio.all_tasks() - before_it if "proxy" in repr(task.get_coro())}


async def _all_of(reader: asyncio.StreamReader) -> None:
    while await asyncio.wait_for(reader.read(1), PATIENCE_SECONDS):
        pass


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://acl@127.0.0.1:41000/db?ssl=disable", "postgresql://acl@127.0.0.1:5/db?ssl=disable"),
        ("mysql://acl:a%40b@base.example/db", "mysql://acl:a%40b@127.0.0.1:5/db"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:5/0"),
        (
            "mongodb://127.0.0.1:27017/db?replicaSet=rs&retryWrites=false",
            "mongodb://127.0.0.1:5/db?retryWrites=false&directConnection=true",
        ),
        ("mongodb://127.0.0.1:27017/db", "mongodb://127.0.0.1:5/db?directConnection=true"),
    ],
)
def test_only_the_address_changes_and_a_replica_set_is_reached_directly(uri: str, expected: str) -> None:
    proxy = FaultProxy("127.0.0.1", 1, port=5)

    assert through(uri, proxy) == expected


async def test_a_mongodb_driver_stays_behind_the_proxy(mongodb_uri: str) -> None:
    async with before(mongodb_uri) as (uri, proxy), AsyncMongoClient[dict[str, Any]](uri) as client:
        await client.acl.command("ping")
        proxy.arm(0, forwarded=False)

        answer = await client.acl.command("ping")

        assert answer["ok"] == 1
        assert proxy.chunks == 1


@pytest.mark.parametrize("forwarded", [False, True])
async def test_a_commit_cut_before_the_server_is_undone_and_one_whose_answer_is_lost_is_done(
    postgresql_uri: str, *, forwarded: bool
) -> None:
    direct = await asyncpg.connect(postgresql_uri)
    await direct.execute("CREATE TABLE kept (id int)")
    async with before(postgresql_uri) as (uri, proxy):
        connection = await asyncpg.connect(uri)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO kept VALUES (1)")
        proxy.arm(1, forwarded=forwarded)

        with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
            await transaction.commit()

        assert connection.is_closed()
    assert await direct.fetchval("SELECT count(*) FROM kept") == int(forwarded)
    await direct.close()
