"""Mots de passe : hachés et comparés dans des fils à part, hors de la boucle d'événements."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar, final

from fastapi_acl.auth.application.interface.services import IPasswordHasher
from fastapi_acl.shared.exceptions import HashingSaturatedError
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi_acl.auth.infrastructure.services.password_scheme import PasswordScheme

logger = get_logger("auth")

Result = TypeVar("Result")

COSTLY: Final = (
    "costly_hash: un compte a un haché de coût %d, plus que ACL_BCRYPT_ROUNDS ; toute connexion coûte autant, tant que "
    "ces comptes ne se sont pas reconnectés, puis ce processus redémarré"
)

IDENT: Final = "$bcrypt-sha256$v=2,t=2b,r="
"""Début de nos hachés, avant leur coût."""

MAX_WORKERS: Final = 4
MAX_ROUNDS: Final = 16
"""Coût au-delà duquel un haché venu d'ailleurs ne se calcule pas : près de quatre secondes d'un cœur, déjà."""

QUEUE_PER_WORKER: Final = 32
"""Hachages en attente par fil : au-delà, mieux vaut refuser que faire attendre des secondes."""


@final
class BcryptPasswordHasher(IPasswordHasher):
    """Hache dans quelques fils à lui : bcrypt relâche l'interpréteur, mais occupe un cœur.

    Comparer coûte toujours le même nombre de tours, quel que soit le haché et qu'il y en ait un ou non : celui du haché
    le plus cher que l'on connaisse. Un compte ne se devine donc pas à son coût, plus bas ou plus haut que les autres.
    """

    def __init__(self, *, rounds: int = 12, workers: int | None = None, queue_limit: int | None = None) -> None:
        """Retient les réglages ; les fils naissent, et passlib se charge, au premier hachage.

        Args:
            rounds: coût de bcrypt, logarithme du nombre de tours.
            workers: nombre de fils ; celui des cœurs par défaut, 4 au plus.
            queue_limit: hachages en cours et en attente au plus.
        """
        self._workers = workers or min(MAX_WORKERS, os.cpu_count() or 1)
        self._places = threading.BoundedSemaphore(queue_limit or self._workers * (1 + QUEUE_PER_WORKER))
        self._wanted = self._rounds = rounds
        self._scheme: PasswordScheme | None = None
        self._executor: ThreadPoolExecutor | None = None

    async def hash_password(self, password: str) -> str:
        """Hache un mot de passe."""
        scheme = await self._prepare()
        return await self._run(lambda: scheme.hash(password))

    async def verify_password(self, password: str, hashed: str | None) -> bool:
        """Compare un mot de passe à un haché ; sans haché, à un haché que rien n'égale, au même coût."""
        scheme = await self._prepare()
        self.expect(scheme.read_rounds(hashed) or self._rounds)
        return await self._run(lambda: scheme.verify(password, hashed, self._rounds))

    def needs_rehash(self, hashed: str) -> bool:
        """Dit si le haché n'est plus au coût voulu."""
        return (self._scheme or self._load()).needs_rehash(hashed)

    @property
    def costlier(self) -> Mapping[str, int]:
        """Débuts des hachés plus chers que ceux que l'on attend, et leur coût, du plus cher au moins cher."""
        return {f"{IDENT}{rounds}$": rounds for rounds in range(MAX_ROUNDS, self._rounds, -1)}

    def expect(self, rounds: int) -> None:
        """Porte le coût de toute comparaison à celui-ci, s'il est plus élevé, et le dit."""
        if rounds > self._rounds:
            self._rounds = rounds
            logger.warning(COSTLY, rounds)

    def close(self) -> None:
        """Arrête les fils ; le prochain hachage en ferait d'autres."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)

    async def _prepare(self) -> PasswordScheme:
        """Renvoie de quoi hacher, chargé une fois, dans un fil : la boucle d'événements n'attend pas."""
        return await self._run(self._load) if self._scheme is None else self._scheme

    def _load(self) -> PasswordScheme:
        # Un autre Authenticator n'a pas de mots de passe : ni passlib ni bcrypt ne se chargent sans eux.
        from fastapi_acl.auth.infrastructure.services.password_scheme import PasswordScheme  # noqa: PLC0415

        self._scheme = scheme = PasswordScheme(self._wanted)
        return scheme

    async def _run(self, work: Callable[[], Result]) -> Result:
        """Exécute un calcul dans un fil.

        Raises:
            HashingSaturatedError: la file est pleine.
        """
        if not self._places.acquire(blocking=False):
            raise HashingSaturatedError
        future = self._open_pool().submit(work)
        # La place se rend quand le calcul finit, et non quand l'appelant s'en va : un fil occupé le reste.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def _open_pool(self) -> ThreadPoolExecutor:
        """Renvoie les fils, faits au premier usage."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._workers, thread_name_prefix="fastapi_acl-bcrypt")
        return self._executor
