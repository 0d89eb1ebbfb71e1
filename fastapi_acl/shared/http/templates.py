"""Les gabarits que les gardes portent : leur forme se vérifie quand la garde s'écrit, avant toute requête."""

from __future__ import annotations

import re
from typing import Final

from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.identity import ROLE_NAME, ROLE_PREFIX

PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""Un paramètre de chemin dans un gabarit, comme Starlette les nomme."""

_BRACE: Final = re.compile(r"[{}]")


def names_in(template: str) -> frozenset[str]:
    """Renvoie les paramètres de chemin qu'un gabarit nomme."""
    return frozenset(PARAMETER.findall(template))


def split_permission(permission: object) -> tuple[str, str]:
    """Coupe `ressource:action` au dernier `:`.

    Raises:
        ConfigurationError: la forme n'est pas celle-là, ou une accolade n'enferme pas le nom d'un paramètre.
    """
    resource, colon, action = permission.rpartition(":") if isinstance(permission, str) else ("", "", "")
    if not (colon and resource and action) or _BRACE.search(action):
        message = f"la permission « {permission} » s’écrit « ressource:action », par exemple « document:read »"
        raise ConfigurationError(message)
    check_template(resource, f"la permission « {permission} »")
    return resource, action


def check_template(template: str, what: str) -> None:
    """Refuse un gabarit vide, ou dont une accolade n'enferme pas le nom d'un paramètre de chemin.

    Args:
        template: le gabarit.
        what: ce qui le porte, pour le message.

    Raises:
        ConfigurationError: le gabarit ne désigne pas ce que l'on croit.
    """
    if not template:
        message = f"{what} est vide : donnez un nom, ou ne donnez rien."
        raise ConfigurationError(message)
    if _BRACE.search(PARAMETER.sub("", template)):
        message = (
            f"{what} a une accolade qui n’enferme pas le nom d’un paramètre de chemin : écrivez « {{id}} », sans "
            "conversion, sans format et sans accolade de plus."
        )
        raise ConfigurationError(message)


def check_domain(domain: object) -> None:
    """Refuse un domaine qui n'est ni un gabarit, ni une dépendance.

    Raises:
        ConfigurationError: rien ne saurait en faire un domaine.
    """
    if isinstance(domain, str):
        check_template(domain, f"le domaine « {domain} »")
    elif domain is not None:
        check_dependency(domain, "domain=", "un texte ou une fonction")


def check_dependency(dependency: object, argument: str, wanted: str = "une fonction") -> None:
    """Refuse ce que FastAPI ne saurait appeler pour une garde.

    Args:
        dependency: ce que l'argument a reçu.
        argument: son nom, pour le message.
        wanted: ce qu'il attend, pour le message.

    Raises:
        ConfigurationError: ce n'est pas une fonction ; `Depends(f)` est le cas le plus courant.
    """
    if not callable(dependency):
        kind = type(dependency).__name__
        message = f"{argument} attend {wanted}, et a reçu un « {kind} » : donnez la fonction elle-même, sans Depends()."
        raise ConfigurationError(message)


def check_role(role: object) -> None:
    """Refuse ce qui n'est pas le nom d'un rôle, sans préfixe.

    Raises:
        ConfigurationError: aucune règle ne peut porter ce nom.
    """
    name = role if isinstance(role, str) else ""
    bare = name.removeprefix(ROLE_PREFIX)
    if not ROLE_NAME.fullmatch(bare):
        message = f"le rôle « {role} » n’est pas un nom : lettres, chiffres, « _ . - », 64 caractères au plus."
        raise ConfigurationError(message)
    if bare != name:
        message = f'le préfixe « {ROLE_PREFIX} » s’ajoute seul : écrivez require_role("{bare}"), sans lui.'
        raise ConfigurationError(message)
