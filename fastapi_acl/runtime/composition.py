"""La composition : le seul endroit qui construit des objets de plusieurs tranches et les relie."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
from fastapi_acl.auth.application.interface.services import ITokenService
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
from fastapi_acl.engine.administration import Administration
from fastapi_acl.engine.authorizer import PolicyAuthorizer
from fastapi_acl.engine.casbin.domains import shares_domains
from fastapi_acl.engine.casbin.model_source import ModelSource
from fastapi_acl.engine.casbin.models import load_model
from fastapi_acl.engine.casbin.strict import StrictEnforcer
from fastapi_acl.engine.explainer import PolicyExplainer
from fastapi_acl.engine.grants import PolicyGrants
from fastapi_acl.engine.writing.administrators import AdministratorGuard
from fastapi_acl.engine.writing.guards import ActorGuard, EscalationGuard
from fastapi_acl.engine.writing.history import PolicyHistory
from fastapi_acl.engine.writing.model_record import ModelRecord, NotedModel
from fastapi_acl.engine.writing.rank_guard import RankGuard
from fastapi_acl.engine.writing.ranks import Ranks
from fastapi_acl.engine.writing.store import PolicyMemory, PolicyStore
from fastapi_acl.engine.writing.transfer import PolicyTransfer
from fastapi_acl.permissions.application.interface.policy_rules import IPolicyRules
from fastapi_acl.permissions.application.usecases.check_permissions import CheckPermissionsUseCase
from fastapi_acl.permissions.application.usecases.explain import ExplainUseCase
from fastapi_acl.permissions.application.usecases.list_permissions import ListPermissionsUseCase
from fastapi_acl.permissions.infrastructure.cached_grants import CachedGrants
from fastapi_acl.runtime.first_start import Bootstrap
from fastapi_acl.runtime.storage import create_storage
from fastapi_acl.shared.cache.factory import CacheFactory
from fastapi_acl.shared.decisions import DecisionMemory
from fastapi_acl.shared.http.administration import administration_routes
from fastapi_acl.shared.sync.factory import create_watcher
from fastapi_acl.shared.sync.replica import Replica
from fastapi_acl.shared.sync.revision_gate import RevisionGate
from fastapi_acl.shared.sync.revocations import Revocations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi_acl.auth.application.interface.services import IPasswordHasher
    from fastapi_acl.engine.authorizer import RequestBuilder
    from fastapi_acl.runtime.storage import Storage
    from fastapi_acl.shared.cache.base import CacheBackend
    from fastapi_acl.shared.config import ACLConfig
    from fastapi_acl.shared.database.base import AmbientDatabase
    from fastapi_acl.shared.identity import Authenticator
    from fastapi_acl.shared.sync.watcher import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """Les objets d'un manager, reliés entre eux.

    Attributes:
        components: ce que les routes demandent par `provided(…)`, par type.
    """

    database: AmbientDatabase
    storage: Storage
    replica: Replica
    watcher: Watcher | None
    gate: RevisionGate
    decisions: DecisionMemory
    cache: CacheBackend
    enforcer: StrictEnforcer
    authorizer: PolicyAuthorizer
    store: PolicyStore
    transfer: PolicyTransfer
    history: PolicyHistory
    model_record: ModelRecord
    users: IAuthRepository
    hasher: IPasswordHasher
    tokens: ITokenService
    authenticator: Authenticator
    bootstrap: Bootstrap
    components: Mapping[type[Any], Any]


def compose(
    config: ACLConfig,
    authenticator: Authenticator | None = None,
    builder: RequestBuilder | None = None,
    storage: Storage | None = None,
    functions: Mapping[str, Callable[..., object]] | None = None,
) -> Composition:
    """Construit tous les objets ; aucun ne fait encore d'entrée-sortie.

    Args:
        config: réglages.
        authenticator: identité tirée d'un jeton qui n'est pas le nôtre.
        builder: valeurs des jetons de requête que le modèle nomme hors de sub, dom, obj et act.
        storage: stockage ; celui que la configuration choisit par défaut.
        functions: fonctions que le matcher appelle, par nom.

    Raises:
        ConfigurationError: le modèle, la base ou un pilote empêche de démarrer.
    """
    stored, cache = storage or create_storage(config), CacheFactory(config).create()
    database, log, users = stored.database, stored.log, stored.users
    revocations = Revocations(log, token_life(config))
    model = load_model(config)
    enforcer = StrictEnforcer(
        model,
        stored.adapter,
        allow_eval=config.allow_eval,
        raw_subjects=config.subject_format == "raw",
        share_domains=shares_domains(config.shared_domain, model),
        owner_attribute=config.owner_attribute,
        source=ModelSource.of(config),
    )
    for name, function in (functions or {}).items():
        enforcer.add_function(name, function)
    record = ModelRecord(log, NotedModel.of(enforcer, config.model_source))
    replica = Replica(database, log, [PolicyMemory(enforcer), revocations, record])
    authorizer = PolicyAuthorizer(
        enforcer,
        replica,
        max_staleness=config.max_staleness_seconds,
        request_builder=builder,
        owner_attribute=config.owner_attribute,
        administration=_administration(config, enforcer),
    )
    ranks = Ranks(authorizer, enforcer)
    store = PolicyStore(
        stored.adapter,
        enforcer,
        replica,
        log,
        escalation=EscalationGuard(ranks),
        ranks=RankGuard(ranks),
        administrators=AdministratorGuard(ranks, users if authenticator is None else None),
        actors=ActorGuard(authorizer, revocations),
    )
    enforcer.bind(store)
    transfer = PolicyTransfer(store)
    grants = PolicyGrants(enforcer, replica)
    decisions = DecisionMemory()
    hasher = BcryptPasswordHasher(rounds=config.bcrypt_rounds)
    tokens = JWTTokenService(token_settings(config))
    if authenticator is None or config.serves_accounts:
        tokens.load()
    register = RegisterUseCase(users, hasher, SyntaxEmailValidator(), config.password_min_length)
    return Composition(
        database=database,
        storage=stored,
        replica=replica,
        watcher=create_watcher(config, replica),
        gate=RevisionGate(replica, config.revision_wait_ms / 1_000),
        decisions=decisions,
        cache=cache,
        enforcer=enforcer,
        authorizer=authorizer,
        store=store,
        transfer=transfer,
        history=PolicyHistory(store, transfer),
        model_record=record,
        users=users,
        hasher=hasher,
        tokens=tokens,
        authenticator=authenticator if authenticator is not None else JWTAuthenticator(tokens, revocations),
        bootstrap=Bootstrap(config, database, log, users, register, store),
        components={
            IAuthRepository: users,
            ITokenService: tokens,
            RegisterUseCase: register,
            LearnCostsUseCase: LearnCostsUseCase(users, hasher),
            **_session_use_cases(config, stored, store, hasher, tokens),
            IPolicyRules: store,
            CheckPermissionsUseCase: CheckPermissionsUseCase(authorizer, store),
            ExplainUseCase: ExplainUseCase(
                explanations=PolicyExplainer(authorizer, enforcer),
                denials=decisions,
                accounts=users if authenticator is None else None,
                authorizer=authorizer,
                rules=store,
            ),
            ListPermissionsUseCase: ListPermissionsUseCase(
                authorizer, CachedGrants(grants, cache) if config.enable_cache else grants
            ),
        },
    )


def _administration(config: ACLConfig, enforcer: StrictEnforcer) -> Administration:
    """Rend ce qu'il faut demander à qui administre : sous un modèle de routes, nos routes, montées ou non."""
    if not enforcer.schema.decides_on_routes:
        return Administration()
    from fastapi_acl.auth.interface.admin.api import router as auth_admin_router  # noqa: PLC0415 - ce modèle seul
    from fastapi_acl.permissions.interface.admin.api import (  # noqa: PLC0415 - idem
        router as permissions_admin_router,
    )
    from fastapi_acl.permissions.interface.admin.explain import router as explain_router  # noqa: PLC0415 - idem

    routes = administration_routes(config.api_prefix, (auth_admin_router, permissions_admin_router, explain_router))
    return Administration(routes)


def _session_use_cases(
    config: ACLConfig,
    stored: Storage,
    store: PolicyStore,
    hasher: IPasswordHasher,
    tokens: ITokenService,
) -> dict[type[Any], Any]:
    """Construit ce qui ouvre, renouvelle et ferme des sessions."""
    users, sessions, database = stored.users, stored.sessions, stored.database
    issuer = TokenIssuer(tokens)
    policy = SessionPolicy(
        idle=timedelta(days=config.session_idle_days),
        absolute=timedelta(days=config.session_absolute_days),
        grace=timedelta(seconds=config.jwt_refresh_grace_seconds),
        access=token_life(config),
        refresh=timedelta(days=config.jwt_refresh_token_expire_days, seconds=2 * config.jwt_leeway_seconds),
    )
    revoker = JournalAccessRevoker(store.replica, token_life(config))
    logout = LogoutUseCase(users, sessions, revoker, database)
    return {
        LoginUseCase: LoginUseCase(users, sessions, hasher, issuer, policy, config.login_by),
        RefreshTokenUseCase: RefreshTokenUseCase(sessions, tokens, issuer, policy, logout),
        LogoutUseCase: logout,
        SweepSessionsUseCase: SweepSessionsUseCase(sessions, policy),
        SetUserActiveUseCase: SetUserActiveUseCase(users, sessions, revoker, store, database),
        DeleteUserUseCase: DeleteUserUseCase(users, revoker, store, store, database),
    }


def token_life(config: ACLConfig) -> timedelta:
    """Rend le temps pendant lequel un jeton d'accès peut avoir cours, tolérance comprise à chaque bout."""
    return timedelta(minutes=config.jwt_access_token_expire_minutes, seconds=2 * config.jwt_leeway_seconds)


def token_settings(config: ACLConfig) -> TokenSettings:
    """Rend les réglages des jetons, durées en secondes."""
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
