"""Un objet d'ORM asynchrone, tel qu'une route le charge : son propriétaire le lit, ou le journal dit pourquoi non."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_acl import ACLManager, require
from tests.support.app import Client, config, serve


class Tables(DeclarativeBase):
    pass


class Document(Tables):
    __tablename__ = "document"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]


class Shelf:
    """Des documents dans une vraie base, chargés de plusieurs façons."""

    def __init__(self, uri: str) -> None:
        self.engine = create_async_engine(uri)
        self.statements: list[str] = []
        event.listen(self.engine.sync_engine, "before_cursor_execute", lambda *given: self.statements.append(given[2]))

    async def fill(self, **owners: str) -> None:
        async with self.engine.begin() as connection:
            await connection.run_sync(Tables.metadata.create_all)
        async with AsyncSession(self.engine) as session:
            session.add_all([Document(name=name, owner=owner) for name, owner in owners.items()])
            await session.commit()

    async def kept(self, name: str) -> AsyncIterator[Document]:
        """La façon que SQLAlchemy conseille."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            yield await self._seen(session, name)

    async def expired(self, name: str) -> AsyncIterator[Document]:
        """Celle de tout le monde : la validation a tout périmé."""
        async with AsyncSession(self.engine) as session:
            yield await self._seen(session, name)

    async def refreshed(self, name: str) -> AsyncIterator[Document]:
        async with AsyncSession(self.engine) as session:
            document = await self._seen(session, name)
            await session.refresh(document)
            yield document

    async def _seen(self, session: AsyncSession, name: str) -> Document:
        document = await session.get_one(Document, name)
        await session.commit()
        self.statements.clear()
        return document


@pytest.fixture
async def shelf(tmp_path: Any) -> AsyncIterator[Shelf]:
    made = Shelf(f"sqlite+aiosqlite:///{tmp_path / 'documents.db'}")
    yield made
    await made.engine.dispose()


def application(shelf: Shelf) -> FastAPI:
    app = FastAPI()

    async def answer(name: str) -> str:
        return name

    for way in ("kept", "expired", "refreshed"):
        guard = Depends(require("document:read", resource=getattr(shelf, way)))
        app.get(f"/{way}/{{name}}", dependencies=[guard])(answer)
    return app


async def permitted(admin: Client, *holders: Client) -> None:
    """Donne à chacun le droit de lire les siens, et à nul autre."""
    rules = [("p", f"user:{holder.id}", "document", "read", "own", "allow") for holder in holders]
    assert (await admin.add_rules(*rules)).status_code == 201


async def test_the_owner_of_an_orm_object_reads_it_and_an_expired_one_says_what_to_do(
    sqlite_uri: str, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(shelf)
    manager = ACLManager(config(sqlite_uri=sqlite_uri, model="abac", policy_poll_seconds=60), app=app)
    async with serve(app, manager) as visitor:
        ada, bob = await visitor.newcomer("ada"), await visitor.newcomer("bob")
        await permitted(await visitor.admin(), ada, bob)
        await shelf.fill(hers=ada.id, his=bob.id)

        with caplog.at_level(logging.INFO, "fastapi_acl"):
            answers = {
                way: [(await caller.get(f"/{way}/hers")).status_code for caller in (ada, bob)]
                for way in ("kept", "refreshed", "expired")
            }

    assert answers == {"kept": [200, 403], "refreshed": [200, 403], "expired": [503, 503]}
    (line,) = [record.message for record in caplog.records if record.message.startswith("decision_failed:")]
    for part in ("l’attribut owner de Document est expiré", "refresh", "expire_on_commit=False", "GET /expired/{name}"):
        assert part in line


async def test_reading_an_expired_object_sends_nothing_to_the_database(sqlite_uri: str, shelf: Shelf) -> None:
    app = application(shelf)
    manager = ACLManager(config(sqlite_uri=sqlite_uri, model="abac"), app=app)
    async with serve(app, manager) as visitor:
        ada = await visitor.newcomer("ada")
        await permitted(await visitor.admin(), ada)
        await shelf.fill(hers=ada.id)

        await ada.get("/expired/hers")

        assert shelf.statements == []


async def test_an_expired_object_is_no_hindrance_where_nothing_of_it_is_read(sqlite_uri: str, shelf: Shelf) -> None:
    app = application(shelf)
    manager = ACLManager(config(sqlite_uri=sqlite_uri, model="abac"), app=app)
    async with serve(app, manager) as visitor:
        admin = await visitor.admin()
        await shelf.fill(hers="quelqu'un")

        answer = await admin.get("/expired/hers")

    assert answer.status_code == 200
