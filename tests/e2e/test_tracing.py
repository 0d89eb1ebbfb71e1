"""Les traces : chaque span dit ce qui s'est passé, sous le bon span, ne nomme personne et n'empêche rien."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from fastapi_acl import ACLManager, require, require_any, require_role
from fastapi_acl.shared.exceptions import DatabaseRefusedError, PolicyUnreadableError
from fastapi_acl.shared.http.problems import ProblemRoute
from fastapi_acl.tracing import trace_acl
from tests.support import byhand
from tests.support.app import ADMIN_PASSWORD, PASSWORD, SECRET, Client, config, documents, protected, serve, starting

SETTINGS = {"policy_poll_seconds": 60}
"""Assez pour que la veille ne regarde pas la base pendant un essai : chaque span est celui qu'il demande."""


def application() -> FastAPI:
    """Fait une application dont les gardes sont de toutes les sortes."""
    app = documents(FastAPI())

    @app.get("/any", dependencies=[Depends(require_any("report:read", "document:read"))])
    @app.get("/role", dependencies=[Depends(require_role("reader"))])
    @app.get("/kinds/{kind}", dependencies=[Depends(require("{kind}:read"))])
    async def answer() -> None: ...

    return app


@pytest.fixture
async def client(sqlite_uri: str) -> AsyncIterator[Client]:
    app = application()
    async with serve(app, ACLManager(config(sqlite_uri=sqlite_uri, **SETTINGS), app=app)) as found:
        yield found


@pytest.fixture
async def owned(sqlite_uri: str) -> AsyncIterator[Client]:
    """La même application, sous un modèle qui lit le propriétaire de ce qu'une route charge."""
    app = application()

    async def loaded() -> dict[str, Any]:
        return {"owner": "propriétaire-secret", "partition": 3}

    @app.get("/mine", dependencies=[Depends(require("document:read", resource=loaded))])
    async def mine() -> None: ...

    manager = ACLManager(config(sqlite_uri=sqlite_uri, model="abac", **SETTINGS), app=app)
    async with serve(app, manager) as found:
        yield found


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: SpanExporter) -> TracerProvider:
    return provider_of(SimpleSpanProcessor(exporter))


def provider_of(*processors: SpanProcessor) -> TracerProvider:
    provider = TracerProvider()
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def told(exporter: InMemorySpanExporter) -> list[tuple[str, dict[str, Any]]]:
    """Rend le nom et les attributs de chaque span, dans l'ordre, et les oublie."""
    spans = [(span.name, dict(span.attributes or {})) for span in exporter.get_finished_spans()]
    exporter.clear()
    return spans


def readable(span: ReadableSpan) -> str:
    """Rend le span en JSON, accents compris."""
    return json.dumps(json.loads(span.to_json()), ensure_ascii=False)


async def test_a_decision_says_the_permission_as_the_code_writes_it_and_its_outcome(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    admin, ada = await client.admin(), await client.newcomer("ada")
    trace_acl(client.manager, provider)

    answers = [await admin.get("/documents/secret"), await ada.get("/documents/secret"), await client.get("/documents")]

    written = {"acl.permissions": ("document:{name}:read",), "acl.mode": "all", "acl.revision": client.manager.revision}
    assert [answer.status_code for answer in answers] == [200, 403, 401]
    assert told(exporter) == [
        ("acl.decide", {**written, "acl.outcome": "allowed"}),
        ("acl.decide", {**written, "acl.outcome": "denied"}),
        ("acl.decide", {**written, "acl.permissions": ("document:read",), "acl.outcome": "unauthenticated"}),
    ]


async def test_a_role_and_a_choice_of_permissions_are_told_as_written(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    admin, ada = await client.admin(), await client.newcomer("ada")
    await admin.add_rules(("g", f"user:{ada.id}", "role:reader"), ("p", "role:reader", "document", "read", "allow"))
    trace_acl(client.manager, provider)

    statuses = [(await one.get(path)).status_code for one, path in ((ada, "/any"), (ada, "/role"), (admin, "/role"))]

    revision = {"acl.revision": client.manager.revision}
    assert statuses == [200, 200, 403]
    assert [attributes for _, attributes in told(exporter)] == [
        {"acl.permissions": ("report:read", "document:read"), "acl.mode": "any", "acl.outcome": "allowed", **revision},
        {"acl.role": "reader", "acl.outcome": "allowed", **revision},
        {"acl.role": "reader", "acl.outcome": "denied", **revision},
    ]


async def test_a_role_asked_of_nobody_is_told_as_a_permission_would_be(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    trace_acl(client.manager, provider)

    statuses = [(await client.get(path)).status_code for path in ("/documents", "/role")]

    assert statuses == [401, 401]
    assert [(attributes["acl.outcome"], attributes.get("acl.role")) for _, attributes in told(exporter)] == [
        ("unauthenticated", None),
        ("unauthenticated", "reader"),
    ]


@pytest.mark.parametrize("guard", [require("document:write"), require_role("reader")], ids=["permission", "rôle"])
async def test_a_guard_asked_before_and_after_the_body_is_told_once(
    guard: Callable[..., Any], exporter: InMemorySpanExporter, provider: TracerProvider, sqlite_uri: str
) -> None:
    app, router = FastAPI(), APIRouter(route_class=ProblemRoute)

    @router.post("/written", dependencies=[Depends(guard)])
    async def write(body: dict[str, str]) -> dict[str, str]:
        return body

    app.include_router(router)
    async with serve(app, ACLManager(config(sqlite_uri=sqlite_uri, **SETTINGS), app=app)) as client:
        admin, ada, bob = await client.admin(), await client.newcomer("ada"), await client.newcomer("bob")
        await admin.add_rules(
            ("g", f"user:{ada.id}", "role:reader"), ("p", "role:reader", "document", "write", "allow")
        )
        trace_acl(client.manager, provider)
        statuses = [(await one.post("/written", json={"a": "b"})).status_code for one in (ada, bob, client)]

    assert statuses == [200, 403, 401]
    assert [attributes["acl.outcome"] for _, attributes in told(exporter)] == ["allowed", "denied", "unauthenticated"]


async def test_no_method_is_replaced_by_what_traces_it(client: Client, provider: TracerProvider) -> None:
    traced = (client.manager, client.manager.authorizer, client.manager.get_replica())
    before = [{name for name in vars(one) if callable(getattr(type(one), name, None))} for one in traced]

    trace_acl(client.manager, provider)

    after = [{name for name in vars(one) if callable(getattr(type(one), name, None))} for one in traced]
    assert after == before == [set(), set(), set()]


async def test_every_span_of_a_request_is_under_the_span_of_the_request(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    admin = await client.admin()
    trace_acl(client.manager, provider)

    with provider.get_tracer("essai").start_as_current_span("requête") as request:
        assert (await admin.add_rules(("p", "role:r", "document", "read", "allow"))).status_code == 201

    spans = [span for span in exporter.get_finished_spans() if span.name != "requête"]
    assert [span.name for span in spans] == ["acl.decide", "acl.change"]
    for span in spans:
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == "fastapi_acl"
        assert span.instrumentation_scope.version == version("fastapi-acl")


async def test_a_denial_is_no_error_and_a_missing_base_is_one(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    ada, nowhere = await client.newcomer("ada"), f"postgresql://ada:{PASSWORD.replace(' ', '-')}@127.0.0.1:1/nulle-part"
    trace_acl(client.manager, provider)
    await ada.get("/documents")
    async with starting(database_type="postgresql", postgresql_uri=nowhere) as other:
        trace_acl(other.manager, provider)
        assert (await other.get("/documents")).status_code == 503

    by_outcome = {(span.attributes or {}).get("acl.outcome"): span for span in exporter.get_finished_spans()}
    assert by_outcome["denied"].status.status_code is StatusCode.UNSET
    assert by_outcome["unavailable"].status.status_code is StatusCode.ERROR
    assert (by_outcome["unavailable"].attributes or {})["error.type"] == "DatabaseUnavailableError"
    assert by_outcome["unavailable"].status.description is None
    assert not by_outcome["unavailable"].events
    assert "nulle-part" not in by_outcome["unavailable"].to_json()


async def test_changes_catch_ups_and_reloads_are_told_and_idle_looks_are_not(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider, sqlite_uri: str
) -> None:
    trace_acl(client.manager, provider)
    replica, enforcer = client.manager.get_replica(), client.manager.get_enforcer()
    async with protected(sqlite_uri=sqlite_uri, **SETTINGS) as other:
        base = replica.revision
        await enforcer.add_policy("role:r", "document", "read", "allow")
        await replica.refresh()
        await other.manager.get_enforcer().add_policies([["role:r", f"d{n}", "read", "allow"] for n in range(3)])
        await other.manager.get_enforcer().add_policy("role:r", "autre", "read", "allow")
        await replica.refresh()
        await other.manager.get_enforcer().add_policy("role:r", "encore", "read", "allow")
        await enforcer.add_policy("role:r", "enfin", "read", "allow")
        await replica.reload()

    assert told(exporter) == [
        ("acl.change", {"acl.kind": "policy_changed", "acl.revision": base + 1}),
        ("acl.catch_up", {"acl.entries": 2, "acl.from": base + 1, "acl.to": base + 3}),
        ("acl.catch_up", {"acl.entries": 1, "acl.from": base + 3, "acl.to": base + 4}),
        ("acl.change", {"acl.kind": "policy_changed", "acl.revision": base + 5}),
        ("acl.reload", {"acl.revision": base + 5}),
    ]


async def test_what_many_looks_learn_together_is_told_once(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider, sqlite_uri: str
) -> None:
    trace_acl(client.manager, provider)
    replica = client.manager.get_replica()
    async with protected(sqlite_uri=sqlite_uri, **SETTINGS) as other:
        await other.manager.get_enforcer().add_policy("role:r", "document", "read", "allow")
        await asyncio.gather(*(replica.refresh() for _ in range(5)))
        await other.manager.get_policy_history().renew()
        await asyncio.gather(*(replica.refresh() for _ in range(5)))

    assert [name for name, _ in told(exporter)] == ["acl.catch_up", "acl.reload"]


async def test_a_span_lasts_what_it_tells(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    trace_acl(client.manager, provider)

    await client.manager.get_enforcer().add_policy("role:r", "document", "read", "allow")
    await client.manager.get_replica().reload()

    for span in exporter.get_finished_spans():
        assert span.start_time is not None
        assert span.end_time is not None
        assert 0 < span.end_time - span.start_time < 5_000_000_000, span.name


async def test_a_reload_that_fails_leaves_its_nature_and_nothing_it_says(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    trace_acl(client.manager, provider)
    await byhand.write_row(client.manager._parts.storage, "p", ["user:secrète", "document", "read", "peut-être"])
    with pytest.raises(PolicyUnreadableError):
        await client.manager.get_replica().reload()
    await byhand.lose_head(client.manager._parts.storage)
    with pytest.raises(DatabaseRefusedError):
        await client.manager.get_replica().refresh()

    spans = exporter.get_finished_spans()
    assert [(span.name, (span.attributes or {})["error.type"]) for span in spans] == [
        ("acl.reload", "PolicyUnreadableError"),
        ("acl.catch_up", "DatabaseRefusedError"),
    ]
    assert {span.status.status_code for span in spans} == {StatusCode.ERROR}
    assert not [span for span in spans if span.events or span.status.description]
    assert not [span for span in spans if "secrète" in readable(span)]


async def test_no_span_holds_what_a_request_brought(
    owned: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    trace_acl(owned.manager, provider)
    admin, ada = await owned.admin(), await owned.newcomer("ada-lovelace")
    await admin.add_rules(("p", f"user:{ada.id}", "document:dossier-7", "read", "*", "allow"))
    question = {"checks": [{"resource": "mot-de-passe-confié", "action": "action-confiée"}]}
    answers = [
        await ada.get("/documents/dossier-7"),
        await ada.get("/kinds/famille-confiée"),
        await admin.get("/mine"),
        await ada.post("/api/v1/permissions/check", json=question),
        await owned.get("/documents", headers={"Authorization": "Bearer jeton-fautif"}),
        await ada.get("/documents", headers={"X-ACL-Min-Revision": "révision-fautive".encode()}),
        await ada.post("/api/v1/auth/logout", json={"refresh_token": ada.refresh_token}),
    ]

    said = "".join(readable(span) for span in exporter.get_finished_spans())

    secrets = [ada.token, ada.refresh_token, ada.id, admin.id, admin.token, PASSWORD, ADMIN_PASSWORD, SECRET]
    words = ["lovelace", "dossier-7", "confié", "propriétaire", "fautif", "example.com", "127.0.0.1", *secrets]
    assert [answer.status_code for answer in answers][:6] == [200, 403, 200, 200, 401, 400]
    assert {"acl.decide", "acl.change"} <= {span.name for span in exporter.get_finished_spans()}
    assert not [word for word in words if str(word) in said]


class FailingExporter(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        raise ConnectionError(str(spans))


class FailingStart(SpanProcessor):
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        raise RuntimeError(span.name, parent_context)


class FailingEnd(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError(span.name)


@pytest.mark.parametrize("processor", [SimpleSpanProcessor(FailingExporter()), FailingStart(), FailingEnd()])
async def test_a_provider_that_fails_changes_no_decision_no_write_and_no_look(
    client: Client, processor: SpanProcessor, sqlite_uri: str
) -> None:
    admin, ada = await client.admin(), await client.newcomer("ada")
    trace_acl(client.manager, provider_of(processor))
    replica = client.manager.get_replica()

    decided = [(await one.get(path)).status_code for one in (admin, ada, client) for path in ("/documents", "/role")]
    written = await admin.add_rules(("p", "role:r", "document", "read", "allow"))
    async with protected(sqlite_uri=sqlite_uri, **SETTINGS) as other:
        await other.manager.get_enforcer().add_policy("role:r", "autre", "read", "allow")
        await replica.refresh()
        await replica.reload()
        assert replica.revision == other.manager.revision
    await byhand.lose_head(client.manager._parts.storage)
    with pytest.raises(DatabaseRefusedError):
        await replica.refresh()

    assert decided == [200, 403, 403, 403, 401, 401]
    assert written.status_code == 201


async def test_what_is_removed_tells_nothing_more(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    admin = await client.admin()
    tracer = trace_acl(client.manager, provider)
    tracer.remove()
    tracer.remove()

    statuses = [(await admin.get(path)).status_code for path in ("/documents", "/role")]
    await client.manager.get_enforcer().add_policy("role:r", "document", "read", "allow")
    await client.manager.get_replica().reload()

    assert statuses == [200, 403]
    assert not told(exporter)


async def test_a_second_call_takes_the_place_of_the_first(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    admin, first = await client.admin(), trace_acl(client.manager, provider)
    trace_acl(client.manager, provider)
    first.remove()

    assert (await admin.add_rules(("p", "role:r", "document", "read", "allow"))).status_code == 201
    await client.manager.get_replica().reload()

    assert [name for name, _ in told(exporter)] == ["acl.decide", "acl.change", "acl.reload"]


async def test_no_caller_can_ask_not_to_be_traced(
    client: Client, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    trace_acl(client.manager, provider)

    document = (await client.get("/openapi.json")).json()
    await client.get("/documents?traced=true")

    assert "parameters" not in document["paths"]["/documents"]["get"]
    assert [name for name, _ in told(exporter)] == ["acl.decide"]


def test_nothing_of_it_is_imported_unless_asked_for() -> None:
    code = """
import sys, fastapi.applications, starlette.applications
def known(): return {name for name in sys.modules if name.startswith("opentelemetry")}
before = known()
import fastapi_acl
fastapi_acl.ACLManager(fastapi_acl.ACLConfig(_env_file=None), app=fastapi.FastAPI())
print(known() - before, "fastapi_acl.tracing" in sys.modules)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set() False"
