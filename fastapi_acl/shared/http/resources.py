"""De la route à la ressource : paramètres de chemin, gabarit."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticSerializationError, to_jsonable_python

from fastapi_acl.shared.exceptions import DecisionFailedError, NotFoundError
from fastapi_acl.shared.http.dependants import path_fields, route_of
from fastapi_acl.shared.http.scope import mount_path
from fastapi_acl.shared.values import canonical_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import HTTPConnection

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_UNSAFE: Final = re.compile(r"[%:*\x00-\x1f\x7f-\x9f]")


def expand_for(template: str, connection: HTTPConnection) -> str:
    """Renvoie un gabarit rempli par la requête ; sans paramètre, c'est lui-même.

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
        DecisionFailedError: le gabarit nomme un paramètre que la route n'a pas, ou dont la valeur n'a pas une seule
            écriture.
    """
    missing = [name for name in _PARAMETER.findall(template) if name not in parameters]
    if missing:
        reason = f"« {', '.join(missing)} » n’est pas un paramètre de la route : corrigez « {template} »"
        raise DecisionFailedError(reason=reason)
    return _PARAMETER.sub(lambda found: _encode(_text(found[1], parameters[found[1]])), template)


def _text(name: str, value: object) -> str:
    """Renvoie le texte d'un paramètre, que le convertisseur d'une route (`{number:float}`) a pu déjà lire.

    Raises:
        DecisionFailedError: ce qu'un convertisseur de l'application a rendu ne s'écrit pas d'une seule façon.
    """
    text = repr(value) if type(value) is float else canonical_text(value)
    if text is None:
        kind = type(value).__name__
        reason = f"le convertisseur du paramètre « {name} » rend un {kind} : qu’il rende un texte, un entier ou un UUID"
        raise DecisionFailedError(reason=reason)
    return text


def canonical_parameters(connection: HTTPConnection, template: str) -> Mapping[str, Any]:
    """Renvoie les paramètres de chemin, pourvu que la route lise exactement ce qui est écrit.

    `/documents/07` et `/documents/7` mènent une route à paramètre entier au même objet, mais à deux ressources : une
    règle qui refuse `document:7` doit tenir pour les deux. Seule l'écriture canonique est admise.

    Args:
        connection: requête en cours.
        template: gabarit de la ressource ; seuls les paramètres qu'il nomme sont vérifiés.

    Raises:
        NotFoundError: un paramètre n'est pas sous sa forme canonique.
    """
    named = set(_PARAMETER.findall(template))
    fields = path_fields(getattr(route_of(connection), "dependant", None)) if named else ()
    for field in fields:
        written = str(connection.path_params.get(field.alias, ""))
        if field.alias in named and not _is_canonical(field, written):
            message = "Cette adresse n’est pas la forme canonique de la ressource."
            raise NotFoundError(message)
    return connection.path_params


def _is_canonical(field: Any, written: str) -> bool:  # noqa: ANN401 - idem
    """Dit si la valeur lue se récrit comme elle était écrite ; une valeur illisible sera refusée par FastAPI."""
    value, errors = field.validate(written, loc=("path", field.alias))
    if errors:
        return True
    again = _jsonable(value, field.alias)
    if isinstance(again, float) and (not math.isfinite(again) or (again == 0 and written.startswith("-"))):
        return False  # -0.0 est 0.0, et « nan » n'est égal à rien
    return written == (str(again).lower() if isinstance(again, bool) else str(again))


def _jsonable(value: object, name: str) -> object:
    """Renvoie un paramètre de chemin tel que JSON l'écrirait.

    Raises:
        DecisionFailedError: c'est un objet qui ne s'écrit pas : rien ne dit quelle adresse est la sienne.
    """
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError as error:
        kind = type(value).__name__
        reason = f"le paramètre « {name} » est un {kind}, dont l’écriture n’est pas connue : chargez-le par resource="
        raise DecisionFailedError(reason=reason) from error


def _encode(value: str) -> str:
    """Encode, à la manière des URI, ce qui ferait de la valeur autre chose qu'un segment."""
    return _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), value)


def route_template(connection: HTTPConnection) -> str:
    """Renvoie le gabarit entier de la route, préfixes d'inclusion et de montage compris.

    FastAPI l'a rangé à des endroits différents selon ses versions : le gabarit trouvé doit couvrir le chemin demandé,
    sinon la décision échoue plutôt que de porter sur une autre route.

    Raises:
        DecisionFailedError: aucun gabarit ne correspond au chemin.
    """
    route = route_of(connection)
    if has_mounted_parameters(connection, route):
        reason = "un montage à paramètres n’a pas de gabarit : gardez ses routes sous un autre modèle"
        raise DecisionFailedError(reason=reason)
    template = getattr(route, "path_format", None)
    if template is None or not _covers(template, route, _path(connection)):
        raise DecisionFailedError(reason="aucun gabarit de route ne correspond au chemin demandé")
    return f"{mount_path(connection)}{template}"


def has_mounted_parameters(connection: HTTPConnection, route: Any) -> bool:  # noqa: ANN401 - route d'une version quelconque
    """Dit si des paramètres de chemin viennent d'un montage, et non de la route."""
    return not set(connection.path_params) <= set(getattr(route, "param_convertors", None) or ())


def route_label(connection: HTTPConnection) -> str:
    """Nomme la route pour le journal : sa méthode et son gabarit, jamais le chemin demandé."""
    route = route_of(connection)
    template = getattr(route, "path_format", None) or getattr(route, "path", "?")
    return f"{connection.scope.get('method', 'WEBSOCKET')} {template}"


def _path(connection: HTTPConnection) -> str:
    """Renvoie le chemin vu par la route ; selon la version de Starlette, `path` a ou non le préfixe de montage."""
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
