"""Ouvrir l'application le temps d'une commande : dire sur quoi l'on travaille, et sous quel modèle."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import typer
from pydantic import ValidationError

from fastapi_acl.cli.output import complain, note, say, warn
from fastapi_acl.cli.target import find_manager
from fastapi_acl.shared.exceptions import ACLException, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fastapi_acl.engine.writing.model_record import Standing
    from fastapi_acl.manager import ACLManager

T = TypeVar("T")


def run(named: str | None, action: Callable[[ACLManager], Awaitable[str]]) -> None:
    """Exécute une action sur l'application nommée, et écrit ce qu'elle renvoie.

    Args:
        named: ce que `--app` donne.
        action: l'action.
    """
    say(run_or_exit(lambda: asyncio.run(_run_and_close(open_manager(named), action))))


def open_manager(named: str | None) -> ACLManager:
    """Trouve le manager, et dit sur quelle base et sous quel modèle la commande travaille."""
    manager = find_manager(named)
    note(f"Base : {manager.config.shown_database} ; modèle : {manager.config.model_source}.")
    return manager


def run_or_exit(action: Callable[[], T]) -> T:
    """Exécute une action ; une erreur attendue termine la commande en une phrase."""
    try:
        return action()
    except (ACLException, ValidationError, OSError, UnicodeDecodeError) as error:
        complain(error)
        raise typer.Exit(1) from error


async def _run_and_close(manager: ACLManager, action: Callable[[ACLManager], Awaitable[str]]) -> str:
    """Exécute une action, et ferme ce qu'elle a ouvert."""
    try:
        return await action(manager)
    finally:
        await manager.close()


async def look(manager: ACLManager) -> None:
    """Prépare une lecture : la base doit être là, rien n'y est créé ; un autre modèle n'est qu'un avertissement.

    Raises:
        ConfigurationError: la base n'existe pas, ou son schéma est absent ou en retard.
    """
    await manager.check_schema()
    standing = await _compare_models(manager)
    if standing.differs:
        warn(f"{_name_models(standing)} ; ce qui suit peut s’en trouver mal lu.")


@asynccontextmanager
async def prepare_writing(manager: ACLManager, *, creates: bool = False, loads: bool = True) -> AsyncIterator[None]:
    """Prépare une écriture de règles ; sous un autre modèle que le leur, elle est refusée.

    Args:
        manager: celui de l'application.
        creates: met d'abord le schéma à jour, quitte à créer la base ; sinon elle doit être là.
        loads: charge les règles, ce que l'on ne peut pas quand c'est pour en écarter une qui ne se lit pas.

    Raises:
        ConfigurationError: les règles ont été écrites sous un autre modèle, ou la base n'est pas prête.
    """
    await (manager.migrate(force=False) if creates else manager.check_schema())
    standing = await _compare_models(manager)
    if standing.differs:
        message = (
            f"{_name_models(standing)} : rien n’a été changé. Donnez le modèle de l’application par --app, ACL_MODEL "
            "ou ACL_MODEL_PATH ; ou, si le modèle a bien changé, adoptez-le par « fastapi-acl policy apply »."
        )
        raise ConfigurationError(message)
    if loads:
        await manager.load()
    yield
    if standing.is_first:
        _ = await manager.get_model_record().adopt(manager.get_replica())


async def _compare_models(manager: ACLManager) -> Standing:
    """Compare le modèle de l'application à celui que le journal tient."""
    return await manager.get_model_record().standing()


def _name_models(standing: Standing) -> str:
    """Nomme les deux modèles."""
    noted = standing.noted.source if standing.noted is not None else "aucun"
    return f"les règles de cette base ont été écrites sous le modèle « {noted} », et non « {standing.mine.source} »"
