"""Ce que le noyau demande à la langue des matchers : en lire les noms, et évaluer ce qu'il ne compile pas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Mapping, Sequence


class Language(Protocol):
    """La langue d'un modèle."""

    def escape(self, text: str) -> str:
        """Écrit une expression de règle comme le matcher : `r.sub` y est le nom `r_sub`."""

    def interpret(
        self, expression: ast.expr, names: Sequence[str], functions: Mapping[str, Callable[..., object]]
    ) -> Callable[..., object]:
        """Renvoie une fonction qui évalue une expression hors de la liste blanche.

        Args:
            expression: arbre de l'expression.
            names: noms de ses valeurs, dans l'ordre où la fonction les recevra.
            functions: fonctions qu'elle peut appeler.
        """
