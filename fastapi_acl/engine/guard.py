"""Ce qu'un changement de règles ne peut pas faire, quel que soit le chemin par lequel il vient.

Nul n'accorde ce qu'il ne détient pas, et nul ne retire le dernier administrateur.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from casbin.constant.constants import ALLOW_AND_DENY_EFFECT, ALLOW_OVERRIDE_EFFECT

from fastapi_acl.engine.introspection import PolicyInspector
from fastapi_acl.engine.matcher import Probe
from fastapi_acl.engine.matching import ANY, covers, overlaps
from fastapi_acl.engine.schema import DOMAIN_NAMES, SUBJECT_NAMES
from fastapi_acl.shared.exceptions import (
    EscalationRefusedError,
    InvalidTokenError,
    LastAdministratorError,
    PermissionDeniedError,
)
from fastapi_acl.shared.identity import EVERY_DOMAIN, SYSTEM, USER_PREFIX
from fastapi_acl.shared.policy import PolicyChange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from fastapi_acl.engine.authorizer import PolicyAuthorizer
    from fastapi_acl.engine.enforcer import PolicyEnforcer
    from fastapi_acl.engine.matcher import Key
    from fastapi_acl.engine.schema import PolicySchema
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.policy import PolicyRule
    from fastapi_acl.shared.sync.revocations import Revocations

ADMINISTRATION: Final = ("acl.rules", "write")
"""La permission qui fait un administrateur."""


ACCOUNTS: Final = ("acl.users", "write")
"""La permission qui touche aux comptes."""

ABAC_SCOPE: Final = "(p_scope == '*' or (p_scope == 'own' and aclOwns(r_obj, r_sub, p_eft)))"
"""Ce que le plan laisse à évaluer dans le modèle `abac` fourni."""


COMPUTABLE_EFFECTS: Final = frozenset({ALLOW_OVERRIDE_EFFECT, ALLOW_AND_DENY_EFFECT})
"""Effets sous lesquels une permission ne dépend pas de l'ordre des règles."""


class ActiveAccounts(Protocol):
    """Ce que la garde demande aux comptes."""

    async def active_ids(self, ids: Sequence[str]) -> set[str]:
        """Rend, parmi ces identifiants, ceux des comptes actifs."""

    async def existing_ids(self, ids: Sequence[str]) -> set[str]:
        """Rend, parmi ces identifiants, ceux des comptes qui existent, actifs ou non."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Ce qu'une règle `p` accorde ou refuse : ses champs hors sujet et effet, et le domaine où elle vaut."""

    fields: tuple[tuple[str, str], ...]
    domain: str
    allows: bool


@dataclass(frozen=True, slots=True)
class EscalationGuard:
    """Refuse qu'un changement donne à quelqu'un ce que son auteur ne détient pas.

    Où cela ne se calcule pas (un modèle qui compare autrement que par égalité ou `aclMatch`), l'auteur doit détenir
    `acl.rules:write` dans tous les domaines, ce que les routes exigent déjà : là, qui écrit les règles peut tout.
    """

    schema: PolicySchema

    def check(self, change: PolicyChange, actor: Principal, enforcer: PolicyEnforcer) -> None:
        """Compare ce que le changement accorde à ce que l'auteur détient avant lui.

        Args:
            change: effet net du changement.
            actor: son auteur ; `SYSTEM` n'est pas limité.
            enforcer: politique en service, où se lit ce que l'auteur détient.

        Raises:
            EscalationRefusedError: le changement accorde plus que l'auteur ne détient.
        """
        if actor is SYSTEM or not _is_computable(enforcer):
            return
        with enforcer.trial(PolicyChange(added=change.added)):
            given = list(self._given(change, enforcer))
        for grant in given:
            if not self._holds(actor, grant, enforcer):
                raise EscalationRefusedError(needed=dict(grant.fields))

    def _given(self, change: PolicyChange, enforcer: PolicyEnforcer) -> Iterator[Grant]:
        """Énumère ce que le changement donne : accords et rôles ajoutés, refus et rôles qui refusent retirés."""
        for rule in change.added:
            yield from (grant for grant in self._grants(rule, enforcer) if grant.allows)
        for rule in change.removed:
            yield from (grant for grant in self._grants(rule, enforcer) if not grant.allows)

    def _grants(self, rule: PolicyRule, enforcer: PolicyEnforcer) -> Iterator[Grant]:
        """Rend ce que porte une règle `p`, ou tout ce que porte le rôle d'un lien `g`."""
        if rule.ptype == "p":
            yield self._grant(rule)
        elif rule.ptype == "g":
            domain = rule.values[2] if len(rule.values) > 2 else ANY  # noqa: PLR2004 - membre, rôle, domaine
            held = map(self._grant, enforcer.rules_of(enforcer.graph.reach(rule.values[1], _anywhere)))
            yield from (_in_domain(grant, domain) for grant in held if overlaps(grant.domain, domain))

    def _grant(self, rule: PolicyRule) -> Grant:
        """Lit une règle `p`."""
        named = dict(zip(self.schema.fields["p"], rule.values, strict=True))
        domain = next((value for name, value in named.items() if name in DOMAIN_NAMES), ANY)
        kept = ((name, value) for name, value in named.items() if name not in SUBJECT_NAMES | DOMAIN_NAMES | {"eft"})
        return Grant(tuple(kept), domain, named.get("eft", "allow") != "deny")

    def _holds(self, actor: Principal, asked: Grant, enforcer: PolicyEnforcer) -> bool:
        """Dit si l'auteur détient tout ce qui est accordé, sans qu'aucun refus n'en retranche.

        Un accord doit lui venir dans le domaine même ; un refus compte dès qu'il vaut dans une partie du domaine.
        """
        has_domains = self.schema.links.get("g", 2) > 2  # noqa: PLR2004 - avec domaine
        near = enforcer.closure(actor.subject, *((asked.domain,) if has_domains else ()))
        far = enforcer.graph.reach(actor.subject, lambda place: overlaps(place, asked.domain)) if has_domains else near
        granted = (grant for grant in map(self._grant, enforcer.rules_of(near)) if grant.allows)
        denied = (grant for grant in map(self._grant, enforcer.rules_of(far)) if not grant.allows)
        if any(self._compares(grant, asked, overlaps) for grant in denied):
            return False
        return any(self._compares(grant, asked, covers) for grant in granted)

    def _compares(self, mine: Grant, asked: Grant, compare: Callable[[str, str], bool]) -> bool:
        """Compare deux permissions champ à champ : par motif où le modèle le fait, par égalité ailleurs."""
        fields = zip(mine.fields, asked.fields, strict=True)
        by_pattern = not DOMAIN_NAMES.intersection(self.schema.fields["p"]) or DOMAIN_NAMES & self.schema.patterns
        same_domain = mine.domain == asked.domain or (by_pattern and compare(mine.domain, asked.domain))
        return bool(same_domain) and all(
            held == wanted or ((name in self.schema.patterns or name == "scope") and compare(held, wanted))
            for (name, held), (_, wanted) in fields
        )


@dataclass(frozen=True, slots=True)
class ActorGuard:
    """Refuse l'écriture de qui a perdu, sur un autre processus, le droit de la faire.

    Ce processus a pu ne pas encore le savoir quand la route a été ouverte ; sous le verrou de révision, il le sait.
    """

    authorizer: PolicyAuthorizer
    revocations: Revocations

    def check(self, actor: Principal, resource: str, action: str) -> None:
        """Vérifie, mémoires à jour, que l'auteur est encore là et encore en droit.

        Raises:
            InvalidTokenError: sa session ou son compte a été révoqué.
            PermissionDeniedError: la permission lui a été retirée.
        """
        if actor is SYSTEM:
            return
        if actor.session_id is not None and self.revocations.refuses(
            user_id=actor.id, session_id=actor.session_id, session_version=actor.session_version
        ):
            raise InvalidTokenError
        if not self.authorizer.still_allows(actor, resource, action):
            raise PermissionDeniedError


@dataclass(frozen=True, slots=True)
class AdministratorGuard:
    """Veille à ce qu'il reste toujours un compte actif qui puisse modifier les règles."""

    authorizer: PolicyAuthorizer
    accounts: ActiveAccounts | None

    async def check(self, change: PolicyChange, actor: Principal, enforcer: PolicyEnforcer) -> None:
        """Refuse un changement après lequel plus aucun compte actif ne serait administrateur.

        Raises:
            LastAdministratorError: il n'en resterait aucun.
        """
        if actor is SYSTEM or not _may_revoke(change) or await self._stays(actor, change, enforcer):
            return
        with enforcer.trial(change):
            administrators = self._administrators(actor.id, enforcer)
        if not await self._any_active(administrators):
            raise LastAdministratorError

    async def check_whole(self, after: AbstractContextManager[object], enforcer: PolicyEnforcer) -> None:
        """Refuse, même au système, une politique sous laquelle il n'y aurait plus d'administrateur actif.

        Args:
            after: essai de cette politique, le temps d'un bloc.
            enforcer: politique en service.

        Raises:
            LastAdministratorError: il y en avait un, et il n'y en aurait plus.
        """
        before = self._administrators("", enforcer)
        with after:
            left = self._administrators("", enforcer)
        if await self._any_active(before) and not await self._any_active(left):
            raise LastAdministratorError

    async def _stays(self, actor: Principal, change: PolicyChange, enforcer: PolicyEnforcer) -> bool:
        """Dit si l'auteur est administrateur par des règles auxquelles le changement ne touche pas.

        C'est le cas courant, qui évite d'essayer la politique d'après ; il faut que ces règles décident seules.
        """
        if not _is_computable(enforcer):
            return False
        domain = (EVERY_DOMAIN,) if enforcer.schema.links.get("g", 2) > 2 else ()  # noqa: PLR2004 - membre, rôle, domaine
        mine = enforcer.closure(actor.subject, *domain)
        touched = any(name in rule.values for rule in change for name in mine)
        return not touched and self._is_administrator(actor.id) and await self._any_active([actor.id])

    def require_authority(self, user_id: str, actor: Principal) -> None:
        """Refuse qu'un compte soit touché par qui n'est pas administrateur quand lui l'est.

        Raises:
            EscalationRefusedError: le compte peut modifier les règles, et pas l'auteur.
        """
        if actor is SYSTEM or not self._is_administrator(user_id):
            return
        if not self.authorizer.still_allows(actor, *ADMINISTRATION):
            message = "Ce compte est administrateur ; il faut l’être aussi pour y toucher."
            raise EscalationRefusedError(message)

    async def require_another_than(self, user_id: str, pending: PolicyChange, enforcer: PolicyEnforcer) -> None:
        """Refuse d'écarter ce compte s'il est le dernier administrateur actif.

        Args:
            user_id: le compte.
            pending: ce que la transaction a déjà écrit.
            enforcer: politique en service.

        Raises:
            LastAdministratorError: il l'est.
        """
        with enforcer.trial(pending):
            if not self._is_administrator(user_id):
                return
            others = [account for account in self._administrators(user_id, enforcer) if account != user_id]
        if not await self._any_active(others):
            raise LastAdministratorError

    def _administrators(self, user_id: str, enforcer: PolicyEnforcer) -> list[str]:
        """Rend les comptes à qui la politique permet de modifier les règles ; celui-ci est essayé d'abord."""
        inspector = PolicyInspector(enforcer)
        subjects = inspector.subjects_of(*ADMINISTRATION, EVERY_DOMAIN) if inspector.can_ask else enforcer.subjects
        named = (subject[len(USER_PREFIX) :] for subject in subjects if subject.startswith(USER_PREFIX))
        return [account for account in dict.fromkeys([user_id, *named]) if self._is_administrator(account)]

    def _is_administrator(self, account: str) -> bool:
        """Dit si la politique en service permet à un compte de modifier les règles."""
        return self.authorizer.allows(account, *ADMINISTRATION)

    async def _any_active(self, accounts: Sequence[str]) -> bool:
        """Dit si l'un de ces comptes est actif ; sans comptes à nous, tout sujet l'est."""
        if self.accounts is None or not accounts:
            return bool(accounts)
        return bool(await self.accounts.active_ids(accounts))


def _is_computable(enforcer: PolicyEnforcer) -> bool:
    """Dit si les permissions se comparent : une conjonction de `g`, d'égalités et d'`aclMatch`, et rien d'autre.

    La condition de portée du modèle `abac` s'y ajoute, qui ne fait que restreindre.
    """
    plan = enforcer.plan
    known = len(plan.branches) == 1 and _names_one_subject(enforcer.schema, plan.branches[0].keys)
    unordered = enforcer.model["e"]["e"].value in COMPUTABLE_EFFECTS
    single = len(enforcer.schema.fields) == 1 and enforcer.schema.links.keys() <= {"g"}
    return known and unordered and single and plan.branches[0].gate is None and plan.residual in {"", ABAC_SCOPE}


def _names_one_subject(schema: PolicySchema, keys: Sequence[Key]) -> bool:
    """Dit si une règle nomme son sujet, par égalité ou par rôle, et le reste par égalité ou `aclMatch`."""
    place = schema.position("p", SUBJECT_NAMES)
    if any(key.request is None or key.probe is Probe.KEY_MATCH for key in keys):
        return False
    own = [key for key in keys if key.field == place and schema.request[key.request or 0] in SUBJECT_NAMES]
    others = [key for key in keys if key.field != place]
    named = len(own) == 1 and own[0].probe is not Probe.PATTERN
    return named and all(key.probe is not Probe.ROLE for key in others)


def _may_revoke(change: PolicyChange) -> bool:
    """Dit si le changement peut retirer une permission."""
    return bool(change.removed) or any(rule.section == "g" or "deny" in rule.values for rule in change.added)


def _anywhere(_: str) -> bool:
    """Accepte tout domaine."""
    return True


def _in_domain(grant: Grant, domain: str) -> Grant:
    """Restreint une permission au domaine du lien qui la donne."""
    return Grant(grant.fields, grant.domain if domain == ANY else domain, grant.allows)
