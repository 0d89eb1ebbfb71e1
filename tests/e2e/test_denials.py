"""Un refus se retrouve : la réponse porte un numéro, le journal le dit, et rien de ce qu'on envoie n'y forge rien."""

import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote as url_quote

import pytest
from fastapi import Depends, FastAPI, HTTPException

from fastapi_acl import ACLManager, Principal, require, require_all, require_any, require_role
from fastapi_acl.shared.decisions import MAX_CAUSES, MAX_CHARACTERS, MAX_DENIALS, DecisionMemory, Question
from fastapi_acl.shared.exceptions import DecisionFailedError
from fastapi_acl.shared.logging import quote
from tests.support.app import Client, config, serve

LINE = re.compile(
    r'denied: decision_id=(?P<id>\S+) subject="(?P<subject>[^"]*)" permission=(?P<permission>.*) '
    r'domain=(?P<domain>\S+) route="(?P<route>[^"]*)" revision=(?P<revision>\d+)'
)


async def load(name: str) -> dict[str, Any]:
    if name == "lost":
        raise HTTPException(404)
    return {"owner": "personne", "secret": f"la valeur de {name}"}


def application() -> FastAPI:
    app = FastAPI()

    async def answer() -> str:
        return "ok"

    guards = {
        "/one": require("document:read"),
        "/files/{name}": require("file:{name}:read"),
        "/all": require_all("document:read", "document:write"),
        "/any": require_any("document:read", "document:write"),
        "/role": require_role("editor"),
        "/loaded/{name}": require("document:read", resource=load),
    }
    for path, guard in guards.items():
        app.get(path, dependencies=[Depends(guard)])(answer)
    return app


@pytest.fixture
async def ada(sqlite_uri: str) -> AsyncIterator[Client]:
    app = application()
    manager = ACLManager(config(sqlite_uri=sqlite_uri, model="abac", policy_poll_seconds=60), app=app)
    async with serve(app, manager) as client:
        yield await client.newcomer("ada")


def lines(caplog: pytest.LogCaptureFixture, event: str = "denied:") -> list[str]:
    return [record.message for record in caplog.records if record.message.startswith(event)]


async def test_a_denial_carries_a_number_that_one_line_of_the_log_has_with_everything_asked(
    ada: Client, caplog: pytest.LogCaptureFixture
) -> None:
    expected = {
        "/one": ('"document:read"', "GET /one"),
        "/files/a": ('"file:a:read"', "GET /files/{name}"),
        "/all": ('"document:read"', "GET /all"),
        "/any": ('"document:read","document:write"', "GET /any"),
        "/role": ('"role:editor"', "GET /role"),
        "/loaded/a": ('"document:read"', "GET /loaded/{name}"),
        "/api/v1/admin/permissions/rules": ('"acl.rules:read"', "GET /api/v1/admin/permissions/rules"),
    }
    with caplog.at_level(logging.INFO, "fastapi_acl"):
        answers = {path: (await ada.get(path)).json() for path in expected}

    found = {line["id"]: line for line in filter(None, map(LINE.fullmatch, lines(caplog)))}
    assert len(found) == len(expected) == len(lines(caplog))
    assert {answer["code"] for answer in answers.values()} == {"permission_denied"}
    for path, answer in answers.items():
        line = found[answer["decision_id"]]
        assert (line["permission"], line["route"]) == expected[path]
        assert (line["subject"], line["domain"]) == (f"user:{ada.id}", "-")
        assert int(line["revision"]) == ada.manager.revision
    assert len({number.partition("-")[0] for number in found}) == 1
    assert all(record.levelno == logging.INFO for record in caplog.records if record.message.startswith("denied:"))


async def test_what_is_granted_and_what_is_not_a_denial_leave_no_line(
    ada: Client, caplog: pytest.LogCaptureFixture
) -> None:
    admin = await ada.admin()
    with caplog.at_level(logging.INFO, "fastapi_acl"):
        statuses = [(await admin.get(path)).status_code for path in ("/one", "/files/a", "/any", "/loaded/a")]
        statuses.append((await ada.get("/loaded/lost")).status_code)
        statuses.append((await Client(ada.http, ada.manager).get("/one")).status_code)

    assert statuses == [200, 200, 200, 200, 404, 401]
    assert lines(caplog) == []


@pytest.mark.parametrize(
    "name",
    [
        'x" domain=y route="GET z" revision=9',
        "x\ndenied: decision_id=faux",
        "x\r\x85\u2028\u2029y",
        "\u202etxt.exe\u200b\x1b[31m",
        "é" * 500,
        "\\",
    ],
)
async def test_no_value_forges_a_line_or_a_field_of_the_log(
    ada: Client, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level(logging.INFO, "fastapi_acl"):
        answer = await ada.get(f"/files/{url_quote(name)}")

    assert answer.status_code == 403
    (line,) = lines(caplog)
    assert line.isprintable()
    assert len(line) < 600
    assert line.count(' route="') == 1
    assert line.count("revision=") - name.count("revision=") == 1
    assert line.endswith(f' route="GET /files/{{name}}" revision={ada.manager.revision}')


async def test_the_objects_of_a_denial_are_told_nowhere(ada: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = await ada.get("/loaded/a")

    remembered = ada.manager.decisions.find(answer.json()["decision_id"])
    assert "la valeur de" not in answer.text + caplog.text + repr(remembered)


# --- décisions qui échouent ---


def failing(reasons: list[str]) -> FastAPI:
    app = FastAPI()

    async def domain() -> Any:
        reason = reasons[0]
        raise DecisionFailedError(reason=reason, rule=("p", "user:1", "document", "read", "allow"))

    async def answer() -> str:
        return "ok"

    async def load() -> dict[str, object]:
        return {"owner": 1.5}

    app.get("/fails", dependencies=[Depends(require("document:read", resource=load))])(answer)
    app.get("/raises")(domain)
    return app


async def owning(visitor: Client, *holders: Client) -> None:
    """Donne à chacun le droit de lire les siens."""
    rules = [("p", f"user:{holder.id}", "document", "read", "own", "allow") for holder in holders]
    assert (await (await visitor.admin()).add_rules(*rules)).status_code == 201


async def test_a_failed_decision_is_told_once_with_its_route_and_no_stack(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = failing([])
    manager = ACLManager(config(sqlite_uri=sqlite_uri, model="abac", log_level="INFO"), app=app)
    async with serve(app, manager) as visitor:
        ada = await visitor.newcomer("ada")
        await owning(visitor, ada)
        with caplog.at_level(logging.INFO, "fastapi_acl"):
            answers = [await ada.get("/fails") for _ in range(20)]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "decision_failed")}
    told = [record for record in caplog.records if record.message.startswith("decision_failed")]
    assert [(record.levelno, record.exc_info) for record in told] == [(logging.ERROR, None)]
    for part in ('route="GET /fails"', 'permission="document:read"', "r.obj.owner", f'rule="p","user:{ada.id}"'):
        assert part in told[0].message
    assert all("decision_id" not in answer.json() for answer in answers)


async def test_its_stack_is_for_the_debug_level(sqlite_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    app = failing([])
    manager = ACLManager(config(sqlite_uri=sqlite_uri, model="abac", log_level="DEBUG"), app=app)
    async with serve(app, manager) as visitor:
        ada = await visitor.newcomer("ada")
        await owning(visitor, ada)
        with caplog.at_level(logging.DEBUG, "fastapi_acl"):
            for _ in range(3):
                await ada.get("/fails")

    stacks = [record for record in caplog.records if record.exc_info and record.levelno == logging.DEBUG]
    assert len([record for record in stacks if record.name == "fastapi_acl.http"]) == 3


async def test_a_decision_the_application_asks_for_itself_is_told_in_the_same_way(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = ["une cause"]
    app = failing(reasons)
    manager = ACLManager(config(sqlite_uri=sqlite_uri, model="abac"), app=app)
    async with serve(app, manager) as visitor:
        with caplog.at_level(logging.INFO, "fastapi_acl"):
            for reason in ("une cause", "une autre", "une cause"):
                reasons[0] = reason
                assert (await visitor.get("/raises")).status_code == 503

    told = lines(caplog, "decision_failed:")
    assert [re.findall(r'reason="(.*)"', line)[0] for line in told] == ["une cause", "une autre"]
    assert all('rule="p","user:1","document","read","allow"' in line for line in told)


# --- la mémoire ---


def asked(resource: str = "document") -> Question:
    return Question(subject="user:1", resource=resource, action="read")


def test_a_cause_is_news_once_a_minute_and_causes_are_bounded() -> None:
    now = [0.0]
    memory = DecisionMemory(clock=lambda: now[0])

    seen = []
    for now[0] in (0.0, 1.0, 59.9, 60.0, 61.0, 120.0):
        seen.append(memory.is_news("a"))
    flood = [memory.is_news(number) for number in range(2 * MAX_CAUSES)]

    assert seen == [True, False, False, True, False, True]
    assert all(flood)
    assert len(memory._causes) == MAX_CAUSES


def test_the_last_ten_thousand_denials_are_remembered_and_no_number_serves_twice() -> None:
    memory = DecisionMemory()

    numbers = [memory.deny(asked(f"document:{index}")) for index in range(MAX_DENIALS + 10)]

    assert len(set(numbers)) == len(numbers)
    assert [memory.find(number) for number in numbers[:10]] == [None] * 10
    assert all(memory.find(number) is not None for number in numbers[10:])


def test_a_denial_too_long_is_numbered_and_not_remembered() -> None:
    memory = DecisionMemory()

    short, long = memory.deny(asked()), memory.deny(asked("x" * MAX_CHARACTERS))

    assert short.partition("-")[0] == long.partition("-")[0]
    assert memory.find(short) == asked()
    assert memory.find(long) is None


def test_two_managers_never_give_the_same_number() -> None:
    assert DecisionMemory().deny(asked()) != DecisionMemory().deny(asked())


FORK = """
import os
from fastapi_acl.shared.decisions import DecisionMemory, Question

memory, asked = DecisionMemory(), Question(subject="user:1", resource="document", action="read")
mine = memory.deny(asked)
child = os.fork()
if child:
    os.waitpid(child, 0)
print("père" if child else "fils", memory.deny(asked), memory.find(mine) is not None, flush=True)
"""


def test_a_forked_process_numbers_its_own_denials_and_forgets_those_of_its_parent() -> None:
    told = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True).stdout

    found = {name: (number, remembers) for name, number, remembers in map(str.split, told.splitlines())}
    assert found["père"][0].partition("-")[0] != found["fils"][0].partition("-")[0]
    assert (found["père"][1], found["fils"][1]) == ("True", "False")


@pytest.mark.parametrize("text", ['"', "\\", "\n", "\x00", "\ud800", "\u2028", "é", "x" * 300])
def test_a_quoted_text_is_one_printable_string(text: str) -> None:
    found = quote(text)

    assert found.isprintable()
    assert found.startswith('"')
    assert found.endswith('"')
    assert not re.search(r'(?<!\\)(\\\\)*"', found[1:-1])
    assert len(found) < 210


async def test_a_caller_put_in_place_is_the_one_the_log_names(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Given:
        async def authenticate(self, token: str) -> Principal:
            return Principal(id=f'{token}" revision=9\n')

    app = application()
    manager = ACLManager(
        config(sqlite_uri=sqlite_uri, model="abac", create_default_admin=False), app=app, authenticator=Given()
    )
    async with serve(app, manager) as visitor:
        await manager.get_enforcer().add_policy("role:reader", "other", "read", "*", "allow")
        with caplog.at_level(logging.INFO, "fastapi_acl"):
            answer = await Client(visitor.http, manager, "ada").get("/one")

    assert answer.status_code == 403
    (line,) = lines(caplog)
    assert 'subject="user:ada\\" revision=9\\n" permission="document:read"' in line
