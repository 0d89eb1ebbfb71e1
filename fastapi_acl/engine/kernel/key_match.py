"""Les comparaisons de motifs de Casbin (`keyMatch…`, `globMatch`), en temps linéaire.

Casbin fait d'un motif une expression rationnelle et la laisse revenir sur ses pas : `/*/*/*…` y prend un temps
exponentiel. Ici un motif est lu comme une suite d'atomes. Quand rien ne peut y revenir sur ses pas, `re` le compare ;
sinon une simulation par mots de bits, dont chaque caractère coûte autant que le motif est long, et pas plus.

Source: https://casbin.org/docs/function#functions-in-matchers
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from wcmatch import glob

from fastapi_acl.engine.kernel import segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Comparison = Callable[[str], bool]
    Comparisons = dict[str, Comparison]

PATTERN_FUNCTIONS: Final = frozenset({"keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch"})
"""Fonctions que ce module sait comparer."""

MAX_COMPILED: Final = 100_000
"""Motifs gardés compilés."""

MAX_LENGTH: Final = 250
"""Longueur, en caractères, au-delà de laquelle un motif n'est pas gardé : ce n'est pas celui d'une règle."""

SEGMENT: Final = "[^/]+"
ANY_CHARACTER: Final = "."
_PLACEHOLDERS: Final = {
    "keyMatch2": re.compile(r":[^/]+"),
    "keyMatch3": re.compile(r"{[^/]+?}"),
    "keyMatch4": re.compile(r"{([^/]+)}"),
    "keyMatch5": re.compile(r"{[^/]+}"),
}
_REPEAT: Final = re.compile(r"{[0-9,]*}")
_SLASHES: Final = re.compile(r"/{2,}")
_STARS: Final = re.compile(r"\*+")
_GLOB_SPECIAL: Final = re.compile(r"[*?\[\]{}\\!()|@+~-]")
_GLOB_UNREAD: Final = re.compile(r"[\[\]{}\\!()|@+~\n]")


@dataclass(frozen=True, slots=True)
class _Atom:
    """Un caractère d'un motif : un texte d'un caractère, `.` ou `[^/]`, et combien de fois il se répète."""

    text: str
    quantifier: str = ""

    @property
    def is_literal(self) -> bool:
        """Vrai s'il vaut un caractère donné, une fois."""
        return len(self.text) == 1 and not self.quantifier

    @property
    def may_be_absent(self) -> bool:
        """Vrai s'il peut ne rien valoir."""
        return self.quantifier in {"*", "?"}

    @property
    def repeats(self) -> bool:
        """Vrai s'il peut valoir plusieurs caractères."""
        return self.quantifier in {"*", "+"}


class _UnreadError(Exception):
    """Le motif sort de ce qui se compare en temps linéaire."""


@lru_cache(MAX_COMPILED)
def compile_pattern(function: str, pattern: str) -> Comparison | None:
    """Compile un motif.

    Args:
        function: l'une de `PATTERN_FUNCTIONS`.
        pattern: motif d'une règle.

    Returns:
        De quoi dire si une valeur satisfait le motif, comme Casbin le dirait ; None si ce motif ne se compare pas en
        temps linéaire, ou si Casbin n'y lit pas une expression.
    """
    try:
        if function == "keyMatch":
            return _compile_prefix(pattern)
        return _compile_glob(pattern) if function == "globMatch" else _compile_key(function, pattern)
    except _UnreadError:
        return None


def linear(function: str, stock: Callable[..., bool]) -> Callable[..., bool]:
    """Renvoie une comparaison qui répond comme celle de Casbin, en temps linéaire si le motif le permet."""

    def compare(value: str, pattern: str) -> bool:
        if type(value) is str and type(pattern) is str:
            compiles = compile_pattern if len(pattern) <= MAX_LENGTH else compile_pattern.__wrapped__
            matches = compiles(function, pattern)
            if matches is not None:
                return matches(value)
        return stock(value, pattern)

    return compare


@lru_cache(MAX_COMPILED)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def regex_match(value: str, pattern: str) -> bool:
    """Compare par une expression rationnelle, telle que le modèle le demande ; rien ne borne son temps."""
    return _regex(pattern).match(value) is not None


# --- keyMatch ---------------------------------------------------------------------------------------------------------


def _compile_prefix(pattern: str) -> Comparison:
    """Compare comme `keyMatch` : tout ce qui suit le premier `*` est ignoré."""
    prefix, star, _ = pattern.partition("*")
    if not star:
        return pattern.__eq__
    return lambda value: value.startswith(prefix)


# --- keyMatch2 à keyMatch5 --------------------------------------------------------------------------------------------


def _compile_key(function: str, pattern: str) -> Comparison:
    """Compare comme `keyMatch2` à `keyMatch5`."""
    names, text = _expression(function, pattern)
    atoms = list(_atoms(text))
    is_repeated = len(set(names)) != len(names)
    matches = _compile_repeated(text, names, atoms) if is_repeated else _compile_atoms(text, atoms)
    return (lambda value: matches(value.partition("?")[0])) if function == "keyMatch5" else matches


def _compile_atoms(text: str, atoms: Sequence[_Atom]) -> Comparison:
    """Compare par segments si le motif s'y prête, par `re` si rien ne le fait revenir sur ses pas, sinon par bits."""
    by_segments = _compile_segments(atoms)
    if by_segments is not None:
        return by_segments
    return _compile_direct(text) if _is_direct(atoms) else _Bits(_merge(atoms)).matches


def _expression(function: str, pattern: str) -> tuple[list[str], str]:
    """Renvoie les noms d'un motif et l'expression que Casbin en fait, sans ses bornes."""
    if "\n" in pattern:
        raise _UnreadError
    text = pattern.replace("/*", "/.*")
    names = _PLACEHOLDERS[function].findall(text) if function == "keyMatch4" else []
    replaced = _PLACEHOLDERS[function].sub(SEGMENT, text)
    return names, ".*" if function == "keyMatch2" and replaced == "*" else replaced


def _atoms(text: str) -> Iterator[_Atom]:
    """Lit une expression atome par atome.

    Raises:
        _UnreadError: elle contient autre chose que des caractères, `.`, `[^/]` et des répétitions simples.
    """
    place = 0
    while place < len(text):
        atom, place = _one(text, place)
        quantifier = text[place : place + 1]
        if quantifier and quantifier in "*+?":
            place += 1
            if text[place : place + 1] in {"*", "+", "?"} or _REPEAT.match(text, place):
                raise _UnreadError
            yield _Atom(atom, quantifier)
        elif _REPEAT.match(text, place):
            raise _UnreadError
        else:
            yield _Atom(atom)


def _one(text: str, place: int) -> tuple[str, int]:
    """Lit un atome sans sa répétition, et renvoie ce qui le suit."""
    if text.startswith(SEGMENT, place):
        return "[^/]", place + len(SEGMENT) - 1
    character = text[place]
    if character == ".":
        return "any", place + 1
    if character == "\\" and text[place + 1 : place + 2] and not text[place + 1].isalnum():
        return text[place + 1], place + 2
    if character in "\\()[|^$*+?" or _REPEAT.match(text, place):
        raise _UnreadError
    return character, place + 1


def _compile_segments(atoms: Sequence[_Atom]) -> Comparison | None:
    """Compare par segments, quand le motif n'a que des caractères, des `[^/]+` et des `.*`."""
    holes = {_Atom("[^/]", "+"): segments.HOLE, _Atom("any", "*"): ".*"}
    if not all(atom.is_literal or atom in holes for atom in atoms):
        return None
    found = segments.read([holes.get(atom, atom.text) for atom in atoms])
    return None if found is None else found.matches


def _is_direct(atoms: Sequence[_Atom]) -> bool:
    """Dit si rien ne peut revenir sur ses pas : des segments entiers, puis une seule répétition libre au plus."""
    repeated = [place for place, atom in enumerate(atoms) if atom.quantifier]
    if repeated and atoms[repeated[-1]].text != "[^/]":
        repeated.pop()  # après la dernière, nulle autre ne lui dispute son texte
    return all(_is_whole_segment(atoms, place) for place in repeated)


def _is_whole_segment(atoms: Sequence[_Atom], place: int) -> bool:
    """Dit si un `[^/]` répété va jusqu'au prochain « / », ou à la fin : il ne peut alors s'arrêter que là."""
    following = atoms[place + 1 : place + 2]
    return atoms[place].text == "[^/]" and all(atom == _Atom("/") for atom in following)


def _compile_direct(text: str) -> Comparison:
    """Compare par `re`, dont rien ici ne peut faire revenir en arrière."""
    match = re.compile(f"^{text}$").match
    return lambda value: match(value) is not None


def _compile_repeated(text: str, names: Sequence[str], atoms: Sequence[_Atom]) -> Comparison:
    """Compare comme `keyMatch4` quand un nom revient : ses valeurs doivent être égales."""
    if not _is_direct(atoms) or text.count(SEGMENT) != len(names):
        raise _UnreadError
    match = re.compile(f"^{text.replace(SEGMENT, f'({SEGMENT})')}$").match

    def matches(value: str) -> bool:
        found = match(value)
        held: dict[str, str] = {}
        return found is not None and all(
            held.setdefault(name, text) == text for name, text in zip(names, found.groups(), strict=True)
        )

    return matches


def _merge(atoms: Sequence[_Atom]) -> list[_Atom]:
    """Confond les répétitions qui se suivent et valent la même chose."""
    kept: list[_Atom] = []
    for atom in atoms:
        if not (kept and atom.quantifier == "*" and kept[-1] == atom):
            kept.append(atom)
    return kept


class _Bits:
    """Un motif comme automate, un bit par atome : lire un caractère est une opération sur un entier.

    Source: Navarro et Raffinot, « Flexible Pattern Matching in Strings » (2002), chapitre 4.
    """

    __slots__ = ("_end", "_literal", "_no_line", "_no_slash", "_repeats", "_skips", "_start")

    def __init__(self, atoms: Sequence[_Atom]) -> None:
        """Prépare les masques d'un motif."""
        self._end = 1 << len(atoms)
        self._skips = _bits(atoms, lambda atom: atom.may_be_absent)
        self._repeats = _bits(atoms, lambda atom: atom.repeats)
        self._no_line = _bits(atoms, lambda atom: atom.text == "any")
        self._no_slash = _bits(atoms, lambda atom: atom.text == "[^/]")
        self._literal: Counter[str] = Counter()
        for place, atom in enumerate(atoms):
            if len(atom.text) == 1:
                self._literal[atom.text] |= 1 << place
        self._start = self._skip(1)

    def matches(self, value: str) -> bool:
        """Dit si la valeur satisfait le motif ; comme `$`, un dernier saut de ligne peut être en trop."""
        return self._accepts(value) or (value.endswith("\n") and self._accepts(value[:-1]))

    def _accepts(self, value: str) -> bool:
        """Lit toute la valeur."""
        states = self._start
        for character in value:
            states = self._read(states, character)
            if not states:
                return False
        return bool(states & self._end)

    def _read(self, states: int, character: str) -> int:
        """Renvoie les états atteints en lisant un caractère."""
        mask = self._literal.get(character, 0)
        mask |= self._no_line if character != "\n" else 0
        mask |= self._no_slash if character != "/" else 0
        consumed = states & mask
        return self._skip((consumed << 1) | (consumed & self._repeats))

    def _skip(self, states: int) -> int:
        """Ajoute les états qu'on atteint sans rien lire : la retenue d'une addition parcourt les atomes facultatifs."""
        return states | ((self._skips + (states & self._skips)) ^ self._skips)


def _bits(atoms: Sequence[_Atom], holds: Callable[[_Atom], bool]) -> int:
    """Renvoie un entier dont les bits sont les atomes qui ont une propriété."""
    return sum(1 << place for place, atom in enumerate(atoms) if holds(atom))


# --- globMatch --------------------------------------------------------------------------------------------------------


def _compile_glob(pattern: str) -> Comparison:
    """Compare comme `globMatch` : au plus un joker par segment, et aucun après un `**` ; sans accolades ni crochets.

    L'expression est celle que wcmatch en fait, compilée une fois ; ainsi bornée, rien ne l'y fait revenir en arrière.
    """
    while pattern.startswith("*/"):
        pattern = pattern[1:]
    if not pattern or _GLOB_UNREAD.search(pattern) or not _is_bounded_glob(pattern):
        raise _UnreadError
    included, excluded = glob.translate(_rewrite_glob(pattern), flags=glob.GLOBSTAR | glob.BRACE)
    if excluded:
        raise _UnreadError
    matches = [re.compile(one).fullmatch for one in included]

    def compare(value: str) -> bool:
        text = _SLASHES.sub("/", value)  # « // » y vaut « / », et d'anciens wcmatch y reviendraient sur leurs pas
        return any(match(text) is not None for match in matches)

    return compare


def _is_bounded_glob(pattern: str) -> bool:
    """Dit si un motif n'a qu'un joker au plus par segment, et aucun après un `**`."""
    segments = pattern.split("/")
    if any(_STARS.sub("*", segment).count("*") > 1 for segment in segments):
        return False
    after = pattern.partition("**")[2] if "**" in segments else ""
    return "*" not in after and "?" not in after


def _rewrite_glob(pattern: str) -> str:
    """Écrit un motif comme wcmatch le lit : `**` n'y traverse les « / » que seul, et un dernier `/**` peut manquer."""
    read = "/".join(segment if segment == "**" else _STARS.sub("*", segment) for segment in pattern.split("/"))
    return f"{{{read[:-3]},{read}}}" if read.endswith("/**") else read


# --- préfixes et groupes ----------------------------------------------------------------------------------------------


def trim(function: str, value: str) -> str:
    """Renvoie ce qu’une fonction regarde : `keyMatch5` coupe au « ? », `globMatch` confond « // » et « / »."""
    if function == "keyMatch5":
        return value.partition("?")[0]
    return _SLASHES.sub("/", value) if function == "globMatch" else value


def probes(function: str, value: str) -> tuple[str, ...]:
    """Renvoie les motifs sans joker que satisfait une valeur réduite par `trim` ; `globMatch` admet un « / » final."""
    spare = {"keyMatch": None, "globMatch": "/"}.get(function, "\n")
    return (value, value[:-1]) if spare is not None and value.endswith(spare) else (value,)


def is_literal(function: str, pattern: str) -> bool:
    """Dit si un motif ne vaut que lui-même, aux retranchements de `probes` près."""
    return function != "globMatch" and literal_prefix(function, pattern) == pattern


def literal_prefix(function: str, pattern: str) -> str:
    """Renvoie un texte par lequel commence toute valeur, réduite par `trim`, qui satisfait le motif."""
    if function == "keyMatch":
        return pattern.partition("*")[0]
    if function == "globMatch":
        is_braced = pattern.endswith("/**") and "," in pattern
        text = "" if is_braced or pattern.startswith("*") else _SLASHES.sub("/", pattern)
        return _GLOB_SPECIAL.split(text, maxsplit=1)[0].rstrip("/")
    try:
        return "".join(_leading(list(_atoms(_expression(function, pattern)[1]))))
    except _UnreadError:
        return ""


def literal_suffix(function: str, pattern: str) -> str:
    """Renvoie un texte par lequel finit l'une au moins des valeurs que renvoie `probes`, si elle satisfait le motif."""
    if function == "keyMatch":
        return ""
    if function == "globMatch":
        return "" if pattern.endswith("/**") else _GLOB_SPECIAL.split(_SLASHES.sub("/", pattern))[-1].strip("/")
    try:
        atoms = list(_atoms(_expression(function, pattern)[1]))
    except _UnreadError:
        return ""
    return "".join(_leading(atoms[::-1]))[::-1]


def _leading(atoms: Sequence[_Atom]) -> Iterator[str]:
    """Énumère les caractères par lesquels un motif commence toujours."""
    for atom in atoms:
        if not atom.is_literal:
            return
        yield atom.text


class PatternGroups:
    """Les motifs distincts d'un champ : ceux sans joker par hachage, les autres par préfixe, puis par suffixe littéral.

    Seules les longueurs que des motifs ont sont cherchées ; une valeur n'est donc comparée qu'à ceux dont elle a le
    début et la fin.
    """

    __slots__ = ("_counts", "_function", "_groups", "_literals")

    def __init__(self, function: str) -> None:
        """Part vide.

        Args:
            function: l'une de `PATTERN_FUNCTIONS`.
        """
        self._function = function
        self._counts: Counter[str] = Counter()
        self._literals: set[str] = set()
        self._groups: dict[int, dict[str, dict[int, dict[str, Comparisons]]]] = {}

    def __len__(self) -> int:
        """Renvoie le nombre de motifs distincts."""
        return len(self._counts)

    def add(self, pattern: str) -> None:
        """Ajoute un motif ; il n'est compilé que la première fois.

        Raises:
            ValueError: il ne se compare pas en temps linéaire.
        """
        self._counts[pattern] += 1
        if self._counts[pattern] > 1:
            return
        if is_literal(self._function, pattern):
            self._literals.add(pattern)
            return
        matches = compile_pattern(self._function, pattern)
        if matches is None:
            message = "ce motif ne se compare pas en temps linéaire"
            raise ValueError(message)
        group: dict[Any, Any] = self._groups
        for key in self._place(pattern):
            group = group.setdefault(key, {})
        group[pattern] = matches

    def discard(self, pattern: str) -> None:
        """Retire un motif ajouté."""
        self._counts[pattern] -= 1
        if self._counts[pattern]:
            return
        del self._counts[pattern]
        if pattern in self._literals:
            self._literals.remove(pattern)
            return
        _drop(self._groups, (*self._place(pattern), pattern))

    def _place(self, pattern: str) -> tuple[int, str, int, str]:
        """Renvoie le chemin d'un motif parmi les groupes."""
        prefix, suffix = literal_prefix(self._function, pattern), literal_suffix(self._function, pattern)
        return len(prefix), prefix, len(suffix), suffix

    def matching(self, value: str) -> list[str]:
        """Renvoie les motifs que la valeur satisfait."""
        text = trim(self._function, value)
        texts = probes(self._function, text)
        found = [known for known in texts if known in self._literals]
        for length, groups in self._groups.items():
            group = groups.get(text[:length])
            if group is not None:
                found += [pattern for pattern, matches in self._ending(group, texts) if matches(value)]
        return found

    def _ending(
        self, group: dict[int, dict[str, Comparisons]], texts: Sequence[str]
    ) -> Iterator[tuple[str, Comparison]]:
        """Énumère les motifs d'un groupe dont une valeur a la fin."""
        for length, ends in group.items():
            for suffix in {text[len(text) - length :] if length <= len(text) else None for text in texts}:
                if suffix in ends:
                    yield from ends[suffix].items()


def _drop(groups: dict[Any, Any], path: Sequence[Any]) -> None:
    """Retire ce qui est au bout d'un chemin, sans laisser de groupe vide."""
    first, *rest = path
    if rest:
        _drop(groups[first], rest)
    if not rest or not groups[first]:
        del groups[first]
