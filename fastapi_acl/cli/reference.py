"""La référence des réglages, tirée d'`ACLConfig` : `.env.example` et la page de documentation n'en divergent pas."""

from __future__ import annotations

import ast
import inspect
import itertools
from functools import cache
from textwrap import dedent
from typing import Any, Final

from pydantic import SecretStr

from fastapi_acl.shared.config import NOT_YET_EFFECTIVE, ACLConfig

HEADER: Final = """\
# Réglages de fastapi-acl. Copiez ce fichier en « .env » et décommentez ce que vous changez.
# Engendré par « fastapi-acl config env » ; chaque valeur montrée est le défaut.
"""

SHOWN: Final = {"shared_domain": "*"}
"""Ce que l'exemple montre d'un réglage sans défaut, dont le vide serait pris pour une valeur."""

NO_EFFECT: Final = "Sans effet dans cette version."


def write_env_example() -> str:
    """Renvoie un `.env` commenté : une ligne par réglage, à son défaut."""
    blocks = [
        f"# {_strip_markup(name)}\n# {name_variable(name)}={_read_default(name) or SHOWN.get(name, '')}\n"
        for name in ACLConfig.model_fields
    ]
    return "\n".join([HEADER, *blocks])


def write_markdown() -> str:
    """Renvoie le tableau des réglages, pour la documentation."""
    rows = (
        f"| `{name_variable(name)}` | {_write_default(name)} | {_describe(name)} |" for name in ACLConfig.model_fields
    )
    return "\n".join(["| variable | défaut | effet |", "| --- | --- | --- |", *rows, ""])


def name_variable(name: str) -> str:
    """Renvoie la variable d'environnement d'un réglage."""
    return f"ACL_{name.upper()}"


def _describe(name: str) -> str:
    """Renvoie ce que fait un réglage, et s'il attend une version à venir."""
    description = read_descriptions()[name]
    return f"{description} {NO_EFFECT}" if name in NOT_YET_EFFECTIVE else description


@cache
def read_descriptions() -> dict[str, str]:
    """Lit dans la source la docstring de chaque réglage ; Pydantic le ferait à chaque import, pour cette page."""
    (settings,) = ast.parse(dedent(inspect.getsource(ACLConfig))).body
    body = settings.body if isinstance(settings, ast.ClassDef) else []
    return {
        setting.target.id: str(told.value.value)
        for setting, told in itertools.pairwise(body)
        if isinstance(setting, ast.AnnAssign) and isinstance(setting.target, ast.Name)
        if isinstance(told, ast.Expr) and isinstance(told.value, ast.Constant)
    }


def _strip_markup(name: str) -> str:
    """Renvoie la description sans balisage."""
    return _describe(name).replace("`", "")


def _write_default(name: str) -> str:
    """Renvoie le défaut, pour le tableau."""
    shown = _read_default(name)
    return f"`{shown}`" if shown else "aucun"


def _read_default(name: str) -> str:
    """Renvoie le défaut tel qu'il s'écrit dans un `.env` ; rien s'il n'y en a pas."""
    value: Any = ACLConfig.model_fields[name].default
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or value == [] else str(value)
