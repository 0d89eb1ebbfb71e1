"""Un stockage en mémoire, honnête : ce qu'une base promet, dit au plus court. La même suite l'éprouve.

Une transaction qui écrit tient un verrou et travaille sur une copie ; valider met la copie à la place de l'état. Qui
lit garde l'état qu'il a trouvé, et rien ne le change sous lui : les valeurs se remplacent, elles ne se modifient pas.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, final
from uuid import UUID, uuid4

from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository, ISessionRepository
from fastapi_acl.auth.domain.dtos.auth_dtos import FinishedSessions, RefreshLifetime, UserPage
from fastapi_acl.auth.domain.entities.auth_user import AuthUser, fold
from fastapi_acl.auth.domain.entities.session import Session
from fastapi_acl.auth.infrastructure.repositories.pages import MAX_PAGE, make_cursor, read_cursor
from fastapi_acl.engine.adapters.base import COLUMNS, PACKET, PolicyAdapter, columns, digest
from fastapi_acl.engine.kernel.loading import without_tail
from fastapi_acl.runtime.storage import Storage
from fastapi_acl.shared.database.base import AmbientDatabase, Head, Mode, Transaction
from fastapi_acl.shared.exceptions import (
    DatabaseUnavailableError,
    RuleAlreadyExistsError,
    RuleNotFoundError,
    UserAlreadyExistsError,
    UserNotFoundError,
)
from fastapi_acl.shared.policy import PolicyRule
from fastapi_acl.shared.sync.changes import KEPT, LASTING_KINDS, Change, ChangeLog

Row = Mapping[str, Any]


class Batch(NamedTuple):
    """Un lot, et ses règles par numéro d'ordre."""

    kind: str
    created_at: datetime
    published: bool = False
    rules: Mapping[int, Row] = {}


@dataclass
class State:
    """Tout ce qu'une base garde."""

    head: Head = field(default_factory=lambda: Head(log_id=str(uuid4()), revision=0, policy_revision=0))
    changes: dict[int, Change] = field(default_factory=dict)
    rules: dict[int, Row] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    users: dict[str, AuthUser] = field(default_factory=dict)
    sessions: dict[UUID, Session] = field(default_factory=dict)

    def copy(self) -> State:
        names = ("changes", "rules", "batches", "users", "sessions")
        copied: dict[str, Any] = {name: dict(getattr(self, name)) for name in names}
        return replace(self, **copied)


def nothing(_: str) -> None:
    """Ne met rien en panne."""


@dataclass
class Server:
    """Ce que plusieurs processus partagent.

    Attributes:
        state: le dernier état validé.
        lock: ce qu'une transaction qui écrit tient, de son ouverture à sa fin.
        fault: appelée à chaque geste, qu'elle nomme ; elle lève ce qu'une panne lèverait.
    """

    state: State = field(default_factory=State)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    fault: Callable[[str], None] = nothing


@dataclass
class Connection:
    """L'état qu'une transaction voit ; `writes` dit si elle tient le verrou."""

    state: State
    writes: bool


@final
class MemoryDatabase(AmbientDatabase):
    """Transactions sur un état partagé."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server

    @asynccontextmanager
    async def begin(self, mode: Mode) -> AsyncIterator[Transaction]:
        self.server.fault("begin")
        writes = mode is not Mode.READ
        if writes:
            await self.server.lock.acquire()
        state = self.server.state
        connection = Connection(state.copy() if writes else state, writes)
        try:
            yield Transaction(connection=connection, head=state.head if mode is Mode.LOG else None)
        finally:
            self._release(connection)

    async def commit(self, transaction: Transaction) -> None:
        connection: Connection = transaction.connection
        try:
            self.server.fault("commit")
            await asyncio.sleep(0)  # une validation laisse passer les autres
            if connection.writes:
                self.server.state = connection.state
            self.server.fault("committed")
        finally:
            self._release(connection)

    def _release(self, connection: Connection) -> None:
        if connection.writes:
            connection.writes = False
            self.server.lock.release()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[State]:
        """Donne l'état de la transaction ambiante, ou d'une transaction à elle seule."""
        async with self.transaction() as opened:
            with opened.condemn_unless_done():
                self.server.fault("statement")
                yield opened.connection.state

    async def read_head(self, transaction: Transaction) -> Head:
        head: Head = transaction.connection.state.head
        return head

    async def write_head(self, transaction: Transaction, head: Head) -> None:
        self.server.fault("statement")
        transaction.connection.state.head = head

    async def read_place(self, transaction: Transaction) -> str:  # noqa: ARG002 - signature du port
        return f"mémoire {id(self.server)}"

    async def migrate(self, *, force: bool = False) -> None:
        """N'a rien à faire."""

    async def check_schema(self) -> None:
        """N'a rien à vérifier."""

    async def close(self) -> None:
        """N'a rien à fermer."""

    def abandon(self) -> None:
        """N'a rien à oublier."""


@final
class MemoryChangeLog(ChangeLog):
    """Le journal, par révision."""

    async def since(self, transaction: Transaction, revision: int, *, limit: int) -> Sequence[Change]:
        return [change for change in _entries(transaction) if change.revision > revision][:limit]

    async def live(self, transaction: Transaction, *, margin: timedelta) -> Sequence[Change]:
        return [change for change in _entries(transaction) if _is_live(change, margin)]

    async def last(self, transaction: Transaction, kind: str) -> Change | None:
        return next((change for change in reversed(_entries(transaction)) if change.kind == kind), None)

    async def find(self, transaction: Transaction, actor: str, key: str) -> Change | None:
        known = (change for change in _entries(transaction) if change.key is not None)
        return next((one for one in known if one.key and (one.actor, one.key.value) == (actor, key)), None)

    async def holds(self, transaction: Transaction, change: Change) -> bool:
        found = transaction.connection.state.changes.get(change.revision)
        return found is not None and found.change_id == change.change_id

    async def witness(self, transaction: Transaction, revision: int) -> str | None:
        found = transaction.connection.state.changes.get(revision)
        return found.change_id if found is not None else None

    async def revision_at(self, transaction: Transaction, instant: datetime) -> int:
        later = (change.revision for change in _entries(transaction) if change.at >= instant)
        return next(later, transaction.connection.state.head.revision + 1) - 1

    async def discard(self, transaction: Transaction, up_to: int) -> int:
        old = [change for change in _entries(transaction) if change.revision <= up_to]
        useless = [change.revision for change in old if change.kind not in LASTING_KINDS and not _is_live(change, KEPT)]
        for revision in useless:
            del transaction.connection.state.changes[revision]
        return len(useless)

    async def _write(self, transaction: Transaction, change: Change) -> None:
        """Écrit une entrée, dont le contenu passe par JSON comme dans une base.

        Raises:
            ValueError: l'auteur a déjà employé cette clé.
        """
        if change.key is not None and await self.find(transaction, change.actor, change.key.value) is not None:
            message = "cet auteur a déjà employé cette clé"
            raise ValueError(message)
        written = replace(change, payload=json.loads(json.dumps(change.payload)))
        transaction.connection.state.changes[change.revision] = written


def _entries(transaction: Transaction) -> list[Change]:
    """Rend les entrées dans l'ordre."""
    return [change for _, change in sorted(transaction.connection.state.changes.items())]


def _is_live(change: Change, margin: timedelta) -> bool:
    return change.live_until is not None and change.live_until > datetime.now(timezone.utc) - margin


@final
class MemoryPolicyAdapter(PolicyAdapter):
    """Les règles, par numéro ; une ligne est ce qu'une table garderait."""

    _database: MemoryDatabase

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def lines(self, batch_id: str | None = None) -> AsyncGenerator[Sequence[Any]]:
        async with self._database.reading() as reading:
            state: State = reading.connection.state
            kept = state.rules if batch_id is None else _batch(state, batch_id).rules
            lines = [(number, row["ptype"], *(row[name] for name in COLUMNS)) for number, row in sorted(kept.items())]
            for start in range(0, len(lines), PACKET):
                yield lines[start : start + PACKET]

    async def page(self, filters: Mapping[str, str], *, after: int, limit: int) -> list[tuple[int, PolicyRule]]:
        async with self._database.snapshot() as reading:
            rows = sorted(reading.connection.state.rules.items())
        found = [(number, _rule(row)) for number, row in rows if number > after and filters.items() <= row.items()]
        return found[:limit]

    async def last_id(self) -> int:
        async with self._database.session() as state:
            return max(state.rules, default=0)

    async def insert_numbered(self, rules: Sequence[PolicyRule], ids: Sequence[int]) -> None:
        async with self._database.session() as state:
            for number, rule in zip(ids, rules, strict=True):
                _insert(state.rules, number, columns(rule))

    async def delete(self, rules: Sequence[PolicyRule], *, by_value: bool = False) -> None:
        async with self._database.session() as state:
            for rule in dict.fromkeys(rules):
                wanted = columns(rule)
                exact = {number for number, row in state.rules.items() if row["digest"] == wanted["digest"]}
                if by_value or not exact:
                    exact |= {number for number, row in state.rules.items() if _rule(row) == rule}
                if not exact:
                    raise RuleNotFoundError(rule=rule.as_json())
                for number in exact:
                    del state.rules[number]

    async def clear_policy(self) -> bool:
        async with self._database.session() as state:
            state.rules.clear()
        return True

    async def take(self, row_id: int | str) -> Mapping[str, Any]:
        async with self._database.session() as state:
            row = state.rules.pop(row_id, None) if isinstance(row_id, int) else None
            if row is None:
                raise RuleNotFoundError(id=row_id)
        return {"id": row_id, "ptype": row["ptype"], **{name: row[name] for name in COLUMNS}}

    async def open_batch(self, batch_id: str, kind: str) -> None:
        async with self._database.session() as state:
            state.batches[batch_id] = Batch(kind, datetime.now(timezone.utc))

    async def stage(self, batch_id: str, rules: Sequence[tuple[int, PolicyRule]]) -> None:
        async with self._database.session() as state:
            batch = _batch(state, batch_id)
            staged = {number: columns(rule) for number, rule in rules}
            state.batches[batch_id] = batch._replace(rules={**batch.rules, **staged})

    async def prune(self, batch_id: str) -> None:
        async with self._database.session() as state:
            batch, first = _batch(state, batch_id), dict[str, int]()
            for number, row in sorted(batch.rules.items()):
                first.setdefault(row["digest"], number)
            kept = {number: batch.rules[number] for number in first.values()}
            state.batches[batch_id] = batch._replace(rules=kept)

    async def publish(self, batch_id: str, after: int) -> int:
        async with self._database.session() as state:
            known = {row["digest"] for row in state.rules.values()}
            staged = sorted(_batch(state, batch_id).rules.items())
            fresh = [(number, row) for number, row in staged if row["digest"] not in known]
            for number, row in fresh:
                _insert(state.rules, number + after, row)
        return len(fresh)

    async def seal(self, batch_id: str) -> None:
        async with self._database.session() as state:
            if batch_id not in state.batches:
                raise DatabaseUnavailableError
            state.batches[batch_id] = state.batches[batch_id]._replace(published=True)

    async def list_abandoned(self, before: datetime) -> list[str]:
        async with self._database.session() as state:
            return [name for name, one in state.batches.items() if one.created_at < before and not one.published]

    async def release(self, batch_ids: Sequence[str]) -> None:
        async with self._database.session() as state:
            known = [name for name in batch_ids if name in state.batches]
            state.batches |= {name: state.batches[name]._replace(published=False) for name in known}

    async def drop(self, batch_id: str) -> None:
        async with self._database.session() as state:
            if not _batch(state, batch_id).published:
                state.batches.pop(batch_id, None)


def _batch(state: State, batch_id: str) -> Batch:
    """Rend un lot ; un lot inconnu est vide, comme une lecture sans résultat."""
    return state.batches.get(batch_id, Batch("", datetime.now(timezone.utc)))


def _rule(row: Row) -> PolicyRule:
    return PolicyRule(row["ptype"], without_tail([row[name] for name in COLUMNS]))


def _insert(rules: dict[int, Row], number: int, row: Row) -> None:
    """Ajoute une ligne, dont le numéro et l'empreinte sont uniques.

    Raises:
        RuleAlreadyExistsError: l'empreinte est déjà là.
        DatabaseUnavailableError: le numéro est pris.
    """
    if row["digest"] in {known["digest"] for known in rules.values()}:
        raise RuleAlreadyExistsError
    if number in rules:
        raise DatabaseUnavailableError
    rules[number] = row


def write_line(server: Server, ptype: Any, values: Sequence[Any], written: str | None = None) -> int:
    """Écrit une ligne comme une main étrangère le ferait, et rend son numéro."""
    number = max(server.state.rules, default=0) + 1
    padded = (*values, *[None] * (len(COLUMNS) - len(values)))
    row = {"ptype": ptype, "digest": written or digest(PolicyRule.of(str(ptype), [str(value) for value in values]))}
    server.state = server.state.copy()
    server.state.rules[number] = row | dict(zip(COLUMNS, padded, strict=True))
    return number


@final
class MemoryAuthRepository(IAuthRepository):
    """Les comptes, par identifiant."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def create_user(self, user: AuthUser) -> None:
        async with self._database.session() as state:
            taken = {key for known in state.users.values() for key in _keys(known)}
            if not taken.isdisjoint(_keys(user)):
                raise UserAlreadyExistsError
            state.users[str(user.id)] = replace(user)

    async def get_by_id(self, user_id: UUID) -> AuthUser:
        async with self._database.snapshot() as reading:
            return replace(_account(reading.connection.state, user_id))

    async def get_by_username(self, username: str) -> AuthUser:
        return await self._get(lambda one: fold(one.username) == fold(username))

    async def get_by_email(self, email: str) -> AuthUser:
        return await self._get(lambda one: one.email is not None and fold(one.email) == fold(email))

    async def _get(self, is_wanted: Callable[[AuthUser], bool]) -> AuthUser:
        async with self._database.snapshot() as reading:
            found = next(filter(is_wanted, reading.connection.state.users.values()), None)
        if found is None:
            raise UserNotFoundError
        return replace(found)

    async def list_users(
        self, *, limit: int, cursor: str | None = None, query: str | None = None, is_active: bool | None = None
    ) -> UserPage:
        limit, after = min(max(limit, 1), MAX_PAGE), read_cursor(cursor) if cursor is not None else ""
        async with self._database.snapshot() as reading:
            found = sorted(reading.connection.state.users.values(), key=lambda one: fold(one.username))
        found = [one for one in found if fold(one.username) > after and is_active in {None, one.is_active}]
        if query is not None:
            found = [one for one in found if any(fold(query) in key for _, key in _keys(one))]
        following = make_cursor(fold(found[limit - 1].username)) if len(found) > limit else None
        return UserPage(items=[replace(one) for one in found[:limit]], next_cursor=following)

    async def update_password(self, user_id: UUID, hashed_password: str, *, replaced: str) -> None:
        async with self._database.session() as state:
            known = state.users.get(str(user_id))
            if known is not None and known.hashed_password == replaced:
                state.users[str(user_id)] = replace(known, hashed_password=hashed_password)

    async def has_hash(self, starts: Sequence[str]) -> bool:
        async with self._database.snapshot() as reading:
            return any(one.hashed_password.startswith(tuple(starts)) for one in reading.connection.state.users.values())

    async def update_user(self, user_id: UUID, *, is_active: bool | None = None, ends_tokens: bool = False) -> AuthUser:
        async with self._database.session() as state:
            known = _account(state, user_id)
            version = known.session_version + (ends_tokens or is_active is False)
            active = known.is_active if is_active is None else is_active
            return self._change(state, user_id, is_active=active, session_version=version)

    async def delete_user(self, user_id: UUID) -> None:
        async with self._database.session() as state:
            del state.users[str(_account(state, user_id).id)]
            state.sessions = {key: one for key, one in state.sessions.items() if one.user_id != user_id}

    async def active_ids(self, ids: Sequence[str]) -> set[str]:
        async with self._database.snapshot() as reading:
            known = reading.connection.state.users
        return {one for one in ids if one in known and known[one].is_active}

    async def existing_ids(self, ids: Sequence[str]) -> set[str]:
        async with self._database.snapshot() as reading:
            return {one for one in ids if one in reading.connection.state.users}

    @staticmethod
    def _change(state: State, user_id: UUID, **values: Any) -> AuthUser:
        changed = replace(_account(state, user_id), updated_at=datetime.now(timezone.utc), **values)
        state.users[str(user_id)] = changed
        return replace(changed)


def _keys(user: AuthUser) -> set[tuple[str, str]]:
    """Rend les clés, uniques, d'un compte."""
    named = {"username": user.username, "email": user.email}
    return {(name, fold(value)) for name, value in named.items() if value is not None}


def _account(state: State, user_id: UUID) -> AuthUser:
    """Rend un compte.

    Raises:
        UserNotFoundError: il n'existe pas.
    """
    if str(user_id) not in state.users:
        raise UserNotFoundError
    return state.users[str(user_id)]


@final
class MemorySessionRepository(ISessionRepository):
    """Les sessions, par identifiant."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def create_session(self, session: Session) -> bool:
        async with self._database.session() as state:
            is_current = self._is_current(state, session)
            if is_current:
                state.sessions[session.id] = replace(session)
        return is_current

    async def rotate(self, session_id: UUID, old_digest: str, new_digest: str, lifetime: RefreshLifetime) -> bool:
        async with self._database.session() as state:
            known = state.sessions.get(session_id)
            if known is None or known.refresh_digest != old_digest or not self._lives(state, known, lifetime):
                return False
            spent = {"previous_digest": old_digest, "rotated_at": lifetime.now, "last_used_at": lifetime.now}
            state.sessions[session_id] = replace(known, refresh_digest=new_digest, **spent)  # type: ignore[arg-type]
        return True

    async def find_session(self, session_id: UUID) -> Session | None:
        async with self._database.snapshot() as reading:
            known = reading.connection.state.sessions.get(session_id)
        return replace(known) if known is not None else None

    async def revoke_session(self, session_id: UUID, now: datetime) -> bool:
        return await self._revoke(lambda one: one.id == session_id, now) > 0

    async def revoke_all(self, user_id: UUID, now: datetime) -> None:
        await self._revoke(lambda one: one.user_id == user_id, now)

    async def remove_finished(self, finished: FinishedSessions, limit: int) -> int:
        async with self._database.session() as state:
            over = [
                one.id
                for one in state.sessions.values()
                if one.expires_at < finished.expired_before or one.last_used_at < finished.unused_before
            ][:limit]
            state.sessions = {key: one for key, one in state.sessions.items() if key not in over}
        return len(over)

    async def _revoke(self, concerns: Callable[[Session], bool], now: datetime) -> int:
        async with self._database.session() as state:
            closed = [one for one in state.sessions.values() if one.revoked_at is None and concerns(one)]
            state.sessions |= {one.id: replace(one, revoked_at=now) for one in closed}
        return len(closed)

    @staticmethod
    def _is_current(state: State, session: Session) -> bool:
        account = state.users.get(str(session.user_id))
        return account is not None and account.is_active and account.session_version == session.session_version

    def _lives(self, state: State, session: Session, lifetime: RefreshLifetime) -> bool:
        is_open = session.revoked_at is None and session.expires_at > lifetime.now
        return is_open and session.last_used_at > lifetime.idle_since and self._is_current(state, session)


def memory_storage(server: Server | None = None) -> Storage:
    """Fait un stockage en mémoire ; deux faits sur le même serveur sont deux processus sur la même base."""
    database = MemoryDatabase(server or Server())
    return Storage(
        database=database,
        log=MemoryChangeLog(database),
        adapter=MemoryPolicyAdapter(database),
        users=MemoryAuthRepository(database),
        sessions=MemorySessionRepository(database),
    )
