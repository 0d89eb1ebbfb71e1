"""L'enforcer de politique nu : un `casbin.AsyncEnforcer` qui répond comme pycasbin, et décide par un index.

Ce que l'index ne sait pas lire revient à l'évaluation de Casbin, règle par règle. Celui de la bibliothèque, qui échoue
fermé, est `StrictEnforcer`.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import casbin
from casbin.core_enforcer import EnforceContext
from casbin.model.policy_op import PolicyOp

from fastapi_acl.engine.casbin.compiler import ModelCompiler
from fastapi_acl.engine.casbin.functions import OUR_FUNCTIONS, MatcherFunctions
from fastapi_acl.engine.casbin.model import IndexedModel
from fastapi_acl.engine.casbin.role_manager import (
    MAX_HIERARCHY_LEVEL,
    ConditionalDomainRoles,
    ConditionalRoles,
    GraphRoleManager,
)
from fastapi_acl.engine.kernel.decisions import DEFAULT_CONTEXT, Decisions, Judge, decide
from fastapi_acl.engine.kernel.role_graph import RoleGraph
from fastapi_acl.shared.logging import CASBIN_LOGGERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from casbin.model import FunctionMap, Model

    from fastapi_acl.engine.kernel.decisions import Context
    from fastapi_acl.engine.kernel.forks import AnyDecider
    from fastapi_acl.engine.kernel.plan import MatcherPlan
    from fastapi_acl.engine.kernel.rows import Row, Rows


class _RoleManagers(dict[str, Any]):
    """Les gestionnaires de rôles par type ; pour un type conditionnel, que Casbin oublie ici, le sien."""

    def __init__(self, conditional: Mapping[str, Any]) -> None:
        super().__init__()
        self._conditional = conditional

    def __missing__(self, ptype: str) -> Any:  # noqa: ANN401 - types de pycasbin
        return self._conditional[ptype]


class PolicyEnforcer(casbin.AsyncEnforcer):
    """Décide comme pycasbin, et porte son interface de gestion.

    Source: https://casbin.org/docs/management-api
    """

    rm_map: dict[str, Any]

    def __init__(
        self,
        model: Model | str | None = None,
        adapter: Any = None,  # noqa: ANN401 - type de pycasbin
        enable_log: bool = False,  # noqa: FBT001, FBT002 - signature de pycasbin
        logging_config: dict[str, Any] | None = None,
    ) -> None:
        """Prépare l'enforcer ; aucune règle n'est lue avant `load_policy`.

        Args:
            model: modèle chargé, ou chemin d'un fichier `.conf`.
            adapter: stockage des règles (`AsyncAdapter`), ou None.
            enable_log: laisse Casbin journaliser, valeurs des requêtes comprises ; à ne pas faire en production.
            logging_config: réglage de ce journal, au format de `logging.config.dictConfig`.
        """
        self._enabled = True
        self._decisions = self._make_decisions()
        if enable_log:
            super().__init__(model, adapter, enable_log, logging_config)
        else:
            with _silence():
                super().__init__(model, adapter)
            self.logger = _silent_logger()

    def _make_decisions(self) -> Decisions:
        return Decisions(_BareJudge(self), self._log)

    # --- ce que Casbin lit et remplace --------------------------------------------------------------------------------

    @property
    def model(self) -> IndexedModel:
        """Le modèle, dont les listes de règles sont indexées."""
        found: IndexedModel = self._model
        return found

    @model.setter
    def model(self, model: Model | None) -> None:
        before: IndexedModel | None = getattr(self, "_model", None)
        adopted = None if model is None else IndexedModel.over(model)
        with self._decisions.sequence:
            if before is not None:
                before.listener = nothing
            if adopted is not None:
                adopted.join(self._decisions.sequence)
                adopted.listener = self._forget_compiled
            self._model: Any = adopted
            self._forget_compiled()

    @property
    def fm(self) -> FunctionMap:
        """Les fonctions du matcher."""
        return self._fm

    @fm.setter
    def fm(self, functions: FunctionMap) -> None:
        functions.fm = MatcherFunctions({**functions.fm, **OUR_FUNCTIONS}, self._forget_compiled)
        self._fm = functions
        self._forget_compiled()

    @property
    def eft(self) -> Any:  # noqa: ANN401 - type de pycasbin
        """L'effet."""
        return self._eft

    @eft.setter
    def eft(self, effector: Any) -> None:  # noqa: ANN401 - type de pycasbin
        self._eft = effector
        self._forget_compiled()

    @property
    def enabled(self) -> bool:
        """Faux quand l'application a coupé l'exécution, ce qui permet tout."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        self._forget_compiled()

    def init_rm_map(self) -> None:
        """Fait les gestionnaires de rôles ; ceux qui existent déjà sont vidés."""
        if not isinstance(self.rm_map, _RoleManagers):
            self.rm_map = _RoleManagers(self.cond_rm_map)
        for ptype, assertion in (self.model["g"] or {}).items():
            if ptype in self.rm_map:
                self.rm_map[ptype].clear()
            elif assertion.params_tokens:
                assertion.rm = assertion.cond_rm = self.cond_rm_map[ptype] = _conditional(assertion)
            else:
                assertion.rm = self.rm_map[ptype] = GraphRoleManager(
                    RoleGraph(sequence=self._decisions.sequence),
                    has_domains=links_have_domains(assertion),
                    on_change=self._forget_compiled,
                )

    def _forget_compiled(self) -> None:
        self._decisions.forget()

    # --- décision -----------------------------------------------------------------------------------------------------

    enforce = decide

    def _decide_at_length(self, values: tuple[Any, ...]) -> bool:
        """Décide sans chemin tout droit."""
        result: bool = self.enforce_ex(*values)[0]
        return result

    def enforce_ex(self, *rvals: Any) -> tuple[bool, list[str]]:  # noqa: ANN401 - signature de pycasbin
        """Décide et renvoie la règle qui a décidé."""
        context, values = split_context(rvals)
        allowed, rule = self._decisions.explain(values, context)
        return allowed, list(rule or ())

    def batch_enforce(self, rvals: Iterable[Sequence[Any]]) -> list[bool]:
        """Décide plusieurs requêtes ; celles qui se répètent ne sont décidées qu'une fois.

        Sous un matcher qu'il faut évaluer, chacune l'est : une fonction de l'application peut ne pas répondre deux fois
        la même chose.
        """
        decider = self._decisions.decider()
        if decider is None or decider.evaluates:
            return [self.enforce(*request) for request in rvals]
        known: dict[tuple[Any, ...], bool] = {}
        return [self._enforce_once(tuple(request), known) for request in rvals]

    def _enforce_once(self, request: tuple[Any, ...], known: dict[tuple[Any, ...], bool]) -> bool:
        """Décide une requête, ou redit ce qui vient d'en être décidé, si ses valeurs ne sont que des textes."""
        if set(map(type, request)) != {str}:
            return self.enforce(*request)
        if request not in known:
            known[request] = self.enforce(*request)
        return known[request]

    def _log(self, values: Sequence[Any], allowed: bool) -> None:  # noqa: FBT001 - la réponse d'une décision
        """Journalise une décision de l'index, si l'application a demandé le journal de Casbin."""
        level = logging.INFO if allowed else logging.WARNING
        if self.logger.isEnabledFor(level):
            self.logger.log(level, "Request: %s ---> %s", ", ".join(map(str, values)), allowed)

    @property
    def plan(self) -> MatcherPlan:
        """Ce que l'index cherche pour décider, ou pourquoi il n'y en a pas."""
        return ModelCompiler(self.model, self.fm.get_functions(), self.eft).plan(DEFAULT_CONTEXT)

    # --- règles -------------------------------------------------------------------------------------------------------

    async def load_policy(self) -> None:
        """Lit comme Casbin, dans un modèle à part ; ce qui change pendant la lecture est refait sur ce qui a été lu."""
        fresh = self.model.blank()
        with self.model.recording() as changes:
            await self.adapter.load_policy(fresh)
        for ptype, row, arrives in changes:
            redo(fresh.rows(ptype), row, None, arrives=arrives)
        fresh.sort_policies_by_subject_hierarchy()
        fresh.sort_policies_by_priority()
        with self._decisions.sequence:
            self._relink(fresh)

    def _relink(self, fresh: IndexedModel) -> None:
        """Met un modèle lu en service, avec ses liens ; s'ils ne se font pas, l'ancien reprend les siens."""
        for ptype, assertion in (fresh["g"] or {}).items():
            assertion.cond_rm = self.cond_rm_map.get(ptype)
            assertion.rm = self.rm_map.get(ptype, assertion.cond_rm)
        try:
            if self.auto_build_role_links:
                self._build_links(fresh)
            self.model = fresh
        except Exception:
            self.build_role_links()
            raise

    def build_role_links(self) -> None:
        """Refait les liens."""
        with self._decisions.sequence:
            self._build_links(self.model)

    def _build_links(self, model: IndexedModel) -> None:
        """Refait les liens d'un modèle, conditionnels compris : l'enforcer asynchrone de Casbin oublie ceux-là."""
        for manager in (*self.rm_map.values(), *self.cond_rm_map.values()):
            manager.clear()
        model.build_role_links(self.rm_map)
        model.build_conditional_role_links(self.cond_rm_map)

    def clear_policy(self) -> None:
        """Vide la mémoire, liens compris."""
        super().clear_policy()
        self.build_role_links()

    def get_named_policy(self, ptype: str) -> list[list[str]]:
        """Renvoie les règles d'un type, comme une liste neuve."""
        return list(super().get_named_policy(ptype))

    def get_named_grouping_policy(self, ptype: str) -> list[list[str]]:
        """Renvoie les liens d'un type, comme une liste neuve."""
        return list(super().get_named_grouping_policy(ptype))

    async def add_named_grouping_policy(self, ptype: str, *params: Any) -> bool:  # noqa: ANN401 - signature de pycasbin
        """Ajoute un lien ; False, sans rien changer, si sa règle existe déjà."""
        rule = params[0] if len(params) == 1 and isinstance(params[0], list) else list(params)
        return await self.add_named_grouping_policies(ptype, [rule], alone=True)

    async def add_named_grouping_policies(
        self, ptype: str, rules: Sequence[Sequence[str]], *, alone: bool = False
    ) -> bool:
        """Ajoute des liens, tous ou aucun ; un lot refusé ne donne aucun rôle.

        Args:
            ptype: type des liens.
            rules: valeurs de chacun.
            alone: vrai pour un lien seul, que l'adaptateur et le watcher reçoivent comme tel.
        """
        added = bool(await (self._add_policy("g", ptype, rules[0]) if alone else self._add_policies("g", ptype, rules)))
        if self.auto_build_role_links:
            present = [rule for rule in rules if rule in self.model.rows(ptype)]
            self.model.build_incremental_role_links(self.rm_map[ptype], PolicyOp.Policy_add, "g", ptype, present)
        return added

    async def remove_named_grouping_policies(self, ptype: str, rules: Sequence[Sequence[str]]) -> bool:
        """Retire des liens ; si un lot s'arrête en chemin, les rôles dont la règle est partie partent avec elle."""
        known = (self.model["g"] or {}).get(ptype)
        present = list({tuple(rule): rule for rule in rules if known is not None and rule in known.policy}.values())
        removed = bool(await self._remove_policies("g", ptype, rules))
        if self.auto_build_role_links and (present or removed):
            gone = [rule for rule in present if rule not in self.model.rows(ptype)]
            self.model.build_incremental_role_links(self.rm_map[ptype], PolicyOp.Policy_remove, "g", ptype, gone)
        return removed

    # --- rôles --------------------------------------------------------------------------------------------------------

    def get_named_role_manager(self, ptype: str) -> Any:  # noqa: ANN401 - type de pycasbin
        """Renvoie le gestionnaire d'un type de liens, conditionnels ou non ; Casbin oublie les premiers."""
        return self.cond_rm_map[ptype] if ptype in self.cond_rm_map else super().get_named_role_manager(ptype)

    async def get_all_roles_by_domain(self, domain: str) -> list[str]:
        """Renvoie les rôles que des liens donnent dans un domaine, que suivent les paramètres d'une condition."""
        links = self.model.model["g"]["g"]
        last = -1 - len(links.params_tokens)
        return list(dict.fromkeys(row[last - 1] for row in links.policy if row[last] == domain))

    async def get_implicit_roles_for_user(self, name: str, domain: str = "") -> list[str]:
        """Renvoie les rôles qu'un nom tient, directement ou par héritage ; une condition n'y est pas consultée."""
        found: list[str] = []
        waiting = [name]
        while waiting:
            member = waiting.pop(0)
            for manager in (*self.rm_map.values(), *self.cond_rm_map.values()):
                fresh = [role for role in dict.fromkeys(manager.get_roles(member, domain)) if role not in found]
                found += fresh
                waiting += fresh
        return found

    def add_named_matching_func(self, ptype: str, fn: Callable[[str, str], bool]) -> bool:
        """Ajoute une comparaison de noms de rôles, sauf à des rôles conditionnels, dont Casbin compare les noms."""
        return ptype not in self.cond_rm_map and bool(super().add_named_matching_func(ptype, fn))

    def add_named_domain_matching_func(self, ptype: str, fn: Callable[[str, str], bool]) -> bool:
        """Ajoute une comparaison de domaines, sauf à des rôles conditionnels, dont Casbin compare les noms."""
        return ptype not in self.cond_rm_map and bool(super().add_named_domain_matching_func(ptype, fn))


@final
@dataclass(frozen=True, slots=True)
class _BareJudge(Judge):
    """Décide comme pycasbin, jusqu'à ses réglages : l'effet remplacé, l'exécution coupée, le journal."""

    enforcer: PolicyEnforcer

    def compile(self, context: Context) -> AnyDecider | None:
        """Compile un contexte ; None si l'index ne sait pas y décider."""
        return self._compiler().decider(context) if self.enforcer.enabled else None

    def is_direct(self, decider: AnyDecider) -> bool:
        """Dit si une décision peut aller tout droit : rien à journaliser, aucun contexte à prendre pour une valeur."""
        return not self.enforcer.logger.isEnabledFor(logging.WARNING) and self._compiler().is_direct(decider)

    def walk(self, context: Context, values: tuple[Any, ...]) -> tuple[bool, Sequence[Any] | None]:
        """Décide règle par règle, au pas de Casbin."""
        request = values if context == DEFAULT_CONTEXT else (EnforceContext(*context), *values)
        allowed, rule = casbin.AsyncEnforcer.enforce_ex(self.enforcer, *request)
        return allowed, rule

    def _compiler(self) -> ModelCompiler:
        """Renvoie de quoi compiler le modèle d'aujourd'hui."""
        return ModelCompiler(self.enforcer.model, self.enforcer.fm.get_functions(), self.enforcer.eft)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Fait taire Casbin le temps d'une construction, puis remet ses journaux comme ils étaient : il les coupe tous."""
    before = {name: logging.getLogger(name).disabled for name in CASBIN_LOGGERS}
    for name in before:
        logging.getLogger(name).disabled = True
    try:
        yield
    finally:
        for name, disabled in before.items():
            logging.getLogger(name).disabled = disabled


def _silent_logger() -> logging.Logger:
    """Renvoie un journal où rien ne s'écrit : celui de Casbin écrirait les valeurs de chaque requête refusée."""
    silent = logging.Logger("fastapi_acl.engine.casbin")  # noqa: LOG001 - hors de l'arbre, exprès
    silent.disabled = True
    return silent


def nothing() -> None:
    """N'écoute pas."""


def split_context(rvals: tuple[Any, ...]) -> tuple[Context, tuple[Any, ...]]:
    """Sépare le contexte des valeurs de la requête."""
    if rvals and isinstance(rvals[0], EnforceContext):
        context = rvals[0]
        return (context.rtype, context.ptype, context.etype, context.mtype), rvals[1:]
    return DEFAULT_CONTEXT, rvals


def links_have_domains(assertion: Any) -> bool:  # noqa: ANN401 - types de pycasbin
    """Dit si les liens d'un type portent un domaine, outre le membre et le rôle."""
    return len(assertion.tokens) > 2  # noqa: PLR2004 - membre et rôle


def _conditional(assertion: Any) -> Any:  # noqa: ANN401 - types de pycasbin
    """Fait le gestionnaire de rôles d'un type dont les liens ont une condition."""
    kind = ConditionalDomainRoles if links_have_domains(assertion) else ConditionalRoles
    return kind(MAX_HIERARCHY_LEVEL)


def redo(rows: Rows, row: Row, number: int | None, *, arrives: bool) -> None:
    """Refait un changement arrivé pendant une lecture, si elle ne l'a pas vu."""
    if arrives and row not in rows:
        rows.append(row) if number is None else rows.place(row, number)
    elif not arrives and row in rows:
        rows.remove(row)
