"""Les jetons : tout ce qui n'est pas exactement un des nôtres est refusé, et jamais autrement que par un refus."""

import base64
import hashlib
import hmac
import json
import math
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_acl.auth.domain.dtos.auth_dtos import TokenClaims
from fastapi_acl.auth.infrastructure.services.token_service import JWTTokenService, TokenSettings
from fastapi_acl.shared.exceptions import ConfigurationError, InvalidTokenError

SECRET = "une clé d'essai de plus de trente-deux octets"
SETTINGS = TokenSettings(
    algorithm="HS256",
    secret=SECRET,
    issuer="émetteur",
    audience="destinataire",
    access_lifetime=900,
    refresh_lifetime=3600,
    leeway=10,
)
SERVICE = JWTTokenService(SETTINGS)
KEY_ID = SERVICE._kid
CLAIMS = TokenClaims(user_id=uuid4(), session_id=uuid4(), session_version=3, token_id="identifiant-imprévisible")
FAR = datetime.now(timezone.utc) + timedelta(days=30)


def access() -> str:
    return SERVICE.create_access_token(user_id=CLAIMS.user_id, session_id=CLAIMS.session_id, session_version=3)


def encode(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def header(**changes: Any) -> dict[str, Any]:
    return {"alg": "HS256", "typ": "at+jwt", "kid": KEY_ID, **changes}


def payload(**changes: Any) -> dict[str, Any]:
    return {**decode(access().split(".")[1]), **changes}


def forge(head: Any = None, body: Any = None, *, secret: str = SECRET, digest: str = "sha256") -> str:
    """Signe pour de bon, avec la vraie clé sauf mention contraire : seule la vérification peut refuser."""
    signed = f"{encode(header() if head is None else head)}.{encode(payload() if body is None else body)}"
    return f"{signed}.{encode(hmac.digest(secret.encode(), signed.encode(), digest))}"


def refused(token: Any) -> bool:
    try:
        SERVICE.decode_token(token)
    except InvalidTokenError:
        return True
    return False


def test_an_access_token_says_who_which_session_and_which_version() -> None:
    claims = SERVICE.decode_token(access())

    assert (claims.user_id, claims.session_id, claims.session_version) == (CLAIMS.user_id, CLAIMS.session_id, 3)


def test_a_refresh_token_carries_its_identifier_back() -> None:
    assert SERVICE.decode_refresh_token(SERVICE.create_refresh_token(CLAIMS, not_after=FAR)) == CLAIMS


def test_our_own_forgery_is_accepted_when_it_changes_nothing() -> None:
    assert SERVICE.decode_token(forge()).user_id == CLAIMS.user_id


def test_two_access_tokens_of_one_instant_are_different() -> None:
    assert len({access() for _ in range(50)}) == 50


def test_a_token_of_one_type_is_not_one_of_the_other() -> None:
    refresh = SERVICE.create_refresh_token(CLAIMS, not_after=FAR)

    with pytest.raises(InvalidTokenError):
        SERVICE.decode_refresh_token(access())
    assert refused(refresh)


def test_a_refresh_token_ends_with_its_lifetime_or_with_the_session_whichever_is_first() -> None:
    soon = datetime.now(timezone.utc) + timedelta(minutes=5)

    short = decode(SERVICE.create_refresh_token(CLAIMS, not_after=soon).split(".")[1])["exp"]
    full = decode(SERVICE.create_refresh_token(CLAIMS, not_after=FAR).split(".")[1])["exp"]

    assert short == int(soon.timestamp())
    assert abs(full - time.time() - 3600) < 5


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "sid", "sv", "jti", "iat", "exp"])
def test_a_token_without_one_of_its_claims_is_refused(claim: str) -> None:
    body = payload()
    del body[claim]

    assert refused(forge(body=body))


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "sid", "sv", "jti", "iat", "exp"])
@pytest.mark.parametrize("value", [None, True, False, 1.5, "", [], {}, ["destinataire"], math.inf, math.nan, -1e400])
def test_a_claim_of_another_type_is_refused(claim: str, value: Any) -> None:
    assert refused(forge(body=payload(**{claim: value})))


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "sid", "sv", "iat", "exp"])
@pytest.mark.parametrize("value", ["inf", "1", "9999999999"])
def test_a_number_or_an_identifier_written_as_some_text_is_refused(claim: str, value: str) -> None:
    assert refused(forge(body=payload(**{claim: value})))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 0},
        {"exp": -1},
        {"exp": True},
        {"iat": 10**400},
        {"iss": "un autre"},
        {"aud": "un autre"},
        {"sub": "admin"},
        {"sub": str(CLAIMS.user_id).upper()},
        {"sub": CLAIMS.user_id.hex},
        {"sub": f"{{{CLAIMS.user_id}}}"},
        {"sub": f"urn:uuid:{CLAIMS.user_id}"},
        {"sid": "pas-un-uuid"},
    ],
)
def test_a_claim_of_another_value_is_refused(changes: dict[str, Any]) -> None:
    assert refused(forge(body=payload(**changes)))


@pytest.mark.parametrize(("age", "accepted"), [(-5, True), (5, True), (20, False)])
def test_expiry_is_judged_with_the_leeway_and_no_more(age: int, accepted: bool) -> None:
    assert refused(forge(body=payload(exp=int(time.time()) - age))) is not accepted


@pytest.mark.parametrize(("ahead", "accepted"), [(5, True), (60, False)])
def test_a_token_from_the_future_is_refused_beyond_the_leeway(ahead: int, accepted: bool) -> None:
    assert refused(forge(body=payload(iat=int(time.time()) + ahead))) is not accepted


@pytest.mark.parametrize(
    ("ahead", "accepted"),
    [(-(10**9), True), (0, True), (5, True), (5.5, True), (60, False), (60.5, False), (10**9, False)],
)
def test_a_token_is_refused_before_its_nbf_leeway_apart(ahead: float, accepted: bool) -> None:
    body = payload(nbf=time.time() + ahead if isinstance(ahead, float) else int(time.time()) + ahead)

    assert refused(forge(body=body)) is not accepted


@pytest.mark.parametrize("value", [None, "0", "", True, False, [], {}, math.nan, -math.inf, math.inf, 10**400])
def test_an_nbf_that_is_no_instant_is_refused(value: Any) -> None:
    assert refused(forge(body=payload(nbf=value)))


def test_a_refresh_token_is_refused_before_its_nbf() -> None:
    head, body, _ = SERVICE.create_refresh_token(CLAIMS, not_after=FAR).split(".")
    early, due = ({**decode(body), "nbf": int(time.time()) + ahead} for ahead in (60, 0))

    with pytest.raises(InvalidTokenError):
        SERVICE.decode_refresh_token(forge(decode(head), early))
    assert SERVICE.decode_refresh_token(forge(decode(head), due)) == CLAIMS


def unsigned(head: Any) -> str:
    return f"{encode(head)}.{encode(payload())}."


FORGERIES = {
    "alg none": lambda: unsigned(header(alg="none")),
    "alg None": lambda: unsigned(header(alg="None")),
    "alg absent": lambda: forge({"typ": "at+jwt", "kid": KEY_ID}),
    "alg null": lambda: forge(header(alg=None)),
    "alg list": lambda: forge(header(alg=["HS256"])),
    "alg HS384": lambda: forge(header(alg="HS384"), digest="sha384"),
    "alg HS512": lambda: forge(header(alg="HS512"), digest="sha512"),
    "alg RS256 with an HMAC": lambda: forge(header(alg="RS256")),
    "alg in lower case": lambda: forge(header(alg="hs256")),
    "typ of a refresh token": lambda: forge(header(typ="rt+jwt")),
    "typ JWT": lambda: forge(header(typ="JWT")),
    "typ absent": lambda: forge({"alg": "HS256", "kid": KEY_ID}),
    "kid unknown": lambda: forge(header(kid="0" * 16)),
    "kid absent": lambda: forge({"alg": "HS256", "typ": "at+jwt"}),
    "kid a list": lambda: forge(header(kid=[KEY_ID])),
    "kid a path": lambda: forge(header(kid="../../etc/passwd")),
    "crit": lambda: forge(header(crit=["exp"])),
    "crit empty": lambda: forge(header(crit=[])),
    "jku": lambda: forge(header(jku="https://example.com/jwks")),
    "jwk": lambda: forge(header(jwk={"kty": "oct", "k": encode(b"k" * 32)}), secret="k" * 32),
    "x5u": lambda: forge(header(x5u="https://example.com/x")),
    "x5c": lambda: forge(header(x5c=["MIIB"])),
    "b64 false": lambda: forge(header(b64=False)),
    "another key": lambda: forge(secret="une autre clé, elle aussi de trente-deux octets"),
    "an empty key": lambda: forge(secret=""),
    "header a list": lambda: forge([header()]),
    "header a text": lambda: forge("HS256"),
    "header not JSON": lambda: forge(b"{alg:HS256}"),
    "header not UTF-8": lambda: forge(b"\xff\xfe"),
    "header deep": lambda: forge(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "header huge": lambda: forge(header(kid="k" * 4000)),
    "payload deep": lambda: forge(body=b"[" * 3000 + b"]" * 3000),
    "payload a list": lambda: forge(body=[payload()]),
    "payload null": lambda: forge(body=b"null"),
    "payload not JSON": lambda: forge(body=b"{"),
    "payload not UTF-8": lambda: forge(body=b"\xff"),
    "payload with a number of 5000 digits": lambda: forge(body=b'{"exp":' + b"9" * 5000 + b"}"),
    "oversized": lambda: forge(body=payload(extra="x" * 9000)),
    "not ASCII": lambda: access() + "é",
    "lone surrogate": lambda: access() + "\ud800",
    "NUL": lambda: access() + "\x00",
    "space after": lambda: access() + " ",
    "newline after": lambda: access() + "\n",
    "padded": lambda: access() + "=",
    "junk in the signature": lambda: access()[:-3] + "!" + access()[-3:],
    "two parts": lambda: access().rpartition(".")[0],
    "four parts": lambda: access() + "." + encode(b"x"),
    "five parts": lambda: ".".join(
        [encode(header(alg="dir", enc="A256GCM")), "", encode(b"iv"), encode(b"x"), encode(b"t")]
    ),
    "dots": lambda: "..",
    "empty": lambda: "",
    "no signature": lambda: access().rpartition(".")[0] + ".",
    "bytes": lambda: access().encode(),
    "None": lambda: None,
    "a number": lambda: 42,
    "Bearer kept": lambda: "Bearer " + access(),
}


@pytest.mark.parametrize("make", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forgery_is_refused(make: Any) -> None:
    with pytest.raises(InvalidTokenError) as error:
        SERVICE.decode_token(make())

    assert error.value.evidence == {}


@given(
    st.integers(min_value=0), st.integers(min_value=0, max_value=127), st.sampled_from(["replace", "insert", "delete"])
)
def test_a_mutated_token_is_never_accepted(position: int, point: int, how: str) -> None:
    token = access()
    index = position % len(token)
    kept = token[index + 1 :] if how != "insert" else token[index:]

    mutated = token[:index] + ("" if how == "delete" else chr(point)) + kept

    assert mutated == token or refused(mutated)


@given(st.text())
@example("a.b.c")
@example("eyJhbGciOiJIUzI1NiJ9..")
@example("\ud800.\ud800.\ud800")
def test_no_text_is_accepted_and_none_raises_anything_else(token: str) -> None:
    assert refused(token)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "jwk"]), json_values), json_values)
def test_no_signed_header_or_payload_of_another_shape_is_accepted(head: Any, body: Any) -> None:
    assert refused(forge(head, payload()))
    assert refused(forge(header(), [body]))


@given(
    st.sampled_from(["iss", "aud", "sub", "sid", "sv", "iat", "exp"]),
    json_values.filter(lambda value: type(value) is not int),
)
def test_no_signed_claim_of_another_shape_is_accepted(claim: str, value: Any) -> None:
    assert refused(forge(body=payload(**{claim: value})))


def test_a_previous_key_verifies_and_no_longer_signs() -> None:
    old = access()
    rotated = JWTTokenService(
        replace(SETTINGS, secret="la clé nouvelle, de trente-deux octets au moins", previous_secrets=[SECRET])
    )
    retired = JWTTokenService(replace(SETTINGS, secret="la clé nouvelle, de trente-deux octets au moins"))
    new = rotated.create_access_token(user_id=CLAIMS.user_id, session_id=CLAIMS.session_id, session_version=3)

    assert rotated.decode_token(old).user_id == CLAIMS.user_id
    assert rotated.decode_token(new).user_id == CLAIMS.user_id
    assert refused(new), "l'ancien processus ne connaît pas la clé nouvelle"
    with pytest.raises(InvalidTokenError):
        retired.decode_token(old)


def test_the_key_identifier_and_the_representations_reveal_no_key() -> None:
    assert KEY_ID not in {hashlib.sha256(SECRET.encode()).hexdigest()[:16], SECRET[:16]}
    for shown in (repr(SERVICE), repr(SETTINGS), str(SERVICE)):
        assert SECRET not in shown


def test_the_error_of_a_refused_token_quotes_neither_the_token_nor_the_key() -> None:
    with pytest.raises(InvalidTokenError) as error:
        SERVICE.decode_token(forge(header(kid="marque-du-jeton")))

    assert "marque-du-jeton" not in str(error.value)
    assert SECRET not in repr(error.value)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_each_configured_algorithm_signs_what_it_verifies(algorithm: str) -> None:
    service = JWTTokenService(replace(SETTINGS, algorithm=algorithm))

    token = service.create_access_token(user_id=CLAIMS.user_id, session_id=CLAIMS.session_id, session_version=0)

    assert decode(token.split(".")[0])["alg"] == algorithm
    assert service.decode_token(token).session_version == 0
    assert algorithm == "HS256" or refused(token)


def test_without_a_key_nothing_is_signed() -> None:
    with pytest.raises(ConfigurationError, match="ACL_JWT_SECRET_KEY"):
        JWTTokenService(replace(SETTINGS, secret=""))
