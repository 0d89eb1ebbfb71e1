"""Le texte d'un modèle et d'où il vient, pour qu'un refus de démarrer cite la ligne à corriger."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.casbin.models import read_packaged_model

if TYPE_CHECKING:
    from fastapi_acl.shared.config import ACLConfig

_SECTION: Final = re.compile(r"\[(.*)\]")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """D'où vient un modèle.

    Attributes:
        name: fichier, ou nom du modèle fourni.
        text: texte du modèle.
    """

    name: str
    text: str

    @classmethod
    def of(cls, config: ACLConfig) -> ModelSource:
        """Lit le texte du modèle que la configuration choisit."""
        if config.model_path is not None:
            return cls(str(config.model_path), config.model_path.read_text("utf-8"))
        return cls(f"{config.model} (fourni)", read_packaged_model(config.model))

    def cite(self, matcher: str, word: str) -> str:
        """Cite une ligne d'un matcher : le modèle, le numéro, la ligne telle qu'elle est écrite.

        Args:
            matcher: nom du matcher (`m`, `m2`…).
            word: ce qui y est fautif ; la ligne qui le contient est préférée à la première.
        """
        lines = self._lines(matcher)
        if not lines:
            return f"modèle « {self.name} », matcher « {matcher} »"
        number, text = next(((number, text) for number, text in lines if word and word in text), lines[0])
        return f"modèle « {self.name} », ligne {number} : « {text} »"

    def _lines(self, matcher: str) -> list[tuple[int, str]]:
        """Renvoie les lignes, numérotées, qui définissent un matcher ; une barre oblique inverse à la fin continue."""
        found: list[tuple[int, str]] = []
        section, continues = "", False
        for number, line in enumerate(map(str.strip, self.text.splitlines()), start=1):
            header = _SECTION.fullmatch(line)
            section = header[1] if header else section
            starts = section == "matchers" and line.partition("=")[0].strip() == matcher
            if starts or continues:
                found.append((number, line))
                continues = line.endswith("\\")
        return found
