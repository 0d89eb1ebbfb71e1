"""Nos routes sous leur préfixe : rien n'en est perdu, et les autres chemins ne les parcourent pas."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from httpx import ASGITransport, AsyncClient

from fastapi_acl.shared.http.router import include_under


def application(prefix: str) -> FastAPI:
    inner, app = APIRouter(prefix="/coffre"), FastAPI()

    @inner.get("/{name}")
    async def read(name: str) -> str:
        return name

    include_under(app, prefix, [inner])

    @app.get("/libre")
    async def free() -> str:
        return "libre"

    return app


@pytest.mark.parametrize("prefix", ["/api/v1", ""])
@pytest.mark.parametrize("root", ["", "/dessous"])
async def test_every_route_is_found_wherever_the_application_is_mounted(prefix: str, root: str) -> None:
    outer = FastAPI()
    outer.mount("/dessous", application(prefix))
    served = outer if root else application(prefix)
    async with AsyncClient(transport=ASGITransport(served), base_url="http://essai") as http:
        answers = [await http.get(f"{root}{path}") for path in (f"{prefix}/coffre/x", "/libre", "/absent")]
        wrong = await http.post(f"{root}{prefix}/coffre/x")

    assert [answer.status_code for answer in answers] == [200, 200, 404]
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
    assert f"{prefix}/coffre/{{name}}" in application(prefix).openapi()["paths"]


@pytest.mark.skipif(not hasattr(APIRouter, "matches"), reason="ce FastAPI met les routes à plat")
async def test_a_path_without_the_prefix_tries_none_of_our_routes() -> None:
    tried: list[str] = []

    class Witness(APIRoute):
        def matches(self, scope: Any) -> Any:
            tried.append(scope["path"])
            return super().matches(scope)

    inner, app = APIRouter(route_class=Witness), FastAPI()
    inner.get("/coffre")(lambda: "coffre")
    include_under(app, "/api/v1", [inner])
    app.get("/libre")(lambda: "libre")
    async with AsyncClient(transport=ASGITransport(app), base_url="http://essai") as http:
        answers = [await http.get(path) for path in ("/libre", "/api/v1/coffre")]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert set(tried) == {"/api/v1/coffre"}
