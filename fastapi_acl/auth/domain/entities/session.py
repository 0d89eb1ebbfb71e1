"""La session : une connexion, que ses renouvellements prolongent sans dépasser sa fin absolue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


@dataclass(slots=True, kw_only=True)
class Session:
    """Une famille de refresh tokens (RFC 9700, 4.14).

    Attributes:
        refresh_digest: empreinte de l'identifiant du seul refresh token qui vaut encore.
        previous_digest: empreinte de celui qu'il a remplacé, pour reconnaître le perdant d'une course.
        expires_at: fin absolue ; un renouvellement ne la repousse pas.
    """

    id: UUID
    user_id: UUID
    session_version: int
    refresh_digest: str = field(repr=False)
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    previous_digest: str | None = field(default=None, repr=False)
    rotated_at: datetime | None = None
    revoked_at: datetime | None = None
    user_agent: str | None = None
    ip: str | None = None
