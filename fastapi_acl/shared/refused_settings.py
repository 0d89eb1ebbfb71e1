"""Ce qui se dit d'un réglage refusé : une phrase française, qui donne les bornes, et jamais la valeur."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

BOUNDED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("greater_than_equal", "less_than_equal"), "hors des bornes : de {ge} à {le}"),
    **dict.fromkeys(("string_too_short", "string_too_long"), "il faut de {min_length} à {max_length} caractères"),
}
"""Phrases qui donnent les bornes du réglage, par type d'erreur de Pydantic."""

PHRASES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "nombre entier attendu"),
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "nombre attendu"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "« true » ou « false » attendu"),
    **dict.fromkeys(("string_type", "path_type"), "texte attendu"),
    "list_type": "liste attendue, par exemple « a,b »",
}
"""Phrases qui se passent du réglage."""


def in_french(error: ValidationError, fields: Mapping[str, FieldInfo]) -> ValidationError:
    """Refait l'erreur de Pydantic en français, sans les valeurs données.

    Args:
        error: l'erreur.
        fields: les réglages, par nom.
    """
    faults: list[InitErrorDetails] = []
    for item in error.errors(include_url=False):
        field = fields.get(str(item["loc"][0])) if item["loc"] else None
        said = PydanticCustomError(item["type"], "{said}", {"said": _phrase(item, field)})
        faults.append(InitErrorDetails(type=said, loc=item["loc"], input=None))
    return ValidationError.from_exception_data(error.title, faults, hide_input=True)


def _phrase(item: Any, field: FieldInfo | None) -> str:  # noqa: ANN401 - détail d'erreur de Pydantic
    """Renvoie la phrase d'une faute."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])  # la nôtre, déjà française
    if kind == "literal_error":
        return f"valeur inconnue ; admises : {context['expected'].replace(' or ', ' ou ')}"
    if kind in BOUNDED and field is not None:
        return BOUNDED[kind].format(**_bounds(field))
    return PHRASES.get(kind, "valeur refusée")


def _bounds(field: FieldInfo) -> dict[str, Any]:
    """Renvoie les bornes d'un réglage."""
    names = ("ge", "le", "min_length", "max_length")
    return {name: getattr(one, name) for one in field.metadata for name in names if hasattr(one, name)}
