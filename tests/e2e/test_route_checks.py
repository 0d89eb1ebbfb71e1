"""Chaque garde est vérifiée avant de servir : rien ne démarre sur un désaccord, et rien n'en décide."""

import datetime as dt
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from enum import Enum
from pathlib import Path as File
from typing import Annotated, Any, NewType, Union
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI, Path, WebSocket
from pydantic import AwareDatetime, FutureDatetime, NaiveDatetime, PastDatetime, condecimal
from starlette.applications import Starlette
from starlette.routing import Host, Mount, Router
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from fastapi_acl import ACLManager, ConfigurationError, Demand, current_user, require, require_any, require_role
from tests.support.app import ADMIN, ADMIN_PASSWORD, config, serve

Builder = Callable[[FastAPI], object]
WRONG = require("document:{nom}:read")
"""Une garde qui nomme un paramètre que les chemins de ces essais n'ont pas."""


async def answer() -> str:
    return "ok"


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


async def refused(app: FastAPI, **settings: Any) -> str:
    """Rend la phrase qui a empêché de démarrer."""
    manager = ACLManager(config(**settings), app=app)
    with pytest.raises(ConfigurationError) as caught:
        async with serve(app, manager):
            pass
    assert not manager.is_ready
    return caught.value.detail


async def started(app: FastAPI, **settings: Any) -> None:
    async with serve(app, ACLManager(config(**settings), app=app)):
        pass


def router(*dependencies: Any, path: str = "/{name}") -> APIRouter:
    found = APIRouter(dependencies=[Depends(one) for one in dependencies])
    found.get(path)(answer)
    found.websocket("/ws" + path)(socket)
    return found


# --- où que soit la garde ---------------------------------------------------------------------------------------


def direct(app: FastAPI) -> None:
    app.get("/a/{name}", dependencies=[Depends(WRONG)])(answer)


def annotated(app: FastAPI) -> None:
    @app.get("/a/{name}")
    async def read(name: str, principal: Annotated[Any, Depends(WRONG)]) -> None: ...


def beneath_another(app: FastAPI) -> None:
    async def inner(principal: Annotated[Any, Depends(WRONG)]) -> None: ...
    async def outer(found: Annotated[None, Depends(inner)]) -> None: ...

    app.get("/a/{name}", dependencies=[Depends(outer)])(answer)


def on_the_router(app: FastAPI) -> None:
    app.include_router(router(WRONG), prefix="/a")


def on_the_inclusion(app: FastAPI) -> None:
    app.include_router(router(), prefix="/a", dependencies=[Depends(WRONG)])


def nested(app: FastAPI) -> None:
    middle = APIRouter(prefix="/b", dependencies=[Depends(WRONG)])
    middle.include_router(router(), prefix="/c")
    app.include_router(middle, prefix="/a")


def mounted(app: FastAPI) -> None:
    inner = FastAPI()
    direct(inner)
    app.mount("/m", inner)


def mounted_twice(app: FastAPI) -> None:
    inner = FastAPI()
    mounted(inner)
    app.mount("/n", inner)


def mounted_under_starlette(app: FastAPI) -> None:
    inner = FastAPI()
    direct(inner)
    app.mount("/m", Starlette(routes=[Mount("/n", routes=[Mount("/o", app=inner)])]))


def mounted_by_a_router(app: FastAPI) -> None:
    inner, outer = FastAPI(), APIRouter()
    direct(inner)
    outer.mount("/m", inner)
    app.include_router(outer, prefix="/a") if hasattr(APIRouter, "matches") else app.mount("/a/m", inner)


def behind_a_host(app: FastAPI) -> None:
    inner = FastAPI()
    direct(inner)
    app.router.routes.append(Host("essai.example", app=inner))


def on_a_websocket(app: FastAPI) -> None:
    app.websocket("/a/{name}", dependencies=[Depends(WRONG)])(socket)


def on_the_application(app: FastAPI) -> None:
    app.router.dependencies.append(Depends(WRONG))
    app.get("/a/{name}")(answer)


@pytest.mark.parametrize(
    ("build", "route"),
    [
        (direct, "GET /a/{name}"),
        (annotated, "GET /a/{name}"),
        (beneath_another, "GET /a/{name}"),
        (on_the_router, "GET /a/{name}"),
        (on_the_router, "WEBSOCKET /a/ws/{name}"),
        (on_the_inclusion, "GET /a/{name}"),
        (on_the_inclusion, "WEBSOCKET /a/ws/{name}"),
        (nested, "GET /a/b/c/{name}"),
        (mounted, "GET /m/a/{name}"),
        (mounted_twice, "GET /n/m/a/{name}"),
        (mounted_under_starlette, "GET /m/n/o/a/{name}"),
        (mounted_by_a_router, "GET /a/m/a/{name}"),
        (behind_a_host, "GET /a/{name}"),
        (on_a_websocket, "WEBSOCKET /a/{name}"),
        (on_the_application, "GET /a/{name}"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_parameter_that_the_path_lacks_is_refused_at_start_wherever_the_guard_is(
    build: Builder, route: str, is_first: bool
) -> None:
    app = FastAPI()
    manager = None if is_first else ACLManager(config(sqlite_uri="sqlite://"), app=app)
    build(app)
    manager = manager or ACLManager(config(sqlite_uri="sqlite://"), app=app)

    with pytest.raises(ConfigurationError) as caught:
        async with serve(app, manager):
            pass

    assert f'{route}, require("document:{{nom}}:read") : le chemin n’a pas de paramètre « nom »' in caught.value.detail
    assert "« name »" in caught.value.detail


async def test_what_a_prefix_or_a_mount_brings_is_a_parameter_of_the_path() -> None:
    app, inner = FastAPI(), FastAPI()
    guard = require("document:{tenant}:{name}:read")
    app.include_router(router(guard), prefix="/t/{tenant}")
    inner.get("/{name}", dependencies=[Depends(guard)])(answer)
    app.mount("/m/{tenant}", inner)
    app.mount("/files/{name}", Router(routes=[Mount("/{tenant}", app=_with("/x", guard))]))

    await started(app, sqlite_uri="sqlite://")


def _with(path: str, guard: Any) -> FastAPI:
    app = FastAPI()
    app.get(path, dependencies=[Depends(guard)])(answer)
    return app


async def test_a_mounted_application_that_contains_itself_is_read_once() -> None:
    app = FastAPI()
    app.mount("/again", app)
    app.get("/{name}", dependencies=[Depends(require("a:{name}:read"))])(answer)

    await started(app, sqlite_uri="sqlite://")


@pytest.mark.parametrize("paths", [("/m/{nom}", "/n"), ("/n", "/m/{nom}")])
async def test_an_application_mounted_twice_is_judged_at_each_place(paths: tuple[str, str]) -> None:
    app, inner = FastAPI(), FastAPI()
    direct(inner)
    for path in paths:
        app.mount(path, inner)
    manager = ACLManager(config(sqlite_uri="sqlite://"), app=app)

    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"GET /n/a/\{name\}") as caught:
            manager.guards.check(app)
        assert "/m/" not in caught.value.detail


async def test_an_application_that_has_its_own_manager_is_judged_by_it_alone(tmp_path: File) -> None:
    outer, inner = FastAPI(), FastAPI()
    inner.get("/a", dependencies=[Depends(require("a:read", domain="un"))])(answer)
    ACLManager(config(sqlite_uri="sqlite://", model="rbac_with_domains"), app=inner)
    outer.mount("/inner", inner)

    await started(outer, sqlite_uri=f"sqlite:///{tmp_path}/outer.db")


async def test_every_fault_is_told_at_once_and_the_message_stays_short() -> None:
    app = FastAPI()
    for number in range(50):
        app.get(f"/r{number}", dependencies=[Depends(require("a:{x}:read", domain="{y}"))])(answer)

    lines = (await refused(app, sqlite_uri="sqlite://")).splitlines()

    assert len(lines) == 22
    assert all(all(word in line for word in ("« x »", "« y »", "rien ne lit ce domaine")) for line in lines[1:21])
    assert lines[-1] == "- … et 30 autres."


# --- ce que le modèle lit ---------------------------------------------------------------------------------------


def load() -> dict[str, str]:
    return {"owner": "ada"}


EFFECT = "[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = "


def model(folder: File, matcher: str, *, request: str = "sub, obj, act", rule: str = "sub, obj, act") -> File:
    path = folder / "model.conf"
    text = f"[request_definition]\nr = {request}\n[policy_definition]\np = {rule}\n{EFFECT}{matcher}\n"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("name", ["rbac", "abac", "acl", "rest"])
@pytest.mark.parametrize("domain", ["un", "{tenant}", load])
async def test_a_domain_is_refused_where_nothing_reads_it(name: str, domain: Any) -> None:
    app = FastAPI()
    app.get("/{tenant}", dependencies=[Depends(require_any("a:read", "acl.rules:read", domain=domain))])(answer)

    said = await refused(app, sqlite_uri="sqlite://", model=name)

    assert 'GET /{tenant}, require_any("a:read", "acl.rules:read") : rien ne lit ce domaine' in said
    assert "retirez domain=" in said


async def test_a_domain_is_required_where_the_model_reads_one_save_for_our_own_permissions() -> None:
    app = FastAPI()
    app.get("/ours", dependencies=[Depends(require("acl.rules:read"))])(answer)
    app.get("/given", dependencies=[Depends(require("a:read", domain="un"))])(answer)
    app.get("/mixed", dependencies=[Depends(require_any("acl.rules:read", "a:read"))])(answer)
    app.get("/forgotten", dependencies=[Depends(require("a:read"))])(answer)

    said = await refused(app, sqlite_uri="sqlite://", model="rbac_with_domains")

    assert [line.partition(",")[0] for line in said.splitlines()[1:]] == ["- GET /mixed", "- GET /forgotten"]
    assert said.count("donnez domain=") == 2


async def test_a_domain_that_the_request_carries_and_the_matcher_ignores_is_refused(tmp_path: File) -> None:
    app = FastAPI()
    app.get("/", dependencies=[Depends(require("a:read", domain="un"))])(answer)
    path = model(tmp_path, "r.sub == p.sub && r.obj == p.obj && r.act == p.act", request="sub, dom, obj, act")

    assert "rien ne lit ce domaine" in await refused(app, sqlite_uri="sqlite://", model_path=path)


@pytest.mark.parametrize("domain", [None, "un"])
async def test_a_request_builder_may_find_the_domain_or_read_it(tmp_path: File, domain: str | None) -> None:
    def build(demand: Demand) -> dict[str, object]:
        return {"dom": demand.domain or demand.principal.id}

    app = FastAPI()
    app.get("/", dependencies=[Depends(require("a:read", domain=domain, resource=load))])(answer)
    path = model(tmp_path, "r.sub == p.sub && r.dom == p.obj", request="sub, dom, obj, act")
    manager = ACLManager(
        config(sqlite_uri="sqlite://", model_path=path, create_default_admin=False), app=app, request_builder=build
    )

    async with serve(app, manager):
        assert manager.is_ready


@pytest.mark.parametrize(
    ("name", "domain", "mend"),
    [
        ("acl", None, "n’a pas de rôles"),
        ("acl", "un", "n’a pas de rôles"),
        ("rbac", "un", "retirez domain="),
        ("rest", "{tenant}", "retirez domain="),
        ("rbac_with_domains", None, "donnez domain="),
    ],
)
async def test_a_role_is_asked_as_the_model_knows_roles(name: str, domain: str | None, mend: str) -> None:
    app = FastAPI()
    app.get("/{tenant}", dependencies=[Depends(require_role("editor", domain=domain))])(answer)

    said = await refused(app, sqlite_uri="sqlite://", model=name)

    assert 'GET /{tenant}, require_role("editor") : ' in said
    assert mend in said


@pytest.mark.parametrize("name", ["rbac", "acl", "rest", "rbac_with_domains"])
async def test_an_object_is_refused_where_nothing_reads_its_attributes(name: str) -> None:
    app = FastAPI()
    domain = "un" if name == "rbac_with_domains" else None
    app.get("/", dependencies=[Depends(require("a:read", resource=load, domain=domain))])(answer)

    assert "retirez resource=" in await refused(app, sqlite_uri="sqlite://", model=name)


@pytest.mark.parametrize(
    ("matcher", "is_read"),
    [
        ("r.sub == p.sub && r.obj.owner == p.obj", True),
        ("r.sub == p.sub && aclOwns(r.obj, r.sub, p.act)", True),
        ("r.sub == p.sub && custom(r.obj)", True),
        ("r.sub == p.sub && custom(p.act, r.obj, 1)", True),
        ("r.sub == p.sub && eval(p.obj)", True),
        ("r.sub == p.sub && keyMatch2(r.obj, p.obj) && r.act == p.act", False),
        ("r.sub == p.sub && regexMatch(r.obj, p.obj) && custom(r.act)", False),
        ('r.sub.id == "r.obj.owner" && r.obj == p.obj', False),
    ],
)
async def test_an_object_is_admitted_wherever_something_could_read_it(
    tmp_path: File, matcher: str, is_read: bool
) -> None:
    app = FastAPI()
    app.get("/", dependencies=[Depends(require("a:read", resource=load))])(answer)
    path = model(tmp_path, matcher)
    manager = ACLManager(config(sqlite_uri="sqlite://", model_path=path, allow_eval=True), app=app)

    if is_read:
        manager.guards.check(app)
    else:
        with pytest.raises(ConfigurationError, match="retirez resource="):
            manager.guards.check(app)


async def test_an_object_that_is_not_loaded_is_a_warning_that_names_every_guard_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()
    app.get("/a", dependencies=[Depends(require("a:read"))])(answer)
    app.get("/b", dependencies=[Depends(require("b:read"))])(answer)
    app.get("/loaded", dependencies=[Depends(require("c:read", resource=load)), Depends(current_user)])(answer)
    app.get("/ours", dependencies=[Depends(require("acl.rules:read"))])(answer)

    await started(app, sqlite_uri="sqlite://", model="abac")

    [said] = [record for record in caplog.records if "resource_not_loaded" in record.message]
    assert said.levelno == logging.WARNING
    assert said.message.splitlines()[1:] == ['- GET /a, require("a:read")', '- GET /b, require("b:read")']


async def test_an_object_that_is_not_loaded_is_no_concern_where_attributes_are_not_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()
    app.get("/a", dependencies=[Depends(require("a:read"))])(answer)

    await started(app, sqlite_uri="sqlite://")

    assert "resource_not_loaded" not in caplog.text


# --- les types des paramètres -----------------------------------------------------------------------------------

Price = NewType("Price", Decimal)


class Colour(str, Enum):
    RED = "rouge"


AMBIGUOUS = [
    (Decimal, "Decimal"),
    (condecimal(gt=Decimal(0)), "Decimal"),
    (Price, "Decimal"),
    (Annotated[Decimal, Path(gt=0)], "Decimal"),
    (Union[int, Decimal], "Decimal"),  # noqa: UP007 - l'écriture d'avant
    (Annotated[Union[str, Annotated[Decimal, Path()]], Path()], "Decimal"),  # noqa: UP007 - idem
    (dt.datetime, "datetime"),
    (AwareDatetime, "datetime"),
    (PastDatetime, "datetime"),
    (FutureDatetime, "datetime"),
    (dt.date | dt.datetime, "datetime"),
    (str | AwareDatetime, "datetime"),
    (dt.time, "time"),
    (dt.timedelta, "timedelta"),
    (int | bool, "union de nombres"),
    (float | complex, "union de nombres"),
]
PLAIN = [str, int, UUID, float, bool, dt.date, NaiveDatetime, Colour, int | str, int | float, Annotated[str, Path()]]


def typed(app: FastAPI, kind: Any) -> None:
    async def read(value: Any) -> None: ...

    read.__annotations__["value"] = kind
    app.get("/t/{value}", dependencies=[Depends(require("a:{value}:read"))])(read)


def typed_beneath(app: FastAPI, kind: Any) -> None:
    async def read(value: Any) -> None: ...

    read.__annotations__["value"] = kind

    async def whole(value: str, found: Annotated[None, Depends(read)]) -> None: ...

    app.get("/t/{value}", dependencies=[Depends(require("a:{value}:read"))])(whole)


def typed_domain(app: FastAPI, kind: Any) -> None:
    async def read(value: Any) -> None: ...

    read.__annotations__["value"] = kind
    app.get("/t/{value}", dependencies=[Depends(require("a:read", domain="{value}"))])(read)


@pytest.mark.parametrize("declare", [typed, typed_beneath])
@pytest.mark.parametrize(("kind", "name"), AMBIGUOUS)
async def test_a_parameter_with_several_writings_of_one_value_is_refused(
    declare: Callable[[FastAPI, Any], None], kind: Any, name: str
) -> None:
    app = FastAPI()
    declare(app, kind)

    said = await refused(app, sqlite_uri="sqlite://")

    assert f'GET /t/{{value}}, require("a:{{value}}:read") : le paramètre « value » est de type {name},' in said
    assert "déclarez-le str, int ou UUID" in said


@pytest.mark.parametrize(("kind", "name"), [(Decimal, "Decimal"), (dt.datetime, "datetime")])
async def test_so_it_is_when_a_domain_names_it(kind: Any, name: str) -> None:
    app = FastAPI()
    typed_domain(app, kind)

    assert f"est de type {name}," in await refused(app, sqlite_uri="sqlite://", model="rbac_with_domains")


@pytest.mark.parametrize("declare", [typed, typed_beneath])
@pytest.mark.parametrize("kind", PLAIN)
async def test_a_parameter_with_one_writing_of_each_value_is_admitted(
    declare: Callable[[FastAPI, Any], None], kind: Any
) -> None:
    app = FastAPI()
    declare(app, kind)

    ACLManager(config(sqlite_uri="sqlite://"), app=app).guards.check(app)


async def test_a_parameter_that_no_guard_names_has_the_type_it_likes() -> None:
    app = FastAPI()

    @app.get("/{name}/{price}", dependencies=[Depends(require("a:{name}:read"))])
    async def read(name: str, price: Decimal) -> None: ...

    ACLManager(config(sqlite_uri="sqlite://"), app=app).guards.check(app)


# --- ce que le démarrage n'a pas vu -----------------------------------------------------------------------------


async def test_a_route_added_while_the_application_starts_is_checked(sqlite_uri: str) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        direct(app)
        yield

    assert "GET /a/{name}" in await refused(FastAPI(lifespan=lifespan), sqlite_uri=sqlite_uri)


async def test_a_refused_start_is_refused_again() -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri="sqlite://"), app=app)
    direct(app)

    for _ in range(2):
        with pytest.raises(ConfigurationError):
            manager.guards.check(app)


@pytest.mark.parametrize("is_started", [True, False])
async def test_a_route_that_start_did_not_see_never_decides_on_a_fault(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture, is_started: bool
) -> None:
    app, inner = FastAPI(), _with("/{name}", WRONG)
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async def wrapped(*asgi: Any) -> None:
        await inner(*asgi)

    async with serve(app, manager, lifespan=is_started) as visitor:
        app.get("/wrong", dependencies=[Depends(require("a:read", domain="un"))])(answer)
        app.get("/right", dependencies=[Depends(require("a:read"))])(answer)
        app.mount("/hidden", wrapped)
        admin = await visitor.login(ADMIN, ADMIN_PASSWORD)
        answers = [await admin.get("/wrong") for _ in range(3)]
        right, hidden = await admin.get("/right"), await admin.get("/hidden/ada-lovelace")

    assert [found.status_code for found in answers] == [503] * 3
    assert {found.json()["code"] for found in answers} == {"configuration_error"}
    assert "domain" not in answers[0].text
    assert (right.status_code, hidden.status_code) == (200, 503)
    said = [record.message for record in caplog.records if "guard_refused" in record.message]
    assert len(said) == 2
    assert said[0].startswith('guard_refused: GET /wrong, require("a:read") : rien ne lit ce domaine')
    assert "n’a pas de paramètre « nom »" in said[1]
    assert "lovelace" not in said[1]


async def test_a_guard_called_by_hand_is_checked_too(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri, model="rbac_with_domains"), app=app)

    @app.websocket("/by-hand")
    async def by_hand(websocket: WebSocket) -> None:
        await require_role("admin")(connection=websocket)  # type: ignore[call-arg]

    with TestClient(app) as http:
        body = {"username": ADMIN, "password": ADMIN_PASSWORD}
        token = http.post("/api/v1/auth/login", json=body).json()["access_token"]
        with (
            pytest.raises(WebSocketDisconnect),
            http.websocket_connect("/by-hand", headers={"Authorization": f"Bearer {token}"}),
        ):
            pass

    assert not manager.is_ready


@pytest.mark.parametrize("place", ["included", "direct", "mounted"])
def test_a_websocket_reads_its_path_as_it_is_written(sqlite_uri: str, place: str) -> None:
    app, routes, inner = FastAPI(), APIRouter(), FastAPI()
    ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async def numbered(websocket: WebSocket, number: int) -> None:
        await websocket.accept()
        await websocket.send_text(str(number))
        await websocket.close()

    wanted = {"included": routes, "direct": app, "mounted": inner}[place]
    wanted.websocket("/ws/{number}", dependencies=[Depends(require("a:{number}:read"))])(numbered)
    app.include_router(routes)
    app.mount("/m", inner)
    prefix = "/m" if place == "mounted" else ""

    with TestClient(app) as http:
        body = {"username": ADMIN, "password": ADMIN_PASSWORD}
        token = http.post("/api/v1/auth/login", json=body).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        with http.websocket_connect(f"{prefix}/ws/7", headers=headers) as found:
            assert found.receive_text() == "7"
        with pytest.raises(WebSocketDisconnect), http.websocket_connect(f"{prefix}/ws/07", headers=headers):
            pass


async def test_an_application_mounted_by_an_included_router_reads_its_path_as_it_is_written(sqlite_uri: str) -> None:
    app, outer, inner = FastAPI(), APIRouter(), FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    @inner.get("/d/{number}", dependencies=[Depends(require("a:{number}:read"))])
    async def read(number: int) -> int:
        return number

    outer.mount("/m", inner)
    app.include_router(outer, prefix="/p") if hasattr(APIRouter, "matches") else app.mount("/p/m", inner)
    async with serve(app, manager) as visitor:
        admin = await visitor.admin()
        answers = [(await admin.get(f"/p/m/d/{written}")).status_code for written in ("7", "07", "+7")]

    assert answers == [200, 404, 404]


# --- une garde remplacée --------------------------------------------------------------------------------------------


async def test_a_guard_the_application_replaced_decides_nothing_and_is_not_checked() -> None:
    app, same = FastAPI(), FastAPI()
    for one in (app, same):
        one.get("/wrong", dependencies=[Depends(WRONG)])(answer)
        one.get("/role", dependencies=[Depends(require_role("editor", domain="un"))])(answer)
    app.dependency_overrides = {require("document:{nom}:read"): answer, require_role("editor", domain="un"): answer}
    manager = ACLManager(config(), app=app)

    async with serve(app, manager) as client:
        assert [(await client.get(path)).status_code for path in ("/wrong", "/role")] == [200, 200]
    assert "« nom »" in await refused(same)


async def test_a_guard_replaced_elsewhere_is_still_checked_where_it_decides() -> None:
    app, other = FastAPI(), FastAPI()
    app.get("/wrong", dependencies=[Depends(WRONG)])(answer)
    other.dependency_overrides[WRONG] = answer
    app.dependency_overrides[require("document:{autre}:read")] = answer
    app.mount("/other", other)

    assert "GET /wrong" in await refused(app)


async def test_a_guard_of_a_mounted_application_that_replaced_nothing_never_opens() -> None:
    app, inner = FastAPI(), FastAPI()
    inner.get("/wrong", dependencies=[Depends(WRONG)])(answer)
    app.mount("/inner", inner)
    app.dependency_overrides[WRONG] = answer
    manager = ACLManager(config(), app=app)

    async with serve(app, manager) as client:
        admin = await client.admin()
        assert (await admin.get("/inner/wrong")).status_code >= 500
