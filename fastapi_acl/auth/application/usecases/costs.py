"""Apprendre ce que coûte le mot de passe le plus cher, pour que tous coûtent autant à refuser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi_acl.auth.application.interface.auth_repository import IAuthRepository
    from fastapi_acl.auth.application.interface.services import IPasswordHasher


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnCostsUseCase:
    """Cherche, au démarrage, les hachés plus chers que le coût configuré.

    Sans cela, la première connexion à l'un de ces comptes durerait plus que celle d'un nom inconnu, et dirait qu'il
    existe. Il s'en trouve quand le coût configuré a baissé, ou qu'un déploiement est en train de le monter.
    """

    users: IAuthRepository
    hasher: IPasswordHasher

    async def execute(self) -> None:
        """Porte le coût de toute comparaison à celui du haché le plus cher."""
        costlier = self.hasher.costlier
        if not await self.users.has_hash([*costlier]):
            return
        for start, rounds in costlier.items():
            if await self.users.has_hash([start]):
                self.hasher.expect(rounds)
                return
