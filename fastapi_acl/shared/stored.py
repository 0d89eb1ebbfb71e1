"""Ce qu'une base garde : ici seulement on juge si une valeur est celle que nous y avons mise.

Une main, une restauration, un autre programme ont pu écrire n'importe quoi. Chaque colonne a son lecteur, le même pour
toutes les bases ; ce qui n'en passe pas un est une seule erreur, qui nomme la ligne.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from fastapi_acl.shared.exceptions import StoredDataError
from fastapi_acl.shared.logging import get_logger, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = get_logger("database")

Value = TypeVar("Value")

Shape = dict[str, "Callable[[Any], Any]"]
"""Le lecteur de chaque colonne."""

MAX_NUMBER: Final = 2**62
"""Au-delà, un compteur n'est plus le nôtre, et l'avancer sortirait de la colonne."""

MISREADINGS: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""Ce que lève la lecture d'une valeur d'une autre forme que la nôtre ; une panne du pilote n'en est pas."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def read_text(value: Any) -> str:  # noqa: ANN401 - ce que la base a rendu
    """Lit un texte que toute base sait garder."""
    if type(value) is not str or not is_storable(value):
        raise TypeError
    return value


def is_storable(given: str) -> bool:
    """Dit si une base peut garder ce texte ; PostgreSQL refuse U+0000, et aucun pilote n'écrit un demi-codet."""
    return _UNSTORABLE.search(given) is None


def read_number(value: Any) -> int:  # noqa: ANN401 - idem
    """Lit un compteur ; d'un texte, d'un flottant ou d'un booléen, rien ne se devine."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
        raise TypeError
    return int(value)


def read_flag(value: Any) -> bool:  # noqa: ANN401 - idem
    """Lit un booléen."""
    if type(value) is not bool:
        raise TypeError
    return value


def read_instant(value: Any) -> datetime:  # noqa: ANN401 - idem
    """Lit un instant, ou le texte qui en tient lieu."""
    found = datetime.fromisoformat(value) if type(value) is str else value
    if not isinstance(found, datetime) or found.tzinfo is None:
        raise TypeError
    return found.astimezone(timezone.utc)


def read_identifier(value: Any) -> UUID:  # noqa: ANN401 - idem
    """Lit un identifiant."""
    return UUID(read_text(value))


def read_digest(value: Any) -> str:  # noqa: ANN401 - idem
    """Lit une empreinte SHA-256."""
    if _DIGEST.fullmatch(read_text(value)) is None:
        raise ValueError
    return str(value)


def optional(read: Callable[[Any], Value]) -> Callable[[Any], Value | None]:
    """Fait un lecteur qui admet l'absence."""
    return lambda value: None if value is None else read(value)


def read_row(table: str, key: str, row: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """Lit les colonnes d'une ligne.

    Args:
        table: table, ou collection.
        key: colonne qui nomme la ligne.
        row: ses valeurs, par colonne ; une colonne absente ne vaut pas mieux qu'une valeur illisible.
        shape: colonnes voulues ; les autres sont ignorées.

    Raises:
        StoredDataError: une valeur n'est pas de celles que nous y mettons.
    """
    return {
        column: read_value((table, key, row.get(key), column), row.get(column), read) for column, read in shape.items()
    }


def read_value(place: tuple[str, str, object, str], value: object, read: Callable[[Any], Value]) -> Value:
    """Lit une valeur.

    Args:
        place: table, colonne qui nomme la ligne, valeur de celle-ci, et colonne lue.
        value: ce que la base a rendu.
        read: son lecteur.

    Raises:
        StoredDataError: elle n'est pas de celles que nous y mettons.
    """
    try:
        return read(value)
    except MISREADINGS as error:
        table, key, row, column = place
        raise unreadable(table, f"{key}={row!s:.64}", column) from error


def unreadable(table: str, row: str, column: str = "") -> StoredDataError:
    """Nomme, dans le journal d'événements, ce qui ne se lit pas ; rend l'erreur à lever, qui ne cite pas la ligne.

    Args:
        table: table, ou collection.
        row: ce qui désigne la ligne.
        column: colonne en cause ; vide si c'est toute la ligne.
    """
    place = f"{table}.{column}" if column else table
    logger.error("stored_data_unreadable: %s %s ; corrigez-la dans la base, ou restaurez-la", place, quote(row, 100))
    return StoredDataError(f"La base garde dans {place} ce qui ne se lit pas ; l’exploitant doit y remédier.", table)
