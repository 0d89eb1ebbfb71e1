"""Une écriture que l'on annule plusieurs fois, comme le fait anyio à chaque tour de boucle."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterator

import pytest

from fastapi_acl import ACLManager
from tests.engine.test_history import change, rule
from tests.engine.test_transfer import same


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Aucune connexion perdue n'est rendue par le ramasse-miettes."""
    gc.disable()
    yield
    gc.enable()


async def insistently_cancelled(task: asyncio.Task[int]) -> None:
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.usefixtures("uncollected")
async def test_writes_cancelled_again_and_again_leave_a_database_that_answers(manager: ACLManager) -> None:
    rng = random.Random(1)
    for number in range(30):
        task = asyncio.create_task(change(manager, add=(rule(number),)))
        await asyncio.sleep(rng.random() * 0.01)
        await insistently_cancelled(task)

    await asyncio.sleep(0.1)
    await change(manager, add=(rule(99),))
    await same(manager)
