"""`fastapi-acl …` : l'exploitation en ligne de commande, sur les mêmes cas d'usage que les routes."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fastapi_acl.config_reference import env_example, markdown
from fastapi_acl.engine.domains import describe
from fastapi_acl.engine.lint import lint
from fastapi_acl.engine.trial import check_matchers
from fastapi_acl.manager import ACLManager
from fastapi_acl.shared.config import ACLConfig
from fastapi_acl.shared.exceptions import ACLException, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from fastapi_acl.engine.rule_files import RuleFormat
    from fastapi_acl.shared.sync.changes import Change

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


@app.command()
def restored() -> None:
    """À exécuter après la restauration d'une sauvegarde, avant de rouvrir : chaque processus relira tout."""

    async def run(manager: ACLManager) -> str:
        await manager.migrate()
        await manager.get_policy_history().restored()
        return "Le journal a une autre identité : chaque processus relit tout à son prochain regard."

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


@policy.command("import")
def import_policy(
    file: Annotated[Path, typer.Argument(help="Fichier .csv (Casbin) ou .json.", exists=True, dir_okay=False)],
    *,
    replace: Annotated[bool, typer.Option(help="Met le fichier à la place de toutes les règles.")] = False,
) -> None:
    """Importe un fichier de règles, tout ou rien ; une ligne refusée est nommée, et rien n'est changé."""

    async def run(manager: ACLManager) -> str:
        await manager.load()
        transfer = manager.get_policy_transfer()
        with _progress(f"Import de {file.name}") as shown, file.open(encoding="utf-8-sig", newline="") as text:
            done = await transfer.import_rules(text, _format(file), replaces=replace, progress=shown)
        known = done.read - done.added
        return f"{done.added} règle(s) ajoutée(s), {known} déjà là ; révision {done.revision}."

    _run(run)


@policy.command("export")
def export_policy(
    file: Annotated[Path, typer.Argument(help="Fichier .csv (Casbin) ou .json à écrire.", dir_okay=False)],
) -> None:
    """Exporte toutes les règles, telles qu'elles sont à un seul instant."""

    async def run(manager: ACLManager) -> str:
        await manager.load()
        partial, size = file.with_name(f"{file.name}.partiel"), 0
        with partial.open("w", encoding="utf-8", newline="") as text:
            async for part in manager.get_policy_transfer().export_rules(_format(file)):
                size += text.write(part)
        partial.replace(file)
        return f"{file} écrit ({size} caractères)."

    _run(run)


@policy.command("history")
def show_history(
    since: Annotated[int, typer.Option(help="Dernière révision déjà vue.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="Nombre d'entrées au plus.", min=1, max=1000)] = 50,
) -> None:
    """Montre le journal : révision, instant, auteur, nature et contenu de chaque changement."""

    async def run(manager: ACLManager) -> str:
        await manager.load()
        entries = await manager.get_policy_history().changes(since=since, limit=limit)
        return "\n".join(_entry(change) for change in entries) or "Le journal est vide."

    _run(run)


@policy.command("rollback")
def rollback_policy(revision: Annotated[int, typer.Argument(help="Révision à laquelle revenir.", min=0)]) -> None:
    """Revient aux règles d'une révision, par un changement de plus."""

    async def run(manager: ACLManager) -> str:
        await manager.load()
        return (
            f"Les règles sont celles de {revision} ; révision {await manager.get_policy_history().rollback(revision)}."
        )

    _run(run)


@policy.command("compact")
def compact_log(
    days: Annotated[int, typer.Option(help="Âge, en jours, à partir duquel une entrée part.", min=0)] = 90,
) -> None:
    """Retire du journal ce qui est ancien ; les règles de cette révision sont gardées, pour rebâtir la suite."""

    async def run(manager: ACLManager) -> str:
        await manager.load()
        removed = await manager.get_policy_history().compact(older_than=timedelta(days=days))
        return f"{removed} entrée(s) retirée(s) du journal."

    _run(run)


@policy.command("quarantine")
def quarantine_row(
    row: Annotated[str, typer.Argument(help="Numéro de la ligne, que le journal nomme.")],
) -> None:
    """Écarte une ligne de la base, par exemple celle qui empêche de charger la politique ; le journal la garde."""

    async def run(manager: ACLManager) -> str:
        await manager.migrate()
        found = await manager.get_policy_store().quarantine(int(row) if row.isdecimal() else row)
        return f"Ligne écartée, gardée dans le journal : {json.dumps(dict(found), ensure_ascii=False)}"

    _run(run)


@policy.command("plan")
def show_plan() -> None:
    """Montre comment le matcher du modèle se décide : par un index, ou règle par règle, et pourquoi."""

    def plan() -> str:
        config = ACLConfig()
        enforcer = ACLManager(config).get_enforcer()
        check_matchers(enforcer)
        found = enforcer.plan.describe(enforcer.schema.request, enforcer.schema.fields["p"])
        return "\n".join(filter(None, (found, describe(enforcer.schema, config.shared_domain))))

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
    message = _or_exit(lambda: asyncio.run(_with_manager(action)))
    output.print(message, highlight=False, markup=False, soft_wrap=True)


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
    errors.print("Connexion à la base…", style="dim", highlight=False)
    try:
        return await action(manager)
    finally:
        await manager.close()


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int], None]]:
    """Montre l'avancement d'une commande longue, en nombre de règles."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed} règles"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as shown:
        task = shown.add_task(title, total=None)
        yield lambda count: shown.update(task, completed=count)


def _format(file: Path) -> RuleFormat:
    """Rend le format que l'extension d'un fichier annonce.

    Raises:
        InvalidInputError: elle n'en annonce aucun.
    """
    if file.suffix not in {".csv", ".json"}:
        message = f"« {file.name} » : le nom du fichier finit par .csv ou .json."
        raise InvalidInputError(message)
    return "csv" if file.suffix == ".csv" else "json"


def _entry(change: Change) -> str:
    """Écrit une entrée du journal sur une ligne."""
    content = json.dumps(change.payload, ensure_ascii=False)
    return f"{change.revision}  {change.at:%Y-%m-%d %H:%M:%S}Z  {change.actor}  {change.kind}  {content}"


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
