"""La langue de Casbin : ses noms, et l'évaluateur de ce que le noyau ne compile pas."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, final

from casbin.util import SimpleEval, escape_assertion

from fastapi_acl.engine.kernel.language import Language

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@final
class CasbinLanguage(Language):
    """Lit et évalue comme pycasbin."""

    def escape(self, text: str) -> str:
        """Écrit `r_sub` pour `r.sub`."""
        escaped: str = escape_assertion(text)
        return escaped

    def interpret(
        self, expression: ast.expr, names: Sequence[str], functions: Mapping[str, Callable[..., object]]
    ) -> Callable[..., object]:
        """Confie une expression à simpleeval."""
        text = ast.unparse(expression)

        def evaluate(*values: object) -> object:
            evaluator = SimpleEval("", functions)  # un par appel : il garde ses noms, et deux fils les mêleraient
            evaluator.expr, evaluator.ast_parsed_value = text, expression
            return evaluator.eval(dict(zip(names, values, strict=True)))

        return evaluate


CASBIN = CasbinLanguage()
