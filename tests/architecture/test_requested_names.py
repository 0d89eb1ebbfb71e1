"""Les noms fixés avec le projet existent, chacun en un seul endroit, et la page qui les dit ne ment pas."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/noms-demandes.md"

WANTED = {
    *("get_by_username", "get_by_email", "get_by_id", "create_user", "update_user", "delete_user"),
    *("hash_password", "verify_password", "is_authenticated"),
    *("create_access_token", "create_refresh_token", "decode_token", "to_entity", "to_model"),
    *("AuthUser", "LoginDTO", "RegisterDTO", "RefreshTokenDTO", "TokenDTO"),
    *("IAuthRepository", "ITokenService", "IPasswordHasher"),
    *("LoginUseCase", "RegisterUseCase", "RefreshTokenUseCase"),
    *("SQLAuthUserModel", "MongoAuthUserModel", "AuthUserMapper"),
    *("PostgreSQLAuthRepository", "MySQLAuthRepository", "SQLiteAuthRepository", "MongoDBAuthRepository"),
    *("JWTTokenService", "BcryptPasswordHasher"),
    *("LoginRequest", "LoginResponse", "RegisterRequest", "UserResponse"),
    *("RefreshTokenRequest", "RefreshTokenResponse"),
    *("get_auth_repository", "get_token_service", "get_login_usecase", "get_register_usecase", "get_current_user"),
    *("DatabaseFactory", "CacheFactory", "CacheBackend", "RedisCache", "MemoryCache", "RoleNotFoundError"),
}
TOLD = dict(re.findall(r"^\| `(\w+)` \| `([\w.]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))


def test_the_page_tells_each_requested_name_and_no_other() -> None:
    assert TOLD.keys() == WANTED


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_requested_name_is_defined_where_the_page_says(name: str) -> None:
    module = ROOT / "fastapi_acl" / f"{TOLD[name].replace('.', '/')}.py"

    assert name in set(_defined(module))


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_requested_name_is_used_elsewhere_than_where_it_is_defined(name: str) -> None:
    home = ROOT / "fastapi_acl" / f"{TOLD[name].replace('.', '/')}.py"
    others = [path for folder in ("fastapi_acl", "tests") for path in (ROOT / folder).rglob("*.py") if path != home]

    assert any(re.search(rf"\b{name}\b", path.read_text("utf-8")) for path in others if path != Path(__file__))


def test_what_gives_tokens_says_how_to_present_them() -> None:
    told = (ROOT / "fastapi_acl/auth/domain/dtos/auth_dtos.py").read_text("utf-8")

    assert "token_type" in set(_fields(ast.parse(told), "TokenDTO"))


def _defined(module: Path) -> Iterator[str]:
    """Énumère ce qu'un module définit : classes, fonctions, méthodes et valeurs."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def _fields(tree: ast.Module, name: str) -> Iterator[str]:
    """Énumère les champs annotés d'une classe."""
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
