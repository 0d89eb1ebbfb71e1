"""Ce qui détruit dit d'abord qui perd quoi, puis demande."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from fastapi_acl.cli.output import errors, note
from fastapi_acl.shared.exceptions import ConflictError, UserNotFoundError
from fastapi_acl.shared.identity import ROLE_PREFIX, USER_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.manager import ACLManager
    from fastapi_acl.shared.policy import PolicyChange, PolicyRule

MAX_SHOWN: Final = 20
"""Règles montrées une à une ; les autres sont comptées."""

REFUSED: Final = 2
"""Code de sortie d'une commande qui n'a pas pu demander."""

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ne demande pas confirmation.")]


async def ask_about(manager: ACLManager, change: PolicyChange, *, yes: bool) -> None:
    """Montre qui perd quoi à un changement et demande ; sans effet si personne n'y perd rien.

    Args:
        manager: celui de l'application.
        change: ce qui part et ce qui arrive.
        yes: vrai pour ne pas demander.

    Raises:
        ConflictError: la politique a changé pendant qu'on répondait ; ce qui a été montré n'est plus ce qui se ferait.
    """
    policy = manager.get_policy()
    denials = [rule for rule in change.added if is_denial(policy, rule)]
    if not change.removed and not denials:
        return
    seen = manager.get_replica().policy
    await _show(manager, "part", change.removed)
    await _show(manager, "refuse et arrive", denials)
    confirm(yes=yes)
    await manager.get_replica().refresh()
    if manager.get_replica().policy != seen:
        message = (
            "la politique a changé entre-temps : rien n’a été changé ; relancez la commande pour revoir qui perd quoi."
        )
        raise ConflictError(message)


def confirm(*, yes: bool) -> None:
    """Demande s'il faut continuer ; personne pour répondre, il faut `--yes`.

    Raises:
        typer.Exit: on a répondu non, ou personne ne peut répondre.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        errors.print("Rien n’a été changé : personne ne peut confirmer ici ; ajoutez --yes.", style="red")
        raise typer.Exit(REFUSED)
    if not _is_agreed():
        note("Rien n’a été changé.")
        raise typer.Exit(1)


def _is_agreed() -> bool:
    """Demande s'il faut continuer ; tout ce qui n'est pas un oui est un non, une entrée fermée aussi."""
    try:
        answer = str(typer.prompt("Continuer ? [o/N]", default="n", show_default=False, err=True))
    except typer.Abort:
        return False
    return answer.strip().casefold() in {"o", "oui", "y", "yes"}


def is_denial(policy: Policy, rule: PolicyRule) -> bool:
    """Dit si une règle refuse."""
    names = policy.schema.fields.get(rule.ptype, ())
    return "eft" in names and rule.values[names.index("eft")] == "deny"


def write_rule(rule: PolicyRule) -> str:
    """Écrit une règle pour qu'on la lise."""
    return ", ".join((rule.ptype, *rule.values))


async def _show(manager: ACLManager, verb: str, rules: Sequence[PolicyRule]) -> None:
    """Énumère des règles et ceux qu'elles concernent ; au-delà de quelques-unes, les compte."""
    if not rules:
        return
    note(f"{len(rules)} règle(s) : ce qui {verb}, et qui y perd :")
    for rule in islice(rules, MAX_SHOWN):
        note(f"  - {write_rule(rule)}   [{await _name_loser(manager, rule)}]")
    if len(rules) > MAX_SHOWN:
        note(f"  … et {len(rules) - MAX_SHOWN} autre(s).")


async def _name_loser(manager: ACLManager, rule: PolicyRule) -> str:
    """Nomme qui une règle concerne : un compte par son nom, un rôle par le nombre de ceux à qui il est donné."""
    policy = manager.get_policy()
    subject = policy.schema.subject_of(rule) if rule.ptype in {*policy.schema.fields, *policy.schema.links} else ""
    if subject.startswith(USER_PREFIX):
        return await _name_account(manager, subject)
    if subject.startswith(ROLE_PREFIX) and "g" in policy.schema.links:
        return f"{subject}, donné {len(policy.rows('g').matching(1, [subject]))} fois"
    return subject or "sujet inconnu"


async def _name_account(manager: ACLManager, subject: str) -> str:
    """Renvoie le nom d'un compte, ou son sujet si l'on ne le trouve pas."""
    try:
        account = await manager.get_auth_repository().get_by_id(UUID(subject[len(USER_PREFIX) :]))
    except (ValueError, UserNotFoundError):
        return subject
    return f"compte « {account.username} »"
