"""La clé de signature du développement, gardée dans un fichier : les jetons d'avant un redémarrage valent encore.

Elle n'est crue que si personne d'autre n'a pu la lire ni l'écrire. Deux processus qui démarrent ensemble n'en font
qu'une : elle s'écrit à part, puis prend son nom d'un coup, et le second, qui ne peut le prendre, lit celle du premier.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi_acl.shared.database.sqlite_files import file_of
from fastapi_acl.shared.exceptions import ConfigurationError
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from fastapi_acl.shared.config import ACLConfig

logger = get_logger("environment")

FILE_NAME: Final = ".fastapi_acl.key"
MAX_BYTES: Final = 4_096

KEY: Final = re.compile(rb"[!-~]{32,}")
"""32 octets au moins (RFC 7518, 3.2), sans espace : un fichier coupé n'est pas une clé."""

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
READ: Final = os.O_RDONLY | NO_FOLLOW | getattr(os, "O_NONBLOCK", 0)
"""Sans attendre : ouvrir un tube que personne n'écrit n'en finirait pas."""

CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW


def development_key(config: ACLConfig) -> str | None:
    """Renvoie la clé du développement, faite au premier appel.

    Returns:
        La clé ; None en production, pour une base en mémoire, et où le dossier ne s'écrit pas.

    Raises:
        ConfigurationError: le fichier est là, mais un autre compte a pu le lire ou l'écrire, ou la clé n'est pas
            entière.
    """
    folder = None if config.is_production or not hasattr(os, "getuid") else _folder(config)
    if folder is None:
        return None
    path = folder / FILE_NAME
    try:
        return _read(path) or _create(path)
    except OSError as error:
        logger.debug("development_key_not_written: %s (%s)", path, error.strerror)
        return None


def _folder(config: ACLConfig) -> Path | None:
    """Renvoie le dossier de la clé : celui du fichier SQLite, ou le courant ; None si la base est en mémoire."""
    if config.database_type != "sqlite":
        return Path.cwd()
    file = file_of(config.database_uri)
    return file.parent if file is not None else None


def _create(path: Path) -> str | None:
    """Fait la clé, ou lit celle qu'un autre processus a faite entre-temps."""
    written = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        if not _write(written, secrets.token_urlsafe(48).encode()):
            return None
        try:
            os.link(written, path)
        except FileExistsError:
            logger.debug("development_key_exists: %s", path)
    finally:
        written.unlink(missing_ok=True)
    return _read(path)


def _write(path: Path, content: bytes) -> bool:
    """Écrit un fichier neuf, jusqu'au disque, que son propriétaire seul peut lire, quel que soit le masque.

    Returns:
        Faux si ce système de fichiers ne garde ni droits ni propriétaire : la clé n'y serait pas à l'abri.
    """
    descriptor = os.open(path, CREATE, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        status = os.fstat(descriptor)
    return status.st_uid == os.geteuid() and not status.st_mode & OTHERS


def _read(path: Path) -> str | None:
    """Renvoie la clé du fichier ; None s'il n'y est pas.

    Raises:
        ConfigurationError: il y est, mais ne doit pas être cru.
    """
    try:
        descriptor = os.open(path, READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise
        raise ConfigurationError(_refusal(path, "ce compte ne peut pas l’ouvrir, ou c’est un lien")) from error
    try:
        _check_private(path, os.fstat(descriptor))
        found = os.read(descriptor, MAX_BYTES).strip()
    finally:
        os.close(descriptor)
    if not KEY.fullmatch(found):
        raise ConfigurationError(_refusal(path, "il ne contient pas une clé entière, de 32 octets au moins"))
    return found.decode("ascii")


def _check_private(path: Path, status: os.stat_result) -> None:
    """Exige un vrai fichier, de ce compte, que nul autre ne peut lire ni écrire.

    Raises:
        ConfigurationError: ce n'en est pas un.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(_refusal(path, "ce n’est pas un fichier ordinaire"))
    if status.st_uid != os.geteuid():
        raise ConfigurationError(_refusal(path, "il appartient à un autre compte de cette machine"))
    if status.st_mode & OTHERS:
        raise ConfigurationError(_refusal(path, "d’autres comptes de cette machine peuvent le lire ou l’écrire"))


def _refusal(path: Path, reason: str) -> str:
    """Dit pourquoi la clé n'est pas crue, et quoi faire."""
    return (
        f"la clé de développement « {path.absolute()} » n’est pas crue : {reason}. Supprimez ce fichier, une autre clé "
        "sera faite (les sessions ouvertes seront à rouvrir), ou réglez ACL_JWT_SECRET_KEY."
    )
