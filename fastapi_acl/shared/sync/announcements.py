"""Ce que les processus se disent : des entrées du journal, sous un sceau que seul un voisin sait faire.

Qui peut écrire dans Redis ou dans PostgreSQL ne peut donc pas, par là, accorder une permission : sans la clé, un
message fait au plus regarder la base.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastapi_acl.shared.sync.changes import Change
from fastapi_acl.shared.sync.replica import UNKNOWN_ENTRY, Position

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PURPOSE: Final = b"fastapi_acl watcher 2 "
"""Ce à quoi sert la clé dérivée ; aucune autre n'en dérive de même."""

SEAL_BYTES: Final = 64
"""Longueur du sceau : SHA-256, en hexadécimal."""

OVERHEAD_BYTES: Final = SEAL_BYTES + 2
"""Ce qu'un message ajoute aux annonces : le sceau, et les crochets d'une liste."""


class Announcement(NamedTuple):
    """Une entrée du journal, et la position après laquelle elle vient."""

    before: Position
    change: Change


class Envelope:
    """Ferme et ouvre des messages scellés (HMAC-SHA256, RFC 2104)."""

    def __init__(self, secrets: Sequence[str], scope: str = "") -> None:
        """Dérive une clé de chaque secret.

        Args:
            secrets: le secret en cours, puis les anciens, dont le sceau vaut encore.
            scope: cadre hors duquel un sceau ne vaut rien ; voir `Replica.scope`.
        """
        self._keys = [hmac.digest(secret.encode(), PURPOSE + scope.encode(), "sha256") for secret in secrets]

    def close(self, text: str) -> bytes:
        """Scelle un texte."""
        body = text.encode()
        return _seal(self._keys[0], body) + body

    def open(self, message: bytes) -> bytes | None:
        """Renvoie le texte d'un message ; None s'il n'est pas authentique."""
        seal, body = message[:SEAL_BYTES], message[SEAL_BYTES:]
        found = [hmac.compare_digest(seal, _seal(key, body)) for key in self._keys]
        return body if any(found) else None  # toutes les clés sont essayées : le temps ne dit pas laquelle


class Sealer:
    """Met des annonces en messages, et les en ressort."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Retient de quoi sceller.

        Args:
            secrets: le secret en cours, puis les anciens, dont le sceau vaut encore.
        """
        self._secrets = secrets
        self._opened = ("", Envelope(secrets))

    def seal(self, announcements: Sequence[Announcement], max_bytes: int, scope: str) -> Iterator[bytes]:
        """Renvoie les messages qui portent ces annonces, aussi peu qu'il se peut.

        Une annonce trop longue part sans son contenu : qui la reçoit voit qu'il lui manque une entrée.

        Args:
            announcements: annonces, dans l'ordre.
            max_bytes: taille du plus grand message.
            scope: cadre où ils se croiront.
        """
        envelope = self._envelope(scope)
        texts: list[str] = []
        for announcement in announcements:
            text = _text(announcement, max_bytes - OVERHEAD_BYTES)
            if texts and sum(map(len, texts)) + len(texts) + len(text) > max_bytes - OVERHEAD_BYTES:
                yield _write_message(envelope, texts)
                texts = []
            texts.append(text)
        if texts:
            yield _write_message(envelope, texts)

    def unseal(self, message: bytes, scope: str) -> list[Announcement] | None:
        """Renvoie les annonces d'un message ; None s'il n'est pas authentique dans ce cadre, ou ne se lit pas."""
        body = self._envelope(scope).open(message)
        try:
            return None if body is None else [_announcement(one) for one in json.loads(body)]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def _envelope(self, scope: str) -> Envelope:
        """Renvoie l'enveloppe d'un cadre ; la dernière est gardée."""
        if self._opened[0] != scope:
            self._opened = (scope, Envelope(self._secrets, scope))
        return self._opened[1]


def _write_message(envelope: Envelope, texts: Sequence[str]) -> bytes:
    """Fait un message."""
    return envelope.close(f"[{','.join(texts)}]")


def _seal(key: bytes, body: bytes) -> bytes:
    """Renvoie le sceau d'un contenu."""
    return hmac.new(key, body, hashlib.sha256).hexdigest().encode()


def _text(announcement: Announcement, max_bytes: int) -> str:
    """Écrit une annonce en ASCII."""
    text = _json(announcement)
    if len(text) <= max_bytes:
        return text
    return _json(Announcement(announcement.before._replace(change_id=UNKNOWN_ENTRY), _empty(announcement.change)))


def _empty(change: Change) -> Change:
    """Renvoie une entrée sans son contenu, que la position ne laissera pas appliquer."""
    return Change(
        revision=change.revision, at=change.at, actor="", kind=change.kind, payload={}, change_id=change.change_id
    )


def _json(announcement: Announcement) -> str:
    """Écrit une annonce."""
    change = announcement.change
    fields = {
        "before": list(announcement.before),
        "revision": change.revision,
        "at": change.at.isoformat(),
        "actor": change.actor,
        "kind": change.kind,
        "payload": change.payload,
        "live_until": change.live_until.isoformat() if change.live_until is not None else None,
        "change_id": change.change_id,
    }
    return json.dumps(fields, separators=(",", ":"))


def _announcement(fields: dict[str, Any]) -> Announcement:
    """Relit une annonce."""
    until = fields["live_until"]
    change = Change(
        revision=fields["revision"],
        at=datetime.fromisoformat(fields["at"]),
        actor=fields["actor"],
        kind=fields["kind"],
        payload=fields["payload"],
        live_until=datetime.fromisoformat(until) if until is not None else None,
        change_id=fields["change_id"],
    )
    return Announcement(Position(*fields["before"]), change)
