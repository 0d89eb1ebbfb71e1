"""Le modèle de Casbin, dont les règles sont tenues par nos listes indexées (`Rows`), et par elles seules."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from casbin.model import Assertion, Model
from casbin.model.policy_op import PolicyOp

from fastapi_acl.engine.casbin.role_manager import GraphRoleManager
from fastapi_acl.engine.kernel.rows import Rows
from fastapi_acl.engine.kernel.sequence import SequenceLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fastapi_acl.engine.kernel.rows import Row

POLICY_SECTIONS: Final = ("p", "g")


class IndexedAssertion(Assertion):
    """Une définition du modèle : qu'on y ajoute une règle ou qu'on en remplace la liste, c'est `Rows` qui la garde."""

    _sequence: SequenceLock
    _rows: Rows
    _notify: Callable[[], None]

    @classmethod
    def over(
        cls,
        source: Assertion,
        sequence: SequenceLock,
        notify: Callable[[], None],
        rows: Iterable[Sequence[Any]] | None = None,
    ) -> IndexedAssertion:
        """Reprend une définition et ses règles.

        Args:
            source: définition lue par Casbin.
            sequence: verrou de l'enforcer.
            notify: appelé quand la liste ou le gestionnaire de rôles est remplacé.
            rows: règles à prendre à la place des siennes.
        """
        made = cls.__new__(cls)
        made._sequence, made._notify = sequence, notify  # noqa: SLF001 - construction de la même classe
        made.take(source, list(source.policy) if rows is None else rows)
        return made

    def join(self, sequence: SequenceLock) -> None:
        """Prend le verrou d'un enforcer, comme le font ses règles et ses liens."""
        self._sequence = sequence
        self._rows.join(sequence)
        if isinstance(self.rm, GraphRoleManager):
            self.rm.graph.join(sequence)

    def copy_without_rules(self, sequence: SequenceLock, notify: Callable[[], None]) -> IndexedAssertion:
        """Renvoie une copie sans règle ni gestionnaire de rôles."""
        made = IndexedAssertion.over(self, sequence, notify, rows=[])
        made.rm = made.cond_rm = None
        return made

    def showing(self, rows: Rows, sequence: SequenceLock, notify: Callable[[], None]) -> IndexedAssertion:
        """Renvoie une copie dont les règles sont tenues ailleurs, sans gestionnaire de rôles."""
        made = IndexedAssertion.__new__(IndexedAssertion)
        made._sequence, made._notify, made._rows = sequence, notify, rows  # noqa: SLF001 - construction de la même classe
        made.copy_settings(self)
        made.rm = made.cond_rm = None
        return made

    def take(self, source: Assertion, rows: Iterable[Sequence[Any]]) -> None:
        """Reprend les réglages d'une définition, et ces règles."""
        self.copy_settings(source)
        self.policy = rows

    def copy_settings(self, source: Assertion) -> None:
        """Reprend les réglages d'une définition."""
        kept = {name: value for name, value in vars(source).items() if not name.startswith("_") and name != "policy"}
        for name, value in kept.items():
            setattr(self, name, value)
        self.field_index_map = dict(source.field_index_map)

    @property
    def policy(self) -> Rows:
        """Les règles de ce type."""
        return self._rows

    @policy.setter
    def policy(self, rows: Iterable[Sequence[Any]]) -> None:
        priority = self.priority_index if self.priority_index >= 0 else None
        self._rows = Rows(rows, sequence=self._sequence, priority=priority)
        self._notify()

    def __setattr__(self, name: str, value: object) -> None:
        """Prévient quand le gestionnaire de rôles ou la définition changent : ce qui en a été compilé ne vaut plus."""
        changed = name in {"rm", "cond_rm", "value", "tokens"} and getattr(self, name, None) is not value
        super().__setattr__(name, value)
        if changed:
            self._notify()

    def __deepcopy__(self, memo: object) -> IndexedAssertion:
        """Copie la définition et ses règles ; les gestionnaires de rôles restent partagés."""
        return IndexedAssertion.over(self, SequenceLock(), _nothing)


@dataclass(frozen=True, slots=True)
class _Recorder:
    """Note les changements d'un type (voir `RowListener`)."""

    ptype: str
    noted: list[tuple[str, Row, bool]]

    def add(self, row: Row) -> None:
        """Une règle arrive."""
        self.noted.append((self.ptype, row, True))

    def remove(self, row: Row) -> None:
        """Une règle part."""
        self.noted.append((self.ptype, row, False))

    def dismantle(self) -> None:
        """N'a rien à rendre."""


class IndexedModel(Model):
    """Un modèle dont chaque accès à une règle passe par un index plutôt que par un parcours."""

    def __init__(self, sequence: SequenceLock | None = None) -> None:
        """Part vide.

        Args:
            sequence: verrou de l'enforcer.
        """
        super().__init__()
        self.sequence = sequence or SequenceLock()
        self.listener: Callable[[], None] = _nothing

    @classmethod
    def over(cls, source: Model) -> IndexedModel:
        """Reprend un modèle de Casbin, dont il partage les sections : qui tient l'original voit les mêmes règles."""
        if isinstance(source, cls):
            return source
        made = cls()
        made.model = source.model
        made.adopt()
        return made

    def blank(self) -> IndexedModel:
        """Copie les définitions et leurs réglages, sans aucune règle : changer l'original n'y change plus rien."""
        copy = IndexedModel()
        for section, assertions in self.items():
            copy[section] = {
                key: assertion.copy_without_rules(copy.sequence, copy._notify_listener)
                for key, assertion in assertions.items()
            }
        return copy

    def showing(self, rows: Mapping[str, Rows]) -> IndexedModel:
        """Copie les définitions et leurs réglages, sur des règles tenues ailleurs."""
        copy = self.blank()
        for section in POLICY_SECTIONS:
            for key, assertion in (self[section] or {}).items():
                copy[section][key] = assertion.showing(rows[key], copy.sequence, copy._notify_listener)  # noqa: SLF001 - construction de la même classe
        return copy

    def join(self, sequence: SequenceLock) -> None:
        """Prend le verrou d'un enforcer, sous lequel ce modèle va décider."""
        self.sequence = sequence
        for assertions in self.values():
            for assertion in assertions.values():
                assertion.join(sequence)

    def adopt(self) -> None:
        """Donne une liste indexée à chaque définition, et suit ce qui en est remplacé."""
        for assertions in self.values():
            for key, assertion in assertions.items():
                if not isinstance(assertion, IndexedAssertion):
                    assertions[key] = IndexedAssertion.over(assertion, self.sequence, self._notify_listener)

    def add_def(self, sec: str, key: str, value: str) -> bool | None:
        """Ajoute une définition."""
        added: bool | None = super().add_def(sec, key, value)
        self.adopt()
        self._notify_listener()
        return added

    def lists(self) -> Iterator[tuple[str, Rows]]:
        """Énumère les types de règles et leurs listes."""
        for section in POLICY_SECTIONS:
            for key, assertion in (self[section] or {}).items():
                yield key, assertion.policy

    def rows(self, ptype: str) -> Rows:
        """Renvoie les règles d'un type."""
        found: Rows = self[ptype[:1]][ptype].policy
        return found

    def sort_policies_by_priority(self) -> None:
        """Range les règles par priorité ; celles qui arrivent ensuite prennent leur place sans nouveau tri.

        Les priorités se comparent comme des entiers ; ce qui n'en est pas un passe en dernier.
        """
        for ptype, assertion in self["p"].items():
            if f"{ptype}_priority" in assertion.tokens:
                assertion.priority_index = assertion.tokens.index(f"{ptype}_priority")
                assertion.policy = list(assertion.policy)

    @contextmanager
    def recording(self) -> Iterator[list[tuple[str, Row, bool]]]:
        """Note ce qui change pendant un bloc : type, règle, et vrai si elle arrive."""
        noted: list[tuple[str, Row, bool]] = []
        recorders = [(rows, _Recorder(ptype, noted)) for ptype, rows in self.lists()]
        for rows, recorder in recorders:
            rows.watch(recorder)
        try:
            yield noted
        finally:
            for rows, recorder in recorders:
                rows.leave(recorder)
            noted[:] = _net(noted)

    def __len__(self) -> int:
        """Renvoie le nombre de règles."""
        return sum(len(rows) for _, rows in self.lists())

    def __bool__(self) -> bool:
        """Un modèle reste un modèle, même sans règle."""
        return True

    def dismantle(self) -> None:
        """Libère peu à peu la mémoire d'une politique qui ne décide plus."""
        for _, rows in self.lists():
            rows.dismantle()

    # --- ce que Casbin ferait en parcourant ------------------------------------------------------------------------

    def add_policy(self, sec: str, ptype: str, rule: Sequence[Any]) -> bool:
        """Ajoute une règle ; False si elle y est déjà."""
        rows: Rows = self[sec][ptype].policy
        if rule in rows:
            return False
        rows.append(rule)
        return True

    def update_policy(self, sec: str, ptype: str, old_rule: Sequence[Any], new_rule: Sequence[Any]) -> bool:
        """Remplace une règle à sa place ; False si l'ancienne n'y est pas."""
        return self.update_policies(sec, ptype, [old_rule], [new_rule])

    def update_policies(
        self, sec: str, ptype: str, old_rules: Sequence[Sequence[Any]], new_rules: Sequence[Sequence[Any]]
    ) -> bool:
        """Remplace des règles, chacune à sa place ; False, et rien ne change, si l'une n'y est pas.

        Raises:
            ValueError: une priorité changerait.
        """
        assertion = (self[sec] or {}).get(ptype)
        if assertion is None or len(old_rules) != len(new_rules):
            return False
        if not all(rule in assertion.policy for rule in old_rules):
            return False
        self._check_priorities(assertion, old_rules, new_rules)
        assertion.policy.replace_all({tuple(old): tuple(new) for old, new in zip(old_rules, new_rules, strict=True)})
        return True

    @staticmethod
    def _check_priorities(assertion: Any, old: Sequence[Sequence[Any]], new: Sequence[Sequence[Any]]) -> None:  # noqa: ANN401 - type de pycasbin
        """Refuse de changer la priorité d'une règle en la remplaçant."""
        if "p_priority" not in assertion.tokens:
            return
        place = assertion.tokens.index("p_priority")
        if any(before[place] != after[place] for before, after in zip(old, new, strict=True)):
            message = "la nouvelle règle doit avoir la priorité de l’ancienne"
            raise ValueError(message)

    def get_filtered_policy(self, sec: str, ptype: str, field_index: int, *field_values: Any) -> list[list[Any]]:  # noqa: ANN401 - Casbin admet des fonctions
        """Renvoie les règles qu'un filtre retient."""
        return list(map(list, self[sec][ptype].policy.matching(field_index, field_values)))

    def remove_filtered_policy(self, sec: str, ptype: str, field_index: int, *field_values: str) -> bool:
        """Retire les règles qu'un filtre retient ; un filtre vide les retire toutes, comme dans Casbin."""
        return bool(self._remove_filtered(sec, ptype, field_index, field_values))

    def remove_filtered_policy_returns_effects(
        self, sec: str, ptype: str, field_index: int, *field_values: str
    ) -> list[list[Any]]:
        """Retire les règles qu'un filtre retient, et les renvoie ; sans valeur, n'en retire aucune."""
        return self._remove_filtered(sec, ptype, field_index, field_values) if field_values else []

    def _remove_filtered(self, sec: str, ptype: str, index: int, values: Sequence[str]) -> list[list[Any]]:
        """Retire ce qu'un filtre retient."""
        assertion = (self[sec] or {}).get(ptype)
        if assertion is None:
            return []
        found = assertion.policy.matching(index, values)
        with self.sequence:
            for row in found:
                assertion.policy.remove(row)
        return list(map(list, found))

    def get_values_for_field_in_policy(self, sec: str, ptype: str, field_index: int) -> list[Any]:
        """Renvoie les valeurs distinctes d'un champ."""
        assertion = (self[sec] or {}).get(ptype)
        return [] if assertion is None else list(assertion.policy.values_of(field_index))

    def build_incremental_role_links(self, rm: Any, op: Any, sec: str, ptype: str, rules: Sequence[Any]) -> None:  # noqa: ANN401 - types de pycasbin
        """Fait ou défait les liens de quelques règles, conditionnels ou non."""
        assertion = self[sec][ptype]
        touched = _ungiven(assertion, rules) if op == PolicyOp.Policy_remove else rules
        if assertion.cond_rm is not None and op == PolicyOp.Policy_remove:
            for rule in touched:
                rm.delete_link(*rule[: len(assertion.tokens)])  # Casbin y joint les paramètres de la condition
        elif assertion.cond_rm is not None:
            assertion.build_incremental_conditional_role_links(rm, op, touched)
        else:
            assertion.build_incremental_role_links(rm, op, touched)

    def print_policy(self) -> None:
        """Ne fait rien : une politique ne s'écrit pas dans un journal."""

    def _notify_listener(self) -> None:
        self.listener()


def _nothing() -> None:
    """N'écoute pas."""


def _net(noted: Sequence[tuple[str, Row, bool]]) -> list[tuple[str, Row, bool]]:
    """Renvoie ce qui a changé pour finir : ce qui est arrivé puis reparti, le temps d'un essai, n'en est pas."""
    first: dict[tuple[str, Row], bool] = {}
    last: dict[tuple[str, Row], bool] = {}
    for ptype, row, arrives in noted:
        first.setdefault((ptype, row), arrives)
        last.pop((ptype, row), None)
        last[ptype, row] = arrives
    return [(ptype, row, arrives) for (ptype, row), arrives in last.items() if first[ptype, row] is arrives]


def _ungiven(assertion: Any, rules: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:  # noqa: ANN401 - type de pycasbin
    """Renvoie, une fois chacun, les liens de règles parties qu'aucune règle restante ne donne encore."""
    width = assertion.value.count("_") - len(assertion.params_tokens)
    links = {tuple(rule[:width]): tuple(rule) for rule in rules if len(rule) >= width}
    return [rule for link, rule in links.items() if not assertion.policy.starts(link)]
