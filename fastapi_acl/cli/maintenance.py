"""Comptes, schéma, sauvegarde : ce qui ne lit aucune règle, et ne compare donc pas le modèle."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fastapi_acl.cli.opening import run
from fastapi_acl.cli.target import Application

if TYPE_CHECKING:
    from fastapi_acl.manager import ACLManager


def create_admin(
    username: Annotated[str, typer.Option(help="Nom du compte.", prompt="Nom d’utilisateur")],
    email: Annotated[str | None, typer.Option(help="Adresse électronique, facultative.")] = None,
    application: Application = None,
) -> None:
    """Crée un administrateur ; un compte existant n'est jamais promu.

    Le mot de passe se saisit au clavier, ou se lit sur l'entrée standard : jamais en argument, que tout le monde voit.
    """
    password = _read_password()

    async def create(manager: ACLManager) -> str:
        account = await manager.create_administrator(username, password, email=email)
        return f"Administrateur « {account.username} » créé (identifiant {account.id})."

    run(application, create)


def migrate(application: Application = None) -> None:
    """Met le schéma de la base à jour, quitte à la créer ; utile quand ACL_AUTO_MIGRATE est coupé."""

    async def action(manager: ACLManager) -> str:
        await manager.migrate()
        return "Le schéma est à jour."

    run(application, action)


def declare_restored(application: Application = None) -> None:
    """À exécuter après la restauration d'une sauvegarde, avant de rouvrir : chaque processus relira tout."""

    async def action(manager: ACLManager) -> str:
        await manager.check_schema()
        await manager.get_policy_history().renew()
        return "Le journal a une autre identité : chaque processus relit tout à son prochain regard."

    run(application, action)


def _read_password() -> str:
    """Lit le mot de passe, deux fois au clavier, une fois sur une entrée redirigée."""
    if sys.stdin.isatty():
        return str(typer.prompt("Mot de passe", hide_input=True, confirmation_prompt="Encore une fois"))
    return sys.stdin.readline().rstrip("\r\n")
