"""Traces pour OpenTelemetry, par l'extra `opentelemetry` : sans `trace_acl`, rien n'est importé ni ralenti.

Example:
    ```python
    acl = ACLManager(ACLConfig(), app=app)
    trace_acl(acl)
    ```

Une étendue ne dit que ce que le code de l'application a écrit (la permission, le rôle) et des numéros de révision :
ni compte, ni jeton, ni valeur de la requête. Ce que lève un fournisseur d'étendues ne change aucune décision.

Source : https://opentelemetry.io/docs/specs/otel/trace/api/
Source : https://opentelemetry.io/docs/specs/otel/error-handling/
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Status, StatusCode

from fastapi_acl.runtime.environment import installed
from fastapi_acl.shared.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BadRequestError,
    PermissionDeniedError,
    UnavailableError,
)
from fastapi_acl.shared.http.problems import ProblemException
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from opentelemetry.trace import Span, TracerProvider

    from fastapi_acl.manager import ACLManager
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.sync.changes import Change
    from fastapi_acl.shared.sync.replica import Position

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
"""Issues dont l'étendue est en erreur : un refus n'en est pas une."""


class ACLTracer:
    """Fait une étendue de ce qui arrive à un manager : décisions, changements, rattrapages et relectures.

    | étendue | quand | attributs |
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
            tracer_provider: ce qui fait les étendues ; celui du processus par défaut.
        """
        if manager.tracer is not None:
            manager.tracer.remove()
        self._tracer = trace.get_tracer(TRACER, installed("fastapi-acl"), tracer_provider)
        self._manager, self._replica = manager, manager.get_replica()
        self._authorizer: Any = manager.authorizer
        self._holds_role: Callable[..., bool] = self._authorizer.holds_role
        self._refresh, self._reload = self._replica.refresh, self._replica.reload
        self._install()

    def _install(self) -> None:
        """Prend la place de ce qui n'a pas de crochet."""
        manager, replica = self._manager, self._replica
        manager.tracer, replica.learned = self, self.learned
        replica.listen(self.changed)
        self._authorizer.holds_role = self.holds_role
        replica.refresh = partial(self._attempted, "acl.catch_up", self._refresh)  # type: ignore[method-assign]
        replica.reload = partial(self._attempted, "acl.reload", self._reload)  # type: ignore[method-assign]

    def remove(self) -> None:
        """Rend au manager ce qu'il exécutait ; sans effet si c'est fait."""
        if self._manager.tracer is not self:
            return
        self._manager.tracer = self._replica.learned = None
        self._replica.unlisten(self.changed)
        del self._authorizer.holds_role, self._replica.refresh, self._replica.reload

    # --- ce qui arrive -----------------------------------------------------------------------------------------

    async def decided(self, permissions: Sequence[str], mode: str, deciding: Awaitable[Principal]) -> Principal:
        """Attend ce qu'une garde décide, dans une étendue.

        Args:
            permissions: ce qu'elle demande, tel que le code de l'application l'écrit, paramètres de chemin compris.
            mode: `all` ou `any`.
            deciding: la garde.
        """
        span = self._opened("acl.decide", {"acl.permissions": permissions, "acl.mode": mode})
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                principal = await deciding
        except BaseException as error:
            self._judge(span, error)
            raise
        self._judge(span)
        return principal

    def holds_role(self, principal: Principal, role: str, domain: str | None = None) -> bool:
        """Dit si l'appelant tient le rôle, dans une étendue ; voir `Authorizer.holds_role`."""
        span = self._opened("acl.decide", {"acl.role": role})
        try:
            held = self._holds_role(principal, role, domain)
        except BaseException as error:
            self._judge(span, error)
            raise
        self._judge(span, None if held else PermissionDeniedError())
        return held

    def changed(self, _before: Position, change: Change) -> None:
        """Dit une entrée que ce processus vient de valider ; l'étendue part de l'instant où elle a été écrite."""
        self._tell("acl.change", change.at.timestamp(), {"acl.kind": change.kind, "acl.revision": change.revision})

    def learned(self, began: float, before: int, is_whole: bool) -> None:  # noqa: FBT001 - voir `Replica.learned`
        """Dit ce que la base vient d'apprendre à ce processus, soit des entrées, soit tout."""
        after, since = self._replica.revision, time.time() - (time.monotonic() - began)
        if is_whole:
            self._tell("acl.reload", since, {"acl.revision": after})
        elif after > before:
            self._tell("acl.catch_up", since, {"acl.entries": after - before, "acl.from": before, "acl.to": after})

    async def _attempted(self, name: str, look: Callable[[], Awaitable[None]]) -> None:
        """Regarde la base ; un échec fait une étendue, dont il ne reste que la nature de l'erreur."""
        began = time.time()
        try:
            await look()
        except Exception as error:
            self._tell(name, began, {}, error)
            raise

    # --- les étendues ------------------------------------------------------------------------------------------

    def _opened(self, name: str, attributes: Attributes, began: float | None = None) -> Span:
        """Ouvre une étendue, sous celle qui est en cours ; une étendue vide si le fournisseur n'y parvient pas.

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
        """Ferme l'étendue d'une décision sur son issue."""
        outcome = outcome_of(error)
        with harmless():
            span.set_attributes({"acl.outcome": outcome, "acl.revision": self._replica.revision})
        self._close(span, error if outcome in FAULTS else None)

    def _tell(self, name: str, began: float, attributes: Attributes, error: Exception | None = None) -> None:
        """Fait l'étendue d'une chose passée."""
        self._close(self._opened(name, attributes, began), error)

    @staticmethod
    def _close(span: Span, error: BaseException | None = None) -> None:
        """Ferme une étendue ; d'une erreur, elle ne garde que la nature, le message pouvant nommer quelqu'un."""
        with harmless():
            if error is not None:
                span.set_attribute("error.type", type(cause_of(error)).__name__)
                span.set_status(Status(StatusCode.ERROR))
        with harmless():
            span.end()


@contextmanager
def harmless() -> Iterator[None]:
    """Retient ce que lève un fournisseur d'étendues : une trace perdue ne change rien d'autre."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - rien de ce qui trace ne doit atteindre une décision
        logger.warning("span_lost: %s", type(error).__name__)


def outcome_of(error: BaseException | None) -> str:
    """Rend l'issue d'une garde, d'après ce qu'elle a levé."""
    if error is None:
        return "allowed"
    cause = cause_of(error)
    return next((outcome for family, outcome in OUTCOMES.items() if isinstance(cause, family)), FAILED)


def cause_of(error: BaseException) -> BaseException:
    """Rend l'erreur de la bibliothèque qu'un problème habille, ou l'erreur elle-même."""
    return error.error if isinstance(error, ProblemException) else error


def trace_acl(manager: ACLManager, tracer_provider: TracerProvider | None = None) -> ACLTracer:
    """Trace un manager ; à appeler une fois, avant de servir. Un second appel prend la place du premier.

    Args:
        manager: celui dont on veut les traces.
        tracer_provider: ce qui fait les étendues ; celui du processus par défaut.

    Returns:
        Ce qui les fait, dont `remove` les retire.
    """
    return ACLTracer(manager, tracer_provider)
