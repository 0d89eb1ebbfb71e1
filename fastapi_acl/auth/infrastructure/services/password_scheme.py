"""La forme des hachés : passlib pour le format et la migration, bcrypt pour le calcul ; tout y bloque."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Any, Final

import bcrypt
from passlib.context import CryptContext
from passlib.utils import handlers

from fastapi_acl.auth.infrastructure.services.password_hasher import IDENT, MAX_ROUNDS

MAX_SECRET_LENGTH: Final = 4096
"""Au-delà, passlib lève une erreur ; aucun mot de passe admis n'est si long."""

BCRYPT_ALPHABET: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class BcryptSHA256(handlers.HasRounds, handlers.HasSalt, handlers.GenericHandler):
    """Le schéma `bcrypt_sha256` version 2 de passlib, qui appelle bcrypt directement.

    Celui de passlib échoue avec bcrypt 5, et bcrypt seul coupe à 72 octets : ici bcrypt ne reçoit que le HMAC-SHA-256
    du mot de passe, de longueur fixe, sous le sel.

    Source: https://passlib.readthedocs.io/en/stable/lib/passlib.hash.bcrypt_sha256.html
    """

    name = "bcrypt_sha256"
    setting_kwds = ("salt", "rounds")
    ident = IDENT
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


class PasswordScheme:
    """Hache et compare, sur place : à n'appeler que d'un fil."""

    def __init__(self, rounds: int) -> None:
        """Prépare le contexte de passlib.

        Args:
            rounds: coût de bcrypt, logarithme du nombre de tours.
        """
        self._context = CryptContext([BcryptSHA256], bcrypt_sha256__rounds=rounds)

    def hash(self, password: str) -> str:
        """Hache un mot de passe."""
        return str(self._context.hash(password))

    def verify(self, password: str, hashed: str | None, total: int) -> bool:
        """Compare en 2^total tours ; un haché illisible ne vaut aucun mot de passe, mais coûte autant."""
        candidate = password[:MAX_SECRET_LENGTH]
        rounds = self.read_rounds(hashed)
        if rounds is None:
            self._context.verify(candidate, _make_unmatched(total))
            return False
        matches = bool(self._context.verify(candidate, hashed))
        for step in range(rounds, total):  # 2^r + 2^r + 2^(r+1) + … + 2^(t-1) = 2^t tours en tout
            self._context.verify(candidate, _make_unmatched(step))
        return matches and candidate == password

    def needs_rehash(self, hashed: str) -> bool:
        """Dit si le haché n'est plus au coût voulu."""
        return bool(self._context.needs_update(hashed))

    @staticmethod
    def read_rounds(hashed: str | None) -> int | None:
        """Lit le coût d'un haché ; None s'il n'y en a pas, s'il n'est pas des nôtres, ou trop cher à calculer."""
        if hashed is None:
            return None
        try:
            rounds = int(BcryptSHA256.from_string(hashed).rounds)
        except ValueError:
            return None
        return rounds if rounds <= MAX_ROUNDS else None


def _make_unmatched(rounds: int) -> str:
    """Fait un haché que rien n'égale, de même coût que les vrais, sans avoir à le calculer."""
    checksum = "".join(secrets.choice(BCRYPT_ALPHABET) for _ in range(BcryptSHA256.checksum_size))
    return f"{IDENT}{rounds}${bcrypt.gensalt(4).decode()[-22:]}${checksum}"
