"""Du modèle à la décision : ce que les noms du matcher désignent, le plan, et de quoi décider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from casbin import util
from casbin.effect import get_effector

from fastapi_acl.engine.casbin.functions import is_textual
from fastapi_acl.engine.casbin.language import CASBIN
from fastapi_acl.engine.casbin.role_manager import GraphRoleManager
from fastapi_acl.engine.kernel.acl_match import acl_match
from fastapi_acl.engine.kernel.decider import Definition
from fastapi_acl.engine.kernel.effects import EFFECTS, Effect
from fastapi_acl.engine.kernel.evaluation import Evaluator
from fastapi_acl.engine.kernel.forks import decider_of
from fastapi_acl.engine.kernel.key_match import linear, regex_match
from fastapi_acl.engine.kernel.plan import (
    MatcherPlan,
    Probe,
    UnreadableMatcherError,
    Vocabulary,
    plan_matcher,
    scan_matcher,
)
from fastapi_acl.engine.kernel.policy import Compiler
from fastapi_acl.engine.kernel.strict_evaluation import StrictEvaluator, StrictWalk, guard
from fastapi_acl.shared.exceptions import DecisionFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from casbin.effect import Effector

    from fastapi_acl.engine.casbin.model import IndexedModel
    from fastapi_acl.engine.kernel.decisions import Context
    from fastapi_acl.engine.kernel.forks import AnyDecider
    from fastapi_acl.engine.kernel.role_graph import RoleGraph
    from fastapi_acl.engine.kernel.rows import Row

PATTERN_PROBES: Final[Mapping[str, tuple[Callable[..., bool], Probe]]] = {
    "aclMatch": (acl_match, Probe.PATTERN),
    "keyMatch": (util.key_match_func, Probe.KEY_MATCH),
    "keyMatch2": (util.key_match2_func, Probe.KEY_MATCH),
    "keyMatch3": (util.key_match3_func, Probe.KEY_MATCH),
    "keyMatch4": (util.key_match4_func, Probe.KEY_MATCH),
    "keyMatch5": (util.key_match5_func, Probe.KEY_MATCH),
    "globMatch": (util.glob_match_func, Probe.KEY_MATCH),
}
"""Comparaisons que l'index sait chercher, tant que l'application ne les a pas remplacées."""


@final
@dataclass(frozen=True, slots=True)
class ModelCompiler(Compiler):
    """Compile les contextes d'un modèle.

    Attributes:
        model: modèle, ses règles et ses gestionnaires de rôles.
        functions: fonctions du matcher, celles de l'application comprises.
        effector: effet que l'application a pu remplacer ; None pour s'en tenir au modèle (mode strict).
    """

    model: IndexedModel
    functions: Mapping[str, Any]
    effector: Effector | None = None

    def decider(self, context: Context) -> AnyDecider | None:
        """Renvoie de quoi décider dans un contexte ; None si seul Casbin sait l'évaluer."""
        plan = self.plan(context)
        effect = EFFECTS.get(self._effect_of(context)) if plan.is_indexed else None
        if effect is None:
            return None
        try:
            return decider_of(self._definition(context, plan, effect), self.model.rows(context[1]))
        except UnreadableMatcherError:
            return None

    def is_direct(self, decider: AnyDecider) -> bool:
        """Dit si une décision peut aller tout droit : nul contexte ne s'y prend pour une valeur."""
        return decider.arity - 1 not in {len(assertion.tokens) for assertion in self.model["r"].values()}

    def arity(self, context: Context) -> int:
        """Renvoie le nombre de valeurs d'une requête."""
        return len(self.model["r"][context[0]].tokens)

    def walk(self, context: Context) -> StrictWalk:
        """Renvoie de quoi décider règle par règle, en mode strict.

        Raises:
            DecisionFailedError: le modèle n'a pas de quoi décider dans ce contexte.
        """
        plan, effect = self.plan(context), EFFECTS.get(self._effect_of(context))
        if not plan.is_indexed or effect is None:
            raise DecisionFailedError(reason=f"le matcher ne s’évalue pas : {plan.reason or 'effet inconnu'}")
        whole = scan_matcher(self.model["m"][context[3]].value)
        return StrictWalk.over(self._definition(context, whole, effect), self.model.rows(context[1]))

    def _definition(self, context: Context, plan: MatcherPlan, effect: Effect) -> Definition:
        """Réunit ce dont une décision se fait."""
        rtype, ptype, _, _ = context
        fields = self.model["p"][ptype].tokens
        return Definition(
            plan=plan,
            effect=effect,
            request=self.model["r"][rtype].tokens,
            fields=fields,
            eft=fields.index(f"{ptype}_eft") if f"{ptype}_eft" in fields else None,
            functions=self._bind_functions(),
            language=CASBIN,
            roles={name: manager.graph for name, manager in self._list_indexed_managers().items()},
            order=self._order(ptype),
            evaluator=StrictEvaluator if self._is_strict else Evaluator,
            is_strict=self._is_strict,
        )

    def plan(self, context: Context) -> MatcherPlan:
        """Lit le matcher d'un contexte."""
        rtype, ptype, _, mtype = context
        names = (("r", rtype), ("p", ptype), ("m", mtype))
        request, rule, matcher = [(self.model[section] or {}).get(name) for section, name in names]
        if request is None or rule is None or matcher is None or "m" not in self.model["m"]:
            return MatcherPlan(reason="une définition r, p ou m manque")
        if any(getattr(manager, "is_patterned", False) for manager in self._list_managers().values()):
            return scan_matcher(matcher.value)
        return plan_matcher(matcher.value, self._vocabulary(request.tokens, rule.tokens))

    @property
    def _is_strict(self) -> bool:
        """Vrai si seul le modèle dit l'effet."""
        return self.effector is None

    def _vocabulary(self, request: Sequence[str], fields: Sequence[str]) -> Vocabulary:
        """Dit ce que les noms d'un matcher désignent."""
        probes = PATTERN_PROBES.items()
        return Vocabulary(
            request={name: place for place, name in enumerate(request)},
            fields={name: place for place, name in enumerate(fields)},
            links={name: manager.has_domains for name, manager in self._list_indexed_managers().items()},
            patterns={name: probe for name, (function, probe) in probes if self.functions.get(name) is function},
        )

    def _list_managers(self) -> dict[str, Any]:
        return {name: assertion.rm for name, assertion in (self.model["g"] or {}).items() if assertion.rm is not None}

    def _list_indexed_managers(self) -> dict[str, GraphRoleManager]:
        """Renvoie ceux dont l'index sait lire les liens."""
        return {name: rm for name, rm in self._list_managers().items() if isinstance(rm, GraphRoleManager)}

    def _bind_functions(self) -> dict[str, Callable[..., object]]:
        """Renvoie les fonctions du matcher, celles des rôles comprises ; en mode strict, chacune sous surveillance."""
        functions = {name: _substitute(name, function) for name, function in self.functions.items()}
        roles = {name: _role_function(assertion) for name, assertion in (self.model["g"] or {}).items()}
        if not self._is_strict:
            return {**functions, **roles}
        texts = {name for name, function in self.functions.items() if is_textual(function)} | roles.keys()
        known = {**functions, **roles}.items()
        return {name: guard(name, function, is_textual=name in texts) for name, function in known}

    def _effect_of(self, context: Context) -> str:
        """Renvoie l'effet du contexte ; aucun de connu si l'application a remplacé celui du modèle par un autre."""
        effects = self.model["e"]
        is_own = self._is_strict or type(self.effector) is type(get_effector(effects["e"].value))
        effect: str = effects[context[2] if context[2] in effects else "e"].value
        return effect if is_own else ""

    def _order(self, ptype: str) -> Callable[[Row], Any] | None:
        """Renvoie le rang des règles sous la priorité par sujet : le plus bas dans les rôles passe d'abord.

        Sur l'enforcer nu, l'ordre est celui de la liste, que Casbin ne range qu'au chargement.
        """
        if not self._is_strict or not self.model["e"]["e"].value.startswith("subjectPriority"):
            return None
        tokens, rows = self.model["p"][ptype].tokens, self.model.rows(ptype)
        domain = tokens.index(f"{ptype}_dom") if f"{ptype}_dom" in tokens else None
        graph: RoleGraph = self.model["g"]["g"].rm.graph
        return lambda row: (graph.height(row[0], "" if domain is None else row[domain]), rows.rank(row))


def _role_function(assertion: Any) -> Callable[..., object]:  # noqa: ANN401 - type de pycasbin
    """Renvoie la fonction qui dit si un rôle est tenu."""
    if assertion.cond_rm is not None:
        made: Callable[..., object] = util.generate_conditional_g_function(assertion.cond_rm)
    else:
        made = util.generate_g_function(assertion.rm)
    return made


def _substitute(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Renvoie, à la place d'une comparaison de Casbin, celle qui répond de même sans revenir sur ses pas."""
    if name == "regexMatch" and function is util.regex_match_func:
        return regex_match
    known = PATTERN_PROBES.get(name)
    return linear(name, function) if known is not None and known == (function, Probe.KEY_MATCH) else function
