"""Ce que ce processus sait du journal : la révision appliquée, et les mémoires qu'elle tient à jour."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol
from uuid import uuid4

from fastapi_acl.shared.exceptions import PolicyUnavailableError, PolicyUnreadableError, StoredDataError
from fastapi_acl.shared.logging import get_logger
from fastapi_acl.shared.stored import MISREADINGS
from fastapi_acl.shared.sync.changes import POLICY_KINDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from fastapi_acl.shared.database.base import AmbientDatabase, Head, Transaction
    from fastapi_acl.shared.identity import Principal
    from fastapi_acl.shared.sync.changes import Change, ChangeLog, IdempotencyKey

logger = get_logger("sync")

UNLOADED: Final = -1
"""Révision d'un processus qui n'a encore rien chargé."""

MAX_CATCH_UP: Final = 1_000
"""Retard, en entrées, au-delà duquel tout relire coûte moins que rattraper."""

Attempt = Literal["look", "reload"]

UNKNOWN_ENTRY: Final = "-"
"""Témoin qu'aucune entrée n'a : qui reçoit une annonce placée après elle regarde la base."""

PLACE_SECONDS: Final = 5.0
"""Temps au bout duquel on redemande à la base où elle est : un redémarrage ou une bascule la change de place."""

OLDEST_ANNOUNCEMENT: Final = timedelta(minutes=1)
"""Avance d'une entrée sur la lecture de tout, au-delà de laquelle son annonce ne peut être que rejouée."""

TOO_OLD: Final = (
    "La politique connue ici est trop ancienne : la base n’a pas pu être relue, et rien ne se décide sur ce qui a pu "
    "changer. Réessayez dans un instant."
)

NEVER: Final = datetime.min.replace(tzinfo=timezone.utc) + OLDEST_ANNOUNCEMENT
"""Instant d'avant toute lecture."""

LOADS_WITHOUT_LOCK: Final = 2
"""Fois qu'un écrivain rend le verrou du journal pour tout relire ; ensuite, il le garde."""


class Memory(Protocol):
    """Une mémoire que le journal tient à jour (les règles, les révocations)."""

    async def read(self, transaction: Transaction) -> Any:  # noqa: ANN401 - état propre à chaque mémoire
        """Lit l'état entier, à l'instant de la transaction, sans rien changer en mémoire."""

    def install(self, state: Any) -> None:  # noqa: ANN401 - idem
        """Met l'état lu en service, d'une seule affectation."""

    def apply(self, change: Change) -> None:
        """Applique une entrée, si elle concerne cette mémoire."""


class Position(NamedTuple):
    """Où en sont les mémoires.

    Attributes:
        log_id: identité du journal qu'elles suivent.
        revision: révision de la dernière entrée appliquée.
        change_id: témoin de cette entrée ; une base revenue en arrière, puis avancée, en a une autre à ce rang.
    """

    log_id: str
    revision: int
    change_id: str


class Lesson(NamedTuple):
    """Ce que la base vient d'apprendre à ce processus.

    Attributes:
        began: instant monotone où la lecture a commencé.
        before: révision appliquée jusque-là, ou -1.
        after: révision appliquée depuis.
        is_whole: vrai si tout a été relu.
    """

    began: float
    before: int
    after: int
    is_whole: bool


class Observer:
    """Apprend ce qui arrive aux mémoires d'un processus ; qui en hérite ne redéfinit que ce qui l'intéresse.

    Une méthode est appelée aussitôt, sans qu'on l'attende : elle ne lève rien et ne dure pas.
    """

    def note_change(self, before: Position, change: Change) -> None:
        """Apprend qu'une entrée de ce processus est validée, et après quelle position elle vient."""

    def note_lesson(self, lesson: Lesson) -> None:
        """Apprend ce qui a été lu de la base, une fois en service."""

    def note_failure(self, attempt: Attempt, began: float, error: Exception) -> None:
        """Apprend qu'une lecture de la base a échoué.

        Args:
            attempt: `look` pour un regard, `reload` pour une relecture de tout.
            began: instant monotone où elle a commencé.
            error: ce qu'elle a levé.
        """


class _Entries(NamedTuple):
    """Les entrées lues, qui suivent ce que l'on savait.

    Attributes:
        began: instant monotone où leur lecture a commencé.
        changes: les entrées, dans l'ordre.
    """

    began: float
    changes: Sequence[Change]


class _Whole(NamedTuple):
    """L'état entier de chaque mémoire, lu d'un bloc.

    Attributes:
        began: instant monotone où la lecture a commencé.
        read_at: le même, à l'horloge murale.
        faults: nombre de fautes qu'on connaissait alors.
        position: où en est le journal.
        policy: où en sont les règles.
        states: l'état de chaque mémoire.
    """

    began: float
    read_at: datetime
    faults: int
    position: Position
    policy: Position
    states: Sequence[Any]


@asynccontextmanager
async def readable() -> AsyncIterator[None]:
    """Dit illisible ce que la base garde et qui n'a pas la forme attendue ; une panne reste une panne.

    Raises:
        PolicyUnreadableError: une lecture a levé ce que nul n'attendait.
    """
    try:
        yield
    except MISREADINGS as error:
        logger.exception("stored_data_unreadable")
        raise PolicyUnreadableError from error


class Replica:
    """Applique le journal aux mémoires du processus, dans l'ordre et seulement vers l'avant.

    Attributes:
        woken: posé quand quelqu'un demande de regarder la base sans attendre.
        reloads: nombre de lectures de toutes les mémoires.
        applied: nombre d'entrées appliquées une à une.
        unreadable: table, ou collection, où quelque chose ne s'est pas lu ; vide dès que tout a été relu.
    """

    def __init__(self, database: AmbientDatabase, log: ChangeLog, memories: Sequence[Memory]) -> None:
        """Retient les mémoires à tenir ; rien n'est chargé avant `refresh`.

        Args:
            database: base où le journal se lit.
            log: le journal.
            memories: mémoires à tenir à jour.
        """
        self._database = database
        self._log = log
        self._memories = memories
        self._at: Position | None = None
        self._is_lost = self._is_rewound = False
        self._faults = 0
        self._read_at = NEVER
        self._place: str | None = None
        self._next_place = float("-inf")
        self._policy: Position | None = None
        self._seen_at = float("-inf")
        self._seen_revision = UNLOADED
        self.reloads = self.applied = 0
        self.unreadable = ""
        self._refreshing = asyncio.Lock()
        self._observers: list[Observer] = []
        self._awaiting: set[asyncio.Future[None]] = set()
        self.woken = asyncio.Event()

    @property
    def revision(self) -> int:
        """Dernière révision appliquée, ou -1."""
        return self._at.revision if self._at is not None else UNLOADED

    @property
    def policy_revision(self) -> int:
        """Dernière révision appliquée qui a changé les règles, ou -1."""
        return self._policy.revision if self._policy is not None else UNLOADED

    @property
    def policy(self) -> Position | None:
        """Où en sont les règles : deux processus qui en disent autant ont les mêmes."""
        return self._policy

    @property
    def database_revision(self) -> int:
        """Dernière révision vue dans la base, ou -1."""
        return max(self._seen_revision, self.revision)

    @property
    def is_loaded(self) -> bool:
        """Vrai si les mémoires sont en service, et que la base est toujours celle qu'elles suivent."""
        return self._at is not None and not self._is_lost

    @property
    def scope(self) -> str | None:
        """Cadre où une annonce se croit : condensé du journal suivi et de l'endroit où il est ; None si rien n'est lu.

        Une copie de la base, servie ailleurs, porte le même journal : sans l'endroit, ses annonces vaudraient ici.
        """
        if self._at is None or self._place is None:
            return None
        return hashlib.sha256(json.dumps([self._at.log_id, self._place]).encode()).hexdigest()

    @property
    def age_seconds(self) -> float:
        """Temps écoulé depuis que la révision de la base a été vue, en secondes."""
        return time.monotonic() - self._seen_at

    def require_fresh(self, max_staleness: float) -> None:
        """Refuse d'aller plus loin avec des mémoires absentes ou trop vieilles.

        Args:
            max_staleness: âge toléré, en secondes.

        Raises:
            PolicyUnavailableError: la base n'a pas été vue depuis plus longtemps.
        """
        if not self.is_loaded:
            raise PolicyUnavailableError
        if self.age_seconds > max_staleness:
            raise PolicyUnavailableError(TOO_OLD)

    def abandon(self) -> None:
        """Oublie ce qui a commencé dans une boucle d'événements qui n'existe plus."""
        self._refreshing = asyncio.Lock()
        self._awaiting, self.woken = set(), asyncio.Event()
        self._next_place = float("-inf")

    async def refresh(self) -> None:
        """Regarde la révision de la base et rattrape ce qui a changé.

        D'une base revenue en arrière, le journal change d'identité avant que rien ne se décide : les annonces de ce
        qu'elle a oublié ne disent alors plus rien à personne.

        Raises:
            DatabaseUnavailableError: la base ne répond pas ; les mémoires restent ce qu'elles étaient.
            StoredDataError: la base garde ce qui ne se lit pas ; de même.
        """
        self._database.require_alone()
        # Deux lectures de tout à la fois n'apprendraient rien de plus qu'une.
        async with self._refreshing, self._noting("look"):
            started, known = time.monotonic(), self._at
            news = await self._look(known)
            if self._is_rewound and known is not None:
                await self._renew(known)
                news = await self._look(known)
            self._install(news)
            self._seen_at = started

    async def reload(self) -> None:
        """Relit tout, même si la révision n'a pas changé : ce qu'on a écrit à la main dans la base se voit alors.

        Raises:
            DatabaseUnavailableError: la base ne répond pas ; les mémoires restent ce qu'elles étaient.
            StoredDataError: la base garde ce qui ne se lit pas, une ligne qui pourrait refuser par exemple ; l'ancienne
                politique reste.
        """
        self._database.require_alone()
        if self._is_lost:
            await self.refresh()
        async with self._refreshing:
            async with self._noting("reload"), self._database.snapshot() as transaction, readable():
                news = await self._read_all(transaction, await self._log.head(transaction))
            self._install(news)
        if self._policy is not None:  # ce qui vient d'être relu n'est peut-être pas ce que le journal en dit
            self._policy = self._policy._replace(change_id=uuid4().hex)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Transaction]:
        """Ouvre une transaction ordonnée, mémoires à jour, ou se joint à celle qui est ouverte.

        Tout relire peut être long : on rend d'abord le verrou, pour que les autres écrivent pendant ce temps.
        """
        chances = LOADS_WITHOUT_LOCK if self._database.ambient is None else 0
        while True:
            async with self._database.transaction(log=True) as transaction:
                if transaction.recorded or await self._catch_up(transaction, may_leave=chances > 0):
                    yield transaction
                    return
            if self._database.ambient is not None:
                raise PolicyUnavailableError
            chances -= 1
            await self.refresh()

    async def _catch_up(self, transaction: Transaction, *, may_leave: bool) -> bool:
        """Met les mémoires à la tête du journal, qui est tenue ; les gardes ne jugent pas sur moins.

        Args:
            transaction: transaction ordonnée.
            may_leave: vrai pour renoncer s'il faut tout relire.

        Returns:
            Faux si elle y a renoncé, ou si la base est revenue en arrière, ce qui se règle à part.

        Raises:
            PolicyUnavailableError: elles n'ont pu y être mises.
        """
        head = transaction.check_ordered()
        async with readable():
            changes = await self._find_missing(transaction, head, self._at)
        if changes is None and (may_leave or self._is_rewound):
            return False
        self._install(_Entries(time.monotonic(), changes or ()))
        if changes is None or self.revision != head.revision:
            async with readable():
                news = await self._read_all(transaction, head)
            self._install(news)
        if self.revision != head.revision:
            raise PolicyUnavailableError
        return True

    async def record(  # noqa: PLR0913 - ce qu'est une entrée
        self,
        transaction: Transaction,
        kind: str,
        payload: Mapping[str, Any],
        *,
        actor: Principal,
        live_until: datetime | None = None,
        key: IdempotencyKey | None = None,
        install: Callable[[], None] | None = None,
    ) -> int:
        """Journalise un changement ; les mémoires le verront à la validation.

        Args:
            transaction: transaction ordonnée.
            kind: nature de l'entrée.
            payload: son contenu, en JSON.
            actor: son auteur.
            live_until: instant après lequel elle ne concerne plus aucun jeton vivant.
            key: clé du client.
            install: met en service un changement de masse que son auteur a déjà construit ; sans quoi il se relit.

        Returns:
            La révision du changement.
        """
        change = await self._log.append(transaction, kind, payload, actor=actor.name, live_until=live_until, key=key)
        transaction.after_commit(lambda: self._commit(change, install))
        return change.revision

    # --- ce qui passe d'un processus à l'autre ---------------------------------------------------------------------

    def observe(self, observer: Observer) -> None:
        """Fait savoir à un observateur ce qui arrive ici."""
        self._observers.append(observer)

    def forget(self, observer: Observer) -> None:
        """Cesse de le lui faire savoir."""
        self._observers.remove(observer)

    def offer(self, before: Position, change: Change) -> bool:
        """Applique une entrée qu'un autre processus annonce, si elle suit exactement la nôtre.

        Args:
            before: position après laquelle elle vient.
            change: l'entrée ; son annonce a été authentifiée.

        Returns:
            Vrai si elle est appliquée, ou l'était déjà ; faux s'il faut regarder la base.
        """
        at = self._at
        if at is None or self._is_lost or before.log_id != at.log_id:
            return False
        if change.revision <= at.revision:
            return True
        if change.at < self._read_at - OLDEST_ANNOUNCEMENT:
            return False
        return before == at and not change.is_bulk and self._apply(change, at, None)

    def wake(self) -> None:
        """Demande de regarder la base sans attendre le prochain tour."""
        self.woken.set()

    async def wait_for_move(self) -> None:
        """Attend que les mémoires avancent."""
        future = asyncio.get_running_loop().create_future()
        self._awaiting.add(future)
        try:
            await future
        finally:
            self._awaiting.discard(future)

    async def wait_for_move_from(self, scope: str | None) -> str:
        """Attend que les annonces aient un autre cadre que celui-ci, et le rend."""
        while self.scope is None or self.scope == scope:
            await self.wait_for_move()
        return self.scope

    def _commit(self, change: Change, install: Callable[[], None] | None) -> None:
        """Applique une entrée que ce processus vient de valider, et l'annonce."""
        before = self._at
        self._advance([change], install)
        if before is not None:
            is_next = change.revision == before.revision + 1
            for observer in self._observers:
                observer.note_change(before if is_next else before._replace(change_id=UNKNOWN_ENTRY), change)

    def _tell(self) -> None:
        """Réveille qui attend une révision."""
        for future in self._awaiting:
            if not future.done():
                future.set_result(None)

    async def _look(self, known: Position | None) -> _Entries | _Whole:
        """Lit la tête et, si elle n'est pas la nôtre, ce qui y mène ; rien d'une base revenue en arrière."""
        self._is_rewound = False
        async with self._database.looking() as transaction, readable():
            await self._locate(transaction)
            began, head = time.monotonic(), transaction.head or await self._log.head(transaction)
            self._seen_revision = head.revision
            changes = await self._find_missing(transaction, head, known)
            if (changes is not None and not self.unreadable) or self._is_rewound:
                return _Entries(began, changes or ())
            return await self._read_all(transaction, head)

    @asynccontextmanager
    async def _noting(self, attempt: Attempt) -> AsyncIterator[None]:
        """Fait savoir une lecture qui échoue ; pour la santé, retient où se trouve ce qui ne s'est pas lu."""
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            if isinstance(error, StoredDataError):
                self.unreadable = error.table
            for observer in self._observers:
                observer.note_failure(attempt, began, error)
            raise

    async def _locate(self, transaction: Transaction) -> None:
        """Demande à la base où elle est, s'il y a assez longtemps qu'on ne l'a fait."""
        if time.monotonic() < self._next_place:
            return
        before, self._place = self._place, await self._database.read_place(transaction)
        self._next_place = time.monotonic() + PLACE_SECONDS
        if self._place != before:
            self._tell()

    async def _renew(self, known: Position) -> None:
        """Donne une autre identité au journal d'une base revenue en arrière, si un autre processus ne l'a pas fait."""
        async with self._database.transaction(log=True) as transaction:
            if transaction.check_ordered().log_id == known.log_id:
                await self._log.renew(transaction)

    async def _find_missing(
        self, transaction: Transaction, head: Head, known: Position | None
    ) -> Sequence[Change] | None:
        """Lit les entrées qui mènent de ce que l'on savait à la tête ; None s'il faut tout relire.

        Une base qui a un autre journal, qui est en deçà, ou dont l'entrée de ce rang n'est plus la nôtre est revenue en
        arrière (sauvegarde restaurée, bascule) : on la suit, et rien ne se décide avant de l'avoir relue.
        """
        if known is None:
            return None
        missing = head.revision - known.revision
        if head.log_id != known.log_id or missing < 0:
            self._lose(head, known)
            return None
        witness = await self._log.witness(transaction, known.revision)
        if witness is not None and witness != known.change_id:
            self._lose(head, known)
            return None
        if missing > MAX_CATCH_UP:
            return None
        entries = await self._log.since(transaction, known.revision, limit=missing) if missing else ()
        is_whole = len(entries) == missing and (witness is not None or not known.revision or not missing)
        return entries if is_whole and not any(change.is_bulk for change in entries) else None

    def _lose(self, head: Head, known: Position) -> None:
        """Note que la base n'est plus celle que l'on suivait."""
        logger.error("database_went_back: revision=%d known=%d", head.revision, known.revision)
        self._is_lost, self._is_rewound = True, head.log_id == known.log_id
        self._faults += 1

    async def _read_all(self, transaction: Transaction, head: Head) -> _Whole:
        """Lit l'état entier de chaque mémoire."""
        return _Whole(
            began=time.monotonic(),
            read_at=datetime.now(timezone.utc),
            faults=self._faults,
            position=await self._position(transaction, head, head.revision),
            policy=await self._position(transaction, head, head.policy_revision),
            states=[await memory.read(transaction) for memory in self._memories],
        )

    async def _position(self, transaction: Transaction, head: Head, revision: int) -> Position:
        """Renvoie une position du journal ; sans témoin si l'entrée n'y est plus."""
        entries = await self._log.since(transaction, revision - 1, limit=1)
        is_kept = bool(entries) and entries[0].revision == revision
        return Position(head.log_id, revision, entries[0].change_id if is_kept else "")

    def _install(self, news: _Entries | _Whole) -> None:
        """Met en service ce qui a été lu, et fait savoir ce qu'on en a appris."""
        before, is_whole = self.revision, isinstance(news, _Whole)
        if isinstance(news, _Whole):
            is_new = self._install_whole(news)
        else:
            self._advance(news.changes)
            is_new = self.revision > before
        if is_new:
            for observer in self._observers:
                observer.note_lesson(Lesson(news.began, before, self.revision, is_whole))

    def _install_whole(self, whole: _Whole) -> bool:
        """Met en service l'état de chaque mémoire, sauf si elle a avancé, ou failli, pendant la lecture."""
        if whole.faults != self._faults or not self._is_behind(whole.position):
            return False
        for memory, state in zip(self._memories, whole.states, strict=True):
            memory.install(state)
        self._at, self._policy, self._is_lost, self.unreadable = whole.position, whole.policy, False, ""
        self._read_at = max(self._read_at, whole.read_at)
        self._seen_at = max(self._seen_at, whole.began)
        self.reloads += 1
        self._tell()
        logger.info("replica_loaded: revision=%d", whole.position.revision)
        return True

    def _is_behind(self, position: Position) -> bool:
        """Dit si les mémoires sont en deçà d'une position lue, ou n'en ont plus."""
        return self._is_lost or self._at is None or position.revision >= self._at.revision

    def _advance(self, changes: Sequence[Change], install: Callable[[], None] | None = None) -> None:
        """Applique les entrées validées qui suivent la nôtre ; un trou, ou ce qui se relit, attend `refresh`."""
        for change in changes:
            is_bulk = change.is_bulk and install is None
            is_next = change.revision == self.revision + 1
            if self._at is not None and is_next and (is_bulk or not self._apply(change, self._at, install)):
                return

    def _apply(self, change: Change, at: Position, install: Callable[[], None] | None) -> bool:
        """Applique l'entrée suivante ; si elle ne s'applique pas, plus rien ne se décide avant de tout relire."""
        try:
            for memory in self._memories:
                memory.apply(change)
            if install is not None:
                install()
        except Exception:
            logger.exception("replica_apply_failed: revision=%d", change.revision)
            self._at = None
            self._faults += 1
            return False
        self._at = Position(at.log_id, change.revision, change.change_id)
        self.applied += 1
        if change.kind in POLICY_KINDS:
            self._policy = self._at
        self._tell()
        return True
