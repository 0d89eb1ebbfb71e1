"""Port de la base de données et transaction ambiante : purs, pour que les cas d'usage puissent les demander.

Une méthode de dépôt est atomique à elle seule. Où plusieurs doivent n'en faire qu'une, on écrit
`async with database.transaction():` ; les dépôts et l'adaptateur de politique s'y joignent d'eux-mêmes, par une
variable de contexte, et la mémoire ne change qu'après la validation.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from uuid import uuid4

from fastapi_acl.shared.exceptions import (
    ACLException,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    TransactionCondemnedError,
    TransactionConflictError,
    TransactionNestedError,
    TransactionNotOrderedError,
    TransactionNotOwnedError,
    WrongLoopError,
)
from fastapi_acl.shared.logging import Trouble, get_logger
from fastapi_acl.shared.stored import MISREADINGS, optional, read_number, read_row, read_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from fastapi_acl.shared.database.refusals import Refusal
    from fastapi_acl.shared.stored import Shape


logger = get_logger("database")

Result = TypeVar("Result")

RETRY_SECONDS: Final = 5.0
"""Temps pendant lequel un travail croisé par un autre se refait."""


HEADLESS: Final = (
    "La tête du journal (acl_revision) manque : redémarrez l’application, qui la refait de ce qu’il reste."
)


COMPACTION: Final = "log_compacted"
"""Nature de l'entrée du journal qui dit une compaction."""


class Mode(Enum):
    """Ce qu'une transaction fera.

    Attributes:
        READ: lire, au même instant d'un bout à l'autre.
        WRITE: écrire, sans journaliser.
        LOG: écrire et journaliser : la tête du journal est tenue dès l'entrée.
    """

    READ = "read"
    WRITE = "write"
    LOG = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Tête du journal : son identité, ses compteurs, et ce qui en a été compacté.

    Attributes:
        log_id: identité du journal ; une autre base, ou une base restaurée, en a une autre.
        revision: dernière révision.
        policy_revision: dernière révision qui a changé les règles.
        rule_id: dernier numéro donné à une règle ; aucun n'est donné deux fois.
        compacted: révision jusqu'à laquelle les entrées ont pu être retirées.
        snapshot: lot qui garde les règles à cette révision ; None si rien n'a été compacté.
    """

    log_id: str
    revision: int
    policy_revision: int
    rule_id: int = 0
    compacted: int = 0
    snapshot: str | None = None

    def next(self, *, changes_policy: bool) -> Head:
        """Renvoie la tête après une entrée de plus.

        Args:
            changes_policy: vrai si l'entrée change les règles.
        """
        revision = self.revision + 1
        return replace(self, revision=revision, policy_revision=revision if changes_policy else self.policy_revision)

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> Head:
        """Refait une tête de ce que la base en garde.

        Raises:
            StoredDataError: une valeur n'a pas la forme attendue ; sa ligne retirée, un démarrage la refait.
        """
        return cls(**read_row("acl_revision", "revision", columns, _HEAD))

    @classmethod
    def rebuilt(cls, first: int | None, last: int | None, compaction: object = None) -> Head:
        """Refait une tête perdue, sous une autre identité : nul ne sait ce qui s'est perdu avec elle.

        La dernière entrée passe pour avoir changé les règles : qui l'a vue les relira, même pour rien.

        Args:
            first: première révision qui reste au journal ; None s'il est vide.
            last: dernière révision.
            compaction: contenu, tel que la base le garde, de la dernière compaction que dit le journal.
        """
        revision, missing = last or 0, max(0, (first or 1) - 1)
        compacted, snapshot = _compaction(compaction) or (missing, None)
        return cls(
            log_id=str(uuid4()),
            revision=revision,
            policy_revision=revision,
            compacted=compacted,
            snapshot=snapshot,
        )


def _compaction(payload: Any) -> tuple[int, str] | None:  # noqa: ANN401 - ce que la base a rendu
    """Lit jusqu'où une compaction est allée, et le lot qui garde ses règles ; None si rien ne s'en lit."""
    try:
        said = json.loads(payload)
        return read_number(said["up_to"]), read_text(said["snapshot"])
    except MISREADINGS:
        return None


_HEAD: Final[Shape] = {
    "log_id": read_text,
    "revision": read_number,
    "policy_revision": read_number,
    "rule_id": read_number,
    "compacted": read_number,
    "snapshot": optional(read_text),
}


@dataclass(eq=False, kw_only=True)
class Transaction:
    """Transaction en cours, et la tâche qui l'a ouverte.

    Attributes:
        connection: ce que le pilote emploie (une session SQLAlchemy, ou une session MongoDB).
        head: la tête du journal, lue sous son verrou et avancée à chaque entrée ; None si l'on ne peut journaliser.
        owner: la tâche qui a ouvert la transaction ; aucune autre ne s'en sert.
        recorded: nombre d'entrées journalisées jusqu'ici dans cette transaction.
        is_over: vrai une fois sortie ; une tâche née dedans en garde le contexte, et doit l'ignorer.
        is_condemned: vrai si une écriture s'y est arrêtée en chemin ; elle ne sera pas validée.
        proof: dit, sur une autre connexion, si cette transaction a été validée ; None si rien n'en témoigne.
    """

    connection: Any
    head: Head | None = None
    owner: asyncio.Task[Any] | None = field(default_factory=asyncio.current_task)
    recorded: int = 0
    is_condemned: bool = False
    is_over: bool = False
    proof: Callable[[Transaction], Awaitable[bool]] | None = None
    _callbacks: list[Callable[[], None]] = field(default_factory=list)

    def check_owner(self) -> None:
        """Refuse une autre tâche que celle qui a ouvert la transaction.

        Raises:
            TransactionNotOwnedError: une autre tâche s'en sert.
        """
        if asyncio.current_task() is not self.owner:
            raise TransactionNotOwnedError

    def check_ordered(self) -> Head:
        """Renvoie la tête du journal, ou refuse de journaliser si elle n'est pas tenue.

        Raises:
            TransactionNotOrderedError: la transaction n'a pas été ouverte avec `log=True`.
        """
        if self.head is None:
            raise TransactionNotOrderedError
        return self.head

    def compact(self, up_to: int, snapshot: str) -> None:
        """Note que le journal est compacté jusqu'à une révision, et le lot qui garde les règles de celle-ci."""
        self.head = replace(self.check_ordered(), compacted=up_to, snapshot=snapshot)

    @contextmanager
    def condemn_unless_done(self) -> Iterator[None]:
        """Condamne la transaction si le bloc s'arrête en chemin : la moitié d'une écriture ne se valide pas."""
        try:
            yield
        except BaseException:
            self.is_condemned = True
            raise

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """Condamne la transaction si la base y lève une erreur : PostgreSQL n'y valide plus rien, et ne le dit pas.

        Une erreur du domaine, elle, n'a rien abîmé : qui la rattrape peut continuer.
        """
        try:
            yield
        except ACLException:
            raise
        except BaseException:
            self.is_condemned = True
            raise

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Retient ce qu'il faut faire, en mémoire et sans attendre, une fois la transaction validée."""
        self._callbacks.append(callback)

    def run_callbacks(self) -> None:
        """Exécute, dans l'ordre, ce que `after_commit` a retenu."""
        for callback in self._callbacks:
            callback()


class Transactions(Protocol):
    """Ce qu'un cas d'usage demande quand plusieurs écritures n'en font qu'une."""

    def transaction(self, *, log: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """Ouvre une transaction, ou se joint à celle qui est ouverte.

        Args:
            log: tient la ligne de révision dès l'entrée, ce qu'il faut pour journaliser.

        Raises:
            DatabaseUnavailableError: la base ne répond pas.
            TransactionNotOwnedError: la transaction ambiante est à une autre tâche.
            TransactionNotOrderedError: on demande `log` dans une transaction ouverte sans.
        """

    async def retry(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Mène un travail, et le refait si la base annule sa transaction parce qu'une autre l'a croisée.

        Args:
            work: le travail, qui ouvre lui-même sa transaction et n'a pas d'autre effet.
        """


class Database(Transactions, Protocol):
    """Une base choisie par la configuration."""

    @property
    def ambient(self) -> Transaction | None:
        """La transaction ouverte par cette tâche, s'il y en a une."""

    async def migrate(self, *, force: bool = False) -> None:
        """Met le schéma à jour, sous un verrou qu'une seule réplique tient.

        Args:
            force: migre même si `auto_migrate` est coupé.

        Raises:
            DatabaseUnavailableError: la base ne répond pas.
            ConfigurationError: le schéma est en retard et `auto_migrate` est coupé, il vient d'une version future, ou
                ce compte n'a pas les droits qu'il faut.
        """

    async def check_schema(self) -> None:
        """Vérifie que le schéma est là et à jour, sans rien créer ni changer : ce qu'il faut avant de lire.

        Raises:
            DatabaseUnavailableError: la base ne répond pas.
            ConfigurationError: la base n'existe pas, le schéma est absent ou en retard, ou vient d'une version future.
        """

    def snapshot(self) -> AbstractAsyncContextManager[Transaction]:
        """Ouvre une lecture cohérente : tout ce qu'on y lit est du même instant."""

    @property
    def is_refusing(self) -> bool:
        """Vrai si la base a refusé pour de bon, et qu'aucune écriture n'a encore réussi depuis."""

    async def recover(self) -> None:
        """Réessaie d'écrire, tant que la base refuse ; ne lève rien."""

    async def close(self) -> None:
        """Ferme toutes les connexions."""

    def abandon(self) -> None:
        """Lâche les connexions d'une boucle d'événements qui n'existe plus."""

    def bind_loop(self) -> None:
        """S'attache à la boucle courante.

        Raises:
            WrongLoopError: les connexions sont à une autre boucle, qui tourne encore.
        """


class AmbientDatabase(Database, ABC):
    """Ce que toutes les bases ont en commun : la transaction ambiante, et une validation qui ne ment pas."""

    def __init__(self) -> None:
        """Part sans transaction."""
        self._ambient: ContextVar[Transaction | None] = ContextVar("fastapi_acl_transaction", default=None)
        self._refusal: Refusal | None = None
        self._trouble = Trouble(logger, "database_unavailable", "database_available_again")
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind_loop(self) -> None:
        """S'attache à la boucle courante : les connexions sont à celle qui les a ouvertes.

        D'une boucle finie, elles sont lâchées avant qu'une autre n'en ouvre.

        Raises:
            WrongLoopError: l'autre boucle tourne encore.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and self._loop.is_running():
            raise WrongLoopError
        if self._loop is not None:
            self.abandon()
        self._loop = loop

    def leave_loop(self) -> None:
        """Se détache de sa boucle, dont plus aucune connexion n'est ouverte."""
        self._loop = None

    @abstractmethod
    def begin(self, mode: Mode) -> AbstractAsyncContextManager[Transaction]:
        """Ouvre une transaction du pilote, annulée à la sortie si elle n'a pas été validée.

        En mode `LOG`, la tête du journal est lue sous son verrou, et l'entrée se réessaie tant qu'un autre la tient.

        Raises:
            DatabaseUnavailableError: la base ne répond pas, ou le verrou n'a pas été rendu à temps.
        """

    @abstractmethod
    async def read_head(self, transaction: Transaction) -> Head:
        """Renvoie la tête du journal."""

    @abstractmethod
    async def write_head(self, transaction: Transaction, head: Head) -> None:
        """Écrit la tête du journal, dont le verrou est tenu."""

    @abstractmethod
    async def read_place(self, transaction: Transaction) -> str:
        """Renvoie où la base se trouve, d'après le serveur : une copie servie ailleurs l'est à un autre endroit."""

    @abstractmethod
    async def commit(self, transaction: Transaction) -> None:
        """Valide une transaction du pilote.

        Raises:
            DatabaseUnavailableError: la connexion s'est perdue ; la validation a pu avoir lieu.
        """

    async def check_rights(self, transaction: Transaction) -> None:
        """Vérifie que ce compte a tous les droits qu'il faut, et que le serveur admet d'écrire.

        Args:
            transaction: transaction qui ne sera pas validée : les essais s'y annulent.

        Raises:
            ConfigurationError: il en manque un ; le message nomme la table et le droit.
        """

    async def check_size(self, transaction: Transaction, size: int) -> None:
        """Vérifie que la base admet une entrée du journal de cette taille, en octets, avant de l'envoyer.

        Raises:
            ChangeTooLargeError: elle ne l'admettrait pas ; l'erreur dit la limite.
        """

    @property
    def is_refusing(self) -> bool:
        """Vrai si la base a refusé pour de bon, et qu'aucune écriture n'a encore réussi depuis."""
        return self._refusal is not None

    def note_refusal(self, refusal: Refusal) -> DatabaseRefusedError:
        """Retient un refus, le dit une fois à l'exploitant, et rend l'erreur à lever."""
        if refusal != self._refusal:
            logger.error("database_refused: %s ; %s", *refusal)
        self._refusal = refusal
        return DatabaseRefusedError()

    def reopen(self) -> None:
        """Fait rouvrir les connexions gardées : elles peuvent tenir à un primaire déchu, ou aux droits d'avant."""

    async def recover(self) -> None:
        """Réessaie d'écrire, tant que la base refuse : les droits d'abord, puis la tête du journal, telle quelle."""
        if self._refusal is None:
            return
        self.reopen()
        with suppress(ACLException):
            async with self.begin(Mode.WRITE) as attempt:  # jamais validée
                await self.check_rights(attempt)
            async with self.begin(Mode.LOG) as opened:
                await self.write_head(opened, opened.check_ordered())
                await self.commit(opened)
            self._refusal = None
            logger.info("database_writes_again")

    @property
    def ambient(self) -> Transaction | None:
        """La transaction ouverte par cette tâche, s'il y en a une ; celle d'une autre tâche ne se voit pas."""
        found = self._ambient.get()
        is_mine = found is not None and not found.is_over and found.owner is asyncio.current_task()
        return found if is_mine else None

    def join(self) -> Transaction | None:
        """Renvoie la transaction ambiante, après avoir vérifié qu'elle est à cette tâche.

        Raises:
            TransactionNotOwnedError: elle est à une autre.
        """
        ambient = self._ambient.get()
        if ambient is None or ambient.is_over:
            return None
        ambient.check_owner()
        return ambient

    @asynccontextmanager
    async def transaction(self, *, log: bool = False) -> AsyncIterator[Transaction]:
        """Ouvre une transaction ou se joint à l'ambiante ; voir `Transactions.transaction`."""
        async with self._join_or_open(Mode.LOG if log else Mode.WRITE) as opened:
            if log:
                _ = opened.check_ordered()
            yield opened

    async def retry(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Mène un travail, et le refait tant qu'il est croisé, sauf dans une transaction ambiante, déjà annulée."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                return await work()
            except TransactionConflictError:  # noqa: PERF203 - c'est le travail qui se répète
                if self.ambient is not None or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(random.uniform(0.001, 0.02))  # noqa: S311 - pour ne pas se croiser encore

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """Ouvre une lecture cohérente, ou lit dans la transaction ambiante."""
        async with self._join_or_open(Mode.READ) as opened:
            yield opened

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """Ouvre une lecture cohérente à laquelle rien ne se joint, ou lit dans la transaction ambiante.

        C'est ce qu'emploie un générateur : l'ambiante qu'il ouvrirait serait celle de qui le lit, entre deux morceaux.
        """
        ambient = self.join()
        if ambient is not None:
            with ambient.unbroken():
                yield ambient
            return
        async with self.begin(Mode.READ) as opened:
            yield opened

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[Transaction]:
        """Ouvre la lecture cohérente de qui suit le journal ; une réserve épuisée ne l'arrête pas."""
        async with self._join_or_open(Mode.READ, self.begin_look) as opened:
            yield opened

    def begin_look(self) -> AbstractAsyncContextManager[Transaction]:
        """Ouvre cette lecture, à part s'il le faut."""
        return self.begin(Mode.READ)

    def require_alone(self) -> None:
        """Refuse ce qui change toute la mémoire, ou publie en plusieurs fois, dans une transaction ambiante.

        Raises:
            TransactionNestedError: cette tâche en a ouvert une.
            WrongLoopError: les connexions sont à une autre boucle, qui tourne encore.
        """
        self.bind_loop()
        if self.join() is not None:
            raise TransactionNestedError

    @asynccontextmanager
    async def _join_or_open(
        self, mode: Mode, begin: Callable[[], AbstractAsyncContextManager[Transaction]] | None = None
    ) -> AsyncIterator[Transaction]:
        """Se joint à la transaction ambiante, ou en ouvre une à laquelle les dépôts se joignent d'eux-mêmes."""
        ambient = self.join()
        if ambient is not None:
            with ambient.unbroken():
                yield ambient
            return
        async with begin() if begin is not None else self.begin(mode) as opened:
            token = self._ambient.set(opened)
            try:
                yield opened
            finally:
                opened.is_over = True
                self._ambient.reset(token)
            await to_the_end(self._finish(opened, mode))

    async def _finish(self, opened: Transaction, mode: Mode) -> None:
        """Valide, puis met la mémoire à jour ; une réponse perdue se vérifie avant de se croire perdue.

        Raises:
            DatabaseUnavailableError: rien n'a été validé, ou rien ne permet de le savoir.
            TransactionCondemnedError: une écriture s'y est arrêtée en chemin ; rien n'est validé.
        """
        if opened.is_condemned:
            raise TransactionCondemnedError
        try:
            await self.commit(opened)
        except DatabaseUnavailableError:
            if mode is Mode.READ or opened.proof is None or not await self._prove(opened.proof):
                raise
        opened.run_callbacks()

    async def _prove(self, proof: Callable[[Transaction], Awaitable[bool]]) -> bool:
        """Cherche le témoin d'une transaction sur une connexion neuve.

        Le verrou du journal attend que la transaction en doute soit finie, d'une façon ou de l'autre.
        """
        async with self.begin(Mode.LOG) as reading:
            return await proof(reading)


async def to_the_end(work: Coroutine[Any, Any, object]) -> None:
    """Mène un travail jusqu'au bout, autant de fois que l'appelant soit annulé ; l'annulation attend."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:  # noqa: PERF203 - chaque annulation attend
            cancelled = error
    if cancelled is None:
        _ = task.result()
        return
    _ = task.cancelled() or task.exception()  # lue, pour qu'elle ne passe pas pour oubliée
    raise cancelled
