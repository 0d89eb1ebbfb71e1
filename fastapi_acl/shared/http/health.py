"""Ce que dit un processus de sa santé : où il en est du journal, et ce qui le tient au courant."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Health(BaseModel):
    """Ce que dit un processus de lui-même ; ni nom, ni adresse, ni secret.

    Attributes:
        status: `ok` ; `degraded`, il décide mais quelque chose est à réparer ; `unavailable`, il répond 503.
        revision: dernière révision appliquée, ou -1.
        database_revision: dernière révision vue dans la base, ou -1.
        lag_seconds: temps écoulé depuis que la base a été vue ; None si elle ne l'a jamais été.
        watcher: `connected`, `connecting`, `stopped`, ou `none` sans watcher.
        cache: `memory`, `redis`, ou `redis_fallback` quand la mémoire remplace un Redis qui manque.
        quarantined_rows: lignes de règles illisibles, écartées à la lecture.
        model_differs: vrai si les règles ont été écrites sous un autre modèle que celui de ce processus ;
            `fastapi-acl policy apply` l'adopte.
        database_refuses: vrai si la base a refusé pour de bon (un droit manque, elle est en lecture seule), et
            qu'aucune écriture n'a réussi depuis ; le journal dit ce qu'il faut y faire.
        has_unreadable_data: vrai si quelque chose ne se lit pas dans la base, jusqu'à ce que tout ait été relu ; le
            journal d'événements nomme la table et la ligne.
    """

    model_config = ConfigDict(frozen=True)

    status: Literal["ok", "degraded", "unavailable"]
    revision: int
    database_revision: int
    lag_seconds: float | None
    watcher: Literal["connected", "connecting", "stopped", "none"]
    cache: Literal["memory", "redis", "redis_fallback"]
    quarantined_rows: int
    model_differs: bool = False
    database_refuses: bool = False
    has_unreadable_data: bool = False
