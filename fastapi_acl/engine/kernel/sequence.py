"""Le verrou de séquence : des lecteurs sans verrou, qui savent s'ils ont lu pendant un changement."""

from __future__ import annotations

import threading


class SequenceLock:
    """Numérote les changements ; le numéro est impair tant que l'un d'eux est en cours.

    Une décision lit le numéro avant et après. Inchangé et pair, elle n'a vu qu'un état ; sinon elle recommence sous
    le verrou. Lire ne coûte donc rien, et plusieurs cases changées ensemble se voient ensemble, ce que copier chaque
    case avant de l'écrire ne donnerait pas. `with sequence:` encadre un changement.

    Attributes:
        version: numéro, impair pendant un changement.
        lock: verrou que tient qui écrit, et que prend une lecture à recommencer.

    Source: https://docs.kernel.org/locking/seqlock.html
    """

    __slots__ = ("_depth", "lock", "version")

    def __init__(self) -> None:
        """Part d'un état stable."""
        self.version = 0
        self.lock = threading.RLock()
        self._depth = 0

    def __enter__(self) -> None:
        """Commence un changement ; emboîtés, plusieurs n'en font qu'un."""
        self.lock.acquire()
        self._depth += 1
        self.version |= 1

    def __exit__(self, *_: object) -> None:
        """Le termine."""
        self._depth -= 1
        if not self._depth:
            self.version += 1
        self.lock.release()
