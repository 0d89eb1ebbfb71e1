"""Une route gardée : ce qu'elle coûte de plus qu'une route libre, sans réseau puis sous uvicorn."""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from fastapi_acl.engine.writing import rule_files
from tests.bench import peers, processes
from tests.bench.timing import Amount, Row, Scale, at_most
from tests.bench.worlds import RBAC_TEXT, g, p, rbac

EXTRA = at_most(12e-6)
RATIO = at_most(1.35, "fois")
SHARE = at_most(1 / 0.65, "fois")
"""La route gardée garde au moins 65 % des requêtes que sert la route libre."""

CONNECTIONS = 8
ROOT = Path(__file__).parents[2]
REQUIREMENTS = ("fastapi-users[sqlalchemy]>=15,<16", "fastapi-authz==1.0.0", "aiosqlite", "uvicorn>=0.30")
NEIGHBOURS = {
    "stock": "pycasbin et python-jose, dans une dépendance",
    "users": "fastapi-users, `current_user` (il identifie, et ne décide pas)",
    "authz": "fastapi-authz, intergiciel (le mot de passe n'est pas vérifié)",
}

Figures = dict[str, Any]


def routes(scale: Scale) -> Iterator[Row]:
    """La route gardée à côté de la route libre d'une même application, pour nous et pour chaque pair."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, scale.compared)
        mine = _measured("ours", sys.executable, folder, scale)
        others = {peer: _neighbour(peer, folder, scale) for peer in NEIGHBOURS}
    witness, alone = Amount(mine["extra"]["witness"]), Amount(mine["extra"]["guard"] - mine["extra"]["bare"])
    yield Row("la garde seule, appelée sans FastAPI", scale.compared, alone, target=EXTRA)
    yield Row("sans réseau, une dépendance vide (témoin : la part de FastAPI)", scale.compared, witness)
    for index, (peer, theirs) in enumerate(others.items()):
        yield from _rows(scale.compared, mine, NEIGHBOURS[peer], theirs, is_first=index == 0)


def _rows(size: int, mine: Figures, peer: str, theirs: Figures | str, *, is_first: bool) -> Iterator[Row]:
    """Une ligne par grandeur ; la cible, qui ne dépend pas du pair, n'est jugée qu'une fois."""
    for label, key, target in (
        ("sans réseau, ce que la garde ajoute à une route libre", "cost", EXTRA),
        ("sans réseau, route gardée sur route libre", "ratio", RATIO),
        ("sous uvicorn, requêtes libres servies pour une gardée", "share", SHARE),
        ("sous uvicorn, durée d'une requête gardée", "guarded", None),
    ):
        unit = "fois" if key in {"ratio", "share"} else "s"
        found = (None, theirs) if isinstance(theirs, str) else (Amount(theirs[key], unit), "")
        yield Row(label, size, Amount(mine[key], unit), peer, found[0], target if is_first else None, found[1])


def _prepare(folder: Path, size: int) -> None:
    """Écrit les mêmes règles pour chacun : une base pour nous, un modèle et un CSV pour fastapi-authz."""
    processes.database(folder, size).rename(folder / "rules.db")
    (folder / "size").write_text(str(size), "utf-8")
    (folder / "model.conf").write_text(RBAC_TEXT, "utf-8")
    rules = [*rbac(size).rules, p("role:reader", "/guarded", "GET"), g("ada", "role:reader")]
    (folder / "rules.csv").write_text(rule_files.write_rules(rules, "csv"), "utf-8")


def _neighbour(name: str, folder: Path, scale: Scale) -> Figures | str:
    """Mesure un pair, ou dit pourquoi il ne l'est pas."""
    try:
        return _measured(name, sys.executable if name == "stock" else _environment(), folder, scale)
    except peers.NotInstalledError as error:
        return str(error)


@cache
def _environment() -> str:
    """Rend le Python des pairs web, dans un environnement à eux.

    fastapi-authz veut « casbin », l'ancien nom de pycasbin, et fastapi-users une SQLAlchemy d'avant 2.1 : installés à
    côté de nous, ils changeraient ce que les autres tableaux mesurent.

    Raises:
        NotInstalledError: ils ne s'installent pas ici.
    """
    place = Path(sys.prefix) / "neighbours"
    python = place / "bin/python"
    try:
        if not (place / "ready").exists():
            _run(sys.executable, "-m", "venv", "--clear", str(place))
            _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS)
            (place / "ready").touch()
    except (RuntimeError, subprocess.SubprocessError, OSError) as error:
        shutil.rmtree(place, ignore_errors=True)
        message = "non mesuré : ne s'installe pas ici"
        raise peers.NotInstalledError(message) from error
    return str(python)


def _run(*command: str) -> str:
    """Exécute une commande à la racine du dépôt et rend ce qu'elle dit."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=900)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def _measured(name: str, python: str, folder: Path, scale: Scale) -> Figures:
    """Mesure une application sans réseau, puis sous uvicorn."""
    seconds = 10 * scale.seconds
    module = (python, "-m", "tests.bench.routes")
    own = Path(tempfile.mkdtemp(dir=folder))
    found: Figures = json.loads(
        _run(*module, "call", name, str(_copied(folder, own)), str(scale.rounds), str(seconds)).splitlines()[-1]
    )
    with _served([*module, "serve", name, str(_copied(folder, own)), "0", "0"]) as address:
        free, guarded = asyncio.run(_under_load(address, scale.rounds, seconds))
    return {
        **found,
        "cost": found["extra"]["guarded"],
        "ratio": found["medians"]["guarded"] / found["medians"]["free"],
        "share": statistics.median(one / other for one, other in zip(guarded, free, strict=True)),
        "guarded": statistics.median(guarded),
    }


def _copied(folder: Path, own: Path) -> Path:
    """Rend un dossier neuf avec les mêmes fichiers : une application y écrit son compte et ses règles."""
    place = Path(tempfile.mkdtemp(dir=own))
    for file in folder.iterdir():
        if file.is_file():
            shutil.copy(file, place)
    return place


@contextmanager
def _served(command: list[str]) -> Iterator[Figures]:
    """Lance un serveur et rend son adresse."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())
        finally:
            server.terminate()


async def _under_load(address: Figures, rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """Demande l'une puis l'autre route, à tour de rôle ; rend, par tour, la durée d'une requête pour le serveur."""
    spent: dict[str, list[float]] = {"/free": [], "/guarded": []}
    lines = "".join(f"{name}: {value}\r\n" for name, value in address["headers"])
    for _ in range(rounds + 1):  # le premier tour échauffe
        for path, found in spent.items():
            request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{lines}\r\n".encode()
            found.append(await _burst(address["port"], request, seconds))
    return spent["/free"][1:], spent["/guarded"][1:]


async def _burst(port: int, request: bytes, seconds: float) -> float:
    """Envoie la même requête sur quelques connexions, chacune l'une après l'autre, pendant un temps donné."""
    started = time.perf_counter()
    counts = await asyncio.gather(*(_client(port, request, started + seconds) for _ in range(CONNECTIONS)))
    return (time.perf_counter() - started) / sum(counts)


async def _client(port: int, request: bytes, end: float) -> int:
    """Envoie la requête et lit la réponse, encore et encore ; rend leur nombre."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < end or not count:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
        count += 1
    writer.close()
    await writer.wait_closed()
    return count
