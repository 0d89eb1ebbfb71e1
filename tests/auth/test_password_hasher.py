"""Le hachage : format de passlib, rien de coupé, rien sur la boucle d'événements."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from fastapi_acl.auth.infrastructure.services.password_hasher import BcryptPasswordHasher
from fastapi_acl.shared.exceptions import HashingSaturatedError
from tests.support.waits import PATIENCE_SECONDS

# Vecteurs de passlib 1.7.4 : passlib/tests/test_handlers_bcrypt.py, version 2.
VECTORS = [
    ("", "$bcrypt-sha256$v=2,t=2b,r=5$E/e/2AOhqM5W/KJTFQzLce$WFPIZKtDDTriqWwlmRFfHiOTeheAZWe"),
    ("password", "$bcrypt-sha256$v=2,t=2b,r=5$5Hg1DKFqPE8C2aflZ5vVoe$wOK1VFFtS8IGTrGa7.h5fs0u84qyPbS"),
    ("t\xe1\u0411\u2113\u0259", "$bcrypt-sha256$v=2,t=2b,r=5$.US1fQ4TQS.ZTz/uJ5Kyn.$pzzgp40k8reM1CuQb03PvE0IDPQSdV6"),
    ("abc123" * 12 + "qwr", "$bcrypt-sha256$v=2,t=2b,r=5$X1g1nh3g0v4h6970O68cxe$CBF9csfEdW68xv3DwE6xSULXMtqEFP."),
    ("abc123" * 12 + "xyz", "$bcrypt-sha256$v=2,t=2b,r=5$X1g1nh3g0v4h6970O68cxe$zC/1UDUG2ofEXB6Onr2vvyFzfhEOS3S"),
]


@pytest.fixture
def hasher() -> Iterator[BcryptPasswordHasher]:
    made = BcryptPasswordHasher(rounds=4, workers=2)
    yield made
    made.close()


@pytest.mark.parametrize(("password", "hashed"), VECTORS)
async def test_a_hash_made_by_passlib_verifies(hasher: BcryptPasswordHasher, password: str, hashed: str) -> None:
    assert await hasher.verify_password(password, hashed)
    assert not await hasher.verify_password(password + "x", hashed)


async def test_a_hash_is_salted_and_bears_its_cost(hasher: BcryptPasswordHasher) -> None:
    first, second = await hasher.hash_password("trois petits chats"), await hasher.hash_password("trois petits chats")

    assert first != second
    assert first.startswith("$bcrypt-sha256$v=2,t=2b,r=4$")
    assert await hasher.verify_password("trois petits chats", first)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mot\x00de passe", "mot\x00de pisse"),
        ("mot", "mot\x00"),
        ("a" * 72 + "b", "a" * 72 + "c"),
        ("ж" * 64, "ж" * 63 + "з"),
        ("é", "e\u0301"),
        (" espace ", "espace"),
        ("a\ud800", "a\ud801"),
        ("a" * 4096, "a" * 4097),
        ("", "\x00"),
    ],
)
async def test_different_passwords_never_pass_for_one_another(
    hasher: BcryptPasswordHasher, one: str, other: str
) -> None:
    hashed = await hasher.hash_password(one)

    assert await hasher.verify_password(one, hashed)
    assert not await hasher.verify_password(other, hashed)


def work(costs: list[int]) -> int:
    """Rend le nombre de tours que des calculs ont demandés."""
    return sum(2**cost for cost in costs)


def bcrypt_of(rounds: int) -> str:
    return VECTORS[1][1].replace("r=5$", f"r={rounds}$")


@pytest.mark.parametrize("configured", [4, 6, 8])
@pytest.mark.parametrize("highest", [5, 6, 9])
async def test_every_comparison_is_as_much_work_as_the_costliest_hash_known(
    hash_costs: list[int], configured: int, highest: int
) -> None:
    hasher = BcryptPasswordHasher(rounds=configured, workers=2)
    hasher.expect(highest)
    right = await hasher.hash_password("password")
    asked = [("password", right), ("faux", right), ("password", None), ("password", "!")]
    asked += [("faux", bcrypt_of(rounds)) for rounds in range(4, max(configured, highest) + 1)]
    asked += [VECTORS[1], ("x" * 5_000, right), ("password", bcrypt_of(17)), ("password", bcrypt_of(31))]
    outcomes, spent = [], set()

    for password, hashed in asked:
        hash_costs.clear()
        outcomes.append(await hasher.verify_password(password, hashed))
        spent.add(work(hash_costs))
    hasher.close()

    assert spent == {2 ** max(configured, highest)}
    assert [password for (password, _), right in zip(asked, outcomes, strict=True) if right] == ["password"] * 2


async def test_a_costlier_hash_seen_once_makes_every_later_comparison_cost_as_much(
    hasher: BcryptPasswordHasher, hash_costs: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    await hasher.verify_password("faux", bcrypt_of(7))
    first = work(hash_costs)
    hash_costs.clear()

    await hasher.verify_password("faux", None)

    assert (first, work(hash_costs)) == (2**7, 2**7)
    assert caplog.text.count("costly_hash: un compte a un haché de coût 7") == 1


@pytest.mark.parametrize("rounds", [17, 20, 31])
async def test_a_hash_too_costly_to_compute_matches_nothing_and_raises_no_cost(
    hasher: BcryptPasswordHasher, hash_costs: list[int], rounds: int
) -> None:
    assert not await hasher.verify_password("password", bcrypt_of(rounds))
    assert not await hasher.verify_password("password", None)
    assert hash_costs == [4, 4]


@pytest.mark.parametrize(
    "hashed",
    [
        None,
        "",
        "!",
        "$2b$04$" + "a" * 53,
        "$bcrypt-sha256$v=2,t=2b,r=4$",
        "$bcrypt-sha256$v=2,t=2b,r=99$5Hg1DKFqPE8C2aflZ5vVoe$wOK1VFFtS8IGTrGa7.h5fs0u84qyPbS",
        "$bcrypt-sha256$v=2,t=2b,r=5$5Hg1DKFqPE8C2aflZ5vVoe$trop-court",
        "$bcrypt-sha256$v=2,t=2b,r=²$5Hg1DKFqPE8C2aflZ5vVoe$wOK1VFFtS8IGTrGa7.h5fs0u84qyPbS",
    ],
)
async def test_no_hash_or_a_broken_one_matches_nothing_but_is_computed(
    hasher: BcryptPasswordHasher, hash_costs: list[int], hashed: str | None
) -> None:
    assert not await hasher.verify_password("password", hashed)
    assert hash_costs == [4], "même coût qu'un vrai mot de passe"


async def test_a_hash_of_another_cost_needs_rehashing(hasher: BcryptPasswordHasher) -> None:
    assert hasher.needs_rehash(VECTORS[0][1])
    assert not hasher.needs_rehash(await hasher.hash_password("trois petits chats"))


async def test_the_loop_keeps_beating_during_twenty_hashes() -> None:
    hasher, beats = BcryptPasswordHasher(rounds=9, workers=2), 0

    async def heartbeat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0)
            beats += 1

    beating = asyncio.create_task(heartbeat())
    await asyncio.gather(*(hasher.hash_password("trois petits chats gris") for _ in range(20)))
    beating.cancel()
    hasher.close()

    assert beats > 20 * 10, "la boucle tourne bien des fois par hachage : faits par elle, chacun n'en laisserait qu'un"


async def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    hasher, release = BcryptPasswordHasher(rounds=4, workers=1, queue_limit=3), threading.Event()
    waiting = [asyncio.create_task(hasher._run(release.wait)) for _ in range(3)]
    await asyncio.sleep(0)

    with pytest.raises(HashingSaturatedError):
        await hasher.verify_password("trois petits chats", None)
    assert not any(one.done() for one in waiting), "le refus n'attend personne"
    release.set()
    await asyncio.gather(*waiting)

    assert await hasher.hash_password("trois petits chats")
    hasher.close()


async def test_a_caller_who_leaves_keeps_the_place_until_the_thread_is_free() -> None:
    hasher = BcryptPasswordHasher(rounds=4, workers=1, queue_limit=1)
    started, release = threading.Event(), threading.Event()

    def work() -> bool:
        started.set()
        return release.wait(PATIENCE_SECONDS)

    leaving = asyncio.create_task(hasher._run(work))
    while not started.is_set():
        await asyncio.sleep(0.001)

    leaving.cancel()
    await asyncio.sleep(0)

    with pytest.raises(HashingSaturatedError):
        await hasher.hash_password("trois petits chats")
    release.set()
    while hasher._places._value == 0:
        await asyncio.sleep(0.001)
    assert await hasher.hash_password("trois petits chats")
    hasher.close()


async def test_closing_leaves_no_thread_and_the_hasher_can_serve_again() -> None:
    hasher = BcryptPasswordHasher(rounds=4)
    before = set(threading.enumerate())
    await asyncio.gather(*(hasher.hash_password("trois petits chats") for _ in range(8)))

    hasher.close()
    hasher.close()

    assert set(threading.enumerate()) <= before
    assert await hasher.hash_password("trois petits chats")
    hasher.close()


def test_one_hasher_serves_one_loop_after_another() -> None:
    hasher = BcryptPasswordHasher(rounds=4, workers=1)

    first, second = asyncio.run(hasher.hash_password("un")), asyncio.run(hasher.hash_password("deux"))
    hasher.close()

    assert first != second


async def test_hashing_happens_in_its_own_named_threads(hasher: BcryptPasswordHasher) -> None:
    name = await hasher._run(lambda: threading.current_thread().name)

    assert name.startswith("fastapi_acl-bcrypt")
