"""Ce qu'une tranche apporte à l'application : ce que ses routes demandent, et ses routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fastapi import APIRouter


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Une tranche, une fois faite.

    Attributes:
        components: ce que `provide(…)` rend, port ou cas d'usage, par type.
        routers: charge ses routes ; celles d'une tranche coupée ne se chargent pas.
        is_served: faux si la configuration coupe ses routes.
    """

    components: Mapping[type[Any], Any]
    routers: Callable[[], Iterable[APIRouter]]
    is_served: bool
