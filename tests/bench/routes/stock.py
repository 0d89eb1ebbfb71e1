"""pycasbin sans nous : un jeton que python-jose vérifie, puis `AsyncEnforcer`, dans une dépendance."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jose import JWTError, jwt

from tests.bench import peers
from tests.bench.routes import Headers, Routes, applications, bearer
from tests.bench.worlds import g, p, packaged

KEY = "une clé de mesure, longue et sans valeur aucune"


def make(folder: Path) -> Routes:
    """Charge les mêmes règles, et celle qui ouvre la route."""
    world = packaged(int((folder / "size").read_text("utf-8")))
    world.rules[:] = [*world.rules, p("role:reader", "document", "read", "allow"), g("user:ada", "role:reader")]
    enforcer = peers.stock(world)

    async def guard(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
        try:
            subject: str = jwt.decode(credentials.credentials, KEY, ["HS256"])["sub"]
        except JWTError as error:
            raise HTTPException(401) from error
        if not enforcer.enforce(subject, "document", "read"):
            raise HTTPException(403)
        return subject

    async def headers() -> Headers:
        return bearer(jwt.encode({"sub": "user:ada", "exp": time.time() + 3600}, KEY, "HS256"))

    return Routes(applications(free=None, guarded=guard), nullcontext(), headers)
