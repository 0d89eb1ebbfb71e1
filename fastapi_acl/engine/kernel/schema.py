"""Ce que le modèle demande des règles et des requêtes, lu une fois dans `model.conf`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi_acl.engine.kernel.acl_match import ANY, is_pattern
from fastapi_acl.engine.kernel.key_match import compile_pattern
from fastapi_acl.engine.kernel.reads import MatcherReads
from fastapi_acl.shared.exceptions import InvalidRuleError
from fastapi_acl.shared.identity import ROLE_NAME, ROLE_PREFIX, USER_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi_acl.shared.policy import PolicyRule

MAX_VALUE_LENGTH: Final = 250
"""Longueur maximale d'une valeur de règle, en caractères."""


SUBJECT_NAMES: Final = frozenset({"sub", "subject", "user"})
DOMAIN_NAMES: Final = frozenset({"dom", "domain", "tenant"})
RESOURCE_NAMES: Final = frozenset({"obj", "object", "resource", "path"})
ACTION_NAMES: Final = frozenset({"act", "action", "method"})

SHARED_DOMAIN_CHOICE: Final = (
    "rien ne dit ce que vaut le domaine « * » sous ce modèle ; réglez ACL_SHARED_DOMAIN sur « * » (une règle ou un "
    "lien dans « * » vaut dans tous les domaines), ou sur le vide (« * » est un domaine comme un autre)"
)
"""Ce qui est dit d'une règle dans `*` quand le réglage manque, partout dans les mêmes mots."""

_CALL: Final = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
_ACL_MATCHED: Final = re.compile(r"\baclMatch\(\s*r_\w+(?:\.\w+)?\s*,\s*p_(\w+)\s*\)")
_KEY_MATCHED: Final = re.compile(r"\b(keyMatch[2345]?|globMatch)\(\s*r\d*_\w+\s*,\s*p\d*_(\w+)\s*\)")
_EVALUATED: Final = re.compile(r"\beval\(\s*p\d*_(\w+)\s*\)")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:-]{1,200}")
_PLAIN_ROLE: Final = re.compile(r"role:[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PLAIN_SUBJECT: Final = re.compile(r"user:[A-Za-z0-9_.-]{1,200}|role:[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NOTHING: Final = re.compile(r"(?!)")
_NEGATION: Final = re.compile(r"!|\bnot\b")
_INTEGER: Final = re.compile(r"-?[0-9]{1,9}")
_RULE_REFERENCE: Final = re.compile(r"\bp\d*_\w+")


class Conditions(Protocol):
    """Ce qui sait si une règle `eval()` pourra s'évaluer."""

    def fault(self, text: str) -> str:
        """Dit ce qui ne va pas dans une règle `eval()` ; rien si tout va bien."""

    def without_functions(self) -> Conditions:
        """Renvoie de quoi juger sans connaître les fonctions de l'application."""


class Sections(Protocol):
    """Ce qu'un modèle chargé donne, section par section."""

    def __getitem__(self, section: str) -> Any:  # noqa: ANN401 - des définitions de pycasbin
        """Renvoie les définitions d'une section, par nom ; None si elle manque."""


@dataclass(frozen=True, slots=True)
class PolicySchema:
    """Forme des règles et des requêtes d'un modèle.

    Attributes:
        request: noms des valeurs d'une requête, dans l'ordre.
        fields: pour chaque type `p…`, les noms de ses valeurs.
        links: pour chaque type `g…`, le nombre de ses valeurs.
        patterns: noms des champs que le matcher compare par `aclMatch`.
        motifs: pour chaque champ que le matcher compare par `keyMatch…` ou `globMatch`, la fonction.
        matchers: expression de chaque matcher, telle que Casbin l'a préparée.
        effect: effet du modèle.
        conditions: ce qui juge une règle `eval()`.
        evaluated: noms des champs que le matcher lit par `eval()`.
        raw_subjects: vrai si les sujets n'ont pas à porter de préfixe (Authenticator de l'application).
        shares_domains: vrai si le domaine `*` vaut dans tous ; None si rien ne le dit : aucune règle n'y est admise.
    """

    request: tuple[str, ...]
    fields: dict[str, tuple[str, ...]]
    links: dict[str, int]
    patterns: frozenset[str]
    motifs: Mapping[str, str]
    matchers: tuple[str, ...]
    effect: str
    conditions: Conditions
    evaluated: frozenset[str] = frozenset()
    raw_subjects: bool = False
    shares_domains: bool | None = False

    @classmethod
    def of(
        cls,
        model: Sections,
        conditions: Conditions,
        *,
        raw_subjects: bool = False,
        shares_domains: bool | None = False,
    ) -> PolicySchema:
        """Lit la forme dans un modèle chargé.

        Args:
            model: modèle chargé.
            conditions: ce qui juge une règle `eval()`.
            raw_subjects: vrai si les sujets n'ont pas à porter de préfixe.
            shares_domains: vrai si le domaine `*` vaut dans tous ; None si rien ne le dit.
        """
        matcher = " ".join(assertion.value for assertion in model["m"].values())
        return cls(
            request=tuple(_names(model["r"]["r"].tokens)),
            fields={ptype: tuple(_names(assertion.tokens)) for ptype, assertion in model["p"].items()},
            links={ptype: assertion.value.count("_") for ptype, assertion in (model["g"] or {}).items()},
            patterns=frozenset(_ACL_MATCHED.findall(matcher)),
            motifs={field: function for function, field in _KEY_MATCHED.findall(matcher)},
            matchers=tuple(assertion.value for assertion in model["m"].values()),
            effect=model["e"]["e"].value,
            conditions=conditions,
            evaluated=frozenset(_EVALUATED.findall(matcher)),
            raw_subjects=raw_subjects,
            shares_domains=shares_domains,
        )

    @property
    def matcher(self) -> str:
        """Tous les matchers, d'une pièce : de quoi y chercher un nom."""
        return " ".join(self.matchers)

    @property
    def functions(self) -> frozenset[str]:
        """Noms des fonctions que le matcher appelle."""
        return frozenset(_CALL.findall(self.matcher)) - {"and", "or", "not", "in"}

    @property
    def uses_eval(self) -> bool:
        """Vrai si le matcher évalue des expressions lues dans les règles."""
        return "eval" in self.functions

    @property
    def names_rules(self) -> bool:
        """Vrai si le matcher lit au moins un champ des règles."""
        return bool(_RULE_REFERENCE.search(self.matcher)) or self.uses_eval

    @property
    def has_domains(self) -> bool:
        """Vrai si une requête porte un domaine."""
        return bool(DOMAIN_NAMES.intersection(self.request))

    def reads(self, names: frozenset[str]) -> MatcherReads:
        """Dit ce que le matcher lit des valeurs de la requête qui portent ces noms."""
        return MatcherReads.of(self.matcher, {f"r_{name}" for name in names}, self.links.keys())

    @property
    def roles_have_domains(self) -> bool:
        """Vrai si un lien de rôle porte un domaine."""
        return self.links.get("g", 2) > 2  # noqa: PLR2004 - un membre et un rôle, sans domaine

    @property
    def keeps_domains(self) -> bool:
        """Vrai si une requête, une règle ou un lien porte un domaine."""
        columns = (self.columns(ptype) for ptype in (*self.fields, *self.links))
        return self.has_domains or any(not DOMAIN_NAMES.isdisjoint(names) for names in columns)

    @property
    def decides_on_routes(self) -> bool:
        """Vrai si une requête porte le gabarit de la route (`path`) plutôt qu'une ressource déclarée."""
        return "path" in self.request

    @property
    def can_deny(self) -> bool:
        """Vrai si une règle, ou un lien, peut refuser : par son effet, ou parce que le matcher le nie."""
        return any("eft" in names for names in self.fields.values()) or bool(_NEGATION.search(self.matcher))

    def check(self, rule: PolicyRule) -> None:
        """Refuse une règle que le modèle ne saurait pas lire.

        Raises:
            InvalidRuleError: type inconnu, nombre de valeurs, longueur, caractère, effet, joker ou préfixe.
        """
        names = self.columns(rule.ptype)
        if not names:
            known = ", ".join([*self.fields, *self.links])
            raise _make_refusal(rule, f"type de règle inconnu ; le modèle connaît {known}")
        if len(rule.values) != len(names):
            expected = f"« {rule.ptype} » attend {len(names)} valeurs ({', '.join(names)}), {len(rule.values)} reçues"
            raise _make_refusal(rule, expected)
        for name, value in zip(names, rule.values, strict=True):
            fault = self._fault(rule.ptype, name, value) or self._condition_fault(
                rule.ptype, name, value, self.conditions
            )
            if fault:
                raise _make_refusal(rule, fault)

    def is_undecided(self, rule: PolicyRule) -> bool:
        """Dit si une règle est écrite dans le domaine `*` sans que rien ne dise ce qu'il vaut."""
        named = zip(self.columns(rule.ptype), rule.values, strict=False)
        return self.shares_domains is None and any(value == ANY and name in DOMAIN_NAMES for name, value in named)

    def checker(self, ptype: str, name: str) -> Callable[[str | None], bool]:
        """Renvoie de quoi dire si une valeur peut se trouver dans cette colonne ; les plus courantes, aussitôt."""
        plain = self._plain(ptype, name)

        def accepts(value: str | None) -> bool:
            return type(value) is str and (plain(value) is not None or not self._fault(ptype, name, value))

        return accepts

    def _plain(self, ptype: str, name: str) -> Callable[[str], object]:
        """Renvoie ce qui reconnaît les valeurs sûrement bonnes d'une colonne."""
        if name in self.motifs or name in self.evaluated or name in {"eft", "priority"}:
            return _NOTHING.fullmatch
        if not self.raw_subjects and (ptype == "g" or ptype[:1] == "p") and name in {*SUBJECT_NAMES, "member", "role"}:
            return _PLAIN_ROLE.fullmatch if name == "role" else _PLAIN_SUBJECT.fullmatch
        return _PLAIN.fullmatch

    def columns(self, ptype: str) -> tuple[str, ...]:
        """Renvoie les noms des valeurs d'une règle de ce type ; aucun si le modèle ne connaît pas le type."""
        if ptype in self.links:
            return ("member", "role", *(f"domain{index or ''}" for index in range(self.links[ptype] - 2)))
        return self.fields.get(ptype, ())

    def _fault(self, ptype: str, name: str, value: str) -> str:
        """Dit ce qui ne va pas dans une valeur, selon le champ où elle se trouve ; rien si tout va bien."""
        if type(value) is not str or not 0 < len(value) <= MAX_VALUE_LENGTH:
            return f"« {name} » est un texte de 1 à {MAX_VALUE_LENGTH} caractères"
        if _CONTROL.search(value):
            return f"« {name} » contient un caractère de contrôle"
        if name == "eft" and value not in {"allow", "deny"}:
            return "l’effet « eft » vaut « allow » ou « deny »"
        if value == ANY and self.shares_domains is None and name in DOMAIN_NAMES:
            return SHARED_DOMAIN_CHOICE
        if name == "priority" and not _INTEGER.fullmatch(value):
            return "la priorité est un entier"
        return (
            self._pattern_fault(ptype, name, value)
            or self._condition_fault(ptype, name, value, self.conditions.without_functions())
            or ("" if self.raw_subjects else _subject_fault(ptype, name, value))
        )

    def _condition_fault(self, ptype: str, name: str, value: str, conditions: Conditions) -> str:
        """Dit ce qui ne va pas dans une règle `eval()`.

        Une fonction inconnue ne se refuse qu'à l'écriture : la ligne de commande lit des règles sans les fonctions de
        l'application.
        """
        if name not in self.evaluated or ptype[:1] != "p":
            return ""
        fault = conditions.fault(value)
        return f"la règle eval() « {name} » ne peut pas s’évaluer : {fault}" if fault else ""

    def _pattern_fault(self, ptype: str, name: str, value: str) -> str:
        """Dit ce qui ne va pas dans un joker."""
        if name in self.patterns and not is_pattern(value):
            return f"dans « {name} », « * » n’est admis que seul ou comme dernier segment (« document:* »)"
        if name.startswith("domain") and ptype[:1] == "g" and ANY in value and value != ANY:
            return "le domaine d’un lien est un nom, ou « * » seul"
        function = self.motifs.get(name)
        if function is not None and compile_pattern(function, value) is None:
            return f"« {name} » n’est pas un motif {function} qui se compare en temps linéaire"
        return ""

    def subject_of(self, rule: PolicyRule) -> str:
        """Renvoie le sujet d'une règle `p`, ou le membre d'un lien ; rien si le type n'en a pas."""
        place = 0 if rule.ptype in self.links else self.position(rule.ptype, SUBJECT_NAMES)
        return rule.values[place] if place is not None and place < len(rule.values) else ""

    def position(self, ptype: str, names: frozenset[str]) -> int | None:
        """Renvoie la place, dans une règle, du premier champ qui porte un de ces noms ; rien si le type est inconnu."""
        places = (index for index, name in enumerate(self.fields.get(ptype, ())) if name in names)
        return next(places, None)


def _subject_fault(ptype: str, name: str, value: str) -> str:
    """Dit ce qui ne va pas dans le préfixe d'un sujet : sans lui, un nom de compte pourrait être un nom de rôle."""
    if ptype[:1] == "g" and ptype != "g":
        return ""
    if name in SUBJECT_NAMES | {"member"} and value.startswith(f"{USER_PREFIX}@"):
        return f"« {value} » nomme un compte, ce que seul le fichier de départ sait lire : donnez son identifiant"
    if name == "role" and not _is_role(value):
        return f"le rôle s’écrit « {ROLE_PREFIX}<nom> » (lettres, chiffres, « _ . - », 64 au plus)"
    if name in SUBJECT_NAMES | {"member"} and not (_is_role(value) or _is_user(value)):
        return f"le sujet s’écrit « {USER_PREFIX}<identifiant> » ou « {ROLE_PREFIX}<nom> »"
    return ""


def _is_role(value: str) -> bool:
    return value.startswith(ROLE_PREFIX) and ROLE_NAME.fullmatch(value[len(ROLE_PREFIX) :]) is not None


def _is_user(value: str) -> bool:
    return value.startswith(USER_PREFIX) and len(value) > len(USER_PREFIX)


def _make_refusal(rule: PolicyRule, reason: str) -> InvalidRuleError:
    """Fait l'erreur qui dit ce qui manque à la règle."""
    return InvalidRuleError(f"Règle refusée : {reason} ; rien n’a été changé.", rule=rule.as_json())


def _names(tokens: list[str]) -> list[str]:
    """Retire le préfixe (`r_`, `p2_`) que Casbin ajoute aux noms."""
    return [token.partition("_")[2] for token in tokens]
