"""Ce que la ligne de commande dit : le résultat sur la sortie, tout le reste sur la sortie d'erreur."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fastapi_acl.shared.exceptions import ACLException

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import ValidationError

output = Console()
errors = Console(stderr=True)


def say(message: str) -> None:
    """Écrit un résultat tel quel."""
    output.print(message, highlight=False, markup=False, soft_wrap=True)


def note(message: str) -> None:
    """Écrit, à côté du résultat, ce qu'il est bon de savoir."""
    errors.print(message, style="dim", highlight=False, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """Écrit ce qui demande attention."""
    errors.print(f"Attention : {message}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def complain(error: ACLException | ValidationError | OSError | UnicodeDecodeError) -> None:
    """Écrit une erreur attendue, en une phrase et sans trace."""
    errors.print("Erreur :", style="red", end=" ")
    errors.print(_tell_error(error), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def show_progress(title: str) -> Iterator[Callable[[int], None]]:
    """Montre l'avancement d'une commande longue, en nombre de règles."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed} règles"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as shown:
        task = shown.add_task(title, total=None)
        yield lambda count: shown.update(task, completed=count)


def _tell_error(error: ACLException | ValidationError | OSError | UnicodeDecodeError) -> str:
    """Renvoie une erreur en phrases, sans les valeurs fautives."""
    if isinstance(error, ACLException):
        return error.detail
    if isinstance(error, OSError):
        return f"« {error.filename} » : {error.strerror or type(error).__name__}."
    if isinstance(error, UnicodeDecodeError):
        return "un fichier (.env, ou celui que la commande lit) n’est pas en UTF-8 : réenregistrez-le dans ce codage."
    return "\n".join(f"ACL_{_name_setting(item)} : {item['msg']}" for item in error.errors(include_input=False))


def _name_setting(item: Any) -> str:  # noqa: ANN401 - détail d'erreur de Pydantic
    """Renvoie le nom du réglage en cause."""
    return ".".join(map(str, item["loc"])).upper() or "CONFIG"
