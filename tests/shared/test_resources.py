from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fastapi_acl.shared.exceptions import DecisionFailedError
from fastapi_acl.shared.http.resources import expand, with_attributes
from fastapi_acl.shared.identity import SYSTEM, AttributedName, Principal


class Colour(enum.Enum):
    RED = "rouge"


class Model(BaseModel):
    owner: str = "ada"
    size: int = 3
    tags: list[str] = ["a"]


@dataclass
class Data:
    owner: str = "ada"
    size: int = 3
    tags: list[str] = field(default_factory=list)


class Slotted:
    __slots__ = ("owner",)


@pytest.mark.parametrize(
    "loaded",
    [
        Model(),
        Data(),
        {"owner": "ada", "size": 3, "tags": []},
        SimpleNamespace(owner="ada", size=3, tags=[], _secret="x"),
    ],
)
def test_only_public_scalars_are_copied(loaded: Any) -> None:
    assert with_attributes(loaded) == {"owner": "ada", "size": 3}


def test_identifiers_and_enumerations_become_scalars_and_objects_nothing() -> None:
    identifier = UUID(int=1)
    loaded = {"id": identifier, "colour": Colour.RED, "none": None, "call": print, "bytes": b"x", "dict": {"a": 1}}

    assert with_attributes(loaded) == {"id": str(identifier), "colour": "rouge", "none": None}
    assert with_attributes(Slotted()) == {}


def test_an_attribute_prevails_over_a_method_of_str_and_is_frozen() -> None:
    name = AttributedName("document", {"title": "mien"})

    assert (name, name.title) == ("document", "mien")
    with pytest.raises(AttributeError):
        name.owner = "moi"


def test_the_subject_is_the_prefixed_identifier_with_its_claims() -> None:
    subject = Principal(id="1", claims={"team": "a", "id": "menti"}).subject

    assert (subject, subject.id, subject.team) == ("user:1", "1", "a")
    assert (Principal(id="system").name, SYSTEM.name) == ("user:system", "system")


def test_a_parameter_the_route_does_not_have_fails_closed() -> None:
    with pytest.raises(DecisionFailedError):
        expand("document:{name}", {"other": "x"})


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_value_is_one_segment_and_never_a_pattern(value: str) -> None:
    resource = expand("document:{name}", {"name": value})

    assert resource.count(":") == 1
    assert "*" not in resource
    assert resource.isprintable() or not value.isprintable()


@given(st.text(max_size=8), st.text(max_size=8))
def test_two_values_never_become_one_resource(one: str, other: str) -> None:
    same = expand("{name}", {"name": one}) == expand("{name}", {"name": other})

    assert same == (one == other)
