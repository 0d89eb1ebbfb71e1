"""Un exécuteur strict sans base : un modèle, des règles données en mémoire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi_acl.engine.casbin.definitions import ModelDefinitions
from fastapi_acl.engine.casbin.strict import StrictEnforcer
from fastapi_acl.engine.kernel.policy import Policy

if TYPE_CHECKING:
    from casbin.model import Model


def strict_enforcer(model: Model, **options: Any) -> StrictEnforcer:
    """Fait un exécuteur strict, dont `policy` reçoit les règles.

    Args:
        model: modèle chargé.
        options: celles de `ModelDefinitions`.
    """
    definitions = ModelDefinitions(model, **options)
    return StrictEnforcer(definitions, Policy(definitions))


async def load(policy: Policy, adapter: Any) -> None:
    """Met en service les lignes d'un adaptateur."""
    policy.install(await policy.read(adapter.lines()))
