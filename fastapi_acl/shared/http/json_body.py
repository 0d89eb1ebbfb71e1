"""Le corps JSON de nos routes, lu une seule fois et strictement, quelle que soit la version de FastAPI."""

from __future__ import annotations

import json
from email.message import Message
from typing import TYPE_CHECKING, Any, Final

from fastapi import params
from pydantic import ConfigDict
from starlette.requests import Request

from fastapi_acl.shared.exceptions import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

UNREADABLE: Final = "Le corps de la demande n’est pas un JSON lisible."
UNDECLARED: Final = "Le corps de la demande doit s’annoncer comme du JSON : « Content-Type: application/json »."
REPEATED: Final = "Dans le corps de la demande, une clé est répétée : ne gardez qu’une de ses valeurs."


STRICT: Final = ConfigDict(extra="forbid")
"""Réglage des corps de demande : un champ que rien ne déclare est refusé, et non ignoré."""


class DuplicateKeyError(ValueError):
    """Une clé se répète dans un objet : deux lecteurs n'y liraient pas la même chose (RFC 8259, 4)."""


class StrictRequest(Request):
    """Requête dont le corps JSON se lit par nous : FastAPI et les dépendances passent par la même méthode.

    Le lecteur de Python garde la dernière de deux clés égales, prend `NaN` pour un nombre, et d'anciens FastAPI lisent
    un corps que rien n'annonce, ce qu'une page d'un autre site peut envoyer sans rien demander.
    """

    _read_json: Any

    async def json(self) -> Any:  # noqa: ANN401 - ce que porte le corps
        """Renvoie le contenu du corps.

        Raises:
            InvalidRequestError: ce n'est pas du JSON, il ne s'annonce pas comme tel, ou une clé s'y répète.
        """
        if not hasattr(self, "_read_json"):
            self._read_json = read_json(await self.body(), self.headers.get("content-type", ""))
        return self._read_json


def read_json(content: bytes, content_type: str) -> Any:  # noqa: ANN401 - ce que porte le corps
    """Lit un corps JSON ; le refus n'en cite rien.

    Args:
        content: le corps.
        content_type: ce que dit l'en-tête `Content-Type`.

    Raises:
        InvalidRequestError: ce n'est pas du JSON, il ne s'annonce pas comme tel, ou une clé s'y répète.
    """
    if not _is_json(content_type):
        raise InvalidRequestError(UNDECLARED)
    try:
        return json.loads(content, object_pairs_hook=_without_duplicates, parse_constant=_refuse)
    except DuplicateKeyError as error:
        raise InvalidRequestError(REPEATED) from error
    except (ValueError, RecursionError) as error:  # un entier trop long, un octet hors d'UTF-8, mille crochets
        raise InvalidRequestError(UNREADABLE) from error


def is_undeclared(body_field: Any, request: Request) -> bool:  # noqa: ANN401 - structure de FastAPI
    """Dit si une route veut du JSON et reçoit autre chose : ce qu'il contient n'est pas ce qu'il faut corriger."""
    wants_json = body_field is not None and not isinstance(body_field.field_info, params.Form)
    return wants_json and not _is_json(request.headers.get("content-type", ""))


def _is_json(content_type: str) -> bool:
    """Dit si un type est celui du JSON, ou s'en dérive (RFC 6839, 3.1) ; comme FastAPI le lit."""
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Fait un objet de ses paires ; appelé pour chacun, aussi profond soit-il.

    Raises:
        DuplicateKeyError: une clé s'y répète.
    """
    made = dict(pairs)
    if len(made) != len(pairs):
        raise DuplicateKeyError
    return made


def _refuse(_constant: str) -> None:
    """Refuse `NaN`, `Infinity` et `-Infinity`, qui ne sont pas du JSON (RFC 8259, 6).

    Raises:
        ValueError: toujours.
    """
    raise ValueError
