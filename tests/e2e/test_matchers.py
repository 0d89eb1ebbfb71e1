"""Un matcher qui ne répond pas vrai ou faux, d'un bout à l'autre : la route refuse, l'application ne démarre pas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from fastapi_acl import ACLManager, ConfigurationError, Principal, require
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.shared.exceptions import InvalidTokenError
from tests.support.app import Client, config, living, serve

ABAC_MATCHER = "aclOwns(r.obj, r.sub, p.eft)"
ROLE = "role:clerk"


class ByName:
    """Le jeton est l'identifiant, comme celui d'une passerelle qui aurait déjà tout vérifié."""

    async def authenticate(self, token: str) -> Principal:
        if not token:
            raise InvalidTokenError
        return Principal(id=token)


@dataclass
class Expense:
    owner: object
    level: object = 3


def application(owner: object, *, attribute: str = "owner") -> FastAPI:
    app = FastAPI()

    async def load() -> object:
        return {attribute: owner, "level": 3}

    @app.post("/expense", dependencies=[Depends(require("expense:approve", resource=load))])
    async def approve() -> str:
        return "approuvée"

    return app


def managed(app: FastAPI, uri: str, **options: Any) -> ACLManager:
    functions = options.pop("functions", None)
    settings = config(sqlite_uri=uri, create_default_admin=False, **options)
    return ACLManager(settings, app=app, authenticator=ByName(), functions=functions)


def by(client: Client, name: str) -> Client:
    return Client(client.http, client.manager, token=name)


async def grant(manager: ACLManager, *rules: tuple[str, ...]) -> None:
    for name in ("7", "8"):
        await manager.get_enforcer().add_grouping_policy(f"user:{name}", ROLE)
    for rule in rules:
        await manager.get_enforcer().add_policy(*rule)


@pytest.mark.parametrize("attribute", ["owner", "author_id"])
@pytest.mark.parametrize(
    ("owner", "statuses"), [(7, [403, 200]), ("7", [403, 200]), ("07", [200, 200]), (1.5, [503] * 2)]
)
async def test_nobody_approves_his_own_however_his_number_is_kept(
    sqlite_uri: str, owner: object, statuses: list[int], attribute: str
) -> None:
    app = application(owner, attribute=attribute)
    manager = managed(app, sqlite_uri, model="abac", owner_attribute=attribute)
    async with serve(app, manager) as client:
        await grant(
            manager,
            (ROLE, "expense", "approve", "*", "allow"),
            (ROLE, "expense", "approve", "own", "deny"),
        )

        answers = [await by(client, name).post("/expense") for name in ("7", "8")]

    assert [answer.status_code for answer in answers] == statuses
    assert all(answer.json()["code"] == "decision_failed" for answer in answers if answer.status_code == 503)


def own_model(tmp_path: Path, term: str) -> Path:
    path = tmp_path / "model.conf"
    text = read_packaged_model("abac")
    assert ABAC_MATCHER in text
    path.write_text(text.replace(ABAC_MATCHER, term), "utf-8")
    return path


async def later(_: object) -> bool:
    return True


def hidden(subject: object) -> object:
    return later(subject)


@pytest.mark.parametrize(
    ("term", "function"),
    [
        ("trusted(r.sub) && r.obj.level == 3", hidden),
        ("trusted(r.sub) && r.obj.level == 3", lambda _: "oui"),
        ("trusted(r.sub) && r.obj.level == 3", lambda _: 1),
        ('r.obj.level == "3"', None),
        ('r.obj.level in ("3", "4")', None),
        ("r.obj.title == p.obj", None),
        ("r.obj.missing == 3", None),
    ],
)
async def test_a_decision_without_an_answer_lets_nobody_in(
    sqlite_uri: str, tmp_path: Path, term: str, function: Callable[..., Any] | None
) -> None:
    app = application(7)
    functions = {"trusted": function} if function is not None else {}
    manager = managed(app, sqlite_uri, model_path=own_model(tmp_path, term), functions=functions)
    async with serve(app, manager) as client:
        await grant(manager, (ROLE, "expense", "approve", "own", "allow"))

        answer = await by(client, "7").post("/expense")

    assert (answer.status_code, answer.json()["code"]) == (503, "decision_failed")
    assert ROLE not in answer.text


async def test_an_asynchronous_function_does_not_even_make_a_manager(sqlite_uri: str, tmp_path: Path) -> None:
    path = own_model(tmp_path, "trusted(r.sub)")

    with pytest.raises(ConfigurationError, match="« trusted »"):
        managed(FastAPI(), sqlite_uri, model_path=path, functions={"trusted": later})


async def test_an_application_whose_matcher_names_nothing_does_not_start(sqlite_uri: str, tmp_path: Path) -> None:
    app = application(7)
    managed(
        app,
        sqlite_uri,
        model_path=own_model(tmp_path, "trusted(r.sub) && r.obj.level == 3"),
        functions={"trustd": lambda _: True},
    )

    with pytest.raises(ConfigurationError, match="vouliez-vous « trustd »"):
        async with living(app):
            pass


def test_a_matcher_that_evaluates_rules_makes_no_manager_unless_it_is_admitted(sqlite_uri: str, tmp_path: Path) -> None:
    path = tmp_path / "model.conf"
    text = read_packaged_model("rbac")
    path.write_text(f"{text[: text.index('m = ')]}m = g(r.sub, p.sub) && eval(p.obj)\n", "utf-8")

    with pytest.raises(ConfigurationError, match="ACL_ALLOW_EVAL"):
        ACLManager(config(sqlite_uri=sqlite_uri, model_path=path))

    assert ACLManager(config(sqlite_uri=sqlite_uri, model_path=path, allow_eval=True))
