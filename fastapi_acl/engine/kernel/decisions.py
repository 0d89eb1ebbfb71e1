"""Ce qui décide, compilé une fois par contexte : des lectures sans verrou, refaites si la politique a changé."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi_acl.engine.kernel.sequence import SequenceLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastapi_acl.engine.kernel.forks import AnyDecider

Context = tuple[str, str, str, str]
"""Types `r`, `p`, `e` et `m` d'une décision."""

DEFAULT_CONTEXT: Final[Context] = ("r", "p", "e", "m")


class Judge(Protocol):
    """Ce que les décisions demandent à qui tient le modèle et les règles."""

    def compile(self, context: Context) -> AnyDecider | None:
        """Compile un contexte ; None si l'index ne sait pas y décider."""

    def is_direct(self, decider: AnyDecider) -> bool:
        """Dit si une décision du contexte habituel peut aller tout droit."""

    def walk(self, context: Context, values: tuple[Any, ...]) -> tuple[bool, Sequence[Any] | None]:
        """Décide règle par règle, et renvoie la règle décisive."""


class Decisions:
    """Les décisions d'une politique.

    Attributes:
        sequence: verrou que prend ce qui change les règles.
        hot: décision du contexte habituel, quand elle peut aller tout droit.
    """

    __slots__ = ("_deciders", "_judge", "_note", "hot", "sequence")

    def __init__(self, judge: Judge, note: Callable[[Sequence[Any], bool], None] | None = None) -> None:
        """Ne compile encore rien.

        Args:
            judge: ce qui tient le modèle et les règles.
            note: reçoit les valeurs et la réponse de chaque décision de l'index qui ne va pas tout droit.
        """
        self.sequence = SequenceLock()
        self.hot: Callable[..., bool | None] | None = None
        self._judge = judge
        self._note = note
        self._deciders: dict[Context, AnyDecider | None] = {}

    def explain(self, values: tuple[Any, ...], context: Context = DEFAULT_CONTEXT) -> tuple[bool, Sequence[Any] | None]:
        """Décide sur un seul état de la politique, et renvoie la règle décisive.

        Si la politique change pendant la lecture, elle recommence sous le verrou.

        Args:
            values: valeurs de la requête.
            context: types dont la décision se fait.
        """
        version = self.sequence.version
        if not version & 1:
            try:
                answer = self._explain_once(values, context)
            except Exception:
                if version == self.sequence.version:
                    raise
            else:
                if version == self.sequence.version:
                    return answer
        with self.sequence.lock:
            return self._explain_once(values, context)

    def _explain_once(self, values: tuple[Any, ...], context: Context) -> tuple[bool, Sequence[Any] | None]:
        """Décide par l'index s'il le peut, sinon règle par règle."""
        decider = self.decider(context)
        found = decider.explain(values) if decider is not None and decider.arity == len(values) else None
        if found is None:
            return self._judge.walk(context, values)
        if self._note is not None:
            self._note(values, found[0])
        return found

    def decider(self, context: Context = DEFAULT_CONTEXT) -> AnyDecider | None:
        """Renvoie de quoi décider dans un contexte ; fait à la première demande, puis tenu à jour."""
        try:
            return self._deciders[context]
        except KeyError:
            with self.sequence.lock:
                if context not in self._deciders:
                    self.keep(self._judge.compile(context), context)
                return self._deciders[context]

    def keep(self, decider: AnyDecider | None, context: Context = DEFAULT_CONTEXT) -> None:
        """Retient de quoi décider ; dans le contexte habituel, la décision y va désormais tout droit."""
        replaced = self._deciders.get(context)
        if replaced is not None:
            replaced.stop()
        self._deciders[context] = decider
        if context == DEFAULT_CONTEXT and decider is not None and self._judge.is_direct(decider):
            self.hot = decider.decide

    def forget(self) -> None:
        """Oublie ce qui a été compilé : le modèle, une fonction ou un gestionnaire de rôles a changé.

        Une décision en cours le voit au numéro du verrou, et recommence.
        """
        with self.sequence:
            self.hot = None
            deciders, self._deciders = self._deciders, {}
            for decider in deciders.values():
                if decider is not None:
                    decider.stop()

    @contextmanager
    def decide_by(self, decider: AnyDecider | None) -> Iterator[None]:
        """Décide par un autre, le temps d'un bloc que l'appelant tient sous le verrou."""
        kept = self._deciders, self.hot
        self._deciders, self.hot = {}, None
        self.keep(decider)
        try:
            yield
        finally:
            self._deciders, self.hot = kept


class Decides(Protocol):
    """Ce qui a des décisions, et sait les prendre quand elles ne vont pas tout droit."""

    _decisions: Decisions

    def _decide_at_length(self, values: tuple[Any, ...]) -> bool:
        """Décide sans chemin tout droit, et dit ce qui l'en empêche."""


def decide(self: Decides, *values: Any) -> bool:  # noqa: ANN401 - valeurs d'une requête
    """Décide ; méthode de plusieurs classes, dont le chemin le plus pris ne peut pas coûter un appel de plus."""
    decisions = self._decisions
    version, hot = decisions.sequence.version, decisions.hot  # le numéro d'abord : il dira si ce qui suit a changé
    if hot is not None:
        try:
            answer = hot(*values)
        except Exception:  # noqa: BLE001 - redemandé ci-dessous, qui le dira mieux
            answer = None
        if answer is not None and version == decisions.sequence.version and not version & 1:
            return answer
    return self._decide_at_length(values)
