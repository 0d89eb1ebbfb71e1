"""Ce que le démarrage vérifie de l'environnement : paquets qui s'écrasent, versions fautives, réglages sans effet."""

from __future__ import annotations

import secrets
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from fastapi_acl.shared.config import unknown_variables
from fastapi_acl.shared.development_key import development_key
from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from fastapi_acl.shared.config import ACLConfig

logger = get_logger("environment")

OLDEST_JOSE: Final = (3, 4)
"""En deçà, python-jose accepte une clé publique comme secret HMAC (CVE-2024-33663)."""

SAFE_STARLETTE: Final = (1, 0, 1)
"""En deçà, `request.url` peut être trompé (CVE-2026-48710) ; aucune décision n'en dépend ici."""


def check_distributions() -> None:
    """Refuse un environnement où un paquet en écrase un autre, ou qui porte une faille connue.

    Raises:
        ConfigurationError: il faut désinstaller ou mettre à jour ; le message donne la commande.
    """
    if find_version("casbin") and find_version("pycasbin"):
        message = (
            "les paquets « casbin » et « pycasbin » s’écrasent l’un l’autre : « pip uninstall casbin pycasbin », "
            "puis « pip install pycasbin »."
        )
        raise ConfigurationError(message)
    if numbers(find_version("python-jose"))[:2] < OLDEST_JOSE:
        message = "python-jose est trop ancien : « pip install 'python-jose[cryptography]>=3.5' »."
        raise ConfigurationError(message)
    if numbers(find_version("starlette")) < SAFE_STARLETTE:
        logger.warning("starlette_outdated: mettez Starlette à jour (1.0.1 ou plus récent)")


def warn_about(config: ACLConfig) -> None:
    """Dit ce qui, dans la configuration, n'a pas l'effet attendu."""
    for sentence in unknown_variables():
        logger.warning("unknown_variable: %s", sentence)
    for name in config.ineffective_settings():
        logger.warning("setting_without_effect: cette version n’applique pas encore « %s »", name)


def with_secret(config: ACLConfig) -> ACLConfig:
    """Donne, en développement, la clé qui manque : celle du fichier, ou une qui ne dure que ce processus.

    Raises:
        ConfigurationError: le fichier de la clé est là, mais ne doit pas être cru.
    """
    if config.jwt_secret_key is not None:
        return config
    key = development_key(config)
    if key is None:
        logger.warning(
            "jwt_secret_generated: réglez ACL_JWT_SECRET_KEY pour que les jetons valent après un redémarrage"
        )
    return config.model_copy(update={"jwt_secret_key": SecretStr(key or secrets.token_urlsafe(48))})


def find_version(distribution: str) -> str | None:
    """Renvoie la version installée d'une distribution, ou None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def numbers(text: str | None) -> tuple[int, ...]:
    """Renvoie les nombres d'une version, pour les comparer ; vide si elle n'est pas installée."""
    return tuple(int(part) for part in (text or "").split(".") if part.isdigit())
