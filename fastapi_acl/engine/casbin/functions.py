"""Les fonctions qu'un matcher appelle : celles de Casbin, les nôtres, et celles que l'application ajoute."""

from __future__ import annotations

import inspect
import keyword
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from casbin import util

from fastapi_acl.engine.kernel.acl_match import OWNER, acl_match, acl_owns
from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

OUR_FUNCTIONS: Final[Mapping[str, Callable[..., bool]]] = {"aclMatch": acl_match, "aclOwns": acl_owns}

KEY_GETTERS: Final[Mapping[str, Callable[..., object]]] = {
    "keyGet": util.key_get,
    "keyGet2": util.key_get2,
    "keyGet3": util.key_get3,
}
"""Fonctions que Casbin documente et que pycasbin n'inscrit pas ; le mode strict les a d'emblée."""

_TEXTUAL: Final = frozenset(
    {
        acl_match,
        util.key_match_func,
        util.key_match2_func,
        util.key_match3_func,
        util.key_match4_func,
        util.key_match5_func,
        util.key_get,
        util.key_get2,
        util.key_get3,
        util.glob_match_func,
        util.regex_match_func,
        util.ip_match_func,
        util.time_match_func,
    }
)
"""Fonctions qui ne comparent que des textes ; d'une autre valeur, elles diraient « différent » sans un mot."""


class MatcherFunctions(dict[str, Any]):
    """Les fonctions du matcher ; en changer une rend caduc ce qui en a été compilé."""

    def __init__(
        self,
        functions: Mapping[str, Any],
        on_change: Callable[[], None],
        check: Callable[[str, Any], None] = lambda *_: None,
    ) -> None:
        """Retient des fonctions déjà admises.

        Args:
            functions: par nom.
            on_change: appelé quand l'une change.
            check: refuse une fonction qui ne peut pas servir ; les admet toutes par défaut, comme Casbin.
        """
        super().__init__(functions)
        self._on_change = on_change
        self._check = check

    def __setitem__(self, name: str, function: Any) -> None:  # noqa: ANN401 - fonction de l'application
        """Admet une fonction, et fait oublier ce qui a été compilé avec celle qu'elle remplace."""
        if self.get(name) is not function:
            self._check(name, function)
            super().__setitem__(name, function)
            self._on_change()

    def __delitem__(self, name: str) -> None:
        """Retire une fonction."""
        super().__delitem__(name)
        self._on_change()

    def update(self, *others: Any, **named: Any) -> None:  # noqa: ANN401 - signature de dict
        """Admet des fonctions, une à une."""
        for name, function in dict(*others, **named).items():
            self[name] = function

    def setdefault(self, name: str, function: Any = None) -> Any:  # noqa: ANN401 - signature de dict
        """Admet une fonction, si le nom n'en désigne aucune, et renvoie celle qu'il désigne."""
        if name not in self:
            self[name] = function
        return self[name]

    def __ior__(self, others: Any) -> MatcherFunctions:  # type: ignore[override,misc]  # noqa: ANN401, PYI034 - signature de dict
        """Admet des fonctions, une à une."""
        self.update(others)
        return self


def is_textual(function: object) -> bool:
    """Dit si une fonction ne compare que des textes."""
    return inspect.isroutine(function) and function in _TEXTUAL


def strict_functions(owner_attribute: str = OWNER) -> dict[str, Callable[..., object]]:
    """Renvoie les fonctions que le mode strict ajoute à celles de pycasbin.

    Args:
        owner_attribute: attribut qui porte le propriétaire d'un objet.
    """
    return {**KEY_GETTERS, **OUR_FUNCTIONS, "aclOwns": partial(acl_owns, attribute=owner_attribute)}


def check_function(name: object, function: object, roles: Collection[str]) -> None:
    """Refuse une fonction qu'un matcher strict ne saurait appeler, ou qui en remplacerait une qui ne se remplace pas.

    Args:
        name: nom sous lequel le matcher l'appellerait.
        function: la fonction.
        roles: fonctions de rôles du modèle (`g`, `g2`…).

    Raises:
        ConfigurationError: la phrase dit laquelle, pourquoi, et que faire.
    """
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        _refuse(name, "ce n’est pas un nom qu’un matcher puisse écrire : prenez des lettres, des chiffres et « _ »")
    if name in OUR_FUNCTIONS:
        _refuse(name, "l’index la connaît, elle n’est pas à remplacer : prenez un autre nom")
    if name == "eval" or name in roles:
        _refuse(name, "le modèle lui donne déjà un sens : prenez un autre nom")
    if not callable(function):
        _refuse(name, "elle ne s’appelle pas : donnez une fonction")
    if is_asynchronous(function):
        _refuse(name, "elle est asynchrone, et une décision n’attend rien : donnez une fonction ordinaire (« def »)")


def is_asynchronous(function: Any) -> bool:  # noqa: ANN401 - objet de l'application
    """Dit si appeler un objet rendrait une coroutine ou un générateur asynchrone."""
    while isinstance(function, partial):
        function = function.func
    called = getattr(type(function), "__call__", None)  # noqa: B004 - c'est elle qu'il faut regarder
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in (function, called))


def _refuse(name: object, reason: str) -> NoReturn:
    """Refuse une fonction, en la nommant."""
    message = f"la fonction de matcher « {name} » est refusée : {reason}."
    raise ConfigurationError(message)
