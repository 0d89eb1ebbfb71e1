"""Ce que coûte la garde : elle ne redit rien, et laisse vivre la boucle d'événements. Rien n'est mesuré à l'horloge."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import Any

import pytest

from fastapi_acl import PolicyChange, PolicyRule
from fastapi_acl.engine.writing.comparison import Comparison
from fastapi_acl.shared.identity import SYSTEM, Principal
from tests.support.app import Client, protected
from tests.support.steps import without_collector

MODELS = {"rbac": (), "rbac_with_domains": ("*",)}
RULES, LINKS = 500, 1_000


@pytest.fixture(params=MODELS)
async def served(request: pytest.FixtureRequest, sqlite_uri: str) -> AsyncIterator[tuple[Client, tuple[str, ...]]]:
    async with protected(sqlite_uri=sqlite_uri, model=request.param) as client:
        yield client, MODELS[request.param]


async def big_role(client: Client, domain: tuple[str, ...], count: int) -> tuple[PolicyRule, ...]:
    """Écrit un rôle de 500 règles, et rend des liens à lui donner."""
    rules = [PolicyRule("p", ("role:big", *domain, f"document:{n}", "read", "allow")) for n in range(RULES)]
    await client.manager.get_policy_store().change(PolicyChange(tuple(rules)), SYSTEM)
    return tuple(PolicyRule("g", (f"user:{n}", "role:big", *domain)) for n in range(count))


async def test_a_thousand_links_to_a_role_ask_once_per_permission_of_the_role(
    served: tuple[Client, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, domain = served
    admin, asked = await client.admin(), list[object]()
    links = await big_role(client, domain, LINKS)
    is_granted = Comparison.is_granted

    def counted(self: Comparison, subject: str, grant: Any) -> bool:
        asked.append(grant)
        return is_granted(self, subject, grant)

    monkeypatch.setattr(Comparison, "is_granted", counted)
    await client.manager.get_policy_store().change(PolicyChange(links), Principal(id=admin.id))

    assert len(asked) == len(set(asked)) == RULES


async def test_the_loop_turns_while_the_guard_works(served: tuple[Client, tuple[str, ...]]) -> None:
    client, domain = served
    admin = await client.admin()
    links = await big_role(client, domain, LINKS)
    store, actor = client.manager.get_policy_store(), Principal(id=admin.id)

    with counted_calls() as turns:
        watching = asyncio.create_task(turning(turns))
        await store.guards._check_each(PolicyChange(), PolicyChange(links), actor)
        watching.cancel()

    assert max(turns) < 20 * LINKS, "ce qui se fait d'un trait n'est que quelques pas par lien, jamais par permission"
    assert sum(turns) > 4 * max(turns)
    assert len(turns) > 20


@contextmanager
def counted_calls() -> Any:
    """Compte les appels faits entre deux tours de la boucle ; ceux du ramasse-miettes ne sont pas les nôtres."""
    turns = [0]

    def count(_: object, event: str, __: object) -> None:
        turns[-1] += event == "call"

    with without_collector():
        sys.setprofile(count)
        try:
            yield turns
        finally:
            sys.setprofile(None)


async def turning(turns: list[int]) -> None:
    """Ouvre un compte à chaque tour."""
    while True:
        turns.append(0)
        await asyncio.sleep(0)


async def test_a_link_that_would_make_a_cycle_is_found_among_a_thousand(
    served: tuple[Client, tuple[str, ...]],
) -> None:
    client, domain = served
    links = await big_role(client, domain, LINKS)
    cycle = PolicyRule("g", ("role:big", "role:top", *domain)), PolicyRule("g", ("role:top", "role:big", *domain))
    defined = PolicyRule("p", ("role:top", *domain, "document", "read", "allow"))
    store = client.manager.get_policy_store()

    with pytest.raises(Exception, match="cycle"):
        await store.change(PolicyChange((defined, *links, *cycle)), SYSTEM)

    assert not client.manager.get_policy().holds(links[0])
