"""Ce qu'un effet fait des règles trouvées : ce qui décide, ce qu'il faut, ce qui interdit.

Source: https://casbin.org/docs/syntax-for-models#policy-effect
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ALLOW: Final = 1
DENY: Final = 2
OTHER: Final = 4
MASKS: Final = {"allow": ALLOW, "deny": DENY}
"""Ce que dit une règle, d'après son champ `eft`."""

ALLOW_OVERRIDE_EFFECT: Final = "some(where (p_eft == allow))"
DENY_OVERRIDE_EFFECT: Final = "!some(where (p_eft == deny))"
ALLOW_AND_DENY_EFFECT: Final = "some(where (p_eft == allow)) && !some(where (p_eft == deny))"
PRIORITY_EFFECT: Final = "priority(p_eft) || deny"
SUBJECT_PRIORITY_EFFECT: Final = "subjectPriority(p_eft) || deny"


@dataclass(frozen=True, slots=True)
class Effect:
    """Ce qu'un effet fait des règles trouvées.

    Attributes:
        stops: ce qui, rencontré, met fin à la lecture.
        needs: ce qu'il faut avoir rencontré pour accorder ; 0 si rien n'est exigé.
        forbids: ce qu'il faut n'avoir pas rencontré pour accorder.

    Source: https://casbin.org/docs/syntax-for-models#policy-effect
    """

    stops: int
    needs: int
    forbids: int

    @property
    def is_ordered(self) -> bool:
        """Vrai si la première règle décisive l'emporte."""
        return self.stops == ALLOW | DENY

    def settle(self, seen: int) -> bool:
        """Dit ce que valent les règles rencontrées."""
        return (not self.needs or bool(seen & self.needs)) and not seen & self.forbids


_FIRST_WINS: Final = Effect(stops=ALLOW | DENY, needs=ALLOW, forbids=DENY)
EFFECTS: Final[Mapping[str, Effect]] = {
    ALLOW_OVERRIDE_EFFECT: Effect(stops=ALLOW, needs=ALLOW, forbids=0),
    DENY_OVERRIDE_EFFECT: Effect(stops=DENY, needs=0, forbids=DENY),
    ALLOW_AND_DENY_EFFECT: Effect(stops=DENY, needs=ALLOW, forbids=DENY),
    PRIORITY_EFFECT: _FIRST_WINS,
    SUBJECT_PRIORITY_EFFECT: _FIRST_WINS,
}
