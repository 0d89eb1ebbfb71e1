"""Mots de passe : passlib pour le format et la migration, bcrypt pour le calcul, hors de la boucle d'événements."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import bcrypt
from passlib.context import CryptContext
from passlib.utils import handlers

from fastapi_acl.auth.application.interface.services import IPasswordHasher
from fastapi_acl.shared.exceptions import HashingSaturatedError
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = get_logger("auth")

Result = TypeVar("Result")

COSTLY: Final = (
    "costly_hash: un compte a un haché de coût %d, plus que ACL_BCRYPT_ROUNDS ; toute connexion coûte autant, tant que "
    "ces comptes ne se sont pas reconnectés, puis ce processus redémarré"
)

MAX_WORKERS: Final = 4
MAX_SECRET_LENGTH: Final = 4096
"""Au-delà, passlib lève une erreur ; aucun mot de passe admis n'est si long."""

MAX_ROUNDS: Final = 16
"""Coût au-delà duquel un haché venu d'ailleurs ne se calcule pas : près de quatre secondes d'un cœur, déjà."""

QUEUE_PER_WORKER: Final = 32
"""Hachages en attente par fil : au-delà, mieux vaut refuser que faire attendre des secondes."""

BCRYPT_ALPHABET: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class BcryptSHA256(handlers.HasRounds, handlers.HasSalt, handlers.GenericHandler):
    """Le schéma `bcrypt_sha256` version 2 de passlib, qui appelle bcrypt directement.

    Celui de passlib échoue avec bcrypt 5, et bcrypt seul coupe à 72 octets : ici bcrypt ne reçoit que le HMAC-SHA-256
    du mot de passe, de longueur fixe, sous le sel.

    Source: https://passlib.readthedocs.io/en/stable/lib/passlib.hash.bcrypt_sha256.html
    """

    name = "bcrypt_sha256"
    setting_kwds = ("salt", "rounds")
    ident = "$bcrypt-sha256$v=2,t=2b,r="
    min_salt_size = max_salt_size = 22
    salt_chars = BCRYPT_ALPHABET
    final_salt_chars = ".Oeu"
    checksum_size = 31
    checksum_chars = BCRYPT_ALPHABET
    min_rounds = 4
    max_rounds = 31
    default_rounds = 12
    rounds_cost = "log2"

    @classmethod
    def from_string(cls, hash: Any) -> Any:  # noqa: A002, ANN401 - signature de passlib
        """Lit un haché."""
        text = hash.decode("ascii") if isinstance(hash, bytes) else hash
        parts = text.removeprefix(cls.ident).split("$")
        if not text.startswith(cls.ident) or len(parts) != 3 or not parts[0].isdigit():  # noqa: PLR2004 - coût, sel, empreinte
            raise handlers.exc.InvalidHashError(cls)
        return cls(rounds=int(parts[0]), salt=parts[1], checksum=parts[2])

    def to_string(self) -> str:
        """Écrit le haché."""
        return f"{self.ident}{self.rounds}${self.salt}${self.checksum}"

    @classmethod
    def _generate_salt(cls) -> str:
        """Tire un sel ; bcrypt sait lequel de ses bits est significatif."""
        return bcrypt.gensalt(cls.min_rounds).decode().rsplit("$", 1)[1]

    def _calc_checksum(self, secret: Any) -> str:  # noqa: ANN401 - signature de passlib
        """Calcule l'empreinte d'un mot de passe."""
        encoded = secret if isinstance(secret, bytes) else secret.encode("utf-8", "surrogatepass")
        key = base64.b64encode(hmac.digest(self.salt.encode(), encoded, hashlib.sha256))
        return bcrypt.hashpw(key, f"$2b${self.rounds:02d}${self.salt}".encode()).decode()[-self.checksum_size :]


@final
class BcryptPasswordHasher(IPasswordHasher):
    """Hache dans quelques fils à lui : bcrypt relâche l'interpréteur, mais occupe un cœur.

    Comparer coûte toujours le même nombre de tours, quel que soit le haché et qu'il y en ait un ou non : celui du haché
    le plus cher que l'on connaisse. Un compte ne se devine donc pas à son coût, plus bas ou plus haut que les autres.
    """

    def __init__(self, *, rounds: int = 12, workers: int | None = None, queue_limit: int | None = None) -> None:
        """Prépare le contexte ; les fils naissent au premier hachage.

        Args:
            rounds: coût de bcrypt, logarithme du nombre de tours.
            workers: nombre de fils ; celui des cœurs par défaut, 4 au plus.
            queue_limit: hachages en cours et en attente au plus.
        """
        self._workers = workers or min(MAX_WORKERS, os.cpu_count() or 1)
        self._places = threading.BoundedSemaphore(queue_limit or self._workers * (1 + QUEUE_PER_WORKER))
        self._context = CryptContext([BcryptSHA256], bcrypt_sha256__rounds=rounds)
        self._rounds = rounds
        self._executor: ThreadPoolExecutor | None = None

    async def hash_password(self, password: str) -> str:
        """Hache un mot de passe."""
        return await self._run(lambda: str(self._context.hash(password)))

    async def verify_password(self, password: str, hashed: str | None) -> bool:
        """Compare un mot de passe à un haché ; sans haché, à un haché que rien n'égale, au même coût."""
        self.expect(_rounds_of(hashed) or self._rounds)
        return await self._run(lambda: self._verify(password, hashed))

    def needs_rehash(self, hashed: str) -> bool:
        """Dit si le haché n'est plus au coût voulu."""
        return bool(self._context.needs_update(hashed))

    @property
    def costlier(self) -> Mapping[str, int]:
        """Débuts des hachés plus chers que ceux que l'on attend, et leur coût, du plus cher au moins cher."""
        return {f"{BcryptSHA256.ident}{rounds}$": rounds for rounds in range(MAX_ROUNDS, self._rounds, -1)}

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

    def _verify(self, password: str, hashed: str | None) -> bool:
        """Compare, dans un fil ; un haché illisible ne vaut aucun mot de passe, mais coûte autant."""
        candidate, total = password[:MAX_SECRET_LENGTH], self._rounds
        rounds = _rounds_of(hashed)
        if rounds is None:
            self._context.verify(candidate, _unmatched_hash(total))
            return False
        matches = bool(self._context.verify(candidate, hashed))
        for step in range(rounds, total):  # 2^r + 2^r + 2^(r+1) + … + 2^(t-1) = 2^t tours en tout
            self._context.verify(candidate, _unmatched_hash(step))
        return matches and candidate == password

    async def _run(self, work: Callable[[], Result]) -> Result:
        """Exécute un calcul dans un fil.

        Raises:
            HashingSaturatedError: la file est pleine.
        """
        if not self._places.acquire(blocking=False):
            raise HashingSaturatedError
        future = self._pool().submit(work)
        # La place se rend quand le calcul finit, et non quand l'appelant s'en va : un fil occupé le reste.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def _pool(self) -> ThreadPoolExecutor:
        """Rend les fils, faits au premier usage."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._workers, thread_name_prefix="fastapi_acl-bcrypt")
        return self._executor


def _rounds_of(hashed: str | None) -> int | None:
    """Rend le coût d'un haché ; None s'il n'y en a pas, s'il n'est pas des nôtres, ou trop cher pour être calculé."""
    if hashed is None:
        return None
    try:
        rounds = int(BcryptSHA256.from_string(hashed).rounds)
    except ValueError:
        return None
    return rounds if rounds <= MAX_ROUNDS else None


def _unmatched_hash(rounds: int) -> str:
    """Rend un haché que rien n'égale, de même coût que les vrais, sans avoir à le calculer."""
    checksum = "".join(secrets.choice(BCRYPT_ALPHABET) for _ in range(BcryptSHA256.checksum_size))
    return f"{BcryptSHA256.ident}{rounds}${bcrypt.gensalt(4).decode()[-22:]}${checksum}"
