"""Code d'utilisateur qui n'est que vérifié par mypy : l'interface publique doit s'y typer sans aide."""

from typing import Annotated

from fastapi import Depends, FastAPI
from typing_extensions import assert_type

from fastapi_acl import ACLConfig, ACLManager, AuthUser, Principal, current_user, get_current_user, require

app = FastAPI()
acl = ACLManager(ACLConfig(), app=app)


@app.get("/documents/{name}")
async def read(principal: Annotated[Principal, Depends(require("document:{name}:read"))], name: str) -> str:
    assert_type(principal.id, str)
    return f"{principal.subject} {name}"


@app.get("/me")
async def me(
    principal: Annotated[Principal, Depends(current_user)], user: Annotated[AuthUser, Depends(get_current_user)]
) -> bool:
    return principal.id == str(user.id) and await acl.get_enforcer().add_policy("role:a", "b", "c", "allow")
