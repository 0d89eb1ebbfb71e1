"""Traces pour OpenTelemetry, par l'extra `opentelemetry` : sans `trace_acl`, rien n'est importé ni ralenti.

Example:
    ```python
    acl = ACLManager(ACLConfig(), app=app)
    trace_acl(acl)
    ```

Une étendue ne dit ni compte, ni jeton, ni objet : la famille d'une ressource s'arrête à son premier « : ».

Source : https://opentelemetry.io/docs/specs/otel/trace/api/
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import Span, TracerProvider

    from fastapi_acl.manager import ACLManager
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.sync.changes import Change
    from fastapi_acl.shared.sync.replica import Position

TRACER: Final = "fastapi_acl"


class ACLTracer:
    """Entoure d'étendues ce que fait un manager : décisions, changements, rattrapages et relectures.

    | étendue | quand | attributs |
    | --- | --- | --- |
    | `acl.decide` | une décision | `acl.resource_type`, `acl.action`, `acl.allowed`, `acl.revision` |
    | `acl.change` | une entrée validée par ce processus | `acl.kind`, `acl.revision` |
    | `acl.catch_up` | un regard qui a trouvé des entrées | `acl.entries`, `acl.revision` |
    | `acl.reload` | tout a été relu | `acl.revision` |
    """

    def __init__(self, manager: ACLManager, provider: TracerProvider | None = None) -> None:
        """Prend la place de ce que le manager exécute.

        Args:
            manager: celui dont on veut les traces.
            provider: ce qui fait les étendues ; celui du processus par défaut.
        """
        self._tracer = trace.get_tracer(TRACER, version("fastapi-acl"), provider)
        self._authorizer: Any = manager.authorizer
        self._replica = manager.get_replica()
        self._decide, self._refresh = self._authorizer.decide, self._replica.refresh
        self._authorizer.decide, self._replica.refresh = self.decide, self.refresh  # type: ignore[method-assign]
        self._replica.listen(self.changed)

    def remove(self) -> None:
        """Rend au manager ce qu'il exécutait."""
        del self._authorizer.decide, self._replica.refresh
        self._replica.unlisten(self.changed)

    def decide(self, principal: Principal, resource: str, action: str, domain: str | None = None) -> bool:
        """Décide, dans une étendue ; voir `Authorizer.decide`."""
        with self._span("acl.decide") as span:
            span.set_attribute("acl.resource_type", resource.partition(":")[0])
            span.set_attribute("acl.action", action)
            span.set_attribute("acl.revision", self._replica.revision)
            allowed: bool = self._decide(principal, resource, action, domain)
            span.set_attribute("acl.allowed", allowed)
        return allowed

    async def refresh(self) -> None:
        """Regarde la base ; seul un regard qui apprend quelque chose, ou qui échoue, fait une étendue."""
        began, reloads, applied = time.time_ns(), self._replica.reloads, self._replica.applied
        try:
            await self._refresh()
        except Exception as error:
            self._end(self._tracer.start_span("acl.catch_up", start_time=began), error)
            raise
        if self._replica.reloads > reloads:
            self._tell("acl.reload", began)
        elif self._replica.applied > applied:
            self._tell("acl.catch_up", began, {"acl.entries": self._replica.applied - applied})

    def changed(self, _before: Position, change: Change) -> None:
        """Dit une entrée que ce processus vient de valider."""
        self._tell("acl.change", time.time_ns(), {"acl.kind": change.kind, "acl.revision": change.revision})

    def _tell(self, name: str, began: int, attributes: dict[str, str | int] | None = None) -> None:
        """Fait une étendue d'une chose passée."""
        known: dict[str, str | int] = {"acl.revision": self._replica.revision}
        self._tracer.start_span(name, start_time=began, attributes={**known, **(attributes or {})}).end()

    @contextmanager
    def _span(self, name: str) -> Iterator[Span]:
        """Ouvre une étendue ; d'une erreur, elle ne garde que la nature, le message pouvant nommer quelqu'un."""
        with self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
            try:
                yield span
            except Exception as error:
                self._mark(span, error)
                raise

    def _end(self, span: Span, error: Exception) -> None:
        """Ferme une étendue sur une erreur."""
        self._mark(span, error)
        span.end()

    @staticmethod
    def _mark(span: Span, error: Exception) -> None:
        """Note la nature d'une erreur."""
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(Status(StatusCode.ERROR))


def trace_acl(manager: ACLManager, provider: TracerProvider | None = None) -> ACLTracer:
    """Trace un manager ; à appeler une fois, avant de servir.

    Args:
        manager: celui dont on veut les traces.
        provider: ce qui fait les étendues ; celui du processus par défaut.

    Returns:
        Ce qui les fait, dont `remove` les retire.
    """
    return ACLTracer(manager, provider)
