"""Ce que la base garde de règles, lu sans passer par la mémoire."""

from __future__ import annotations

from fastapi_acl.engine.adapters.base import PolicyAdapter
from fastapi_acl.engine.kernel.loading import without_tail
from fastapi_acl.shared.policy import PolicyRule


async def stored(adapter: PolicyAdapter, batch_id: str | None = None) -> dict[PolicyRule, int]:
    """Rend les règles de la base et leurs numéros, dans l'ordre ; chacune n'y est qu'une fois."""
    lines = [row async for packet in adapter.lines(batch_id) for row in packet]
    rules = {PolicyRule(row[1], without_tail(row[2:])): row[0] for row in lines}
    assert len(rules) == len(lines)
    return rules
