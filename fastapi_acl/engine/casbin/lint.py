"""Ce qu'un modèle a de lent ou de risqué, dit en phrases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.casbin.trial import tell_faults
from fastapi_acl.engine.kernel.effects import EFFECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi_acl.engine.casbin.definitions import ModelDefinitions
    from fastapi_acl.engine.kernel.plan import MatcherPlan

WARNINGS: Final = {
    "regexMatch": "regexMatch évalue des expressions rationnelles lues dans les règles : l’une d’elles peut prendre un "
    "temps exponentiel. Préférez aclMatch, keyMatch2 ou globMatch, comparés en temps linéaire.",
    "keyMatch": "keyMatch ignore tout ce qui suit le premier « * » d’une règle (« */secret » ouvre tout). "
    "Préférez aclMatch, ou keyMatch2 pour des routes.",
    "keyMatch2": "keyMatch2 lit « . », « + » et « ( » d’une règle comme ceux d’une expression rationnelle.",
    "keyMatch3": "keyMatch3 lit « . », « + » et « ( » d’une règle comme ceux d’une expression rationnelle.",
    "keyMatch4": "keyMatch4 lit « . », « + » et « ( » d’une règle comme ceux d’une expression rationnelle.",
    "keyMatch5": "keyMatch5 ignore ce qui suit « ? » dans la valeur demandée.",
    "eval": "eval() exécute des expressions lues dans les règles : qui écrit les règles peut tout.",
}


def lint(definitions: ModelDefinitions, plan: MatcherPlan) -> list[str]:
    """Relit un modèle.

    Args:
        definitions: ce que le modèle définit.
        plan: ce que l'index en cherche.

    Returns:
        Une phrase par défaut ; aucune si tout va bien.
    """
    found = [*tell_faults(definitions), *_about_plan(plan)]
    if definitions.schema.effect not in EFFECTS:
        found.append("L’effet n’est pas de ceux de Casbin : il est évalué règle par règle.")
    matchers = definitions.schema.matcher.replace(" (", "(")
    return found + [warning for name, warning in WARNINGS.items() if f"{name}(" in matchers]


def _about_plan(plan: MatcherPlan) -> Iterator[str]:
    """Dit ce que l'index ne sait pas chercher ; ce qu'il reste à évaluer de ce qu'il trouve n'est pas un défaut."""
    if not plan.is_indexed:
        yield f"Le matcher revient à l’évaluation de Casbin, règle par règle : {plan.reason}."
        return
    if any(not branch.keys and branch.rest for leaf in plan.leaves for branch in leaf.branches):
        yield "Une branche du matcher ne compare aucune valeur de la requête à une règle : toutes y sont évaluées."
