"""`fastapi-acl policy …` : les règles, leur histoire, et ce qu'elles ont de suspect."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastapi_acl.cli.files import keep_copy, open_rules, read_format, replace_file
from fastapi_acl.cli.linting import lint_all
from fastapi_acl.cli.losses import Yes, ask_about, confirm, write_rule
from fastapi_acl.cli.opening import look, open_manager, prepare_writing, run, run_or_exit
from fastapi_acl.cli.output import note, say, show_progress, warn
from fastapi_acl.cli.target import Application
from fastapi_acl.engine.casbin.domains import describe
from fastapi_acl.engine.casbin.trial import check_matchers
from fastapi_acl.engine.kernel.loading import row_rule
from fastapi_acl.engine.writing.rule_files import read_rules
from fastapi_acl.shared.exceptions import InvalidRuleError, PolicyUnreadableError
from fastapi_acl.shared.policy import PolicyChange

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from fastapi_acl.manager import ACLManager
    from fastapi_acl.shared.sync.changes import Change

policy = typer.Typer(help="Règles de politique.")


@policy.command("apply")
def apply_policy(application: Application = None) -> None:
    """Ajoute à la base les règles du fichier ACL_POLICY_PATH qui manquent, et adopte le modèle de l'application."""

    async def apply(manager: ACLManager) -> str:
        is_adopted = await manager.adopt_model()
        if is_adopted:
            say(f"Modèle adopté : {manager.config.model_source}.")
        await _tell_unread(manager)
        if is_adopted and manager.config.policy_path is None:
            return ""
        return f"{await manager.apply_policy_file()} règle(s) ajoutée(s)."

    run(application, apply)


@policy.command("import")
def import_policy(
    file: Annotated[Path, typer.Argument(help="Fichier .csv (Casbin) ou .json.", exists=True, dir_okay=False)],
    *,
    replace: Annotated[bool, typer.Option(help="Met le fichier à la place de toutes les règles.")] = False,
    yes: Yes = False,
    application: Application = None,
) -> None:
    """Importe un fichier de règles, tout ou rien ; une ligne refusée est nommée, et rien n'est changé."""

    async def action(manager: ACLManager) -> str:
        form = read_format(file)
        with keep_copy(file) as copy:
            async with prepare_writing(manager, creates=True):
                if replace:
                    await ask_about(manager, _compute_replacing(manager, copy), yes=yes)
                with show_progress(f"Import de {file.name}") as shown, open_rules(copy) as text:
                    transfer = manager.get_policy_transfer()
                    done = await transfer.import_rules(text, form, replaces=replace, progress=shown)
        known = done.read - done.added
        return f"{done.added} règle(s) ajoutée(s), {known} déjà là ; révision {done.revision}."

    run(application, action)


@policy.command("export")
def export_policy(
    file: Annotated[Path, typer.Argument(help="Fichier .csv (Casbin) ou .json à écrire.", dir_okay=False)],
    application: Application = None,
) -> None:
    """Exporte toutes les règles, telles qu'elles sont à un seul instant ; le fichier n'est lisible que de vous."""

    async def action(manager: ACLManager) -> str:
        form, size = read_format(file), 0
        await look(manager)
        if file.is_symlink():
            warn(f"« {file} » est un lien : il est remplacé par le fichier, et ce qu’il désigne n’est pas touché.")
        with replace_file(file) as text:
            async for part in manager.get_policy_transfer().export_rules(form):
                size += text.write(part)
        return f"{file} écrit ({size} caractères)."

    run(application, action)


@policy.command("history")
def show_history(
    since: Annotated[int, typer.Option(help="Dernière révision déjà vue.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="Nombre d'entrées au plus.", min=1, max=1000)] = 50,
    application: Application = None,
) -> None:
    """Montre le journal : révision, instant, auteur, nature et contenu de chaque changement."""

    async def action(manager: ACLManager) -> str:
        await look(manager)
        entries = await manager.get_policy_history().changes(since=since, limit=limit)
        return "\n".join(_write_entry(change) for change in entries) or "Le journal est vide."

    run(application, action)


@policy.command("rollback")
def rollback_policy(
    revision: Annotated[int, typer.Argument(help="Révision à laquelle revenir.", min=0)],
    *,
    yes: Yes = False,
    application: Application = None,
) -> None:
    """Revient aux règles d'une révision, par un changement de plus."""

    async def action(manager: ACLManager) -> str:
        history = manager.get_policy_history()
        async with prepare_writing(manager):
            await ask_about(manager, await history.way_back(revision), yes=yes)
            done = await history.rollback(revision)
        return f"Les règles sont celles de {revision} ; révision {done}."

    run(application, action)


@policy.command("compact")
def compact_log(
    days: Annotated[int, typer.Option(help="Âge, en jours, à partir duquel une entrée part.", min=0)] = 90,
    *,
    yes: Yes = False,
    application: Application = None,
) -> None:
    """Retire du journal ce qui est ancien ; les règles de cette révision sont gardées, pour rebâtir la suite."""

    async def action(manager: ACLManager) -> str:
        history, age = manager.get_policy_history(), timedelta(days=days)
        async with prepare_writing(manager):
            oldest, count = await history.compactable(older_than=age)
            if count:
                note(f"{count} entrée(s) au plus partent : aucune révision d’avant {oldest} ne pourra être retrouvée.")
                confirm(yes=yes)
            removed = await history.compact(older_than=age)
        return f"{removed} entrée(s) retirée(s) du journal."

    run(application, action)


@policy.command("quarantine")
def quarantine_row(
    row: Annotated[str, typer.Argument(help="Numéro de la ligne, que le journal nomme.")],
    *,
    yes: Yes = False,
    application: Application = None,
) -> None:
    """Écarte une ligne de la base, par exemple celle qui empêche de charger la politique ; le journal la garde."""

    async def action(manager: ACLManager) -> str:
        async with prepare_writing(manager, loads=False):
            is_loaded = await _is_loaded(manager)
            found = await manager.get_quarantine().find_row(row)
            await _ask_about_row(manager, found, is_loaded=is_loaded, yes=yes)
            said = await _put_aside(manager, found["id"] if isinstance(found["id"], int) else row)
        return f"{said} : {_columns(found)}"

    run(application, action)


@policy.command("plan")
def show_plan(application: Application = None) -> None:
    """Montre comment le matcher du modèle se décide : par un index, ou règle par règle, et pourquoi."""

    def plan() -> str:
        manager = open_manager(application)
        check_matchers(manager.get_definitions())
        schema = manager.get_policy().schema
        found = manager.get_policy().plan.describe(schema.request, schema.fields["p"])
        return "\n".join(filter(None, (found, describe(schema, manager.config.shared_domain))))

    say(run_or_exit(plan))


@policy.command("lint")
def lint_policy(application: Application = None) -> None:
    """Relit le modèle et les règles : ce qui est lent ou risqué, et les noms qui n'existent pas."""
    found: list[str] = []

    async def action(manager: ACLManager) -> str:
        found.extend(await lint_all(manager))
        return "\n".join(f"- {one}" for one in found) or "Rien à signaler."

    run(application, action)
    if found:
        raise typer.Exit(1)


async def _tell_unread(manager: ACLManager) -> None:
    """Dit ce que le modèle de l'application ne lit pas, et comment en sortir."""
    if not await _is_loaded(manager):
        warn(
            "Des règles en place ne se lisent pas sous ce modèle et pourraient refuser : rien ne se décide tant "
            "qu’elles sont là. Le journal nomme chaque ligne ; écartez-les une à une par « fastapi-acl policy "
            "quarantine », puis écrivez les règles du nouveau modèle."
        )
        raise typer.Exit(1)
    skipped = manager.get_policy().skipped_rows
    if skipped:
        warn(f"{skipped} ligne(s) ne se lisent pas sous ce modèle et n’accordent rien.")


def _compute_replacing(manager: ACLManager, file: Path) -> PolicyChange:
    """Renvoie ce que mettre un fichier à la place de toutes les règles changerait.

    Raises:
        InvalidImportError: une ligne ne se lit pas, ou le modèle ne l'admet pas.
    """
    policy, transfer = manager.get_policy(), manager.get_policy_transfer()
    with open_rules(file) as text:
        wanted = dict.fromkeys(transfer.check_rule(line, rule) for line, rule in read_rules(text, read_format(file)))
    removed = tuple(rule for rule in policy.rules if rule not in wanted)
    return PolicyChange(added=tuple(rule for rule in wanted if not policy.holds(rule)), removed=removed)


async def _is_loaded(manager: ACLManager) -> bool:
    """Charge la politique si elle se lit."""
    try:
        await manager.load()
    except PolicyUnreadableError:
        return False
    return True


async def _ask_about_row(manager: ACLManager, found: Mapping[str, Any], *, is_loaded: bool, yes: bool) -> None:
    """Montre une ligne, dit si elle se lit, et demande s'il faut l'écarter."""
    rule = row_rule(found)
    try:
        manager.get_policy().schema.check(rule)
    except InvalidRuleError as error:
        note(f"Cette ligne ne se lit pas : {_columns(found)} ({error.detail})")
        confirm(yes=yes)
        return
    if is_loaded:
        await ask_about(manager, PolicyChange(removed=(rule,)), yes=yes)
        return
    warn(
        f"cette ligne se lit ({write_rule(rule)}), et la politique ne se charge pas : "
        "une autre en est peut-être la cause."
    )
    confirm(yes=yes)


async def _put_aside(manager: ACLManager, row: int | str) -> str:
    """Écarte une ligne ; une autre peut encore empêcher de charger la politique, mais celle-ci est bien partie."""
    try:
        await manager.get_quarantine().quarantine(row)
    except PolicyUnreadableError:
        warn("une autre ligne empêche encore de charger la politique : le journal d’événements la nomme.")
    return "Ligne écartée, gardée dans le journal"


def _columns(found: Mapping[str, Any]) -> str:
    """Écrit une ligne, colonne par colonne."""
    return json.dumps(dict(found), ensure_ascii=False, default=repr)


def _write_entry(change: Change) -> str:
    """Écrit une entrée du journal sur une ligne."""
    content = json.dumps(change.payload, ensure_ascii=False)
    return f"{change.revision}  {change.at:%Y-%m-%d %H:%M:%S}Z  {change.actor}  {change.kind}  {content}"
