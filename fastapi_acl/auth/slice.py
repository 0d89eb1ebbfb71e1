"""La tranche « auth », faite de ses ports."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
from fastapi_acl.auth.application.interface.services import IPasswordHasher, ITokenService
from fastapi_acl.auth.application.usecases.accounts import DeleteUserUseCase, SetUserActiveUseCase
from fastapi_acl.auth.application.usecases.costs import LearnCostsUseCase
from fastapi_acl.auth.application.usecases.register import RegisterUseCase
from fastapi_acl.auth.application.usecases.sessions import (
    LoginUseCase,
    LogoutUseCase,
    RefreshTokenUseCase,
    SessionPolicy,
    SweepSessionsUseCase,
    TokenIssuer,
)
from fastapi_acl.auth.infrastructure.services.access import JournalAccessRevoker, JWTAuthenticator
from fastapi_acl.auth.infrastructure.services.email_validator import SyntaxEmailValidator
from fastapi_acl.auth.infrastructure.services.password_hasher import BcryptPasswordHasher
from fastapi_acl.auth.infrastructure.services.token_service import JWTTokenService, TokenSettings
from fastapi_acl.shared.http.slices import Slice
from fastapi_acl.shared.identity import Authenticator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import APIRouter

    from fastapi_acl.auth.application.interface.auth_repository import ISessionRepository
    from fastapi_acl.auth.application.interface.services import IAdministrators, ISubjectRules
    from fastapi_acl.shared.config import ACLConfig
    from fastapi_acl.shared.database.base import Transactions
    from fastapi_acl.shared.sync.replica import Replica
    from fastapi_acl.shared.sync.revocations import Revocations


def make_slice(  # noqa: PLR0913 - un argument par port
    config: ACLConfig,
    *,
    users: IAuthRepository,
    sessions: ISessionRepository,
    transactions: Transactions,
    replica: Replica,
    revocations: Revocations,
    rules: ISubjectRules,
    administrators: IAdministrators,
    is_identity: bool,
) -> Slice:
    """Construit les services et les cas d'usage ; rien n'est encore lu.

    Args:
        config: réglages.
        users: les comptes.
        sessions: les sessions.
        transactions: ce qui en fait une seule écriture.
        replica: où les révocations s'écrivent.
        revocations: celles que ce processus connaît.
        rules: ce qui retire les règles d'un compte supprimé.
        administrators: ce qui protège les administrateurs.
        is_identity: vrai si nos jetons disent qui appelle ; ils se lisent alors même sans nos routes.
    """
    hasher = BcryptPasswordHasher(rounds=config.bcrypt_rounds)
    tokens = JWTTokenService(_token_settings(config))
    if is_identity or config.serves_accounts:
        tokens.load()
    issuer, policy = TokenIssuer(tokens), _session_policy(config)
    revoker = JournalAccessRevoker(replica, token_life(config))
    logout = LogoutUseCase(users=users, sessions=sessions, revoker=revoker, transactions=transactions)
    emails = SyntaxEmailValidator()
    use_cases = (
        RegisterUseCase(users=users, hasher=hasher, emails=emails, password_min_length=config.password_min_length),
        LearnCostsUseCase(users=users, hasher=hasher),
        LoginUseCase(
            users=users, sessions=sessions, hasher=hasher, issuer=issuer, policy=policy, login_by=config.login_by
        ),
        RefreshTokenUseCase(sessions=sessions, tokens=tokens, issuer=issuer, policy=policy, logout=logout),
        logout,
        SweepSessionsUseCase(sessions=sessions, policy=policy),
        SetUserActiveUseCase(
            users=users, sessions=sessions, revoker=revoker, administrators=administrators, transactions=transactions
        ),
        DeleteUserUseCase(
            users=users, revoker=revoker, rules=rules, administrators=administrators, transactions=transactions
        ),
    )
    return Slice(
        components={
            IAuthRepository: users,
            IPasswordHasher: hasher,
            ITokenService: tokens,
            Authenticator: JWTAuthenticator(tokens, revocations),
            **{type(use_case): use_case for use_case in use_cases},
        },
        routers=partial(load_routers, config),
        is_served=config.enable_auth_feature,
    )


def load_routers(config: ACLConfig) -> Iterator[APIRouter]:
    """Charge les routes de la tranche."""
    from fastapi_acl.auth.interface import api  # noqa: PLC0415 - ce que la configuration coupe ne se charge pas
    from fastapi_acl.auth.interface.admin import api as administration  # noqa: PLC0415 - idem

    yield from (api.router, administration.router)
    if config.token_form_enabled:
        yield api.token_router


def token_life(config: ACLConfig) -> timedelta:
    """Renvoie le temps pendant lequel un jeton d'accès peut avoir cours, tolérance comprise à chaque bout."""
    return timedelta(minutes=config.jwt_access_token_expire_minutes, seconds=2 * config.jwt_leeway_seconds)


def _session_policy(config: ACLConfig) -> SessionPolicy:
    """Renvoie les durées d'une session."""
    return SessionPolicy(
        idle=timedelta(days=config.session_idle_days),
        absolute=timedelta(days=config.session_absolute_days),
        grace=timedelta(seconds=config.jwt_refresh_grace_seconds),
        access=token_life(config),
        refresh=timedelta(days=config.jwt_refresh_token_expire_days, seconds=2 * config.jwt_leeway_seconds),
    )


def _token_settings(config: ACLConfig) -> TokenSettings:
    """Renvoie les réglages des jetons, durées en secondes."""
    secret = config.jwt_secret_key
    return TokenSettings(
        algorithm=config.jwt_algorithm,
        secret=secret.get_secret_value() if secret is not None else "",
        previous_secrets=[key.get_secret_value() for key in config.jwt_previous_keys],
        issuer=config.jwt_issuer,
        audience=config.jwt_audience,
        access_lifetime=config.jwt_access_token_expire_minutes * 60,
        refresh_lifetime=config.jwt_refresh_token_expire_days * 86_400,
        leeway=config.jwt_leeway_seconds,
    )
