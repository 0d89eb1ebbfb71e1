"""Une valeur de la requête est un texte, le devient d'une seule façon, ou est refusée."""

import enum
import logging
from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pytest
from casbin.model import Model
from fastapi import Depends, FastAPI, Header, Path, Request
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, StringConstraints
from starlette.convertors import CONVERTOR_TYPES, Convertor

from fastapi_acl import ACLManager, Demand, PolicyRule, Principal, require, require_role
from fastapi_acl.engine.authorizer import PolicyAuthorizer, RequestBuilder
from fastapi_acl.engine.casbin.models import read_packaged_model
from fastapi_acl.shared.exceptions import DecisionFailedError, InvalidTokenError, ValueTooLongError
from fastapi_acl.shared.identity import MAX_REQUEST_VALUE, AttributedName
from fastapi_acl.shared.values import canonical_text
from tests.support.app import Client, config, serve, started
from tests.support.engines import strict_enforcer

TENANT = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")


class Name(str, enum.Enum):
    ACME = "acme"


class Number(enum.IntEnum):
    SEVEN = 7


class Nested(enum.Enum):
    SEVEN = Number.SEVEN
    TENANT = TENANT


class Text(str):
    """Un texte qui s'écrit autrement qu'il n'est."""

    __slots__ = ()

    def __str__(self) -> str:
        return "autre"


WRITTEN: list[tuple[Any, str]] = [
    ("acme", "acme"),
    (7, "7"),
    (-7, "-7"),
    (0, "0"),
    (TENANT, "0f8fad5b-d9cb-469f-a165-70867728950e"),
    (Name.ACME, "acme"),
    (Number.SEVEN, "7"),
    (Nested.SEVEN, "7"),
    (Nested.TENANT, str(TENANT)),
    (Text("acme"), "acme"),
]


class Odd(enum.Enum):
    HALF = 0.5
    YES = True
    PAIR = ("a", "b")


def kind(value: object) -> str:
    return type(value).__name__


UNWRITTEN: list[Any] = [
    True,
    False,
    0.0,
    7.0,
    float("nan"),
    b"acme",
    Decimal(7),
    date(2026, 1, 1),
    ["acme"],
    ("acme",),
    {"acme"},
    object(),
    Odd.HALF,
    Odd.YES,
    Odd.PAIR,
]


@pytest.mark.parametrize(("value", "text"), WRITTEN, ids=kind)
def test_a_value_with_one_spelling_takes_it_and_is_a_plain_text(value: object, text: str) -> None:
    written = canonical_text(value)

    assert (written, type(written)) == (text, str)


@pytest.mark.parametrize("value", [None, *UNWRITTEN], ids=kind)
def test_a_value_with_no_single_spelling_has_none(value: object) -> None:
    assert canonical_text(value) is None


@given(st.integers(), st.integers())
def test_two_numbers_never_become_one_text(one: int, other: int) -> None:
    assert (canonical_text(one) == canonical_text(other)) == (one == other)


@pytest.mark.parametrize("number", [10**4_096, -(10**4_095), 10**20_000], ids=["4097", "minus", "20000"])
def test_a_number_too_long_to_be_compared_is_refused_whatever_python_can_write(number: int) -> None:
    authorizer = of("acl")

    with pytest.raises(ValueTooLongError):
        authorizer.decide(Principal(id="1"), number, "read")  # type: ignore[arg-type]


# --- le moteur ---


class Fresh:
    """Une réplique toujours à jour."""

    def require_fresh(self, _: float) -> None:
        """Ne refuse rien."""


DENIED = [
    PolicyRule("p", ("role:member", "*", "*", "*", "allow")),
    PolicyRule("p", ("role:member", "7", "*", "*", "deny")),
    PolicyRule("p", ("role:member", "acme", "*", "*", "deny")),
    PolicyRule("p", ("role:member", str(TENANT), "*", "*", "deny")),
    PolicyRule("g", ("user:1", "role:member", "*")),
]


def of(name: str, *rules: PolicyRule, builder: RequestBuilder | None = None, text: str = "") -> PolicyAuthorizer:
    """Fait de quoi décider sous un modèle fourni, ou sous ce texte."""
    model = Model()
    model.load_model_from_text(text or read_packaged_model(name))
    enforcer = strict_enforcer(model, share_domains=True)
    enforcer.policy.install(rules)
    return PolicyAuthorizer(enforcer.policy, Fresh(), max_staleness=1, request_builder=builder)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "domain", [7, "7", Number.SEVEN, Nested.SEVEN, Name.ACME, "acme", TENANT, Text("acme")], ids=kind
)
def test_the_deny_of_a_tenant_holds_however_the_tenant_is_given(domain: Any) -> None:
    authorizer = of("rbac_with_domains", *DENIED)

    assert authorizer.decide(Principal(id="1"), "document", "read", "elsewhere")
    assert not authorizer.decide(Principal(id="1"), "document", "read", domain)


@pytest.mark.parametrize("value", UNWRITTEN, ids=kind)
@pytest.mark.parametrize("place", ["resource", "action", "domain"])
def test_what_has_no_single_spelling_is_an_error_wherever_it_stands(value: Any, place: str) -> None:
    asked: Any = {"resource": "document", "action": "read", "domain": "elsewhere", place: value}

    with pytest.raises(DecisionFailedError) as raised:
        of("rbac_with_domains", *DENIED).decide(Principal(id="1"), **asked)

    assert place in raised.value.reason
    assert type(value).__name__ in raised.value.reason or isinstance(value, enum.Enum)


@pytest.mark.parametrize("model", ["rbac", "acl", "abac", "rbac_with_domains"])
def test_a_value_of_4096_characters_is_compared_and_a_longer_one_refused(model: str) -> None:
    longest, beyond = "x" * MAX_REQUEST_VALUE, "x" * (MAX_REQUEST_VALUE + 1)
    domain = "elsewhere" if model == "rbac_with_domains" else None
    rest = ("allow",) if model != "abac" else ("*", "allow")
    authorizer = of(model, PolicyRule("p", ("user:1", *(["*"] if domain else []), "*", "*", *rest)))

    assert authorizer.decide(Principal(id="1"), longest, "read", domain)
    assert authorizer.decide(Principal(id="1"), "document", longest, domain)
    for asked in ((beyond, "read"), ("document", beyond), (AttributedName(beyond, {"owner": "1"}), "read")):
        with pytest.raises(ValueTooLongError):
            authorizer.decide(Principal(id="1"), *asked, domain)


def test_a_domain_too_long_or_empty_is_never_decided_upon() -> None:
    authorizer = of("rbac_with_domains", *DENIED)

    with pytest.raises(ValueTooLongError):
        authorizer.decide(Principal(id="1"), "document", "read", "x" * (MAX_REQUEST_VALUE + 1))
    with pytest.raises(DecisionFailedError):
        authorizer.decide(Principal(id="1"), "document", "read", "")
    with pytest.raises(DecisionFailedError):
        authorizer.holds_role(Principal(id="1"), "member", "")
    assert authorizer.holds_role(Principal(id="1"), "member", TENANT)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["rbac", "acl", "abac"])
def test_an_empty_resource_or_action_is_never_decided_upon(model: str) -> None:
    authorizer = of(model, PolicyRule("p", ("user:1", "*", "*", *(["*"] if model == "abac" else []), "allow")))

    for asked in (("", "read"), ("document", ""), (AttributedName("", {"owner": "1"}), "read")):
        with pytest.raises(DecisionFailedError):
            authorizer.decide(Principal(id="1"), *asked)


def test_an_attribute_named_as_a_method_of_str_does_not_disturb_the_question() -> None:
    authorizer = of("rbac_with_domains", *DENIED)
    named = AttributedName("document", {"startswith": "x", "partition": "y", "find": 3})

    assert authorizer.decide(Principal(id="1"), named, "read", "elsewhere")
    assert not authorizer.decide(Principal(id="1"), named, "read", "7")


# --- le sujet ---


@pytest.mark.parametrize(("value", "text"), WRITTEN, ids=kind)
def test_the_identifier_of_an_application_becomes_text_everywhere_it_is_read(value: Any, text: str) -> None:
    principal = Principal(id=value)

    assert (principal.id, principal.subject, principal.subject.id, principal.name) == (
        text,
        f"user:{text}",
        text,
        f"user:{text}",
    )


@pytest.mark.parametrize("value", [None, *UNWRITTEN], ids=kind)
def test_an_identifier_with_no_single_spelling_is_nobody(value: Any) -> None:
    with pytest.raises(DecisionFailedError):
        Principal(id=value)


def test_an_identifier_too_long_is_refused() -> None:
    assert len(Principal(id="x" * (MAX_REQUEST_VALUE - 5)).subject) == MAX_REQUEST_VALUE
    with pytest.raises(ValueTooLongError):
        Principal(id="x" * (MAX_REQUEST_VALUE - 4))


# --- request_builder ---

BUILT = """
[request_definition]
r = sub, obj, act, ip
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act && r.ip.version == 4
"""


class Address:
    version = 4


def test_a_builder_gives_text_for_the_tokens_that_are_known_and_anything_for_its_own() -> None:
    given: dict[str, Any] = {"ip": Address(), "obj": 7}
    authorizer = of("", PolicyRule("p", ("user:1", "7", "read")), builder=lambda _: given, text=BUILT)

    assert authorizer.decide(Principal(id="1"), "document", "read")
    for value in UNWRITTEN:
        given["obj"] = value
        with pytest.raises(DecisionFailedError):
            authorizer.decide(Principal(id="1"), "document", "read")


def test_a_builder_is_asked_about_values_that_are_text_already() -> None:
    seen: list[Demand] = []

    def build(demand: Demand) -> dict[str, object]:
        seen.append(demand)
        return {}

    of("rbac_with_domains", *DENIED, builder=build).decide(Principal(id="1"), 7, "read", TENANT)  # type: ignore[arg-type]

    assert (seen[0].resource, seen[0].domain) == ("7", str(TENANT))


# --- la route ---

tenants: dict[str, Any] = {"number": 7, "text": "acme", "uuid": TENANT, "member": Name.ACME, "free": "elsewhere"}
mistakes: dict[str, Any] = {"none": None, "float": 7.0, "bool": True, "object": object(), "bytes": b"acme", "empty": ""}


async def tenant(x_tenant: Annotated[str, Header()]) -> Any:
    return {**tenants, **mistakes}[x_tenant]


@pytest.fixture
async def ada(sqlite_uri: str) -> AsyncIterator[Client]:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri, model="rbac_with_domains"), app=app)

    @app.get("/documents", dependencies=[Depends(require("document:read", domain=tenant))])
    async def read() -> str:
        return "ok"

    @app.get("/own", dependencies=[Depends(require("acl.roles:read", domain=tenant))])
    async def own() -> str:
        return "ok"

    async with serve(app, manager) as client:
        known = await client.newcomer("ada")
        admin = await client.admin()
        rules = [rule.values for rule in DENIED[:-1]]
        await admin.add_rules(*(("p", *rule) for rule in rules), ("g", f"user:{known.id}", "role:member", "*"))
        yield known


async def test_a_tenant_given_by_a_dependency_is_denied_whatever_its_type(ada: Client) -> None:
    answers = {name: (await ada.get("/documents", headers={"X-Tenant": name})).status_code for name in tenants}

    assert answers == {"number": 403, "text": 403, "uuid": 403, "member": 403, "free": 200}


@pytest.mark.parametrize("path", ["/documents", "/own"])
@pytest.mark.parametrize("given", ["*", "acme:*", ":*"])
async def test_a_dependency_that_gives_a_pattern_of_tenants_fails_and_the_log_names_it(
    ada: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, path: str, given: str
) -> None:
    monkeypatch.setitem(tenants, "given", given)
    with caplog.at_level(logging.INFO, "fastapi_acl"):
        answer = await ada.get(path, headers={"X-Tenant": "given"})

    assert (answer.status_code, answer.json()["code"]) == (503, "decision_failed")
    lines = [record.message for record in caplog.records if record.message.startswith("decision_failed:")]
    assert len(lines) == 1
    assert f'route="GET {path}"' in lines[0]
    assert "domain=tenant rend un motif de domaines" in lines[0]


async def test_a_tenant_that_only_holds_a_star_is_a_tenant_like_another(
    ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tenants, "starred", "acme*")

    assert (await ada.get("/documents", headers={"X-Tenant": "starred"})).status_code == 200


@pytest.mark.parametrize("path", ["/documents", "/own"])
async def test_a_dependency_that_gives_no_tenant_fails_and_the_log_names_route_dependency_and_type(
    ada: Client, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    with caplog.at_level(logging.INFO, "fastapi_acl"):
        answers = [await ada.get(path, headers={"X-Tenant": name}) for name in mistakes]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "decision_failed")}
    lines = [record.message for record in caplog.records if record.message.startswith("decision_failed:")]
    assert len(lines) == len(mistakes)
    assert all(f'route="GET {path}"' in line for line in lines)
    kinds = ("NoneType", "float", "bool", "object", "bytes")
    assert all(f"domain=tenant rend un {kind} " in line for kind, line in zip(kinds, lines, strict=False))
    assert "vide" in lines[-1]


class Given:
    """L'identité d'une application dont les comptes ne sont pas des textes."""

    async def authenticate(self, token: str) -> Principal:
        known: dict[str, Any] = {"number": 7, "uuid": TENANT, "member": Name.ACME, "none": None, "float": 7.0}
        if token not in known:
            raise InvalidTokenError
        return Principal(id=known[token])


async def test_the_accounts_of_an_application_may_be_numbers_and_never_floats(sqlite_uri: str) -> None:
    app = FastAPI()
    settings = config(sqlite_uri=sqlite_uri, create_default_admin=False)
    manager = ACLManager(settings, app=app, authenticator=Given())

    @app.get("/documents", dependencies=[Depends(require("document:read"))])
    async def read() -> str:
        return "ok"

    @app.get("/role", dependencies=[Depends(require_role("reader"))])
    async def role() -> str:
        return "ok"

    async with serve(app, manager) as visitor:
        await manager.get_enforcer().add_policy("role:reader", "document", "read", "allow")
        for name in ("7", str(TENANT), "acme"):
            await manager.get_enforcer().add_role_for_user(f"user:{name}", "role:reader")
        callers = {name: Client(visitor.http, manager, name) for name in ("number", "uuid", "member", "none", "float")}
        answers = {
            name: {(await caller.get(path)).status_code for path in ("/documents", "/role")}
            for name, caller in callers.items()
        }

    assert answers == {"number": {200}, "uuid": {200}, "member": {200}, "none": {503}, "float": {503}}


# --- les paramètres de chemin ---


class Choice(enum.Enum):
    """Des noms dont deux désignent le même objet."""

    LOW = "low"
    HIGH = "high"

    @classmethod
    def _missing_(cls, value: object) -> "Choice | None":
        return cls.LOW if value == "bas" else None


class Order(enum.IntEnum):
    FIRST = 1


SPELLINGS: dict[str, tuple[Any, set[str], list[str]]] = {
    "int": (
        int,
        {"7", "-7", "0"},
        ["7", "-7", "0", "-0", "07", "+7", " 7", "7 ", "7.0", "1_000", "\u0667", "\uff17", "7e0", "0x7"],
    ),
    "float": (
        float,
        {"7.0", "0.0", "-7.5"},
        [
            *("7.0", "0.0", "-7.5", "-0.0", "-0", "0", "7", "7.00", "+7.0", "1e0", "0.1e1", ".5", " 7.0", "7.0 "),
            *("nan", "NaN", "inf", "-inf", "Infinity", "1e400", "-1e-400", "1_0.0", "\u0667.\u0660"),
        ],
    ),
    "uuid": (
        UUID,
        {str(TENANT)},
        [str(TENANT), str(TENANT).upper(), f"{{{TENANT}}}", TENANT.hex, f"urn:uuid:{TENANT}", f" {TENANT}"],
    ),
    "bool": (bool, {"true", "false"}, ["true", "false", "True", "1", "0", "yes", "on", "t", "TRUE", "off"]),
    "enum": (Choice, {"low", "high"}, ["low", "high", "bas", "LOW", "Low", "low "]),
    "order": (Order, {"1"}, ["1", "01", "1.0", "+1", "FIRST"]),
    "date": (date, {"2026-01-02"}, ["2026-01-02", "1767312000", "2026-01-02T00:00:00", "2026-1-2"]),
    "folded": (Annotated[str, StringConstraints(to_lower=True)], {"ada"}, ["ada", "Ada", "ADA"]),
    "stripped": (Annotated[str, StringConstraints(strip_whitespace=True)], {"ada"}, ["ada", " ada", "ada "]),
    "either": (int | None, {"7"}, ["7", "07", "+7", "7.0"]),
}


def spelled() -> FastAPI:
    """Une route par type de paramètre ; chacune rend la ressource décidée."""
    app = FastAPI()
    for name, (kind, _, _) in SPELLINGS.items():

        async def read(value: Any) -> str:
            return str(value)

        read.__annotations__["value"] = Annotated[kind, Path()]
        app.get(f"/{name}/{{value}}", dependencies=[Depends(require(f"{name}:{{value}}:read"))])(read)

    @app.get("/object/{value}", dependencies=[Depends(require("object:{value}:read"))])
    async def loaded(value: Annotated[str, AfterValidator(lambda _: object())]) -> str:
        return str(value)

    return app


async def test_only_the_canonical_spelling_of_a_path_value_reaches_a_decision(sqlite_uri: str) -> None:
    app = spelled()
    manager = ACLManager(config(sqlite_uri=sqlite_uri, policy_poll_seconds=60), app=app)

    async with serve(app, manager) as visitor:
        admin = await visitor.admin()
        for name, (_, canonical, tried) in SPELLINGS.items():
            answers = {spelling: (await admin.get(f"/{name}/{spelling}")).status_code for spelling in tried}

            assert {spelling for spelling, status in answers.items() if status == 200} == canonical, name
            assert {status for spelling, status in answers.items() if spelling not in canonical} <= {404, 422}, name


async def test_so_it_is_when_only_a_dependency_of_a_dependency_declares_the_value(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri, policy_poll_seconds=60), app=app)

    async def number(value: int) -> int:
        return value

    async def loaded(found: Annotated[int, Depends(number)]) -> int:
        return found

    @app.get("/deep/{value}", dependencies=[Depends(require("int:{value}:read")), Depends(loaded)])
    async def read() -> str:
        return "lu"

    async with serve(app, manager) as visitor:
        admin = await visitor.admin()
        answers = {spelling: (await admin.get(f"/deep/{spelling}")).status_code for spelling in SPELLINGS["int"][2]}

    assert {spelling for spelling, status in answers.items() if status == 200} == SPELLINGS["int"][1]


async def test_a_path_value_that_is_an_object_is_a_failed_decision_and_not_a_crash(sqlite_uri: str) -> None:
    app = spelled()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async with serve(app, manager) as visitor:
        answer = await (await visitor.admin()).get("/object/7")

    assert (answer.status_code, answer.json()["code"]) == (503, "decision_failed")


async def test_a_path_value_too_long_is_a_refusal(sqlite_uri: str) -> None:
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    @app.get("/files/{name}", dependencies=[Depends(require("file:{name}:read"))])
    async def read(name: str) -> str:
        return name

    async with serve(app, manager) as visitor:
        admin = await visitor.admin()
        answers = [await admin.get(f"/files/{'x' * length}") for length in (4_091, 4_092)]

    assert [answer.status_code for answer in answers] == [200, 403]
    assert answers[1].json()["code"] == "value_too_long"


class WordConvertor(Convertor[Any]):
    """Ce qu'une application lit d'elle-même dans une adresse."""

    regex = "[a-z]+"

    def convert(self, value: str) -> Any:
        return {"low": Choice.LOW, "acme": Name.ACME, "yes": True, "day": date(2026, 1, 1)}.get(value, object())

    def to_string(self, value: Any) -> str:
        return str(value)


async def test_what_a_convertor_reads_is_one_text_or_a_failed_decision(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONVERTOR_TYPES, "word", WordConvertor())
    app = FastAPI()
    manager = ACLManager(config(sqlite_uri=sqlite_uri), app=app)

    async def read(request: Request) -> str:
        return str(request.path_params)

    for form in ("number:float", "number:int", "number:uuid", "number:word"):
        guard = Depends(require("item:{number}:read"))
        app.get(f"/{form.partition(':')[2]}/{{{form}}}", dependencies=[guard])(read)

    async with serve(app, manager) as visitor:
        ada = await visitor.newcomer("ada")
        names = ("7.0", "7", str(TENANT), "low", "acme")
        await (await visitor.admin()).add_rules(
            *(("p", f"user:{ada.id}", f"item:{name}", "read", "allow") for name in names)
        )
        paths = ["/float/7.00", "/int/007", f"/uuid/{str(TENANT).upper()}", "/word/low", "/word/acme"]
        granted = [(await ada.get(path)).status_code for path in paths]
        failed = [(await ada.get(f"/word/{name}")).status_code for name in ("yes", "day", "other")]

    assert (granted, failed) == ([200] * 5, [503] * 3)


async def test_a_question_without_a_tenant_is_a_failed_decision_save_about_ourselves(sqlite_uri: str) -> None:
    async with started(sqlite_uri=sqlite_uri, model="rbac_with_domains") as manager:
        account = await manager.get_auth_repository().get_by_username("admin")
        admin = Principal(id=str(account.id))

        assert manager.authorizer.decide(admin, "acl.rules", "write")
        assert manager.authorizer.decide(admin, "document", "read", "un")
        with pytest.raises(DecisionFailedError):
            manager.authorizer.decide(admin, "document", "read")
