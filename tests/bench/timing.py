"""Mesurer et écrire : médianes, unités, lignes de tableau, cibles."""

from __future__ import annotations

import gc
import statistics
import timeit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

Unit = Literal["s", "o", "fois"]

SCALES: dict[str, tuple[tuple[str, float], ...]] = {
    "s": (("s", 1), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)),
    "o": (("Gio", 2**30), ("Mio", 2**20), ("Kio", 2**10), ("o", 1)),
    "fois": (("fois", 1),),
}


@dataclass(frozen=True)
class Scale:
    """L'ampleur d'une exécution.

    Attributes:
        sizes: tailles des politiques, de la plus petite à la plus grande.
        compared: la plus grande taille où pycasbin est mesuré.
        rounds: tours dont on prend la médiane.
        seconds: durée visée d'un tour.
        is_full: vrai si pycasbin charge aussi la plus grande politique.
    """

    sizes: tuple[int, ...] = (2, 1_100, 11_000, 110_000, 1_000_000)
    compared: int = 110_000
    rounds: int = 7
    seconds: float = 0.05
    is_full: bool = False

    @property
    def largest(self) -> int:
        """La plus grande politique."""
        return self.sizes[-1]


QUICK = Scale(sizes=(2, 1_100, 11_000), compared=11_000, rounds=3, seconds=0.01)


@dataclass(frozen=True)
class Amount:
    """Une durée, une mémoire ou un rapport."""

    value: float
    unit: Unit = "s"

    def __str__(self) -> str:
        """Écrit la grandeur dans l'unité qui convient, à trois chiffres."""
        scales = SCALES[self.unit]
        name, scale = next((found for found in scales if abs(self.value) >= found[1]), scales[-1])
        return f"{_three_digits(self.value / scale)} {name}"


@dataclass(frozen=True)
class Target:
    """Ce que l'on s'est promis : notre grandeur au plus, ou un rapport au moins."""

    limit: float
    unit: Unit = "s"
    is_ratio: bool = False

    def __str__(self) -> str:
        """Écrit la cible."""
        return f"≥ {number(self.limit)} fois" if self.is_ratio else f"≤ {Amount(self.limit, self.unit)}"


def at_most(limit: float, unit: Unit = "s") -> Target:
    return Target(limit, unit)


def faster(ratio: float) -> Target:
    return Target(ratio, is_ratio=True)


NEVER_SLOWER = faster(1)


@dataclass(frozen=True)
class Row:
    """Une ligne : un travail, notre grandeur, celle d'un pair dans la même exécution, et la cible.

    Attributes:
        size: nombre de règles, ou None.
        note: ce qui est dit du pair quand il n'a pas de grandeur.
    """

    label: str
    size: int | None
    mine: Amount | None
    peer: str = ""
    theirs: Amount | None = None
    target: Target | None = None
    note: str = "—"

    @property
    def ratio(self) -> float | None:
        """Combien de fois le pair est plus gourmand."""
        if self.mine is None or self.theirs is None or self.mine.value <= 0:
            return None
        return self.theirs.value / self.mine.value

    @property
    def is_met(self) -> bool | None:
        """Dit si la cible est tenue ; None s'il n'y en a pas, ou s'il manque de quoi le dire."""
        if self.target is None or self.mine is None:
            return None
        if self.target.is_ratio:
            return None if self.ratio is None else self.ratio >= self.target.limit
        return self.mine.value <= self.target.limit

    def cells(self) -> tuple[str, ...]:
        """Rend la ligne du tableau."""
        return (
            self.label,
            "" if self.size is None else number(self.size),
            str(self.mine or "—"),
            self.peer or "—",
            str(self.theirs or self.note),
            "—" if self.ratio is None else f"{_three_digits(self.ratio)} fois",
            str(self.target or "—"),
            {None: "—", True: "✓", False: "manqué"}[self.is_met],
        )


HEADINGS = ("travail", "règles", "fastapi-acl", "pair", "le pair", "rapport", "cible", "tenue")


def table(rows: Sequence[Row]) -> str:
    """Écrit un tableau Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float) -> str:
    """Écrit un nombre à la française."""
    return f"{value:,.10g}".replace(",", "\u202f").replace(".", ",")


def _three_digits(value: float) -> str:
    """Arrondit à trois chiffres significatifs."""
    return number(float(f"{value:.3g}"))


def seconds_per_call(call: Callable[..., Any], arguments: Sequence[Any], scale: Scale) -> Amount:
    """Rend le temps médian d'un appel, mêmes arguments à chaque fois.

    Le ramasse-miettes reste en marche, comme en service ; la boucle, quelques nanosecondes, n'est pas retranchée.
    """
    names = ", ".join(f"a{index}" for index in range(len(arguments)))
    setup = f"import gc; gc.enable(); call = given; {names}, = arguments" if names else "call = given"
    timer = timeit.Timer(f"call({names})", setup, globals={"given": call, "arguments": arguments})
    gc.collect()
    times = _repetitions(timer, scale.seconds)
    rounds = scale.rounds if times > 1 else min(3, scale.rounds)
    return Amount(statistics.median(timer.repeat(rounds, times)) / times)


def _repetitions(timer: timeit.Timer, seconds: float) -> int:
    """Rend le nombre d'appels qui remplit un tour ; un appel plus long que le tour n'est fait qu'une fois."""
    times = 1
    while (spent := timer.timeit(times)) < seconds / 10:
        times *= 10
    return max(1, round(times * seconds / spent))


def seconds_over(call: Callable[..., Any], requests: Callable[[], Sequence[Sequence[Any]]], scale: Scale) -> Amount:
    """Rend le temps médian d'un appel sur des arguments tous différents, refaits à chaque tour."""
    samples = []
    for _ in range(scale.rounds):
        asked = requests()
        gc.collect()
        started = timeit.default_timer()
        for arguments in asked:
            call(*arguments)
        samples.append((timeit.default_timer() - started) / len(asked))
    return Amount(statistics.median(samples))


@contextmanager
def stopwatch(samples: list[float]) -> Iterator[None]:
    """Ajoute à une liste la durée du bloc."""
    gc.collect()
    started = timeit.default_timer()
    yield
    samples.append(timeit.default_timer() - started)
