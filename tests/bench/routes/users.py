"""fastapi-users : `current_user` par JWT, comptes dans SQLite ; il identifie, et ne décide de rien d'autre."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users_db_sqlalchemy import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from tests.bench.routes import Headers, Routes, applications, bearer

KEY = "une clé de mesure, longue et sans valeur aucune"


class Base(DeclarativeBase):
    """Les tables."""


class User(SQLAlchemyBaseUserTableUUID, Base):
    """Un compte."""


class UserManager(UUIDIDMixin, BaseUserManager[User, UUID]):
    """Les comptes, comme la documentation de fastapi-users les tient."""

    reset_password_token_secret = KEY
    verification_token_secret = KEY


def strategy() -> JWTStrategy[User, UUID]:
    """Rend ce qui signe et lit les jetons."""
    return JWTStrategy(secret=KEY, lifetime_seconds=3600)


def make(folder: Path) -> Routes:
    """Fait l'application, sa base et un compte."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'users.db'}")
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def session() -> AsyncIterator[AsyncSession]:
        async with sessions() as opened:
            yield opened

    async def manager(opened: Annotated[AsyncSession, Depends(session)]) -> AsyncIterator[UserManager]:
        yield UserManager(SQLAlchemyUserDatabase(opened, User))

    async def headers() -> Headers:
        async with sessions() as opened:
            account = schemas.BaseUserCreate(email="ada@example.com", password="trois petits chats gris")
            made = await UserManager(SQLAlchemyUserDatabase(opened, User)).create(account)
            return bearer(await strategy().write_token(made))

    backend = AuthenticationBackend("jwt", BearerTransport("login"), strategy)
    current_user = FastAPIUsers[User, UUID](manager, [backend]).current_user(active=True)
    return Routes(applications(free=None, guarded=current_user), _tables(engine), headers)


@asynccontextmanager
async def _tables(engine: Any) -> AsyncIterator[None]:
    """Fait les tables, puis ferme la base."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()
