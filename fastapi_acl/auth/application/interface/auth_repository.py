"""Ce que l'authentification demande au stockage des comptes et des sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from fastapi_acl.auth.domain.dtos.auth_dtos import FinishedSessions, RefreshLifetime, UserPage
    from fastapi_acl.auth.domain.entities.auth_user import AuthUser
    from fastapi_acl.auth.domain.entities.session import Session


class IAuthRepository(Protocol):
    """Le stockage des comptes."""

    async def create_user(self, user: AuthUser) -> None:
        """Enregistre un compte.

        Raises:
            UserAlreadyExistsError: le nom ou l'adresse est déjà pris ; la base en décide, et non une lecture.
        """

    async def get_by_id(self, user_id: UUID) -> AuthUser:
        """Renvoie un compte.

        Raises:
            UserNotFoundError: aucun compte ne porte cet identifiant.
        """

    async def get_by_username(self, username: str) -> AuthUser:
        """Renvoie le compte qui porte ce nom, quelle qu'en soit la casse.

        Raises:
            UserNotFoundError: aucun compte ne porte ce nom.
        """

    async def get_by_email(self, email: str) -> AuthUser:
        """Renvoie le compte qui a cette adresse, quelle qu'en soit la casse.

        Raises:
            UserNotFoundError: aucun compte n'a cette adresse.
        """

    async def list_users(
        self, *, limit: int, cursor: str | None = None, query: str | None = None, is_active: bool | None = None
    ) -> UserPage:
        """Lit une page de comptes, dans l'ordre de leurs noms.

        Args:
            limit: nombre de comptes au plus, ramené entre 1 et 200.
            cursor: `next_cursor` de la page précédente.
            query: texte contenu dans le nom ou l'adresse, sans joker.
            is_active: ne garde que les comptes actifs, ou inactifs.

        Raises:
            InvalidRequestError: le cursor n'est pas un des nôtres.
        """

    async def update_password(self, user_id: UUID, hashed_password: str, *, replaced: str) -> None:
        """Remplace un haché par un autre du même mot de passe ; sans effet si `replaced` n'est plus celui du compte."""

    async def has_hash(self, starts: Sequence[str]) -> bool:
        """Dit si le haché d'un compte commence par un de ces débuts ; la base les parcourt tous."""

    async def update_user(self, user_id: UUID, *, is_active: bool | None = None, ends_tokens: bool = False) -> AuthUser:
        """Change un compte et le renvoie tel qu'il est devenu ; le reste garde la valeur qu'il a dans la base.

        Args:
            user_id: identifiant du compte.
            is_active: le compte est désormais actif, ou ne l'est plus ; None ne change rien.
            ends_tokens: avance la version de session, et tous les jetons du compte cessent ; désactiver le fait aussi.

        Raises:
            UserNotFoundError: aucun compte ne porte cet identifiant.
        """

    async def delete_user(self, user_id: UUID) -> None:
        """Supprime un compte et ses sessions.

        Raises:
            UserNotFoundError: aucun compte ne porte cet identifiant.
        """

    async def active_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes actifs."""

    async def existing_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes qui existent, actifs ou non."""


class ISessionRepository(Protocol):
    """Le stockage des sessions."""

    async def create_session(self, session: Session) -> bool:
        """Ouvre une session si le compte est encore actif, à la version lue ; False sinon."""

    async def rotate(self, session_id: UUID, old_digest: str, new_digest: str, lifetime: RefreshLifetime) -> bool:
        """Remplace le refresh token, en une mise à jour conditionnelle.

        Returns:
            True pour un seul des appels simultanés ; False si le jeton est dépensé, ou la session ou le compte fini.
        """

    async def find_session(self, session_id: UUID) -> Session | None:
        """Cherche une session."""

    async def revoke_session(self, session_id: UUID, now: datetime) -> bool:
        """Ferme une session ; False si elle l'était déjà."""

    async def revoke_all(self, user_id: UUID, now: datetime) -> None:
        """Ferme toutes les sessions d'un compte."""

    async def remove_finished(self, finished: FinishedSessions, limit: int) -> int:
        """Supprime des sessions finies, de quelque compte que ce soit.

        Args:
            finished: ce qui fait qu'une session est finie.
            limit: nombre de sessions supprimées au plus.

        Returns:
            Le nombre de sessions supprimées ; il peut en rester s'il vaut `limit`.
        """
