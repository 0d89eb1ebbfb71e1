"""La politique en service : ses règles, leurs liens, et ce qui en décide ; elle échoue fermée."""

from __future__ import annotations

import threading
from contextlib import aclosing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, final

from fastapi_acl.engine.kernel.decisions import DEFAULT_CONTEXT, Context, Decisions, Judge, decide
from fastapi_acl.engine.kernel.links import LinksAfter
from fastapi_acl.engine.kernel.loading import Loaded, PolicyReader
from fastapi_acl.engine.kernel.pacing import SHORT_POLICY, aside, gc_paused
from fastapi_acl.engine.kernel.role_graph import RoleGraph
from fastapi_acl.engine.kernel.rule_set import RuleSet, by_type
from fastapi_acl.engine.kernel.schema import SUBJECT_NAMES
from fastapi_acl.engine.kernel.strict_evaluation import failure
from fastapi_acl.shared.exceptions import ACLException, DecisionFailedError, PolicyUnavailableError
from fastapi_acl.shared.policy import PolicyChange, PolicyRule

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence

    from fastapi_acl.engine.kernel.forks import AnyDecider
    from fastapi_acl.engine.kernel.loading import RawLine
    from fastapi_acl.engine.kernel.plan import MatcherPlan
    from fastapi_acl.engine.kernel.rows import Rows
    from fastapi_acl.engine.kernel.schema import PolicySchema
    from fastapi_acl.engine.kernel.strict_evaluation import StrictWalk


class Compiler(Protocol):
    """Ce qui compile un modèle sur des règles."""

    def plan(self, context: Context) -> MatcherPlan:
        """Lit le matcher d'un contexte."""

    def decider(self, context: Context) -> AnyDecider | None:
        """Renvoie de quoi décider dans un contexte ; None si l'index ne sait pas."""

    def is_direct(self, decider: AnyDecider) -> bool:
        """Dit si une décision peut aller tout droit."""

    def arity(self, context: Context) -> int:
        """Renvoie le nombre de valeurs d'une requête."""

    def walk(self, context: Context) -> StrictWalk:
        """Renvoie de quoi décider règle par règle.

        Raises:
            DecisionFailedError: le modèle n'a pas de quoi décider dans ce contexte.
        """


class Definitions(Protocol):
    """Ce qu'un modèle définit, quelles que soient les règles."""

    schema: PolicySchema
    functions: Mapping[str, Callable[..., object]]

    def compiler(self, rules: RuleSet) -> Compiler:
        """Renvoie de quoi compiler le modèle sur des règles."""

    def listen(self, forget: Callable[[], None]) -> None:
        """Retient ce qu'il faut appeler quand une fonction ou une définition change."""


class Prepared(NamedTuple):
    """Une politique entière, construite à côté de celle qui décide.

    Attributes:
        rules: ses règles.
        compiler: de quoi compiler le modèle sur elles.
        decider: de quoi décider dans le contexte habituel ; None si l'index ne sait pas.
        definitions: numéro des définitions sous lesquelles il a été compilé.
        loaded: ce que la lecture a rencontré.
    """

    rules: RuleSet
    compiler: Compiler
    decider: AnyDecider | None
    definitions: int
    loaded: Loaded = Loaded({})


@final
class Policy(Judge):
    """La politique qu'un processus a en service.

    Vide ou non chargée, elle refuse ; une erreur d'évaluation refuse aussi, et se voit.
    """

    def __init__(self, definitions: Definitions) -> None:
        """Part sans règle : rien n'est décidé avant la première mise en service.

        Args:
            definitions: ce que le modèle définit.
        """
        self.schema = definitions.schema
        self.functions = definitions.functions
        self._definitions = definitions
        self._decisions = Decisions(self)
        self._walks: dict[Context, StrictWalk] = {}
        self._is_loaded = False
        self._redefined = 0
        self._state = self.prepare(Loaded({}))
        self._state.rules.join(self._decisions.sequence)
        definitions.listen(self._forget_definitions)

    # --- décision -----------------------------------------------------------------------------------------------------

    decide = decide

    def explain(self, *values: Any, context: Context = DEFAULT_CONTEXT) -> tuple[bool, Sequence[Any]]:  # noqa: ANN401 - valeurs d'une requête
        """Décide, et renvoie la règle décisive, vide s'il n'y en a pas ; toute erreur est un refus que l'appelant voit.

        Args:
            values: valeurs de la requête, dans l'ordre du modèle.
            context: types dont la décision se fait.

        Raises:
            PolicyUnavailableError: aucune politique n'est chargée.
            DecisionFailedError: l'évaluation a échoué.
        """
        if not self._is_loaded:
            raise PolicyUnavailableError
        try:
            allowed, row = self._decisions.explain(values, context)
        except ACLException:
            raise
        except Exception as error:
            raise failure(error) from error
        return allowed, row or ()

    def _decide_at_length(self, values: tuple[Any, ...]) -> bool:
        """Décide sans chemin tout droit."""
        return self.explain(*values)[0]

    def grants(self, *values: Any) -> bool:  # noqa: ANN401 - valeurs d'une requête
        """Dit si une règle accorde la requête, refus mis à part ; où cela ne se lit pas, c'est la décision même."""
        with self.lock:
            decider = self._decisions.decider() if self._is_loaded else None
            found = decider.grants(values) if decider is not None and decider.arity == len(values) else None
        return self.decide(*values) if found is None else found

    def granting(self, request: Sequence[str]) -> list[PolicyRule] | None:
        """Renvoie les règles qui accordent dans les cases d'une requête ; None si l'index ne peut pas répondre."""
        with self.lock:
            decider = self._decisions.decider()
            rows = decider.list_granting(request) if decider is not None else None
        return None if rows is None else [PolicyRule("p", row) for row in rows]

    def compile(self, context: Context) -> AnyDecider | None:
        """Compile un contexte sur les règles en service."""
        return self._state.compiler.decider(context)

    def is_direct(self, decider: AnyDecider) -> bool:
        """Dit si une décision peut aller tout droit : il faut qu'une politique soit en service."""
        return self._is_loaded and self._state.compiler.is_direct(decider)

    def walk(self, context: Context, values: tuple[Any, ...]) -> tuple[bool, Sequence[Any] | None]:
        """Décide règle par règle, sans jamais prendre pour vrai ce qui ne l'est pas ; une politique vide refuse."""
        expected = self._state.compiler.arity(context)
        if len(values) != expected:
            raise DecisionFailedError(reason=f"la requête a {len(values)} valeurs, le modèle en attend {expected}")
        if self.schema.names_rules and not self.rows(context[1]):
            return False, None
        return self._walk(context).explain(values)

    def _walk(self, context: Context) -> StrictWalk:
        """Renvoie de quoi décider règle par règle dans un contexte ; compilé à la première demande."""
        try:
            return self._walks[context]
        except KeyError:
            with self.lock:
                self._walks[context] = self._state.compiler.walk(context)
                return self._walks[context]

    def forget(self) -> None:
        """Oublie ce qui a été compilé."""
        with self._decisions.sequence:
            self._decisions.forget()
            self._walks = {}

    def _forget_definitions(self) -> None:
        """Oublie ce qui a été compilé, et ce qui se compile à côté : une fonction ou une définition a changé."""
        with self._decisions.sequence:
            self._redefined += 1
            self.forget()

    # --- règles en service --------------------------------------------------------------------------------------------

    @property
    def decisions(self) -> Decisions:
        """Ce qui décide ; l'enforcer de Casbin décide par lui."""
        return self._decisions

    @property
    def state(self) -> Prepared:
        """La politique en service ; une autre, c'est que toutes les règles ont été relues."""
        return self._state

    @property
    def lock(self) -> threading.RLock:
        """Verrou à tenir pour poser plusieurs questions à un même état de la politique."""
        return self._decisions.sequence.lock

    @property
    def plan(self) -> MatcherPlan:
        """Ce que l'index cherche pour décider, ou pourquoi il n'y en a pas."""
        return self._state.compiler.plan(DEFAULT_CONTEXT)

    @property
    def is_loaded(self) -> bool:
        """Vrai si une politique, fût-elle vide, est en service."""
        return self._is_loaded

    @property
    def skipped_rows(self) -> int:
        """Nombre de lignes que la dernière lecture a écartées : illisibles, elles ne pouvaient qu'accorder."""
        return self._state.loaded.skipped

    @property
    def undecided(self) -> str:
        """Phrase sur une ligne que la dernière lecture a écartée, faute de savoir ce que vaut le domaine `*`."""
        return self._state.loaded.undecided

    @property
    def repeated(self) -> frozenset[PolicyRule]:
        """Règles que la dernière lecture a trouvées sur plusieurs lignes, ce qui ne se fait qu'à la main."""
        return self._state.loaded.twins

    @property
    def rules(self) -> tuple[PolicyRule, ...]:
        """Toutes les règles en service, type par type, dans l'ordre."""
        with self.lock:
            return self._state.rules.list_rules()

    def rows(self, ptype: str) -> Rows:
        """Renvoie les règles d'un type."""
        return self._state.rules.rows[ptype]

    def holds(self, rule: PolicyRule) -> bool:
        """Dit si la règle est en service."""
        with self.lock:
            return rule in self._state.rules

    def numbers(self, rules: Iterable[PolicyRule]) -> tuple[int, ...]:
        """Renvoie les numéros de règles en service."""
        with self.lock:
            return tuple(self.rows(rule.ptype).number(rule.values) for rule in rules)

    def rules_of(self, subjects: Iterable[str]) -> list[PolicyRule]:
        """Renvoie les règles `p` dont le sujet est l'un de ceux-ci."""
        place = self.schema.position("p", SUBJECT_NAMES)
        if place is None:
            return []
        with self.lock:
            rows = self.rows("p")
            return [PolicyRule("p", row) for subject in subjects for row in rows.matching(place, [subject])]

    def rules_naming(self, subject: str) -> tuple[PolicyRule, ...]:
        """Renvoie les règles qui nomment un sujet : celles qui lui donnent ou lui refusent, et ses liens."""
        with self.lock:
            return self._state.rules.naming(subject)

    @property
    def subjects(self) -> list[str]:
        """Tous les sujets et membres que les règles nomment ; lit toute la politique."""
        with self.lock:
            return self._state.rules.subjects()

    @property
    def graph(self) -> RoleGraph:
        """Les liens `g` en service ; aucun si le modèle n'en a pas."""
        found = self._state.rules.graphs.get("g")
        return found if found is not None else RoleGraph()

    def graph_of(self, ptype: str) -> RoleGraph:
        """Renvoie les liens d'un type `g`."""
        return self._state.rules.graphs[ptype]

    def has_link(self, member: str, role: str, *domain: str) -> bool:
        """Dit si un sujet tient un rôle, directement ou par héritage (`g` seulement)."""
        with self.lock:
            return self.graph.has(member, role, *domain)

    def closure(self, member: str, *domain: str) -> tuple[str, ...]:
        """Renvoie un sujet et tous les rôles qu'il tient (`g` seulement)."""
        with self.lock:
            return self.graph.closure(member, *domain)

    # --- mise en service ----------------------------------------------------------------------------------------------

    async def read(self, *sources: AsyncGenerator[Sequence[RawLine]]) -> Prepared:
        """Lit des lignes et construit la politique à côté, hors de la boucle d'événements, sans la mettre en service.

        Args:
            sources: d'où viennent les lignes, par paquets.

        Raises:
            PolicyUnreadableError: une ligne pourrait refuser mais ne se lit pas.
        """
        reader = PolicyReader(self.schema)
        count = 0
        with gc_paused():
            for source in sources:
                async with aclosing(source) as packets:  # interrompue, la lecture rend sa connexion aussitôt
                    async for lines in packets:
                        count += len(lines)
                        await aside(partial(reader.feed, lines), is_short=count < SHORT_POLICY)
            return await aside(partial(self._prepare_read, reader), is_short=count < SHORT_POLICY)

    def _prepare_read(self, reader: PolicyReader) -> Prepared:
        """Construit la politique qu'un lecteur a lue."""
        prepared = self.prepare(reader.finish())
        reader.forget()
        return prepared

    def prepare(self, loaded: Loaded) -> Prepared:
        """Construit une politique entière, sans toucher à celle qui décide ; se fait hors de la boucle d'événements.

        Args:
            loaded: règles de chaque type et leur rang, dans l'ordre.
        """
        with gc_paused():
            rules = RuleSet.of(self.schema, loaded.rows)
            definitions = self._redefined  # le numéro d'abord : ce qu'il date se lit ensuite
            compiler = self._definitions.compiler(rules)
            decider = compiler.decider(DEFAULT_CONTEXT)
            if decider is not None:
                decider.warm()
            return Prepared(rules, compiler, decider, definitions, loaded._replace(rows={}))

    def _recompile(self, prepared: Prepared) -> Prepared:
        """Renvoie une politique construite à côté ; recompilée, si une fonction ou une définition a changé depuis."""
        if prepared.definitions == self._redefined:
            return prepared
        return prepared._replace(decider=prepared.compiler.decider(DEFAULT_CONTEXT), definitions=self._redefined)

    def install(self, rules: Iterable[PolicyRule] | Prepared) -> None:
        """Met en service une politique entière, d'une seule affectation."""
        given = rules if isinstance(rules, Prepared) else self.prepare(Loaded(by_type(rules)))
        with self._decisions.sequence:
            before, prepared = self._state.rules, self._recompile(given)
            _stop_stale(given, prepared)
            prepared.rules.join(self._decisions.sequence)
            self.forget()
            self._state, self._is_loaded = prepared, True
            self._decisions.keep(prepared.decider)
        if len(before) >= SHORT_POLICY:
            threading.Thread(target=before.dismantle, name="fastapi-acl-dismantle", daemon=True).start()

    def apply(self, change: PolicyChange) -> None:
        """Met en service un changement déjà validé par la base ; la taille de la politique n'y change rien."""
        if not self._is_loaded:
            self.install(())
        with self._decisions.sequence:
            rules = self._state.rules
            rules.replace(rules.effective(change), dict(zip(change.added, change.ids, strict=False)))

    # --- essais -------------------------------------------------------------------------------------------------------

    @contextmanager
    def trial(self, change: PolicyChange) -> Iterator[Policy]:
        """Décide, le temps d'un bloc sans attente, comme si le changement était fait ; puis tout redevient comme avant.

        Les autres fils d'exécution attendent la fin du bloc.
        """
        with self._decisions.sequence:
            rules = self._state.rules
            effective = rules.effective(change)
            lasts = rules.lasts(effective.added)
            ranks = rules.replace(effective)
            try:
                yield self
            finally:
                rules.restore(effective, ranks, lasts)

    @contextmanager
    def trial_of(self, prepared: Prepared) -> Iterator[Policy]:
        """Décide, le temps d'un bloc sans attente, sous une politique entière construite à côté."""
        with self._decisions.sequence:
            kept, tried = (self._state, self._walks), self._recompile(prepared)
            tried.rules.join(self._decisions.sequence)
            self._state, self._walks = tried, {}
            try:
                with self._decisions.decide_by(tried.decider):
                    yield self
            finally:
                self._state, self._walks = kept
                _stop_stale(tried, prepared)

    def check(self, change: PolicyChange) -> None:
        """Vérifie la forme des règles ajoutées, et les chaînes de rôles qu'elles feraient.

        Raises:
            InvalidRuleError: une règle n'a pas la forme du modèle, ou les rôles feraient un cycle ou une chaîne
                trop longue.
        """
        for _ in self.check_by_steps(change):
            pass

    def check_by_steps(self, change: PolicyChange) -> Iterator[None]:
        """Fait la même vérification par petites étapes, entre lesquelles l'appelant peut rendre la main.

        Raises:
            InvalidRuleError: voir `check`.
        """
        for rule in change.added:
            self.schema.check(rule)
            yield
        for ptype in dict.fromkeys(rule.ptype for rule in change.added if rule.section == "g"):
            yield from LinksAfter.of(self.graph_of(ptype), change, ptype).checking()


def _stop_stale(stale: Prepared, kept: Prepared) -> None:
    """Fait cesser de suivre les règles à ce qui décidait d'une politique, si autre chose en décide."""
    if stale.decider is not None and stale.decider is not kept.decider:
        stale.decider.stop()
