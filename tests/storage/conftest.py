"""Ce que les essais du stockage ont en commun : chaque base, et des processus entiers sur elle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from fastapi_acl.runtime.composition import Composition, compose
from fastapi_acl.runtime.storage import Storage, create_storage
from fastapi_acl.shared.config import ACLConfig
from fastapi_acl.shared.policy import PolicyRule
from tests.conftest import DATABASES, settings_of
from tests.support import byhand
from tests.support.app import config
from tests.support.effort import shared_out
from tests.support.memory import MemoryDatabase, Server, memory_storage, write_line
from tests.support.rules import stored
from tests.support.waits import insisted

SERVERS = tuple(kind for kind in DATABASES if kind != "sqlite")
KINDS = ("memory", *DATABASES)

Case = TypeVar("Case")


@dataclass
class Base:
    """Une base, où plusieurs processus peuvent s'ouvrir.

    Attributes:
        kind: sa sorte.
        settings: réglages qui la désignent ; aucun en mémoire.
        server: l'état partagé, en mémoire.
    """

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    server: Server = field(default_factory=Server)
    _opened: list[Storage] = field(default_factory=list)
    _processes: list[Composition] = field(default_factory=list)

    def storage(self) -> Storage:
        """Ouvre un stockage de plus, que la fixture fermera."""
        if self.kind == "memory":
            opened = memory_storage(self.server)
        else:
            opened = create_storage(ACLConfig(_env_file=None, **self.settings))
        self._opened.append(opened)
        return opened

    async def process(self, **settings: Any) -> Composition:
        """Démarre un processus de plus, politique chargée."""
        chosen = config(create_default_admin=False, **self.settings, **settings)
        process = compose(chosen, storage=self.storage())
        self._processes.append(process)
        await process.database.migrate()
        await process.replica.refresh()
        return process

    async def close(self) -> None:
        for process in self._processes:
            process.hasher.close()
        for opened in self._opened:
            await opened.database.close()


def base_of(request: pytest.FixtureRequest, kind: str) -> Base:
    """Désigne une base vide."""
    return Base(kind, {} if kind == "memory" else settings_of(request, kind))


@pytest.fixture(params=KINDS)
def designated(request: pytest.FixtureRequest) -> Base:
    """Une base vide, de chacune des sortes."""
    return base_of(request, request.param)


@pytest.fixture
async def base(designated: Base) -> AsyncIterator[Base]:
    """Cette base, dont tout ce qu'on y ouvre se ferme."""
    yield designated
    await designated.close()


@pytest.fixture
async def storage(base: Base) -> Storage:
    """Le stockage de cette base, schéma fait."""
    opened = base.storage()
    await opened.database.migrate()
    return opened


@pytest.fixture
async def process(base: Base) -> Composition:
    """Un processus sur cette base."""
    return await base.process()


@pytest.fixture
async def twin(base: Base) -> Composition:
    """Un second processus sur la même base."""
    return await base.process()


async def write_row(storage: Storage, ptype: Any, values: Sequence[Any], digest: str = "x" * 64) -> int:
    """Écrit une ligne comme une main étrangère le ferait, et rend son numéro."""
    if isinstance(storage.database, MemoryDatabase):
        return write_line(storage.database.server, ptype, values, digest)
    return await byhand.write_row(storage, ptype, values, digest)


def share_of(kind: str, cases: Iterable[Case]) -> list[Case]:
    """Rend les cas qu'une base éprouve d'ordinaire : tous en mémoire et sur SQLite, une part sur chaque serveur.

    Ce qui tient à chaque base a ses essais à lui (`test_adapter`) ; ici, tout se décide au-dessus d'elle.
    """
    servers = ("postgresql", "mysql", "mongodb")
    return shared_out(cases, servers.index(kind), len(servers)) if kind in servers else list(cases)


def rule(*values: str, ptype: str = "p") -> PolicyRule:
    return PolicyRule(ptype, values)


def numbered(process: Composition) -> dict[PolicyRule, int]:
    """Rend les règles en mémoire et leurs numéros, dans l'ordre de ceux-ci."""
    rules = process.policy.rules
    return dict(sorted(zip(rules, process.policy.numbers(rules), strict=True), key=lambda one: one[1]))


async def agreed(*processes: Composition) -> dict[PolicyRule, int]:
    """Vérifie que ces processus, une fois à jour, ont en mémoire ce que la base garde, et le rend."""
    kept = await insisted(lambda: stored(processes[0].storage.adapter))
    for process in processes:
        await insisted(process.replica.refresh)
        assert list(numbered(process).items()) == list(kept.items())
    return kept
