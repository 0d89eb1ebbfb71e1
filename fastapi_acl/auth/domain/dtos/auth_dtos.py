"""Demandes et réponses des cas d'usage d'authentification ; aucun secret dans leur représentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from fastapi_acl.auth.domain.entities.auth_user import AuthUser

LoginBy: TypeAlias = Literal["username", "email", "either"]
"""Ce qui désigne un compte à la connexion : son nom, son adresse, ou l'un ou l'autre."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterDTO:
    """Ce qu'il faut pour inscrire un compte."""

    username: str
    email: str | None
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginDTO:
    """Ce qu'il faut pour ouvrir une session."""

    username: str
    password: str = field(repr=False)
    user_agent: str | None = None
    ip: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTokenDTO:
    """Le refresh token à dépenser."""

    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDTO:
    """Les deux jetons d'une session.

    Attributes:
        expires_in: durée de vie du jeton d'accès, en secondes.
        token_type: façon de présenter le jeton d'accès (RFC 6750, 2.1).
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - le type de jeton, pas un secret


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """Ce qu'un jeton vérifié affirme.

    Attributes:
        token_id: identifiant du jeton (`jti`).
        session_version: version de session du compte quand le jeton a été signé (`sv`).
    """

    user_id: UUID
    session_id: UUID
    session_version: int
    token_id: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshLifetime:
    """Bornes d'une session au moment d'un renouvellement.

    Attributes:
        now: l'instant du renouvellement.
        idle_since: une session dont le dernier usage est antérieur est finie.
    """

    now: datetime
    idle_since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSessions:
    """Ce qui fait qu'une session est finie au point que plus aucun de ses jetons ne dise rien.

    Attributes:
        expired_before: sa fin absolue est antérieure.
        unused_before: son dernier usage est antérieur.
    """

    expired_before: datetime
    unused_before: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPage:
    """Une page de comptes ; `next_cursor` vaut None à la fin."""

    items: Sequence[AuthUser]
    next_cursor: str | None
