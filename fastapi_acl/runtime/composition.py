"""La composition : le seul endroit qui construit des objets de plusieurs tranches et les relie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi_acl.auth import slice as auth
from fastapi_acl.auth.application.interface.services import IPasswordHasher, ITokenService
from fastapi_acl.auth.application.usecases.register import RegisterUseCase
from fastapi_acl.engine.administration import Administration
from fastapi_acl.engine.authorizer import PolicyAuthorizer
from fastapi_acl.engine.casbin.definitions import ModelDefinitions
from fastapi_acl.engine.casbin.domains import shares_domains
from fastapi_acl.engine.casbin.model_source import ModelSource
from fastapi_acl.engine.casbin.models import load_model
from fastapi_acl.engine.casbin.strict import StrictEnforcer
from fastapi_acl.engine.explainer import PolicyExplainer
from fastapi_acl.engine.grants import PolicyGrants
from fastapi_acl.engine.kernel.policy import Policy
from fastapi_acl.engine.writing.assembly import Surroundings, Writing
from fastapi_acl.engine.writing.model_record import ModelRecord, NotedModel
from fastapi_acl.engine.writing.store import PolicyMemory
from fastapi_acl.permissions import slice as permissions
from fastapi_acl.runtime.first_start import Bootstrap
from fastapi_acl.runtime.storage import create_storage
from fastapi_acl.shared.cache.factory import CacheFactory
from fastapi_acl.shared.decisions import DecisionMemory
from fastapi_acl.shared.http.administration import administration_routes
from fastapi_acl.shared.identity import Authenticator
from fastapi_acl.shared.sync.factory import create_watcher
from fastapi_acl.shared.sync.replica import Replica
from fastapi_acl.shared.sync.revision_gate import RevisionGate
from fastapi_acl.shared.sync.revocations import Revocations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
    from fastapi_acl.engine.authorizer import RequestBuilder
    from fastapi_acl.engine.writing.accounts import AccountRules
    from fastapi_acl.engine.writing.history import PolicyHistory
    from fastapi_acl.engine.writing.quarantine import Quarantine
    from fastapi_acl.engine.writing.store import PolicyStore
    from fastapi_acl.engine.writing.transfer import PolicyTransfer
    from fastapi_acl.runtime.storage import Storage
    from fastapi_acl.shared.cache.base import CacheBackend
    from fastapi_acl.shared.config import ACLConfig
    from fastapi_acl.shared.database.base import AmbientDatabase
    from fastapi_acl.shared.http.slices import Slice
    from fastapi_acl.shared.sync.watcher import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Le moteur d'un manager : ce qui décide, et le seul chemin par lequel une règle change."""

    definitions: ModelDefinitions
    policy: Policy
    replica: Replica
    revocations: Revocations
    authorizer: PolicyAuthorizer
    writing: Writing
    model_record: ModelRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """Les objets d'un manager, reliés entre eux.

    Attributes:
        slices: ce que chaque tranche apporte.
        components: ce que les routes demandent par `provide(…)`, par type.
    """

    database: AmbientDatabase
    storage: Storage
    replica: Replica
    watcher: Watcher | None
    gate: RevisionGate
    decisions: DecisionMemory
    cache: CacheBackend
    definitions: ModelDefinitions
    policy: Policy
    enforcer: StrictEnforcer
    authorizer: PolicyAuthorizer
    store: PolicyStore
    transfer: PolicyTransfer
    history: PolicyHistory
    quarantine: Quarantine
    accounts: AccountRules
    model_record: ModelRecord
    users: IAuthRepository
    hasher: IPasswordHasher
    tokens: ITokenService
    authenticator: Authenticator
    bootstrap: Bootstrap
    slices: Sequence[Slice]
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
    accounts, decisions = stored.users if authenticator is None else None, DecisionMemory()
    engine = _make_engine(config, stored, accounts, builder, functions or {})
    slices = _make_slices(config, stored, engine, accounts=accounts, cache=cache, decisions=decisions)
    components = {kind: component for one in slices for kind, component in one.components.items()}
    writing = engine.writing
    if engine.policy.schema.decides_on_routes:
        engine.authorizer.administration = _administration(config, slices)
    return Composition(
        database=stored.database,
        storage=stored,
        replica=engine.replica,
        watcher=create_watcher(config, engine.replica),
        gate=RevisionGate(engine.replica, config.revision_wait_ms / 1_000),
        decisions=decisions,
        cache=cache,
        definitions=engine.definitions,
        policy=engine.policy,
        enforcer=StrictEnforcer(engine.definitions, engine.policy, writer=writing.store, journal=engine.replica),
        authorizer=engine.authorizer,
        store=writing.store,
        transfer=writing.transfer,
        history=writing.history,
        quarantine=writing.quarantine,
        accounts=writing.accounts,
        model_record=engine.model_record,
        users=stored.users,
        hasher=components[IPasswordHasher],
        tokens=components[ITokenService],
        authenticator=components[Authenticator] if authenticator is None else authenticator,
        bootstrap=Bootstrap(
            config=config,
            database=stored.database,
            log=stored.log,
            replica=engine.replica,
            users=stored.users,
            register=components[RegisterUseCase],
            policy=engine.policy,
            adapter=stored.adapter,
            authorizer=engine.authorizer,
            guards=writing.guards,
            store=writing.store,
        ),
        slices=slices,
        components=components,
    )


def _make_slices(  # noqa: PLR0913 - ce dont les tranches sont faites
    config: ACLConfig,
    stored: Storage,
    engine: Engine,
    *,
    accounts: IAuthRepository | None,
    cache: CacheBackend,
    decisions: DecisionMemory,
) -> tuple[Slice, ...]:
    """Construit chaque tranche, de ses seuls ports."""
    return (
        auth.make_slice(
            config,
            users=stored.users,
            sessions=stored.sessions,
            transactions=stored.database,
            replica=engine.replica,
            revocations=engine.revocations,
            rules=engine.writing.accounts,
            administrators=engine.writing.accounts,
            is_identity=accounts is not None,
        ),
        permissions.make_slice(
            config,
            authorizer=engine.authorizer,
            rules=engine.writing.store,
            pages=stored.adapter,
            revisions=engine.replica,
            grants=PolicyGrants(engine.policy, engine.replica),
            cache=cache,
            explanations=PolicyExplainer(engine.authorizer, engine.policy),
            denials=decisions,
            accounts=accounts,
        ),
    )


def _administration(config: ACLConfig, slices: Sequence[Slice]) -> Administration:
    """Renvoie ce qu'il faut demander, sous un modèle de routes, à qui administre : nos routes, montées ou non."""
    routers = [router for one in slices for router in one.routers()]
    return Administration(administration_routes(config.api_prefix, routers))


def _make_engine(
    config: ACLConfig,
    stored: Storage,
    accounts: IAuthRepository | None,
    builder: RequestBuilder | None,
    functions: Mapping[str, Callable[..., object]],
) -> Engine:
    """Construit le moteur.

    Args:
        config: réglages.
        stored: stockage.
        accounts: les comptes, s'ils sont à nous.
        builder: valeurs des jetons de requête que le modèle nomme hors de sub, dom, obj et act.
        functions: fonctions que le matcher appelle, par nom.
    """
    definitions = _make_definitions(config, functions)
    policy, revocations = Policy(definitions), Revocations(stored.log, auth.token_life(config))
    record = ModelRecord(stored.database, stored.log, NotedModel.of(definitions, config.model_source))
    replica = Replica(stored.database, stored.log, [PolicyMemory(policy, stored.adapter), revocations, record])
    authorizer = PolicyAuthorizer(
        policy,
        replica,
        max_staleness=config.max_staleness_seconds,
        request_builder=builder,
        owner_attribute=config.owner_attribute,
    )
    surroundings = Surroundings(
        policy=policy,
        authorizer=authorizer,
        adapter=stored.adapter,
        database=stored.database,
        log=stored.log,
        replica=replica,
        revocations=revocations,
        accounts=accounts,
    )
    return Engine(
        definitions=definitions,
        policy=policy,
        replica=replica,
        revocations=revocations,
        authorizer=authorizer,
        writing=Writing.over(surroundings),
        model_record=record,
    )


def _make_definitions(config: ACLConfig, functions: Mapping[str, Callable[..., object]]) -> ModelDefinitions:
    """Lit le modèle, et lui donne les fonctions de l'application.

    Raises:
        ConfigurationError: le modèle ne se lit pas, ou une fonction n'est pas admise.
    """
    model = load_model(config)
    definitions = ModelDefinitions(
        model,
        allow_eval=config.allow_eval,
        raw_subjects=config.subject_format == "raw",
        share_domains=shares_domains(config.shared_domain, model),
        owner_attribute=config.owner_attribute,
        source=ModelSource.of(config),
    )
    definitions.functions.update(functions)
    return definitions
