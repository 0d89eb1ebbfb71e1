"""L'exécuteur de politique : un `casbin.AsyncEnforcer`, nu comme l'original, ou strict.

Nu, il répond comme pycasbin. Strict (ce que la bibliothèque emploie), il échoue fermé : une politique vide ou non
chargée refuse, une erreur d'évaluation refuse, et toute écriture passe par la base avant la mémoire. Dans les deux cas
il décide par un index ; ce que l'index ne sait pas lire revient à l'évaluation de Casbin, règle par règle.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from contextlib import aclosing, contextmanager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

import casbin
from casbin.core_enforcer import EnforceContext
from casbin.model.policy_op import PolicyOp

from fastapi_acl.engine.casbin.compiler import DEFAULT_CONTEXT, Compiler
from fastapi_acl.engine.casbin.domains import spread
from fastapi_acl.engine.casbin.functions import OUR_FUNCTIONS, check_function, strict_functions
from fastapi_acl.engine.casbin.model import IndexedModel
from fastapi_acl.engine.casbin.role_manager import (
    MAX_HIERARCHY_LEVEL,
    ConditionalDomainRoles,
    ConditionalRoles,
    GraphRoleManager,
    LinkRows,
    ReadOnlyRoleManager,
)
from fastapi_acl.engine.casbin.trial import Lexicon
from fastapi_acl.engine.kernel.acl_match import OWNER
from fastapi_acl.engine.kernel.links import LinksAfter
from fastapi_acl.engine.kernel.loading import Loaded, PolicyReader
from fastapi_acl.engine.kernel.pacing import SHORT_POLICY, aside, gc_paused
from fastapi_acl.engine.kernel.role_graph import RoleGraph
from fastapi_acl.engine.kernel.schema import SUBJECT_NAMES, PolicySchema
from fastapi_acl.engine.kernel.sequence import SequenceLock
from fastapi_acl.engine.kernel.strict_evaluation import failure
from fastapi_acl.shared.exceptions import (
    ACLException,
    ConfigurationError,
    DecisionFailedError,
    InvalidRuleError,
    PolicyUnavailableError,
    RuleAlreadyExistsError,
    RuleNotFoundError,
)
from fastapi_acl.shared.logging import CASBIN_LOGGERS
from fastapi_acl.shared.policy import PolicyChange, PolicyRule

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from casbin.model import FunctionMap, Model

    from fastapi_acl.engine.casbin.compiler import Context
    from fastapi_acl.engine.casbin.model_source import ModelSource
    from fastapi_acl.engine.kernel.forks import AnyDecider
    from fastapi_acl.engine.kernel.loading import RawLine
    from fastapi_acl.engine.kernel.plan import MatcherPlan
    from fastapi_acl.engine.kernel.rows import Rank, Row, Rows
    from fastapi_acl.engine.kernel.strict_evaluation import StrictWalk


class _Functions(dict[str, Any]):
    """Les fonctions du matcher ; en changer une rend caduc ce qui en a été compilé."""

    def __init__(
        self, functions: Mapping[str, Any], on_change: Callable[[], None], check: Callable[[str, Any], None]
    ) -> None:
        super().__init__(functions)
        self._on_change = on_change
        self._check = check

    def __setitem__(self, name: str, function: Any) -> None:  # noqa: ANN401 - fonction de l'application
        if self.get(name) is not function:
            self._check(name, function)
            super().__setitem__(name, function)
            self._on_change()

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._on_change()

    def update(self, *others: Any, **named: Any) -> None:  # noqa: ANN401 - signature de dict
        for name, function in dict(*others, **named).items():
            self[name] = function

    def setdefault(self, name: str, function: Any = None) -> Any:  # noqa: ANN401 - signature de dict
        if name not in self:
            self[name] = function
        return self[name]

    def __ior__(self, others: Any) -> _Functions:  # type: ignore[override,misc]  # noqa: ANN401, PYI034 - signature de dict
        self.update(others)
        return self


class _RoleManagers(dict[str, Any]):
    """Les gestionnaires de rôles par type ; pour un type conditionnel, que Casbin oublie ici, le sien."""

    def __init__(self, conditional: Mapping[str, Any]) -> None:
        super().__init__()
        self._conditional = conditional

    def __missing__(self, ptype: str) -> Any:  # noqa: ANN401 - types de pycasbin
        return self._conditional[ptype]


class Prepared(NamedTuple):
    """Une politique entière, construite à côté de celle qui décide.

    Attributes:
        model: le modèle et ses règles.
        managers: les gestionnaires de rôles, par type.
        decider: de quoi décider dans le contexte habituel ; None si l'index ne sait pas.
        loaded: ce que la lecture a rencontré.
    """

    model: IndexedModel
    managers: dict[str, Any]
    decider: AnyDecider | None
    loaded: Loaded = Loaded({})


class PolicyWriter(Protocol):
    """Ce par quoi passent les écritures du mode strict : la base d'abord, la mémoire après validation."""

    @property
    def pending(self) -> PolicyChange:
        """Effet net de ce que la transaction ambiante a déjà écrit."""

    def together(self) -> AbstractAsyncContextManager[object]:
        """Réunit plusieurs écritures en une transaction."""

    async def reload(self) -> None:
        """Relit toutes les règles, dans l'ordre du journal."""

    async def write(self, build: Callable[[], PolicyChange]) -> None:
        """Fait un changement, construit sous le verrou du journal, mémoires à jour ; vide, il n'en fait aucun."""


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
        share_domains: bool | None = False,
        owner_attribute: str = OWNER,
        source: ModelSource | None = None,
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
            share_domains: une règle ou un lien dans le domaine `*` vaut dans tous les domaines, en mode strict ; None
                si rien ne le dit, et qu'aucune règle n'est admise dans `*`.
            owner_attribute: attribut qui porte le propriétaire d'un objet pour `aclOwns`, en mode strict.
            source: d'où vient le modèle, pour que les erreurs en citent la ligne.

        Raises:
            ConfigurationError: en mode strict, le matcher emploie `eval()` sans que ce soit admis, le modèle a des
                rôles conditionnels, ou `*` ne peut pas y valoir dans tous les domaines.
        """
        self._strict = strict
        self.source = source
        self._enabled = True
        self._sequence = SequenceLock()
        self._hot: Callable[..., bool | None] | None = None
        self._deciders: dict[Context, AnyDecider | None] = {}
        self._walks: dict[Context, StrictWalk] = {}
        self._options: dict[str, Any] = {
            "allow_eval": allow_eval,
            "raw_subjects": raw_subjects,
            "share_domains": share_domains,
            "owner_attribute": owner_attribute,
        }
        self._loaded = self._sealed = False
        self._writer: PolicyWriter | None = None
        self._report = Loaded({})
        if enable_log:
            super().__init__(model, adapter, enable_log, logging_config)
        else:
            with _silence():
                super().__init__(model, adapter)
            self.logger = _silent_logger()
        if strict:
            self._become_strict()

    def _become_strict(self) -> None:
        """Lit la forme du modèle et refuse ce que le mode strict n'admet pas."""
        blank = self.model.blank()
        if self._options["share_domains"]:
            spread(blank, partial(_replace_matcher, blank))
        self.schema = PolicySchema.of(
            blank,
            Lexicon.of(blank, self.fm.get_functions(), is_whole=True),
            raw_subjects=self._options["raw_subjects"],
            shares_domains=self._options["share_domains"],
        )
        self._widths = {ptype: len(self.schema.columns(ptype)) for ptype in (*self.schema.fields, *self.schema.links)}
        self.auto_build_role_links = False
        if self.schema.uses_eval and not self._options["allow_eval"]:
            message = (
                "le matcher emploie eval(), qui exécute des expressions lues dans les règles : réécrivez-le, "
                "ou réglez ACL_ALLOW_EVAL=true si toutes les règles sont de confiance."
            )
            raise ConfigurationError(message)
        if self.cond_rm_map:
            message = "le modèle a des rôles conditionnels, que seul l’exécuteur nu (PolicyEnforcer) sait employer."
            raise ConfigurationError(message)
        self.model, self.rm_map = self._wired(blank)
        self._sealed = True

    def bind(self, writer: PolicyWriter) -> None:
        """Donne au mode strict ce par quoi passent les écritures."""
        self._writer = writer

    # --- ce que Casbin lit et remplace ------------------------------------------------------------------------------

    @property
    def model(self) -> IndexedModel:
        """Le modèle, dont les listes de règles sont indexées."""
        found: IndexedModel = self._model
        return found

    @model.setter
    def model(self, model: Model | None) -> None:
        before: IndexedModel | None = getattr(self, "_model", None)
        adopted = None if model is None else IndexedModel.over(model)
        with self._sequence:
            if before is not None:
                before.listener = _nothing
            if adopted is not None:
                adopted.join(self._sequence)
                adopted.listener = self._forget_compiled
            self._model: Any = adopted
            self._forget_compiled()

    @property
    def fm(self) -> FunctionMap:
        """Les fonctions du matcher."""
        return self._fm

    @fm.setter
    def fm(self, functions: FunctionMap) -> None:
        ours = strict_functions(self._options["owner_attribute"]) if self._strict else OUR_FUNCTIONS
        for name in functions.fm.keys() - ours.keys():
            self._check_function(name, functions.fm[name])
        functions.fm = _Functions({**functions.fm, **ours}, self._forget_compiled, self._check_function)
        self._fm = functions
        self._forget_compiled()

    def _check_function(self, name: str, function: Any) -> None:  # noqa: ANN401 - fonction de l'application
        """Refuse, en mode strict, une fonction qui ne saurait répondre ou qui en remplacerait une de la décision."""
        if self._strict:
            check_function(name, function, self.model["g"] or ())

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
        if self._strict and not enabled:
            self._refuse("enabled = False")
        self._enabled = enabled
        self._forget_compiled()

    def init_rm_map(self) -> None:
        """Fait les gestionnaires de rôles ; ceux qui existent déjà sont vidés, sauf en mode strict."""
        if self._strict and self._sealed:
            return
        if not isinstance(self.rm_map, _RoleManagers):
            self.rm_map = _RoleManagers(self.cond_rm_map)
        for ptype, assertion in (self.model["g"] or {}).items():
            if ptype in self.rm_map:
                self.rm_map[ptype].clear()
            elif assertion.params_tokens:
                assertion.rm = assertion.cond_rm = self.cond_rm_map[ptype] = _conditional(assertion)
            else:
                assertion.rm = self.rm_map[ptype] = GraphRoleManager(
                    RoleGraph(sequence=self._sequence),
                    has_domains=_has_domains(assertion),
                    on_change=self._forget_compiled,
                )

    def _forget_compiled(self) -> None:
        """Oublie ce qui a été compilé : le modèle, une fonction ou un gestionnaire de rôles a changé.

        Une décision en cours le voit au numéro du verrou, et recommence.
        """
        with self._sequence:
            self._hot = None
            deciders, self._deciders, self._walks = self._deciders, {}, {}
            for decider in deciders.values():
                if decider is not None:
                    decider.stop()

    # --- décision ---------------------------------------------------------------------------------------------------

    def enforce(self, *rvals: Any) -> bool:  # noqa: ANN401 - signature de pycasbin
        """Décide ; voir `enforce_ex`."""
        version, decide = self._sequence.version, self._hot  # le numéro d'abord : il dira si ce qui suit a changé
        if decide is not None:
            try:
                answer = decide(*rvals)
            except Exception:  # noqa: BLE001 - redemandé ci-dessous, qui le dira mieux
                answer = None
            if answer is not None and version == self._sequence.version and not version & 1:
                return answer
        result: bool = self.enforce_ex(*rvals)[0]
        return result

    def enforce_ex(self, *rvals: Any) -> tuple[bool, list[str]]:  # noqa: ANN401 - signature de pycasbin
        """Décide et rend la règle qui a décidé.

        Raises:
            PolicyUnavailableError: en mode strict, aucune politique n'est chargée.
            DecisionFailedError: en mode strict, l'évaluation a échoué.
        """
        return self._guarded(rvals) if self._strict else self._consistent(rvals)

    def grants(self, *rvals: Any) -> bool:  # noqa: ANN401 - valeurs d'une requête
        """Dit si une règle accorde la requête, refus mis à part ; où cela ne se lit pas, c'est la décision même."""
        with self._sequence.lock:
            decider = self._decider(DEFAULT_CONTEXT) if self._loaded else None
            found = decider.grants(rvals) if decider is not None and decider.arity == len(rvals) else None
        return self.enforce(*rvals) if found is None else found

    def granting(self, request: Sequence[str]) -> list[PolicyRule] | None:
        """Rend les règles qui accordent dans les cases d'une requête ; None si l'index ne peut pas répondre."""
        with self._sequence.lock:
            decider = self._decider(DEFAULT_CONTEXT)
            rows = decider.reached(request) if decider is not None else None
        return None if rows is None else [PolicyRule("p", row) for row in rows]

    def batch_enforce(self, rvals: Iterable[Sequence[Any]]) -> list[bool]:
        """Décide plusieurs requêtes ; celles qui se répètent ne sont décidées qu'une fois.

        Sous un matcher qu'il faut évaluer, chacune l'est : une fonction de l'application peut ne pas répondre deux fois
        la même chose.
        """
        decider = self._decider(DEFAULT_CONTEXT)
        if decider is None or decider.evaluates:
            return [self.enforce(*request) for request in rvals]
        known: dict[tuple[Any, ...], bool] = {}
        return [self._remembered(tuple(request), known) for request in rvals]

    def _remembered(self, request: tuple[Any, ...], known: dict[tuple[Any, ...], bool]) -> bool:
        """Décide une requête, ou redit ce qui vient d'en être décidé, si ses valeurs ne sont que des textes."""
        if set(map(type, request)) != {str}:
            return self.enforce(*request)
        if request not in known:
            known[request] = self.enforce(*request)
        return known[request]

    def _guarded(self, rvals: tuple[Any, ...]) -> tuple[bool, list[str]]:
        """Décide en mode strict ; toute erreur est un refus que l'appelant voit."""
        if not self._loaded:
            raise PolicyUnavailableError
        try:
            return self._consistent(rvals)
        except ACLException:
            raise
        except Exception as error:
            raise failure(error) from error

    def _consistent(self, rvals: tuple[Any, ...]) -> tuple[bool, list[str]]:
        """Décide sur un seul état de la politique : si elle change pendant la lecture, recommence sous le verrou."""
        version = self._sequence.version
        if not version & 1:
            try:
                answer = self._explained(rvals)
            except Exception:
                if version == self._sequence.version:
                    raise
            else:
                if version == self._sequence.version:
                    return answer
        with self._sequence.lock:
            return self._explained(rvals)

    def _explained(self, rvals: tuple[Any, ...]) -> tuple[bool, list[str]]:
        """Décide par l'index s'il le peut, sinon au pas de Casbin."""
        context, values = _split(rvals)
        decider = self._decider(context) if self._enabled else None
        found = decider.explain(values) if decider is not None and decider.arity == len(values) else None
        if found is None:
            return self._walked(context, values, rvals)
        self._log(values, allowed=found[0])
        return found[0], list(found[1] or ())

    def _walked(self, context: Context, values: tuple[Any, ...], rvals: tuple[Any, ...]) -> tuple[bool, list[str]]:
        """Décide règle par règle : au pas de Casbin, ou au nôtre en mode strict."""
        if self._strict:
            return self._walked_strictly(context, values)
        allowed, rule = super().enforce_ex(*rvals)
        return allowed, rule

    def _walked_strictly(self, context: Context, values: tuple[Any, ...]) -> tuple[bool, list[str]]:
        """Décide règle par règle, sans jamais prendre pour vrai ce qui ne l'est pas ; une politique vide refuse."""
        expected = len(self.model["r"][context[0]].tokens)
        if len(values) != expected:
            raise DecisionFailedError(reason=f"la requête a {len(values)} valeurs, le modèle en attend {expected}")
        if self.schema.names_rules and not self.model.rows(context[1]):
            return False, []
        allowed, rule = self._walk(context).explain(values)
        self._log(values, allowed=allowed)
        return allowed, list(rule or ())

    def _walk(self, context: Context) -> StrictWalk:
        """Rend de quoi décider règle par règle dans un contexte ; compilé à la première demande."""
        try:
            return self._walks[context]
        except KeyError:
            with self._sequence.lock:
                self._walks[context] = self._compiler(self.model).walk(context)
                return self._walks[context]

    def _log(self, values: tuple[Any, ...], *, allowed: bool) -> None:
        """Journalise la décision, si l'application a demandé le journal de Casbin."""
        level = logging.INFO if allowed else logging.WARNING
        if self.logger.isEnabledFor(level):
            self.logger.log(level, "Request: %s ---> %s", ", ".join(map(str, values)), allowed)

    # --- compilation ------------------------------------------------------------------------------------------------

    @property
    def plan(self) -> MatcherPlan:
        """Ce que l'index cherche pour décider, ou pourquoi il n'y en a pas."""
        return self._compiler(self.model).plan(DEFAULT_CONTEXT)

    def _compiler(self, model: IndexedModel) -> Compiler:
        """Rend de quoi compiler un modèle."""
        return Compiler(model, self.fm.get_functions(), None if self._strict else self.eft)

    def _decider(self, context: Context) -> AnyDecider | None:
        """Rend de quoi décider dans un contexte ; fait à la première demande, puis tenu à jour."""
        try:
            return self._deciders[context]
        except KeyError:
            with self._sequence.lock:
                if context not in self._deciders:
                    self._keep(context, self._compiler(self.model).decider(context))
                return self._deciders[context]

    def _keep(self, context: Context, decider: AnyDecider | None) -> None:
        """Retient de quoi décider ; dans le contexte habituel, la décision y va désormais tout droit."""
        replaced = self._deciders.get(context)
        if replaced is not None:
            replaced.stop()
        self._deciders[context] = decider
        if context == DEFAULT_CONTEXT and decider is not None and self._is_direct(decider):
            self._hot = decider.decide

    def _is_direct(self, decider: AnyDecider) -> bool:
        """Dit si une décision peut aller tout droit : rien à journaliser, aucun contexte à prendre pour une valeur."""
        silent = self._enabled and not self.logger.isEnabledFor(logging.WARNING)
        sizes = {len(assertion.tokens) for assertion in self.model["r"].values()}
        return silent and (self._loaded or not self._strict) and decider.arity - 1 not in sizes

    # --- règles en service ------------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Vrai si une politique, fût-elle vide, est en service."""
        return self._loaded

    @property
    def rules(self) -> tuple[PolicyRule, ...]:
        """Toutes les règles en service, type par type, dans l'ordre."""
        with self._sequence.lock:
            return tuple(PolicyRule(ptype, row) for ptype, rows in self.model.lists() for row in rows.ordered())

    def holds(self, rule: PolicyRule) -> bool:
        """Dit si la règle est en service."""
        return (self.model[rule.section] or {}).get(rule.ptype) is not None and rule.values in self.model.rows(
            rule.ptype
        )

    def numbers(self, rules: Iterable[PolicyRule]) -> tuple[int, ...]:
        """Rend les numéros de règles en service."""
        return tuple(self.model.rows(rule.ptype).number(rule.values) for rule in rules)

    @property
    def skipped_rows(self) -> int:
        """Nombre de lignes que la dernière lecture a écartées : illisibles, elles ne pouvaient qu'accorder."""
        return self._report.skipped

    @property
    def undecided(self) -> str:
        """Phrase sur une ligne que la dernière lecture a écartée, faute de savoir ce que vaut le domaine `*`."""
        return self._report.undecided

    @property
    def repeated(self) -> frozenset[PolicyRule]:
        """Règles que la dernière lecture a trouvées sur plusieurs lignes, ce qui ne se fait qu'à la main."""
        return self._report.twins

    def rules_of(self, subjects: Iterable[str]) -> list[PolicyRule]:
        """Rend les règles `p` dont le sujet est l'un de ceux-ci."""
        place = self.schema.position("p", SUBJECT_NAMES)
        rows = self.model.rows("p")
        found = [] if place is None else [row for subject in subjects for row in rows.matching(place, [subject])]
        return [PolicyRule("p", row) for row in found]

    @property
    def subjects(self) -> list[str]:
        """Tous les sujets et membres que les règles nomment ; lit toute la politique."""
        places = {ptype: self.schema.position(ptype, SUBJECT_NAMES) for ptype in self.schema.fields}
        places |= dict.fromkeys(self.schema.links, 0)
        known = [(self.model.rows(ptype), place) for ptype, place in places.items() if place is not None]
        return list(dict.fromkeys(subject for rows, place in known for subject in rows.values_of(place)))

    def rules_naming(self, subject: str) -> tuple[PolicyRule, ...]:
        """Rend les règles qui nomment un sujet : celles qui lui donnent ou lui refusent, et ses liens."""
        found: list[PolicyRule] = []
        for ptype in self.schema.fields:
            place = self.schema.position(ptype, SUBJECT_NAMES)
            if place is not None:
                found += [PolicyRule(ptype, row) for row in self.model.rows(ptype).matching(place, [subject])]
        for ptype in self.schema.links:
            rows = self.model.rows(ptype)
            links = [row for row in self.rm_map[ptype].graph.links_of(subject) if row in rows]
            found += [PolicyRule(ptype, row) for row in links]
        return tuple(found)

    @property
    def lock(self) -> threading.RLock:
        """Verrou à tenir pour poser plusieurs questions à un même état de la politique."""
        return self._sequence.lock

    def has_link(self, member: str, role: str, *domain: str) -> bool:
        """Dit si un sujet tient un rôle, directement ou par héritage (`g` seulement)."""
        return self.graph.has(member, role, *domain)

    def closure(self, member: str, *domain: str) -> tuple[str, ...]:
        """Rend un sujet et tous les rôles qu'il tient (`g` seulement)."""
        return self.graph.closure(member, *domain)

    @property
    def graph(self) -> RoleGraph:
        """Les liens `g` en service ; aucun si le modèle n'en a pas."""
        manager = self.rm_map.get("g") if self.rm_map else None
        found: RoleGraph | None = manager.graph if isinstance(manager, GraphRoleManager) else None
        return found if found is not None else RoleGraph()

    def prepare(self, loaded: Loaded) -> Prepared:
        """Construit une politique entière, sans toucher à celle qui décide ; se fait hors de la boucle d'événements.

        Args:
            loaded: règles de chaque type et leur rang, dans l'ordre.
        """
        with gc_paused():
            model = self.model.blank()
            model.sort_policies_by_priority()
            for ptype, known in loaded.rows.items():
                model.rows(ptype).fill(known)
            model, managers = self._wired(model)
            decider = self._compiler(model).decider(DEFAULT_CONTEXT)
            if decider is not None:
                decider.warm()
            return Prepared(model, managers, decider, loaded._replace(rows={}))

    def install(self, rules: Iterable[PolicyRule] | Prepared) -> None:
        """Met en service une politique entière, d'une seule affectation."""
        prepared = rules if isinstance(rules, Prepared) else self.prepare(Loaded(_by_type(rules)))
        before = self.model
        with self._sequence:
            self.model, self.rm_map, self._report, self._loaded = (*prepared[:2], prepared.loaded, True)
            self._keep(DEFAULT_CONTEXT, prepared.decider)
        if len(before) >= SHORT_POLICY:
            threading.Thread(target=before.dismantle, name="fastapi-acl-dismantle", daemon=True).start()

    def apply(self, change: PolicyChange) -> None:
        """Met en service un changement déjà validé par la base ; la taille de la politique n'y change rien."""
        if not self._loaded:
            self.install(())
        with self._sequence:
            self._replace(self._effective(change), dict(zip(change.added, change.ids, strict=False)))

    @contextmanager
    def trial(self, change: PolicyChange) -> Iterator[PolicyEnforcer]:
        """Décide, le temps d'un bloc sans attente, comme si le changement était fait ; puis tout redevient comme avant.

        Les autres fils d'exécution attendent la fin du bloc.
        """
        with self._sequence:
            effective = self._effective(change)
            lasts = {rule.ptype: self.model.rows(rule.ptype).last for rule in effective.added}
            ranks = self._replace(effective)
            try:
                yield self
            finally:
                self._replace(PolicyChange(removed=effective.added))
                for rule, rank in zip(effective.removed, ranks, strict=True):
                    self.model.rows(rule.ptype).restore(rule.values, rank)
                for ptype, last in lasts.items():
                    self.model.rows(ptype).last = last

    @contextmanager
    def trial_of(self, prepared: Prepared) -> Iterator[PolicyEnforcer]:
        """Décide, le temps d'un bloc sans attente, sous une politique entière construite à côté."""
        with self._sequence:
            kept = self._model, self.rm_map, self._deciders, self._walks, self._hot
            prepared.model.join(self._sequence)
            self._model, self.rm_map, self._deciders, self._walks = prepared.model, prepared.managers, {}, {}
            self._hot = None
            self._keep(DEFAULT_CONTEXT, prepared.decider)
            try:
                yield self
            finally:
                self._model, self.rm_map, self._deciders, self._walks, self._hot = kept

    def _effective(self, change: PolicyChange) -> PolicyChange:
        """Rend ce qu'un changement change vraiment, chaque règle une fois ; rien n'a encore été touché.

        Raises:
            InvalidRuleError: une règle n'a pas la longueur que le modèle demande, ou part sans être là.
        """
        for rule in change:
            if len(rule.values) != self._widths.get(rule.ptype):
                message = "Règle refusée : le modèle n’a pas de règle de cette forme ; rien n’a été changé."
                raise InvalidRuleError(message, rule=rule.as_json())
        rows = self.model.rows
        removed = _distinct(change.removed)
        missing = next((rule for rule in removed if rule.values not in rows(rule.ptype)), None)
        if missing is not None:
            message = "Une règle à retirer n’est pas en service ; rien n’a été changé."
            raise InvalidRuleError(message, rule=missing.as_json())
        fresh = [rule for rule in change.added if rule.values not in rows(rule.ptype) or rule in removed]
        return PolicyChange(added=_distinct(fresh), removed=removed)

    def _replace(self, change: PolicyChange, numbers: Mapping[PolicyRule, int] = MappingProxyType({})) -> list[Rank]:
        """Retire puis ajoute des règles, à leur numéro si elles en ont un ; rend le rang de celles qui partent."""
        with self._sequence:
            ranks = [self.model.rows(rule.ptype).rank(rule.values) for rule in change.removed]
            for rule in change.removed:
                self.model.rows(rule.ptype).remove(rule.values)
            for rule in change.added:
                rows = self.model.rows(rule.ptype)
                rows.place(rule.values, numbers.get(rule, rows.last + 1))
        return ranks

    def check(self, change: PolicyChange) -> None:
        """Vérifie la forme des règles ajoutées, et les chaînes de rôles qu'elles feraient.

        Raises:
            InvalidRuleError: une règle n'a pas la forme du modèle, ou les rôles feraient un cycle ou une chaîne
                trop longue.
        """
        for _ in self.checking(change):
            pass

    def checking(self, change: PolicyChange) -> Iterator[None]:
        """Fait la même vérification par petites étapes, entre lesquelles l'appelant peut rendre la main.

        Raises:
            InvalidRuleError: voir `check`.
        """
        for rule in change.added:
            self.schema.check(rule)
            yield
        for ptype in dict.fromkeys(rule.ptype for rule in change.added if rule.section == "g"):
            yield from LinksAfter.of(self.rm_map[ptype].graph, change, ptype).checking()

    @property
    def shares_domains(self) -> bool:
        """Vrai si un lien dans le domaine `*` vaut dans tous les domaines."""
        return bool(self._options["share_domains"])

    def _wired(self, model: IndexedModel) -> tuple[IndexedModel, dict[str, Any]]:
        """Relie les règles `g` d'un modèle strict à leurs liens."""
        managers: dict[str, Any] = {}
        for ptype, assertion in (model["g"] or {}).items():
            has_domains = _has_domains(assertion)
            shares = bool(self._options["share_domains"]) and has_domains
            graph = RoleGraph(shares_domains=shares, sequence=model.sequence)
            graph.fill(assertion.policy.ordered())
            managers[ptype] = assertion.rm = ReadOnlyRoleManager(graph, has_domains=has_domains, on_change=_nothing)
            assertion.policy.watch(LinkRows(graph))
        return model, managers

    @contextmanager
    def as_written(self) -> Iterator[None]:
        """Montre, le temps d'un bloc, ce que la transaction ambiante a écrit ; les décisions, elles, l'ignorent."""
        pending = self._writer.pending if self._writer is not None else None
        with self.trial(pending) if pending else nullcontext():
            yield

    def get_named_policy(self, ptype: str) -> list[list[str]]:
        """Rend les règles d'un type, comme une liste neuve."""
        with self.as_written():
            return list(super().get_named_policy(ptype))

    def get_filtered_named_policy(self, ptype: str, field_index: int, *field_values: str) -> list[list[str]]:
        """Rend les règles d'un type qu'un filtre retient."""
        with self.as_written():
            return list(super().get_filtered_named_policy(ptype, field_index, *field_values))

    def has_named_policy(self, ptype: str, *params: Any) -> bool:  # noqa: ANN401 - signature de pycasbin
        """Dit si une règle existe."""
        with self.as_written():
            return bool(super().has_named_policy(ptype, *params))

    def get_named_grouping_policy(self, ptype: str) -> list[list[str]]:
        """Rend les liens d'un type, comme une liste neuve."""
        with self.as_written():
            return list(super().get_named_grouping_policy(ptype))

    def get_filtered_named_grouping_policy(self, ptype: str, field_index: int, *field_values: str) -> list[list[str]]:
        """Rend les liens d'un type qu'un filtre retient."""
        with self.as_written():
            return list(super().get_filtered_named_grouping_policy(ptype, field_index, *field_values))

    def has_named_grouping_policy(self, ptype: str, *params: Any) -> bool:  # noqa: ANN401 - signature de pycasbin
        """Dit si un lien existe."""
        with self.as_written():
            return bool(super().has_named_grouping_policy(ptype, *params))

    async def load_policy(self) -> None:
        """Relit toute la politique, sans que la décision voie d'état intermédiaire ni qu'un changement se perde.

        Raises:
            PolicyUnreadableError: en mode strict, une ligne de la base pourrait refuser mais ne se lit pas ;
                l'ancienne politique reste en service.
        """
        if not self._strict:
            await self._load_as_casbin()
        elif self._writer is not None:
            await self._writer.reload()
        elif self.adapter is None:
            self.install(())
        elif not hasattr(self.adapter, "lines"):
            message = "cet adaptateur ne sait pas rendre ses lignes par paquets : passez par ACLManager, ou restez nu."
            raise ConfigurationError(message)
        else:
            await self._load_aside()

    async def _load_aside(self) -> None:
        """Lit et construit à côté ; ce qui change pendant ce temps est refait sur ce qui a été lu."""
        before = self.model
        with before.recording() as changes:
            prepared = await self.read()
        if self.model is not before:
            return  # une politique plus récente a été mise en service entre-temps
        for ptype, row, arrives in changes:
            number = before.rows(ptype).number(row) if arrives else None
            _redo(prepared.model.rows(ptype), row, number, arrives=arrives)
        self.install(prepared)

    async def read(self, *sources: AsyncGenerator[Sequence[RawLine]]) -> Prepared:
        """Lit des lignes et construit la politique à côté, hors de la boucle d'événements, sans la mettre en service.

        Args:
            sources: d'où viennent les lignes, par paquets ; la base par défaut.

        Raises:
            PolicyUnreadableError: une ligne pourrait refuser mais ne se lit pas.
        """
        reader = PolicyReader(self.schema)
        count = 0
        with gc_paused():
            for source in sources or (self.adapter.lines(),):
                async with aclosing(source) as packets:  # interrompue, la lecture rend sa connexion aussitôt
                    async for lines in packets:
                        count += len(lines)
                        await aside(partial(reader.feed, lines), is_short=count < SHORT_POLICY)
            return await aside(partial(self._finished, reader), is_short=count < SHORT_POLICY)

    def _finished(self, reader: PolicyReader) -> Prepared:
        """Construit la politique qu'un lecteur a lue."""
        prepared = self.prepare(reader.finish())
        reader.forget()
        return prepared

    async def _load_as_casbin(self) -> None:
        """Lit comme Casbin, dans un modèle à part ; ce qui change pendant la lecture est refait sur ce qui a été lu."""
        fresh = self.model.blank()
        with self.model.recording() as changes:
            await self.adapter.load_policy(fresh)
        for ptype, row, arrives in changes:
            _redo(fresh.rows(ptype), row, None, arrives=arrives)
        fresh.sort_policies_by_subject_hierarchy()
        fresh.sort_policies_by_priority()
        with self._sequence:
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
        """Refait les liens ; sans objet en mode strict, où ils suivent les règles."""
        if not self._strict:
            with self._sequence:
                self._build_links(self.model)

    def _build_links(self, model: IndexedModel) -> None:
        """Refait les liens d'un modèle, conditionnels compris : l'exécuteur asynchrone de Casbin oublie ceux-là."""
        for manager in (*self.rm_map.values(), *self.cond_rm_map.values()):
            manager.clear()
        model.build_role_links(self.rm_map)
        model.build_conditional_role_links(self.cond_rm_map)

    # --- écriture, en mode strict --------------------------------------------------------------------------------

    def _bound(self) -> PolicyWriter:
        """Rend ce par quoi passent les écritures."""
        if self._writer is None:
            message = "cet exécuteur strict n’est relié à aucune base : passez par ACLManager."
            raise ConfigurationError(message)
        return self._writer

    async def _write(self, build: Callable[[], PolicyChange]) -> bool:
        """Fait passer un changement par la base, qui décide ; False si elle a déjà la règle, ou ne l'a pas."""
        try:
            await self._bound().write(build)
        except (RuleAlreadyExistsError, RuleNotFoundError):
            return False
        return True

    async def _add_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> bool:
        if not self._strict:
            return bool(await super()._add_policy(sec, ptype, rule))
        return await self._add_policies(sec, ptype, [rule])

    async def _add_policies(self, sec: str, ptype: str, rules: Sequence[Sequence[str]]) -> bool:
        if not self._strict:
            return bool(await super()._add_policies(sec, ptype, rules))
        change = PolicyChange(added=_rules(ptype, rules))
        return bool(change) and await self._write(lambda: change)

    async def _remove_policy(self, sec: str, ptype: str, rule: Sequence[str]) -> bool:
        if not self._strict:
            return bool(await super()._remove_policy(sec, ptype, rule))
        return await self._remove_policies(sec, ptype, [rule])

    async def _remove_policies(self, sec: str, ptype: str, rules: Sequence[Sequence[str]]) -> bool:
        if not self._strict:
            return bool(await super()._remove_policies(sec, ptype, rules))
        change = PolicyChange(removed=_rules(ptype, rules))
        return bool(change) and await self._write(lambda: change)

    async def _update_policy(self, sec: str, ptype: str, old_rule: Sequence[str], new_rule: Sequence[str]) -> bool:
        if not self._strict:
            return bool(await super()._update_policy(sec, ptype, old_rule, new_rule))
        return await self._update_policies(sec, ptype, [old_rule], [new_rule])

    async def _update_policies(
        self, sec: str, ptype: str, old_rules: Sequence[Sequence[str]], new_rules: Sequence[Sequence[str]]
    ) -> bool:
        if not self._strict:
            return bool(await super()._update_policies(sec, ptype, old_rules, new_rules))
        change = PolicyChange(added=_rules(ptype, new_rules), removed=_rules(ptype, old_rules), in_place=True)
        return 0 < len(change.removed) == len(change.added) and await self._write(lambda: change)

    async def _update_filtered_policies(
        self, sec: str, ptype: str, new_rules: Sequence[Sequence[str]], field_index: int, *field_values: str
    ) -> bool:
        if not self._strict:
            return bool(await super()._update_filtered_policies(sec, ptype, new_rules, field_index, *field_values))
        _check_filter(field_values)
        added = _rules(ptype, new_rules)
        found: list[PolicyRule] = []

        def build() -> PolicyChange:
            found[:] = self._matching(sec, ptype, field_index, field_values)
            return PolicyChange(added=added, removed=tuple(found)) if found else PolicyChange()

        return await self._write(build) and bool(found)

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
        _check_filter(field_values)
        found: list[PolicyRule] = []

        def build() -> PolicyChange:
            found[:] = self._matching(sec, ptype, field_index, field_values)
            return PolicyChange(removed=tuple(found))

        return [list(rule.values) for rule in found] if await self._write(build) else []

    def _matching(self, sec: str, ptype: str, index: int, values: Sequence[str]) -> tuple[PolicyRule, ...]:
        """Rend les règles qu'un filtre retient."""
        if ptype not in (self.model[sec] or {}):
            return ()
        with self.as_written():
            return _rules(ptype, self.model.get_filtered_policy(sec, ptype, index, *values))

    async def delete_user(self, user: str) -> Any:  # noqa: ANN401 - ce que rend pycasbin
        """Retire les liens et les règles d'un sujet, d'un seul tenant."""
        async with self._together():
            found = await super().delete_user(user)
            return bool(found) if self._strict else found

    async def delete_role(self, role: str) -> Any:  # noqa: ANN401 - ce que rend pycasbin
        """Retire les liens et les règles d'un rôle, d'un seul tenant."""
        async with self._together():
            found = await super().delete_role(role)
            return bool(found) if self._strict else found

    def _together(self) -> AbstractAsyncContextManager[object]:
        """Réunit, en mode strict, plusieurs écritures en une transaction."""
        return self._bound().together() if self._strict else nullcontext()

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
            alone: vrai pour un lien seul, que l'adaptateur et le guetteur reçoivent comme tel.
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

    def get_named_role_manager(self, ptype: str) -> Any:  # noqa: ANN401 - type de pycasbin
        """Rend le gestionnaire d'un type de liens, conditionnels ou non ; Casbin oublie les premiers."""
        return self.cond_rm_map[ptype] if ptype in self.cond_rm_map else super().get_named_role_manager(ptype)

    async def get_all_roles_by_domain(self, domain: str) -> list[str]:
        """Rend les rôles que des liens donnent dans un domaine, que suivent les paramètres d'une condition."""
        links = self.model.model["g"]["g"]
        last = -1 - len(links.params_tokens)
        return list(dict.fromkeys(row[last - 1] for row in links.policy if row[last] == domain))

    async def get_implicit_roles_for_user(self, name: str, domain: str = "") -> list[str]:
        """Rend les rôles qu'un nom tient, directement ou par héritage ; une condition n'y est pas consultée."""
        found: list[str] = []
        waiting = [name]
        while waiting:
            member = waiting.pop(0)
            for manager in (*self.rm_map.values(), *self.cond_rm_map.values()):
                fresh = [role for role in dict.fromkeys(manager.get_roles(member, domain)) if role not in found]
                found += fresh
                waiting += fresh
        return found

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

    def load_model(self) -> None:
        """Relit le modèle ; refusé en mode strict."""
        if self._strict:
            self._refuse("load_model")
        super().load_model()

    def clear_policy(self) -> None:
        """Vide la mémoire, liens compris ; refusé en mode strict, où elle suit la base."""
        if self._strict:
            self._refuse("clear_policy")
        super().clear_policy()
        self.build_role_links()

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

    def set_effector(self, eft: Any) -> None:  # noqa: ANN401 - type de pycasbin
        """Remplace l'effet ; refusé en mode strict, où le modèle le dit."""
        if self._strict:
            self._refuse("set_effector")
        super().set_effector(eft)

    def add_named_matching_func(self, ptype: str, fn: Callable[[str, str], bool]) -> bool:
        """Ajoute une comparaison de noms de rôles ; refusé en mode strict, où un rôle est un nom exact."""
        if self._strict:
            self._refuse("add_named_matching_func")
        return ptype not in self.cond_rm_map and bool(super().add_named_matching_func(ptype, fn))

    def add_named_domain_matching_func(self, ptype: str, fn: Callable[[str, str], bool]) -> bool:
        """Ajoute une comparaison de domaines ; refusé en mode strict."""
        if self._strict:
            self._refuse("add_named_domain_matching_func")
        return ptype not in self.cond_rm_map and bool(super().add_named_domain_matching_func(ptype, fn))

    def _refuse(self, name: str) -> NoReturn:
        """Refuse un appel qui ouvrirait l'accès ou contournerait la base."""
        message = f"« {name} » n’est pas admis sur l’exécuteur d’ACLManager : il contournerait la base ou la décision."
        raise ConfigurationError(message)


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


def _nothing() -> None:
    """N'écoute pas."""


def _distinct(rules: Sequence[PolicyRule]) -> tuple[PolicyRule, ...]:
    """Rend des règles, chacune une fois."""
    return tuple(rules) if len(rules) < 2 else tuple(dict.fromkeys(rules))  # noqa: PLR2004 - une seule ne se répète pas


def _check_filter(values: Sequence[str]) -> None:
    """Refuse un filtre vide, qui retirerait toutes les règles."""
    if not any(values):
        message = "Un retrait filtré demande au moins une valeur : un filtre vide retirerait toutes les règles."
        raise InvalidRuleError(message)


def _rules(ptype: str, rows: Iterable[Sequence[str]]) -> tuple[PolicyRule, ...]:
    """Fait des règles d'un type."""
    return tuple(PolicyRule.of(ptype, row) for row in rows)


def _split(rvals: tuple[Any, ...]) -> tuple[Context, tuple[Any, ...]]:
    """Sépare le contexte des valeurs de la requête."""
    if rvals and isinstance(rvals[0], EnforceContext):
        context = rvals[0]
        return (context.rtype, context.ptype, context.etype, context.mtype), rvals[1:]
    return DEFAULT_CONTEXT, rvals


def _has_domains(assertion: Any) -> bool:  # noqa: ANN401 - types de pycasbin
    """Dit si les liens d'un type portent un domaine, outre le membre et le rôle."""
    return len(assertion.tokens) > 2  # noqa: PLR2004 - membre et rôle


def _replace_matcher(model: IndexedModel, name: str, matcher: str) -> None:
    """Met un matcher à la place d'un autre, dans ce modèle et dans aucun autre."""
    replaced = model["m"][name].emptied(model.sequence, _nothing)
    replaced.value = matcher
    model["m"][name] = replaced


def _conditional(assertion: Any) -> Any:  # noqa: ANN401 - types de pycasbin
    """Fait le gestionnaire de rôles d'un type dont les liens ont une condition."""
    kind = ConditionalDomainRoles if _has_domains(assertion) else ConditionalRoles
    return kind(MAX_HIERARCHY_LEVEL)


def _redo(rows: Rows, row: Row, number: int | None, *, arrives: bool) -> None:
    """Refait un changement arrivé pendant une lecture, si elle ne l'a pas vu."""
    if arrives and row not in rows:
        rows.append(row) if number is None else rows.place(row, number)
    elif not arrives and row in rows:
        rows.remove(row)


def _by_type(rules: Iterable[PolicyRule]) -> dict[str, dict[Row, int]]:
    """Range des règles par type, dans l'ordre."""
    found: dict[str, dict[Row, int]] = {}
    for rank, rule in enumerate(rules, start=1):
        found.setdefault(rule.ptype, {}).setdefault(rule.values, rank)
    return found
