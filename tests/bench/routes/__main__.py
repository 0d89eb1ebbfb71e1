"""Mesure ou sert une application : `python -m tests.bench.routes call|serve MODULE DOSSIER TOURS SECONDES`, en JSON."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import operator
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

from tests.bench.routes import Headers, Routes

FIRST = 20
"""Requêtes qui échauffent, et donnent la durée d'une."""


async def call(routes: Routes, headers: Headers, rounds: int, seconds: float) -> None:
    """Appelle les applications sans réseau, à tour de rôle ; rend les durées médianes, et celle des différences."""
    counts = {name: await _enough(routes, name, headers, seconds) for name in routes.apps}
    spent: dict[str, list[float]] = {name: [] for name in routes.apps}
    for _ in range(rounds):
        for name, found in spent.items():
            found.append(await _mean(routes, name, headers, counts[name]))
    extra = {name: map(operator.sub, found, spent["free"]) for name, found in spent.items()}
    medians = {name: statistics.median(found) for name, found in spent.items()}
    _say({"medians": medians, "extra": {name: statistics.median(found) for name, found in extra.items()}})


async def _enough(routes: Routes, name: str, headers: Headers, seconds: float) -> int:
    """Rend le nombre de requêtes qui remplit un tour."""
    await _mean(routes, name, headers, 1)
    return max(3, round(seconds / await _mean(routes, name, headers, FIRST)))


async def _mean(routes: Routes, name: str, headers: Headers, count: int) -> float:
    """Rend la durée moyenne d'une requête."""
    app, scope = routes.apps[name], _scope(f"/{name}", headers)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    started = time.perf_counter()
    for _ in range(count):
        sent.clear()
        await app({**scope, "state": {}}, receive, send)
    spent = time.perf_counter() - started
    assert sent[0]["status"] == 200, sent
    return spent / count


def _scope(path: str, headers: Headers) -> dict[str, Any]:
    """Fait la portée d'une requête, telle qu'un serveur la fait."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"accept", b"*/*"), *headers],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
    }


async def serve(routes: Routes, headers: Headers) -> None:
    """Sert les routes par uvicorn, un processus, et dit où ; l'appelant y met fin."""

    async def every(scope: Any, receive: Any, send: Any) -> None:
        await routes.apps[scope["path"][1:]](scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(every, port=0, lifespan="off", log_level="error", access_log=False))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    _say({"port": port, "headers": [[name.decode(), value.decode()] for name, value in headers]})
    await serving


def _say(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


async def main(action: str, name: str, folder: str, rounds: str, seconds: str) -> None:
    """Ouvre l'application, puis la mesure ou la sert."""
    routes: Routes = importlib.import_module(f"tests.bench.routes.{name}").make(Path(folder))
    async with routes.lifespan:
        headers = await routes.headers()
        await (serve(routes, headers) if action == "serve" else call(routes, headers, int(rounds), float(seconds)))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    asyncio.run(main(*sys.argv[1:]))
