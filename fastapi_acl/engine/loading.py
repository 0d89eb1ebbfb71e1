"""Lire une politique sans arrêter le processus, ni mettre en service ce qui ne se lit pas."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fastapi_acl.engine.role_graph import check_links
from fastapi_acl.shared.exceptions import InvalidRuleError, PolicyUnreadableError
from fastapi_acl.shared.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fastapi_acl.engine.schema import PolicySchema
    from fastapi_acl.shared.policy import PolicyRule

logger = get_logger("engine")

T = TypeVar("T")

SHORT_POLICY: Final = 2_000
"""Nombre de règles en deçà duquel construire ou défaire une politique ne vaut pas un fil d'exécution."""


class _Pause:
    """Combien de chargements tiennent le ramasse-miettes arrêté, et s'il marchait avant eux."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._was_enabled = False

    def begin(self) -> None:
        """Arrête le ramasse-miettes, si personne ne l'a fait."""
        with self._lock:
            if not self._holders:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._holders += 1

    def end(self) -> None:
        """Le remet en marche quand le dernier a fini."""
        with self._lock:
            self._holders -= 1
            if not self._holders and self._was_enabled:
                gc.enable()


_pause = _Pause()


@contextmanager
def gc_paused() -> Iterator[None]:
    """Suspend le ramasse-miettes : un passage complet sur un million de règles neuves tiendrait l'interpréteur."""
    _pause.begin()
    try:
        yield
    finally:
        _pause.end()


async def aside(work: Callable[[], T], *, is_short: bool = False) -> T:
    """Fait un travail long dans un fil à lui, qui finit avec lui.

    Args:
        work: travail, qui ne touche à rien de ce que la boucle emploie.
        is_short: vrai s'il est trop court pour valoir un fil.
    """
    if is_short:
        return work()
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    threading.Thread(target=_work, args=(work, loop, done), name="fastapi-acl-load", daemon=True).start()
    return await done


def _work(work: Callable[[], T], loop: asyncio.AbstractEventLoop, done: asyncio.Future[T]) -> None:
    """Fait le travail, et en rend l'issue à la boucle, si elle est encore là pour l'entendre."""
    settle: Callable[[], None]
    try:
        result = work()
        settle = partial(_unless_done, done, done.set_result, result)
    except BaseException as error:  # noqa: BLE001 - toute issue est celle de qui attend
        settle = partial(_unless_done, done, done.set_exception, error)
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(settle)


def _unless_done(done: asyncio.Future[T], settle: Callable[[Any], None], outcome: object) -> None:
    """Rend une issue que personne n'a cessé d'attendre."""
    if not done.done():
        settle(outcome)


def readable(rules: Iterable[tuple[int, PolicyRule]], schema: PolicySchema) -> list[PolicyRule]:
    """Écarte les lignes illisibles qui ne pourraient qu'accorder, et s'arrête sur celles qui pourraient refuser.

    Args:
        rules: couples (numéro de ligne dans la base, règle).
        schema: forme du modèle.

    Raises:
        PolicyUnreadableError: une ligne illisible pourrait refuser, ou un refus se perdrait au bout d'une chaîne de
            rôles trop longue ou circulaire ; l'ignorer ouvrirait l'accès.
    """
    kept = [rule for row_id, rule in rules if _is_readable(row_id, rule, schema)]
    try:
        for ptype in schema.links:
            check_links(rule for rule in kept if rule.ptype == ptype)
    except InvalidRuleError as error:
        logger.exception("policy_links_unreadable")
        raise PolicyUnreadableError from error
    return kept


def _is_readable(row_id: int, rule: PolicyRule, schema: PolicySchema) -> bool:
    """Dit si une ligne se lit ; sinon, l'écarte ou arrête le chargement."""
    try:
        schema.check(rule)
    except InvalidRuleError as error:
        if could_deny(rule, schema):
            logger.exception("policy_row_unreadable: id=%d", row_id)
            raise PolicyUnreadableError from error
        logger.warning("policy_row_skipped: id=%d", row_id)
        return False
    return True


def could_deny(rule: PolicyRule, schema: PolicySchema) -> bool:
    """Dit si une ligne illisible pourrait, bien lue, refuser quelque chose."""
    if not schema.can_deny:
        return False
    names = schema.fields.get(rule.ptype)
    if names is None or "eft" not in names:
        return True
    place = names.index("eft")
    return len(rule.values) != len(names) or rule.values[place] != "allow"
