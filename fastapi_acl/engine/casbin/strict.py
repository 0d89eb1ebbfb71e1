"""L'exécuteur strict, celui de la bibliothèque : il échoue fermé, et toute écriture passe par la base avant la mémoire.

Une politique vide ou non chargée refuse, une erreur d'évaluation refuse, et ce qui ouvrirait l'accès ou contournerait
la base n'est pas admis.
"""

from __future__ import annotations

import threading
from contextlib import aclosing, contextmanager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, final

from fastapi_acl.engine.casbin.compiler import DEFAULT_CONTEXT, Compiler
from fastapi_acl.engine.casbin.domains import spread
from fastapi_acl.engine.casbin.enforcer import PolicyEnforcer, links_have_domains, nothing, redo
from fastapi_acl.engine.casbin.functions import check_function, strict_functions
from fastapi_acl.engine.casbin.role_manager import (
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
from fastapi_acl.shared.policy import PolicyChange, PolicyRule

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from casbin.model import Model

    from fastapi_acl.engine.casbin.compiler import Context
    from fastapi_acl.engine.casbin.model import IndexedModel
    from fastapi_acl.engine.casbin.model_source import ModelSource
    from fastapi_acl.engine.kernel.forks import AnyDecider
    from fastapi_acl.engine.kernel.loading import RawLine
    from fastapi_acl.engine.kernel.rows import Rank, Row
    from fastapi_acl.engine.kernel.strict_evaluation import StrictWalk


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
    """Ce par quoi passent les écritures : la base d'abord, la mémoire après validation."""

    @property
    def pending(self) -> PolicyChange:
        """Effet net de ce que la transaction ambiante a déjà écrit."""

    def together(self) -> AbstractAsyncContextManager[object]:
        """Réunit plusieurs écritures en une transaction."""

    async def reload(self) -> None:
        """Relit toutes les règles, dans l'ordre du journal."""

    async def write(self, build: Callable[[], PolicyChange]) -> None:
        """Fait un changement, construit sous le verrou du journal, mémoires à jour ; vide, il n'en fait aucun."""


@final
class StrictEnforcer(PolicyEnforcer):
    """Décide en échouant fermé ; c'est l'exécuteur que rend `ACLManager.get_enforcer()`."""

    def __init__(  # noqa: PLR0913 - les deux premiers sont ceux de Casbin, les autres ceux du mode strict
        self,
        model: Model | str | None = None,
        adapter: Any = None,  # noqa: ANN401 - type de pycasbin
        *,
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
            allow_eval: admet `eval()` dans le matcher.
            raw_subjects: n'exige pas de préfixe aux sujets.
            share_domains: une règle ou un lien dans le domaine `*` vaut dans tous les domaines ; None si rien ne le
                dit, et qu'aucune règle n'est admise dans `*`.
            owner_attribute: attribut qui porte le propriétaire d'un objet pour `aclOwns`.
            source: d'où vient le modèle, pour que les erreurs en citent la ligne.

        Raises:
            ConfigurationError: le matcher emploie `eval()` sans que ce soit admis, le modèle a des rôles conditionnels,
                ou `*` ne peut pas y valoir dans tous les domaines.
        """
        self.source = source
        self._owner_attribute = owner_attribute
        self._shares_domains = share_domains
        self._walks: dict[Context, StrictWalk] = {}
        self._loaded = self._sealed = False
        self._writer: PolicyWriter | None = None
        self._report = Loaded({})
        super().__init__(model, adapter)
        self.auto_build_role_links = False
        blank = self.model.blank()
        if share_domains:
            spread(blank, partial(_replace_matcher, blank))
        self.schema = PolicySchema.of(
            blank,
            Lexicon.of(blank, self.fm.get_functions(), is_whole=True),
            raw_subjects=raw_subjects,
            shares_domains=share_domains,
        )
        self._widths = {ptype: len(self.schema.columns(ptype)) for ptype in (*self.schema.fields, *self.schema.links)}
        self._check_model(allow_eval=allow_eval)
        self.model, self.rm_map = self._wired(blank)
        self._sealed = True

    def _check_model(self, *, allow_eval: bool) -> None:
        """Refuse un modèle que le mode strict n'admet pas.

        Raises:
            ConfigurationError: il emploie `eval()` sans que ce soit admis, ou a des rôles conditionnels.
        """
        if self.schema.uses_eval and not allow_eval:
            message = (
                "le matcher emploie eval(), qui exécute des expressions lues dans les règles : réécrivez-le, "
                "ou réglez ACL_ALLOW_EVAL=true si toutes les règles sont de confiance."
            )
            raise ConfigurationError(message)
        if self.cond_rm_map:
            message = "le modèle a des rôles conditionnels, que seul l’exécuteur nu (PolicyEnforcer) sait employer."
            raise ConfigurationError(message)

    def bind(self, writer: PolicyWriter) -> None:
        """Donne ce par quoi passent les écritures."""
        self._writer = writer

    # --- ce que Casbin lit et remplace --------------------------------------------------------------------------------

    def _own_functions(self) -> Mapping[str, Callable[..., object]]:
        """Ajoute les fonctions que Casbin documente sans les inscrire."""
        return strict_functions(self._owner_attribute)

    def _check_function(self, name: str, function: Any) -> None:  # noqa: ANN401 - fonction de l'application
        """Refuse une fonction qui ne saurait répondre, ou qui en remplacerait une de la décision."""
        check_function(name, function, self.model["g"] or ())

    def _check_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - la valeur d'une propriété
        """Refuse de couper l'exécution, ce qui permettrait tout."""
        if not enabled:
            self._refuse("enabled = False")

    def init_rm_map(self) -> None:
        """Fait les gestionnaires de rôles, une fois ; ils suivent ensuite les règles."""
        if not self._sealed:
            super().init_rm_map()

    def _forget_compiled(self) -> None:
        """Oublie aussi ce qui décide règle par règle."""
        with self._sequence:
            super()._forget_compiled()
            self._walks = {}

    # --- décision -----------------------------------------------------------------------------------------------------

    def enforce_ex(self, *rvals: Any) -> tuple[bool, list[str]]:  # noqa: ANN401 - signature de pycasbin
        """Décide et rend la règle qui a décidé ; toute erreur est un refus que l'appelant voit.

        Raises:
            PolicyUnavailableError: aucune politique n'est chargée.
            DecisionFailedError: l'évaluation a échoué.
        """
        if not self._loaded:
            raise PolicyUnavailableError
        try:
            return self._consistent(rvals)
        except ACLException:
            raise
        except Exception as error:
            raise failure(error) from error

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

    def _walked(self, context: Context, values: tuple[Any, ...], rvals: tuple[Any, ...]) -> tuple[bool, list[str]]:
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

    def _compiler(self, model: IndexedModel) -> Compiler:
        """Rend de quoi compiler un modèle, dont seul le modèle dit l'effet."""
        return Compiler(model, self.fm.get_functions(), None)

    def _is_direct(self, decider: AnyDecider) -> bool:
        """Dit si une décision peut aller tout droit : il faut qu'une politique soit en service."""
        return self._loaded and super()._is_direct(decider)

    # --- règles en service --------------------------------------------------------------------------------------------

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
    def trial(self, change: PolicyChange) -> Iterator[StrictEnforcer]:
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
    def trial_of(self, prepared: Prepared) -> Iterator[StrictEnforcer]:
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
        return bool(self._shares_domains)

    def _wired(self, model: IndexedModel) -> tuple[IndexedModel, dict[str, Any]]:
        """Relie les règles `g` d'un modèle strict à leurs liens."""
        managers: dict[str, Any] = {}
        for ptype, assertion in (model["g"] or {}).items():
            has_domains = links_have_domains(assertion)
            shares = self.shares_domains and has_domains
            graph = RoleGraph(shares_domains=shares, sequence=model.sequence)
            graph.fill(assertion.policy.ordered())
            managers[ptype] = assertion.rm = ReadOnlyRoleManager(graph, has_domains=has_domains, on_change=nothing)
            assertion.policy.watch(LinkRows(graph))
        return model, managers

    @contextmanager
    def as_written(self) -> Iterator[None]:
        """Montre, le temps d'un bloc, ce que la transaction ambiante a écrit ; les décisions, elles, l'ignorent."""
        pending = self._writer.pending if self._writer is not None else None
        with self.trial(pending) if pending else nullcontext():
            yield

    # --- lecture ------------------------------------------------------------------------------------------------------

    def get_named_policy(self, ptype: str) -> list[list[str]]:
        """Rend les règles d'un type, comme une liste neuve."""
        with self.as_written():
            return super().get_named_policy(ptype)

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
            return super().get_named_grouping_policy(ptype)

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
            PolicyUnreadableError: une ligne de la base pourrait refuser mais ne se lit pas ;
                l'ancienne politique reste en service.
        """
        if self._writer is not None:
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
            redo(prepared.model.rows(ptype), row, number, arrives=arrives)
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

    def build_role_links(self) -> None:
        """Ne fait rien : les liens suivent les règles."""

    # --- écriture -----------------------------------------------------------------------------------------------------

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
        """Rend les règles qu'un filtre retient."""
        if ptype not in (self.model[sec] or {}):
            return ()
        with self.as_written():
            return _rules(ptype, self.model.get_filtered_policy(sec, ptype, index, *values))

    async def delete_user(self, user: str) -> bool:
        """Retire les liens et les règles d'un sujet, d'un seul tenant."""
        async with self._bound().together():
            return bool(await super().delete_user(user))

    async def delete_role(self, role: str) -> bool:
        """Retire les liens et les règles d'un rôle, d'un seul tenant."""
        async with self._bound().together():
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
        message = f"« {name} » n’est pas admis sur l’exécuteur d’ACLManager : il contournerait la base ou la décision."
        raise ConfigurationError(message)


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


def _replace_matcher(model: IndexedModel, name: str, matcher: str) -> None:
    """Met un matcher à la place d'un autre, dans ce modèle et dans aucun autre."""
    replaced = model["m"][name].emptied(model.sequence, nothing)
    replaced.value = matcher
    model["m"][name] = replaced


def _by_type(rules: Iterable[PolicyRule]) -> dict[str, dict[Row, int]]:
    """Range des règles par type, dans l'ordre."""
    found: dict[str, dict[Row, int]] = {}
    for rank, rule in enumerate(rules, start=1):
        found.setdefault(rule.ptype, {}).setdefault(rule.values, rank)
    return found
