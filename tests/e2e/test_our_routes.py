"""Nos routes dans les mains de l'application : ses dépendances globales y valent, et nos gardes passent d'abord."""

from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, Security

from fastapi_acl import ACLManager, Principal, current_user, get_current_user, require, require_role
from fastapi_acl.shared.http.dependants import guards_in
from fastapi_acl.shared.http.places import Place, places_in
from fastapi_acl.shared.identity import ACL_PERMISSIONS
from tests.support.app import ADMIN, ADMIN_PASSWORD, PASSWORD, Client, config, serve

PUBLIC = {
    "GET /api/v1/acl/health",
    "POST /api/v1/auth/register",
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/token",
    "POST /api/v1/auth/refresh",
}

Caller = Annotated[Principal, Depends(current_user)]
Editor = Annotated[Principal, Depends(require("document:write"))]


async def known(principal: Caller) -> None: ...


async def deeper(found: Annotated[None, Depends(known)]) -> None: ...


class Editing:
    """Une dépendance de l'application, qui enveloppe `require`."""

    def __call__(self, principal: Editor) -> str:
        return principal.id


def ours(app: FastAPI) -> list[Place]:
    return [place for place in places_in(app.routes) if " /api/v1/" in place.label]


async def opened(visitor: Client) -> dict[str, int]:
    """Frappe à chaque porte publique, comme qui n'a pas de jeton."""
    body = {"username": ADMIN, "password": ADMIN_PASSWORD}
    new = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
    entered = await visitor.post("/api/v1/auth/login", json=body)
    token = {"refresh_token": entered.json().get("refresh_token", "")}
    return {
        "health": (await visitor.get("/api/v1/acl/health")).status_code,
        "login": entered.status_code,
        "token": (await visitor.post("/api/v1/auth/token", data=body)).status_code,
        "register": (await visitor.post("/api/v1/auth/register", json=new)).status_code,
        "refresh": (await visitor.post("/api/v1/auth/refresh", json=token)).status_code,
    }


async def entered(visitor: Client, username: str) -> Client:
    """Ouvre une session sans passer par une route gardée."""
    body = {"username": username, "password": PASSWORD}
    token = (await visitor.post("/api/v1/auth/login", json=body)).json()["access_token"]
    account = await visitor.manager.get_auth_repository().get_by_username(username)
    return Client(visitor.http, visitor.manager, token, id=str(account.id))


OPEN = {"health": 200, "login": 200, "token": 200, "register": 201, "refresh": 200}


RULE = {"ptype": "p", "values": ["role:r", "document", "read", "allow"]}
NOBODY = "/api/v1/admin/auth/users/00000000-0000-4000-8000-000000000000"
RULES = "/api/v1/admin/permissions/rules"
WANTED: dict[tuple[str, str], tuple[str, Any]] = {
    ("GET", "/api/v1/admin/auth/users"): ("acl.users:read", None),
    ("PUT", f"{NOBODY}/activate"): ("acl.users:write", None),
    ("PUT", f"{NOBODY}/deactivate"): ("acl.users:write", None),
    ("DELETE", NOBODY): ("acl.users:write", None),
    ("GET", RULES): ("acl.rules:read", None),
    ("POST", RULES): ("acl.rules:write", {"rules": []}),
    ("PUT", RULES): ("acl.rules:write", {"old": RULE}),
    ("DELETE", RULES): ("acl.rules:write", {"rules": []}),
    ("POST", "/api/v1/admin/permissions/explain"): ("acl.rules:read", {"decision_id": "inconnu"}),
}
"""Ce que chaque route d'administration demande, et un corps qui passe la garde sans rien changer."""


async def test_each_administration_route_wants_its_own_permission_and_no_other(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)
    async with serve(app, manager) as visitor:
        admin, reached = await visitor.admin(), {}
        for index, (resource, action) in enumerate(ACL_PERMISSIONS):
            ada = await visitor.newcomer(f"ada{index}")
            await admin.add_rules(("p", f"user:{ada.id}", resource, action, "allow"))
            for (method, path), (_, body) in WANTED.items():
                options = {"json": body} if body is not None else {}
                if (await ada.request(method, path, **options)).status_code != 403:
                    reached.setdefault((method, path), []).append(f"{resource}:{action}")

    assert reached == {route: [wanted] for route, (wanted, _) in WANTED.items()}


def test_the_routes_without_a_guard_are_those_that_anyone_may_reach() -> None:
    app = FastAPI()
    ACLManager(config(sqlite_uri="sqlite://", enable_token_form=True), app=app)

    assert {place.label for place in ours(app) if not guards_in(place.dependant)} == PUBLIC


@pytest.mark.parametrize(
    ("dependency", "name"),
    [
        (Depends(current_user), "current_user"),
        (Security(current_user, scopes=["x"]), "current_user"),
        (Depends(get_current_user), "get_current_user"),
        (Depends(require("document:write")), 'require("document:write")'),
        (Depends(require_role("editor")), 'require_role("editor")'),
        (Depends(known), "known"),
        (Depends(deeper), "deeper"),
        (Depends(Editing()), "Editing"),
    ],
)
@pytest.mark.parametrize("is_argument", [True, False])
async def test_a_global_guard_does_not_close_the_doors_by_which_one_comes_in(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture, dependency: Any, name: str, is_argument: bool
) -> None:
    counted: list[str] = []

    async def count(request: Request) -> None:
        counted.append(request.url.path)

    dependencies = [Depends(count), dependency]
    app = FastAPI(dependencies=dependencies if is_argument else None)
    if not is_argument:
        app.router.dependencies += dependencies
    manager = ACLManager(config(sqlite_uri=sqlite_uri, enable_token_form=True), app=app)

    @app.get("/theirs")
    async def theirs() -> str:
        return "ok"

    async with serve(app, manager) as visitor:
        doors = await opened(visitor)
        ran = set(counted)
        closed = [(await visitor.get(path)).status_code for path in ("/theirs", "/api/v1/auth/me")]
        ada = await entered(visitor, "ada")
        rules = (await ada.get("/api/v1/admin/permissions/rules")).status_code

    assert doors == OPEN
    assert ran == {f"/api/v1/{path}" for path in ("acl/health", *(f"auth/{door}" for door in OPEN if door != "health"))}
    assert (closed, rules) == ([401, 401], 403)
    [said] = [record for record in caplog.records if "public_routes_open" in record.message]
    assert f"n'exigent pas {name}, que" in said.message
    assert "count" not in said.message
    assert app.router.dependencies == dependencies


async def test_a_global_guard_still_guards_our_guarded_routes(sqlite_uri: str) -> None:
    app = FastAPI(dependencies=[Depends(require("office:enter"))])
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async with serve(app, manager) as visitor:
        await visitor.register("ada")
        ada = await entered(visitor, "ada")
        before = (await ada.get("/api/v1/auth/me")).status_code
        await manager.get_enforcer().add_policy(f"user:{ada.id}", "office", "enter", "allow")
        after = (await ada.get("/api/v1/auth/me")).status_code

    assert (before, after) == (403, 200)


async def test_a_limiter_put_on_the_application_holds_on_our_public_routes(sqlite_uri: str) -> None:
    async def limit(request: Request) -> None:
        if "x-too-many" in request.headers:
            raise HTTPException(429)

    app = FastAPI(dependencies=[Depends(current_user), Depends(limit)])
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async with serve(app, manager) as visitor:
        body = {"username": ADMIN, "password": ADMIN_PASSWORD}
        answer = await visitor.post("/api/v1/auth/login", json=body, headers={"x-too-many": "1"})

    assert answer.status_code == 429


async def test_a_guard_added_after_the_manager_does_not_reach_our_routes(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri, enable_token_form=True), app=app)
    app.router.dependencies.append(Depends(current_user))

    @app.get("/theirs")
    async def theirs() -> str:
        return "ok"

    async with serve(app, manager) as visitor:
        assert await opened(visitor) == OPEN
        assert (await visitor.get("/theirs")).status_code == 401


async def test_a_global_dependency_that_guards_nothing_changes_no_route(sqlite_uri: str, caplog: Any) -> None:
    async def nothing() -> None: ...

    app = FastAPI(dependencies=[Depends(nothing)])
    ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    assert "public_routes_open" not in caplog.text
    assert all(nothing in calls(place.dependant) for place in ours(app))


def calls(dependant: Any) -> list[Any]:
    return [dependant.call, *(call for below in dependant.dependencies for call in calls(below))]


# --- la garde passe avant le corps ------------------------------------------------------------------------------


class Body:
    """Un corps que l'on regarde lire."""

    def __init__(self, *parts: bytes, ends: bool = True) -> None:
        self.parts, self.ends, self.asked = list(parts), ends, 0

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if self.parts:
            part = self.parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self.parts) or not self.ends}
        message = "ce corps ne finit pas"
        raise AssertionError(message)


def bodies() -> list[Body]:
    return [
        Body(b'{"rules": ['),
        Body(b"\xff\xfe{"),
        Body(*[b" " * 65_536] * 48),
        Body(b"{", ends=False),
        Body(ends=False),
    ]


async def send(app: FastAPI, method: str, path: str, body: Body, token: str | None = None) -> int:
    """Envoie une requête dont le corps n'est donné qu'à qui le demande ; rend le statut."""
    sent: list[Any] = []
    headers = [(b"host", b"essai"), (b"content-type", b"application/json")]
    headers += [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("198.51.100.7", 1),
        "server": ("essai", 80),
    }

    async def keep(message: Any) -> None:
        sent.append(message)

    await app(scope, body.receive, keep)
    status: int = sent[0]["status"]
    return status


async def heard(app: FastAPI, method: str, path: str, token: str | None = None) -> set[tuple[int, int]]:
    """Envoie chaque corps ; rend les statuts, et combien de fois le corps a été demandé."""
    return {(await send(app, method, path, body, token), body.asked) for body in bodies()}


def with_a_body(app: FastAPI) -> list[tuple[str, str, bool]]:
    """Énumère nos routes gardées qui lisent un corps, et dit si la garde décide."""
    found = []
    for place in ours(app):
        guards = guards_in(place.dependant)
        if guards and flat_body(place.dependant):
            method, _, path = place.label.partition(" ")
            found.append((method, path.replace("{user_id}", str(UUID(int=7))), guards != [current_user]))
    return found


def flat_body(dependant: Any) -> bool:
    return bool(dependant.body_params) or any(map(flat_body, dependant.dependencies))


async def test_who_is_refused_is_not_listened_to(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)
    routes = with_a_body(app)

    async with serve(app, manager) as visitor:
        ada = await visitor.newcomer("ada")
        anonymous = [await heard(app, method, path) for method, path, _ in routes]
        forged = [await heard(app, method, path, "a.b.c") for method, path, _ in routes]
        denied = [await heard(app, method, path, ada.token) for method, path, decides in routes if decides]

    assert len(routes) >= 5
    assert len(denied) >= 3
    assert set().union(*anonymous, *forged) == {(401, 0)}
    assert set().union(*denied) == {(403, 0)}


async def test_who_is_admitted_is_told_what_is_wrong_with_the_body(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async with serve(app, manager) as visitor:
        admin = await visitor.admin()
        answer = await send(app, "POST", "/api/v1/admin/permissions/rules", Body(b'{"rules": ['), admin.token)

    assert answer == 422


async def test_the_right_is_asked_again_once_the_body_has_come(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)
    question = b'{"checks": [{"resource": "document", "action": "read"}]}'

    class Slow(Body):
        async def receive(self) -> dict[str, Any]:
            await bob.post("/api/v1/auth/logout", json={"everywhere": True})
            return await super().receive()

    async with serve(app, manager) as visitor:
        bob = await visitor.newcomer("bob")
        quick = await send(app, "POST", "/api/v1/permissions/check", Body(question), bob.token)
        slow = await send(app, "POST", "/api/v1/permissions/check", Slow(question), bob.token)

    assert (quick, slow) == (200, 401)


@pytest.mark.parametrize("replaced", [current_user, require("acl.rules:write")])
async def test_what_the_application_put_in_place_of_a_guard_is_obeyed(sqlite_uri: str, replaced: Any) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)
    asked: list[str] = []

    async with serve(app, manager) as visitor:
        admin = await visitor.admin()

        async def someone() -> Principal:
            asked.append("")
            return Principal(id=admin.id)

        app.dependency_overrides[replaced] = someone
        added = await visitor.add_rules(("p", "role:r", "document", "read", "allow"))

    assert added.status_code == 201
    assert len(asked) == 1


async def test_an_account_put_in_place_asks_for_no_token(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async with serve(app, manager) as visitor:
        admin = await visitor.admin()
        account = await manager.get_auth_repository().get_by_username(ADMIN)
        app.dependency_overrides[get_current_user] = lambda: account
        answer = await visitor.get("/api/v1/auth/me")

    assert answer.json()["id"] == admin.id
