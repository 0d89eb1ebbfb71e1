"""La relecture entière : le modèle, puis les règles, avec ce que les comptes et les routes en disent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_acl.cli.declared import list_declared
from fastapi_acl.cli.opening import look
from fastapi_acl.cli.output import note
from fastapi_acl.engine.casbin.lint import lint
from fastapi_acl.engine.casbin.rule_lint import RuleLint
from fastapi_acl.engine.casbin.trial import check_matchers
from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
    from fastapi_acl.engine.casbin.rule_lint import Declared
    from fastapi_acl.manager import ACLManager

PREFIXES: Final = (3, 2)
"""Nombres de premières lettres par lesquelles se cherchent les comptes qui pourraient être voulus."""

MAX_NAMES: Final = 200
"""Comptes parmi lesquels le nom le plus proche est cherché."""


@dataclass(frozen=True, slots=True)
class _Accounts:
    """Les comptes, tels que la relecture les demande."""

    users: IAuthRepository

    async def existing_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes qui existent."""
        return await self.users.existing_ids(ids)

    async def like(self, name: str) -> dict[str, str]:
        """Renvoie quelques comptes dont le nom contient le début de celui-ci."""
        pages = [await self.users.list_users(limit=MAX_NAMES, query=name[:size]) for size in PREFIXES]
        return {account.username: str(account.id) for page in pages for account in page.items}


async def lint_all(manager: ACLManager) -> list[str]:
    """Relit le modèle, et les règles si la base est là.

    Returns:
        Une phrase par défaut.

    Raises:
        ConfigurationError: un matcher ne peut pas s'évaluer.
        DatabaseUnavailableError: la base ne répond pas.
        PolicyUnreadableError: une règle qui pourrait refuser ne se lit pas.
    """
    check_matchers(manager.get_definitions())
    found = lint(manager.get_definitions(), manager.get_policy().plan)
    try:
        await look(manager)
    except ConfigurationError as error:
        note(f"Les règles ne sont pas relues : {error.detail}")
        return found
    await manager.load()
    return found + await _lint_rules(manager)


async def _lint_rules(manager: ACLManager) -> list[str]:
    """Relit les règles de la base."""
    policy = manager.get_policy()
    accounts = _Accounts(manager.get_auth_repository()) if manager.has_own_accounts else None
    found = await RuleLint(policy, accounts, _list_declared(manager)).findings()
    skipped = policy.skipped_rows
    return found + ([f"{skipped} ligne(s) ne se lisent pas, et n’accordent rien."] if skipped else [])


def _list_declared(manager: ACLManager) -> Declared | None:
    """Renvoie ce que les routes demandent, si l'application est connue."""
    if manager.application is None:
        note("Sans --app, ressources et actions ne sont pas comparées à ce que les routes demandent.")
        return None
    return list_declared(manager.application, on_routes=manager.authorizer.decides_on_routes)
