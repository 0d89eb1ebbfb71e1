"""Premier démarrage : le premier administrateur et les règles de départ, une seule fois, journalisés."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi_acl.auth.domain.dtos.auth_dtos import RegisterDTO
from fastapi_acl.auth.domain.entities.auth_user import fold
from fastapi_acl.engine.administration import ADMINISTRATION
from fastapi_acl.engine.casbin.wildcards import explain_closed, explain_failed
from fastapi_acl.engine.kernel.acl_match import ANY
from fastapi_acl.engine.kernel.schema import SUBJECT_NAMES
from fastapi_acl.engine.writing.closing import closing_line, links_fault
from fastapi_acl.engine.writing.rule_files import read_rules
from fastapi_acl.shared.exceptions import (
    ACLException,
    ConfigurationError,
    DecisionFailedError,
    InvalidImportError,
    InvalidInputError,
    InvalidRuleError,
    UserAlreadyExistsError,
    UserNotFoundError,
)
from fastapi_acl.shared.identity import ROLE_PREFIX, SYSTEM, USER_PREFIX
from fastapi_acl.shared.logging import get_logger
from fastapi_acl.shared.policy import PolicyChange, PolicyRule
from fastapi_acl.shared.sync.changes import ADMIN_CREATED, POLICY_SEEDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
    from fastapi_acl.auth.application.usecases.register import RegisterUseCase
    from fastapi_acl.auth.domain.entities.auth_user import AuthUser
    from fastapi_acl.engine.adapters.base import PolicyAdapter
    from fastapi_acl.engine.authorizer import PolicyAuthorizer
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.kernel.schema import PolicySchema
    from fastapi_acl.engine.writing.guards import Guards
    from fastapi_acl.engine.writing.store import PolicyStore
    from fastapi_acl.shared.config import ACLConfig
    from fastapi_acl.shared.database.base import Database, Transaction
    from fastapi_acl.shared.sync.changes import ChangeLog
    from fastapi_acl.shared.sync.replica import Replica

logger = get_logger("bootstrap")

PASSWORD_FILE: Final = Path("fastapi_acl_admin_password.txt")
"""Où va le mot de passe engendré quand aucun terminal ne peut le montrer ; lisible du seul propriétaire."""

ADVICE_ONCE: Final = "un autre ACL_DEFAULT_ADMIN_USERNAME, ou créez l’administrateur par « fastapi-acl create-admin »."
ADVICE_ASKED: Final = (
    "un autre nom et une autre adresse, ou faites promouvoir ce compte par un administrateur en place."
)
"""Ce qui est conseillé quand le nom d'un administrateur est pris : au démarrage, puis à qui en demande un."""


@dataclass(frozen=True, slots=True)
class _Administrator:
    """Un administrateur à créer.

    Attributes:
        account: le compte, haché compris.
        generated: mot de passe engendré, à montrer une fois ; None s'il a été donné.
        once: ne le crée que si le journal n'en porte encore aucun.
    """

    account: AuthUser
    generated: str | None = field(default=None, repr=False)
    once: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """Ce que le premier démarrage écrit."""

    config: ACLConfig
    database: Database
    log: ChangeLog
    replica: Replica
    users: IAuthRepository
    register: RegisterUseCase
    policy: Policy
    adapter: PolicyAdapter
    authorizer: PolicyAuthorizer
    guards: Guards
    store: PolicyStore

    async def run(self) -> None:
        """Fait ce qui n'a pas encore été fait ; sans effet les fois suivantes.

        Raises:
            ConfigurationError: le compte de l'administrateur existe déjà, ou le fichier de règles est fautif.
        """
        administrators = await self._missing_administrators()
        lines = await self._pending_lines(force=False)
        if administrators or lines:
            await self._write(administrators, lines)

    async def apply_policy_file(self) -> int:
        """Ajoute les règles du fichier `policy_path` qui manquent, et renvoie leur nombre.

        Raises:
            ConfigurationError: aucun fichier n'est configuré, ou il est fautif.
            LastAdministratorError: un refus du fichier ôterait le dernier administrateur actif.
        """
        if self.config.policy_path is None:
            message = "aucun fichier de règles : réglez ACL_POLICY_PATH."
            raise ConfigurationError(message)
        return await self._write([], await self._pending_lines(force=True), is_asked=True)

    async def create_administrator(self, username: str, email: str | None, password: str) -> AuthUser:
        """Crée un compte qui détient tout, et ce qu'un premier démarrage écrit ; un compte existant n'est jamais promu.

        Le compte vient avant les règles du fichier, qui peuvent le nommer.

        Raises:
            ConfigurationError: le nom ou l'adresse est déjà pris, l'adresse manque là où elle seule connecte, ou le
                fichier de règles est fautif.
            InvalidInputError: le nom, l'adresse ou le mot de passe n'est pas admis.
        """
        self._check_reachable(email, "--email, ou « email= »")
        account = await self.register.prepare(RegisterDTO(username=username, email=email, password=password))
        administrators = [*await self._missing_administrators(), _Administrator(account, once=False)]
        await self._write(administrators, await self._pending_lines(force=False))
        return account

    async def _missing_administrators(self) -> list[_Administrator]:
        """Prépare le compte de l'administrateur, haché compris, s'il est voulu et n'a jamais été créé."""
        if not (self.config.create_default_admin or self.config.disable_auth_for_dev):
            return []
        async with self.database.snapshot() as transaction:
            if await self.log.last(transaction, ADMIN_CREATED) is not None:
                return []
        given = self.config.default_admin_password
        password = given.get_secret_value() if given else secrets.token_urlsafe(18)
        return [_Administrator(await self._prepare_configured(password), generated=password if given is None else None)]

    async def _prepare_configured(self, password: str) -> AuthUser:
        """Valide le compte configuré."""
        config = self.config
        if config.create_default_admin:
            self._check_reachable(config.default_admin_email, "ACL_DEFAULT_ADMIN_EMAIL")
        request = RegisterDTO(
            username=config.default_admin_username, email=config.default_admin_email, password=password
        )
        try:
            return await self.register.prepare(request)
        except InvalidInputError as error:
            message = f"l’administrateur par défaut est refusé : {error.detail} (réglages ACL_DEFAULT_ADMIN_…)"
            raise ConfigurationError(message) from error

    def _check_reachable(self, email: str | None, setting: str) -> None:
        """Refuse un administrateur qui ne pourrait pas se connecter.

        Raises:
            ConfigurationError: on ne se connecte que par l'adresse, et il n'en a pas.
        """
        if self.config.login_by == "email" and email is None:
            message = f"ACL_LOGIN_BY vaut « email », et un compte sans adresse n’y entre pas : donnez-la ({setting})."
            raise ConfigurationError(message)

    async def _write(
        self, administrators: list[_Administrator], lines: dict[int, PolicyRule], *, is_asked: bool = False
    ) -> int:
        """Écrit les comptes et les règles en une transaction ordonnée ; renvoie le nombre de règles ajoutées.

        Args:
            administrators: comptes à créer.
            lines: règles du fichier, par numéro de ligne.
            is_asked: vrai si l'exploitant le demande ; il ne se défait pas ainsi du dernier administrateur.
        """
        async with self.replica.writing() as transaction:
            given = [(one.account, await self._create(one, transaction)) for one in administrators]
            created = {fold(account.username): account for account, rules in given if rules}
            resolved = {number: await self._resolve(number, rule, created) for number, rule in lines.items()}
            rules = [rule for _, held in given for rule in held]
            self._check_links(rules, resolved)
            wanted = dict.fromkeys([*rules, *resolved.values()])
            missing = tuple(rule for rule in wanted if not self.policy.holds(rule))
            if missing:
                change = PolicyChange(added=missing)
                if is_asked:
                    await self.guards.check_administrators(change)
                await self.store.change(change, SYSTEM)
            if lines:
                await self.replica.record(transaction, POLICY_SEEDED, {"digest": self._digest()}, actor=SYSTEM)
        return len(missing)

    async def _create(self, administrator: _Administrator, transaction: Transaction) -> list[PolicyRule]:
        """Crée le compte, marque le journal et renvoie les règles qui font l'administrateur.

        Raises:
            ConfigurationError: le nom est déjà pris ; un compte que n'importe qui a pu créer n'est jamais promu.
        """
        if administrator.once and await self.log.last(transaction, ADMIN_CREATED) is not None:
            return []
        account = await self._create_account(administrator)
        payload = {"user_id": str(account.id)}
        await self.replica.record(transaction, ADMIN_CREATED, payload, actor=SYSTEM)
        if administrator.generated is not None:
            _reveal(account.username, administrator.generated)
        rules = [PolicyRule(*rule) for rule in administrator_rules(self.policy.schema, _subject(account))]
        self._check_admitted(rules)
        self._check_effective(rules, str(account.id))
        return rules

    async def _create_account(self, administrator: _Administrator) -> AuthUser:
        """Crée le compte d'un administrateur.

        Raises:
            ConfigurationError: le nom est déjà pris ; un compte que n'importe qui a pu créer n'est jamais promu.
        """
        account = administrator.account
        try:
            await self.users.create_user(account)
        except UserAlreadyExistsError as error:
            taken = f"le compte « {account.username} » (ou son adresse) existe déjà et n’est jamais promu"
            message = f"{taken} : choisissez {ADVICE_ONCE if administrator.once else ADVICE_ASKED}"
            raise ConfigurationError(message) from error
        return account

    def _check_admitted(self, rules: list[PolicyRule]) -> None:
        """Vérifie que ce modèle admet les règles de l'administrateur.

        Raises:
            ConfigurationError: il en refuse une, que le message nomme.
        """
        for rule in rules:
            fault = _fault(rule, self.policy.schema)
            if fault:
                written = ", ".join([rule.ptype, *rule.values])
                message = f"la règle « {written} », que le premier démarrage écrit pour l’administrateur : {fault}"
                raise ConfigurationError(message)

    def _check_effective(self, rules: list[PolicyRule], user_id: str) -> None:
        """Vérifie que ces règles font bien un administrateur sous ce modèle.

        Raises:
            ConfigurationError: le modèle ne lit pas `*` comme un joker, ou le matcher échoue sur ces règles.
        """
        missing = tuple(rule for rule in rules if not self.policy.holds(rule))
        try:
            with self.policy.trial(PolicyChange(added=missing)):
                is_administrator = self.authorizer.allows(user_id, *ADMINISTRATION)
        except DecisionFailedError as error:
            raise ConfigurationError(explain_failed((rules[0].ptype, *rules[0].values), error)) from error
        if not is_administrator:
            raise ConfigurationError(explain_closed(self.policy))

    async def _pending_lines(self, *, force: bool) -> dict[int, PolicyRule]:
        """Renvoie les règles du fichier, par numéro de ligne, s'il faut les écrire.

        Le fichier se lit une fois dans une base vide ; changé, il n'ajoute ce qui manque qu'en développement, ou sur
        demande.
        """
        path = self.config.policy_path
        if path is None or not (force or await self._is_due()):
            return {}
        return dict(self._read_file(path))

    async def _is_due(self) -> bool:
        """Dit si le fichier de règles s'applique de lui-même ; changé, il attend en production qu'on le demande."""
        async with self.database.snapshot() as transaction:
            seeded = await self.log.last(transaction, POLICY_SEEDED)
            is_empty = not await self.adapter.page({}, after=0, limit=1)
        if seeded is not None and seeded.payload.get("digest") == self._digest():
            return False
        if (seeded is None and is_empty) or (seeded is not None and not self.config.is_production):
            return True
        logger.warning("policy_file_not_applied: %s ; lancez « fastapi-acl policy apply »", self.config.policy_path)
        return False

    def _read_file(self, path: Path) -> Iterator[tuple[int, PolicyRule]]:
        """Lit le CSV de Casbin ; une virgule dans une valeur se met entre guillemets.

        Raises:
            ConfigurationError: le fichier ne se lit plus, ou une de ses lignes, que le message nomme.
        """
        try:
            with path.open(encoding="utf-8", newline="") as file:
                yield from read_rules(file, "csv")
        except InvalidImportError as error:
            message = f"{path} : {error.detail}"
            raise ConfigurationError(message) from error
        except OSError as error:
            raise _make_unreadable(path, error) from error

    def _check_links(self, rules: list[PolicyRule], lines: dict[int, PolicyRule]) -> None:
        """Vérifie que les rôles du fichier ne font ni cycle ni chaîne trop longue, avec ceux qui sont là.

        Raises:
            ConfigurationError: ils en font ; le message nomme la ligne dont le lien ferme le cycle.
        """
        present, shares = [*self.policy.rules, *rules], self.policy.schema.shares_domains is True
        fault = links_fault([*present, *lines.values()], shares_domains=shares) if lines else None
        if fault is None:
            return
        line, found = closing_line(fault, present, lines.items(), shares_domains=shares) or (None, fault)
        place = f"{self.config.policy_path}, ligne {line} : " if line is not None else ""
        message = f"{place}{found.detail}"
        raise ConfigurationError(message) from found

    async def _resolve(self, number: int, rule: PolicyRule, created: Mapping[str, AuthUser]) -> PolicyRule:
        """Remplace `user:@<nom>` par l'identifiant du compte, et vérifie la règle.

        Args:
            number: numéro de sa ligne.
            rule: la règle, telle qu'écrite.
            created: comptes que la même transaction crée, et qu'elle seule voit, par nom replié.

        Raises:
            ConfigurationError: la ligne est fautive ; le message la nomme.
        """
        try:
            values = [await self._identify(value, created) for value in rule.values]
            resolved = PolicyRule.of(rule.ptype, values)
            self.policy.schema.check(resolved)
        except ACLException as error:
            message = f"{self.config.policy_path}, ligne {number} : {error.detail}"
            raise ConfigurationError(message) from error
        return resolved

    async def _identify(self, value: str, created: Mapping[str, AuthUser]) -> str:
        """Renvoie `user:<id>` pour `user:@<nom>`, et toute autre valeur telle quelle."""
        prefix = f"{USER_PREFIX}@"
        if not value.startswith(prefix):
            return value
        name = value[len(prefix) :]
        try:
            account = created.get(fold(name)) or await self.users.get_by_username(name)
        except UserNotFoundError as error:
            message = f"aucun compte ne s’appelle « {name} »."
            raise ConfigurationError(message) from error
        return _subject(account)

    def _digest(self) -> str:
        """Renvoie l'empreinte du fichier de règles.

        Raises:
            ConfigurationError: il ne se lit plus.
        """
        path = self.config.policy_path
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""
        except OSError as error:
            raise _make_unreadable(path, error) from error


def _make_unreadable(path: Path | None, error: OSError) -> ConfigurationError:
    message = f"{path} : le fichier ne se lit pas ({error.strerror}) ; vérifiez ACL_POLICY_PATH et ses droits."
    return ConfigurationError(message)


def _fault(rule: PolicyRule, schema: PolicySchema) -> str:
    """Dit pourquoi un modèle refuse une règle ; rien s'il l'admet."""
    try:
        schema.check(rule)
    except InvalidRuleError as error:
        return error.detail
    return ""


def _subject(account: AuthUser) -> str:
    return f"{USER_PREFIX}{account.id}"


def _reveal(username: str, password: str) -> None:
    """Montre une fois le mot de passe engendré : au terminal, ou sinon dans un fichier du seul propriétaire."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\n  Administrateur « {username} », mot de passe (montré une seule fois) : {password}\n\n")
        return
    PASSWORD_FILE.unlink(missing_ok=True)
    descriptor = os.open(PASSWORD_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{username} {password}\n")
    logger.warning("administrator_password_written: %s (à lire puis à supprimer)", PASSWORD_FILE.resolve())


def administrator_rules(schema: PolicySchema, user: str) -> list[tuple[str, tuple[str, ...]]]:
    """Renvoie les règles que le premier démarrage écrit pour le premier administrateur.

    Args:
        schema: forme du modèle.
        user: sujet du compte, `user:<id>`.

    Returns:
        Des couples (type, valeurs) : tout est permis au rôle `role:admin`, et le compte le tient ; sans rôles dans le
        modèle, tout est permis au compte.

    Raises:
        ConfigurationError: le modèle n'a pas de champ pour le sujet.
    """
    holder = f"{ROLE_PREFIX}admin" if "g" in schema.links else user
    names = schema.fields["p"]
    if not SUBJECT_NAMES.intersection(names):
        message = "le modèle n’a pas de champ « sub » : écrivez la règle de l’administrateur dans ACL_POLICY_PATH."
        raise ConfigurationError(message)
    known = {**dict.fromkeys(SUBJECT_NAMES, holder), "eft": "allow", "priority": "1"}
    grant = tuple(known.get(name, ANY) for name in names)
    link = (user, holder, *[ANY] * (schema.links.get("g", 2) - 2))
    return [("p", grant)] + ([("g", link)] if "g" in schema.links else [])
