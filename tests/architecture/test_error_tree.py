"""L'arbre dessiné en tête de `exceptions.py` est celui des classes."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi_acl.shared import exceptions
from fastapi_acl.shared.exceptions import ACLException


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    _, _, drawn = (exceptions.__doc__ or "").partition("\n\n")

    assert [_without_remark(line) for line in drawn.splitlines()] == [*_draw(ACLException)]


def test_no_two_families_share_a_code() -> None:
    own = [kind.__dict__["code"] for kind in _all_of(ACLException) if "code" in kind.__dict__]

    assert len(set(own)) == len(own)


def _draw(kind: type[ACLException], indent: str = "") -> Iterator[str]:
    """Dessine une classe et ses filles, dans l'ordre où elles sont écrites."""
    if not indent:
        yield kind.__name__
    daughters = _daughters(kind)
    for daughter in daughters:
        is_last = daughter is daughters[-1]
        yield f"{indent}{'└── ' if is_last else '├── '}{daughter.__name__}"
        yield from _draw(daughter, f"{indent}{'    ' if is_last else '│   '}")


def _daughters(kind: type[ACLException]) -> list[type[ACLException]]:
    """Énumère les filles d'une classe que la bibliothèque définit ; un essai peut en définir d'autres."""
    return [daughter for daughter in kind.__subclasses__() if daughter.__module__ == exceptions.__name__]


def _all_of(kind: type[ACLException]) -> Iterator[type[ACLException]]:
    yield kind
    for daughter in _daughters(kind):
        yield from _all_of(daughter)


def _without_remark(line: str) -> str:
    """Ôte ce qui suit le nom de la classe."""
    name = line.lstrip("│├└─ ").split(maxsplit=1)[0]
    return line[: line.index(name) + len(name)]
