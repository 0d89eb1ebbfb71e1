"""Port du cache : des clés sans collision, des valeurs JSON scellées, et rien qui décide d'un accès.

Une décision n'est jamais lue d'ici : elle se prend sur la politique que le processus a en mémoire.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

JsonValue: TypeAlias = "bool | int | float | str | list[Any] | dict[str, Any]"
"""Ce qui se garde : du JSON, sauf null, qui est l'absence."""

CacheStatus: TypeAlias = Literal["memory", "redis", "redis_fallback"]
"""Ce qui sert de cache, pour la santé."""

MAX_KEY_BYTES: Final = 200
"""Au-delà, une clé n'est plus que son condensé."""

MAX_VALUE_BYTES: Final = 65_536
"""Au-delà, en octets et sceau compris, une valeur n'est pas gardée."""

DEFAULT_TTL_SECONDS: Final = 300.0

VERSION: Final = b"acl2"
SEAL_BYTES: Final = 16
HEADER_BYTES: Final = len(VERSION) + 2 * SEAL_BYTES
KEY_BYTES: Final = 32

PURPOSE: Final = b"fastapi_acl cache 1"
"""Ce à quoi sert la clé dérivée ; aucune autre n'en dérive de même."""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Clé d'une entrée : un usage, puis ce qui l'y distingue.

    Ce dont la valeur dépend est dans la clé, révision de la politique comprise ; un secret n'y entre que condensé.
    """

    namespace: str
    parts: tuple[str, ...] = ()

    @classmethod
    def of(cls, namespace: str, *parts: str) -> CacheKey:
        """Fait une clé de ses parties."""
        return cls(namespace, parts)

    def encode_parts(self) -> bytes:
        """Renvoie des octets que nulle autre clé ne rend : chaque partie est précédée de sa longueur.

        Une clé entière commence par un chiffre et un condensé par une lettre : les deux formes ne se croisent pas.
        """
        pieces = [piece.encode("utf-8", "surrogatepass") for piece in (self.namespace, *self.parts)]
        whole = b"".join(b"%d:%b" % (len(piece), piece) for piece in pieces)
        return whole if len(whole) <= MAX_KEY_BYTES else b"sha256:" + hashlib.sha256(whole).hexdigest().encode()


class CacheCounts(NamedTuple):
    """Lectures de valeurs depuis le démarrage du processus : celles qui ont trouvé, et les autres."""

    hits: int = 0
    misses: int = 0

    def after(self, value: JsonValue | None) -> CacheCounts:
        """Renvoie le compte d'une lecture de plus."""
        is_hit = value is not None
        return CacheCounts(self.hits + is_hit, self.misses + (not is_hit))


class CacheBackend(Protocol):
    """Ce que la bibliothèque demande à un cache.

    Celui que rend `CacheFactory` n'échoue jamais parce qu'un serveur manque.
    """

    counts: CacheCounts

    @property
    def status(self) -> CacheStatus:
        """Ce qui sert à cet instant."""

    async def get(self, key: CacheKey) -> JsonValue | None:
        """Renvoie une valeur ; None si elle est absente, périmée ou illisible."""

    async def set(self, key: CacheKey, value: JsonValue, ttl: float | None = None) -> None:
        """Garde une valeur ; trop grande, elle ne l'est pas, et l'ancienne s'en va.

        Args:
            key: sa clé.
            value: du JSON.
            ttl: secondes, plus que zéro ; la durée de vie réglée, par défaut.

        Raises:
            TypeError: la valeur ne s'écrit pas en JSON ; ValueError pour un nombre qui n'est pas fini.
        """

    async def delete(self, key: CacheKey) -> None:
        """Retire une valeur ou un compteur."""

    async def increment(self, key: CacheKey, amount: int, ttl: float) -> int:
        """Ajoute à un compteur et rend son total.

        Args:
            key: sa clé ; ce qui n'était pas un compteur le devient.
            amount: ce qui s'ajoute.
            ttl: secondes, comptées de la création du compteur : y ajouter ne la prolonge pas.
        """

    async def take(self, key: CacheKey) -> JsonValue | None:
        """Renvoie une valeur et la retire du même geste : de deux preneurs, un seul l'obtient."""

    async def revive(self) -> None:
        """Essaie de revenir au serveur, s'il manquait : sans trafic, rien d'autre n'y reviendrait."""

    def abandon(self) -> None:
        """Oublie ce qui a commencé dans une boucle d'événements qui n'existe plus."""

    async def close(self) -> None:
        """Ferme les connexions ; un usage de plus les rouvrirait."""


class ValueSealer:
    """Écrit et relit des valeurs dans leur enveloppe : version, sceau, JSON.

    Le sceau (BLAKE2b à clé, RFC 7693) porte aussi sur le nom : une valeur abîmée, déplacée, ou écrite par qui n'a pas
    la clé ne se lit pas.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        """Dérive une clé de chaque secret.

        Args:
            secrets: le secret en cours, puis les anciens, dont le sceau vaut encore ; sans aucun, la clé est à ce seul
                processus, et rien ne se partage.
        """
        derived = [hmac.digest(secret.encode(), PURPOSE, "sha256") for secret in secrets]
        self._keys = derived or [token_bytes(KEY_BYTES)]

    def seal(self, name: bytes, value: JsonValue) -> bytes | None:
        """Écrit une valeur dans son enveloppe.

        Args:
            name: clé entière.
            value: du JSON.

        Returns:
            L'enveloppe, ou None si elle est trop grande.

        Raises:
            TypeError: la valeur ne s'écrit pas en JSON ; ValueError pour un nombre qui n'est pas fini.
        """
        body = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
        sealed = VERSION + _seal(self._keys[0], name, body) + body
        return sealed if len(sealed) <= MAX_VALUE_BYTES else None

    def unseal(self, name: bytes, sealed: object) -> JsonValue | None:
        """Lit une enveloppe ; None pour tout ce qui n'en est pas une, entière, écrite par nous sous ce nom."""
        if not isinstance(sealed, bytes) or len(sealed) > MAX_VALUE_BYTES or not sealed.startswith(VERSION):
            return None
        given, body = sealed[len(VERSION) : HEADER_BYTES], sealed[HEADER_BYTES:]
        found = [hmac.compare_digest(given, _seal(key, name, body)) for key in self._keys]
        return _parse(body) if any(found) else None  # toutes les clés sont essayées : le temps ne dit pas laquelle


def _seal(key: bytes, name: bytes, body: bytes) -> bytes:
    """Renvoie le sceau d'une valeur et de son nom, dont la longueur précède."""
    content = b"%d:%b%b" % (len(name), name, body)
    return hashlib.blake2b(content, key=key, digest_size=SEAL_BYTES).hexdigest().encode()


def _parse(body: bytes) -> JsonValue | None:
    """Lit du JSON ; une version d'avant, ou une clé partagée avec un autre programme, a pu y mettre autre chose."""
    try:
        value: JsonValue | None = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value
