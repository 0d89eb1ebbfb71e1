"""Ouvrir, renouveler et fermer une session."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final, NoReturn
from uuid import UUID, uuid4

from fastapi_acl.auth.domain.dtos.auth_dtos import FinishedSessions, RefreshLifetime, TokenClaims, TokenDTO
from fastapi_acl.auth.domain.entities.session import Session
from fastapi_acl.shared.exceptions import (
    ACLException,
    HashingSaturatedError,
    InvalidCredentialsError,
    InvalidTokenError,
    TokenReusedError,
    UserNotActiveError,
    UserNotFoundError,
)
from fastapi_acl.shared.identity import Principal
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository, ISessionRepository
    from fastapi_acl.auth.application.interface.services import IAccessRevoker, IPasswordHasher, ITokenService
    from fastapi_acl.auth.domain.dtos.auth_dtos import LoginBy, LoginDTO, RefreshTokenDTO
    from fastapi_acl.auth.domain.entities.auth_user import AuthUser
    from fastapi_acl.shared.database.base import Transactions


logger = get_logger("auth")

FINISHED_MARGIN: Final = timedelta(hours=1)
"""Temps de plus qu'une session finie se garde : deux horloges peuvent ne pas s'accorder."""

LOGIN_BATCH: Final = 100
"""Sessions finies qu'une connexion retire au plus."""

SWEEP_BATCH: Final = 500
"""Sessions finies qu'un balayage retire à la fois."""

SWEEP_PAUSE_SECONDS: Final = 0.1
"""Temps entre deux lots, que la base emploie à autre chose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPolicy:
    """Durées d'une session.

    Attributes:
        idle: temps sans usage après lequel elle est finie.
        absolute: temps après lequel elle est finie, renouvelée ou non.
        grace: temps pendant lequel le perdant d'une course n'est pas pris pour un voleur.
        access: temps pendant lequel un jeton d'accès déjà signé peut avoir cours.
        refresh: temps pendant lequel un refresh token déjà signé peut avoir cours.
    """

    idle: timedelta
    absolute: timedelta
    grace: timedelta = field(default_factory=timedelta)
    access: timedelta = field(default_factory=timedelta)
    refresh: timedelta = field(default_factory=timedelta)

    def compute_lifetime(self) -> RefreshLifetime:
        """Renvoie les bornes qui valent maintenant."""
        now = datetime.now(timezone.utc)
        return RefreshLifetime(now=now, idle_since=now - self.idle)

    def compute_finished(self) -> FinishedSessions:
        """Renvoie ce qui fait, maintenant, qu'une session peut disparaître sans que personne s'en aperçoive.

        Fermée, elle sert encore à reconnaître un jeton dépensé qui revient, tant que ce jeton a cours ; et à révoquer,
        à la déconnexion, un jeton d'accès signé à son dernier usage.
        """
        now = datetime.now(timezone.utc) - FINISHED_MARGIN
        return FinishedSessions(
            expired_before=now - self.access, unused_before=now - max(self.idle, self.access, self.refresh)
        )

    def excuses(self, session: Session, spent_digest: str) -> bool:
        """Dit si un jeton dépensé est celui du perdant d'une course toute récente.

        Sans grâce, personne n'est excusé, fût-ce par deux horloges qui ne s'accordent pas.
        """
        if not self.grace or session.previous_digest is None or session.rotated_at is None:
            return False
        is_recent = datetime.now(timezone.utc) - session.rotated_at < self.grace
        return is_recent and hmac.compare_digest(session.previous_digest, spent_digest)


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Signe les deux jetons d'une session ; seule l'empreinte du second se garde."""

    tokens: ITokenService

    def issue(self, session: Session, token_id: str) -> TokenDTO:
        """Signe les jetons d'une session."""
        claims = TokenClaims(
            user_id=session.user_id,
            session_id=session.id,
            session_version=session.session_version,
            token_id=token_id,
        )
        access = self.tokens.create_access_token(
            user_id=session.user_id, session_id=session.id, session_version=session.session_version
        )
        refresh = self.tokens.create_refresh_token(claims, not_after=session.expires_at)
        return TokenDTO(access_token=access, refresh_token=refresh, expires_in=self.tokens.access_lifetime_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginUseCase:
    """Ouvre une session contre un nom, ou une adresse, et un mot de passe.

    Attributes:
        login_by: ce qui désigne un compte ; un texte qui contient « @ » peut être une adresse.
    """

    users: IAuthRepository
    sessions: ISessionRepository
    hasher: IPasswordHasher
    issuer: TokenIssuer
    policy: SessionPolicy
    login_by: LoginBy = "either"

    async def execute(self, request: LoginDTO) -> TokenDTO:
        """Vérifie le mot de passe et ouvre une session ; en passant, retire quelques sessions finies.

        Un nom inconnu et un mauvais mot de passe coûtent le même temps et rendent la même erreur (OWASP ASVS 6.3.8).

        Raises:
            InvalidCredentialsError: nom inconnu ou mot de passe faux.
            UserNotActiveError: le compte est désactivé ; dit seulement après un mot de passe juste.
        """
        user = await self._authenticate(request)
        token_id, session = self._open(user, request)
        if not await self.sessions.create_session(session):
            await self._refuse(user)
        await self._remove_some_finished()
        return self.issuer.issue(session, token_id)

    async def _remove_some_finished(self) -> None:
        """Retire quelques sessions finies, de tous les comptes ; une panne n'empêche pas d'entrer."""
        try:
            await self.sessions.remove_finished(self.policy.compute_finished(), LOGIN_BATCH)
        except ACLException as error:
            logger.warning("finished_sessions_kept: %s", error.code)

    async def _authenticate(self, request: LoginDTO) -> AuthUser:
        """Renvoie le compte dont le mot de passe est juste."""
        user = await self._find(request.username)
        right = await self.hasher.verify_password(request.password, user.hashed_password if user is not None else None)
        if user is None or not right:
            raise InvalidCredentialsError
        if not user.is_authenticated:
            raise UserNotActiveError
        if self.hasher.needs_rehash(user.hashed_password):
            await self._rehash(user, request.password)
        return user

    async def _find(self, login: str) -> AuthUser | None:
        """Cherche un compte par son adresse, puis par son nom, selon `login_by`.

        Un texte qui a la forme d'une adresse coûte les mêmes lectures, que l'adresse soit connue ou non.
        """
        found: AuthUser | None = None
        if self.login_by != "email":
            with suppress(UserNotFoundError):
                found = await self.users.get_by_username(login)
        if self.login_by != "username" and "@" in login:
            with suppress(UserNotFoundError):
                found = await self.users.get_by_email(login)
        return found

    async def _rehash(self, user: AuthUser, password: str) -> None:
        """Porte le haché au coût voulu ; une file pleine n'empêche pas d'entrer, ce sera pour la prochaine fois."""
        with suppress(HashingSaturatedError):
            hashed = await self.hasher.hash_password(password)
            await self.users.update_password(user.id, hashed, replaced=user.hashed_password)

    async def _refuse(self, user: AuthUser) -> NoReturn:
        """Dit pourquoi la session n'a pu s'ouvrir : le compte a changé depuis la vérification du mot de passe."""
        with suppress(UserNotFoundError):
            if not (await self.users.get_by_id(user.id)).is_authenticated:
                raise UserNotActiveError
        raise InvalidCredentialsError

    def _open(self, user: AuthUser, request: LoginDTO) -> tuple[str, Session]:
        """Prépare une session et l'identifiant de son premier refresh token."""
        token_id, now = make_token_id(), datetime.now(timezone.utc)
        return token_id, Session(
            id=uuid4(),
            user_id=user.id,
            session_version=user.session_version,
            refresh_digest=compute_digest(token_id),
            created_at=now,
            last_used_at=now,
            expires_at=now + self.policy.absolute,
            user_agent=request.user_agent,
            ip=request.ip,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSessionsUseCase:
    """Retire toutes les sessions finies, peu à la fois."""

    sessions: ISessionRepository
    policy: SessionPolicy

    async def execute(self) -> None:
        """Retire des lots jusqu'à ce que l'un ne soit pas plein ; la base et la boucle respirent entre deux."""
        removed = SWEEP_BATCH
        while removed == SWEEP_BATCH:
            removed = await self.sessions.remove_finished(self.policy.compute_finished(), SWEEP_BATCH)
            await asyncio.sleep(SWEEP_PAUSE_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTokenUseCase:
    """Échange un refresh token contre une paire neuve ; l'ancien est dépensé."""

    sessions: ISessionRepository
    tokens: ITokenService
    issuer: TokenIssuer
    policy: SessionPolicy
    logout: LogoutUseCase

    async def execute(self, request: RefreshTokenDTO) -> TokenDTO:
        """Renouvelle une session.

        Elle est lue d'abord : le jeton une fois dépensé, rien ne demande plus rien à la base. Une panne à cet instant
        ferait représenter par son client un jeton dépensé, et le ferait passer pour un voleur.

        Raises:
            InvalidTokenError: le jeton, la session ou le compte n'a plus cours.
            TokenReusedError: le jeton était dépensé ; la session est fermée, avant que l'erreur ne soit levée.
        """
        claims = self.tokens.decode_refresh_token(request.refresh_token)
        session, token_id = await self._read_session(claims), make_token_id()
        spent, lifetime = compute_digest(claims.token_id), self.policy.compute_lifetime()
        if not await self.sessions.rotate(session.id, spent, compute_digest(token_id), lifetime):
            await self._refuse(await self._read_session(claims), spent)
        return self.issuer.issue(session, token_id)

    async def _read_session(self, claims: TokenClaims) -> Session:
        """Renvoie la session que nomme un jeton.

        Raises:
            InvalidTokenError: elle n'est plus là, ou n'est pas de ce compte.
        """
        session = await self.sessions.find_session(claims.session_id)
        if session is None or session.user_id != claims.user_id:
            raise InvalidTokenError
        return session

    async def _refuse(self, session: Session, spent_digest: str) -> NoReturn:
        """Distingue une session finie, le perdant d'une course et un jeton volé (RFC 9700, 4.14).

        La fermeture est validée avant que l'erreur ne soit levée : une erreur ne saurait l'annuler.
        """
        is_current = hmac.compare_digest(session.refresh_digest, spent_digest)
        if is_current or self.policy.excuses(session, spent_digest):
            raise InvalidTokenError
        await self.logout.execute(Principal(id=str(session.user_id), session_id=str(session.id)))
        raise TokenReusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutUseCase:
    """Ferme une session, ou toutes celles d'un compte ; ses jetons d'accès cessent aussitôt."""

    users: IAuthRepository
    sessions: ISessionRepository
    revoker: IAccessRevoker
    transactions: Transactions

    async def execute(self, principal: Principal, *, everywhere: bool = False) -> None:
        """Ferme la session de l'appelant, ou toutes ; sans effet si c'est fait.

        Raises:
            InvalidTokenError: l'identité ne vient pas d'un de nos jetons, et n'a donc pas de session ici.
        """
        await self.transactions.retry(lambda: self._close(principal, everywhere=everywhere))

    async def _close(self, principal: Principal, *, everywhere: bool) -> None:
        """Ferme une session, ou toutes, en une transaction."""
        async with self.transactions.transaction(log=True):
            if everywhere:
                await self._close_all(principal)
            elif principal.session_id is not None:
                await self._close_one(principal, _read_identifier(principal.session_id))

    async def _close_one(self, principal: Principal, session_id: UUID) -> None:
        """Ferme une session ; rien à journaliser si elle l'était déjà."""
        if await self.sessions.revoke_session(session_id, datetime.now(timezone.utc)):
            await self.revoker.revoke_session(session_id, actor=principal)

    async def _close_all(self, principal: Principal) -> None:
        """Ferme toutes les sessions du compte ; supprimé entre-temps, il n'en a plus."""
        user_id = _read_identifier(principal.id)
        try:
            user = await self.users.update_user(user_id, ends_tokens=True)
        except UserNotFoundError:
            return
        await self.sessions.revoke_all(user_id, datetime.now(timezone.utc))
        await self.revoker.revoke_account(user_id, session_version=user.session_version, actor=principal)


def _read_identifier(identifier: str) -> UUID:
    """Lit un identifiant que nous avons donné ; un autre Authenticator peut en avoir d'une autre forme."""
    try:
        return UUID(identifier)
    except ValueError as error:
        raise InvalidTokenError from error


def make_token_id() -> str:
    """Renvoie un identifiant de 256 bits, imprévisible."""
    return secrets.token_urlsafe(32)


def compute_digest(token_id: str) -> str:
    """Renvoie l'empreinte sous laquelle un identifiant se garde."""
    return hashlib.sha256(token_id.encode()).hexdigest()
