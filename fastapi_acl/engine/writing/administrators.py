"""Il reste toujours un compte actif qui administre.

C'est le dernier qui tienne tout, refus mis à part ; si aucun compte actif ne tient tout, le dernier qui puisse écrire
les règles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fastapi_acl.engine.administration import ADMINISTRATION, ANYTHING
from fastapi_acl.engine.kernel.pacing import Pace
from fastapi_acl.engine.writing.comparison import is_computable
from fastapi_acl.shared.exceptions import LastAdministratorError
from fastapi_acl.shared.identity import EVERY_DOMAIN, SYSTEM, USER_PREFIX, Principal
from fastapi_acl.shared.policy import PolicyChange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.writing.ranks import Ranks


class ActiveAccounts(Protocol):
    """Ce que la garde demande aux comptes."""

    async def active_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes actifs."""


class _Administrators(NamedTuple):
    """Les comptes actifs qui administrent, et ce qui les fait tels.

    Attributes:
        accounts: leurs identifiants.
        are_whole: vrai s'ils tiennent tout, faux s'ils peuvent seulement écrire les règles.
    """

    accounts: set[str]
    are_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AdministratorGuard:
    """Veille à ce qu'il reste toujours un compte actif qui administre."""

    policy: Policy
    ranks: Ranks
    accounts: ActiveAccounts | None

    async def check(self, change: PolicyChange, actor: Principal, pace: Pace) -> None:
        """Refuse un changement après lequel plus aucun compte actif n'administrerait.

        Raises:
            LastAdministratorError: il n'en resterait aucun.
        """
        if actor is SYSTEM or not _may_revoke(change) or await self._stays(actor, change):
            return
        before = await self._present(actor.id, pace)
        if before.are_whole and not change.removed and is_computable(self.policy):
            return  # ce qui arrive ne retire rien à qui tient tout, refus mis à part
        present = PolicyChange(change.added, tuple(filter(self.policy.holds, change.removed)))
        await self._require_one(before, self.policy.trial(present), self._list_named(present))

    async def check_whole(self, after: Callable[[], AbstractContextManager[object]]) -> None:
        """Refuse, même au système, une politique sous laquelle plus aucun compte actif n'administrerait.

        Tout tenir ne suffit pas ici : il faut aussi pouvoir écrire les règles, que nul refus n'y empêche tout le monde.

        Args:
            after: essaie cette politique, le temps d'un bloc.

        Raises:
            LastAdministratorError: il y en avait un, et il n'y en aurait plus.
        """
        for kind in (await self._present("", Pace()), await self._writing(Pace())):
            if kind.accounts:
                await self._require_one(kind, after(), self._holders(kind))

    async def check_account(self, user_id: str, pending: PolicyChange) -> None:
        """Refuse d'écarter un compte qui est le dernier administrateur actif.

        Args:
            user_id: le compte.
            pending: ce que la transaction a déjà écrit.

        Raises:
            LastAdministratorError: il l'est.
        """
        before = await self._present(user_id, Pace())
        with self.policy.trial(pending):
            left = self._keep_administering(before, [*before.accounts, *self._list_named(pending)])
        if await self._active(left) == {user_id}:
            raise LastAdministratorError

    async def _require_one(
        self, before: _Administrators, after: AbstractContextManager[object], others: Iterable[str]
    ) -> None:
        """Exige qu'un de ceux qui administrent, ou qu'un autre, administre encore après."""
        with after:
            left = self._keep_administering(before, before.accounts) or self._keep_administering(before, others)
        if not await self._active(left):
            raise LastAdministratorError

    async def _stays(self, actor: Principal, change: PolicyChange) -> bool:
        """Dit si l'auteur tient tout par des règles et des liens auxquels le changement ne touche pas.

        C'est le cas courant, qui évite d'essayer la politique d'après.
        """
        if not is_computable(self.policy):
            return False
        domain = (EVERY_DOMAIN,) if self.policy.schema.links.get("g", 2) > 2 else ()  # noqa: PLR2004 - membre, rôle, domaine
        mine = set(self.policy.closure(actor.subject, *domain))
        touched = any(self.policy.schema.subject_of(rule) in mine for rule in change.removed)
        return not touched and self.ranks.is_whole(actor) and bool(await self._active([actor.id]))

    async def _present(self, first: str, pace: Pace) -> _Administrators:
        """Renvoie les comptes actifs qui administrent ; celui-ci est regardé même si nulle règle ne le nomme."""
        whole = await self._gather(_Administrators(set(), are_whole=True), first, pace)
        return whole if whole.accounts else await self._writing(pace, first)

    async def _writing(self, pace: Pace, first: str = "") -> _Administrators:
        """Renvoie les comptes actifs qui peuvent écrire les règles."""
        return await self._gather(_Administrators(set(), are_whole=False), first, pace)

    async def _gather(self, kind: _Administrators, first: str, pace: Pace) -> _Administrators:
        """Renvoie les comptes actifs d'une sorte."""
        names = self.ranks.under(await self.ranks.holding(self._list_questions(kind), pace))
        accounts = dict.fromkeys(_accounts([f"{USER_PREFIX}{first}", *names]))
        kept = [account async for account in pace.through(accounts) if self._keep_administering(kind, [account])]
        return kind._replace(accounts=await self._active(kept))

    def _list_questions(self, kind: _Administrators) -> Sequence[tuple[str, str]]:
        """Renvoie ce qu'il faut chercher dans les règles pour trouver ceux qui administrent."""
        return [ANYTHING] if kind.are_whole else self.ranks.administration.questions(*ADMINISTRATION)

    def _keep_administering(self, kind: _Administrators, accounts: Iterable[str]) -> list[str]:
        """Renvoie, parmi des comptes, ceux qui administrent sous la politique en service."""
        if kind.are_whole:
            return [account for account in accounts if self.ranks.is_whole(Principal(id=account))]
        return [account for account in accounts if self.ranks.administers(account)]

    def _list_named(self, change: PolicyChange) -> Iterator[str]:
        """Énumère les comptes que les règles d'un changement visent, eux-mêmes ou par un rôle."""
        subjects = dict.fromkeys(map(self.policy.schema.subject_of, change))
        yield from _accounts(self.ranks.under(filter(None, subjects)))

    def _holders(self, kind: _Administrators) -> Iterator[str]:
        """Énumère les comptes que la politique en service fait administrer."""
        yield from _accounts(self.ranks.under(self.ranks.holding_now(self._list_questions(kind))))

    async def _active(self, accounts: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces comptes, ceux qui sont actifs ; sans comptes à nous, tout sujet l'est."""
        if self.accounts is None or not accounts:
            return set(accounts)
        return await self.accounts.active_ids(accounts)


def _accounts(names: Iterable[str]) -> list[str]:
    return [name[len(USER_PREFIX) :] for name in dict.fromkeys(names) if name.startswith(USER_PREFIX)]


def _may_revoke(change: PolicyChange) -> bool:
    """Dit si le changement peut retirer une permission."""
    return bool(change.removed) or any(rule.section == "g" or "deny" in rule.values for rule in change.added)
