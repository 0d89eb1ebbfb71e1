"""Un petit service de documents, protégé : un lecteur, un éditeur, un administrateur.

`make demo` le sert. Ouvrez `/docs`, inscrivez-vous, connectez-vous par le bouton « Authorize », essayez de lire : la
politique refuse. L'administrateur vous donne le rôle `reader` ; relisez : la politique accorde.
"""

from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from fastapi_acl import ACLConfig, ACLManager, Principal, current_user, require

POLICIES = Path(__file__).parent.parent / "policies"

ADMIN_PASSWORD = "administrateur-de-demo"  # noqa: S105 - mot de passe public d'une démonstration locale

DESCRIPTION = f"""
Une première réussite en moins d'une minute :

1. `POST /api/v1/auth/register` : inscrivez-vous ; notez votre `id`.
2. **Authorize** : connectez-vous avec votre nom et votre mot de passe.
3. `GET /documents` : **403**, aucune règle ne vous l'accorde.
4. **Authorize** en `admin` / `{ADMIN_PASSWORD}`, puis `POST /api/v1/admin/permissions/rules` avec
   `{{"rules": [{{"ptype": "g", "values": ["user:<votre id>", "role:reader"]}}]}}`.
5. Reconnectez-vous sous votre nom ; `GET /documents` : **200**.
"""

app = FastAPI(title="Démonstration de fastapi-acl", description=DESCRIPTION)

acl = ACLManager(
    ACLConfig(
        sqlite_uri=SecretStr("sqlite:///fastapi_acl_demo.db"),
        model_path=POLICIES / "model.conf",
        policy_path=POLICIES / "policy.csv",
        create_default_admin=True,
        default_admin_password=SecretStr(ADMIN_PASSWORD),
    ),
    app=app,
)


class Document(BaseModel):
    """Un document."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(max_length=100, examples=["Compte rendu"])
    text: str = Field(max_length=10_000, examples=["Tout va bien."])


documents: dict[str, Document] = {
    "welcome": Document(title="Bienvenue", text="Vous lisez ceci parce qu’une règle vous l’accorde."),
    "charter": Document(title="Charte", text="Un éditeur la lit ; une règle « deny » lui interdit de l’écrire."),
}


@app.get("/", summary="Ouvert à tous")
async def index() -> dict[str, str]:
    """Dit où commencer."""
    return {"documentation": "/docs"}


@app.get("/whoami", tags=["documents"])
async def whoami(principal: Annotated[Principal, Depends(current_user)]) -> dict[str, str]:
    """Renvoie le sujet sous lequel les règles vous connaissent : `user:<id>`."""
    return {"subject": principal.subject}


@app.get("/documents", tags=["documents"], dependencies=[Depends(require("document:read"))])
async def list_documents() -> dict[str, str]:
    """Liste les titres ; demande `document:read`."""
    return {name: document.title for name, document in documents.items()}


@app.get("/documents/{name}", tags=["documents"], dependencies=[Depends(require("document:{name}:read"))])
async def read_document(name: str) -> Document:
    """Renvoie un document ; demande `document:<name>:read`."""
    if name not in documents:
        raise HTTPException(404, "Ce document n’existe pas.")
    return documents[name]


@app.put("/documents/{name}", tags=["documents"], dependencies=[Depends(require("document:{name}:write"))])
async def write_document(name: str, document: Document) -> Document:
    """Écrit un document ; demande `document:<name>:write`, que tient le rôle `editor`."""
    documents[name] = document
    return document
