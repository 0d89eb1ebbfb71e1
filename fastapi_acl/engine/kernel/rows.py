"""Les règles d'un type : la liste que Casbin attend, tenue par un dictionnaire ordonné, et seule à les garder."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol, cast, overload

from fastapi_acl.engine.kernel.pacing import drain, iterate_by_doses
from fastapi_acl.engine.kernel.sequence import SequenceLock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

Row = tuple[Any, ...]
"""Les valeurs d'une règle ; des textes, sauf ce qu'une application donne elle-même à l'enforcer nu."""

Rank = int | tuple[int, int]
"""Place d'une règle : son ordre d'arrivée, précédé de sa priorité si ce type en a une."""


class RowListener(Protocol):
    """Ce qui suit les règles d'un type : un index."""

    def add(self, row: Row) -> None:
        """Une règle, jusque-là absente, arrive."""

    def remove(self, row: Row) -> None:
        """Une règle part tout à fait."""

    def dismantle(self) -> None:
        """Libère peu à peu la mémoire de ce qui ne sert plus."""


class Rows:
    """Liste de règles où chercher, ajouter, retirer et remplacer ne coûtent pas un parcours.

    Chaque règle a un rang, son numéro dans la base ou son ordre d'arrivée ; l'ordre de la liste est celui des rangs. Il
    suit l'ordre d'arrivée tant que rien n'est remplacé en place ou inséré par priorité ; ensuite il est rétabli à la
    première lecture de la liste entière.

    Attributes:
        priority: place du champ de priorité, ou None.
        last: dernier rang donné.
    """

    __slots__ = (
        "_copies",
        "_fields",
        "_in_order",
        "_lengths",
        "_listeners",
        "_ranks",
        "_sequence",
        "last",
        "priority",
    )

    def __init__(
        self,
        rows: Iterable[Sequence[Any]] = (),
        *,
        sequence: SequenceLock | None = None,
        priority: int | None = None,
    ) -> None:
        """Range des règles dans l'ordre donné.

        Args:
            rows: règles ; un double est gardé, comme Casbin le garde.
            sequence: verrou de l'enforcer.
            priority: place du champ de priorité, qui ordonne ce qui arrive ; None sans priorité.
        """
        self.priority = priority
        self._sequence = sequence or SequenceLock()
        self._ranks: dict[Row, Rank] = {}
        self._copies: dict[Row, list[Rank]] = {}
        self._fields: dict[int, dict[Any, dict[Row, None]]] = {}
        self._lengths: Counter[int] = Counter()
        self._listeners: list[RowListener] = []
        self._in_order = True
        self.last = 0
        if rows != ():
            self.extend(rows)

    # --- lecture ------------------------------------------------------------------------------------------------

    def __contains__(self, row: object) -> bool:
        """Dit si la règle y est."""
        try:
            return isinstance(row, (list, tuple)) and tuple(row) in self._ranks
        except TypeError:
            return False  # une valeur qui ne se hache pas n'est dans aucune règle

    def __len__(self) -> int:
        """Renvoie le nombre de règles, doubles compris."""
        return len(self._ranks) + sum(map(len, self._copies.values()))

    def __bool__(self) -> bool:
        """Dit s'il y a une règle."""
        return bool(self._ranks)

    def __iter__(self) -> Iterator[list[Any]]:
        """Parcourt les règles dans l'ordre, chacune comme une liste neuve."""
        with self._sequence.lock:
            return iter([list(row) for row in self.list_ordered()])

    @overload
    def __getitem__(self, place: int) -> list[Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[list[Any]]: ...
    def __getitem__(self, place: int | slice) -> list[Any]:
        """Renvoie la règle de cette place, ou celles de la tranche."""
        found = list(self.list_ordered())[place]
        return list(map(list, found)) if isinstance(place, slice) else list(found)

    def __eq__(self, other: object) -> bool:
        """Compare à une liste de listes."""
        return isinstance(other, (Rows, list)) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Dit combien, jamais lesquelles : une politique ne s'écrit pas dans un journal."""
        return f"<Rows: {len(self)} règles>"

    @property
    def version(self) -> int:
        """Numéro de la politique, qui change avec elle."""
        return self._sequence.version

    @property
    def has_copies(self) -> bool:
        """Vrai si une règle y est plusieurs fois."""
        return bool(self._copies)

    def list_ordered(self) -> Collection[Row]:
        """Renvoie les règles dans l'ordre, doubles compris."""
        if self._copies:
            pairs = [(rank, row) for row, rank in self._ranks.items()]
            pairs += [(rank, row) for row, ranks in self._copies.items() for rank in ranks]
            return [row for _, row in sorted(pairs, key=lambda pair: pair[0])]
        if not self._in_order:
            with self._sequence.lock:
                self._ranks = dict(sorted(self._ranks.items(), key=lambda item: item[1]))
                self._in_order = True
        return self._ranks.keys()

    def rank(self, row: Row) -> Rank:
        """Renvoie le rang d'une règle présente."""
        return self._ranks[row]

    def ranks(self, row: Row) -> list[Rank]:
        """Renvoie les rangs d'une règle, un par copie."""
        return [self._ranks[row], *self._copies.get(row, ())]

    def index(self, row: Sequence[Any]) -> int:
        """Renvoie la première place d'une règle.

        Raises:
            ValueError: elle n'y est pas.
        """
        return list(self.list_ordered()).index(tuple(row))

    def matching(self, start: int, values: Sequence[Any]) -> list[Row]:
        """Renvoie, dans l'ordre, les règles dont les champs, à partir de `start`, ont ces valeurs ; `""` ne filtre pas.

        Les textes se cherchent dans l'index du champ le plus sélectif ; une fonction filtre ce qu'ils ont laissé.

        Raises:
            IndexError: une règle est trop courte pour le filtre, comme dans Casbin.
        """
        wanted = {start + place: value for place, value in enumerate(values) if value != ""}
        texts = {place: value for place, value in wanted.items() if type(value) is str}
        last = max(wanted, default=0)
        with self._sequence.lock:
            rows: Iterable[Row]
            if texts and not self._copies and all(last < length for length in self._lengths):
                few = min((self._field(place).get(value, {}) for place, value in texts.items()), key=len)
                rows = sorted(few, key=self.rank)
            else:
                rows = self.list_ordered()  # un index ne compte pas les doubles, et cacherait une règle trop courte
            return [row for row in rows if all(_fits(row[place], value) for place, value in wanted.items())]

    def starts(self, values: Row) -> bool:
        """Dit si une règle commence par ces valeurs."""
        return any(row[: len(values)] == values for row in self._field(0).get(values[0], ()))

    def holding(self, place: int, value: str) -> list[Row]:
        """Renvoie, sans ordre, les règles dont un champ a cette valeur."""
        return list(self._field(place).get(value, ()))

    def rank_all(self, rows: Iterable[Row]) -> list[tuple[Rank, Row]]:
        """Renvoie le rang de règles ; celles qui sont parties entre-temps n'en ont plus."""
        known = [(self._ranks.get(row), row) for row in rows]
        return [(rank, row) for rank, row in known if rank is not None]

    def values_of(self, place: int) -> list[Any]:
        """Renvoie les valeurs distinctes d'un champ, dans l'ordre de leur première règle."""
        with self._sequence.lock:
            return list(dict.fromkeys(row[place] for row in self.list_ordered()))

    def list_known(self, place: int) -> Collection[Any]:
        """Renvoie les valeurs distinctes d'un champ, par son index."""
        return self._field(place).keys()

    # --- écriture -----------------------------------------------------------------------------------------------

    def append(self, row: Sequence[Any]) -> None:
        """Ajoute une règle : à la fin, ou après celles de même priorité si ce type en a une."""
        with self._sequence:
            self._insert(tuple(row), self._new_rank(row))

    def extend(self, rows: Iterable[Sequence[Any]]) -> None:
        """Ajoute des règles."""
        with self._sequence:
            for row in rows:
                self._insert(tuple(row), self._new_rank(row))

    def fill(self, ranks: dict[Row, int]) -> None:
        """Prend telles quelles les règles, de même longueur, d'une liste encore vide et que rien ne suit.

        Args:
            ranks: règles et leur rang, dans l'ordre ; le dictionnaire devient celui de la liste.
        """
        if self.priority is not None:
            for row, number in ranks.items():
                self.place(row, number)
        elif ranks:
            self._ranks, self.last = cast("dict[Row, Rank]", ranks), max(ranks.values())
            self._lengths[len(next(iter(ranks)))] = len(ranks)

    def remove(self, row: Sequence[Any]) -> None:
        """Retire une règle, la première si elle y est plusieurs fois.

        Raises:
            ValueError: elle n'y est pas.
        """
        key = tuple(row)
        if key not in self._ranks:
            message = "la règle n’est pas dans la liste"
            raise ValueError(message)
        with self._sequence:
            self._drop(key)

    def __setitem__(self, place: int, row: Sequence[Any]) -> None:
        """Remplace la règle d'une place."""
        self.replace(self[place], row)

    def replace(self, old: Sequence[Any], new: Sequence[Any]) -> None:
        """Remplace une règle par une autre, qui prend sa place."""
        self.replace_all({tuple(old): tuple(new)})

    def replace_all(self, replaced: Mapping[Row, Row]) -> None:
        """Remplace des règles, chacune à sa place."""
        with self._sequence:
            ranks = [self._drop(old) for old in replaced]
            for new, rank in zip(replaced.values(), ranks, strict=True):
                self._insert(new, rank)

    def insert(self, place: int, row: Sequence[Any]) -> None:
        """Met une règle à une place ; toute la liste est reprise."""
        self._rewrite([*list(self.list_ordered())[:place], tuple(row), *list(self.list_ordered())[place:]])

    def pop(self, place: int = -1) -> list[Any]:
        """Retire la règle d'une place, et la renvoie."""
        row = self[place]
        del self[place]
        return row

    def clear(self) -> None:
        """Retire toutes les règles."""
        self._rewrite([])

    def __delitem__(self, place: int | slice) -> None:
        """Retire ce qui est à une place, ou dans une tranche."""
        kept = list(self.list_ordered())
        del kept[place]
        self._rewrite(kept)

    def __iadd__(self, rows: Iterable[Sequence[Any]]) -> Rows:  # noqa: PYI034 - la liste même
        """Ajoute des règles à la fin."""
        self.extend(rows)
        return self

    def _rewrite(self, rows: Sequence[Row]) -> None:
        """Reprend toute la liste : ce qu'une place impose, et que rien ici n'emploie couramment."""
        with self._sequence:
            for row in list(self.list_ordered()):
                self._drop(row)
            self.extend(rows)

    def number(self, row: Row) -> int:
        """Renvoie le numéro d'une règle présente : son rang, sans la priorité."""
        rank = self._ranks[row]
        return rank if isinstance(rank, int) else rank[1]

    def place(self, row: Row, number: int) -> None:
        """Ajoute une règle au rang que lui donne son numéro."""
        with self._sequence:
            self.last = max(self.last, number)
            self._insert(row, number if self.priority is None else (_priority(row[self.priority]), number))

    def restore(self, row: Row, rank: Rank) -> None:
        """Remet une règle retirée à la place qu'elle avait."""
        with self._sequence:
            self._insert(row, rank)

    def follow(self, listener: RowListener) -> None:
        """Remplit un index, puis le tient à jour."""
        for row in iterate_by_doses(self._ranks):
            listener.add(row)
        self._listeners.append(listener)

    def join(self, sequence: SequenceLock) -> None:
        """Prend le verrou d'un enforcer."""
        self._sequence = sequence

    def watch(self, listener: RowListener) -> None:
        """Prévient un observateur des changements à venir, sans lui donner les règles présentes."""
        self._listeners.append(listener)

    def leave(self, listener: RowListener) -> None:
        """Ne prévient plus un observateur."""
        self._listeners.remove(listener)

    def dismantle(self) -> None:
        """Libère peu à peu la mémoire d'une liste qui ne sert plus, et de ce qui la suit."""
        for listener in self._listeners:
            listener.dismantle()
        drain(self._ranks, *self._fields.values())

    def _new_rank(self, row: Sequence[Any]) -> Rank:
        """Donne un rang à une règle qui arrive."""
        self.last += 1
        return self.last if self.priority is None else (_priority(row[self.priority]), self.last)

    def _insert(self, row: Row, rank: Rank) -> None:
        """Range une règle à ce rang ; un double ne fait que s'ajouter à l'autre."""
        if row in self._ranks:
            self._in_order = False
            self._ranks[row], *self._copies[row] = sorted([self._ranks[row], rank, *self._copies.get(row, ())])
            return
        self._in_order = self._in_order and rank == self.last
        self._ranks[row] = rank
        self._lengths[len(row)] += 1
        for place, known in self._fields.items():
            known.setdefault(row[place] if place < len(row) else None, {})[row] = None
        for listener in self._listeners:
            listener.add(row)

    def _drop(self, row: Row) -> Rank:
        """Retire une règle, ou sa première copie, et renvoie le rang qu'elle avait."""
        rank = self._ranks[row]
        copies = self._copies.get(row)
        if copies:
            self._ranks[row], self._in_order = copies.pop(0), False
            if not copies:
                del self._copies[row]
            return rank
        del self._ranks[row]
        self._lengths[len(row)] -= 1
        if not self._lengths[len(row)]:
            del self._lengths[len(row)]
        for place, known in self._fields.items():
            _forget(known, row[place] if place < len(row) else None, row)
        for listener in self._listeners:
            listener.remove(row)
        return rank

    def _field(self, place: int) -> dict[Any, dict[Row, None]]:
        """Renvoie l'index d'un champ ; il est fait à la première demande, puis tenu à jour."""
        known = self._fields.get(place)
        if known is None:
            with self._sequence.lock:
                known = {}
                for row in self._ranks:
                    known.setdefault(row[place] if place < len(row) else None, {})[row] = None
                self._fields[place] = known
        return known


def _fits(value: object, wanted: Any) -> bool:  # noqa: ANN401 - Casbin admet une fonction
    """Dit si une valeur satisfait un filtre : un texte, ou une fonction."""
    return bool(wanted(value)) if callable(wanted) else bool(value == wanted)


def _forget(known: dict[Any, dict[Row, None]], value: object, row: Row) -> None:
    """Retire une règle d'un index de champ, sans y laisser de case vide."""
    del known[value][row]
    if not known[value]:
        del known[value]


def _priority(value: object) -> int:
    """Lit une priorité ; ce qui n'est pas un entier passe en dernier, comme dans Casbin."""
    try:
        return int(str(value))
    except ValueError:
        return 1 << 62
