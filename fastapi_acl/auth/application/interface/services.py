"""Ce que l'authentification demande au hachage, aux jetons, au journal et au moteur."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from fastapi_acl.auth.domain.dtos.auth_dtos import TokenClaims
    from fastapi_acl.shared.identity import Principal


class IPasswordHasher(Protocol):
    """Hache et vérifie les mots de passe, hors de la boucle d'événements."""

    async def hash_password(self, password: str) -> str:
        """Hache un mot de passe.

        Raises:
            HashingSaturatedError: trop de hachages attendent.
        """

    async def verify_password(self, password: str, hashed: str | None) -> bool:
        """Compare un mot de passe à un haché ; tout haché, et None, qui renvoie False, coûtent le même temps.

        Raises:
            HashingSaturatedError: trop de hachages attendent.
        """

    @property
    def costlier(self) -> Mapping[str, int]:
        """Débuts des hachés plus chers que ceux que l'on attend, et leur coût, du plus cher au moins cher."""

    def expect(self, rounds: int) -> None:
        """Porte le coût de toute comparaison à celui-ci, s'il est plus élevé."""

    def needs_rehash(self, hashed: str) -> bool:
        """Dit si le haché n'est plus au coût voulu."""

    def close(self) -> None:
        """Arrête les fils de hachage."""


class ITokenService(Protocol):
    """Signe et vérifie les jetons."""

    @property
    def access_lifetime_seconds(self) -> int:
        """Durée de vie d'un jeton d'accès, en secondes."""

    def create_access_token(self, *, user_id: UUID, session_id: UUID, session_version: int) -> str:
        """Signe un jeton d'accès."""

    def create_refresh_token(self, claims: TokenClaims, *, not_after: datetime) -> str:
        """Signe un refresh token, qui cesse à la fin absolue de la session."""

    def decode_token(self, token: str) -> TokenClaims:
        """Vérifie un jeton d'accès.

        Raises:
            InvalidTokenError: pour toute anomalie, sans dire laquelle.
        """

    def decode_refresh_token(self, token: str) -> TokenClaims:
        """Vérifie un refresh token.

        Raises:
            InvalidTokenError: pour toute anomalie, sans dire laquelle.
        """


class IAccessRevoker(Protocol):
    """Fait cesser partout les jetons d'accès déjà signés."""

    async def revoke_session(self, session_id: UUID, *, actor: Principal) -> None:
        """Révoque les jetons d'une session, dans la transaction ambiante."""

    async def revoke_account(self, user_id: UUID, *, session_version: int, actor: Principal) -> None:
        """Révoque les jetons d'un compte antérieurs à cette version, dans la transaction ambiante."""


class ISubjectRules(Protocol):
    """Ce que la suppression d'un compte demande à la politique."""

    async def remove_subject(self, user_id: str, actor: Principal) -> None:
        """Retire toutes les règles qui nomment ce compte, dans la transaction ambiante."""


class IAdministrators(Protocol):
    """Ce que l'écartement d'un compte demande à la politique."""

    async def require_authority(self, user_id: str, actor: Principal) -> None:
        """Exige que l'auteur puisse encore toucher à ce compte, politique et révocations à jour.

        Raises:
            InvalidTokenError: l'auteur a été révoqué entre-temps.
            PermissionDeniedError: il n'a plus le droit de toucher aux comptes.
            EscalationRefusedError: le compte tient une permission `acl.*` que l'auteur ne tient pas.
        """

    async def require_another_than(self, user_id: str) -> None:
        """Exige un autre administrateur actif que ce compte, s'il en est un.

        Raises:
            LastAdministratorError: il est le dernier.
        """


class IEmailValidator(Protocol):
    """Vérifie la forme d'une adresse."""

    def check(self, email: str) -> str:
        """Renvoie l'adresse normalisée.

        Raises:
            InvalidEmailError: ce n'est pas une adresse.
        """
