"""Le noyau seul : un modèle et des règles entrent, une décision sort, et Casbin n'y est pour rien."""

from __future__ import annotations

from casbin.constant import constants

from fastapi_acl.engine.casbin.language import CASBIN
from fastapi_acl.engine.kernel import effects
from fastapi_acl.engine.kernel.decider import Definition
from fastapi_acl.engine.kernel.forks import decider_of
from fastapi_acl.engine.kernel.plan import Vocabulary, plan_matcher
from fastapi_acl.engine.kernel.role_graph import RoleGraph
from fastapi_acl.engine.kernel.rows import Rows


def test_the_kernel_decides_from_a_model_and_a_list_of_rules() -> None:
    request, fields = ("r_sub", "r_obj", "r_act"), ("p_sub", "p_obj", "p_act", "p_eft")
    words = Vocabulary(
        *({name: place for place, name in enumerate(names)} for names in (request, fields)), {"g": False}
    )
    plan = plan_matcher("g(r_sub, p_sub) && r_obj == p_obj && r_act == p_act", words)
    effect, staff = effects.EFFECTS[effects.ALLOW_AND_DENY_EFFECT], RoleGraph()
    rows = Rows(
        [["staff", "lobby", "open", "allow"], ["ada", "lab", "open", "allow"], ["eve", "lobby", "open", "deny"]]
    )
    decider = decider_of(Definition(plan, effect, request, fields, 3, {}, CASBIN, {"g": staff}), rows)
    for member in ("ada", "eve"):
        staff.add(member, "staff")

    answers = {(who, where): decider.decide(who, where, "open") for who in ("ada", "eve") for where in ("lobby", "lab")}

    assert answers == {("ada", "lobby"): True, ("ada", "lab"): True, ("eve", "lobby"): False, ("eve", "lab"): False}


def test_the_effects_are_written_as_casbin_writes_them() -> None:
    names = [name for name in dir(effects) if name.endswith("_EFFECT")]

    assert {name: getattr(effects, name) for name in names} == {name: getattr(constants, name) for name in names}
    assert set(effects.EFFECTS) == {value for name, value in vars(constants).items() if name.endswith("_EFFECT")}
