"""Les fichiers que la ligne de commande lit et écrit."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi_acl.shared.exceptions import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from fastapi_acl.engine.writing.rule_files import RuleFormat


def read_format(file: Path) -> RuleFormat:
    """Renvoie le format que l'extension d'un fichier annonce.

    Raises:
        InvalidInputError: elle n'en annonce aucun.
    """
    if file.suffix not in {".csv", ".json"}:
        message = f"« {file.name} » : le nom du fichier finit par .csv ou .json."
        raise InvalidInputError(message)
    return "csv" if file.suffix == ".csv" else "json"


def open_rules(file: Path) -> TextIO:
    """Ouvre un fichier de règles à lire, tel que le CSV se lit."""
    return file.open(encoding="utf-8-sig", newline="")


@contextmanager
def keep_copy(file: Path) -> Iterator[Path]:
    """Copie un fichier dans un dossier à nous, le temps d'un bloc : ce qui a été montré est ce qui sera fait."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        with file.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield copy


@contextmanager
def replace_file(file: Path) -> Iterator[TextIO]:
    """Écrit un fichier en entier, ou pas du tout : il ne prend sa place qu'une fois fini.

    Ce qui s'écrit est un fichier neuf du même dossier, de nom imprévisible et lisible du seul propriétaire : un lien
    qu'on aurait placé d'avance n'est pas suivi, et un lien à cette place est remplacé.

    Raises:
        InvalidInputError: le dossier n'existe pas.
        OSError: le fichier ne s'écrit pas ; il n'en reste rien.
    """
    folder = file.parent
    if not folder.is_dir():
        message = f"le dossier « {folder} » n’existe pas : créez-le, ou choisissez-en un autre."
        raise InvalidInputError(message)
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as text:
            yield text
            text.flush()
            os.fsync(text.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
