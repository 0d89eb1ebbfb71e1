"""Configuration : une variable d'environnement `ACL_…` par réglage, dont le refus dit quoi faire."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import Self  # noqa: TC002 - Pydantic lit les annotations de ses validateurs

from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.origins import is_loopback, read_origin
from fastapi_acl.shared.refused_settings import in_french

if TYPE_CHECKING:
    from collections.abc import Iterable

DatabaseType = Literal["sqlite", "postgresql", "mysql", "mongodb"]
PackagedModel = Literal["rbac", "rbac_with_domains", "abac", "acl", "rest"]
Algorithm = Literal["HS256", "HS384", "HS512"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

MIN_SECRET_BYTES: Final = 32
"""Longueur minimale d'une clé HMAC, en octets (RFC 7518, 3.2)."""

SCHEMES: Final[dict[str, tuple[str, ...]]] = {
    "sqlite_uri": ("sqlite", "sqlite+aiosqlite"),
    "postgresql_uri": ("postgresql", "postgres", "postgresql+asyncpg"),
    "mysql_uri": ("mysql", "mariadb", "mysql+aiomysql"),
    "mongodb_uri": ("mongodb", "mongodb+srv"),
    "redis_url": (
        "redis",
        "rediss",
        "unix",
        "redis+sentinel",
        "rediss+sentinel",
        "redis+cluster",
        "rediss+cluster",
    ),
}

COMMAND_VARIABLES: Final = frozenset({"ACL_APP"})
"""Variables que seule la ligne de commande lit : ce ne sont pas des réglages."""

NOT_YET_EFFECTIVE: Final = frozenset(
    {
        "enable_roles_feature",
        "enable_users_feature",
        "rate_limit_enabled",
        "rate_limit_default",
        "rate_limit_login",
        "trusted_proxies",
        "require_guarded_routes",
    }
)
"""Réglages du contrat, acceptés et validés, que cette version n'applique pas encore : le démarrage le dit."""

MAX_IDENTIFIER_BYTES: Final = 63
"""Octets d'un nom que PostgreSQL garde ; il coupe le reste, et n'en avertit que son journal."""

EMPTY_IS_A_VALUE: Final = ("shared_domain", "postgresql_schema")
"""Réglages dont une variable d'environnement vide dit quelque chose ; pour les autres, elle vaut « non donné ».

Un schéma vide est refusé : le taire mènerait aux tables d'un autre.
"""


def _split(value: object) -> object:
    """Accepte `a,b` aussi bien qu'une liste."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _strong(secret: SecretStr) -> SecretStr:
    """Refuse une clé trop courte, sans jamais la citer."""
    size = len(secret.get_secret_value().encode())
    if size < MIN_SECRET_BYTES:
        message = (
            f"la clé fait {size} octets, il en faut au moins {MIN_SECRET_BYTES} : engendrez-la, par exemple avec "
            "« python -c 'import secrets; print(secrets.token_urlsafe(48))' »"
        )
        raise ValueError(message)
    return secret


SigningSecret = Annotated[SecretStr, AfterValidator(_strong)]
CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(_split)]


class ACLConfig(BaseSettings):
    """Tous les réglages de la bibliothèque.

    Une valeur vient, dans l'ordre, de l'argument, de la variable d'environnement `ACL_<NOM>`, du fichier `.env`, puis
    du défaut ci-dessous. Aucun secret n'apparaît dans la représentation ni dans les messages d'erreur.

    Raises:
        pydantic.ValidationError: une valeur est refusée ; chaque message dit quoi régler.
        ConfigurationError: un argument ne porte le nom d'aucun réglage.

    Source: https://docs.pydantic.dev/latest/concepts/pydantic_settings/
    """

    model_config = SettingsConfigDict(
        env_prefix="ACL_",
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
        protected_namespaces=(),
    )

    environment: Literal["development", "production"] = "development"
    """`development` ou `production`, qui refuse ce qui n'est tolérable qu'en développement."""
    log_level: LogLevel = "INFO"
    """Niveau du journal `fastapi_acl`."""

    database_type: DatabaseType = "sqlite"
    """Base où tout est gardé : `sqlite`, `postgresql`, `mysql` (MariaDB aussi) ou `mongodb`."""
    sqlite_uri: SecretStr = SecretStr("sqlite:///fastapi_acl.db")
    """Adresse SQLite : `sqlite:///fichier.db`, ou `sqlite://` pour une base en mémoire."""
    postgresql_uri: SecretStr | None = None
    """Adresse PostgreSQL : `postgresql://utilisateur:motdepasse@hote:5432/base`."""
    mysql_uri: SecretStr | None = None
    """Adresse MySQL ou MariaDB : `mysql://utilisateur:motdepasse@hote/base`."""
    mongodb_uri: SecretStr | None = None
    """Adresse MongoDB : `mongodb://hote/base?replicaSet=rs0`."""
    postgresql_schema: Annotated[str, Field(min_length=1, max_length=MAX_IDENTIFIER_BYTES)] = "public"
    """Schéma de PostgreSQL où sont nos tables, et le seul où elles se cherchent."""
    database_pool_size: Annotated[int, Field(ge=1, le=1000)] = 5
    """Connexions que ce processus garde vers PostgreSQL ou MySQL."""
    database_max_overflow: Annotated[int, Field(ge=0, le=1000)] = 10
    """Connexions de plus, en pointe."""
    database_timeout_seconds: Annotated[float, Field(ge=0.1, le=60)] = 5
    """Temps, en secondes, pendant lequel on attend une connexion d'une base qui répond à d'autres, avant un 503."""
    auto_migrate: bool = True
    """Met le schéma à jour au démarrage ; coupé, un schéma en retard refuse de démarrer."""

    enable_cache: bool = False
    """Garde dans un cache ce qui est cher à calculer et sans danger à perdre."""
    cache_backend: Literal["memory", "redis"] = "memory"
    """`memory` ou `redis`."""
    cache_ttl: Annotated[int, Field(ge=1, le=86_400)] = 300
    """Durée de vie d'une entrée du cache, en secondes."""
    redis_url: SecretStr | None = None
    """Adresse de Redis : `redis://hote:6379/0`."""

    jwt_secret_key: SigningSecret | None = None
    """Clé de signature des jetons, 32 octets au moins ; en développement, `.fastapi_acl.key` en garde une."""
    jwt_previous_keys: Annotated[list[SigningSecret], NoDecode, BeforeValidator(_split)] = []
    """Anciennes clés, séparées par des virgules : elles vérifient encore, ne signent plus."""
    jwt_algorithm: Algorithm = "HS256"
    """Algorithme de signature, le seul accepté."""
    jwt_issuer: Annotated[str, Field(min_length=1, max_length=250)] = "fastapi-acl"
    """Émetteur (`iss`) des jetons, exigé à la vérification."""
    jwt_audience: Annotated[str, Field(min_length=1, max_length=250)] = "fastapi-acl"
    """Destinataire (`aud`) des jetons, exigé à la vérification."""
    jwt_access_token_expire_minutes: Annotated[int, Field(ge=1, le=1440)] = 15
    """Durée de vie d'un jeton d'accès, en minutes."""
    jwt_refresh_token_expire_days: Annotated[int, Field(ge=1, le=365)] = 7
    """Durée de vie d'un refresh token, en jours."""
    jwt_leeway_seconds: Annotated[int, Field(ge=0, le=60)] = 10
    """Écart d'horloge toléré, en secondes (60 au plus)."""
    jwt_refresh_grace_seconds: Annotated[int, Field(ge=0, le=60)] = 0
    """Temps, en secondes, où le perdant d'un renouvellement simultané est refusé sans fermer la session."""
    session_idle_days: Annotated[int, Field(ge=1, le=365)] = 7
    """Une session inutilisée pendant ce nombre de jours est finie."""
    session_absolute_days: Annotated[int, Field(ge=1, le=365)] = 30
    """Une session finit au bout de ce nombre de jours, renouvelée ou non."""

    login_by: Literal["username", "email", "either"] = "either"
    """Ce que le champ `username` d'une connexion donne : `username`, `email` ou `either` (un `@` : l'adresse)."""
    password_min_length: Annotated[int, Field(ge=8, le=128)] = 15
    """Longueur minimale d'un mot de passe, en caractères (8 au moins)."""
    bcrypt_rounds: Annotated[int, Field(ge=4, le=16)] = 12
    """Coût de bcrypt (10 au moins en production) ; chaque unité double le temps."""

    enable_api_routes: bool = True
    """Monte les routes de la bibliothèque."""
    api_prefix: str = "/api/v1"
    """Préfixe des routes de la bibliothèque."""
    enable_auth_feature: bool = True
    """Monte les routes de comptes."""
    enable_permissions_feature: bool = True
    """Monte les routes de règles ; les décisions se prennent de toute façon."""
    enable_roles_feature: bool = True
    """Monte les routes de rôles."""
    enable_users_feature: bool = True
    """Monte les routes d'utilisateurs."""
    enable_token_form: bool | None = None
    """Monte `/auth/token`, le formulaire du bouton « Authorize » ; par défaut, en développement seulement."""
    require_guarded_routes: bool = False
    """Refuse de démarrer si une route n'est gardée par rien."""

    model: PackagedModel = "rbac"
    """Modèle fourni : `rbac`, `rbac_with_domains`, `abac`, `acl` ou `rest`."""
    model_path: Path | None = None
    """Votre `model.conf`, à la place d'un modèle fourni."""
    shared_domain: Literal["*", ""] | None = None
    """`*` : une règle ou un lien dans le domaine `*` vaut dans tous (modèles fournis : défaut) ; vide : en lui seul."""
    policy_path: Path | None = None
    """CSV de règles, lu une fois dans une base vide."""
    allow_eval: bool = False
    """Admet `eval()` dans le matcher : les règles sont alors du code."""
    owner_attribute: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")] = "owner"
    """Attribut d'un objet chargé qui porte l'`id` de son propriétaire, pour la portée `own` (`aclOwns`)."""
    subject_format: Literal["prefixed", "raw"] = "prefixed"
    """`prefixed` exige `user:` et `role:` ; `raw` les laisse libres, pour votre propre Authenticator."""
    policy_poll_seconds: Annotated[float, Field(ge=0.05, le=60)] = 0.5
    """Temps entre deux regards sur la révision de la base, en secondes."""
    watcher: Literal["auto", "redis", "postgresql", "none"] = "auto"
    """Ce qui annonce un changement aux autres processus : Redis s'il est donné, sinon PostgreSQL s'il sert de base."""
    max_staleness_seconds: Annotated[float, Field(ge=1, le=3600)] = 30
    """Au-delà de cet âge, en secondes, la politique n'est plus crue : 503."""
    revision_wait_ms: Annotated[int, Field(ge=0, le=10_000)] = 1000
    """Temps, en millisecondes, qu'une requête attend la révision qu'elle exige."""

    rate_limit_enabled: bool = True
    """Limite le débit des routes de comptes."""
    rate_limit_default: str = ""
    """Débit des autres routes ; vide, aucun."""
    rate_limit_login: str = "10/minute"
    """Débit des connexions."""
    trusted_proxies: CommaSeparated = []
    """Proxys dont les en-têtes d'adresse sont crus, séparés par des virgules."""

    disable_auth_for_dev: bool = False
    """En développement, une requête locale sans jeton agit en administrateur par défaut, sous la politique."""
    dev_origins: CommaSeparated = []
    """Origines de cette machine, séparées par des virgules, dont les pages peuvent en faire autant."""
    create_default_admin: bool = False
    """Crée une fois l'administrateur par défaut ; un compte existant n'est jamais promu."""
    default_admin_username: Annotated[str, Field(min_length=1, max_length=64)] = "admin"
    """Son nom."""
    default_admin_email: str | None = None
    """Son adresse ; facultative, sauf si `login_by` vaut `email`."""
    default_admin_password: SecretStr | None = None
    """Son mot de passe ; sans lui, en développement, engendré, et montré une fois ou, sans terminal, mis en fichier."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Refuse un argument inconnu, que `extra="ignore"` (nécessaire au fichier .env partagé) tairait."""
        unknown = set(init_settings()) - set(settings_cls.model_fields)
        if unknown:
            raise ConfigurationError("; ".join(_did_you_mean(sorted(unknown), settings_cls.model_fields)))
        _keep_empty(env_settings, EnvSettingsSource(settings_cls, env_ignore_empty=False))
        if isinstance(dotenv_settings, DotEnvSettingsSource):
            read = DotEnvSettingsSource(
                settings_cls, dotenv_settings.env_file, dotenv_settings.env_file_encoding, env_ignore_empty=False
            )
            _keep_empty(dotenv_settings, read)
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @field_validator("sqlite_uri", "postgresql_uri", "mysql_uri", "mongodb_uri", "redis_url")
    @classmethod
    def _check_scheme(cls, value: SecretStr | None, info: Any) -> SecretStr | None:  # noqa: ANN401 - ValidationInfo
        """Refuse une adresse d'un autre service que celui que le réglage nomme."""
        expected = SCHEMES[info.field_name]
        scheme = value.get_secret_value().partition("://")[0] if value else expected[0]
        if scheme not in expected:
            message = f"l’adresse doit commencer par « {expected[0]}:// » (admis : {', '.join(expected)})"
            raise ValueError(message)
        return value

    @field_validator("postgresql_schema")
    @classmethod
    def _check_schema(cls, value: str) -> str:
        """Refuse un nom que PostgreSQL couperait, menant à un autre schéma, ou que SQLAlchemy ne sait pas écrire."""
        if len(value.encode(errors="replace")) > MAX_IDENTIFIER_BYTES or set(value) & set("[]\0"):
            message = f"un nom de schéma a {MAX_IDENTIFIER_BYTES} octets au plus, et ni crochet ni caractère nul"
            raise ValueError(message)
        return value

    @field_validator("api_prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        """Met le préfixe sous la forme `/a/b`, ou vide."""
        stripped = value.strip().strip("/")
        if any(character in stripped for character in "{}?# "):
            message = "le préfixe est un chemin simple, par exemple « /api/v1 »"
            raise ValueError(message)
        return f"/{stripped}" if stripped else ""

    @field_validator("model_path", "policy_path")
    @classmethod
    def _check_file(cls, value: Path | None) -> Path | None:
        """Refuse un fichier qui n'existe pas."""
        if value is not None and not value.is_file():
            message = f"le fichier « {value} » n’existe pas (dossier courant : {Path.cwd()})"
            raise ValueError(message)
        return value

    @field_validator("dev_origins")
    @classmethod
    def _check_origins(cls, value: list[str]) -> list[str]:
        """N'admet que des origines entières, de cette machine."""
        for text in value:
            if not _is_local_origin(text):
                message = (
                    f"« {text} » n’est pas l’origine d’une page de cette machine : écrivez le schéma, le nom et le "
                    "port, sans chemin, par exemple « http://localhost:5173 »"
                )
                raise ValueError(message)
        return value

    @field_validator("default_admin_password")
    @classmethod
    def _check_admin_password(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse un mot de passe vide ; sa force est jugée comme celle de tout compte."""
        if value is not None and not value.get_secret_value():
            message = "le mot de passe de l’administrateur ne peut pas être vide"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _check_database(self) -> Self:
        """Exige l'adresse de la base choisie."""
        if getattr(self, f"{self.database_type}_uri") is None:
            variable = f"ACL_{self.database_type.upper()}_URI"
            message = (
                f"database_type vaut « {self.database_type} » : donnez son adresse dans {variable} "
                f"(par exemple {SCHEMES[f'{self.database_type}_uri'][0]}://utilisateur:motdepasse@hote/base)"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _check_production(self) -> Self:
        """Refuse en production ce qui n'est tolérable qu'en développement."""
        if self.environment == "production":
            faults = list(_production_faults(self))
            if faults:
                raise ValueError(" ; ".join(faults))
        return self

    @model_validator(mode="after")
    def _check_cache(self) -> Self:
        """Exige l'adresse de Redis quand le cache est dans Redis."""
        if self.enable_cache and self.cache_backend == "redis" and self.redis_url is None:
            message = "cache_backend vaut « redis » : donnez l’adresse du serveur dans ACL_REDIS_URL"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _check_watcher(self) -> Self:
        """Exige ce par quoi le watcher passe."""
        if self.watcher == "redis" and self.redis_url is None:
            message = "watcher vaut « redis » : donnez l’adresse du serveur dans ACL_REDIS_URL"
            raise ValueError(message)
        if self.watcher == "postgresql" and self.database_type != "postgresql":
            message = "watcher vaut « postgresql » : il faut que ACL_DATABASE_TYPE le soit aussi"
            raise ValueError(message)
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_french(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401 - ce qui est donné
        """Dit en français ce que Pydantic refuse ; le dernier déclaré, il enveloppe tous les autres."""
        try:
            return validate(values)
        except ValidationError as error:
            raise in_french(error, cls.model_fields) from None  # elle garderait les valeurs données

    @property
    def chosen_watcher(self) -> Literal["redis", "postgresql", "none"]:
        """Le watcher, choisi ou déduit."""
        if self.watcher != "auto":
            return self.watcher
        if self.redis_url is not None:
            return "redis"
        return "postgresql" if self.database_type == "postgresql" else "none"

    @property
    def is_production(self) -> bool:
        """Vrai en production."""
        return self.environment == "production"

    @property
    def serves_accounts(self) -> bool:
        """Vrai si nos routes de comptes sont montées."""
        return self.enable_api_routes and self.enable_auth_feature

    @property
    def token_form_enabled(self) -> bool:
        """Vrai si la route `/auth/token` est montée : par défaut, en développement seulement (RFC 9700, 2.4)."""
        return not self.is_production if self.enable_token_form is None else self.enable_token_form

    @property
    def database_uri(self) -> str:
        """Adresse de la base choisie, en clair : à ne montrer nulle part."""
        uri: SecretStr = getattr(self, f"{self.database_type}_uri")
        return uri.get_secret_value()

    @property
    def shown_database(self) -> str:
        """Adresse de la base choisie, sans mot de passe ni options : celle que l'on montre."""
        return _without_secrets(self.database_uri)

    @property
    def model_source(self) -> str:
        """D'où vient le modèle, pour le nommer : le fichier, ou le nom d'un modèle fourni."""
        return str(self.model_path) if self.model_path is not None else f"{self.model} (fourni)"

    def ineffective_settings(self) -> list[str]:
        """Réglages donnés explicitement que cette version n'applique pas encore."""
        return sorted(self.model_fields_set & NOT_YET_EFFECTIVE)


def _keep_empty(source: PydanticBaseSettingsSource, whole: EnvSettingsSource) -> None:
    """Renvoie à une source les réglages dont le vide est une valeur, qu'elle écarte avec les autres variables vides.

    Args:
        source: source qui sera lue.
        whole: la même, variables vides comprises.
    """
    empty = {name: "" for name in map("acl_{}".format, EMPTY_IS_A_VALUE) if whole.env_vars.get(name) == ""}
    if isinstance(source, EnvSettingsSource):
        source.env_vars = {**source.env_vars, **empty}


def _is_local_origin(text: str) -> bool:
    """Dit si un texte est l'origine d'une page servie par cette machine."""
    found = read_origin(text)
    return found is not None and is_loopback(found[1])


def unknown_variables(environment: Iterable[str] | None = None) -> list[str]:
    """Dit quelles variables `ACL_…` ne correspondent à aucun réglage, avec le nom le plus proche.

    Args:
        environment: noms de variables ; ceux du processus par défaut.

    Returns:
        Une phrase par variable inconnue.
    """
    names = os.environ if environment is None else environment
    known = {f"ACL_{field.upper()}" for field in ACLConfig.model_fields} | COMMAND_VARIABLES
    mine = sorted(name for name in names if name.startswith("ACL_") and not name.startswith("ACL_TEST_"))
    return list(_did_you_mean([name for name in mine if name not in known], known))


def _without_secrets(uri: str) -> str:
    """Retire d'une adresse le mot de passe et les options, qui peuvent en porter un autre.

    Tout ce qui précède le dernier « @ » est tenu pour l'utilisateur et son mot de passe : mal écrit, il ne fuit pas.
    """
    scheme, _, rest = uri.partition("://")
    user, at, place = rest.rpartition("@")
    shown = place.partition("?")[0]
    if scheme in SCHEMES["sqlite_uri"]:  # relatif, le chemin d'un fichier ne dirait pas lequel
        return f"{scheme}:///{Path(shown[1:]).resolve()}" if shown.strip("/") else f"{scheme}://"
    return f"{scheme}://{user.partition(':')[0]}{at}{shown}"


def _did_you_mean(unknown: Iterable[str], known: Iterable[str]) -> Iterable[str]:
    """Propose le réglage le plus proche de chaque nom inconnu."""
    candidates = list(known)
    for name in unknown:
        near = difflib.get_close_matches(name, candidates, n=1)
        yield f"« {name} » n’est pas un réglage" + (f" ; vouliez-vous « {near[0]} » ?" if near else "")


def _production_faults(config: ACLConfig) -> Iterable[str]:
    """Énumère ce qui interdit un démarrage en production."""
    if config.jwt_secret_key is None and config.enable_auth_feature:
        yield f"en production, ACL_JWT_SECRET_KEY est nécessaire ({MIN_SECRET_BYTES} octets au moins)"
    if config.disable_auth_for_dev:
        yield "ACL_DISABLE_AUTH_FOR_DEV n’est admis qu’avec ACL_ENVIRONMENT=development"
    if config.create_default_admin and config.default_admin_password is None:
        yield "en production, ACL_CREATE_DEFAULT_ADMIN demande ACL_DEFAULT_ADMIN_PASSWORD"
    if config.bcrypt_rounds < 10:  # noqa: PLR2004 - plancher OWASP (Password Storage Cheat Sheet)
        yield "en production, ACL_BCRYPT_ROUNDS vaut au moins 10"
