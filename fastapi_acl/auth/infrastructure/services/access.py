"""Identité tirée de nos jetons, et révocation de ceux-ci par le journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, final

from fastapi_acl.auth.application.interface.services import IAccessRevoker
from fastapi_acl.auth.infrastructure.services.token_service import MAX_TOKEN_LENGTH
from fastapi_acl.auth.infrastructure.services.verified_tokens import VerifiedToken, VerifiedTokens, compute_fingerprint
from fastapi_acl.shared.exceptions import InvalidTokenError
from fastapi_acl.shared.identity import Authenticator, Principal
from fastapi_acl.shared.sync.changes import ACCOUNT_REVOKED, SESSION_REVOKED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from fastapi_acl.auth.infrastructure.services.token_service import AccessClaims, JWTTokenService
    from fastapi_acl.shared.sync.replica import Replica
    from fastapi_acl.shared.sync.revocations import Revocations

SIGNING_MARGIN: Final = timedelta(minutes=1)
"""Temps entre la validation d'un renouvellement et la signature de son jeton, écart des horloges compris."""


@final
@dataclass(frozen=True, slots=True)
class JWTAuthenticator(Authenticator):
    """Fait d'un jeton d'accès une identité : signature, durée, révocation, tout en mémoire.

    La signature ne se vérifie qu'à la première présentation ; l'échéance et la révocation, à chaque fois. La mémoire
    est à ce manager seul : retirer une clé demande donc d'en refaire un.
    """

    tokens: JWTTokenService
    revocations: Revocations
    known: VerifiedTokens = field(default_factory=VerifiedTokens)

    async def authenticate(self, token: str) -> Principal:
        """Vérifie un jeton d'accès."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidTokenError
        fingerprint = compute_fingerprint(token)
        known = self.known.find(fingerprint)
        verified = _make_verified(self.tokens.decode_token(token)) if known is None else known
        if not verified.is_current() or self._is_revoked(verified.principal):
            raise InvalidTokenError
        if known is None:
            self.known.add(fingerprint, verified)
        return verified.principal

    def _is_revoked(self, principal: Principal) -> bool:
        """Dit si le jeton d'où vient cette identité a été révoqué depuis."""
        return self.revocations.refuses(
            user_id=principal.id,
            session_id=principal.session_id or "",
            session_version=principal.session_version,
        )


def _make_verified(claims: AccessClaims) -> VerifiedToken:
    """Fait, de revendications vérifiées, ce qui se retient."""
    principal = Principal(
        id=str(claims.user_id), session_id=str(claims.session_id), session_version=claims.session_version
    )
    return VerifiedToken.of(principal, claims.not_before, claims.not_after)


@final
@dataclass(frozen=True, slots=True)
class JournalAccessRevoker(IAccessRevoker):
    """Révoque par une entrée du journal, que chaque processus applique.

    Attributes:
        live: temps pendant lequel un jeton déjà signé pourrait encore avoir cours.
    """

    replica: Replica
    live: timedelta

    async def revoke_session(self, session_id: UUID, *, actor: Principal) -> None:
        """Révoque les jetons d'une session."""
        await self._record(SESSION_REVOKED, {"session_id": str(session_id)}, actor)

    async def revoke_account(self, user_id: UUID, *, session_version: int, actor: Principal) -> None:
        """Révoque les jetons d'un compte antérieurs à cette version."""
        await self._record(ACCOUNT_REVOKED, {"user_id": str(user_id), "session_version": session_version}, actor)

    async def _record(self, kind: str, payload: Mapping[str, Any], actor: Principal) -> None:
        """Journalise une révocation, avec l'instant où elle devient inutile."""
        async with self.replica.writing() as transaction:
            until = datetime.now(timezone.utc) + self.live + SIGNING_MARGIN
            await self.replica.record(transaction, kind, payload, actor=actor, live_until=until)
