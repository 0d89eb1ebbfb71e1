"""L'enforcer strict, celui de la bibliothèque : l'interface de gestion de Casbin, sur la politique en service.

Il décide par elle, qui échoue fermée ; toute écriture passe par la base avant la mémoire, et ce qui ouvrirait l'accès
ou contournerait la base n'est pas admis.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, final

from fastapi_acl.engine.casbin.enforcer import PolicyEnforcer, split_context
from fastapi_acl.shared.exceptions import (
    ConfigurationError,
    InvalidRuleError,
    RuleAlreadyExistsError,
    RuleNotFoundError,
)
from fastapi_acl.shared.policy import PolicyChange, PolicyRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from casbin.model import FunctionMap, Model

    from fastapi_acl.engine.casbin.definitions import ModelDefinitions
    from fastapi_acl.engine.casbin.model import IndexedModel
    from fastapi_acl.engine.kernel.decisions import Decisions
    from fastapi_acl.engine.kernel.plan import MatcherPlan
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.kernel.rule_set import RuleSet


T = TypeVar("T")


class PolicyWriter(Protocol):
    """Ce par quoi passent les écritures : la base d'abord, la mémoire après validation."""

    def as_written(self) -> AbstractContextManager[None]:
        """Montre, le temps d'un bloc, ce que la transaction ambiante a écrit."""

    async def write(self, build: Callable[[], PolicyChange]) -> None:
        """Fait un changement, construit sous le verrou du journal, mémoires à jour ; vide, il n'en fait aucun."""


class PolicyJournal(Protocol):
    """Ce qui tient la politique à jour de la base."""

    def writing(self) -> AbstractAsyncContextManager[object]:
        """Réunit plusieurs écritures en une transaction."""

    async def reload(self) -> None:
        """Relit toutes les règles, dans l'ordre du journal."""


def _reading(method: Callable[..., Iterable[str]]) -> Callable[..., list[str]]:
    """Fait lire une méthode de Casbin comme la transaction ambiante a écrit, sur un même état de la politique."""

    @wraps(method)
    def read(self: StrictEnforcer, *given: str) -> list[str]:
        with self.as_written():
            return list(method(self, *given))

    return read


@final
class StrictEnforcer(PolicyEnforcer):
    """Décide en échouant fermé ; c'est l'enforcer que renvoie `ACLManager.get_enforcer()`."""

    def __init__(
        self,
        definitions: ModelDefinitions,
        policy: Policy,
        *,
        writer: PolicyWriter | None = None,
        journal: PolicyJournal | None = None,
    ) -> None:
        """Montre une politique par l'interface de Casbin.

        Args:
            definitions: ce que le modèle définit.
            policy: la politique en service.
            writer: ce par quoi passent les écritures ; None pour n'en admettre aucune.
            journal: ce qui relit les règles ; None pour n'en relire aucune.
        """
        self.definitions = definitions
        self.policy = policy
        self._writer = writer
        self._journal = journal
        self._shown: tuple[RuleSet, IndexedModel] | None = None
        super().__init__(definitions.model)
        self.auto_build_role_links = False

    # --- ce que Casbin lit et remplace --------------------------------------------------------------------------------

    def _make_decisions(self) -> Decisions:
        return self.policy.decisions

    @property
    def model(self) -> IndexedModel:
        """Le modèle, dont les règles et les liens sont ceux de la politique en service."""
        rules = self.policy.state.rules
        shown = self._shown
        if shown is None or shown[0] is not rules:
            shown = self._shown = rules, self.definitions.show(rules)
        return shown[1]

    @model.setter
    def model(self, model: Model | None) -> None:
        """Ne retient rien : la politique tient le modèle."""

    @property
    def rm_map(self) -> dict[str, Any]:
        """Les gestionnaires de rôles, par type."""
        return {ptype: assertion.rm for ptype, assertion in (self.model["g"] or {}).items()}

    @rm_map.setter
    def rm_map(self, managers: dict[str, Any]) -> None:
        """Ne retient rien : les liens suivent les règles."""

    def init_rm_map(self) -> None:
        """Ne fait rien : les liens suivent les règles."""

    @property
    def fm(self) -> FunctionMap:
        """Les fonctions du matcher."""
        return self._fm

    @fm.setter
    def fm(self, functions: FunctionMap) -> None:
        if hasattr(self, "_fm"):
            self.definitions.functions.update(functions.fm)
        functions.fm = self.definitions.functions
        self._fm = functions

    @property
    def enabled(self) -> bool:
        """Toujours vrai."""
        return True

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        if not enabled:
            self._refuse("enabled = False")

    # --- décision -----------------------------------------------------------------------------------------------------

    @property
    def plan(self) -> MatcherPlan:
        """Ce que l'index cherche pour décider, ou pourquoi il n'y en a pas."""
        return self.policy.plan

    def enforce_ex(self, *rvals: Any) -> tuple[bool, list[str]]:  # noqa: ANN401 - signature de pycasbin
        """Décide et renvoie la règle qui a décidé ; toute erreur est un refus que l'appelant voit.

        Raises:
            PolicyUnavailableError: aucune politique n'est chargée.
            DecisionFailedError: l'évaluation a échoué.
        """
        context, values = split_context(rvals)
        allowed, rule = self.policy.explain(*values, context=context)
        return allowed, list(rule)

    @contextmanager
    def as_written(self) -> Iterator[None]:
        """Montre, le temps d'un bloc, ce que la transaction ambiante a écrit ; les décisions, elles, l'ignorent.

        Rien d'autre n'y change la politique : un fil qui lit ne voit ni un essai, ni des règles que l'on remplace.
        """
        with self.policy.lock, self._writer.as_written() if self._writer is not None else nullcontext():
            yield

    # --- lecture ------------------------------------------------------------------------------------------------------

    get_all_subjects = _reading(PolicyEnforcer.get_all_subjects)
    get_all_objects = _reading(PolicyEnforcer.get_all_objects)
    get_all_actions = _reading(PolicyEnforcer.get_all_actions)
    get_all_named_subjects = _reading(PolicyEnforcer.get_all_named_subjects)
    get_all_named_objects = _reading(PolicyEnforcer.get_all_named_objects)
    get_all_named_actions = _reading(PolicyEnforcer.get_all_named_actions)
    get_all_named_roles = _reading(PolicyEnforcer.get_all_named_roles)

    def get_named_policy(self, ptype: str) -> list[list[str]]:
        """Renvoie les règles d'un type, comme une liste neuve."""
        with self.as_written():
            return super().get_named_policy(ptype)

    def get_filtered_named_policy(self, ptype: str, field_index: int, *field_values: str) -> list[list[str]]:
        """Renvoie les règles d'un type qu'un filtre retient."""
        with self.as_written():
            return list(super().get_filtered_named_policy(ptype, field_index, *field_values))

    def has_named_policy(self, ptype: str, *params: Any) -> bool:  # noqa: ANN401 - signature de pycasbin
        """Dit si une règle existe."""
        with self.as_written():
            return bool(super().has_named_policy(ptype, *params))

    def get_named_grouping_policy(self, ptype: str) -> list[list[str]]:
        """Renvoie les liens d'un type, comme une liste neuve."""
        with self.as_written():
            return super().get_named_grouping_policy(ptype)

    def get_filtered_named_grouping_policy(self, ptype: str, field_index: int, *field_values: str) -> list[list[str]]:
        """Renvoie les liens d'un type qu'un filtre retient."""
        with self.as_written():
            return list(super().get_filtered_named_grouping_policy(ptype, field_index, *field_values))

    def has_named_grouping_policy(self, ptype: str, *params: Any) -> bool:  # noqa: ANN401 - signature de pycasbin
        """Dit si un lien existe."""
        with self.as_written():
            return bool(super().has_named_grouping_policy(ptype, *params))

    async def load_policy(self) -> None:
        """Relit toute la politique, sans que la décision voie d'état intermédiaire ni qu'un changement se perde.

        Raises:
            PolicyUnreadableError: une ligne de la base pourrait refuser mais ne se lit pas ;
                l'ancienne politique reste en service.
        """
        await self._require(self._journal).reload()

    def build_role_links(self) -> None:
        """Ne fait rien : les liens suivent les règles."""

    # --- écriture -----------------------------------------------------------------------------------------------------

    @staticmethod
    def _require(path: T | None) -> T:
        """Renvoie ce par quoi l'on passe, s'il est donné."""
        if path is None:
            message = "cet enforcer strict n’est relié à aucune base : passez par ACLManager."
            raise ConfigurationError(message)
        return path

    async def _write(self, build: Callable[[], PolicyChange]) -> bool:
        """Fait passer un changement par la base, qui décide ; False si elle a déjà la règle, ou ne l'a pas."""
        try:
            await self._require(self._writer).write(build)
        except (RuleAlreadyExistsError, RuleNotFoundError):
            return False
        return True

    async def _add_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> bool:
        return await self._add_policies(sec, ptype, [rule])

    async def _add_policies(self, sec: str, ptype: str, rules: Sequence[Sequence[str]]) -> bool:
        change = PolicyChange(added=_rules(ptype, rules))
        return bool(change) and await self._write(lambda: change)

    async def _remove_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> bool:
        return await self._remove_policies(sec, ptype, [rule])

    async def _remove_policies(self, sec: str, ptype: str, rules: Sequence[Sequence[str]]) -> bool:
        change = PolicyChange(removed=_rules(ptype, rules))
        return bool(change) and await self._write(lambda: change)

    async def _update_policy(self, sec: str, ptype: str, old_rule: Sequence[str], new_rule: Sequence[str]) -> bool:
        return await self._update_policies(sec, ptype, [old_rule], [new_rule])

    async def _update_policies(
        self, sec: str, ptype: str, old_rules: Sequence[Sequence[str]], new_rules: Sequence[Sequence[str]]
    ) -> bool:
        change = PolicyChange(added=_rules(ptype, new_rules), removed=_rules(ptype, old_rules), in_place=True)
        return 0 < len(change.removed) == len(change.added) and await self._write(lambda: change)

    async def _update_filtered_policies(
        self, sec: str, ptype: str, new_rules: Sequence[Sequence[str]], field_index: int, *field_values: str
    ) -> bool:
        _check_filter(field_values)
        added = _rules(ptype, new_rules)
        found: list[PolicyRule] = []

        def build() -> PolicyChange:
            found[:] = self._matching(sec, ptype, field_index, field_values)
            return PolicyChange(added=added, removed=tuple(found)) if found else PolicyChange()

        return await self._write(build) and bool(found)

    async def _remove_filtered_policy(self, sec: str, ptype: str, field_index: int, *field_values: str) -> bool:
        return bool(await self._remove_filtered_policy_returns_effects(sec, ptype, field_index, *field_values))

    async def _remove_filtered_policy_returns_effects(
        self, sec: str, ptype: str, field_index: int, *field_values: str
    ) -> list[list[str]]:
        _check_filter(field_values)
        found: list[PolicyRule] = []

        def build() -> PolicyChange:
            found[:] = self._matching(sec, ptype, field_index, field_values)
            return PolicyChange(removed=tuple(found))

        return [list(rule.values) for rule in found] if await self._write(build) else []

    def _matching(self, sec: str, ptype: str, index: int, values: Sequence[str]) -> tuple[PolicyRule, ...]:
        """Renvoie les règles qu'un filtre retient."""
        if ptype not in (self.model[sec] or {}):
            return ()
        with self.as_written():
            return _rules(ptype, self.model.get_filtered_policy(sec, ptype, index, *values))

    async def delete_user(self, user: str) -> bool:
        """Retire les liens et les règles d'un sujet, d'un seul tenant."""
        async with self._require(self._journal).writing():
            return bool(await super().delete_user(user))

    async def delete_role(self, role: str) -> bool:
        """Retire les liens et les règles d'un rôle, d'un seul tenant."""
        async with self._require(self._journal).writing():
            return bool(await super().delete_role(role))

    # --- ce qui est refusé --------------------------------------------------------------------------------------------

    def enable_enforce(self, enabled: bool = True) -> None:  # noqa: FBT001, FBT002 - signature de pycasbin
        """Règle l'exécution ; la couper est refusé, ce qui permettrait tout."""
        if not enabled:
            self._refuse("enable_enforce(False)")
        super().enable_enforce(enabled)

    def enable_auto_save(self, auto_save: bool) -> None:  # noqa: FBT001 - signature de pycasbin
        """Règle l'écriture automatique ; la couper est refusé."""
        if not auto_save:
            self._refuse("enable_auto_save(False)")
        super().enable_auto_save(auto_save)

    def set_model(self, m: Model) -> None:
        """Refuse de remplacer le modèle, qui se choisit au démarrage."""
        self._refuse("set_model")

    def load_model(self) -> None:
        """Refuse de relire le modèle."""
        self._refuse("load_model")

    def clear_policy(self) -> None:
        """Refuse de vider la mémoire, qui suit la base."""
        self._refuse("clear_policy")

    async def save_policy(self) -> None:
        """Refuse de réécrire toute la base, où chaque changement est déjà."""
        self._refuse("save_policy")

    async def load_filtered_policy(self, filter: Any) -> None:  # noqa: A002, ANN401 - signature de pycasbin
        """Refuse de charger une partie des règles : oublier un refus ouvrirait l'accès."""
        self._refuse("load_filtered_policy")

    async def load_increment_filtered_policy(self, filter: Any) -> None:  # noqa: A002, ANN401 - signature de pycasbin
        """Refuse d'ajouter une partie des règles, pour la même raison."""
        self._refuse("load_increment_filtered_policy")

    def set_effector(self, eft: Any) -> None:  # noqa: ANN401 - type de pycasbin
        """Refuse de remplacer l'effet, que le modèle dit."""
        self._refuse("set_effector")

    def add_named_matching_func(self, ptype: str, fn: Callable[[str, str], bool]) -> bool:
        """Refuse une comparaison de noms de rôles : un rôle est un nom exact."""
        self._refuse("add_named_matching_func")

    def add_named_domain_matching_func(self, ptype: str, fn: Callable[[str, str], bool]) -> bool:
        """Refuse une comparaison de domaines."""
        self._refuse("add_named_domain_matching_func")

    def _refuse(self, name: str) -> NoReturn:
        """Refuse un appel qui ouvrirait l'accès ou contournerait la base."""
        message = f"« {name} » n’est pas admis sur l’enforcer d’ACLManager : il contournerait la base ou la décision."
        raise ConfigurationError(message)


def _check_filter(values: Sequence[str]) -> None:
    """Refuse un filtre vide, qui retirerait toutes les règles."""
    if not any(values):
        message = "Un retrait filtré demande au moins une valeur : un filtre vide retirerait toutes les règles."
        raise InvalidRuleError(message)


def _rules(ptype: str, rows: Iterable[Sequence[str]]) -> tuple[PolicyRule, ...]:
    return tuple(PolicyRule.of(ptype, row) for row in rows)
