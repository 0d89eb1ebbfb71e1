"""De l'objet chargé à ses attributs : des scalaires figés, lus de l'objet tel qu'il se donne, sans jamais lire la base.

Un objet d'ORM ne garde plus rien dans son `__dict__` après une validation, et le lire irait chercher ses colonnes dans
la base, en plein milieu d'une décision. Ce qui n'est pas là est donc marqué illisible, avec ce qu'il faut faire ; le
dire absent refuserait le propriétaire en silence, et lèverait un refus écrit pour d'autres.
"""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic import BaseModel

from fastapi_acl.shared.identity import UnreadableAttribute

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFUSED: Final = object()
"""Ce qui n'est pas un attribut, ou pas un scalaire."""

_METHODS: Final = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    classmethod,
    staticmethod,
    type,
)
"""Ce qu'une classe donne à appeler, et non à lire."""


def with_attributes(loaded: object, wanted: frozenset[str] | None = None) -> dict[str, object]:
    """Renvoie les attributs scalaires d'un objet : jamais l'objet, dont une règle pourrait appeler une méthode.

    Sont lus : mappings, modèles Pydantic, dataclasses, colonnes SQLAlchemy, lignes de résultat, tuples nommés,
    `__slots__`, propriétés, et tout objet ordinaire.

    Args:
        loaded: l'objet que `resource=` a chargé.
        wanted: attributs que le modèle lit ; None s'il peut les lire tous, propriétés publiques comprises.

    Returns:
        Les attributs publics dont la valeur est un texte, un nombre, un booléen, None, un UUID ou une énumération, et
        un `UnreadableAttribute` pour ceux que l'objet porte mais ne peut pas donner, ou que le modèle lit sans qu'ils
        soient de ces valeurs : les dire absents tairait pourquoi le propriétaire est refusé, ou un refus levé.
    """
    names = _public_names(loaded) if wanted is None else wanted
    read = _choose_reader(loaded)
    refuse = _leave_out if wanted is None else _explain_kind
    found = ((name, _read_safely(read, loaded, name, refuse)) for name in names if not name.startswith("_"))
    return {name: value for name, value in found if value is not _REFUSED}


def _choose_reader(loaded: object) -> Callable[[Any, str], object]:
    """Choisit comment lire un objet."""
    if isinstance(loaded, Mapping):
        return _read_item
    if _is_result_row(loaded):
        return _read_column
    return _read_attribute if _state(loaded) is None else _read_mapped


def _read_safely(
    read: Callable[[Any, str], object], loaded: object, name: str, refuse: Callable[[object, str, object], object]
) -> object:
    """Lit un attribut ; ce que le code de l'application lève à cette occasion le rend illisible.

    Le message de l'erreur n'est pas gardé : il peut citer une valeur.

    Args:
        read: comment lire l'objet.
        loaded: l'objet.
        name: nom de l'attribut.
        refuse: ce qui tient la place d'une valeur qui n'est pas un scalaire.
    """
    try:
        value = read(loaded, name)
        scalar = _scalar(value)
        return refuse(loaded, name, value) if scalar is _REFUSED and value is not _REFUSED else scalar
    except Exception as error:  # noqa: BLE001 - une propriété est du code de l'application
        kind, raised = type(loaded).__name__, type(error).__name__
        return UnreadableAttribute(f"la lecture de l’attribut {name} de {kind} a levé {raised}")


def _leave_out(_loaded: object, _name: str, _value: object) -> object:
    """Tait un attribut que rien ne demande par son nom."""
    return _REFUSED


def _explain_kind(loaded: object, name: str, value: object) -> UnreadableAttribute:
    """Dit pourquoi un attribut que le modèle lit ne se donne pas : son type, jamais sa valeur."""
    owner, kind = type(loaded).__name__, type(value).__name__
    return UnreadableAttribute(f"l’attribut {name} de {owner} est un {kind} : donnez un texte, un entier ou un UUID")


def _scalar(value: object) -> object:
    """Renvoie un scalaire d'un type exact, dont rien n'est à l'application, ou `_REFUSED`."""
    if value is None or isinstance(value, (bool, UnreadableAttribute)):
        return value
    if isinstance(value, enum.Enum):
        return _scalar(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if inspect.iscoroutine(value):
        value.close()  # une propriété asynchrone : elle ne sera pas attendue
    return str(value) if isinstance(value, UUID) else _REFUSED


# --- mappings, lignes, objets ordinaires ----------------------------------------------------------------------------


def _read_item(loaded: Mapping[str, object], name: str) -> object:
    """Lit une clé d'un mapping."""
    return loaded.get(name, _REFUSED)


def _is_result_row(loaded: object) -> bool:
    """Dit si l'objet est une ligne de SQLAlchemy, dont une colonne peut porter le nom d'une méthode."""
    declares = all(inspect.getattr_static(type(loaded), name, None) is not None for name in ("_mapping", "_fields"))
    return declares and isinstance(getattr(loaded, "_mapping", None), Mapping)


def _read_column(loaded: Any, name: str) -> object:  # noqa: ANN401 - ligne de SQLAlchemy, que ce module n'importe pas
    """Lit une colonne d'une ligne."""
    return _read_item(loaded._mapping, name)  # noqa: SLF001 - nom public de SQLAlchemy, souligné pour n'être pas une colonne


def _read_attribute(loaded: object, name: str) -> object:
    """Lit un attribut, une propriété ou une case de `__slots__` ; une méthode n'en est pas un."""
    declared = inspect.getattr_static(type(loaded), name, _REFUSED)
    if isinstance(declared, types.MemberDescriptorType) or declared is _REFUSED:
        return getattr(loaded, name, _REFUSED)
    if isinstance(declared, _METHODS) and name not in _own(loaded):
        return _read_extra(loaded, name, declared)
    return getattr(loaded, name)


def _read_extra(loaded: object, name: str, declared: object) -> object:
    """Lit, d'un modèle Pydantic qui admet tout, ce qui porte le nom d'une méthode de Pydantic (`copy`, `json`…).

    Une méthode de l'application, elle, n'est pas remplacée par ce que l'objet a reçu.
    """
    extra = loaded.model_extra if isinstance(loaded, BaseModel) and declared is vars(BaseModel).get(name) else None
    return (extra or {}).get(name, _REFUSED)


def _public_names(loaded: object) -> Iterable[str]:
    """Énumère les attributs publics d'un objet, de sa classe et des classes dont elle hérite."""
    if isinstance(loaded, Mapping) or _is_result_row(loaded):
        keys: Iterable[object] = loaded if isinstance(loaded, Mapping) else loaded._mapping  # type: ignore[attr-defined]  # noqa: SLF001 - idem
        return [key for key in keys if isinstance(key, str)]
    classes = [kind for kind in type(loaded).__mro__ if kind not in {object, BaseModel}]
    declared = [name for kind in classes for name in vars(kind)]
    extra = getattr(loaded, "model_extra", None) if isinstance(loaded, BaseModel) else None
    return dict.fromkeys([*_own(loaded), *declared, *(extra or ())])


def _own(loaded: object) -> Mapping[str, object]:
    """Renvoie ce qu'un objet porte en propre."""
    return vars(loaded) if hasattr(loaded, "__dict__") else {}


# --- objets d'un ORM ------------------------------------------------------------------------------------------------


def _state(loaded: object) -> Any:  # noqa: ANN401 - état de SQLAlchemy, que ce module n'importe pas
    """Renvoie ce que SQLAlchemy sait d'un objet ; None s'il n'est pas des siens."""
    return _own(loaded).get("_sa_instance_state")


def _read_mapped(loaded: object, name: str) -> object:
    """Lit une colonne chargée, ou une propriété de la classe ; rien n'est demandé à la base."""
    state, own = _state(loaded), _own(loaded)
    if name in own:
        return own[name]
    if name in state.mapper.column_attrs:
        return _explain_absence(state, loaded, name)
    if name in state.mapper.relationships:
        return state.mapper.relationships[name]  # ce n'est pas un scalaire, et l'objet lié n'est pas cherché
    with _apart_from_session(state):
        return _read_attribute(loaded, name)


def _explain_absence(state: Any, loaded: object, name: str) -> UnreadableAttribute | None:  # noqa: ANN401 - idem
    """Dit pourquoi une colonne n'est pas là ; un objet qui n'a jamais été écrit la laisse à None."""
    if state.key is None:
        return None
    kind = type(loaded).__name__
    if name in state.expired_attributes:
        mend = "rechargez l’objet (refresh) ou réglez expire_on_commit=False"
        return UnreadableAttribute(f"l’attribut {name} de {kind} est expiré : {mend}")
    return UnreadableAttribute(f"l’attribut {name} de {kind} n’a pas été chargé : demandez-le avec l’objet (undefer)")


@contextmanager
def _apart_from_session(state: Any) -> Iterator[None]:  # noqa: ANN401 - idem
    """Sépare un objet de sa session le temps d'une lecture : une propriété qui y chercherait ses colonnes échoue."""
    session, state.session_id = state.session_id, None
    try:
        yield
    finally:
        state.session_id = session
