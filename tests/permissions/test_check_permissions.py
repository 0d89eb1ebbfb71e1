"""POST /permissions/check : chaque question a sa réponse, toutes à une révision, et la boucle d'événements respire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fastapi_acl.engine.kernel import pacing
from fastapi_acl.permissions.application.usecases.check_permissions import ATTEMPTS, CheckPermissionsUseCase
from fastapi_acl.permissions.domain.dtos.check import CheckDTO, CheckErrorDTO
from fastapi_acl.shared.exceptions import DecisionFailedError, PolicyUnavailableError, ValueTooLongError
from fastapi_acl.shared.identity import Principal
from tests.support.app import Client, protected

CHECK = "/api/v1/permissions/check"
ADA = Principal(id="ada")


class Policy:
    """Une politique de rien : une révision, et ce qu'elle répond de chaque ressource."""

    has_domains = False
    decides_on_routes = False

    def __init__(self, answers: dict[str, Any], *, changes_after: Callable[[int], bool] = lambda _: False) -> None:
        self.revision = 1
        self.asked: list[tuple[str, int]] = []
        self._answers = answers
        self._changes_after = changes_after

    def decide(self, principal: Principal, resource: str, action: str, domain: str | None = None) -> bool:
        """Répond, ou échoue."""
        assert (principal, action, domain) == (ADA, "read", None)
        self.asked.append((resource, self.revision))
        if self._changes_after(len(self.asked)):
            self.revision += 1
        answer = self._answers.get(resource, False)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)


def asking(policy: Any) -> CheckPermissionsUseCase:
    return CheckPermissionsUseCase(authorizer=policy, revisions=policy)


def questions(*resources: str) -> list[CheckDTO]:
    return [CheckDTO(resource, "read") for resource in resources]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db") as found:
        yield found


async def test_a_question_that_cannot_be_decided_takes_none_of_the_others_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = Policy({"a": True, "b": DecisionFailedError(), "c": ValueTooLongError(), "d": True})

    with caplog.at_level(logging.INFO, logger="fastapi_acl"):
        found = await asking(policy).execute(ADA, questions("a", "b", "c", "d", *["b"] * 50))

    assert found.results == [True, False, False, True, *[False] * 50]
    expected = [(1, "decision_failed"), (2, "value_too_long"), *[(place, "decision_failed") for place in range(4, 54)]]
    assert found.errors == [CheckErrorDTO(*error) for error in expected]
    assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [
        ("check_undecided: failed=51 asked=54", None)
    ]


async def test_a_policy_that_is_not_loaded_fails_the_whole() -> None:
    with pytest.raises(PolicyUnavailableError):
        await asking(Policy({"b": PolicyUnavailableError()})).execute(ADA, questions("a", "b"))


async def test_the_loop_is_given_back_every_few_questions() -> None:
    policy, seen = Policy({}), list[int]()

    async def neighbour() -> None:
        while True:
            seen.append(len(policy.asked))
            await asyncio.sleep(0)

    beside = asyncio.create_task(neighbour())
    await asyncio.sleep(0)
    await asking(policy).execute(ADA, questions(*map(str, range(1_000))))
    beside.cancel()

    turns = [after - before for before, after in zip(seen, [*seen[1:], 1_000], strict=True)]
    assert max(turns) <= pacing.TURN
    assert len(seen) >= 1_000 // pacing.TURN


async def test_a_slow_step_gives_the_loop_back_at_once() -> None:
    clock = iter(range(1_000))
    pace, seen = pacing.Pace(lambda: float(next(clock))), list[str]()

    async def neighbour() -> None:
        seen.append("voisin")

    beside = asyncio.create_task(neighbour())
    await pace.step()

    assert seen == ["voisin"]
    await beside


async def test_all_answers_are_of_one_revision_or_are_asked_again() -> None:
    policy = Policy({"a": True}, changes_after=lambda count: count in {3, 7})

    found = await asking(policy).execute(ADA, questions(*"abcde"))

    assert found.revision == policy.revision == 3
    assert found.results == [True, False, False, False, False]
    assert [revision for _, revision in policy.asked[-5:]] == [3] * 5


async def test_a_change_after_the_last_question_is_seen_too() -> None:
    policy = Policy({}, changes_after=lambda count: count == 2)

    assert (await asking(policy).execute(ADA, questions("a", "b"))).revision == 2
    assert len(policy.asked) == 4


async def test_a_policy_that_never_rests_is_not_asked_for_ever() -> None:
    policy = Policy({}, changes_after=lambda _: True)

    with pytest.raises(PolicyUnavailableError, match="change sans cesse"):
        await asking(policy).execute(ADA, questions("a", "b"))
    assert len(policy.asked) <= 2 * ATTEMPTS


async def test_a_value_longer_than_a_rule_has_its_answer_and_an_empty_one_is_refused(client: Client) -> None:
    ada = await client.newcomer("ada")
    asked = [("document", "read"), (":" * 4_096, "read"), ("d" * 300, ":" * 4_096)]
    checks = [{"resource": resource, "action": action} for resource, action in asked]

    answer = await ada.post(CHECK, json={"checks": checks})
    empty = await ada.post(CHECK, json={"checks": [*checks, {"resource": "", "action": "read"}]})

    assert answer.status_code == 200
    assert answer.json()["results"] == [False, False, False]
    assert answer.json()["errors"] == []
    assert empty.status_code == 422


async def test_each_question_names_its_tenant_where_the_model_has_some(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, model="rbac_with_domains") as visitor:
        admin = await visitor.admin()
        asked = [
            {"resource": "document", "action": "read", "domain": "un"},
            {"resource": "document", "action": "read"},
            {"resource": "acl.rules", "action": "write"},
        ]

        refused = await admin.post(CHECK, json={"checks": asked})
        answered = await admin.post(CHECK, json={"checks": [asked[0], asked[2]]})

    assert (refused.status_code, refused.json()["code"], refused.json()["checks"]) == (422, "invalid_request", [1])
    assert answered.json()["results"] == [True, True]
