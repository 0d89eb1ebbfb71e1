"""Nu, l'exécuteur répond comme `casbin.AsyncEnforcer` à toutes ses méthodes publiques, modèle par modèle.

Les rôles à condition, que pycasbin ne sait ni lire ni changer, sont comparés aux mêmes rôles sans condition.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import casbin
import pytest
from casbin.util import key_match_func, time_match_func

from fastapi_acl import ACLManager, PolicyEnforcer
from tests.engine.test_differences import BOTH, DOMAINS, EQUAL, FOREVER, ROLES, made
from tests.support.app import config

Call = tuple[str, tuple[Any, ...]]

NAMES = ["ada", "bob", "boss", "staff", "nobody"]
PLACES = ["un", "deux", ""]
FLAT = [("p", "staff", "doc", "read"), ("p", "bob", "doc", "write"), ("g", "ada", "boss"), ("g", "boss", "staff")]
PLACED = [
    ("p", "staff", "un", "doc", "read"),
    ("p", "bob", "un", "doc", "write"),
    ("g", "ada", "boss", "un"),
    ("g", "boss", "staff", "un"),
    ("g", "ada", "staff", "deux"),
]
MODELS: dict[str, tuple[dict[str, str], list[tuple[str, ...]]]] = {
    "acl": ({"matcher": f"r.sub == p.sub && {EQUAL}"}, FLAT[:2]),
    "rbac": (ROLES, FLAT),
    "rbac_with_domains": (DOMAINS, PLACED),
}
CONDITIONAL = {
    "rbac": {**ROLES, "roles": "g = _, _, (_, _)"},
    "rbac_with_domains": {**DOMAINS, "roles": "g = _, _, _, (_, _)"},
}
CONSTRUCTION = {"init_with_file", "init_with_adapter", "init_with_model_and_adapter", "new_model", "configure_logging"}
"""Ce qui sert à construire un exécuteur, et se compare ailleurs."""

KNOWN = {"set_effector", "set_model"}
"""Ce dont la réponse ne se compare pas : sans effet ni modèle rien ne se décide (voir docs/differences.md)."""


def reads(name: str) -> Iterator[Call]:
    """Énumère ce qui lit les rôles et les permissions."""
    for subject in NAMES:
        for method in ("get_roles_for_user", "get_users_for_role", "get_permissions_for_user"):
            yield method, (subject,)
        yield from (("has_role_for_user", (subject, role)) for role in ("boss", "staff"))
        yield "get_implicit_roles_for_user", (subject,)
        yield "get_implicit_permissions_for_user", (subject,)
        yield "has_permission_for_user", (subject, *MODELS[name][1][0][2:])
        for place in PLACES:
            yield "get_implicit_roles_for_user", (subject, place)
            yield "get_implicit_permissions_for_user", (subject, place)
            yield "get_implicit_permissions_for_user", (subject, place, False)
            yield "get_named_implicit_permissions_for_user", ("p", subject, place)
            yield "get_named_permissions_for_user_in_domain", ("p", subject, place)
            for method in ("get_roles_for_user", "get_users_for_role", "get_permissions_for_user"):
                yield f"{method}_in_domain", (subject, place)
    yield from (("get_implicit_users_for_resource", (resource,)) for resource in ("doc", "absent"))
    yield "get_implicit_users_for_permission", MODELS[name][1][0][2:]
    yield from (("get_implicit_users_for_resource_by_domain", ("doc", place)) for place in PLACES)


def lists(name: str) -> Iterator[Call]:
    """Énumère ce qui lit les règles, le modèle et ce qui y est branché."""
    plain = ["get_all_subjects", "get_all_objects", "get_all_actions", "get_all_roles", "get_policy"]
    plain += ["get_grouping_policy", "get_model", "get_adapter", "get_role_manager", "is_filtered", "init_rm_map"]
    yield from ((method, ()) for method in plain)
    for ptype in ("p", "p2"):
        yield from ((f"get_all_named_{kind}", (ptype,)) for kind in ("subjects", "objects", "actions"))
        yield "get_named_policy", (ptype,)
    for ptype in ("g", "g2"):
        yield from ((method, (ptype,)) for method in ("get_all_named_roles", "get_named_grouping_policy"))
        yield "get_named_role_manager", (ptype,)
    yield from (("get_field_index", ("p", field)) for field in ("sub", "obj", "dom", "absent"))
    yield from (("get_all_roles_by_domain", (place,)) for place in PLACES)
    rule = MODELS[name][1][0][1:]
    yield "get_filtered_policy", (0, rule[0])
    yield "get_filtered_named_policy", ("p", 0, rule[0])
    yield "get_filtered_grouping_policy", (0, "ada")
    yield "get_filtered_named_grouping_policy", ("g", 0, "ada")
    yield "enforce", ("ada", *rule[1:])
    yield "enforce_ex", ("ada", *rule[1:])
    yield "batch_enforce", ([["ada", *rule[1:]], ["nobody", *rule[1:]]],)


def writes(name: str) -> Iterator[Call]:
    """Énumère ce qui change les règles ou les liens."""
    rules = [list(row[1:]) for row in MODELS[name][1] if row[0] == "p"]
    links = [list(row[1:]) for row in MODELS[name][1] if row[0] == "g"] or [["ada", "boss"]]
    yield from _writes_of("policy", "policies", "p", rules)
    yield from _writes_of("grouping_policy", "grouping_policies", "g", links)
    new = ["new", *rules[0][1:]]
    yield "update_policy", (rules[0], new)
    yield "update_policies", ([rules[0]], [new])
    yield "update_filtered_policies", ([new], 0, rules[0][0])
    yield "update_named_policy", ("p", rules[0], new)
    yield "update_named_policies", ("p", [rules[0]], [new])
    yield "update_filtered_named_policies", ("p", [new], 0, rules[0][0])
    for subject in NAMES:
        for method in ("delete_user", "delete_role", "delete_roles_for_user", "delete_permissions_for_user"):
            yield method, (subject,)
        for role in ("boss", "staff"):
            yield from ((f"{verb}_role_for_user", (subject, role)) for verb in ("add", "delete"))
            yield "add_role_for_user_in_domain", (subject, role, "un")
            yield "delete_roles_for_user_in_domain", (subject, role, "un")
        yield from ((f"{verb}_permission_for_user", (subject, *rules[0][1:])) for verb in ("add", "delete"))
    yield "delete_permission", tuple(rules[0][1:])


def _writes_of(one: str, many: str, ptype: str, rows: Sequence[Sequence[str]]) -> Iterator[Call]:
    """Énumère ce qui change les règles d'un type, par une ou par lot, présentes ou non."""
    present, absent = list(rows[0]), ["new", *rows[0][1:]]
    for row in (present, absent):
        for verb in ("add", "remove", "has"):
            yield f"{verb}_{one}", tuple(row)
            yield f"{verb}_{one}", (row,)
            yield from ((f"{verb}_named_{one}", (name, *row)) for name in (ptype, f"{ptype}2"))
        for verb in ("add", "remove"):
            yield f"{verb}_{many}", ([row],)
            yield f"{verb}_named_{many}", (ptype, [row])
    yield from ((f"remove_named_{many}", (f"{ptype}2", [absent])), (f"remove_{many}", ([],)), (f"add_{many}", ([],)))
    for index, value in ((0, present[0]), (1, present[1]), (0, "absent")):
        yield f"remove_filtered_{one}", (index, value)
        yield from ((f"remove_filtered_named_{one}", (name, index, value)) for name in (ptype, f"{ptype}2"))


def settings(_: str) -> Iterator[Call]:
    """Énumère ce qui règle l'exécuteur."""
    yield from (
        (method, ()) for method in ("clear_policy", "build_role_links", "load_policy", "save_policy", "load_model")
    )
    yield from ((f"enable_{what}", (False,)) for what in ("enforce", "auto_save", "auto_build_role_links"))
    yield "enable_auto_notify_watcher", (False,)
    yield from ((f"load_{kind}filtered_policy", ("1",)) for kind in ("", "increment_"))
    yield from ((f"set_{what}", (None,)) for what in ("watcher", "adapter", "effector", "model"))
    yield "add_function", ("f", key_match_func)
    yield "set_field_index", ("p", "sub", 0)
    yield "new_enforce_context", ("2",)
    for ptype in ("g", "g2"):
        yield "add_named_matching_func", (ptype, key_match_func)
        yield "add_named_domain_matching_func", (ptype, key_match_func)
        yield "add_named_link_condition_func", (ptype, "ada", "boss", time_match_func)
        yield "add_named_domain_link_condition_func", (ptype, "ada", "boss", "un", time_match_func)
        yield "set_named_link_condition_func_params", (ptype, "ada", "boss", "_", FOREVER)
        yield "set_named_domain_link_condition_func_params", (ptype, "ada", "boss", "un", "_", FOREVER)


def calls(name: str) -> Iterator[Call]:
    return itertools.chain(reads(name), lists(name), writes(name), settings(name))


async def answer(enforcer: Any, method: str, arguments: tuple[Any, ...]) -> Any:
    """Rend ce qu'un appel répond, ou le nom de son erreur ; une liste est rangée : pycasbin en rend d'ensembles."""
    try:
        given = getattr(enforcer, method)(*copy.deepcopy(arguments))
        found = await given if inspect.isawaitable(given) else given
    except Exception as error:  # noqa: BLE001 - c'est l'erreur qui est comparée
        return type(error).__name__
    if isinstance(found, (list, tuple)):
        return sorted(map(repr, map(list, found) if all(isinstance(one, tuple) for one in found) else found))
    return found if isinstance(found, (bool, int, str, type(None))) else "objet"


async def state(enforcer: Any, name: str) -> list[Any]:
    """Rend les règles qui restent, et ce qu'elles décident."""
    kept = [await answer(enforcer, method, ()) for method in ("get_policy", "get_grouping_policy")]
    places = ["un", "deux"] if "dom" in name else [None]
    asked = itertools.product([*NAMES, "new"], places, ["read", "write"])
    questions = [[who, *([place] if place else []), "doc", act] for who, place, act in asked]
    return [*kept, [await answer(enforcer, "enforce", tuple(question)) for question in questions]]


@pytest.mark.parametrize("name", MODELS)
async def test_every_public_method_answers_as_casbin_and_leaves_the_same_rules(name: str) -> None:
    definitions, rows = MODELS[name]
    for method, arguments in calls(name):
        stock, ours = [await made(kind, *rows, **definitions) for kind in (casbin.AsyncEnforcer, PolicyEnforcer)]

        answers = [await answer(enforcer, method, arguments) for enforcer in (stock, ours)]
        states = [await state(enforcer, name) for enforcer in (stock, ours)]

        if method not in KNOWN:
            assert answers[1] == answers[0], (method, arguments)
            assert states[1] == states[0], (method, arguments)


def test_every_public_method_is_called() -> None:
    public = {name for name, _ in inspect.getmembers(casbin.AsyncEnforcer, callable) if not name.startswith("_")}
    called = {method for name in MODELS for method, _ in calls(name)}

    assert public - called <= CONSTRUCTION | {"set_role_manager", "set_named_role_manager"}
    assert called <= public


def conditional(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Donne à chaque lien une condition toujours tenue."""
    return [(*row, "_", FOREVER) if row[0] == "g" else row for row in rows]


@pytest.mark.parametrize("name", CONDITIONAL)
async def test_roles_under_a_condition_are_read_as_the_same_roles_without_one(name: str) -> None:
    definitions, rows = MODELS[name]
    plain = await made(casbin.AsyncEnforcer, *rows, **definitions)
    ours = await made(PolicyEnforcer, *conditional(rows), **CONDITIONAL[name])
    for method, arguments in reads(name):
        assert await answer(ours, method, arguments) == await answer(plain, method, arguments), (method, arguments)

    assert ours.get_named_role_manager("g") is ours.get_role_manager()
    assert (await state(ours, name))[2] == (await state(plain, name))[2]


@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize("method", ["delete_user", "delete_role", "delete_roles_for_user"])
@pytest.mark.parametrize("subject", NAMES)
async def test_roles_under_a_condition_are_taken_away_as_the_same_roles_without_one(
    name: str, method: str, subject: str
) -> None:
    definitions, rows = MODELS[name]
    plain = await made(casbin.AsyncEnforcer, *rows, **definitions)
    ours = await made(PolicyEnforcer, *conditional(rows), **CONDITIONAL[name])

    await getattr(plain, method)(subject)
    await getattr(ours, method)(subject)

    assert (await state(ours, name))[2] == (await state(plain, name))[2]
    for asked, arguments in reads(name):
        assert await answer(ours, asked, arguments) == await answer(plain, asked, arguments), (asked, arguments)


async def test_a_name_or_a_domain_asked_and_unknown_leaves_nothing_under_conditions() -> None:
    ours = await made(PolicyEnforcer, *conditional(PLACED), **CONDITIONAL["rbac_with_domains"])
    before = len(ours.get_role_manager().rm_map)

    assert await ours.get_roles_for_user_in_domain("nobody", "ailleurs") == []
    assert await ours.get_users_for_role_in_domain("nobody", "un") == []
    assert len(ours.get_role_manager().rm_map) == before


async def test_a_condition_given_before_the_policy_is_loaded_or_its_link_added_holds() -> None:
    ours = await made(PolicyEnforcer, ("p", "staff", "un", "doc", "read"), **CONDITIONAL["rbac_with_domains"])
    ours.add_named_domain_link_condition_func("g", "ada", "staff", "un", time_match_func)

    await ours.add_grouping_policy("ada", "staff", "un", "_", "2001-01-01 00:00:00")

    assert not ours.enforce("ada", "un", "doc", "read")


STRICT: list[Call] = [
    ("delete_user", ("user:ada",)),
    ("delete_role", ("user:ada",)),
    ("delete_role", ("role:absent",)),
    ("delete_roles_for_user", ("user:ada",)),
    ("delete_role_for_user", ("user:ada", "role:absent")),
    ("remove_filtered_grouping_policy", (0, "user:ada")),
    ("remove_filtered_named_grouping_policy", ("g2", 0, "user:ada")),
    ("remove_filtered_named_policy", ("p2", 0, "user:ada")),
    ("remove_grouping_policy", ("user:ada", "role:absent")),
    ("remove_grouping_policies", ([["user:ada", "role:absent"]],)),
    ("has_grouping_policy", ("user:ada", "role:absent")),
    ("get_all_roles", ()),
    ("get_roles_for_user", ("user:ada",)),
    ("get_implicit_roles_for_user", ("user:ada",)),
]


@pytest.mark.parametrize("call", STRICT, ids=[f"{method}-{number}" for number, (method, _) in enumerate(STRICT)])
async def test_under_a_model_without_roles_the_strict_enforcer_manages_as_casbin(sqlite_uri: str, call: Call) -> None:
    method, arguments = call
    row = ("user:ada", "doc", "read", "allow")
    definitions = {"policy": "p = sub, obj, act, eft", "effect": f"e = {BOTH}"}
    stock = await made(casbin.AsyncEnforcer, ("p", *row), **definitions)
    manager = ACLManager(config(model="acl", sqlite_uri=sqlite_uri, create_default_admin=False))
    await manager.initialize()
    ours = manager.get_enforcer()
    await ours.add_policy(*row)

    answers = [await answer(enforcer, method, arguments) for enforcer in (stock, ours)]
    kept = [enforcer.get_policy() for enforcer in (stock, ours)]
    await manager.close()

    assert (answers[1] or False) == (answers[0] or False)
    assert kept[1] == kept[0]
