"""L'exécuteur de politique : un `casbin.AsyncEnforcer`, nu comme l'original, ou strict.

Nu, il répond comme pycasbin. Strict (ce que la bibliothèque emploie), il échoue fermé : une politique vide ou non
chargée refuse, une erreur d'évaluation refuse, et toute écriture passe par la base avant la mémoire.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import casbin
from casbin.model import Model
from casbin.rbac import default_role_manager

from fastapi_acl.engine.index import INDEXED_EFFECTS, PolicyIndex
from fastapi_acl.engine.matcher import MatcherPlan, plan_matcher
from fastapi_acl.engine.matching import acl_match, acl_owns
from fastapi_acl.engine.role_graph import RoleGraph, check_links
from fastapi_acl.engine.schema import PolicySchema
from fastapi_acl.engine.views import GraphRoleManager, RuleRows
from fastapi_acl.shared.exceptions import (
    ACLException,
    ConfigurationError,
    DecisionFailedError,
    InvalidRuleError,
    PolicyUnavailableError,
    PolicyUnreadableError,
    RuleAlreadyExistsError,
)
from fastapi_acl.shared.logging import CASBIN_LOGGERS, get_logger
from fastapi_acl.shared.policy import PolicyChange, PolicyRule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

logger = get_logger("engine")

MAX_HIERARCHY_LEVEL: Final = 10
"""Profondeur du gestionnaire de rôles de Casbin."""


Answer = TypeVar("Answer")


@dataclass(slots=True)
class _State:
    """Ce sur quoi le mode strict décide ; remplacé d'une seule affectation."""

    roles: RoleGraph = field(default_factory=RoleGraph)
    index: PolicyIndex | None = None

    def add(self, rule: PolicyRule) -> None:
        """Range une règle."""
        if rule.ptype == "g":
            self.roles.add(rule.values)
        elif self.index is not None and rule.section == "p":
            self.index.add(rule)

    def remove(self, rule: PolicyRule) -> None:
        """Retire une règle."""
        if rule.ptype == "g":
            self.roles.remove(rule.values)
        elif self.index is not None and rule.section == "p":
            self.index.remove(rule)


class PolicyEnforcer(casbin.AsyncEnforcer):
    """Décide, et porte l'interface de gestion de Casbin.

    Source: https://casbin.org/docs/management-api
    """

    def __init__(  # noqa: PLR0913 - les deux premiers sont ceux de Casbin, les autres ceux du mode strict
        self,
        model: Model | str | None = None,
        adapter: Any = None,  # noqa: ANN401 - type de pycasbin
        enable_log: bool = False,  # noqa: FBT001, FBT002 - signature de pycasbin
        logging_config: dict[str, Any] | None = None,
        *,
        strict: bool = False,
        allow_eval: bool = False,
        raw_subjects: bool = False,
        share_domains: bool = False,
    ) -> None:
        """Prépare l'exécuteur ; aucune règle n'est lue avant `load_policy`.

        Args:
            model: modèle chargé, ou chemin d'un fichier `.conf`.
            adapter: stockage des règles (`AsyncAdapter`), ou None.
            enable_log: laisse Casbin journaliser, valeurs des requêtes comprises ; à ne pas faire en production.
            logging_config: réglage de ce journal, au format de `logging.config.dictConfig`.
            strict: échoue fermé et fait passer toute écriture par la base.
            allow_eval: admet `eval()` dans le matcher, en mode strict.
            raw_subjects: n'exige pas de préfixe aux sujets, en mode strict.
            share_domains: un lien de rôle dans le domaine `*` vaut dans tous les domaines.

        Raises:
            ConfigurationError: en mode strict, le matcher emploie `eval()` sans que ce soit admis.
        """
        if enable_log:
            super().__init__(model, adapter, enable_log, logging_config)
        else:
            with _silence():
                super().__init__(model, adapter)
            self.logger = _silent_logger()
        self._add_our_functions()
        self._strict = strict
        self._options: dict[str, Any] = {
            "allow_eval": allow_eval,
            "raw_subjects": raw_subjects,
            "share_domains": share_domains,
        }
        self._rules: dict[PolicyRule, None] | None = None
        self._writer: Callable[[PolicyChange], Awaitable[object]] | None = None
        self._state = _State()
        if strict:
            self._become_strict()

    def _add_our_functions(self) -> None:
        """Donne au matcher les fonctions des modèles fournis."""
        super().add_function("aclMatch", acl_match)
        super().add_function("aclOwns", acl_owns)

    def _become_strict(self) -> None:
        """Lit la forme du modèle et refuse ce que le mode strict n'admet pas."""
        self.schema = PolicySchema.of(self.model, raw_subjects=self._options["raw_subjects"])
        self.auto_build_role_links = False
        if self.schema.uses_eval and not self._options["allow_eval"]:
            message = (
                "le matcher emploie eval(), qui exécute des expressions lues dans les règles : réécrivez-le, "
                "ou réglez ACL_ALLOW_EVAL=true si toutes les règles sont de confiance."
            )
            raise ConfigurationError(message)
        self.plan = plan_matcher(self.model)
        if self.model["e"]["e"].value not in INDEXED_EFFECTS:
            self.plan = MatcherPlan(reason="l'effet dépend de l'ordre des règles")
        if self.plan.is_indexed and not self.schema.links.keys() <= {"g"}:
            self.plan = MatcherPlan(reason="le modèle a plusieurs définitions de rôles")

    def bind(self, writer: Callable[[PolicyChange], Awaitable[object]]) -> None:
        """Donne au mode strict ce par quoi passent les écritures : la base d'abord, la mémoire après validation."""
        self._writer = writer

    # --- lecture -----------------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Vrai si une politique, fût-elle vide, est en service."""
        return self._rules is not None

    @property
    def rules(self) -> tuple[PolicyRule, ...]:
        """Toutes les règles en service, dans l'ordre."""
        return tuple(self._rules or ())

    def holds(self, rule: PolicyRule) -> bool:
        """Dit si la règle est en service."""
        return self._rules is not None and rule in self._rules

    def enforce_ex(self, *rvals: Any) -> tuple[bool, list[str]]:  # noqa: ANN401 - signature de pycasbin
        """Décide et rend la règle qui a décidé.

        Raises:
            PolicyUnavailableError: en mode strict, aucune politique n'est chargée.
            DecisionFailedError: en mode strict, l'évaluation a échoué.
        """
        if not self._strict:
            result, rule = super().enforce_ex(*rvals)
            return result, rule
        if self._rules is None:
            raise PolicyUnavailableError
        index = self._state.index
        return self._guarded(index.explain if index is not None else self._evaluate, rvals)

    def enforce(self, *rvals: Any) -> bool:  # noqa: ANN401 - signature de pycasbin
        """Décide ; voir `enforce_ex`."""
        index = self._state.index
        if index is None:
            return bool(self.enforce_ex(*rvals)[0])
        return self._guarded(index.decide, rvals)

    def _guarded(self, decide: Callable[[tuple[Any, ...]], Answer], rvals: tuple[Any, ...]) -> Answer:
        """Décide ; toute erreur est un refus que l'appelant voit."""
        try:
            if len(rvals) != len(self.schema.request):
                message = f"la requête a {len(rvals)} valeurs, le modèle en attend {len(self.schema.request)}"
                raise ValueError(message)  # noqa: TRY301 - traduite comme toute autre
            return decide(rvals)
        except ACLException:
            raise
        except Exception as error:
            logger.exception("decision_failed")
            raise DecisionFailedError from error

    def _evaluate(self, rvals: tuple[Any, ...]) -> tuple[bool, list[str]]:
        """Décide au pas de Casbin, règle par règle ; une politique vide refuse."""
        if self.schema.names_rules and not any(rule.section == "p" for rule in self._rules or ()):
            return False, []
        result, rule = super().enforce_ex(*rvals)
        return result is True, rule

    def has_link(self, member: str, role: str, *domain: str) -> bool:
        """Dit si un sujet tient un rôle, directement ou par héritage (`g` seulement)."""
        return self._state.roles.has(member, role, *domain)

    def closure(self, member: str, *domain: str) -> tuple[str, ...]:
        """Rend un sujet et tous les rôles qu'il tient (`g` seulement)."""
        return self._state.roles.closure(member, *domain)

    # --- règles en service -------------------------------------------------------------------------------------

    def install(self, rules: Iterable[PolicyRule]) -> None:
        """Met en service une politique entière, construite à côté de celle qui décide."""
        ordered = dict.fromkeys(rules)
        state = self._index(ordered)
        model, managers = self._viewed(ordered, state) if state.index is not None else self._build(ordered)
        self.model, self.rm_map, self._rules, self._state = model, managers, ordered, state

    def apply(self, change: PolicyChange) -> None:
        """Met en service un changement déjà validé par la base."""
        if self._rules is None or self._state.index is None:
            self.install(self._after(change))
            return
        for rule in change.removed:
            self.model[rule.section][rule.ptype].policy.remove(rule.values)
            self._state.remove(rule)
            del self._rules[rule]
        for rule in change.added:
            self.model[rule.section][rule.ptype].policy.append(rule.values)
            self._state.add(rule)
            self._rules[rule] = None

    def check(self, change: PolicyChange) -> None:
        """Vérifie la forme des règles ajoutées, et les chaînes de rôles qu'elles feraient.

        Raises:
            InvalidRuleError: une règle n'a pas la forme du modèle, ou les rôles feraient un cycle ou une chaîne
                trop longue.
        """
        for rule in change.added:
            self.schema.check(rule)
        linked = {rule.ptype for rule in change.added if rule.section == "g"}
        if linked:
            rules = self._after(change)
            for ptype in linked:
                check_links(rule for rule in rules if rule.ptype == ptype)

    def preview(self, change: PolicyChange) -> PolicyEnforcer:
        """Rend un exécuteur qui décide comme si le changement était fait, sans rien changer à celui-ci."""
        future = PolicyEnforcer(_blank(self.model), strict=True, **self._options)
        future.fm = self.fm
        future.install(self._after(change))
        return future

    def _after(self, change: PolicyChange) -> list[PolicyRule]:
        """Rend les règles telles qu'elles seraient après le changement."""
        removed = frozenset(change.removed)
        return [*(rule for rule in self._rules or () if rule not in removed), *change.added]

    def _index(self, rules: Iterable[PolicyRule]) -> _State:
        """Range les règles pour la décision : les rôles toujours, l'index si le plan du matcher le permet."""
        roles = RoleGraph(shares_domains=self._options["share_domains"])
        state = _State(roles=roles)
        if self.plan.is_indexed:
            request, fields = self.model["r"]["r"].tokens, self.model["p"]["p"].tokens
            state.index = PolicyIndex(self.plan, self.model["e"]["e"].value, request, fields, roles)
        for rule in rules:
            state.add(rule)
        return state

    def _viewed(self, rules: Iterable[PolicyRule], state: _State) -> tuple[Model, dict[str, Any]]:
        """Fait le modèle que lit l'interface de Casbin : des vues sur les règles et les rôles."""
        model = _blank(self.model)
        for section in ("p", "g"):
            for assertion in (model[section] or {}).values():
                assertion.policy = RuleRows()
        for rule in rules:
            model[rule.section][rule.ptype].policy.append(rule.values)
        managers = {ptype: GraphRoleManager(state.roles) for ptype in model["g"] or {}}
        for ptype, manager in managers.items():
            model["g"][ptype].rm = manager
        return model, managers

    def _build(self, rules: Iterable[PolicyRule]) -> tuple[Model, dict[str, Any]]:
        """Fait un modèle neuf, ses règles et ses gestionnaires de rôles."""
        model = _blank(self.model)
        managers = {ptype: self._role_manager(assertion) for ptype, assertion in (model["g"] or {}).items()}
        for rule in rules:
            model[rule.section][rule.ptype].policy.append(list(rule.values))
            if rule.section == "g":
                managers[rule.ptype].add_link(*rule.values)
        model.sort_policies_by_subject_hierarchy()
        model.sort_policies_by_priority()
        return model, managers

    def _role_manager(self, assertion: Any) -> Any:  # noqa: ANN401 - types de pycasbin
        """Fait le gestionnaire de rôles d'une définition `g…`, et l'y attache."""
        if len(assertion.tokens) > 2:  # noqa: PLR2004 - membre et rôle ; au-delà, un domaine
            assertion.rm = default_role_manager.DomainManager(MAX_HIERARCHY_LEVEL)
        else:
            assertion.rm = default_role_manager.RoleManager(MAX_HIERARCHY_LEVEL)
        if self._options["share_domains"]:
            assertion.rm.add_domain_matching_func(acl_match)
        return assertion.rm

    def get_named_policy(self, ptype: str) -> list[list[str]]:
        """Rend les règles d'un type, comme une liste neuve."""
        return list(super().get_named_policy(ptype))

    def get_named_grouping_policy(self, ptype: str) -> list[list[str]]:
        """Rend les liens d'un type, comme une liste neuve."""
        return list(super().get_named_grouping_policy(ptype))

    async def load_policy(self) -> None:
        """Relit toute la politique ; en mode strict, sans que la décision voie d'état intermédiaire.

        Raises:
            PolicyUnreadableError: en mode strict, une ligne de la base pourrait refuser mais ne se lit pas ;
                l'ancienne politique reste en service.
        """
        if not self._strict:
            await super().load_policy()
        elif self.adapter is None:
            self.install(())
        else:
            self.install(readable(await self.adapter.read_rules(), self.schema))

    # --- écriture, en mode strict --------------------------------------------------------------------------------

    async def _write(self, change: PolicyChange) -> bool:
        """Fait passer un changement par la base, qui décide ; False si une règle existait déjà."""
        if self._writer is None:
            message = "cet exécuteur strict n’est relié à aucune base : passez par ACLManager."
            raise ConfigurationError(message)
        try:
            await self._writer(change)
        except RuleAlreadyExistsError:
            return False
        return True

    async def _add_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> bool:
        if not self._strict:
            return bool(await super()._add_policy(sec, ptype, rule))
        return await self._add_policies(sec, ptype, [rule])

    async def _add_policies(self, sec: str, ptype: str, rules: Sequence[Sequence[str]]) -> bool:
        if not self._strict:
            return bool(await super()._add_policies(sec, ptype, rules))
        added = tuple(PolicyRule.of(ptype, rule) for rule in rules)
        return not any(map(self.holds, added)) and await self._write(PolicyChange(added=added))

    async def _remove_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> bool:
        if not self._strict:
            return bool(await super()._remove_policy(sec, ptype, rule))
        return await self._remove_policies(sec, ptype, [rule])

    async def _remove_policies(self, sec: str, ptype: str, rules: Sequence[Sequence[str]]) -> bool:
        if not self._strict:
            return bool(await super()._remove_policies(sec, ptype, rules))
        removed = tuple(PolicyRule.of(ptype, rule) for rule in rules)
        return all(map(self.holds, removed)) and await self._write(PolicyChange(removed=removed))

    async def _update_policy(self, sec: str, ptype: str, old_rule: Sequence[str], new_rule: Sequence[str]) -> bool:
        if not self._strict:
            return bool(await super()._update_policy(sec, ptype, old_rule, new_rule))
        return await self._update_policies(sec, ptype, [old_rule], [new_rule])

    async def _update_policies(
        self, sec: str, ptype: str, old_rules: Sequence[Sequence[str]], new_rules: Sequence[Sequence[str]]
    ) -> bool:
        if not self._strict:
            return bool(await super()._update_policies(sec, ptype, old_rules, new_rules))
        removed = tuple(PolicyRule.of(ptype, rule) for rule in old_rules)
        added = tuple(PolicyRule.of(ptype, rule) for rule in new_rules)
        possible = len(removed) == len(added) and all(map(self.holds, removed))
        return possible and await self._write(PolicyChange(added=added, removed=removed))

    async def _update_filtered_policies(
        self, sec: str, ptype: str, new_rules: Sequence[Sequence[str]], field_index: int, *field_values: str
    ) -> bool:
        if not self._strict:
            return bool(await super()._update_filtered_policies(sec, ptype, new_rules, field_index, *field_values))
        removed = self._matching(sec, ptype, field_index, field_values)
        added = tuple(PolicyRule.of(ptype, rule) for rule in new_rules)
        return bool(removed) and await self._write(PolicyChange(added=added, removed=removed))

    async def _remove_filtered_policy(self, sec: str, ptype: str, field_index: int, *field_values: str) -> bool:
        if not self._strict:
            return bool(await super()._remove_filtered_policy(sec, ptype, field_index, *field_values))
        return bool(await self._remove_filtered_policy_returns_effects(sec, ptype, field_index, *field_values))

    async def _remove_filtered_policy_returns_effects(
        self, sec: str, ptype: str, field_index: int, *field_values: str
    ) -> list[list[str]]:
        if not self._strict:
            effects = await super()._remove_filtered_policy_returns_effects(sec, ptype, field_index, *field_values)
            return list(effects)
        removed = self._matching(sec, ptype, field_index, field_values)
        if removed:
            await self._write(PolicyChange(removed=removed))
        return [list(rule.values) for rule in removed]

    def _matching(self, sec: str, ptype: str, index: int, values: Sequence[str]) -> tuple[PolicyRule, ...]:
        """Rend les règles qu'un filtre retient ; un filtre vide, qui viderait tout, est refusé."""
        if not any(values):
            message = "Un retrait filtré demande au moins une valeur : un filtre vide retirerait toutes les règles."
            raise InvalidRuleError(message)
        found = self.model.get_filtered_policy(sec, ptype, index, *values)
        return tuple(PolicyRule.of(ptype, rule) for rule in found)

    # --- ce que le mode strict refuse ----------------------------------------------------------------------------

    def enable_enforce(self, enabled: bool = True) -> None:  # noqa: FBT001, FBT002 - signature de pycasbin
        """Règle l'exécution ; le mode strict refuse de la couper, ce qui permettrait tout."""
        if self._strict and not enabled:
            self._refuse("enable_enforce(False)")
        super().enable_enforce(enabled)

    def enable_auto_save(self, auto_save: bool) -> None:  # noqa: FBT001 - signature de pycasbin
        """Règle l'écriture automatique ; le mode strict refuse de la couper."""
        if self._strict and not auto_save:
            self._refuse("enable_auto_save(False)")
        super().enable_auto_save(auto_save)

    def set_model(self, m: Model) -> None:
        """Remplace le modèle ; refusé en mode strict, où il se choisit au démarrage."""
        if self._strict:
            self._refuse("set_model")
        super().set_model(m)
        self._add_our_functions()

    def load_model(self) -> None:
        """Relit le modèle ; refusé en mode strict."""
        if self._strict:
            self._refuse("load_model")
        super().load_model()
        self._add_our_functions()

    def clear_policy(self) -> None:
        """Vide la mémoire ; refusé en mode strict, où elle suit la base."""
        if self._strict:
            self._refuse("clear_policy")
        super().clear_policy()

    def build_role_links(self) -> None:
        """Refait les liens ; sans objet en mode strict, où ils suivent les règles."""
        if not self._strict:
            super().build_role_links()

    async def save_policy(self) -> None:
        """Réécrit toute la base ; refusé en mode strict, où chaque changement y est déjà."""
        if self._strict:
            self._refuse("save_policy")
        await super().save_policy()

    async def load_filtered_policy(self, filter: Any) -> None:  # noqa: A002, ANN401 - signature de pycasbin
        """Charge une partie des règles ; refusé en mode strict : oublier un refus ouvrirait l'accès."""
        if self._strict:
            self._refuse("load_filtered_policy")
        await super().load_filtered_policy(filter)

    async def load_increment_filtered_policy(self, filter: Any) -> None:  # noqa: A002, ANN401 - idem
        """Ajoute une partie des règles ; refusé en mode strict."""
        if self._strict:
            self._refuse("load_increment_filtered_policy")
        await super().load_increment_filtered_policy(filter)

    def add_function(self, name: str, func: Callable[..., object]) -> None:
        """Ajoute une fonction au matcher ; celles que l'index connaît ne se remplacent pas en mode strict."""
        if self._strict and name in {"aclMatch", "aclOwns"}:
            self._refuse(f"add_function({name!r})")
        super().add_function(name, func)

    def set_effector(self, eft: Any) -> None:  # noqa: ANN401 - type de pycasbin
        """Remplace l'effet ; refusé en mode strict, où le modèle le dit."""
        if self._strict:
            self._refuse("set_effector")
        super().set_effector(eft)

    def add_named_matching_func(self, ptype: str, fn: Callable[[str, str], bool]) -> bool:
        """Ajoute une comparaison de noms de rôles ; refusé en mode strict, où un rôle est un nom exact."""
        if self._strict:
            self._refuse("add_named_matching_func")
        return bool(super().add_named_matching_func(ptype, fn))

    def add_named_domain_matching_func(self, ptype: str, fn: Callable[[str, str], bool]) -> bool:
        """Ajoute une comparaison de domaines ; refusé en mode strict."""
        if self._strict:
            self._refuse("add_named_domain_matching_func")
        return bool(super().add_named_domain_matching_func(ptype, fn))

    def _refuse(self, name: str) -> NoReturn:
        """Refuse un appel qui ouvrirait l'accès ou contournerait la base."""
        message = f"« {name} » n’est pas admis sur l’exécuteur d’ACLManager : il contournerait la base ou la décision."
        raise ConfigurationError(message)


def readable(rules: Iterable[tuple[int, PolicyRule]], schema: PolicySchema) -> list[PolicyRule]:
    """Écarte les lignes illisibles qui ne pourraient qu'accorder, et s'arrête sur celles qui pourraient refuser.

    Args:
        rules: couples (numéro de ligne dans la base, règle).
        schema: forme du modèle.

    Raises:
        PolicyUnreadableError: une ligne illisible pourrait refuser, ou un refus se perdrait au bout d'une chaîne de
            rôles trop longue ou circulaire ; l'ignorer ouvrirait l'accès.
    """
    kept = [rule for row_id, rule in rules if _is_readable(row_id, rule, schema)]
    try:
        for ptype in schema.links:
            check_links(rule for rule in kept if rule.ptype == ptype)
    except InvalidRuleError as error:
        logger.exception("policy_links_unreadable")
        raise PolicyUnreadableError from error
    return kept


def _is_readable(row_id: int, rule: PolicyRule, schema: PolicySchema) -> bool:
    """Dit si une ligne se lit ; sinon, l'écarte ou arrête le chargement."""
    try:
        schema.check(rule)
    except InvalidRuleError as error:
        if could_deny(rule, schema):
            logger.exception("policy_row_unreadable: id=%d", row_id)
            raise PolicyUnreadableError from error
        logger.warning("policy_row_skipped: id=%d", row_id)
        return False
    return True


def could_deny(rule: PolicyRule, schema: PolicySchema) -> bool:
    """Dit si une ligne illisible pourrait, bien lue, refuser quelque chose."""
    if not schema.can_deny:
        return False
    names = schema.fields.get(rule.ptype)
    if names is None or "eft" not in names:
        return True
    place = names.index("eft")
    return len(rule.values) != len(names) or rule.values[place] != "allow"


def _blank(model: Model) -> Model:
    """Copie les définitions d'un modèle, sans ses règles."""
    copy = Model()
    for section, assertions in model.items():
        for key, assertion in assertions.items():
            copy.add_def(section, key, assertion.value)
    return copy


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
    """Rend un journal muet : celui de Casbin écrirait les valeurs de chaque requête refusée."""
    silent = logging.Logger("fastapi_acl.engine.casbin")  # noqa: LOG001 - hors de l'arbre, exprès
    silent.disabled = True
    return silent
