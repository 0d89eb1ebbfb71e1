"""Forme des adresses, par email-validator, sans question au réseau."""

from __future__ import annotations

from typing import Final, final

from fastapi_acl.auth.application.interface.services import IEmailValidator
from fastapi_acl.auth.domain.entities.auth_user import MAX_EMAIL_LENGTH, fold
from fastapi_acl.shared.exceptions import InvalidEmailError

INTERNAL: Final = "local"
STAND_IN: Final = "lan"
"""Domaine admis qui tient la place de `.local`, qu'email-validator refuse quoi qu'on lui demande."""


@final
class SyntaxEmailValidator(IEmailValidator):
    """Vérifie la syntaxe (RFC 5321, 5322, 6531) ; un domaine interne comme `.local` est admis."""

    def check(self, email: str) -> str:
        """Renvoie l'adresse normalisée."""
        # Seul qui inscrit des comptes le charge.
        from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415

        is_internal = email.lower().endswith(f".{INTERNAL}")
        asked = f"{email[: -len(INTERNAL)]}{STAND_IN}" if is_internal else email
        try:
            address = validate_email(asked, check_deliverability=False, globally_deliverable=False).normalized
        except EmailNotValidError as error:
            raise InvalidEmailError from error
        if is_internal:
            address = f"{address.removesuffix(STAND_IN)}{INTERNAL}"
        if len(fold(address)) > MAX_EMAIL_LENGTH:
            message = f"L’adresse compte au plus {MAX_EMAIL_LENGTH} caractères."
            raise InvalidEmailError(message)
        return address
