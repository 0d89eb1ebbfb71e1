"""Mesures pour Prometheus, par l'extra `metrics` : elles se lisent quand on les demande, et ne coûtent rien d'autre.

Example:
    ```python
    acl = ACLManager(ACLConfig(), app=app)
    collect_metrics(acl)
    app.mount("/metrics", make_asgi_app())
    ```

Source : https://prometheus.io/docs/instrumenting/writing_clientlibs/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

    from fastapi_acl.manager import ACLManager

PREFIX: Final = "fastapi_acl"

COUNTERS: Final = {
    "reloads": "Lectures de toute la politique.",
    "catch_up_entries": "Entrées du journal appliquées une à une.",
    "cache_hits": "Lectures du cache qui ont trouvé.",
    "cache_misses": "Lectures du cache qui n’ont rien trouvé.",
}

GAUGES: Final = {
    "revision": "Dernière révision appliquée.",
    "database_revision": "Dernière révision vue dans la base.",
    "lag_seconds": "Temps écoulé depuis que la base a été vue.",
    "quarantined_rows": "Lignes de règles illisibles, écartées à la lecture.",
    "database_refuses": "1 si la base refuse d’écrire, et qu’aucune écriture n’a réussi depuis.",
    "has_unreadable_data": "1 si quelque chose ne se lit pas dans la base.",
    "model_differs": "1 si les règles ont été écrites sous un autre modèle.",
}


class ACLCollector(Collector):
    """Lit les mesures d'un manager ; aucune ne nomme un compte, une règle ou une adresse."""

    def __init__(self, manager: ACLManager) -> None:
        """Retient le manager.

        Args:
            manager: celui dont on veut les mesures.
        """
        self._manager = manager

    def collect(self) -> Iterator[Metric]:
        """Renvoie les mesures de l'instant."""
        counters, health = self._manager.counters(), self._manager.health()
        decisions = CounterMetricFamily(f"{PREFIX}_decisions", "Décisions des routes gardées.", labels=["outcome"])
        for outcome in ("allowed", "denied"):
            decisions.add_metric([outcome], counters[outcome])
        yield decisions
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"{PREFIX}_{name}", text, value=counters[name])
        for name, text in GAUGES.items():
            value = getattr(health, name)
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value=float("inf") if value is None else value)
        yield GaugeMetricFamily(f"{PREFIX}_up", "1 si ce processus décide.", value=health.status != "unavailable")
        connected = health.watcher in {"connected", "none"}
        yield GaugeMetricFamily(f"{PREFIX}_watcher_connected", "1 si le watcher est abonné.", value=connected)
        fallback = health.cache == "redis_fallback"
        yield GaugeMetricFamily(f"{PREFIX}_cache_fallback", "1 si la mémoire remplace Redis.", value=fallback)


def collect_metrics(manager: ACLManager, registry: CollectorRegistry = REGISTRY) -> ACLCollector:
    """Ajoute les mesures d'un manager à un registre.

    Args:
        manager: celui dont on veut les mesures.
        registry: registre de `prometheus_client` ; celui du processus par défaut.

    Returns:
        Ce qui les collecte, à donner à `registry.unregister` pour les retirer.
    """
    collector = ACLCollector(manager)
    registry.register(collector)
    return collector
