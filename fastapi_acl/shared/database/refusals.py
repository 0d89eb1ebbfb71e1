"""Ce qu'une base refuse pour de bon : le redemander n'y change rien, et l'exploitant seul y peut quelque chose."""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.logging import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


class Refusal(NamedTuple):
    """Un refus sans appel.

    Attributes:
        words: ce que le serveur en dit.
        advice: ce que l'exploitant doit faire.
    """

    words: str
    advice: str


RIGHTS: Final = "donnez à ce compte le droit qui lui manque (GRANT)"
READ_ONLY: Final = "ce serveur n’admet aucune écriture : donnez l’adresse du primaire, ou rendez-le inscriptible"
IDENTITY: Final = "vérifiez le compte, le mot de passe et le nom de la base que donne l’adresse"
FULL: Final = "le disque du serveur est plein : faites-y de la place"
FOREIGN_KEY: Final = (
    "une clé étrangère de l’application mène à nos tables : retirez-la, démarrez, donnez à sa colonne la collation de "
    "la nôtre, puis refaites-la"
)
SCHEMA: Final = (
    "une table ou une colonne à nous manque, ou n’est plus la nôtre : restaurez-la, ou lancez « fastapi-acl migrate »"
)
SETTING: Final = "le serveur ne connaît pas un réglage que l’adresse lui donne (options=…) : corrigez-le, ou retirez-le"
CERTIFICATE: Final = (
    "le certificat du serveur n’est pas admis : écrivez dans l’adresse le nom d’hôte qu’il porte, et l’autorité qui "
    "l’a signé (sslrootcert=, ssl_ca=, tlsCAFile=)"
)
NO_TLS: Final = "activez TLS sur le serveur, ou retirez de l’adresse ce qui le demande (ssl=, ssl_ca=)"
PACKET: Final = "relevez la taille que le serveur admet (max_allowed_packet)"

ADVICE: Final[Mapping[str, str]] = {
    # PostgreSQL : https://www.postgresql.org/docs/current/errcodes-appendix.html
    **dict.fromkeys(("42501",), RIGHTS),
    **dict.fromkeys(("25006",), READ_ONLY),
    **dict.fromkeys(("28000", "28P01", "3D000", "57P04"), IDENTITY),
    **dict.fromkeys(("53100",), FULL),
    **dict.fromkeys(("42P01", "42703", "42804", "42883"), SCHEMA),
    **dict.fromkeys(("42704",), SETTING),
    # MySQL et MariaDB : https://mariadb.com/kb/en/mariadb-error-code-reference/
    **dict.fromkeys(("1044", "1142", "1143", "1227", "1370"), RIGHTS),
    **dict.fromkeys(("1290", "1792", "1836"), READ_ONLY),
    **dict.fromkeys(("1045", "1049", "1698"), IDENTITY),
    **dict.fromkeys(("1021", "1114"), FULL),
    **dict.fromkeys(("1153",), PACKET),
    **dict.fromkeys(("1054", "1146"), SCHEMA),
    **dict.fromkeys(("2026",), NO_TLS),
    **dict.fromkeys(("1832", "1833", "3780"), FOREIGN_KEY),
    # SQLite, dont le pilote ne donne un code que depuis Python 3.11.
    "attempt to write a readonly database": READ_ONLY,
    "database or disk is full": FULL,
    **dict.fromkeys(("no such table", "no such column"), SCHEMA),
}
"""Ce que l'exploitant doit faire, par code d'erreur d'une base SQL."""

_LOST_COLUMN: Final = re.compile(r"table .+ has no column named .*", re.DOTALL)
"""Ce que SQLite dit d'une colonne qui manque quand il écrit ; quand il lit, c'est « no such column »."""

CROWDED: Final = (
    "trop de connexions pour ce serveur : relevez sa limite (max_connections), ou baissez ACL_DATABASE_POOL_SIZE et "
    "ACL_DATABASE_MAX_OVERFLOW"
)
HINTS: Final[Mapping[str, str]] = dict.fromkeys(("53300", "1040", "1203", "1226"), CROWDED)
"""Ce qui passerait de soi-même, mais revient tant que l'exploitant n'y fait rien."""

NO_ROOM: Final = (
    "aucune connexion du pool ne s’est libérée à temps : relevez ACL_DATABASE_POOL_SIZE ou "
    "ACL_DATABASE_MAX_OVERFLOW si cela dure"
)
LATE: Final = "elle n’a pas répondu à temps"

NEVER_DONE: Final[Mapping[str, frozenset[str]]] = {
    "casbin_rule": frozenset({"UPDATE"}),
    "acl_changes": frozenset({"UPDATE"}),
    "acl_batch_rules": frozenset({"UPDATE"}),
    "acl_revision": frozenset({"DELETE"}),
}
"""Droits dont nous n'usons pas."""


def rights_on(table: str) -> tuple[str, ...]:
    """Renvoie les droits qu'il nous faut sur une table."""
    return tuple(
        right for right in ("SELECT", "INSERT", "UPDATE", "DELETE") if right not in NEVER_DONE.get(table, frozenset())
    )


def codes_of(error: BaseException) -> frozenset[str]:
    """Renvoie les codes que le serveur a donnés à une erreur : le SQLSTATE, le numéro de MySQL, la phrase de SQLite.

    D'une phrase de SQLite, on garde ce qu'il dit avant de nommer la colonne.
    """
    cause = getattr(error, "orig", None) or error
    given = (getattr(cause, "sqlstate", None), *cause.args[:1])
    return frozenset(
        _LOST_COLUMN.sub("no such column", str(code)).partition(":")[0] for code in given if code is not None
    )


def refusal_of(error: BaseException) -> Refusal | None:
    """Reconnaît, d'une base SQL, un refus sans appel ; None si elle pourrait changer d'avis d'elle-même."""
    if is_caused_by(error, (ssl.SSLCertVerificationError,)):
        return Refusal(words_of(error), CERTIFICATE)
    advice = next((ADVICE[code] for code in codes_of(error) if code in ADVICE), None)
    return Refusal(words_of(error), advice) if advice is not None else None


def is_caused_by(error: BaseException | None, kinds: tuple[type[BaseException], ...]) -> bool:
    """Dit si une erreur, ou ce qui l'a causée, est de l'une de ces sortes ; SQLAlchemy garde la sienne dans `orig`."""
    while error is not None and not isinstance(error, kinds):
        error = getattr(error, "orig", None) or error.__cause__
    return error is not None


def words_of(error: BaseException) -> str:
    """Renvoie ce que le serveur dit d'une erreur, sans l'instruction ni ses valeurs, et ce qui l'éviterait."""
    cause = getattr(error, "orig", None) or error
    silence = LATE if isinstance(cause, (TimeoutError, asyncio.TimeoutError)) else type(cause).__name__
    hint = next((f" ; {HINTS[code]}" for code in codes_of(error) if code in HINTS), "")
    return f"{one_line(cause) or silence}{hint}"


@contextmanager
def explain_refusals(diagnose: Callable[[Exception], Refusal | None], table: str | None = None) -> Iterator[None]:
    """Fait d'un refus du serveur une faute de réglage, que le démarrage dit à l'exploitant.

    Args:
        diagnose: reconnaît un refus sans appel.
        table: la table, ou la collection, que l'on essaie ; None si c'est autre chose.

    Raises:
        ConfigurationError: le serveur a refusé pour de bon.
    """
    try:
        yield
    except Exception as error:
        refusal = diagnose(error)
        if refusal is None:
            raise
        raise refuse_start(refusal, table) from error


def refuse_start(refusal: Refusal, table: str | None = None) -> ConfigurationError:
    """Dit ce qui empêche de démarrer, et ce que l'exploitant doit faire."""
    what = f"la table « {table} »" if table is not None else "ce que le démarrage lui demande"
    return ConfigurationError(f"la base nous refuse {what} ({refusal.words}) : {refusal.advice}.")


def missing_rights(account: str, grants: Iterable[str]) -> ConfigurationError:
    """Dit d'un coup tous les droits qui manquent à un compte, par les instructions qui les donnent.

    Args:
        account: le compte, tel qu'une instruction le nomme.
        grants: ce qui lui manque, chacun comme « SELECT ON acl_users ».
    """
    wanted = "; ".join(f"GRANT {one} TO {account}" for one in grants)
    return ConfigurationError(f"la base nous refuse ce dont nous avons besoin : donnez-le par « {wanted}; ».")
