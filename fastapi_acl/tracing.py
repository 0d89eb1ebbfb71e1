"""Traces pour OpenTelemetry, par l'extra `opentelemetry` : sans `trace_acl`, rien n'est importé ni ralenti.

Example:
    ```python
    acl = ACLManager(ACLConfig(), app=app)
    trace_acl(acl)
    ```

Un span ne dit que ce que le code de l'application a écrit (la permission, le rôle) et des numéros de révision :
ni compte, ni jeton, ni valeur de la requête. Ce que lève un fournisseur de spans ne change aucune décision.

Source : https://opentelemetry.io/docs/specs/otel/trace/api/
Source : https://opentelemetry.io/docs/specs/otel/error-handling/
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Status, StatusCode

from fastapi_acl.runtime.environment import find_version
from fastapi_acl.shared.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BadRequestError,
    UnavailableError,
)
from fastapi_acl.shared.http.problems import ProblemException
from fastapi_acl.shared.logging import get_logger
from fastapi_acl.shared.sync.replica import Observer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Mapping, Sequence

    from opentelemetry.trace import Span, TracerProvider

    from fastapi_acl.manager import ACLManager
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.sync.changes import Change
    from fastapi_acl.shared.sync.replica import Attempt, Lesson, Position

    Attributes = Mapping[str, str | int | Sequence[str]]

logger = get_logger("tracing")

TRACER: Final = "fastapi_acl"

NANOSECONDS: Final = 1_000_000_000

FAILED: Final = "failed"
"""Issue d'une garde qui n'a pas décidé, pour une raison qui n'est pas de la bibliothèque."""

OUTCOMES: Final[Mapping[type[Exception], str]] = {
    AuthorizationError: "denied",
    AuthenticationError: "unauthenticated",
    BadRequestError: "invalid",
    UnavailableError: "unavailable",
}
"""Issue d'une garde, selon la famille de ce qu'elle lève."""

FAULTS: Final = frozenset({"unavailable", FAILED})
"""Issues dont le span est en erreur : un refus n'en est pas une."""


class ACLTracer(Observer):
    """Fait un span de ce qui arrive à un manager : décisions, changements, rattrapages et relectures.

    | span | quand | attributs |
    | --- | --- | --- |
    | `acl.decide` | une garde a décidé | `acl.permissions`, `acl.mode` ou `acl.role` ; `acl.outcome`, `acl.revision` |
    | `acl.change` | une entrée que ce processus a validée | `acl.kind`, `acl.revision` |
    | `acl.catch_up` | des entrées lues dans la base | `acl.entries`, `acl.from`, `acl.to` |
    | `acl.reload` | tout a été relu | `acl.revision` |
    """

    def __init__(self, manager: ACLManager, tracer_provider: TracerProvider | None = None) -> None:
        """Se fait connaître du manager, à la place d'un autre s'il y en avait un.

        Args:
            manager: celui dont on veut les traces.
            tracer_provider: ce qui fait les spans ; celui du processus par défaut.
        """
        if manager.tracer is not None:
            manager.tracer.remove()
        self._tracer = trace.get_tracer(TRACER, find_version("fastapi-acl"), tracer_provider)
        self._manager, self._replica = manager, manager.get_replica()
        manager.tracer = self
        self._replica.observe(self)

    def remove(self) -> None:
        """Cesse de tracer ; sans effet si c'est fait."""
        if self._manager.tracer is self:
            self._manager.tracer = None
            self._replica.forget(self)

    # --- ce qui arrive -----------------------------------------------------------------------------------------

    async def trace_decision(
        self, asked: Mapping[str, str | Sequence[str]], deciding: Awaitable[Principal]
    ) -> Principal:
        """Attend ce qu'une garde décide, dans un span.

        Args:
            asked: ce qu'elle demande, tel que le code de l'application l'écrit, paramètres de chemin compris.
            deciding: la garde.
        """
        span = self._open("acl.decide", {f"acl.{name}": value for name, value in asked.items()})
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                principal = await deciding
        except BaseException as error:
            self._judge(span, error)
            raise
        self._judge(span)
        return principal

    def note_change(self, before: Position, change: Change) -> None:  # noqa: ARG002 - un observateur
        """Dit une entrée que ce processus vient de valider ; le span part de l'instant où elle a été écrite."""
        self._tell("acl.change", change.at.timestamp(), {"acl.kind": change.kind, "acl.revision": change.revision})

    def note_lesson(self, lesson: Lesson) -> None:
        """Dit ce que la base vient d'apprendre à ce processus, soit des entrées, soit tout."""
        began, before, after, is_whole = lesson
        told = {"acl.revision": after}
        if not is_whole:
            told = {"acl.entries": after - before, "acl.from": before, "acl.to": after}
        self._tell("acl.reload" if is_whole else "acl.catch_up", on_the_wall(began), told)

    def note_failure(self, attempt: Attempt, began: float, error: Exception) -> None:
        """Dit une lecture de la base qui a échoué ; il n'en reste que la nature de l'erreur."""
        self._tell("acl.reload" if attempt == "reload" else "acl.catch_up", on_the_wall(began), {}, error)

    # --- les spans ----------------------------------------------------------------------------------------------

    def _open(self, name: str, attributes: Attributes, began: float | None = None) -> Span:
        """Ouvre un span, sous celui qui est en cours ; un span vide si le fournisseur n'y parvient pas.

        Args:
            name: son nom.
            attributes: ses premiers attributs.
            began: son début, en secondes depuis 1970 ; à présent par défaut.
        """
        with harmless():
            started = None if began is None else int(min(began, time.time()) * NANOSECONDS)
            return self._tracer.start_span(name, attributes=attributes, start_time=started)
        return INVALID_SPAN

    def _judge(self, span: Span, error: BaseException | None = None) -> None:
        """Ferme le span d'une décision sur son issue."""
        outcome = outcome_of(error)
        with harmless():
            span.set_attributes({"acl.outcome": outcome, "acl.revision": self._replica.revision})
        self._close(span, error if outcome in FAULTS else None)

    def _tell(self, name: str, began: float, attributes: Attributes, error: Exception | None = None) -> None:
        self._close(self._open(name, attributes, began), error)

    @staticmethod
    def _close(span: Span, error: BaseException | None = None) -> None:
        """Ferme un span ; d'une erreur, il ne garde que la nature, le message pouvant nommer quelqu'un."""
        with harmless():
            if error is not None:
                span.set_attribute("error.type", type(cause_of(error)).__name__)
                span.set_status(Status(StatusCode.ERROR))
        with harmless():
            span.end()


@contextmanager
def harmless() -> Iterator[None]:
    """Retient ce que lève un fournisseur de spans : une trace perdue ne change rien d'autre."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - rien de ce qui trace ne doit atteindre une décision
        logger.warning("span_lost: %s", type(error).__name__)


def on_the_wall(instant: float) -> float:
    """Porte un instant monotone à l'horloge murale, en secondes depuis 1970."""
    return time.time() - (time.monotonic() - instant)


def outcome_of(error: BaseException | None) -> str:
    """Renvoie l'issue d'une garde, d'après ce qu'elle a levé."""
    if error is None:
        return "allowed"
    cause = cause_of(error)
    return next((outcome for family, outcome in OUTCOMES.items() if isinstance(cause, family)), FAILED)


def cause_of(error: BaseException) -> BaseException:
    """Renvoie l'erreur de la bibliothèque qu'un problème habille, ou l'erreur elle-même."""
    return error.error if isinstance(error, ProblemException) else error


def trace_acl(manager: ACLManager, tracer_provider: TracerProvider | None = None) -> ACLTracer:
    """Trace un manager ; à appeler une fois, avant de servir. Un second appel prend la place du premier.

    Args:
        manager: celui dont on veut les traces.
        tracer_provider: ce qui fait les spans ; celui du processus par défaut.

    Returns:
        Ce qui les fait, dont `remove` les retire.
    """
    return ACLTracer(manager, tracer_provider)
