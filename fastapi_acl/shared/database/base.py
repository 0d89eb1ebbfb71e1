"""Port de la base de données et transaction ambiante : purs, pour que les cas d'usage puissent les demander.

Une méthode de dépôt est atomique à elle seule. Où plusieurs doivent n'en faire qu'une, on écrit
`async with database.transaction():` ; les dépôts et l'adaptateur de politique s'y joignent d'eux-mêmes, par une
variable de contexte, et la mémoire ne change qu'après la validation.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from fastapi_acl.shared.exceptions import TransactionNotOrderedError, TransactionNotOwnedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager


@dataclass(slots=True, kw_only=True)
class Transaction:
    """Transaction en cours, et la tâche qui l'a ouverte.

    Attributes:
        connection: ce que le pilote emploie (une session SQLAlchemy pour les bases SQL).
        ordered: vrai si la ligne de révision est tenue, donc si l'on peut journaliser.
        owner: la tâche qui a ouvert la transaction ; aucune autre ne s'en sert.
        recorded: nombre d'entrées journalisées jusqu'ici dans cette transaction.
    """

    connection: Any
    ordered: bool
    owner: asyncio.Task[Any] | None = field(default_factory=asyncio.current_task)
    recorded: int = 0
    _callbacks: list[Callable[[], None]] = field(default_factory=list)

    def check_owner(self) -> None:
        """Refuse une autre tâche que celle qui a ouvert la transaction.

        Raises:
            TransactionNotOwnedError: une autre tâche s'en sert.
        """
        if asyncio.current_task() is not self.owner:
            raise TransactionNotOwnedError

    def check_ordered(self) -> None:
        """Refuse de journaliser si la ligne de révision n'est pas tenue.

        Raises:
            TransactionNotOrderedError: la transaction n'a pas été ouverte avec `log=True`.
        """
        if not self.ordered:
            raise TransactionNotOrderedError

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Retient ce qu'il faut faire, en mémoire et sans attendre, une fois la transaction validée."""
        self._callbacks.append(callback)

    def run_callbacks(self) -> None:
        """Exécute, dans l'ordre, ce que `after_commit` a retenu."""
        for callback in self._callbacks:
            callback()


class Transactions(Protocol):
    """Ce qu'un cas d'usage demande quand plusieurs écritures n'en font qu'une."""

    def transaction(self, *, log: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """Ouvre une transaction, ou se joint à celle qui est ouverte.

        Args:
            log: tient la ligne de révision dès l'entrée, ce qu'il faut pour journaliser.

        Raises:
            DatabaseUnavailableError: la base ne répond pas.
            TransactionNotOwnedError: la transaction ambiante est à une autre tâche.
            TransactionNotOrderedError: on demande `log` dans une transaction ouverte sans.
        """


class Database(Transactions, Protocol):
    """Une base choisie par la configuration."""

    async def migrate(self, *, force: bool = False) -> None:
        """Met le schéma à jour, sous un verrou qu'une seule réplique tient.

        Args:
            force: migre même si `auto_migrate` est coupé.

        Raises:
            DatabaseUnavailableError: la base ne répond pas.
            ConfigurationError: le schéma est en retard et `auto_migrate` est coupé, ou il vient d'une version future.
        """

    def snapshot(self) -> AbstractAsyncContextManager[Transaction]:
        """Ouvre une lecture cohérente : tout ce qu'on y lit est du même instant."""

    async def close(self) -> None:
        """Ferme toutes les connexions."""

    def abandon(self) -> None:
        """Oublie les connexions d'une boucle d'événements qui n'existe plus."""
