"""Les traces : chaque étendue dit ce qui s'est passé, sous la bonne étendue, et ne nomme personne."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from fastapi_acl import Principal
from fastapi_acl.shared.exceptions import DatabaseUnavailableError, PolicyUnavailableError
from fastapi_acl.tracing import trace_acl
from tests.support.app import PASSWORD, SECRET, Client, protected


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db", policy_poll_seconds=60) as found:
        yield found


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: SpanExporter) -> TracerProvider:
    found = TracerProvider()
    found.add_span_processor(SimpleSpanProcessor(exporter))
    return found


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


async def test_a_decision_says_what_was_asked_and_answered(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    ada = await client.newcomer("ada")
    trace_acl(client.manager, provider)
    with provider.get_tracer("essai").start_as_current_span("requête") as request:
        assert (await ada.get("/documents/secret")).status_code == 403

    (span,) = named(exporter, "acl.decide")
    assert dict(span.attributes or {}) == {
        "acl.resource_type": "document",
        "acl.action": "read",
        "acl.allowed": False,
        "acl.revision": client.manager.revision,
    }
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id


async def test_changes_catch_ups_and_reloads_are_told_and_idle_looks_are_not(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider, tmp_path: Path
) -> None:
    trace_acl(client.manager, provider)
    replica, enforcer = client.manager.get_replica(), client.manager.get_enforcer()
    await enforcer.add_policy("role:r", "document", "read", "allow")
    await replica.refresh()
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db", policy_poll_seconds=60) as other:
        await other.manager.get_enforcer().add_policies([["role:r", f"d{n}", "read", "allow"] for n in range(3)])
        await other.manager.get_enforcer().add_policy("role:r", "autre", "read", "allow")
        await replica.refresh()
        await other.manager.get_policy_history().restored()
        await replica.refresh()

    told = [(span.name, dict(span.attributes or {})) for span in exporter.get_finished_spans()]
    assert told == [
        ("acl.change", {"acl.kind": "policy_changed", "acl.revision": replica.revision - 2}),
        ("acl.catch_up", {"acl.entries": 2, "acl.revision": replica.revision}),
        ("acl.reload", {"acl.revision": replica.revision}),
    ]


async def test_a_decision_that_fails_leaves_its_nature_and_nothing_it_says(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = trace_acl(client.manager, provider)

    def refused(*_: object) -> bool:
        raise PolicyUnavailableError(SECRET)

    monkeypatch.setattr(tracer, "_decide", refused)
    with pytest.raises(PolicyUnavailableError):
        client.manager.authorizer.decide(Principal(id="ada"), "document", "read")

    (span,) = named(exporter, "acl.decide")
    assert (span.status.status_code, (span.attributes or {})["error.type"]) == (
        StatusCode.ERROR,
        "PolicyUnavailableError",
    )
    assert SECRET not in span.to_json()


async def test_no_span_names_anyone(client: Client, exporter: InMemorySpanExporter, provider: TracerProvider) -> None:
    trace_acl(client.manager, provider)
    admin, ada = await client.admin(), await client.newcomer("ada-lovelace")
    await admin.add_rules(("p", f"user:{ada.id}", "document:dossier-7", "read", "allow"))
    assert (await ada.get("/documents/dossier-7")).status_code == 200

    told = "".join(span.to_json() for span in exporter.get_finished_spans())

    assert "acl.decide" in told
    assert not [word for word in ("ada-lovelace", ada.id, PASSWORD, str(ada.token), "dossier-7") if word in told]


async def test_an_exporter_that_fails_changes_no_decision(client: Client) -> None:
    class Broken(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            raise ConnectionError(str(spans))

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Broken()))
    admin, ada = await client.admin(), await client.newcomer("ada")
    trace_acl(client.manager, provider)

    assert [(await one.get("/documents")).status_code for one in (admin, ada)] == [200, 403]


async def test_what_is_removed_tells_nothing_more(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    admin = await client.admin()
    trace_acl(client.manager, provider).remove()

    await admin.get("/documents")
    await client.manager.get_enforcer().add_policy("role:r", "document", "read", "allow")

    assert exporter.get_finished_spans() == ()


async def test_a_base_that_does_not_answer_marks_the_look(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = trace_acl(client.manager, provider)

    async def silent() -> None:
        raise DatabaseUnavailableError

    monkeypatch.setattr(tracer, "_refresh", silent)
    with pytest.raises(DatabaseUnavailableError):
        await client.manager.get_replica().refresh()

    (span,) = named(exporter, "acl.catch_up")
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {}) == {"error.type": "DatabaseUnavailableError"}


def test_nothing_of_it_is_imported_unless_asked_for() -> None:
    code = "import sys, fastapi_acl; print('fastapi_acl.tracing' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
