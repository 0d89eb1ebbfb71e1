"""Ce que les attaques du stockage ont en commun."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastapi_acl import ACLManager
from tests.support.app import started


@asynccontextmanager
async def opened(settings: dict[str, Any]) -> AsyncIterator[ACLManager]:
    """Un processus qui a démarré."""
    async with started(**settings) as manager:
        yield manager


@pytest.fixture
async def manager(database_settings: dict[str, Any]) -> AsyncIterator[ACLManager]:
    async with opened(database_settings) as manager:
        yield manager


@pytest.fixture
async def other(manager: ACLManager, database_settings: dict[str, Any]) -> AsyncIterator[ACLManager]:  # noqa: ARG001 - démarré avant
    """Un second processus, sur la même base."""
    async with opened(database_settings) as other:
        yield other
