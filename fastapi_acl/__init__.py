"""fastapi-acl : comptes, rôles et règles Casbin pour FastAPI, en trois lignes.

`ACLManager(ACLConfig(), app=app)` donne à l'application ses comptes et ses règles ; `Depends(require("document:read"))`
garde une route. Par où lire le code : `manager.py` compose, `shared/http/security.py` mène du jeton à la décision,
`engine/casbin/enforcer.py` décide, `engine/writing/store.py` écrit.
"""

from fastapi_acl.auth.domain.entities.auth_user import AuthUser
from fastapi_acl.auth.interface.dependencies import get_current_user
from fastapi_acl.engine.authorizer import Demand, RequestBuilder
from fastapi_acl.engine.casbin.enforcer import PolicyEnforcer
from fastapi_acl.manager import ACLManager
from fastapi_acl.shared.config import ACLConfig
from fastapi_acl.shared.exceptions import (
    ACLException,
    AuthenticationError,
    AuthorizationError,
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from fastapi_acl.shared.http.security import current_user, require, require_all, require_any, require_role
from fastapi_acl.shared.identity import Authenticator, Authorizer, Principal
from fastapi_acl.shared.policy import PolicyChange, PolicyRule

__all__ = [
    "ACLConfig",
    "ACLException",
    "ACLManager",
    "AuthUser",
    "AuthenticationError",
    "Authenticator",
    "AuthorizationError",
    "Authorizer",
    "ConfigurationError",
    "ConflictError",
    "Demand",
    "InvalidInputError",
    "NotFoundError",
    "PolicyChange",
    "PolicyEnforcer",
    "PolicyRule",
    "Principal",
    "RequestBuilder",
    "UnavailableError",
    "current_user",
    "get_current_user",
    "require",
    "require_all",
    "require_any",
    "require_role",
]
