"""`fastapi-acl …` : l'exploitation en ligne de commande, sur les mêmes cas d'usage que les routes."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from fastapi_acl.config_reference import env_example, markdown
from fastapi_acl.engine.lint import lint
from fastapi_acl.manager import ACLManager
from fastapi_acl.shared.config import ACLConfig
from fastapi_acl.shared.exceptions import ACLException

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

app = typer.Typer(help="Exploite fastapi-acl ; les réglages viennent des variables ACL_… et du fichier .env.")
policy = typer.Typer(help="Règles de politique.")
settings = typer.Typer(help="Réglages.")
app.add_typer(policy, name="policy")
app.add_typer(settings, name="config")

output = Console()
errors = Console(stderr=True)


@app.command("create-admin")
def create_admin(
    username: Annotated[str, typer.Option(help="Nom du compte.", prompt="Nom d’utilisateur")],
    email: Annotated[str | None, typer.Option(help="Adresse électronique, facultative.")] = None,
) -> None:
    """Crée un administrateur ; un compte existant n'est jamais promu.

    Le mot de passe se saisit au clavier, ou se lit sur l'entrée standard : jamais en argument, que tout le monde voit.
    """
    password = _read_password()

    async def create(manager: ACLManager) -> str:
        account = await manager.create_administrator(username, password, email=email)
        return f"Administrateur « {account.username} » créé (identifiant {account.id})."

    _run(create)


@app.command()
def migrate() -> None:
    """Met le schéma de la base à jour ; utile quand ACL_AUTO_MIGRATE est coupé."""

    async def run(manager: ACLManager) -> str:
        await manager.migrate()
        return "Le schéma est à jour."

    _run(run)


@settings.command("env")
def config_env() -> None:
    """Écrit un .env commenté, un réglage par ligne."""
    sys.stdout.write(env_example())


@settings.command("table")
def config_table() -> None:
    """Écrit le tableau Markdown des réglages."""
    sys.stdout.write(markdown())


@policy.command("apply")
def apply_policy() -> None:
    """Ajoute à la base les règles du fichier ACL_POLICY_PATH qui manquent."""

    async def apply(manager: ACLManager) -> str:
        return f"{await manager.apply_policy_file()} règle(s) ajoutée(s)."

    _run(apply)


@policy.command("plan")
def show_plan() -> None:
    """Montre comment le matcher du modèle se décide : par un index, ou règle par règle, et pourquoi."""

    def plan() -> str:
        enforcer = ACLManager(ACLConfig()).get_enforcer()
        return enforcer.plan.describe(enforcer.schema.request, enforcer.schema.fields["p"])

    output.print(_or_exit(plan), highlight=False, markup=False, soft_wrap=True)


@policy.command("lint")
def lint_policy() -> None:
    """Relit le modèle : ce qui revient à l'évaluation de Casbin et pourquoi, ce qui est lent, ce qui est risqué."""
    found = _or_exit(lambda: "\n".join(f"- {one}" for one in lint(ACLManager(ACLConfig()).get_enforcer())))
    output.print(found or "Rien à signaler.", highlight=False, markup=False, soft_wrap=True)
    if found:
        raise typer.Exit(1)


def main() -> None:
    """Point d'entrée de la commande."""
    app()


def _run(action: Callable[[ACLManager], Awaitable[str]]) -> None:
    """Exécute une action et dit ce qu'il en est ; une erreur attendue tient en une phrase, sans trace."""
    with errors.status("Connexion à la base…"):
        message = _or_exit(lambda: asyncio.run(_with_manager(action)))
    output.print(message, highlight=False)


def _or_exit(action: Callable[[], str]) -> str:
    """Exécute une action ; une erreur attendue termine la commande en une phrase."""
    try:
        return action()
    except (ACLException, ValidationError) as error:
        errors.print(f"[red]Erreur :[/red] {_sentence(error)}", highlight=False)
        raise typer.Exit(1) from error


async def _with_manager(action: Callable[[ACLManager], Awaitable[str]]) -> str:
    """Ouvre la bibliothèque sans application, le temps d'une action."""
    manager = ACLManager(ACLConfig())
    try:
        return await action(manager)
    finally:
        await manager.close()


def _sentence(error: ACLException | ValidationError) -> str:
    """Rend une erreur en phrases, sans les valeurs fautives."""
    if isinstance(error, ACLException):
        return error.detail
    return "\n".join(f"ACL_{_name(item)} : {item['msg']}" for item in error.errors(include_input=False))


def _name(item: Any) -> str:  # noqa: ANN401 - détail d'erreur de Pydantic
    """Rend le nom du réglage en cause."""
    return ".".join(map(str, item["loc"])).upper() or "CONFIG"


def _read_password() -> str:
    """Lit le mot de passe, deux fois au clavier, une fois sur une entrée redirigée."""
    if sys.stdin.isatty():
        return str(typer.prompt("Mot de passe", hide_input=True, confirmation_prompt="Encore une fois"))
    return sys.stdin.readline().rstrip("\r\n")
