"""L'adresse de PostgreSQL, telle que libpq l'écrit : ce que le pilote en entend, et ce que nous traduisons."""

from __future__ import annotations

import configparser
import difflib
import os
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode

from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PASSED_ON: Final = frozenset(
    {
        *("host", "port", "dbname", "database", "user", "password", "passfile", "service", "application_name"),
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation", "options"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "krbsrvname", "gsslib"),
    }
)
"""Paramètres de libpq que le pilote entend de même."""

FILES: Final = frozenset({"sslrootcert", "sslcert", "sslkey", "sslcrl"})
"""Ceux d'entre eux qui nomment un fichier."""

SYSTEM: Final = "system"
"""Valeur de `sslrootcert` qui désigne les autorités de la machine ; le pilote n'entend qu'un fichier."""

BUNDLES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
"""Où une machine garde ses autorités, si OpenSSL ne le sait pas."""

SERVICES: Final = "~/.pg_service.conf"
"""Fichier des services de libpq, sauf si PGSERVICEFILE en nomme un autre."""

OURS: Final = frozenset({"connect_timeout", "statement_cache_size"})
"""Paramètres que nous traduisons : un délai en secondes, et la taille du cache d'instructions préparées."""

INSTEAD: Final = {
    "ssl": "écrivez sslmode=",
    "channel_binding": "le pilote ne lie pas le canal ; sslmode=verify-full authentifie le serveur",
    "hostaddr": "écrivez host=",
    "sslcompression": "retirez-le : TLS ne comprime plus",
    "gssencmode": "retirez-le ; sslmode= chiffre",
    "fallback_application_name": "écrivez application_name=",
    "prepared_statement_cache_size": "écrivez statement_cache_size=",
    "command_timeout": "retirez-le : les délais sont ceux de la bibliothèque",
    "search_path": "réglez ACL_POSTGRESQL_SCHEMA",
    "client_encoding": "retirez-le : le pilote parle UTF-8",
}
"""Ce qu'il faut écrire à la place des paramètres que le pilote n'a pas."""

UNREAD: Final = (
    "l’adresse de la base (ACL_POSTGRESQL_URI) ne se lit pas : vérifiez le port, et que le mot de passe y est "
    "échappé (« / » s’écrit %2F, « ? » %3F, « @ » %40, « # » %23)."
)

_NAME: Final = re.compile(r"[A-Za-z_]{1,40}")
"""Forme d'un nom de paramètre."""


def read_address(uri: str) -> tuple[str, dict[str, int]]:
    """Sépare une adresse, telle que le pilote l'entend, des paramètres que nous traduisons.

    Raises:
        ConfigurationError: un paramètre n'est d'aucun des deux, et le message dit celui qu'il faut ; ou un fichier
            manque.
    """
    address, _, query = uri.partition("://")[2].partition("?")
    given = parse_qsl(query, keep_blank_values=True)
    unknown = [name for name, _ in given if name not in PASSED_ON | OURS]
    if any(_NAME.fullmatch(name) is None for name in unknown):
        raise ConfigurationError(UNREAD)  # un mot de passe qui contient « ? » : le citer le montrerait
    if unknown:
        raise ConfigurationError(_tell_refusal(unknown[0]))
    given = [
        (name, _authorities(given) if (name, value) == ("sslrootcert", SYSTEM) else value) for name, value in given
    ]
    _check_files({name: value for name, value in given if name in FILES | {"sslpassword"}})
    for name, value in given:
        if name == "service":
            _check_service(value)
    kept = urlencode([(name, value) for name, value in given if name in PASSED_ON])
    return f"postgresql://{address}" + f"?{kept}" * bool(kept), {n: _number(n, v) for n, v in given if n in OURS}


def _check_files(given: Mapping[str, str]) -> None:
    """Vérifie les fichiers de TLS : le pilote ne les lit qu'à chaque ouverture, où leur faute paraît une panne.

    Raises:
        ConfigurationError: un fichier manque, ou ne se lit pas.
    """
    files = {name: Path(value).expanduser() for name, value in given.items() if name in FILES}
    for name, path in files.items():
        if not path.is_file():
            message = f"dans ACL_POSTGRESQL_URI, « {name} » ne mène à aucun fichier."
            raise ConfigurationError(message)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        for name in files.keys() & {"sslrootcert", "sslcrl"}:
            context.load_verify_locations(files[name])
        if {"sslcert", "sslkey"} <= files.keys():
            context.load_cert_chain(files["sslcert"], files["sslkey"], given.get("sslpassword", ""))
    except OSError as error:
        message = (
            "un fichier de TLS que nomme ACL_POSTGRESQL_URI (sslrootcert, sslcrl, sslcert, sslkey) ne se lit pas : "
            "vérifiez ses droits, son format (PEM), et que la clé soit celle du certificat."
        )
        raise ConfigurationError(message) from error


def _authorities(given: Sequence[tuple[str, str]]) -> str:
    """Renvoie le fichier des autorités de la machine ; comme libpq, elles ne valent qu'avec le nom vérifié.

    Raises:
        ConfigurationError: `sslmode` demande moins, ou la machine n'en a pas.

    Source : https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-CERTIFICATES
    """
    if dict(given).get("sslmode") != "verify-full":
        message = "dans ACL_POSTGRESQL_URI, « sslrootcert=system » demande aussi « sslmode=verify-full »."
        raise ConfigurationError(message)
    places = (ssl.get_default_verify_paths().cafile, *BUNDLES)
    found = next((place for place in places if Path(place or os.devnull).is_file()), None)
    if found is None:
        message = (
            "dans ACL_POSTGRESQL_URI, « sslrootcert=system » : cette machine n’a pas d’autorités ; nommez un fichier."
        )
        raise ConfigurationError(message)
    return found


def _check_service(name: str) -> None:
    """Refuse un service que le fichier n'a pas, et dont le pilote se passerait.

    Raises:
        ConfigurationError: il n'y est pas, ou le fichier ne se lit pas.

    Source : https://www.postgresql.org/docs/current/libpq-pgservice.html
    """
    known = configparser.ConfigParser()
    try:
        known.read(Path(os.environ.get("PGSERVICEFILE", SERVICES)).expanduser())
    except (configparser.Error, UnicodeDecodeError) as error:
        message = "le fichier des services de libpq (PGSERVICEFILE, sinon ~/.pg_service.conf) ne se lit pas."
        raise ConfigurationError(message) from error
    if name not in known.sections():
        message = (
            "dans ACL_POSTGRESQL_URI, « service » en nomme un que le fichier des services (PGSERVICEFILE, sinon "
            "~/.pg_service.conf) n’a pas."
        )
        raise ConfigurationError(message)


def _number(name: str, value: str) -> int:
    """Lit un nombre.

    Raises:
        ConfigurationError: ce n'en est pas un.
    """
    if not (value.isascii() and value.isdigit()):
        message = f"dans ACL_POSTGRESQL_URI, « {name} » est un nombre entier."
        raise ConfigurationError(message)
    return int(value)


def _tell_refusal(name: str) -> str:
    """Dit pourquoi un paramètre est refusé, et ce qui le remplace."""
    meant = difflib.get_close_matches(name, PASSED_ON | OURS, n=1, cutoff=0.85)
    usual = f"vouliez-vous « {meant[0]} » ?" if meant else "un réglage du serveur s’écrit options=-c%20nom%3Dvaleur."
    advice = f"{INSTEAD[name]}." if name in INSTEAD else usual
    return f"dans ACL_POSTGRESQL_URI, le paramètre « {name} » n’est pas connu du pilote : {advice}"
