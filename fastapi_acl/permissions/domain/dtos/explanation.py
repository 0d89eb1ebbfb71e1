"""Une décision expliquée."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi_acl.shared.decisions import Verdict


@dataclass(frozen=True, slots=True)
class ExplanationDTO:
    """Ce que la politique répond, et la révision à laquelle elle le répond."""

    revision: int
    verdict: Verdict
