"""Une adresse fautive est une faute de réglage, dite au démarrage sans rien citer d'elle ; jamais une panne."""

from __future__ import annotations

import pytest

from fastapi_acl.runtime.composition import compose
from fastapi_acl.shared.exceptions import ConfigurationError
from tests.conftest import DATABASES
from tests.support.app import config

HOST = "127.0.0.1:1"
"""Un port où rien n'écoute : joindre le serveur serait une panne."""

FAULTY = [
    ("postgresql", "u:mot/secret@127.0.0.1:1/acl"),
    ("postgresql", f"u:mot?secret@{HOST}/acl?sslmode=require"),
    ("postgresql", f"u:mot?secret@{HOST}/acl"),
    ("postgresql", "u:secret@127.0.0.1:99999/acl"),
    ("postgresql", "u:mot@[secret@127.0.0.1:1/acl"),
    ("postgresql", f"u:secret@{HOST}/acl?sslmode=stricte"),
    ("postgresql", f"u:secret@{HOST}/acl?sslmode=verify-full&sslrootcert=/absent/secret.pem"),
    ("postgresql", f"u:secret@{HOST}/acl?sslmode=require&ssl_min_protocol_version=vieille"),
    ("postgresql", f"u:secret@{HOST}/acl?target_session_attrs=quelconque"),
    ("postgresql", f"u:secret@{HOST}/acl?sslmode=verify-full&sslrootcert={__file__}"),
    ("postgresql", f"u:secret@{HOST}/acl?sslmode=require&sslcert={__file__}&sslkey={__file__}"),
    ("mysql", "u:secret@127.0.0.1:99999/acl"),
    ("mysql", f"u:secret@{HOST}"),
    ("mysql", f"u:secret@{HOST}/"),
    ("mysql", f"u:secret@{HOST}/acl?inconnu=1"),
    ("mysql", f"u:secret@{HOST}/acl?ssl_mode=REQUIRED"),
    ("mysql", f"u:secret@{HOST}/acl?ssl_ca={__file__}"),
    ("mysql", f"u:secret@{HOST}/acl?ssl_ca=/absent/secret.pem"),
    ("mongodb", "u:mot/secret@127.0.0.1:1/acl"),
    ("mongodb", f"u:secret@{HOST}/acl?tls=true&tlsCAFile=/absent/secret.pem"),
    ("mongodb", f"u:secret@{HOST}/acl?tls=true&tlsCAFile={__file__}"),
    ("mongodb", f"u:mot?secret@{HOST}/acl"),
    ("mongodb", f"u:secret@{HOST}/acl?inconnue=secret"),
    ("mongodb", f"u:secret@{HOST}/acl?retryWrites=true&socketTimeoutMS=bientôt"),
    ("mongodb", f"u:secret@{HOST}/acl?compressors=snappy"),
    ("mongodb", f"u:secret@{HOST}/acl?w=0"),
    ("mongodb", f"u:secret@{HOST}/acl?readPreference=secondary"),
]


@pytest.mark.parametrize(("kind", "address"), [one for one in FAULTY if one[0] in DATABASES])
async def test_a_faulty_address_refuses_to_start_and_is_not_quoted(kind: str, address: str) -> None:
    settings = {"database_type": kind, f"{kind}_uri": f"{kind}://{address}", "create_default_admin": False}

    with pytest.raises(ConfigurationError, match=f"ACL_{kind.upper()}_URI") as refused:
        made = compose(config(**settings))
        try:
            await made.database.migrate()
        finally:
            await made.database.close()
            made.hasher.close()

    assert "secret" not in refused.value.detail
    assert "mot/" not in refused.value.detail
