"""ACLManager : ce qu'une application reçoit, et la vie de la bibliothèque dans celle-ci.

Rien ne vit au niveau d'un module : deux managers d'un même processus ne se voient pas.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar, cast

from fastapi_acl.auth.application.usecases.costs import LearnCostsUseCase
from fastapi_acl.auth.application.usecases.sessions import SweepSessionsUseCase
from fastapi_acl.engine.casbin.trial import check_matchers
from fastapi_acl.runtime.composition import compose
from fastapi_acl.runtime.environment import check_distributions, warn_about, with_secret
from fastapi_acl.runtime.lifecycle import Lifecycle
from fastapi_acl.runtime.report import Report
from fastapi_acl.shared.config import ACLConfig
from fastapi_acl.shared.exceptions import ConfigurationError, PolicyUnreadableError, UserNotFoundError
from fastapi_acl.shared.http.guarded_routes import GuardedRoutes
from fastapi_acl.shared.http.installation import Installation
from fastapi_acl.shared.http.router import health_router
from fastapi_acl.shared.identity import Principal
from fastapi_acl.shared.logging import configure_logging, get_logger
from fastapi_acl.shared.tasks import Chore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from fastapi import APIRouter, FastAPI

    from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
    from fastapi_acl.auth.application.interface.services import IPasswordHasher, ITokenService
    from fastapi_acl.auth.domain.entities.auth_user import AuthUser
    from fastapi_acl.engine.authorizer import RequestBuilder
    from fastapi_acl.engine.casbin.definitions import ModelDefinitions
    from fastapi_acl.engine.casbin.enforcer import PolicyEnforcer
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.writing.history import PolicyHistory
    from fastapi_acl.engine.writing.model_record import ModelRecord, Standing
    from fastapi_acl.engine.writing.quarantine import Quarantine
    from fastapi_acl.engine.writing.store import PolicyStore
    from fastapi_acl.engine.writing.transfer import PolicyTransfer
    from fastapi_acl.shared.decisions import DecisionMemory
    from fastapi_acl.shared.http.health import Health
    from fastapi_acl.shared.http.scope import Tracer
    from fastapi_acl.shared.identity import Authenticator, Authorizer
    from fastapi_acl.shared.sync.replica import Replica

logger = get_logger("manager")

Component = TypeVar("Component")

SWEEP_SECONDS: Final = 300.0
"""Temps entre deux balayages des sessions finies, en moyenne."""


class ACLManager:
    """Donne à une application FastAPI ses comptes, ses règles et ses décisions.

    Le manager démarre et s'arrête avec l'application, quel que soit le `lifespan` de celle-ci ; où aucun lifespan ne
    s'exécute (application montée, transport ASGI nu), la première requête gardée l'initialise.

    Example:
        ```python
        app = FastAPI()
        acl = ACLManager(ACLConfig(), app=app)


        @app.get("/documents", dependencies=[Depends(require("document:read"))])
        async def documents() -> list[str]: ...
        ```
    """

    def __init__(
        self,
        config: ACLConfig | None = None,
        app: FastAPI | None = None,
        *,
        authenticator: Authenticator | None = None,
        request_builder: RequestBuilder | None = None,
        functions: Mapping[str, Callable[..., object]] | None = None,
    ) -> None:
        """Compose la bibliothèque et l'installe dans l'application ; aucune connexion n'est encore ouverte.

        Args:
            config: réglages ; lus de l'environnement par défaut.
            app: application à protéger, avant son démarrage.
            authenticator: identité tirée d'un jeton qui n'est pas le nôtre.
            request_builder: valeurs des jetons de requête que le modèle nomme hors de sub, dom, obj et act.
            functions: fonctions que le matcher appelle, par nom ; ordinaires, jamais `async def`.

        Raises:
            ConfigurationError: la configuration, le modèle ou l'environnement empêche de démarrer.
        """
        self.config = with_secret(config if config is not None else ACLConfig())
        configure_logging(self.config.log_level)
        check_distributions()
        warn_about(self.config)
        self._parts = compose(self.config, authenticator, request_builder, functions=functions)
        parts = self._parts
        self._lifecycle = Lifecycle(
            self.config,
            parts.database,
            parts.replica,
            parts.watcher,
            cache=parts.cache,
            start=self._serve,
            chores=[Chore("fastapi_acl-sweeper", SWEEP_SECONDS, self._sweep)],
        )
        self._report = Report(
            config=self.config,
            database=parts.database,
            replica=parts.replica,
            watcher=parts.watcher,
            cache=parts.cache,
            policy=parts.policy,
            authorizer=parts.authorizer,
            model_record=parts.model_record,
            is_ready=lambda: self.is_ready,
        )
        self._developer: Principal | None = None
        self.tracer: Tracer | None = None
        self.application: FastAPI | None = None
        self.guards = GuardedRoutes(parts.authorizer)
        if app is not None:
            self.install(app)

    # --- installation ------------------------------------------------------------------------------------------

    def install(self, app: FastAPI) -> None:
        """Installe middleware, gestionnaires d'erreurs, routes et lifespan dans une application.

        Raises:
            ConfigurationError: l'application a déjà un manager, ou elle est déjà démarrée.
        """
        Installation(
            access_control=self,
            guards=self.guards,
            prefix=self.config.api_prefix,
            routers=self._list_routers(),
            token_url=self._token_url,
            start=self._start_serving,
            stop=self.close,
        ).install(app)
        self.application = app

    def _list_routers(self) -> list[APIRouter]:
        """Énumère les routes que la configuration demande."""
        if not self.config.enable_api_routes:
            return []
        served = (one for one in self._parts.slices if one.is_served)
        return [health_router, *(router for one in served for router in one.routers())]

    @property
    def _token_url(self) -> str | None:
        """Adresse du formulaire de connexion, s'il est monté."""
        config = self.config
        is_mounted = config.enable_api_routes and config.enable_auth_feature and config.token_form_enabled
        return f"{config.api_prefix}/auth/token".lstrip("/") if is_mounted else None

    async def _start_serving(self) -> None:
        """Démarre pour un lifespan ; le matcher est essayé même si le manager l'a été avant."""
        check_matchers(self._parts.definitions)
        await self.initialize()

    # --- vie ---------------------------------------------------------------------------------------------------

    async def initialize(self) -> None:
        """Met le schéma à jour, charge la politique et suit ses changements ; sans effet si c'est fait.

        Une base qui ne répond pas n'empêche pas l'application de démarrer : les routes gardées répondent 503 jusqu'à
        ce qu'elle revienne.

        Raises:
            ConfigurationError: la configuration empêche de démarrer ; le message dit quoi régler.
        """
        await self._lifecycle.initialize()

    async def close(self) -> None:
        """Arrête le suivi, les fils de hachage et les connexions ; sans effet si c'est fait."""
        try:
            await self._lifecycle.close()
        finally:
            self._parts.hasher.close()

    async def ready(self) -> None:
        """Laisse passer une requête gardée ; voir `Lifecycle.ready`."""
        await self._lifecycle.ready()

    @property
    def is_ready(self) -> bool:
        """Vrai si la politique est chargée."""
        return self._lifecycle.is_ready

    async def migrate(self, *, force: bool = True) -> None:
        """Met le schéma à jour, sans démarrer.

        Args:
            force: le fait même si `auto_migrate` est coupé ; sinon, un schéma en retard est alors refusé.

        Raises:
            ConfigurationError: le schéma est en retard et il n'a pas été mis à jour, ou il vient d'une version future.
            DatabaseUnavailableError: la base ne répond pas.
        """
        await self._parts.database.migrate(force=force)

    async def create_administrator(self, username: str, password: str, *, email: str | None = None) -> AuthUser:
        """Crée un compte administrateur ; un compte existant n'est jamais promu.

        Raises:
            ConfigurationError: le nom ou l'adresse est déjà pris, ou le modèle des règles en place ne saurait pas lire
                celles que ce manager écrirait.
            InvalidInputError: le nom, l'adresse ou le mot de passe n'est pas admis.
            DatabaseUnavailableError: la base ne répond pas.
        """
        await self._parts.database.migrate()
        standing = await self._parts.model_record.standing()
        _check_readable(standing)
        await self._read_policy()
        account = await self._parts.bootstrap.create_administrator(username, email, password)
        await self._keep_model(standing, is_served=False)
        return account

    async def apply_policy_file(self) -> int:
        """Ajoute les règles du fichier `policy_path` qui manquent ; rend leur nombre.

        Raises:
            ConfigurationError: le fichier manque, ou une de ses lignes est fautive.
            DatabaseUnavailableError: la base ne répond pas.
        """
        await self.load()
        return await self._parts.bootstrap.apply_policy_file()

    async def check_schema(self) -> None:
        """Vérifie que la base est là et son schéma à jour, sans rien créer ni changer.

        Raises:
            ConfigurationError: la base n'existe pas, ou son schéma est absent ou en retard.
            DatabaseUnavailableError: la base ne répond pas.
        """
        await self._parts.database.check_schema()

    async def adopt_model(self) -> bool:
        """Note dans le journal le modèle de ce manager, s'il en tient un autre, ou aucun alors qu'il n'est pas vide.

        Returns:
            Vrai s'il vient d'être noté.

        Raises:
            DatabaseUnavailableError: la base ne répond pas.
        """
        await self._parts.database.migrate()
        standing = await self._parts.model_record.standing()
        return not standing.is_first and await self._parts.model_record.adopt(self._parts.replica)

    async def load(self) -> None:
        """Met le schéma à jour et charge les mémoires, sans démarrer : ce qu'il faut à un outil d'exploitation.

        Raises:
            ConfigurationError: une règle est écrite dans le domaine `*`, et rien ne dit ce qu'il vaut sous ce modèle.
            DatabaseUnavailableError: la base ne répond pas.
            PolicyUnreadableError: une ligne pourrait refuser mais ne se lit pas ; le journal la nomme.
        """
        await self._parts.database.migrate()
        await self._read_policy()

    async def _read_policy(self) -> None:
        """Charge les mémoires ; une règle dans un domaine `*` dont rien ne dit ce qu'il vaut est une faute de réglage.

        Raises:
            ConfigurationError: une telle règle est dans la base.
            PolicyUnreadableError: une ligne pourrait refuser mais ne se lit pas ; le journal la nomme.
        """
        try:
            await self._parts.replica.refresh()
        except PolicyUnreadableError as error:
            if isinstance(error.__cause__, ConfigurationError):
                raise error.__cause__ from error
            raise
        if self._parts.policy.undecided:
            raise ConfigurationError(self._parts.policy.undecided)

    async def _serve(self) -> None:
        """Démarre pour servir : le matcher est d'abord essayé, les fonctions de l'application étant connues."""
        check_matchers(self._parts.definitions)
        await self._start()

    async def _start(self, *, is_served: bool = True) -> None:
        """Démarre : schéma, mémoires, premier démarrage (peut-être d'un voisin), coûts, identité de développement.

        Args:
            is_served: vrai pour servir l'application ; un outil n'adopte pas le modèle sous lequel on l'a lancé.
        """
        await self._parts.database.migrate()
        standing = await self._parts.model_record.standing()
        self._tell_model(standing)
        await self._read_policy()
        await self._parts.bootstrap.run()
        await self._keep_model(standing, is_served=is_served)
        await self._parts.replica.refresh()
        await self.provide(LearnCostsUseCase).execute()
        self._developer = await self._find_developer()

    async def _sweep(self) -> None:
        """Retire les sessions finies, une fois le schéma en place."""
        if self.is_ready:
            await self.provide(SweepSessionsUseCase).execute()

    def _tell_model(self, standing: Standing) -> None:
        """Dit, avant de les lire, que les règles ont été écrites sous un autre modèle : la faute peut être là."""
        if standing.noted is not None and standing.differs:
            advice = " ; lancez « fastapi-acl policy apply » pour l’adopter" if self.config.is_production else ""
            names = standing.mine.source, standing.noted.source
            logger.warning("model_differs: modèle %s, règles écrites sous %s%s", *names, advice)
        elif standing.noted is None and not standing.is_first and self.config.is_production:
            logger.warning("model_not_noted: lancez « fastapi-acl policy apply » pour noter %s", standing.mine.source)

    async def _keep_model(self, standing: Standing, *, is_served: bool) -> None:
        """Note le modèle au premier démarrage, et en développement chaque fois qu'il change."""
        is_known = standing.noted is not None and not standing.differs
        may_change = is_served and not self.config.is_production
        if (
            not is_known
            and (standing.is_first or may_change)
            and await self._parts.model_record.adopt(self._parts.replica)
        ):
            logger.info("model_adopted: %s", standing.mine.source)

    async def _find_developer(self) -> Principal | None:
        """Renvoie l'administrateur par défaut, au nom de qui agit une requête sans jeton en développement."""
        if not self.config.disable_auth_for_dev:
            return None
        logger.warning("auth_disabled_for_dev: une requête locale sans jeton agit en administrateur par défaut")
        with suppress(UserNotFoundError):
            account = await self._parts.users.get_by_username(self.config.default_admin_username)
            return Principal(id=str(account.id))
        return None

    # --- ce que les dépendances demandent ----------------------------------------------------------------------

    @property
    def authenticator(self) -> Authenticator:
        """Ce qui fait d'un jeton une identité."""
        return self._parts.authenticator

    @property
    def authorizer(self) -> Authorizer:
        """Ce qui décide."""
        return self._parts.authorizer

    @property
    def decisions(self) -> DecisionMemory:
        """Ce que ce processus retient de ses refus."""
        return self._parts.decisions

    @property
    def revision(self) -> int:
        """Dernière révision que ce processus a appliquée, ou -1."""
        return self._parts.replica.revision

    async def reach(self, revision: int, account: str) -> None:
        """Attend qu'une révision soit appliquée ici ; voir `RevisionGate.reach`."""
        await self._parts.gate.reach(revision, account)

    def health(self) -> Health:
        """Dit l'état de ce processus, sans rien lire."""
        return self._report.health()

    def counters(self) -> dict[str, int]:
        """Renvoie ce que ce processus a compté depuis son démarrage ; voir `fastapi_acl.metrics`."""
        return self._report.counters()

    @property
    def dev_origins(self) -> Collection[str]:
        """Origines des autres pages qui peuvent agir sans jeton, en développement."""
        return self.config.dev_origins

    def development_principal(self) -> Principal | None:
        """Renvoie l'identité d'une requête locale sans jeton ; None hors de `disable_auth_for_dev`."""
        return self._developer

    def provide(self, kind: type[Component]) -> Component:
        """Renvoie le composant de ce type, port ou cas d'usage."""
        return cast("Component", self._parts.components[kind])

    @property
    def has_own_accounts(self) -> bool:
        """Vrai si les comptes sont ceux de la bibliothèque, et non ceux de l'Authenticator de l'application."""
        return self._parts.history.accounts is not None

    def get_enforcer(self) -> PolicyEnforcer:
        """Renvoie l'enforcer Casbin strict : son interface de gestion écrit dans la base, puis en mémoire."""
        return self._parts.enforcer

    def get_policy(self) -> Policy:
        """Renvoie la politique en service : ses règles et ce qu'elles décident, sans l'interface de Casbin."""
        return self._parts.policy

    def get_definitions(self) -> ModelDefinitions:
        """Renvoie ce que le modèle définit : sa forme, et les fonctions de ses matchers."""
        return self._parts.definitions

    def get_replica(self) -> Replica:
        """Renvoie ce que ce processus sait du journal : sa révision, et ce qui l'y tient."""
        return self._parts.replica

    def get_policy_store(self) -> PolicyStore:
        """Renvoie le chemin des changements de règles."""
        return self._parts.store

    def get_policy_transfer(self) -> PolicyTransfer:
        """Renvoie l'import et l'export des règles."""
        return self._parts.transfer

    def get_quarantine(self) -> Quarantine:
        """Renvoie de quoi écarter une ligne de la base qui ne se lit pas."""
        return self._parts.quarantine

    def get_policy_history(self) -> PolicyHistory:
        """Renvoie l'histoire des règles : journal, retour en arrière, compaction."""
        return self._parts.history

    def get_model_record(self) -> ModelRecord:
        """Renvoie ce que le journal dit du modèle sous lequel les règles ont été écrites."""
        return self._parts.model_record

    def get_auth_repository(self) -> IAuthRepository:
        """Renvoie le dépôt des comptes."""
        return self._parts.users

    def get_token_service(self) -> ITokenService:
        """Renvoie le service des jetons."""
        return self._parts.tokens

    def get_password_hasher(self) -> IPasswordHasher:
        """Renvoie le hacheur de mots de passe."""
        return self._parts.hasher


def _check_readable(standing: Standing) -> None:
    """Refuse d'écrire des règles que le modèle de celles qui sont en place ne saurait pas lire.

    Raises:
        ConfigurationError: il ne saurait pas ; le message nomme les deux modèles.
    """
    if standing.noted is not None and standing.is_unreadable:
        message = (
            f"les règles de cette base ont été écrites sous le modèle « {standing.noted.source} », qui ne saurait pas "
            f"lire celles de « {standing.mine.source} » : donnez l’application par --app, ou son modèle par "
            "ACL_MODEL ou ACL_MODEL_PATH."
        )
        raise ConfigurationError(message)
