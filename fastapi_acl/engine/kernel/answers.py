"""Ce qu'un matcher strict a le droit de répondre : vrai ou faux, et jamais « différent » entre deux sortes de valeurs.

Casbin prend pour vrai tout ce que Python prend pour tel, une coroutine comprise, et tient `7 == "7"` pour faux sans un
mot. Ici ce qui doit être vrai ou faux passe par `truth`, ce qui se compare par une comparaison qui échoue entre deux
sortes de valeurs, et ce qui se lit par `read` ; `checked` récrit les expressions pour qu'elles y passent.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Collection, Mapping
from functools import lru_cache
from numbers import Number
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from fastapi_acl.shared.exceptions import DecisionFailedError
from fastapi_acl.shared.identity import UnreadableAttribute

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING: Final[Mapping[str, object]] = {}

TRUTH: Final = "bool?"
READ: Final = "."
CHAIN: Final = "…"


def truth(value: object, words: str) -> bool:
    """Renvoie une valeur qui doit être vraie ou fausse.

    Args:
        value: ce que le terme vaut.
        words: le terme, comme le modèle l'écrit.

    Raises:
        DecisionFailedError: elle n'est ni l'une ni l'autre.
    """
    if value is True or value is False:
        return value
    discard(value)
    message = f"« {words} » est {describe(value)}, là où le matcher demande vrai ou faux"
    raise DecisionFailedError(reason=message)


def discard(value: object) -> None:
    """Ferme une coroutine que personne n'attendra : Python s'en plaindrait à chaque requête."""
    if inspect.iscoroutine(value):
        value.close()


def describe(value: object) -> str:
    """Nomme la sorte et le type d'une valeur, jamais la valeur."""
    if value is None:
        return "None"
    sorts = ((bool, "un booléen"), (str, "un texte"), (Number, "un nombre"))
    sort = next((name for kind, name in sorts if isinstance(value, kind)), "un objet")
    return f"{sort} ({type(value).__name__})"


def _kind(known: type) -> type:
    """Renvoie la sorte d'un type : texte, nombre (booléens compris, comme le veut Python), ou lui-même."""
    if issubclass(known, str):
        return str
    return Number if issubclass(known, (int, float, Number)) else known


def is_alike(one: type, other: type) -> bool:
    """Dit si des valeurs de ces types se comparent : même sorte, ou l'un des types étend l'autre."""
    kind, against = _kind(one), _kind(other)
    if kind is against or str in (kind, against) or Number in (kind, against):
        return kind is against
    return issubclass(kind, against) or issubclass(against, kind)


def _comparison(compare: Callable[[Any, Any], object], *, admits_none: bool) -> Callable[..., bool]:
    """Fait une comparaison qui échoue plutôt que de répondre entre deux sortes de valeurs."""

    def check_and_compare(left: object, right: object, left_words: str, right_words: str) -> bool:
        is_absent = admits_none and (left is None or right is None)
        if left.__class__ is not right.__class__ and not is_absent and not is_alike(type(left), type(right)):
            raise _mismatch(left, right, left_words, right_words)
        answer = compare(left, right)
        if answer is True or answer is False:
            return answer
        return truth(answer, f"la comparaison de {left_words} et {right_words}")

    return check_and_compare


def _mismatch(left: object, right: object, left_words: str, right_words: str) -> DecisionFailedError:
    """Fait l'erreur qui nomme les deux termes et leurs types."""
    discard(left)
    discard(right)
    message = (
        f"« {left_words} » est {describe(left)} et « {right_words} » {describe(right)} : ils ne se comparent pas ; "
        "donnez-leur la même sorte de valeur"
    )
    return DecisionFailedError(reason=message)


def contains(element: object, container: object, element_words: str, container_words: str) -> bool:
    """Cherche une valeur dans un texte ou une collection, dont chaque élément doit être de sa sorte.

    Raises:
        DecisionFailedError: le contenant n'est ni l'un ni l'autre, ou un élément est d'une autre sorte.
    """
    if isinstance(container, str) or not isinstance(container, Collection):
        if not isinstance(element, str) or not isinstance(container, str):
            raise _mismatch(element, container, element_words, container_words)
        return element in container
    for known in set(map(type, container)) if element is not None else ():
        if known is not type(None) and not is_alike(type(element), known):
            example = next(one for one in container if type(one) is known)
            raise _mismatch(element, example, element_words, f"un élément de {container_words}")
    return element in container


def _lacks(element: object, container: object, element_words: str, container_words: str) -> bool:
    """Dit si une valeur manque dans un texte ou une collection."""
    return not contains(element, container, element_words, container_words)


def chain(operators: tuple[str, ...], words: tuple[str, ...], *values: object) -> bool:
    """Compare des valeurs de proche en proche (`1 < r.sub.age < 9`) ; toutes ont été lues."""
    pairs = zip(operators, values, values[1:], words, words[1:])  # noqa: B905 - un opérateur de moins que de valeurs
    return all(CHECKS[name](*pair) for name, *pair in pairs)


def read(value: Any, name: str, words: str) -> object:  # noqa: ANN401 - objet de l'application
    """Lit un attribut ; sur un texte ou un dictionnaire, seulement ce qu'on y a mis, jamais une méthode.

    Args:
        value: objet de la requête.
        name: nom de l'attribut.
        words: l'attribut, comme le modèle l'écrit.

    Raises:
        DecisionFailedError: l'attribut manque, ou son objet ne peut pas le donner.
    """
    try:
        found = _reading(value.__class__)(value, name)
    except (AttributeError, KeyError, TypeError) as error:
        discard(value)
        message = f"« {words} » n’existe pas : {describe(value)} n’a pas d’attribut « {name} »"
        raise DecisionFailedError(reason=message) from error
    if isinstance(found, UnreadableAttribute):
        message = f"« {words} » ne peut pas être lu : {found.reason}"
        raise DecisionFailedError(reason=message)
    return found


@lru_cache(maxsize=1_024)
def _reading(known: Any) -> Callable[[Any, str], object]:  # noqa: ANN401 - un type, que mypy ne tient pas pour hachable
    """Renvoie la façon de lire un attribut d'une valeur de ce type."""
    if issubclass(known, str):
        return _read_held
    return operator.getitem if issubclass(known, Mapping) else attribute


def _read_held(value: str, name: str) -> object:
    """Renvoie ce qu'on a mis sur un texte : ses méthodes ne sont pas des attributs."""
    held: Mapping[str, object] = getattr(value, "__dict__", NOTHING)
    return held[name]


def attribute(value: Any, name: str) -> object:  # noqa: ANN401 - objet de l'application
    """Lit un attribut d'un objet, ou la clé d'un dictionnaire s'il n'a pas l'attribut, comme le fait Casbin.

    Raises:
        AttributeError: ni l'un ni l'autre, ou un module.
    """
    try:
        found: object = getattr(value, name)
    except (AttributeError, TypeError):
        try:
            found = value[name]
        except (KeyError, TypeError) as error:
            raise AttributeError(name) from error
    if isinstance(found, ModuleType):
        raise AttributeError(name)  # noqa: TRY004 - pour le matcher, un module n'est pas un attribut
    return found


CHECKS: Final[Mapping[str, Callable[..., Any]]] = {
    TRUTH: truth,
    READ: read,
    CHAIN: chain,
    "==": _comparison(operator.eq, admits_none=True),
    "!=": _comparison(operator.ne, admits_none=True),
    "is": _comparison(operator.is_, admits_none=True),
    "is not": _comparison(operator.is_not, admits_none=True),
    "<": _comparison(operator.lt, admits_none=False),
    "<=": _comparison(operator.le, admits_none=False),
    ">": _comparison(operator.gt, admits_none=False),
    ">=": _comparison(operator.ge, admits_none=False),
    "in": contains,
    "not in": _lacks,
}
"""Ce que l'arbre récrit appelle ; aucun de ces noms ne se lit dans une expression."""
