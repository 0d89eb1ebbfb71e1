"""La clé d'idempotence d'une écriture (`Idempotency-Key`), et l'empreinte de la demande qu'elle nomme."""

import hashlib
import json
from typing import Annotated, Any

from fastapi import Depends, Header, Request

from fastapi_acl.shared.exceptions import InvalidRequestError
from fastapi_acl.shared.http.json_body import UNREADABLE
from fastapi_acl.shared.sync.changes import IdempotencyKey


async def idempotency_key(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            pattern="^[!-~]{1,64}$",
            description="Clé choisie par le client : la même écriture, renvoyée, n'est faite qu'une fois.",
        ),
    ] = None,
) -> IdempotencyKey | None:
    """Lit la clé d'idempotence, et l'empreinte de la demande : méthode, chemin et corps, à l'écriture près.

    Le corps est celui que FastAPI a lu, s'il l'a lu ; sinon il se lit ici, et se refuse de la même façon.

    Raises:
        InvalidRequestError: le corps n'est pas du JSON, ou il est trop profond.
    """
    if key is None:
        return None
    return IdempotencyKey(key, _digest(request.method, request.scope["path"], await request.json()))


IdempotencyKeyDep = Annotated[IdempotencyKey | None, Depends(idempotency_key)]


def _digest(method: str, path: str, body: Any) -> str:  # noqa: ANN401 - ce que porte le corps
    """Renvoie l'empreinte d'une demande.

    Raises:
        InvalidRequestError: le corps se lit, mais il est trop profond pour se réécrire.
    """
    try:
        asked = json.dumps([method, path, json.dumps(body, sort_keys=True)])
    except RecursionError as error:
        raise InvalidRequestError(UNREADABLE) from error
    return hashlib.sha256(asked.encode()).hexdigest()
