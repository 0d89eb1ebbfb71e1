"""Types de paramètres de chemin dont plusieurs écritures mènent au même objet.

La forme canonique (`canonical_parameters`) est propre à une écriture de ces types, non à leur valeur : `1.0` et `1.00`
sont deux décimaux canoniques et égaux, `10:00+01:00` et `09:00Z` le même instant. Une règle qui refuse l'une de ces
ressources ne tiendrait pas pour l'autre : ces types sont refusés avant toute requête.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import PydanticUserError, TypeAdapter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KINDS: Final[Mapping[str, str]] = {
    "decimal": "Decimal",
    "datetime": "datetime",
    "time": "time",
    "timedelta": "timedelta",
}
_NUMBERS: Final = frozenset({"bool", "int", "float", "complex", "fraction"})
_TOLD_APART: Final = frozenset({"int", "float"})
"""Une union des deux lit `1` et `1.0` comme un même nombre, et une seule de ces écritures est canonique."""

_NOT_READ: Final = frozenset({"metadata", "serialization"})
"""Parties d'un schéma de Pydantic qui ne disent rien de ce qui est lu."""


def ambiguous_kind(annotation: Any) -> str:  # noqa: ANN401 - une annotation quelconque
    """Nomme ce qui, dans un type, a plusieurs écritures canoniques d'une même valeur ; vide s'il n'y a rien.

    Le schéma de Pydantic est lu plutôt que l'annotation : alias, unions, `Annotated`, `NewType` et types contraints y
    sont déjà dépliés.

    Args:
        annotation: type déclaré du paramètre.
    """
    try:
        found = list(_schemas(TypeAdapter(annotation).core_schema))
    except PydanticUserError:  # FastAPI n'aurait pas accepté ce type
        return ""
    kinds = {str(schema["type"]) for schema in found if schema.get("tz_constraint") != "naive"}
    numbers = kinds & _NUMBERS
    if len(numbers) > 1 and numbers != _TOLD_APART:
        return "union de nombres"
    return next((name for kind, name in _KINDS.items() if kind in kinds), "")


def _schemas(node: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - structure de pydantic-core
    """Énumère les schémas que contient un schéma, lui compris."""
    if isinstance(node, dict):
        if isinstance(node.get("type"), str):
            yield node
        for name, part in node.items():
            if name not in _NOT_READ:
                yield from _schemas(part)
    elif isinstance(node, (list, tuple)):
        for part in node:
            yield from _schemas(part)
