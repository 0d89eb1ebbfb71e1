"""Les fichiers de règles, CSV de Casbin et JSON, lus et écrits règle par règle, sans tenir le fichier en mémoire.

Dans le CSV, une virgule ou un guillemet se met entre guillemets (RFC 4180) ; une ligne dont la première valeur l'est se
prend à la lettre, et les autres perdent leurs espaces de bord. Le JSON est une
liste d'objets `{"ptype": "p", "values": ["role:reader", "document", "read", "allow"]}`, ou un objet par ligne.

Source: https://casbin.org/docs/policy-storage
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, Final, Literal

from fastapi_acl.shared.exceptions import InvalidImportError
from fastapi_acl.shared.policy import PolicyRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TextIO

RuleFormat = Literal["csv", "json"]

NumberedRule = tuple[int, PolicyRule]
"""Une règle et le numéro de la ligne où elle se lit."""

MAX_OBJECT: Final = 65_536
"""Longueur, en caractères, au-delà de laquelle un objet JSON n'est plus une règle."""

CHUNK: Final = 65_536
"""Caractères lus à la fois."""

BYTE_ORDER_MARK: Final = "\ufeff"
"""Ce que certains tableurs mettent au début d'un fichier."""

_SEPARATORS: Final = f" \t\r\n,{BYTE_ORDER_MARK}"


def read_rules(file: TextIO, form: RuleFormat) -> Iterator[NumberedRule]:
    """Lit un fichier de règles, une règle à la fois.

    Args:
        file: texte en UTF-8 ; un CSV s'ouvre avec `newline=""`.
        form: `csv` ou `json`.

    Raises:
        InvalidImportError: une ligne ne se lit pas ; la phrase et `evidence["line"]` donnent son numéro, depuis 1.
    """
    return _read_csv(file) if form == "csv" else _read_json(file)


def write_rules(rules: Iterable[PolicyRule], form: RuleFormat, *, first: bool = True) -> str:
    """Écrit quelques règles, telles que `read_rules` les relira.

    Args:
        rules: règles, dans l'ordre.
        form: `csv` ou `json`.
        first: vrai pour le début du fichier ; un JSON ouvre alors sa liste, que `closing` referme.
    """
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        exact = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for rule in rules:
            (writer if _is_plain(rule) else exact).writerow([rule.ptype, *rule.values])
        return text.getvalue()
    lines = [json.dumps(rule.as_json(), ensure_ascii=False) for rule in rules]
    return ("[\n" if first else ",\n" if lines else "") + ",\n".join(lines)


def closing(form: RuleFormat) -> str:
    """Renvoie la fin d'un fichier de règles."""
    return "" if form == "csv" else "\n]\n"


def _is_plain(rule: PolicyRule) -> bool:
    """Dit si aucune valeur n'a d'espace de bord ni de dièse, que la lecture prendrait pour autre chose."""
    return not rule.ptype.startswith("#") and all(value == value.strip() for value in rule.values)


class _Lines:
    """Les lignes d'un fichier, dont la dernière rendue se relit."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.current = ""

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.current = line.removeprefix(BYTE_ORDER_MARK)
            yield self.current


def _read_csv(file: TextIO) -> Iterator[NumberedRule]:
    """Lit un CSV ; les espaces de bord ne comptent pas, sauf sur une ligne que des guillemets ouvrent."""
    lines = _Lines(file)
    reader = csv.reader(lines, skipinitialspace=True, strict=True)
    line = 1
    try:
        for values in reader:
            if any(values) and not values[0].startswith("#"):
                exact = values if lines.current.startswith('"') else [value.strip() for value in values]
                yield line, PolicyRule.of(exact[0].strip(), exact[1:])
            line = reader.line_num + 1
    except (csv.Error, UnicodeDecodeError) as error:
        raise _unreadable(line, f"le CSV est illisible ({error})") from error


def _read_json(file: TextIO) -> Iterator[NumberedRule]:
    """Lit une liste d'objets, ou un objet par ligne."""
    scanner = _Scanner(file)
    while (item := scanner.next()) is not None:
        yield scanner.line, _rule(item, scanner.line)


class _Scanner:
    """Lit des objets JSON l'un après l'autre, sans tenir plus d'un objet et d'un morceau du fichier."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode
        self._text, self._at, self._ended = "", 0, False
        self._in_list = False
        self.line = 1

    def next(self) -> Any:  # noqa: ANN401 - JSON
        """Renvoie l'objet suivant, ou None à la fin.

        Raises:
            InvalidImportError: le texte n'est pas du JSON.
        """
        self._skip()
        if self._in_list and self._text[self._at : self._at + 1] == "]":
            self._end_list()
        if self._at == len(self._text):
            if self._in_list:
                raise _unreadable(self.line, "la liste JSON n’est pas fermée")
            return None
        return self._object()

    def _object(self) -> Any:  # noqa: ANN401 - JSON
        """Lit un objet, quitte à lire la suite du fichier."""
        try:
            item, end = self._decode(self._text, self._at)
        except (ValueError, RecursionError) as error:
            if len(self._text) - self._at > MAX_OBJECT or not self._more():
                raise _unreadable(self.line, f"ce n’est pas du JSON ({error})") from error
            return self._object()
        self.line += self._text.count("\n", self._at, end)
        self._at = end
        return item

    def _skip(self) -> None:
        """Passe les blancs et les virgules, et le crochet qui ouvre la liste."""
        while True:
            self._pass(_SEPARATORS)
            if self._at < len(self._text):
                break
            if not self._more():
                return
        if not self._in_list and self._text[self._at] == "[":
            self._in_list = True
            self._at += 1
            self._skip()

    def _end_list(self) -> None:
        """Passe le crochet qui ferme la liste ; rien ne doit le suivre."""
        self._in_list = False
        self._at += 1
        self._skip()
        if self._at < len(self._text):
            raise _unreadable(self.line, "quelque chose suit la liste JSON")

    def _pass(self, characters: str) -> None:
        """Avance au-delà de caractères, en comptant les lignes."""
        while self._at < len(self._text) and self._text[self._at] in characters:
            self.line += self._text[self._at] == "\n"
            self._at += 1

    def _more(self) -> bool:
        """Lit un morceau de plus ; False à la fin du fichier."""
        try:
            chunk = self._file.read(CHUNK)
        except UnicodeDecodeError as error:
            raise _unreadable(self.line, f"le fichier n’est pas en UTF-8 ({error.reason})") from error
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)


def _rule(item: Any, line: int) -> PolicyRule:  # noqa: ANN401 - JSON
    """Fait une règle d'un objet."""
    values = item.get("values") if isinstance(item, dict) else None
    texts: Sequence[Any] = [item["ptype"], *values] if isinstance(values, list) and "ptype" in item else [None]
    if not all(isinstance(text, str) for text in texts):
        raise _unreadable(line, 'une règle est un objet {"ptype": "p", "values": ["…", …]}')
    return PolicyRule.of(texts[0], texts[1:])


def _unreadable(line: int, reason: str) -> InvalidImportError:
    return InvalidImportError(f"Ligne {line} : {reason} ; rien n’a été changé.", line=line)
