"""Ce que l'on mesure : notre exécuteur, et ce qui se fait ailleurs pour le même travail."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from casbin import AsyncEnforcer, FastEnforcer
from casbin.model import FastModel, Model

from fastapi_acl import PolicyEnforcer
from fastapi_acl.engine.kernel.acl_match import acl_match
from tests.bench.worlds import World
from tests.support.engines import strict_enforcer

Decide = Callable[..., Any]

STOCK = "pycasbin"
BY_HAND = "deux dictionnaires, à la main"


class NotInstalledError(Exception):
    """Le pair ne s'installe pas ici ; le message dit pourquoi."""


def loaded(text: str) -> Model:
    """Lit un modèle."""
    model = Model()
    model.load_model_from_text(text)
    return model


def ours(world: World) -> PolicyEnforcer:
    """Notre exécuteur, comme la bibliothèque l'emploie."""
    enforcer = strict_enforcer(loaded(world.text), allow_eval=True)
    enforcer.policy.install(world.rules)
    check(enforcer, world)
    return enforcer


def bare(world: World) -> PolicyEnforcer:
    """Notre exécuteur, à la place de celui de Casbin."""
    enforcer = PolicyEnforcer(loaded(world.text))
    _fill(enforcer, world)
    return enforcer


def stock(world: World) -> Any:
    """L'exécuteur de pycasbin."""
    enforcer = AsyncEnforcer(loaded(world.text))
    enforcer.add_function("aclMatch", acl_match)
    _fill(enforcer, world)
    return enforcer


def fast(world: World) -> Any:
    """Le `FastEnforcer` de pycasbin, qui range les règles par objet et par action."""
    model = FastModel([1, 2])
    model.load_model_from_text(world.text)
    enforcer = FastEnforcer(model, cache_key_order=[1, 2])
    _fill(enforcer, world)
    return enforcer


def _fill(enforcer: Any, world: World) -> None:
    """Met les règles en mémoire sans passer par une écriture, qui relirait toute la liste à chaque fois."""
    for rule in world.rules:
        enforcer.model[rule.section][rule.ptype].policy.append(list(rule.values))
    if "p_priority" in enforcer.model["p"]["p"].tokens:
        enforcer.model.sort_policies_by_priority()
    enforcer.build_role_links()
    check(enforcer, world)


def check(enforcer: Any, world: World) -> None:
    """Vérifie les réponses : une mauvaise réponse ne se mesure pas."""
    for request in world.requests:
        found = enforcer.enforce(*request.values)
        assert found == request.allowed, f"{type(enforcer).__name__} répond {found} à {request}"


# --- RBAC seulement --------------------------------------------------------------------------------------------------


def by_hand(world: World) -> Decide:
    """Ce que l'on écrirait sans bibliothèque, pour ce modèle-là : le plancher."""
    grants = {rule.values for rule in world.rules if rule.ptype == "p"}
    roles: dict[str, list[str]] = {}
    for rule in world.rules:
        if rule.ptype == "g":
            roles.setdefault(rule.values[0], []).append(rule.values[1])

    def decide(subject: str, resource: str, action: str) -> bool:
        for role in roles.get(subject, ()):  # noqa: SIM110 - une boucle, pour ne pas payer un générateur
            if (role, resource, action) in grants:
                return True
        return False

    return decide


def oso(world: World) -> Decide:
    """Oso, les règles écrites comme des faits Polar, qu'il indexe : deux fois plus vite que par des objets Python."""
    engine = _module("oso").Oso()
    facts = (f"{rule.ptype}({', '.join(map(_quoted, rule.values))});" for rule in world.rules)
    engine.load_str("\n".join(["allow(s, a, o) if g(s, r) and p(r, o, a);", *facts]))
    decide: Decide = engine.is_allowed
    return decide


def oso_arguments(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Met une requête dans l'ordre d'Oso."""
    subject, resource, action = values
    return subject, action, resource


def _quoted(text: str) -> str:
    return json.dumps(text)


def cedar(world: World) -> Decide:
    """Cedar, politiques et entités lues une fois."""
    cedarpy = _module("cedarpy")
    policies = cedarpy.PolicySet.from_str("\n".join(_permits(world)))
    entities = cedarpy.Entities.from_json_str(json.dumps(list(_entities(world))))

    def decide(request: dict[str, str]) -> Any:
        return cedarpy.is_authorized(request, policies, entities).allowed

    return decide


def cedar_arguments(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Écrit une requête comme Cedar la lit."""
    subject, resource, action = values
    request = {"principal": f'User::"{subject}"', "action": f'Action::"{action}"', "resource": f'Data::"{resource}"'}
    return (request,)


def _permits(world: World) -> Iterator[str]:
    for rule in world.rules:
        if rule.ptype == "p":
            role, resource, action = rule.values
            yield f'permit(principal in Role::"{role}", action == Action::"{action}", resource == Data::"{resource}");'


def _entities(world: World) -> Iterator[dict[str, Any]]:
    for rule in world.rules:
        parents = [{"type": "Role", "id": rule.values[1]}] if rule.ptype == "g" else []
        uid = {"type": "User" if parents else "Role", "id": rule.values[0]}
        yield {"uid": uid, "attrs": {}, "parents": parents}


def _module(name: str) -> Any:
    """Importe un pair facultatif.

    Raises:
        NotInstalledError: il n'est pas là.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotInstalledError(_why(name)) from error


@cache
def _why(name: str) -> str:
    """Demande à pip pourquoi un pair n'est pas là, et rend sa dernière ligne d'erreur."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return "non installé : pip ne répond pas"
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    reason = errors[-1] if done.returncode and errors else f"pip install {name}"
    return f"non installé : `{reason.strip()}`"


def versions() -> dict[str, str]:
    """Rend les versions de ce qui est mesuré et de ce dont cela dépend."""
    names = ("fastapi-acl", "pycasbin", "simpleeval", "casbin-async-sqlalchemy-adapter", "sqlalchemy", "aiosqlite")
    return {name: _version(name) for name in (*names, "fastapi", "uvicorn", "oso", "cedarpy")}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
