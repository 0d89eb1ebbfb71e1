from __future__ import annotations

import enum
import gc
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr, computed_field
from sqlalchemy import Column, ForeignKey, Integer, String, Table, create_engine, event, select
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    mapped_column,
    relationship,
    synonym,
)

from fastapi_acl.shared.exceptions import DecisionFailedError
from fastapi_acl.shared.http.attributes import with_attributes
from fastapi_acl.shared.http.resources import expand, route_template
from fastapi_acl.shared.identity import SYSTEM, AttributedName, Principal, UnreadableAttribute, make_name


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


class Grade(str, enum.Enum):
    HIGH = "haut"


class Word(str):
    """Un texte qui s'écrit autrement qu'il n'est."""

    __slots__ = ()

    def __str__(self) -> str:
        return "autre"


class Base:
    __slots__ = ("_owner", "owner")


class Inherited(Base):
    __slots__ = ("size",)

    def __init__(self) -> None:
        self.owner, self.size, self._owner = "ada", 3, "cachée"


class Pair(NamedTuple):
    owner: str
    size: int
    count: int = 1


class Computed:
    """Ce qu'une classe donne par du code."""

    kind = "lettre"

    def __init__(self) -> None:
        self.stored = "ada"

    @property
    def owner(self) -> str:
        return self.stored

    @cached_property
    def size(self) -> int:
        return 3

    @property
    async def later(self) -> str:
        return "plus tard"

    @property
    def broken(self) -> str:
        message = "mot de passe : secret"
        raise ValueError(message)

    @property
    def missing(self) -> str:
        raise AttributeError

    @property
    def tags(self) -> list[str]:
        return ["a"]

    @property
    def _hidden(self) -> str:
        return "cachée"

    def method(self) -> str:
        return self.stored

    @classmethod
    def made(cls) -> str:
        return cls.kind

    @staticmethod
    def alone() -> str:
        return "seule"


class Answering:
    """Un objet qui répond de ses attributs à la demande."""

    def __getattr__(self, name: str) -> str:
        if name == "owner":
            return "ada"
        raise AttributeError(name)


class Rich(BaseModel):
    model_config = ConfigDict(extra="allow")

    stored: str = "ada"
    _secret: str = PrivateAttr("cachée")

    @computed_field  # type: ignore[prop-decorator]  # pydantic le documente ainsi
    @property
    def owner(self) -> str:
        return self.stored


@dataclass(slots=True, frozen=True)
class Compact:
    owner: str = "ada"
    size: int = 3

    @property
    def double(self) -> int:
        return 2 * self.size


class Shadowed:
    """Un objet qui porte une valeur sous le nom d'une méthode de sa classe."""

    def owner(self) -> str:
        return "méthode"


def shadowed() -> Shadowed:
    made = Shadowed()
    made.__dict__["owner"] = "ada"
    return made


@pytest.mark.parametrize(
    "loaded",
    [
        Inherited(),
        Pair("ada", 3),
        Computed(),
        Answering(),
        Rich(),
        Rich(size=3),
        Compact(),
        Model(),
        Data(),
        {"owner": "ada"},
        MappingProxyType({"owner": "ada"}),
        defaultdict(str, owner="ada"),
        SimpleNamespace(owner="ada"),
        SimpleNamespace(owner=Word("ada")),
        shadowed(),
    ],
    ids=lambda loaded: type(loaded).__name__,
)
def test_the_owner_is_read_however_the_object_gives_it(loaded: Any) -> None:
    read = with_attributes(loaded, frozenset({"owner", "absent"}))

    assert read == {"owner": "ada"}
    assert type(read["owner"]) is str


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    def sealed(self) -> str:
        return "méthode"

    @property
    def owner(self) -> str:
        return "ada"


@pytest.mark.parametrize("name", ["copy", "json", "dict", "construct", "schema", "free"])
def test_an_extra_attribute_named_as_a_method_of_pydantic_is_read(name: str) -> None:
    loaded = Open.model_validate({name: "reçu"})

    assert with_attributes(loaded, frozenset({name})) == {name: "reçu"}
    assert with_attributes(loaded)[name] == "reçu"
    assert with_attributes(Open(), frozenset({name})) == {}


def test_an_extra_attribute_never_replaces_what_the_application_declares() -> None:
    loaded = Open.model_validate({"sealed": "reçu", "owner": "bob"})

    assert with_attributes(loaded, frozenset({"sealed", "owner"})) == {"owner": "ada"}


def test_what_a_mapping_would_make_up_is_absent() -> None:
    loaded: defaultdict[str, str] = defaultdict(lambda: "inventé")

    assert with_attributes(loaded, frozenset({"owner"})) == {}
    assert loaded == {}


def test_only_what_the_model_reads_is_read() -> None:
    asked: list[str] = []

    class Counting:
        @property
        def owner(self) -> str:
            asked.append("owner")
            return "ada"

        @property
        def costly(self) -> str:
            asked.append("costly")
            return "x"

    with_attributes(Counting(), frozenset({"owner"}))
    with_attributes(Counting(), frozenset())

    assert asked == ["owner"]


def test_everything_public_and_scalar_is_read_when_the_model_may_read_anything() -> None:
    read = with_attributes(Computed(), None)
    unreadable = {name: value for name, value in read.items() if isinstance(value, UnreadableAttribute)}

    assert set(unreadable) == {"broken", "missing"}
    assert {name: read[name] for name in read.keys() - unreadable} == {
        "kind": "lettre",
        "stored": "ada",
        "owner": "ada",
        "size": 3,
    }
    assert with_attributes(Inherited()) == {"owner": "ada", "size": 3}
    assert with_attributes(Pair("ada", 3)) == {"owner": "ada", "size": 3, "count": 1}
    assert with_attributes(Rich(size=3)) == {"stored": "ada", "owner": "ada", "size": 3}
    assert with_attributes(Compact()) == {"owner": "ada", "size": 3, "double": 6}


def test_a_property_that_raises_says_which_error_and_never_its_message() -> None:
    read = with_attributes(Computed(), frozenset({"broken"}))["broken"]

    assert isinstance(read, UnreadableAttribute)
    assert all(part in read.reason for part in ("broken", "Computed", "ValueError"))
    assert "secret" not in read.reason


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Decimal(7), "Decimal"),
        (date(2020, 1, 1), "date"),
        (b"ada", "bytes"),
        (["ada"], "list"),
        (3j, "complex"),
        (Data(), "Data"),
        (enum.Enum("Kind", {"X": ("ada",)}).X, "Kind"),  # type: ignore[attr-defined]
    ],
)
def test_what_the_model_reads_and_is_no_scalar_is_unreadable_by_its_type_and_otherwise_absent(
    value: Any, kind: str
) -> None:
    for loaded in ({"owner": value}, SimpleNamespace(owner=value)):
        read = with_attributes(loaded, frozenset({"owner", "absent"}))
        shape = type(loaded).__name__

        assert read == {
            "owner": UnreadableAttribute(
                f"l’attribut owner de {shape} est un {kind} : donnez un texte, un entier ou un UUID"
            )
        }
        assert with_attributes(loaded) == {}


def test_an_asynchronous_property_is_unreadable_and_leaves_no_coroutine_behind(
    recwarn: pytest.WarningsRecorder,
) -> None:
    read = with_attributes(Computed(), frozenset({"later"}))["later"]

    assert isinstance(read, UnreadableAttribute)
    assert "later de Computed est un coroutine" in read.reason
    assert "later" not in with_attributes(Computed())
    gc.collect()
    assert not list(recwarn)


def test_a_scalar_keeps_nothing_of_the_application() -> None:
    class Count(int):
        pass

    class Ratio(float):
        pass

    loaded = {"grade": Grade.HIGH, "count": Count(3), "ratio": Ratio(0.5), "word": Word("ada"), "flag": True}

    read = with_attributes(loaded)

    assert read == {"grade": "haut", "count": 3, "ratio": 0.5, "word": "ada", "flag": True}
    assert {name: type(value) for name, value in read.items()} == {
        "grade": str,
        "count": int,
        "ratio": float,
        "word": str,
        "flag": bool,
    }


# --- SQLAlchemy ---


class Tables(DeclarativeBase):
    pass


class Author(Tables):
    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Document(Tables):
    __tablename__ = "document"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str | None] = mapped_column("propriétaire")
    body: Mapped[str | None] = mapped_column(deferred=True)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author | None] = relationship()
    holder: Mapped[str | None] = synonym("owner")

    @property
    def title(self) -> str:
        return f"de {self.owner}"

    @property
    def signed(self) -> str:
        return self.author.name if self.author is not None else "personne"

    @hybrid_property
    def is_owned(self) -> bool:
        return self.owner is not None


class MappedData(MappedAsDataclass, Tables):
    __tablename__ = "data"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(default="ada")


class Imperative:
    owner: str


TABLE = Table("imperative", Tables.metadata, Column("id", Integer, primary_key=True), Column("owner", String))
Tables.registry.map_imperatively(Imperative, TABLE)


@pytest.fixture
def session() -> Iterator[tuple[Session, list[str]]]:
    """Une vraie base, et ce qu'on lui demande."""
    engine = create_engine("sqlite://")
    Tables.metadata.create_all(engine)
    statements: list[str] = []
    with Session(engine) as opened:
        author = Author(id=1, name="Ada")
        imperative = Imperative()
        imperative.owner = "ada"
        opened.add_all(
            [author, Document(id=1, owner="ada", body="x", author=author), MappedData(id=1, owner="ada"), imperative]
        )
        opened.commit()
        opened.expunge_all()
        event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        yield opened, statements
    engine.dispose()


@pytest.mark.parametrize("kind", [Document, MappedData, Imperative])
def test_mapped_columns_are_read_from_the_object_and_never_from_the_database(
    session: tuple[Session, list[str]], kind: type[Any]
) -> None:
    opened, statements = session
    loaded = opened.scalars(select(kind)).one()
    statements.clear()
    fresh = with_attributes(loaded, frozenset({"owner"}))
    opened.commit()

    expired = with_attributes(loaded, frozenset({"owner", "absent"}))

    assert fresh == {"owner": "ada"}
    assert isinstance(expired["owner"], UnreadableAttribute)
    assert expired["owner"].reason == (
        f"l’attribut owner de {kind.__name__} est expiré : rechargez l’objet (refresh) ou réglez expire_on_commit=False"
    )
    assert expired.keys() == {"owner"}
    assert statements == []
    opened.refresh(loaded)
    assert with_attributes(loaded, frozenset({"owner"})) == {"owner": "ada"}


def test_a_property_of_a_mapped_object_reads_what_is_loaded_and_nothing_else(
    session: tuple[Session, list[str]],
) -> None:
    opened, statements = session
    loaded = opened.scalars(select(Document)).one()
    statements.clear()

    read = with_attributes(loaded, None)
    again = with_attributes(loaded, frozenset({"signed"}))

    unreadable = {name for name, value in read.items() if isinstance(value, UnreadableAttribute)}
    assert unreadable == {"body", "signed"}
    assert {name: read[name] for name in read.keys() - unreadable} == {
        "id": 1,
        "owner": "ada",
        "holder": "ada",
        "author_id": 1,
        "title": "de ada",
        "is_owned": True,
    }
    assert isinstance(again["signed"], UnreadableAttribute)
    assert statements == []
    assert loaded in opened
    assert loaded.author is not None
    assert with_attributes(loaded, frozenset({"signed"})) == {"signed": "Ada"}
    assert loaded.body == "x"
    assert with_attributes(loaded, frozenset({"body"})) == {"body": "x"}


def test_a_column_that_is_not_loaded_says_so(session: tuple[Session, list[str]]) -> None:
    opened, statements = session
    loaded = opened.scalars(select(Document)).one()
    statements.clear()

    read = with_attributes(loaded, frozenset({"body"}))["body"]

    assert isinstance(read, UnreadableAttribute)
    assert "n’a pas été chargé" in read.reason
    assert statements == []


@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_relationship_the_model_reads_is_unreadable_and_never_fetched(
    session: tuple[Session, list[str]], is_loaded: bool
) -> None:
    opened, statements = session
    loaded = opened.scalars(select(Document)).one()
    assert not is_loaded or loaded.author is not None
    statements.clear()

    read = with_attributes(loaded, frozenset({"author"}))["author"]

    assert isinstance(read, UnreadableAttribute)
    assert "author de Document est un " in read.reason
    assert "author" not in with_attributes(loaded)
    assert statements == []


def test_a_detached_or_new_object_gives_what_it_holds(session: tuple[Session, list[str]]) -> None:
    opened, _ = session
    loaded = opened.scalars(select(Document)).one()
    opened.expunge(loaded)

    assert with_attributes(loaded, frozenset({"owner", "title"})) == {"owner": "ada", "title": "de ada"}
    assert with_attributes(Document(owner="bob"), frozenset({"owner", "id"})) == {"owner": "bob", "id": None}


def test_a_row_gives_its_columns_even_under_the_name_of_a_method(session: tuple[Session, list[str]]) -> None:
    opened, _ = session
    row = opened.execute(select(Document.owner, Document.id.label("count"))).one()

    assert with_attributes(row, frozenset({"owner", "count"})) == {"owner": "ada", "count": 1}
    assert with_attributes(row) == {"owner": "ada", "count": 1}
    assert with_attributes(row._mapping, frozenset({"owner"})) == {"owner": "ada"}


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
@example("a%3A", "a:")
@example("%252A", "%2A")
@example("%25", "%")
def test_two_values_never_become_one_resource(one: str, other: str) -> None:
    same = expand("{name}", {"name": one}) == expand("{name}", {"name": other})

    assert same == (one == other)


async def test_a_template_is_that_of_the_whole_path_or_none() -> None:
    outer, inner = FastAPI(), FastAPI()

    @inner.get("/x")
    async def whole(request: Request) -> str:
        return route_template(request)

    @outer.get("/moved/{name}")
    async def moved(request: Request) -> str:
        request.scope["path"] = "/elsewhere/a"
        return route_template(request)

    outer.mount("/plain", inner)
    outer.mount("/of/{tenant}", inner)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://essai") as http:
        assert (await http.get("/plain/x")).json() == "/plain/x"
        for path in ("/of/acme/x", "/moved/a"):
            with pytest.raises(DecisionFailedError):
                await http.get(path)


def test_an_unreadable_attribute_fails_whoever_reads_it() -> None:
    name = make_name("document", {"owner": UnreadableAttribute("sa lecture a levé KeyError"), "level": 3})

    assert (name, getattr(name, "level")) == ("document", 3)  # noqa: B009 - l'attribut n'est pas déclaré
    with pytest.raises(DecisionFailedError):
        getattr(name, "owner")  # noqa: B009 - idem
