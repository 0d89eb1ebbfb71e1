"""Un schéma en retard ou en avance sur le paquet : ce qui est admis, et ce qui se dit."""

from __future__ import annotations

from importlib.metadata import version
from typing import NoReturn

from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.logging import get_logger

logger = get_logger("database")


def check_runs_ahead(current: str, needed: str) -> None:
    """Admet un schéma plus récent que le paquet, tant qu'il ne demande pas une version plus récente.

    Args:
        current: version du schéma.
        needed: plus ancienne version du paquet que le schéma admet.

    Raises:
        ConfigurationError: il en demande une plus récente ; le message la nomme.
    """
    if _numbers(needed) > _numbers(version("fastapi-acl")):
        message = (
            f"le schéma de la base (version « {current} ») demande fastapi-acl {needed} ou plus récent : "
            f"« pip install 'fastapi-acl>={needed}' »."
        )
        raise ConfigurationError(message)
    logger.warning("schema_ahead: la base est à la version « %s », plus récente que ce paquet", current)


def schema_behind(*, upgrade: bool) -> None:
    """Refuse un schéma en retard qu'on n'a pas le droit de mettre à jour.

    Raises:
        ConfigurationError: `auto_migrate` est coupé.
    """
    if not upgrade:
        message = (
            "le schéma de la base est en retard et ACL_AUTO_MIGRATE est coupé : lancez « fastapi-acl migrate » "
            "avant de démarrer."
        )
        raise ConfigurationError(message)


def refuse_without_schema() -> NoReturn:
    """Refuse de lire une base sans schéma, ou dont le schéma est en retard : lire ne change rien.

    Raises:
        ConfigurationError: toujours ; le message dit ce qui le met à jour.
    """
    message = (
        "le schéma de la base est absent ou en retard, et une lecture n’y change rien : vérifiez que c’est la bonne "
        "base, puis lancez « fastapi-acl migrate »."
    )
    raise ConfigurationError(message)


def _numbers(text: str) -> tuple[int, ...]:
    """Renvoie les nombres d'une version, pour les comparer ; ce qui n'en est pas un ne compte pas."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())
