"""Le chemin d'écriture, monté : ses gardes, et ce qui écrit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fastapi_acl.engine.writing.accounts import AccountRules
from fastapi_acl.engine.writing.actors import ActorGuard
from fastapi_acl.engine.writing.administrators import ActiveAccounts, AdministratorGuard
from fastapi_acl.engine.writing.consistency import ConsistencyGuard
from fastapi_acl.engine.writing.escalation import EscalationGuard
from fastapi_acl.engine.writing.guards import Guards
from fastapi_acl.engine.writing.history import KnownAccounts, PolicyHistory
from fastapi_acl.engine.writing.quarantine import Quarantine
from fastapi_acl.engine.writing.rank_guard import RankGuard
from fastapi_acl.engine.writing.ranks import Ranks
from fastapi_acl.engine.writing.store import PolicyStore
from fastapi_acl.engine.writing.transfer import PolicyTransfer

if TYPE_CHECKING:
    from fastapi_acl.engine.adapters.base import PolicyAdapter
    from fastapi_acl.engine.authorizer import PolicyAuthorizer
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.shared.database.base import AmbientDatabase
    from fastapi_acl.shared.sync.changes import ChangeLog
    from fastapi_acl.shared.sync.replica import Replica
    from fastapi_acl.shared.sync.revocations import Revocations


class Accounts(ActiveAccounts, KnownAccounts, Protocol):
    """Ce que le chemin d'écriture demande aux comptes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Ce dont tout ce qui écrit se sert.

    Attributes:
        policy: la politique en service.
        authorizer: ce qui décide d'une permission.
        adapter: les règles de la base.
        database: la base.
        log: son journal.
        replica: ce que le processus en sait.
        revocations: les sessions et les comptes révoqués.
        accounts: les comptes ; None s'ils ne sont pas à nous.
    """

    policy: Policy
    authorizer: PolicyAuthorizer
    adapter: PolicyAdapter
    database: AmbientDatabase
    log: ChangeLog
    replica: Replica
    revocations: Revocations
    accounts: Accounts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """Le chemin d'écriture."""

    guards: Guards
    store: PolicyStore
    transfer: PolicyTransfer
    history: PolicyHistory
    quarantine: Quarantine
    accounts: AccountRules

    @classmethod
    def over(cls, around: Surroundings) -> Writing:
        """Monte les gardes et ce qui écrit."""
        policy, database, replica, guards = around.policy, around.database, around.replica, _guards(around)
        store = PolicyStore(
            policy=policy, adapter=around.adapter, database=database, replica=replica, log=around.log, guards=guards
        )
        transfer = PolicyTransfer(
            policy=policy, adapter=around.adapter, database=database, replica=replica, log=around.log, guards=guards
        )
        history = PolicyHistory(
            policy=policy,
            adapter=around.adapter,
            database=database,
            replica=replica,
            log=around.log,
            guards=guards,
            store=store,
            transfer=transfer,
            accounts=around.accounts,
        )
        return cls(
            guards=guards,
            store=store,
            transfer=transfer,
            history=history,
            quarantine=Quarantine(
                policy=policy, adapter=around.adapter, database=database, replica=replica, guards=guards
            ),
            accounts=AccountRules(
                policy=policy,
                store=store,
                replica=replica,
                actors=guards.actors,
                ranks=guards.ranks,
                administrators=guards.administrators,
            ),
        )


def _guards(around: Surroundings) -> Guards:
    """Monte ce que tout changement de règles doit passer."""
    policy = around.policy
    ranks, actors = Ranks(around.authorizer, policy), ActorGuard(around.authorizer, around.revocations)
    return Guards(
        policy=policy,
        actors=actors,
        escalation=EscalationGuard(policy=policy, ranks=ranks, actors=actors),
        ranks=RankGuard(policy=policy, ranks=ranks),
        consistency=ConsistencyGuard(policy=policy, actors=actors, ranks=ranks),
        administrators=AdministratorGuard(policy=policy, ranks=ranks, accounts=around.accounts),
    )
