"""Les mesures : ce que Prometheus lit est ce qui s'est passé, et ne nomme personne."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from fastapi_acl.metrics import collect_metrics
from fastapi_acl.shared.database.refusals import Refusal
from tests.support.app import protected, starting
from tests.support.servers import free_port


def decisions(registry: CollectorRegistry) -> tuple[float, float]:
    """Rend le nombre de décisions qui accordent, et de celles qui refusent."""
    name = "fastapi_acl_decisions_total"
    allowed, denied = (registry.get_sample_value(name, {"outcome": one}) for one in ("allowed", "denied"))
    assert allowed is not None
    assert denied is not None
    return allowed, denied


async def test_what_is_read_is_what_happened(tmp_path: Path) -> None:
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/a.db", enable_cache=True) as client:
        registry = CollectorRegistry()
        collector = collect_metrics(client.manager, registry)
        admin, ada = await client.admin(), await client.newcomer("gertrude")
        await admin.add_rules(("p", f"user:{ada.id}", "document", "read", "allow"))
        before = decisions(registry)
        for _ in range(3):
            assert (await ada.get("/documents")).status_code == 200
        assert (await ada.get("/documents/secret")).status_code == 403

        allowed, denied = decisions(registry)

        assert (allowed - before[0], denied - before[1]) == (3, 1)
        assert registry.get_sample_value("fastapi_acl_revision") == client.manager.revision
        assert registry.get_sample_value("fastapi_acl_up") == 1
        assert (registry.get_sample_value("fastapi_acl_reloads_total") or 0) >= 1
        await ada.get("/api/v1/permissions/me")
        await ada.get("/api/v1/permissions/me")
        names = ("hits_total", "misses_total", "fallback")
        assert [registry.get_sample_value(f"fastapi_acl_cache_{name}") for name in names] == [1, 1, 0]
        names = ("database_refuses", "has_unreadable_data", "model_differs")
        assert [registry.get_sample_value(f"fastapi_acl_{name}") for name in names] == [0, 0, 0]
        client.manager._parts.database.note_refusal(Refusal("essai", "rien"))
        assert registry.get_sample_value("fastapi_acl_database_refuses") == 1
        text = generate_latest(registry).decode()
        assert "gertrude" not in text
        assert ada.id not in text
        registry.unregister(collector)
        assert registry.get_sample_value("fastapi_acl_up") is None


async def test_a_process_that_does_not_decide_says_so() -> None:
    uri = f"postgresql://acl:secret@127.0.0.1:{free_port()}/acl"
    async with starting(database_type="postgresql", postgresql_uri=uri) as client:
        registry = CollectorRegistry()
        collect_metrics(client.manager, registry)

        names = ("up", "lag_seconds", "revision")
        assert [registry.get_sample_value(f"fastapi_acl_{name}") for name in names] == [0, float("inf"), -1]
