"""Les routes de la tranche : ce que le reste de l'histoire (tests/e2e) ne montre pas."""

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI

from fastapi_acl import ACLManager
from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
from fastapi_acl.auth.application.interface.services import ITokenService
from fastapi_acl.auth.application.usecases.register import RegisterUseCase
from fastapi_acl.auth.application.usecases.sessions import LoginUseCase
from fastapi_acl.auth.domain.dtos.auth_dtos import LoginDTO, RegisterDTO
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.auth.interface.dependencies import (
    get_auth_repository,
    get_current_user,
    get_login_usecase,
    get_register_usecase,
    get_token_service,
)
from fastapi_acl.auth.interface.schemas import LoginRequest, LoginResponse, RefreshTokenRequest, RegisterRequest
from fastapi_acl.shared.exceptions import InvalidTokenError, UserNotActiveError
from fastapi_acl.shared.identity import Principal
from tests.support.app import PASSWORD, Client, config, protected, serve

AUTH = "/api/v1/auth"
USERS = "/api/v1/admin/auth/users"


@pytest.fixture
async def visitor(sqlite_uri: str) -> AsyncIterator[Client]:
    async with protected(sqlite_uri=sqlite_uri) as client:
        yield client


async def test_the_token_form_gives_the_same_tokens_as_login(visitor: Client) -> None:
    await visitor.register("ada")

    answer = await visitor.post(f"{AUTH}/token", data={"username": "ada", "password": PASSWORD})

    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert answer.json()["token_type"] == "bearer"


async def test_the_token_form_can_be_left_out(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, enable_token_form=False) as visitor:
        answer = await visitor.post(f"{AUTH}/token", data={"username": "ada", "password": PASSWORD})

    assert answer.status_code == 404


@pytest.mark.parametrize("path", ["login", "refresh"])
async def test_token_answers_forbid_caching(visitor: Client, path: str) -> None:
    ada = await visitor.newcomer("ada")
    bodies = {"login": {"username": "ada", "password": PASSWORD}, "refresh": {"refresh_token": ada.refresh_token}}

    answer = await visitor.post(f"{AUTH}/{path}", json=bodies[path])

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")


async def test_an_account_is_shown_without_its_password(visitor: Client) -> None:
    registered = await visitor.register("Ada")
    ada = await visitor.login("ada")

    me = await ada.get(f"{AUTH}/me")

    assert set(me.json()) == {"id", "username", "email", "is_active", "is_verified", "created_at", "updated_at"}
    assert me.json() == registered.json()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("register", {"username": "ada", "email": "a@b.com", "password": "mot-de-passe-à-taire", "is_admin": True}),
        ("register", {"username": "ada", "password": "mot-de-passe-à-taire"}),
        ("register", {"username": "ada", "email": "a@b.com", "password": "mot-de-passe-à-taire" * 100}),
        ("register", {"username": "u" * 300, "email": "a@b.com", "password": "mot-de-passe-à-taire"}),
        ("register", {"username": "ada", "email": "a" * 300, "password": "mot-de-passe-à-taire"}),
        ("login", {"username": {"mot-de-passe-à-taire": 1}, "password": ["mot-de-passe-à-taire"]}),
        ("login", {"username": "ada", "password": "mot-de-passe-à-taire", "mot-de-passe-à-taire": 1}),
        ("refresh", {"refresh_token": "mot-de-passe-à-taire" * 1000}),
        ("register", ["mot-de-passe-à-taire"]),
    ],
)
async def test_a_malformed_body_is_refused_and_never_echoed(visitor: Client, path: str, body: Any) -> None:
    answer = await visitor.post(f"{AUTH}/{path}", json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "taire" not in answer.text


@pytest.mark.parametrize("path", ["register", "login"])
@pytest.mark.parametrize("text", [r"\u0000", r"\ud800", r"\u202e", r"a\u0000b", "'; DROP TABLE acl_users; --"])
async def test_a_hostile_name_is_answered_and_breaks_nothing(visitor: Client, path: str, text: str) -> None:
    raw = f'{{"username": "{text}", "password": "{PASSWORD}", "email": "a@b.com"}}'
    body = raw if path == "register" else raw.replace(', "email": "a@b.com"', "")

    answer = await visitor.post(f"{AUTH}/{path}", content=body, headers={"content-type": "application/json"})

    assert answer.status_code in {401, 422}


@pytest.mark.parametrize(
    "query", [{"q": "\x00"}, {"q": "%"}, {"cursor": "!"}, {"cursor": "AA=="}, {"limit": 0}, {"limit": 201}]
)
async def test_the_list_of_accounts_survives_any_query(
    database_settings: dict[str, Any], query: dict[str, Any]
) -> None:
    async with protected(**database_settings) as visitor:
        answer = await (await visitor.admin()).get(USERS, params=query)

    assert answer.status_code in {200, 422}


@pytest.mark.parametrize("path", ["activate", "deactivate"])
async def test_the_admin_routes_want_the_permission(visitor: Client, path: str) -> None:
    ada, admin = await visitor.newcomer("ada"), await visitor.admin()

    assert (await visitor.get(USERS)).status_code == 401
    assert (await ada.get(USERS)).status_code == 403
    assert (await ada.put(f"{USERS}/{ada.id}/{path}")).status_code == 403
    assert (await ada.delete(f"{USERS}/{ada.id}")).status_code == 403
    assert (await admin.put(f"{USERS}/{uuid4()}/{path}")).json()["code"] == "user_not_found"
    assert (await admin.put(f"{USERS}/pas-un-uuid/{path}")).status_code == 422


@pytest.mark.parametrize("body", [{"everywhere": "peut-être"}, {"partout": True}, []])
async def test_logout_refuses_a_body_that_it_does_not_understand(visitor: Client, body: Any) -> None:
    ada = await visitor.newcomer("ada")

    assert (await ada.post(f"{AUTH}/logout", json=body)).status_code == 422
    assert (await ada.get(f"{AUTH}/me")).status_code == 200
    assert (await ada.post(f"{AUTH}/logout")).status_code == 204


async def test_me_refuses_an_account_that_is_gone_or_an_identity_that_is_not_ours(sqlite_uri: str) -> None:
    class Trusting:
        async def authenticate(self, token: str) -> Principal:
            return Principal(id=token)

    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app, authenticator=Trusting())

    async with serve(app, manager) as visitor:
        for token in (str(uuid4()), "étranger".encode().hex()):
            answer = await Client(visitor.http, manager, token).get(f"{AUTH}/me")
            assert (answer.status_code, answer.json()["code"]) == (401, InvalidTokenError.code)


async def test_an_application_route_reads_the_account_of_its_caller(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    @app.get("/name")
    async def name(user: Annotated[AuthUser, Depends(get_current_user)]) -> str:
        return user.username

    async with serve(app, manager) as visitor:
        ada = await visitor.newcomer("ada")
        answer = await ada.get("/name")

    assert answer.json() == "ada"


async def test_an_account_deactivated_in_the_database_is_refused_before_its_revocation_is_known(
    visitor: Client,
) -> None:
    ada = await visitor.newcomer("ada")
    await visitor.manager.get_auth_repository().update_user(UUID(ada.id), is_active=False)

    answer = await ada.get(f"{AUTH}/me")

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


async def test_an_application_route_uses_what_ours_use(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    @app.post("/badge")
    async def badge(
        name: str,
        users: Annotated[IAuthRepository, Depends(get_auth_repository)],
        tokens: Annotated[ITokenService, Depends(get_token_service)],
        register: Annotated[RegisterUseCase, Depends(get_register_usecase)],
        login: Annotated[LoginUseCase, Depends(get_login_usecase)],
    ) -> bool:
        made = await register.execute(RegisterDTO(username=name, email=None, password=PASSWORD))
        opened = await login.execute(LoginDTO(username=name, password=PASSWORD))
        return tokens.decode_token(opened.access_token).user_id == made.id == (await users.get_by_username(name)).id

    async with serve(app, manager) as visitor:
        answer = await visitor.post("/badge?name=ada")

    assert (answer.status_code, answer.json()) == (200, True)


async def test_our_routes_take_what_the_application_puts_in_place_of_a_use_case(sqlite_uri: str) -> None:
    class Closed:
        async def execute(self, _: LoginDTO) -> None:
            raise UserNotActiveError

    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)
    app.dependency_overrides[get_login_usecase] = Closed
    async with serve(app, manager) as visitor:
        await visitor.register("ada")
        answer = await visitor.post(f"{AUTH}/login", json={"username": "ada", "password": PASSWORD})

    assert answer.json()["code"] == "user_not_active"


async def test_a_session_remembers_a_bounded_user_agent(visitor: Client) -> None:
    await visitor.register("ada")

    answer = await visitor.post(
        f"{AUTH}/login", json={"username": "ada", "password": PASSWORD}, headers={"user-agent": "n" * 5000}
    )

    assert answer.status_code == 200


def test_bodies_never_show_their_secrets() -> None:
    shown = repr(
        [
            RegisterRequest(username="ada", email="a@b.com", password="à taire"),
            LoginRequest(username="ada", password="à taire"),
            RefreshTokenRequest(refresh_token="à taire"),
            LoginResponse(access_token="à taire", refresh_token="à taire", expires_in=1),
        ]
    )

    assert "taire" not in shown


async def test_the_examples_of_swagger_work_as_they_stand(visitor: Client) -> None:
    schemas = (await visitor.get("/openapi.json")).json()["components"]["schemas"]

    def example(name: str) -> dict[str, Any]:
        return {key: field["examples"][0] for key, field in schemas[name]["properties"].items()}

    registered = await visitor.post(f"{AUTH}/register", json=example("RegisterRequest"))
    entered = await visitor.post(f"{AUTH}/login", json=example("LoginRequest"))

    assert (registered.status_code, entered.status_code) == (201, 200)


async def test_no_password_reaches_the_logs_over_http(visitor: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastapi_acl")
    ada = await visitor.newcomer("ada")

    answer: httpx.Response = await visitor.post(f"{AUTH}/login", json={"username": "ada", "password": "mauvais secret"})

    assert answer.headers["www-authenticate"] == "Bearer"
    assert not [secret for secret in (PASSWORD, "mauvais secret", ada.token or "?") if secret in caplog.text]
