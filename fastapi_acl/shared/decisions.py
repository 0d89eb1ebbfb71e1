"""Ce qu'un processus retient de ses refus, et de ses décisions qui ont échoué : de quoi les retrouver, et rien de plus.

La mémoire est bornée en nombre et en taille : un appelant choisit en partie ce qu'il fait refuser.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from fastapi_acl.shared.policy import PolicyChange, PolicyRule

MAX_DENIALS: Final = 10_000
"""Refus retenus par manager."""

MAX_CHARACTERS: Final = 1_024
"""Longueur d'une question au-delà de laquelle son refus n'est que journalisé : dix mille en rempliraient la mémoire."""

MAX_CAUSES: Final = 1_000
"""Causes d'échec dont l'heure est retenue."""

SILENCE_SECONDS: Final = 60.0
"""Temps pendant lequel une même cause d'échec n'est pas dite de nouveau."""

PREFIX_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Ce qui a été demandé à la politique.

    Attributes:
        subject: sujet de politique, `user:<id>`.
        resource: ressource, ou gabarit de la route sous un modèle de routes ; vide si un rôle est demandé.
        action: action, ou méthode HTTP ; vide si un rôle est demandé.
        domain: domaine de la décision, s'il a été donné.
        role: rôle demandé par `require_role`, sans préfixe ; vide si c'est une permission.
        attributes: attributs de la ressource. Retenue, une question n'en garde que les noms.
    """

    subject: str
    resource: str = ""
    action: str = ""
    domain: str | None = None
    role: str = ""
    attributes: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def permission(self) -> str:
        """Ce qui est demandé, tel que le code l'écrirait, paramètres remplis."""
        return f"role:{self.role}" if self.role else f"{self.resource}:{self.action}"

    @property
    def size(self) -> int:
        """Nombre de caractères qu'il faut pour la retenir."""
        texts = (self.subject, self.resource, self.action, self.domain or "", self.role, *self.attributes)
        return sum(map(len, texts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Ce que la politique répond à une question, et pourquoi.

    Attributes:
        allowed: la réponse.
        rule: la règle décisive ; None si aucune ne l'est.
        role_path: du sujet de la question à celui de la règle, rôle par rôle.
        denied_because: `no_rule`, `denied_by_rule`, `inactive` ou `evaluation_failed` ; None si c'est accordé.
        nearest: le plus petit changement qui retournerait un refus ; vide si aucun n'a été trouvé.
    """

    allowed: bool
    rule: PolicyRule | None = None
    role_path: tuple[str, ...] = ()
    denied_because: str | None = None
    nearest: PolicyChange | None = None


class DecisionMemory:
    """Les derniers refus d'un manager, par numéro, et les échecs qu'il vient de dire."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Part vide.

        Args:
            clock: secondes, sur une horloge qui ne recule pas.
        """
        self._clock = clock
        self._process = 0
        self._prefix = ""
        self._numbers = count(1)
        self._denials: OrderedDict[str, Question] = OrderedDict()
        self._causes: OrderedDict[Hashable, float] = OrderedDict()

    def deny(self, question: Question) -> str:
        """Retient un refus et rend son numéro, qui nomme ce processus."""
        number = self._next()
        if question.size <= MAX_CHARACTERS:
            self._denials[number] = question
            if len(self._denials) > MAX_DENIALS:
                self._denials.popitem(last=False)
        return number

    def find(self, number: str) -> Question | None:
        """Renvoie ce qui a été refusé sous ce numéro, si ce processus s'en souvient."""
        return self._denials.get(number)

    def is_news(self, cause: Hashable) -> bool:
        """Dit si une cause d'échec est à journaliser : elle ne l'a pas été depuis une minute."""
        now = self._clock()
        told = self._causes.get(cause)
        if told is not None and now - told < SILENCE_SECONDS:
            return False
        self._causes.pop(cause, None)
        self._causes[cause] = now
        if len(self._causes) > MAX_CAUSES:
            self._causes.popitem(last=False)
        return True

    def _next(self) -> str:
        """Renvoie un numéro neuf ; un processus né d'un autre (fork) a le sien, et oublie les refus de son parent."""
        if self._process != os.getpid():
            self._process, self._prefix = os.getpid(), secrets.token_hex(PREFIX_BYTES)
            self._numbers = count(1)
            self._denials.clear()
        return f"{self._prefix}-{next(self._numbers)}"  # deux fils n'ont jamais le même
