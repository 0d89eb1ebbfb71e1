"""Lire les lignes d'une base, sans mettre en service ce qui ne se lit pas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastapi_acl.engine.kernel.pacing import drain, sweep_young
from fastapi_acl.engine.kernel.role_graph import check_links, read_chain
from fastapi_acl.engine.kernel.schema import SHARED_DOMAIN_CHOICE
from fastapi_acl.shared.exceptions import ConfigurationError, InvalidRuleError, PolicyUnreadableError
from fastapi_acl.shared.logging import get_logger
from fastapi_acl.shared.policy import PolicyRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fastapi_acl.engine.kernel.rows import Row
    from fastapi_acl.engine.kernel.schema import PolicySchema

logger = get_logger("engine")

QUARANTINE: Final = (
    "vérifiez d’abord que le modèle est celui de l’application ; si oui, « fastapi-acl policy quarantine » l’écarte"
)
"""Ce qu'il y a à faire d'une ligne illisible."""

RawLine = tuple[Any, ...]
"""Une ligne de `casbin_rule` : son numéro, son type, puis ses colonnes de valeurs."""


class Loaded(NamedTuple):
    """Ce qu'une lecture a rendu.

    Attributes:
        rows: les règles par type, avec leur numéro, dans l'ordre.
        twins: les règles que des lignes écrites à la main répètent sous une autre empreinte.
        skipped: nombre de lignes illisibles, qui ne pouvaient qu'accorder, et qui ont été écartées.
        undecided: phrase qui nomme une ligne écartée faute de savoir ce que vaut le domaine `*` ; vide sans cela.
    """

    rows: Mapping[str, dict[Row, int]]
    twins: frozenset[PolicyRule] = frozenset()
    skipped: int = 0
    undecided: str = ""


class _UnreadableError(Exception):
    """Une valeur n'a pas sa place dans sa colonne."""


class _Column(dict[str, str]):
    """Les textes déjà vus d'une colonne : chacun n'est vérifié, et gardé en mémoire, qu'une fois."""

    def __init__(self, accepts: Callable[[str], bool]) -> None:
        super().__init__()
        self._accepts = accepts

    def __missing__(self, value: str) -> str:
        if type(value) is not str or not self._accepts(value):
            raise _UnreadableError
        self[value] = value
        return value


class PolicyReader:
    """Lit les lignes d'une base.

    Une ligne illisible qui ne pourrait qu'accorder est écartée ; une qui pourrait refuser arrête la lecture.
    """

    def __init__(self, schema: PolicySchema) -> None:
        """Part vide.

        Args:
            schema: forme du modèle.
        """
        self._schema = schema
        types = (*schema.fields, *schema.links)
        seen = {name: _Column(schema.checker(ptype, name)) for ptype in types for name in schema.columns(ptype)}
        self._columns = {ptype: [seen[name] for name in schema.columns(ptype)] for ptype in types}
        self._rows: dict[str, dict[Row, int]] = {ptype: {} for ptype in types}
        self._twins: set[PolicyRule] = set()
        self._skipped = 0
        self._undecided = ""

    def feed(self, lines: Iterable[RawLine]) -> None:
        """Lit quelques lignes.

        Args:
            lines: numéro de ligne, type, puis les six colonnes de valeurs ; None où la colonne est inutilisée.

        Raises:
            PolicyUnreadableError: une ligne pourrait refuser mais ne se lit pas.
        """
        for row_id, ptype, *values in lines:
            columns = self._columns.get(ptype) if isinstance(row_id, int) else None
            try:
                row = self._row(columns, values)
            except _UnreadableError:
                self._refuse(row_id, PolicyRule.of(ptype, without_tail(values)))
            else:
                if self._rows[ptype].setdefault(row, row_id) != row_id:
                    self._twins.add(PolicyRule(ptype, row))
        sweep_young()

    @staticmethod
    def _row(columns: Sequence[_Column] | None, values: Sequence[str | None]) -> Row:
        """Renvoie la règle d'une ligne, chaque texte étant l'exemplaire gardé."""
        if not columns or values[len(columns) :].count(None) != len(values) - len(columns):
            raise _UnreadableError
        return tuple([column[value] for column, value in zip(columns, values)])  # type: ignore[index]  # noqa: B905 - les colonnes inutilisées sont de trop ; un None au milieu se refuse

    def forget(self) -> None:
        """Libère peu à peu la mémoire de ce qui ne servait qu'à lire."""
        for columns in self._columns.values():
            for column in columns:
                drain(column)

    def finish(self) -> Loaded:
        """Vérifie les chaînes de rôles, et renvoie ce qui a été lu.

        Raises:
            PolicyUnreadableError: un refus se perdrait au bout d'une chaîne de rôles trop longue ou circulaire.
        """
        for ptype in self._schema.links:
            self._check_links(self._rows[ptype])
        return Loaded(self._rows, frozenset(self._twins), self._skipped, self._undecided)

    def _check_links(self, links: Mapping[Row, int]) -> None:
        """Vérifie les chaînes de rôles d'un type ; le journal nomme les lignes en cause.

        Raises:
            PolicyUnreadableError: une chaîne est circulaire, ou trop longue.
        """
        try:
            check_links(links.keys(), shares_domains=self._schema.shares_domains is True)
        except InvalidRuleError as error:
            names = set(read_chain(error))
            rows = [f"id={number} ({row[0]} → {row[1]})" for row, number in links.items() if names.issuperset(row[:2])]
            logger.error("policy_links_unreadable: %s Lignes : %s.", error.detail, ", ".join(rows))  # noqa: TRY400 - la phrase suffit
            raise PolicyUnreadableError from error

    def _refuse(self, row_id: int, rule: PolicyRule) -> None:
        """Écarte une ligne illisible, ou arrête la lecture si elle pourrait refuser."""
        undecided = _tell_undecided(row_id, rule) if self._schema.is_undecided(rule) else ""
        self._undecided = self._undecided or undecided
        if could_deny(rule, self._schema):
            logger.error("policy_row_unreadable: id=%s ; %s", row_id, QUARANTINE)
            raise PolicyUnreadableError from (ConfigurationError(undecided) if undecided else None)
        self._skipped += 1
        logger.warning("policy_row_skipped: id=%s ; %s", row_id, QUARANTINE)


def _tell_undecided(row_id: int, rule: PolicyRule) -> str:
    """Dit quelle ligne est écrite dans `*` sans que rien ne dise ce qu'il vaut."""
    return f"ligne {row_id} de casbin_rule (« {rule.ptype}, {', '.join(rule.values)} ») : {SHARED_DOMAIN_CHOICE}."


def without_tail(values: Sequence[str | None]) -> tuple[str, ...]:
    """Retire les colonnes inutilisées de la fin ; un trou au milieu reste un texte vide, que le schéma refusera."""
    used = list(values)
    while used and used[-1] is None:
        used.pop()
    return tuple(value or "" for value in used)


def row_rule(row: Mapping[str, Any]) -> PolicyRule:
    """Refait la règle d'une ligne rendue colonne par colonne."""
    values = [row.get(f"v{place}") for place in range(6)]
    return PolicyRule(str(row.get("ptype")), without_tail(values))


def could_deny(rule: PolicyRule, schema: PolicySchema) -> bool:
    """Dit si une ligne illisible pourrait, bien lue, refuser quelque chose."""
    if not schema.can_deny:
        return False
    names = schema.fields.get(rule.ptype)
    if names is None or "eft" not in names:
        return True
    place = names.index("eft")
    return len(rule.values) != len(names) or rule.values[place] != "allow"
