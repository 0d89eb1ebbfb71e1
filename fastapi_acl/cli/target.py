"""L'application que la ligne de commande sert : `--app module:attribut`, ACL_APP, ou pyproject.toml.

Ses réglages, son modèle, son Authenticator et ses fonctions sont alors ceux de l'application. Sans elle, tout vient des
variables ACL_… et du fichier .env.
"""

from __future__ import annotations

import difflib
import importlib
import secrets
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fastapi_acl.manager import ACLManager
from fastapi_acl.shared.config import ACLConfig
from fastapi_acl.shared.exceptions import ACLException, ConfigurationError
from fastapi_acl.shared.http.scope import ACLMiddleware

if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn

PROJECT_FILE: Final = Path("pyproject.toml")
TABLE: Final = "[tool.fastapi-acl]"
SHAPE: Final = "l’application s’écrit « module:attribut », par exemple « main:acl »"


class _Chosen(BaseSettings):
    """Ce que l'environnement, ou le fichier .env, dit de l'application."""

    model_config = SettingsConfigDict(env_prefix="ACL_", env_file=".env", env_file_encoding="utf-8", extra="ignore")

    app: str = ""


def _pick_option(context: typer.Context, value: str | None) -> str | None:
    """Renvoie l'option donnée après la commande, ou sinon celle donnée avant."""
    found: str | None = value or context.find_root().params.get("application")
    return found


Application = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:ATTRIBUT",
        callback=_pick_option,
        help="ACLManager, ou application FastAPI qui l’a reçu ; sinon ACL_APP, ou app sous \\[tool.fastapi-acl] dans "
        "pyproject.toml ; sinon les variables ACL_… seules.",
    ),
]


def find_manager(named: str | None) -> ACLManager:
    """Renvoie le manager de l'application nommée, ou celui que l'environnement décrit.

    Args:
        named: ce que `--app` donne.

    Raises:
        ConfigurationError: l'application ne se trouve pas, ou n'a pas de manager ; le message dit quoi écrire.
    """
    path = named or _Chosen().app or _read_project_name()
    return load_manager(path) if path else ACLManager(_give_passing_key(ACLConfig()))


def _give_passing_key(config: ACLConfig) -> ACLConfig:
    """Donne une clé de passage, que rien ne signera : une commande ne fait pas de fichier de clé."""
    if config.jwt_secret_key is not None or config.is_production:
        return config
    return config.model_copy(update={"jwt_secret_key": SecretStr(secrets.token_urlsafe(48))})


def load_manager(path: str) -> ACLManager:
    """Importe un module et renvoie le manager qu'un de ses attributs est, ou a reçu.

    Le dossier courant est d'abord ajouté à ce que Python parcourt, comme le fait uvicorn.

    Raises:
        ConfigurationError: le module ou l'attribut n'existe pas, ou n'est pas un manager.
    """
    module_name, colon, attribute = path.partition(":")
    if not (colon and module_name and attribute):
        message = f"« {path} » : {SHAPE}."
        raise ConfigurationError(message)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    found = _follow_path(_import(module_name), attribute)
    manager = found if isinstance(found, ACLManager) else _find_installed(found)
    return manager if manager is not None else _refuse(path, found)


def _read_project_name() -> str:
    """Renvoie ce que le pyproject.toml du dossier courant nomme, ou rien.

    Raises:
        ConfigurationError: le fichier ne se lit pas, ou ce qu'il nomme n'est pas un texte.
    """
    found: Any = _read_project()
    for name in ("tool", "fastapi-acl"):
        found = found.get(name, {}) if isinstance(found, dict) else None
    found = found.get("app", "") if isinstance(found, dict) else None
    if not isinstance(found, str):
        message = f"{PROJECT_FILE}, {TABLE} : {SHAPE}."
        raise ConfigurationError(message)
    return found


def _read_project() -> dict[str, Any]:
    """Lit le pyproject.toml du dossier courant ; avant Python 3.11, il y faut le paquet tomli.

    Raises:
        ConfigurationError: il est fautif, ou rien ne sait le lire alors qu'il parle de nous.
    """
    text = PROJECT_FILE.read_bytes() if PROJECT_FILE.is_file() else b""
    reader = next((name for name in ("tomllib", "tomli") if find_spec(name) is not None), None)
    if reader is None and TABLE.encode() in text:
        message = f"pour lire {PROJECT_FILE} avant Python 3.11, « pip install tomli » ; ou donnez --app, ou ACL_APP."
        raise ConfigurationError(message)
    try:
        found: dict[str, Any] = importlib.import_module(reader).loads(text.decode()) if reader is not None else {}
    except ValueError as error:  # ni du TOML, ni de l'UTF-8
        message = f"{PROJECT_FILE} ne se lit pas ({error}) : corrigez-le, ou donnez l’application par --app."
        raise ConfigurationError(message) from error
    return found


def _import(name: str) -> ModuleType:
    """Importe le module de l'application.

    Raises:
        ConfigurationError: il n'existe pas, ou son code lève une erreur ; le message nomme le fichier et la ligne.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            message = (
                f"le module « {error.name} » est introuvable depuis « {Path.cwd()} » : lancez la commande du dossier "
                "de l’application, ou corrigez le nom."
            )
            raise ConfigurationError(message) from error
        message = f"le module « {name} » lève une erreur, {_tell_place(error)} : {_tell_reason(error)}"
        raise ConfigurationError(message) from error


def _tell_place(error: BaseException) -> str:
    """Dit où une erreur a été levée : dans l'application si l'on peut, sinon là où elle l'a été pour de bon."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, ligne {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    mine = [frame for frame in frames if _is_of_application(frame.filename)]
    place = (mine or frames)[-1]
    return f"{place.filename}, ligne {place.lineno}"


def _is_of_application(filename: str) -> bool:
    """Dit si un fichier est sous le dossier courant, bibliothèques installées exceptées."""
    path = Path(filename)
    return path.is_relative_to(Path.cwd()) and "site-packages" not in path.parts


def _tell_reason(error: BaseException) -> str:
    """Dit une erreur en une phrase ; celle d'un réglage ne cite pas sa valeur."""
    if isinstance(error, ACLException):
        return error.detail
    if isinstance(error, ValidationError):
        return " ; ".join(
            f"{'.'.join(map(str, one['loc']))} : {one['msg']}" for one in error.errors(include_input=False)
        )
    return f"{type(error).__name__} : {error}".splitlines()[0]


def _follow_path(module: ModuleType, path: str) -> object:
    """Suit un chemin d'attributs.

    Raises:
        ConfigurationError: un attribut manque ; le message propose le nom le plus proche.
    """
    found: object = module
    for name in path.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, dir(found), n=1)
            hint = f" ; vouliez-vous « {near[0]} » ?" if near else " : nommez l’ACLManager de l’application."
            message = f"« {module.__name__} » n’a pas d’attribut « {path} »{hint}"
            raise ConfigurationError(message)
        found = getattr(found, name)
    return found


def _find_installed(found: object) -> ACLManager | None:
    """Renvoie le manager qu'une application a reçu, s'il y en a un."""
    for middleware in found.user_middleware if isinstance(found, FastAPI) else ():
        kind, *_, options = middleware
        if kind is ACLMiddleware and isinstance(options, dict):
            manager: object = options.get("access_control")
            return manager if isinstance(manager, ACLManager) else None
    return None


def _refuse(path: str, found: object) -> NoReturn:
    """Dit pourquoi ce qui est nommé ne convient pas.

    Raises:
        ConfigurationError: toujours.
    """
    if isinstance(found, FastAPI):
        message = f"l’application « {path} » n’a pas reçu d’ACLManager : nommez-le lui-même, ou passez-lui app=."
    else:
        message = f"« {path} » est de type {type(found).__name__} : nommez l’ACLManager, ou l’application FastAPI."
    raise ConfigurationError(message)
