"""L'application que servent les vrais processus des essais ; tout y vient de l'environnement."""

from __future__ import annotations

from fastapi import FastAPI

from fastapi_acl import ACLConfig, ACLManager
from tests.support.app import documents

app = FastAPI()
manager = ACLManager(ACLConfig(_env_file=None), app=app)
documents(app)
