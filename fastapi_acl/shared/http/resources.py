"""De la route à la ressource : paramètres de chemin, gabarit, attributs d'un objet chargé."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from fastapi_acl.shared.exceptions import DecisionFailedError, NotFoundError
from fastapi_acl.shared.http.scope import ROOT_KEY
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import HTTPConnection

logger = get_logger("http")

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_UNSAFE: Final = re.compile(r"[%:*\x00-\x1f\x7f-\x9f]")


def expanded(template: str, connection: HTTPConnection) -> str:
    """Rend un gabarit rempli par la requête ; sans paramètre, c'est lui-même.

    Raises:
        DecisionFailedError: le gabarit nomme un paramètre que la route n'a pas.
        NotFoundError: un paramètre n'est pas sous sa forme canonique.
    """
    return expand(template, canonical_parameters(connection, template)) if "{" in template else template


def expand(template: str, parameters: Mapping[str, Any]) -> str:
    """Met les paramètres de chemin dans un gabarit ; une valeur n'y forme ni segment, ni motif.

    Args:
        template: gabarit, par exemple `document:{document_id}`.
        parameters: paramètres de chemin de la requête.

    Raises:
        DecisionFailedError: le gabarit nomme un paramètre que la route n'a pas.
    """
    missing = [name for name in _PARAMETER.findall(template) if name not in parameters]
    if missing:
        logger.error("path_parameter_missing: %s n'est pas un paramètre de la route (%s)", missing, template)
        raise DecisionFailedError
    return _PARAMETER.sub(lambda found: _encoded(str(parameters[found[1]])), template)


def canonical_parameters(connection: HTTPConnection, template: str) -> Mapping[str, Any]:
    """Rend les paramètres de chemin, pourvu que la route lise exactement ce qui est écrit.

    `/documents/07` et `/documents/7` mènent une route à paramètre entier au même objet, mais à deux ressources : une
    règle qui refuse `document:7` doit tenir pour les deux. Seule l'écriture canonique est admise.

    Args:
        connection: requête en cours.
        template: gabarit de la ressource ; seuls les paramètres qu'il nomme sont vérifiés.

    Raises:
        NotFoundError: un paramètre n'est pas sous sa forme canonique.
    """
    named = set(_PARAMETER.findall(template))
    fields = _path_fields(getattr(_route(connection), "dependant", None)) if named else ()
    for field in fields:
        written = str(connection.path_params.get(field.alias, ""))
        if field.alias in named and not _is_canonical(field, written):
            message = "Cette adresse n’est pas la forme canonique de la ressource."
            raise NotFoundError(message)
    return connection.path_params


def _path_fields(dependant: Any) -> Iterator[Any]:  # noqa: ANN401 - structure de FastAPI
    """Énumère les paramètres de chemin qu'une route et ses dépendances déclarent."""
    if dependant is not None:
        yield from dependant.path_params
        for dependency in dependant.dependencies:
            yield from _path_fields(dependency)


def _is_canonical(field: Any, written: str) -> bool:  # noqa: ANN401 - idem
    """Dit si la valeur lue se récrit comme elle était écrite ; une valeur illisible sera refusée par FastAPI."""
    value, errors = field.validate(written, loc=("path", field.alias))
    if errors:
        return True
    again = to_jsonable_python(value)
    return written == (str(again).lower() if isinstance(again, bool) else str(again))


def _route(connection: HTTPConnection) -> Any:  # noqa: ANN401 - route d'une version quelconque
    """Rend la route, que FastAPI range à des endroits différents selon ses versions."""
    context = connection.scope.get("fastapi", {}).get("effective_route_context")
    return context if context is not None else connection.scope.get("route")


def _encoded(value: str) -> str:
    """Encode, à la manière des URI, ce qui ferait de la valeur autre chose qu'un segment."""
    return _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), value)


def route_template(connection: HTTPConnection) -> str:
    """Rend le gabarit entier de la route, préfixes d'inclusion et de montage compris.

    FastAPI l'a rangé à des endroits différents selon ses versions : le gabarit trouvé doit couvrir le chemin demandé,
    sinon la décision échoue plutôt que de porter sur une autre route.

    Raises:
        DecisionFailedError: aucun gabarit ne correspond au chemin.
    """
    scope = connection.scope
    route = _route(connection)
    path_format = getattr(route, "path_format", None)
    if set(connection.path_params) - set(getattr(route, "param_convertors", {})):
        logger.error("mount_with_parameters: un montage à paramètres n'a pas de gabarit ; gardez ses routes autrement")
        raise DecisionFailedError
    root = scope.get("root_path", "").removeprefix(scope.get(ROOT_KEY, ""))
    if path_format is None or not _covers(path_format, route, _path(connection)):
        logger.error("route_template_missing")
        raise DecisionFailedError
    return f"{root}{path_format}"


def _path(connection: HTTPConnection) -> str:
    """Rend le chemin vu par la route ; selon la version de Starlette, `path` contient ou non le préfixe de montage."""
    path: str = connection.scope["path"]
    root: str = connection.scope.get("root_path", "")
    return path.removeprefix(root) if root else path


def _covers(path_format: str, route: Any, path: str) -> bool:  # noqa: ANN401 - route d'une version quelconque
    """Dit si le gabarit, paramètres compris, couvre tout le chemin."""
    convertors = getattr(route, "param_convertors", {})
    parts = _PARAMETER.split(path_format)
    literals = (re.escape(part) for part in parts[::2])
    patterns = [f"(?:{convertors[name].regex})" if name in convertors else "[^/]+" for name in parts[1::2]]
    pattern = "".join(part for pair in zip(literals, [*patterns, ""], strict=True) for part in pair)
    return re.fullmatch(pattern, path, re.DOTALL) is not None


def with_attributes(loaded: object) -> dict[str, object]:
    """Rend les attributs scalaires d'un objet : jamais l'objet lui-même, dont une règle pourrait appeler une méthode.

    Args:
        loaded: mapping, dataclass, modèle Pydantic ou objet simple (pour un ORM, ses colonnes chargées).

    Returns:
        Les attributs publics dont la valeur est un texte, un nombre, un booléen, None, un UUID ou une énumération.
    """
    found = ((name, _scalar(value)) for name, value in _items(loaded) if not name.startswith("_"))
    return {name: value for name, value in found if value is not _REFUSED}


_REFUSED: Final = object()


def _items(loaded: object) -> list[tuple[str, object]]:
    """Énumère les attributs d'un objet, quelle que soit sa sorte."""
    if isinstance(loaded, Mapping):
        return [(str(name), value) for name, value in loaded.items()]
    if isinstance(loaded, BaseModel):
        return [(name, getattr(loaded, name)) for name in type(loaded).model_fields]
    if dataclasses.is_dataclass(loaded):
        return [(field.name, getattr(loaded, field.name)) for field in dataclasses.fields(loaded)]
    return list(vars(loaded).items()) if hasattr(loaded, "__dict__") else []


def _scalar(value: object) -> object:
    """Rend un scalaire, ou `_REFUSED`."""
    if isinstance(value, enum.Enum):
        return _scalar(value.value)
    if isinstance(value, UUID):
        return str(value)
    return value if value is None or type(value) in {str, int, float, bool} else _REFUSED
