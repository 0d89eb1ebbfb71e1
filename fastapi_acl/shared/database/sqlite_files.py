"""Le fichier d'une base SQLite : où il est, et à qui il s'ouvre."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote

from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = get_logger("database")

IN_MEMORY: Final = frozenset({"", ":memory:"})
CREATING_MODES: Final = frozenset({None, "rwc"})
"""Modes d'une adresse `file:` sous lesquels SQLite fait le fichier qui manque."""

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def file_of(uri: str) -> Path | None:
    """Renvoie le fichier que nomme une adresse, `sqlite:///fichier.db` ; None si la base est en mémoire."""
    name, _, query = uri.partition("://")[2].partition("?")
    return find_file(unquote(name.removeprefix("/")), dict(parse_qsl(query)))


def find_file(name: str | None, options: Mapping[str, object]) -> Path | None:
    """Renvoie le fichier d'une base ; None si elle est en mémoire.

    Args:
        name: ce que l'adresse donne après `sqlite:///`.
        options: ses options ; avec `uri`, le nom est lui-même une adresse, `file:fichier.db`.

    Source: https://www.sqlite.org/uri.html
    """
    path = name or ""
    if options.get("uri"):
        path = unquote(path.removeprefix("file:").removeprefix("//localhost").removeprefix("//"))
    return None if path in IN_MEMORY or options.get("mode") == "memory" else Path(path)


def make_private(name: str | None, options: Mapping[str, object]) -> None:
    """Fait le fichier qui manque, lisible de son seul propriétaire, quel que soit le masque.

    SQLite donne à ses fichiers `-wal` et `-shm` les droits de la base. Un fichier qui est déjà là garde les siens, que
    l'exploitant a pu choisir : on le dit seulement. Ce qui empêche de faire le fichier, SQLite le dira.
    """
    file = find_file(name, options)
    if file is None or os.name != "posix":
        return
    with contextlib.suppress(OSError):
        target = file.resolve()  # un lien qui ne mène nulle part : SQLite ferait le fichier qu'il nomme
        if options.get("mode") in CREATING_MODES:
            _create(target)
        if target.stat().st_mode & OTHERS:
            logger.warning("sqlite_file_shared: d’autres comptes ouvrent la base ; « chmod 600 %s »", target)


def _create(path: Path) -> None:
    """Fait un fichier vide, qui est pour SQLite une base vide, s'il n'y en a pas."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
