"""Jetons JWT : python-jose pour la signature, tout le reste vérifié ici."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final
from uuid import UUID

from fastapi_acl.auth.application.interface.services import ITokenService
from fastapi_acl.auth.domain.dtos.auth_dtos import TokenClaims
from fastapi_acl.shared.exceptions import ConfigurationError, InvalidTokenError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from types import ModuleType

Claims = TypeVar("Claims", bound=TokenClaims)

ACCESS_TYPE: Final = "at+jwt"
"""Type d'un jeton d'accès (RFC 9068, 2.1)."""

REFRESH_TYPE: Final = "rt+jwt"

MAX_TOKEN_LENGTH: Final = 8192
MAX_HEADER_LENGTH: Final = 512
ALLOWED_HEADERS: Final = frozenset({"alg", "typ", "kid"})
"""En-têtes de nos jetons ; tout autre (`crit`, `jku`, `jwk`, `x5u`…) fait refuser (RFC 8725, 3.10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """Réglages des jetons ; durées en secondes."""

    algorithm: str
    secret: str = field(repr=False)
    previous_secrets: Sequence[str] = field(default=(), repr=False)
    issuer: str
    audience: str
    access_lifetime: int
    refresh_lifetime: int
    leeway: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessClaims(TokenClaims):
    """Ce qu'un jeton d'accès vérifié affirme, et le temps où il a cours, tolérance comprise.

    Attributes:
        not_before: premier instant, en secondes depuis l'époque.
        not_after: premier instant où il n'a plus cours.
    """

    not_before: float
    not_after: int


@final
class JWTTokenService(ITokenService):
    """Signe et vérifie les jetons, sous un seul algorithme et des clés reconnues à leur `kid`.

    python-jose accepte un jeton sans `exp` ni `aud`, des en-têtes inconnus, et laisse échapper plusieurs sortes
    d'erreurs : il ne sert ici qu'à la signature.

    Source: RFC 7515, RFC 7519, RFC 8725
    """

    def __init__(self, settings: TokenSettings) -> None:
        """Range les clés par identifiant.

        Args:
            settings: réglages des jetons.

        Raises:
            ConfigurationError: la clé est vide.
        """
        if not settings.secret:
            message = "aucune clé de signature : réglez ACL_JWT_SECRET_KEY."
            raise ConfigurationError(message)
        self._settings = settings
        self._kid = _make_key_id(settings.secret)
        secrets = (*settings.previous_secrets, settings.secret)
        self._keys: Mapping[str, str] = {_make_key_id(secret): secret for secret in secrets}
        self._signer: ModuleType | None = None

    def load(self) -> None:
        """Charge python-jose avant de servir : au premier jeton, la boucle d'événements attendrait.

        Raises:
            ConfigurationError: python-jose est installé sans `cryptography`.
        """
        self._signer = _load_signer()

    def __repr__(self) -> str:
        """Ne montre aucune clé."""
        return f"{type(self).__name__}(algorithm={self._settings.algorithm!r}, kid={self._kid!r})"

    @property
    def access_lifetime_seconds(self) -> int:
        """Durée de vie d'un jeton d'accès, en secondes."""
        return self._settings.access_lifetime

    def create_access_token(self, *, user_id: UUID, session_id: UUID, session_version: int) -> str:
        """Signe un jeton d'accès ; son identifiant ne sert qu'à le nommer dans un journal."""
        now = int(time.time())
        claims = TokenClaims(
            user_id=user_id,
            session_id=session_id,
            session_version=session_version,
            token_id=secrets.token_hex(16),
        )
        return self._sign(ACCESS_TYPE, claims, now, now + self._settings.access_lifetime)

    def create_refresh_token(self, claims: TokenClaims, *, not_after: datetime) -> str:
        """Signe un refresh token."""
        now = int(time.time())
        expires = min(now + self._settings.refresh_lifetime, int(not_after.timestamp()))
        return self._sign(REFRESH_TYPE, claims, now, expires)

    def decode_token(self, token: str) -> AccessClaims:
        """Vérifie un jeton d'accès."""
        return self._read(token, ACCESS_TYPE, self._read_access_claims)

    def decode_refresh_token(self, token: str) -> TokenClaims:
        """Vérifie un refresh token."""
        return self._read(token, REFRESH_TYPE, lambda payload: TokenClaims(**_read_identifiers(payload)))

    @property
    def _signatures(self) -> Any:  # noqa: ANN401 - le module de python-jose
        """Ce qui signe et vérifie, chargé au plus tard au premier jeton."""
        if self._signer is None:
            self.load()
        return self._signer

    def _sign(self, kind: str, claims: TokenClaims, issued_at: int, expires_at: int) -> str:
        """Signe un jeton."""
        payload = {
            "iss": self._settings.issuer,
            "aud": self._settings.audience,
            "sub": str(claims.user_id),
            "sid": str(claims.session_id),
            "sv": claims.session_version,
            "jti": claims.token_id,
            "iat": issued_at,
            "exp": expires_at,
        }
        headers = {"typ": kind, "kid": self._kid}
        return str(
            self._signatures.sign(payload, self._settings.secret, headers=headers, algorithm=self._settings.algorithm)
        )

    def _read(self, token: str, kind: str, make: Callable[[Mapping[str, Any]], Claims]) -> Claims:
        """Vérifie un jeton ; quoi qu'il arrive, un jeton qui n'est pas bon est un jeton refusé."""
        try:
            return make(self._verify(token, kind))
        except Exception as error:
            raise InvalidTokenError from error

    def _verify(self, token: str, kind: str) -> Mapping[str, Any]:
        """Vérifie la forme, l'en-tête, la signature, puis chaque revendication commune."""
        _require(len(token) <= MAX_TOKEN_LENGTH and token.isascii() and token.count(".") == 2)  # noqa: PLR2004 - RFC 7515, 7.1
        _require(_is_canonical(token.rpartition(".")[2]))
        key = self._keys[self._check_header(token, kind)]
        payload = json.loads(self._signatures.verify(token, key, [self._settings.algorithm]))
        _require(isinstance(payload, dict))
        self._check_claims(payload)
        return cast("Mapping[str, Any]", payload)

    def _read_access_claims(self, payload: Mapping[str, Any]) -> AccessClaims:
        """Lit les revendications d'un jeton d'accès, et le temps où il a cours.

        Une durée de vie raccourcie vaut aussitôt : les révocations se gardent selon elle.
        """
        leeway, end = self._settings.leeway, min(payload["exp"], payload["iat"] + self._settings.access_lifetime)
        window = {"not_before": _read_start(payload) - leeway, "not_after": end + leeway}
        return AccessClaims(**_read_identifiers(payload), **window)

    def _check_header(self, token: str, kind: str) -> str:
        """Renvoie l'identifiant de la clé ; rien de l'en-tête ne choisit l'algorithme."""
        encoded = token.partition(".")[0]
        _require(len(encoded) <= MAX_HEADER_LENGTH)
        header = json.loads(_decode_segment(encoded))
        _require(isinstance(header, dict) and set(header) == ALLOWED_HEADERS)
        _require(header["alg"] == self._settings.algorithm and header["typ"] == kind)
        return _read_text(header["kid"])

    def _check_claims(self, payload: Mapping[str, Any]) -> None:
        """Exige l'émetteur, le destinataire et des instants plausibles (RFC 8725, 3.8 et 3.9).

        Nous n'écrivons pas `nbf`, mais un jeton d'un autre service sous la même clé peut en porter un : il vaut.
        """
        now, leeway = time.time(), self._settings.leeway
        _require(payload["iss"] == self._settings.issuer and payload["aud"] == self._settings.audience)
        _require(_read_start(payload) <= now + leeway)
        _require(_read_integer(payload["exp"]) > now - leeway)


def _load_signer() -> ModuleType:
    """Charge python-jose.

    Raises:
        ConfigurationError: il est installé sans `cryptography`.
    """
    from jose import jws  # noqa: PLC0415 - un autre Authenticator ne signe ni ne vérifie rien ici
    from jose.backends import HMACKey  # noqa: PLC0415 - idem

    if "cryptography" not in HMACKey.__module__:
        message = "python-jose est incomplet : « pip install 'python-jose[cryptography]>=3.5' »."
        raise ConfigurationError(message)
    return jws


def _make_key_id(secret: str) -> str:
    """Renvoie l'identifiant public d'une clé, qui n'en révèle rien."""
    return hashlib.sha256(b"fastapi-acl key id\x00" + secret.encode()).hexdigest()[:16]


def _is_canonical(segment: str) -> bool:
    """Dit si une signature est écrite de la seule façon que nous l'écrivons.

    Le décodeur de Python saute les caractères étrangers et les derniers bits : un jeton aurait plusieurs écritures.
    """
    return base64.urlsafe_b64encode(_decode_segment(segment)).rstrip(b"=").decode() == segment


def _decode_segment(segment: str) -> bytes:
    """Décode un segment de jeton, écrit sans remplissage (RFC 7515, 2)."""
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _read_identifiers(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Lit qui, quelle session et quel jeton."""
    return {
        "user_id": _read_uuid(payload["sub"]),
        "session_id": _read_uuid(payload["sid"]),
        "session_version": _read_integer(payload["sv"]),
        "token_id": _read_text(payload["jti"]),
    }


def _require(condition: object) -> None:
    """Refuse le jeton."""
    if not condition:
        raise ValueError


def _read_start(payload: Mapping[str, Any]) -> float:
    """Renvoie l'instant où le jeton commence d'avoir cours : celui où il est signé, ou `nbf` (RFC 7519, 4.1.5)."""
    issued_at = _read_integer(payload["iat"])
    return max(issued_at, _read_instant(payload["nbf"])) if "nbf" in payload else issued_at


def _read_instant(value: object) -> float:
    """Renvoie un instant, que la RFC 7519 (2) admet à virgule ; ni booléen, ni infini, ni « pas un nombre »."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError
    return value


def _read_integer(value: object) -> int:
    """Renvoie un entier ; ni booléen, ni flottant, ni infini."""
    if type(value) is not int:
        raise TypeError
    return value


def _read_text(value: object) -> str:
    """Renvoie un texte non vide."""
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _read_uuid(value: object) -> UUID:
    """Renvoie un UUID sous sa forme canonique, la seule que nous signions."""
    found = UUID(_read_text(value))
    _require(str(found) == value)
    return found
