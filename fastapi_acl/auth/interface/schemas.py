"""Corps des requêtes et des réponses de la tranche « auth »."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field
from typing_extensions import Self

from fastapi_acl.auth.domain.dtos.auth_dtos import LoginDTO, RefreshTokenDTO, RegisterDTO, TokenDTO, UserPage
from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.shared.http.json_body import STRICT

Username = Annotated[str, Field(min_length=1, max_length=256, description="Nom d'utilisateur.", examples=["ada"])]
Login = Annotated[
    str, Field(min_length=1, max_length=256, description="Nom d'utilisateur, ou adresse.", examples=["ada"])
]
Password = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        repr=False,
        description="Mot de passe : une phrase de quelques mots convient.",
        examples=["trois petits chats gris"],
    ),
]


class RegisterRequest(BaseModel):
    """Ce qu'il faut pour s'inscrire."""

    model_config = STRICT

    username: Username
    email: Annotated[
        str, Field(min_length=3, max_length=254, description="Adresse électronique.", examples=["ada@example.com"])
    ]
    password: Password

    def to_dto(self) -> RegisterDTO:
        """Renvoie la demande pour le cas d'usage."""
        return RegisterDTO(username=self.username, email=self.email, password=self.password)


class LoginRequest(BaseModel):
    """Ce qu'il faut pour se connecter."""

    model_config = STRICT

    username: Login
    password: Password

    def to_dto(self, *, user_agent: str | None, ip: str | None) -> LoginDTO:
        """Renvoie la demande pour le cas d'usage."""
        return LoginDTO(username=self.username, password=self.password, user_agent=user_agent, ip=ip)


class RefreshTokenRequest(BaseModel):
    """Le refresh token à dépenser."""

    model_config = STRICT

    refresh_token: Annotated[
        str, Field(min_length=1, max_length=8192, repr=False, description="Le `refresh_token` reçu en dernier.")
    ]

    def to_dto(self) -> RefreshTokenDTO:
        """Renvoie la demande pour le cas d'usage."""
        return RefreshTokenDTO(refresh_token=self.refresh_token)


class LogoutRequest(BaseModel):
    """Ce qu'il faut fermer."""

    model_config = STRICT

    everywhere: bool = Field(
        default=False, description="Ferme toutes les sessions du compte, et pas seulement celle-ci."
    )


class LoginResponse(BaseModel):
    """Les deux jetons d'une session (RFC 6749, 5.1)."""

    access_token: str = Field(repr=False, description="À envoyer dans « Authorization: Bearer … ».")
    refresh_token: str = Field(repr=False, description="À échanger une seule fois, à `/auth/refresh`.")
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - le type de jeton, pas un secret
    expires_in: int = Field(description="Durée de vie du jeton d'accès, en secondes.")

    @classmethod
    def of(cls, tokens: TokenDTO) -> Self:
        """Fait la réponse des jetons."""
        return cls(**asdict(tokens))


class RefreshTokenResponse(LoginResponse):
    """La paire neuve d'une session ; le refresh token échangé est dépensé."""


class UserResponse(BaseModel):
    """Un compte, sans son mot de passe."""

    id: UUID = Field(description="Identifiant immuable ; les règles le nomment `user:<id>`.")
    username: str = Field(examples=["ada"])
    email: str | None = Field(examples=["ada@example.com"])
    is_active: bool = Field(description="Faux : le compte ne peut plus se connecter.")
    is_verified: bool = Field(description="Vrai : l'adresse a été vérifiée.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, user: AuthUser) -> Self:
        """Fait la réponse d'un compte."""
        return cls(
            id=user.id,
            username=user.username,
            email=user.email,
            is_active=user.is_active,
            is_verified=user.is_verified,
            created_at=user.created_at,
            updated_at=user.updated_at,
        )


class UserPageResponse(BaseModel):
    """Une page de comptes."""

    items: list[UserResponse]
    next_cursor: str | None = Field(description="À passer dans `cursor` pour la suite ; null à la fin.")

    @classmethod
    def of(cls, page: UserPage) -> Self:
        """Fait la réponse d'une page."""
        return cls(items=[UserResponse.of(user) for user in page.items], next_cursor=page.next_cursor)
