"""Le texte d'un modèle, lu définition par définition avant Casbin, qui en tairait les fautes.

Casbin ignore une section ou un nom qu'il ne connaît pas, garde la dernière de deux définitions du même nom, et ne dit
d'une section absente que « 'NoneType' object is not subscriptable ». Ici chaque faute nomme le fichier, la ligne, la
section et le remède.

Source: https://casbin.org/docs/syntax-for-models
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from casbin.model import Model
from casbin.util import escape_assertion, remove_comments

from fastapi_acl.engine.kernel.effects import ALLOW_OVERRIDE_EFFECT, EFFECTS, SUBJECT_PRIORITY_EFFECT
from fastapi_acl.engine.kernel.plan import UnreadableMatcherError, calls, parse
from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_VALUES: Final = 6
"""Nombre de colonnes de valeurs dans `casbin_rule`."""

SECTIONS: Final[Mapping[str, str]] = {name: letter for letter, name in Model.section_name_map.items()}
"""Lettre des définitions de chaque section."""

EXAMPLES: Final[Mapping[str, str]] = {
    "r": "r = sub, obj, act",
    "p": "p = sub, obj, act, eft",
    "g": "g = _, _",
    "e": "e = some(where (p.eft == allow)) && !some(where (p.eft == deny))",
    "m": "m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act",
}
"""Ce qu'une définition de chaque lettre peut être."""

_LINK: Final = re.compile(r"_(\s*,\s*_){1,2}")
_CONDITIONAL: Final = re.compile(r"_(\s*,\s*_){1,2}\s*,\s*\([^()]*\)")
ROLE_FUNCTION: Final = re.compile(r"g\d*")


class Definition(NamedTuple):
    """Une définition, telle que le fichier l'écrit.

    Attributes:
        value: ce qui suit le signe égal, lignes jointes.
        line: ligne où elle commence, depuis 1.
    """

    value: str
    line: int


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Un modèle lu.

    Attributes:
        source: fichier, ou nom du modèle fourni, que les messages citent.
        definitions: pour chaque lettre (`r`, `p`, `g`, `e`, `m`), les définitions par nom.
    """

    source: str
    definitions: Mapping[str, Mapping[str, Definition]]

    @classmethod
    def read(cls, text: str, source: str) -> ModelFile:
        """Lit un texte de modèle, et refuse ce que Casbin tairait.

        Args:
            text: texte du modèle.
            source: d'où il vient.

        Raises:
            ConfigurationError: une définition manque, se répète, est vide, inconnue ou mal faite.
        """
        found: dict[str, dict[str, Definition]] = {letter: {} for letter in SECTIONS.values()}
        for section, line, written in _definitions(text):
            letter = _letter(source, section, line)
            name, equals, value = (part.strip() for part in written.partition("="))
            if not written:
                continue
            if not equals or not value:
                fault = f"« {name} » n’a pas de valeur ; écrivez par exemple « {EXAMPLES[letter]} »"
                raise _make_refusal(source, fault, section, line)
            if name in found[letter]:
                fault = f"« {name} » est déjà défini ligne {found[letter][name].line} ; n’en gardez qu’un"
                raise _make_refusal(source, fault, section, line)
            found[letter][name] = Definition(value, line)
        read = cls(source, found)
        read._check()
        return read

    def _check(self) -> None:
        """Vérifie que tout y est, et que chaque définition a la forme de sa section."""
        for section, letter in SECTIONS.items():
            self._check_names(section, letter)
        for section, letter, name, definition in self._each():
            fault = self._fault(letter, name, definition)
            if fault:
                raise _make_refusal(self.source, fault, section, definition.line)

    def _each(self) -> Iterator[tuple[str, str, str, Definition]]:
        """Énumère les définitions, dans l'ordre des sections."""
        for section, letter in SECTIONS.items():
            for name, definition in self.definitions[letter].items():
                yield section, letter, name, definition

    def _check_names(self, section: str, letter: str) -> None:
        """Vérifie que les définitions d'une section se nomment `m`, `m2`, `m3`… sans trou : Casbin s'arrête au premier.

        Raises:
            ConfigurationError: la section manque, ou l'un de ses noms ne serait jamais lu.
        """
        known = self.definitions[letter]
        expected = [letter, *(f"{letter}{number}" for number in range(2, len(known) + 1))]
        unread = next((name for name in known if name not in expected), None)
        if unread is not None:
            fault = f"« {unread} » ne serait jamais lu ; les noms attendus sont {', '.join(expected)}"
            raise _make_refusal(self.source, fault, section, known[unread].line)
        if not known and letter != "g":
            fault = f"la section [{section}] manque, ou elle est vide ; écrivez-y par exemple « {EXAMPLES[letter]} »"
            raise _make_refusal(self.source, fault)

    def _fault(self, letter: str, name: str, definition: Definition) -> str:
        """Dit ce qui ne va pas dans une définition ; rien si tout va bien."""
        if letter in {"r", "p"}:
            return _names_fault(letter, name, definition.value)
        if letter == "g":
            return _link_fault(name, definition.value)
        return self._effect_fault(name) if letter == "e" else self._roles_fault(definition)

    def _effect_fault(self, name: str) -> str:
        """Dit ce qui ne va pas dans un effet : inconnu, ou qui lit ce que les règles ne portent pas."""
        effect = as_casbin(self.definitions["e"][name].value)
        if effect not in EFFECTS:
            known = " ; ".join(written.replace("p_eft", "p.eft") for written in EFFECTS)
            return f"l’effet « {name} » n’est pas de ceux de Casbin ; choisissez parmi : {known}"
        if effect == SUBJECT_PRIORITY_EFFECT and "g" not in self.definitions["g"]:
            return f"l’effet « {name} » range les règles par rôle : ajoutez [role_definition] et « {EXAMPLES['g']} »"
        if effect != ALLOW_OVERRIDE_EFFECT and not any(map(_has_effect, self.definitions["p"].values())):
            return (
                f"l’effet « {name} » lit « p.eft », qu’aucune règle ne porte : toutes accorderaient ; ajoutez « eft » "
                "à la définition de « p » (« p = sub, obj, act, eft »)"
            )
        return ""

    def _roles_fault(self, definition: Definition) -> str:
        """Dit quelle fonction de rôles un matcher emploie sans qu'elle soit définie."""
        try:
            called = calls(parse(as_casbin(definition.value)))
        except UnreadableMatcherError:
            return ""
        missing = sorted(name for name in called - self.definitions["g"].keys() if ROLE_FUNCTION.fullmatch(name))
        if not missing:
            return ""
        return (
            f"le matcher emploie {missing[0]}(…), que rien ne définit ; ajoutez [role_definition] et "
            f"« {missing[0]} = _, _ », ou « {missing[0]} = _, _, _ » avec un domaine"
        )


def as_casbin(value: str) -> str:
    """Renvoie un effet ou un matcher tel que Casbin le prépare : `r_sub` pour `r.sub`, commentaire retiré."""
    prepared: str = remove_comments(escape_assertion(value))
    return prepared


def _definitions(text: str) -> Iterator[tuple[str, int, str]]:
    """Énumère les sections (texte vide) et les définitions (texte joint), coupées là où Casbin les coupe."""
    section, begun, parts = "", 0, list[str]()
    for number, raw in enumerate([*text.split("\n"), ""], start=1):
        line = raw.strip()
        is_section = line[:1] == "[" and line[-1:] == "]"
        if parts and (is_section or line[:1] in {"", "#", ";"}):
            yield section, begun, "".join(parts)
            parts = []
        if is_section:
            section = line[1:-1]
            yield section, number, ""
        elif line[:1] not in {"", "#", ";"}:
            begun = begun if parts else number
            parts.append(line if line[-1] != "\\" else f"{line[:-1].strip()} ")
            if line[-1] != "\\":
                yield section, begun, "".join(parts)
                parts = []


def _letter(source: str, section: str, line: int) -> str:
    """Renvoie la lettre d'une section.

    Raises:
        ConfigurationError: Casbin ne connaît pas la section.
    """
    if section in SECTIONS:
        return SECTIONS[section]
    if not section:
        fault = f"une définition précède toute section ; mettez-la sous [{next(iter(SECTIONS))}] ou une autre"
        raise _make_refusal(source, fault, line=line)
    near = difflib.get_close_matches(section.lower(), SECTIONS, n=1)
    meant = f"vouliez-vous [{near[0]}] ?" if near else f"les sections sont {', '.join(SECTIONS)}"
    fault = f"la section [{section}] n’est pas de celles d’un modèle ; {meant}"
    raise _make_refusal(source, fault, line=line)


def _names_fault(letter: str, name: str, value: str) -> str:
    """Dit ce qui ne va pas dans les noms d'une requête ou d'une règle."""
    names = [part.strip() for part in value.split(",")]
    wrong = next((one for one in names if not one.isidentifier()), None)
    if wrong is not None:
        return (
            f"dans « {name} », « {wrong} » n’est pas un nom ; séparez les noms par des virgules, et mettez un "
            "commentaire seul sur sa ligne"
            if wrong
            else f"dans « {name} », une virgule ne suit ou ne précède aucun nom ; retirez-la"
        )
    repeated = next((one for one in names if names.count(one) > 1), None)
    if repeated is not None:
        return f"« {name} » nomme deux fois « {repeated} » ; donnez à chaque valeur son nom"
    if letter == "p" and len(names) > MAX_VALUES:
        return f"« {name} » a {len(names)} valeurs, la base en garde {MAX_VALUES} au plus ; retirez-en"
    return ""


def _link_fault(name: str, value: str) -> str:
    """Dit ce qui ne va pas dans la définition d'un lien ; ses conditions, elles, se refusent ailleurs."""
    if _LINK.fullmatch(value) or _CONDITIONAL.fullmatch(value):
        return ""
    return f"« {name} » s’écrit « _, _ » (membre et rôle) ou « _, _, _ » (membre, rôle et domaine), et rien d’autre"


def _has_effect(definition: Definition) -> bool:
    return "eft" in [part.strip() for part in definition.value.split(",")]


def _make_refusal(source: str, fault: str, section: str = "", line: int = 0) -> ConfigurationError:
    """Fait l'erreur qui dit où est la faute, et comment la corriger."""
    place = f", ligne {line}" * bool(line) + f", section [{section}]" * bool(section)
    return ConfigurationError(f"le modèle « {source} » est illisible{place} : {fault}.")
