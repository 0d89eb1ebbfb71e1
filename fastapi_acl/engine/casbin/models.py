"""Lire un modèle, celui que la configuration choisit ou un autre."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from casbin.model import Model

from fastapi_acl.engine.casbin.model_file import ModelFile
from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi_acl.shared.config import ACLConfig

_SECTIONS: Final = ("r", "p", "g", "e", "m")
_WORDS: Final = re.compile(r"\"[^\"]*\"|'[^']*'|\w+|\S")


def load_model(config: ACLConfig) -> Model:
    """Lit le modèle que la configuration choisit.

    Raises:
        ConfigurationError: le modèle est illisible, incomplet, ou son effet n'est pas de ceux de Casbin ; le message
            nomme le fichier, la ligne, la section et le remède.
    """
    if config.model_path is None:
        return read_model(read_packaged_model(config.model), f"{config.model} (fourni)")
    try:
        text = config.model_path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "il n’est pas en UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        message = f"le modèle « {config.model_path} » est illisible : {reason} ; vérifiez ACL_MODEL_PATH."
        raise ConfigurationError(message) from error
    return read_model(text, str(config.model_path))


def read_model(text: str, source: str) -> Model:
    """Lit un modèle, dont chaque définition a d'abord été vérifiée.

    Args:
        text: texte du modèle.
        source: d'où il vient, que les messages citent.

    Raises:
        ConfigurationError: le modèle est illisible ou incomplet.
    """
    ModelFile.read(text, source)
    model = Model()
    try:
        model.load_model_from_text(text)
    except Exception as error:
        message = f"le modèle « {source} » est illisible : {error}"
        raise ConfigurationError(message) from error
    return model


def read_packaged_model(name: str) -> str:
    """Renvoie le texte d'un modèle fourni (`rbac`, `rbac_with_domains`, `abac`, `acl`, `rest`)."""
    return (files("fastapi_acl.engine.casbin") / "models" / f"{name}.conf").read_text("utf-8")


def model_digest(model: Model) -> str:
    """Renvoie l'empreinte d'un modèle : commentaires, blancs et ordre des sections n'y comptent pas.

    Args:
        model: modèle que Casbin a lu.
    """
    state = hashlib.sha256()
    for text in _texts(model):
        encoded = text.encode()
        state.update(len(encoded).to_bytes(4, "big"))
        state.update(encoded)
    return state.hexdigest()


def _texts(model: Model) -> Iterator[str]:
    """Énumère les mots d'un modèle, chaque définition précédée de son nom et du nombre de ses mots."""
    for section in _SECTIONS:
        for key, assertion in sorted((model[section] or {}).items()):
            words = _WORDS.findall(assertion.value)
            yield from (key, str(len(words)), *words)
