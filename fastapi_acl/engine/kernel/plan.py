"""Un matcher, lu une fois : quels termes désignent des cases d'index, et ce qu'il reste à évaluer par règle.

`g(r.sub, p.sub) && r.obj == p.obj` n'a pas à être évalué règle par règle : ses deux termes désignent des cases. Le plan
n'a qu'une obligation, ne manquer aucune règle que le matcher accepterait ; celles qu'il désigne de trop sont évaluées.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import product
from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.kernel import gates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Probe(Enum):
    """Comment un terme se cherche dans l'index."""

    EXACT = "=="
    PATTERN = "aclMatch"
    KEY_MATCH = "keyMatch"
    ROLE = "g"
    ANY_OF = "||"


@dataclass(frozen=True, slots=True)
class Key:
    """Un terme du matcher qui devient une composante de clé.

    Attributes:
        probe: façon de chercher.
        field: place de la valeur dans la règle.
        request: place de la valeur dans la requête ; None si le terme la compare à `constant`.
        constant: texte du matcher auquel le champ est comparé.
        function: nom de la fonction, pour un rôle ou un motif.
        domain: pour un rôle, place du domaine dans la requête, ou texte ; None sans domaine.
        choices: pour une disjonction (`r.obj == p.obj || p.obj == "*"`), ses termes, tous sur ce champ.
    """

    probe: Probe
    field: int
    request: int | None = None
    constant: str = ""
    function: str = ""
    domain: int | str | None = None
    choices: tuple[Key, ...] = ()

    @property
    def terms(self) -> tuple[Key, ...]:
        """Les termes simples : ceux de la disjonction, ou lui-même."""
        return self.choices or (self,)

    @property
    def reads_request(self) -> bool:
        """Vrai si la requête en change la valeur."""
        return any(term.request is not None for term in self.terms)

    def find(self, probe: Probe) -> Key | None:
        """Renvoie le premier terme simple qui se cherche ainsi ; None s'il n'y en a pas."""
        return next((term for term in self.terms if term.probe is probe), None)

    def describe(self, request: Sequence[str], fields: Sequence[str]) -> str:
        """Renvoie le terme tel que le modèle l'écrit."""
        if self.choices:
            return " || ".join(choice.describe(request, fields) for choice in self.choices)
        left = repr(self.constant) if self.request is None else f"r.{request[self.request]}"
        right = f"p.{fields[self.field]}"
        if self.probe is Probe.EXACT:
            return f"{left} == {right}"
        domain = f", r.{request[self.domain]}" if isinstance(self.domain, int) else ""
        return f"{self.function}({left}, {right}{domain})"


@dataclass(frozen=True, slots=True)
class Branch:
    """Une conjonction du matcher.

    Attributes:
        keys: composantes de clé, les rôles d'abord.
        gate: termes sur la requête seule, qui ne peuvent pas échouer ; None s'il n'y en a pas.
        rest: termes que ni les clés ni `gate` ne couvrent.
    """

    keys: tuple[Key, ...]
    gate: ast.expr | None = None
    rest: tuple[ast.expr, ...] = ()

    def describe(self, request: Sequence[str], fields: Sequence[str]) -> Iterator[str]:
        """Énumère, une ligne par terme, ce que la branche cherche et ce qu'elle demande à la requête."""
        for key in self.keys:
            yield f"clé      : {key.describe(request, fields)}"
        if self.gate is not None:
            yield f"requête  : {ast.unparse(self.gate)}"
        if not self.keys:
            yield "clé      : aucune, toutes les règles sont évaluées"


@dataclass(frozen=True, slots=True)
class MatcherPlan:
    """Ce qu'il faut chercher, et ce qu'il reste à évaluer sur les règles trouvées.

    Attributes:
        branches: conjonctions ; une règle acceptée est dans les cases de l'une d'elles.
        expression: ce qu'il faut évaluer sur chaque règle trouvée ; None si les cases suffisent.
        reason: pourquoi rien n'est indexé ; vide si le plan sert.
        fork: une question sur la requête seule et le plan de chaque réponse, qui décident à la place de celui-ci ; None
            si rien ne s'y gagne.
    """

    branches: tuple[Branch, ...] = ()
    expression: ast.expr | None = None
    reason: str = ""
    fork: Fork | None = None

    @property
    def is_indexed(self) -> bool:
        """Vrai si les décisions passent par l'index."""
        return not self.reason

    @property
    def accepts_all(self) -> bool:
        """Vrai si toute règle est acceptée, sans rien chercher."""
        return self.expression is None and Branch(()) in self.branches

    @property
    def leaves(self) -> tuple[MatcherPlan, ...]:
        """Les plans qui décident : celui-ci, ou ceux où mènent ses questions."""
        return (self,) if self.fork is None else (*self.fork.then.leaves, *self.fork.otherwise.leaves)

    @property
    def residual(self) -> str:
        """Termes à évaluer sur les règles trouvées, en Python ; vide si les cases suffisent."""
        if self.expression is None:
            return ""
        terms = self.branches[0].rest if len(self.branches) == 1 else (self.expression,)
        return " and ".join(f"({ast.unparse(term)})" for term in terms)

    def describe(self, request: Sequence[str], fields: Sequence[str]) -> str:
        """Renvoie le plan en quelques lignes, pour une personne."""
        if self.reason:
            return f"évaluation de Casbin, règle par règle : {self.reason}"
        if self.fork is not None:
            return self.fork.describe(request, fields)
        if self.accepts_all:
            return "clé      : aucune, toutes les règles sont acceptées"
        lines = list(self._describe_branches(request, fields))
        if self.expression is not None:
            lines.append(f"évalué   : {self.residual}")
        return "\n".join(lines)

    def _describe_branches(self, request: Sequence[str], fields: Sequence[str]) -> Iterator[str]:
        """Énumère les lignes de chaque branche, numérotées s'il y en a plusieurs."""
        if not self.branches:
            yield "clé      : aucune, nulle règle n’est acceptée"
        for number, branch in enumerate(self.branches, start=1):
            if len(self.branches) > 1:
                yield f"branche  : {number} sur {len(self.branches)}"
            yield from branch.describe(request, fields)


@dataclass(frozen=True, slots=True)
class Fork:
    """Une question sur la requête seule, posée une fois par décision, et ce qu'il reste du matcher selon sa réponse.

    Attributes:
        gate: la question ; `g(r.sub, "admin")`, par exemple.
        then: plan si elle est vraie.
        otherwise: plan si elle est fausse.
        texts: places des valeurs que les termes se bornent à comparer, et qui doivent donc être des textes.
        motifs: comparaisons de motifs et champ de chacune : une réponse peut les écarter, Casbin les évaluerait.
        is_pure: vrai si poser la question deux fois donne deux fois la même réponse.
        reaches: ce qu'il reste du matcher après chaque réponse, si Casbin peut ne pas poser la question : il la pose là
            où ces deux expressions ne valent pas de même ; vide s'il la pose toujours, ou si cela ne se voit pas.
    """

    gate: ast.expr
    then: MatcherPlan
    otherwise: MatcherPlan
    texts: tuple[int, ...]
    motifs: frozenset[tuple[str, int]]
    is_pure: bool
    reaches: tuple[ast.expr, ...] = ()

    def describe(self, request: Sequence[str], fields: Sequence[str]) -> str:
        """Renvoie la question et les deux plans, pour une personne."""
        plans = [plan.describe(request, fields).splitlines() for plan in (self.then, self.otherwise)]
        then, otherwise = ["\n".join(f"  {line}" for line in lines) for lines in plans]
        return f"porte    : {ast.unparse(self.gate)}\n si vraie :\n{then}\n sinon :\n{otherwise}"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Ce que les noms d'un matcher désignent.

    Attributes:
        request: place de chaque jeton de la requête (`r_sub`…).
        fields: place de chaque jeton de la règle (`p_sub`…).
        links: pour chaque fonction de rôles, vrai si ses liens portent un domaine.
        patterns: fonctions de comparaison que l'index sait chercher, et comment.
    """

    request: Mapping[str, int]
    fields: Mapping[str, int]
    links: Mapping[str, bool] = field(default_factory=dict)
    patterns: Mapping[str, Probe] = field(default_factory=dict)


MAX_BRANCHES: Final = 16
"""Conjonctions au-delà desquelles une disjonction n'est plus développée."""

MAX_FORKS: Final = 3
"""Questions sur la requête seule posées de suite : chaque réponse a ses index, où les règles se rangent encore."""

_STRING_OR_OPERATOR: Final = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(&&)|(\|\|)|(!(?!=))""")
_PYTHON: Final = {2: " and ", 3: " or ", 4: " not "}


class UnreadableMatcherError(Exception):
    """L'expression sort de ce que le plan sait lire."""


def plan_matcher(matcher: str, words: Vocabulary) -> MatcherPlan:
    """Lit un matcher.

    Args:
        matcher: expression, telle que Casbin l'a préparée (`r_sub`, `p_obj`…).
        words: ce que ses noms désignent.

    Returns:
        Un plan ; `reason` dit pourquoi rien n'est indexé, le cas échéant.
    """
    try:
        tree = parse(matcher)
    except UnreadableMatcherError as error:
        return MatcherPlan(reason=str(error))
    return _Planner(words).plan(tree)


def scan_matcher(matcher: str) -> MatcherPlan:
    """Renvoie un plan sans clé : le matcher est évalué sur chaque règle, dans l'ordre, comme Casbin le fait.

    C'est ce qu'il faut quand une fonction du matcher garde la trace des questions : les gestionnaires de rôles de
    Casbin le font dès qu'ils comparent les noms par une fonction.
    """
    try:
        tree = parse(matcher)
    except UnreadableMatcherError as error:
        return MatcherPlan(reason=str(error))
    return MatcherPlan((Branch((), None, (tree,)),), tree)


def parse(expression: str) -> ast.expr:
    """Lit une expression, opérateurs de Casbin compris ; un texte entre guillemets reste ce qu'il est.

    Raises:
        UnreadableMatcherError: l'expression n'est pas du Python.
    """
    try:
        return ast.parse(_STRING_OR_OPERATOR.sub(_to_python, expression).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        message = "l'expression ne se lit pas"
        raise UnreadableMatcherError(message) from error


def _to_python(found: re.Match[str]) -> str:
    """Traduit un opérateur ; un texte entre guillemets reste ce qu'il est."""
    return found[0] if found[1] is not None else _PYTHON[found.lastindex or 0]


@dataclass(frozen=True, slots=True)
class _Planner:
    """Range les termes d'un matcher."""

    words: Vocabulary

    def plan(self, tree: ast.expr, forks: int = MAX_FORKS) -> MatcherPlan:
        """Renvoie le plan d'une expression."""
        return replace(self._flat(tree), fork=self._fork(tree, forks) if forks else None)

    def _fork(self, tree: ast.expr, forks: int) -> Fork | None:
        """Cherche une question sur la requête seule sous une disjonction, et fait le plan de chaque réponse."""
        gate, is_first = gates.find(tree, self._is_free, self._is_sure)
        if gate is None:
            return None
        then, otherwise = [gates.settle(tree, gate, told, self._is_sure) for told in (True, False)]
        return Fork(
            gate,
            then=self.plan(then, forks - 1),
            otherwise=self.plan(otherwise, forks - 1),
            texts=self._texts(tree),
            motifs=self._motifs(tree),
            is_pure=self._is_sure(gate),
            reaches=() if is_first else (then, otherwise),
        )

    def _flat(self, tree: ast.expr) -> MatcherPlan:
        """Renvoie le plan d'une expression, toutes réponses confondues."""
        parts = self._disjunction(tree)
        branches = tuple([self._branch(terms) for terms in parts if not any(map(_is_false, terms))])
        if not any(branch.rest for branch in branches):
            return MatcherPlan(branches)
        return MatcherPlan(branches, self._without_keys(tree) if len(parts) == 1 else tree)

    def _disjunction(self, tree: ast.expr) -> Sequence[Sequence[ast.expr]]:
        """Développe une expression en conjonctions ; une disjonction qui n'y gagne rien reste un terme à évaluer."""
        if self._key(tree, {}) is not None:
            return [[tree]]
        if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.Or):
            parts = [conjunction for value in tree.values for conjunction in self._disjunction(value)]
            return parts if len(parts) <= MAX_BRANCHES else [[tree]]
        if not isinstance(tree, ast.BoolOp):
            return [[tree]]
        factors = [self._factor(value) for value in tree.values]
        if _product(map(len, factors)) > MAX_BRANCHES:
            return [list(tree.values)]
        return [[term for part in parts for term in part] for parts in product(*factors)]

    def _factor(self, value: ast.expr) -> Sequence[Sequence[ast.expr]]:
        """Développe un facteur si chacune de ses conjonctions dit quelque chose de la requête."""
        parts = self._disjunction(value)
        is_useful = len(parts) == 1 or all(any(map(self._narrows, part)) for part in parts)
        return parts if is_useful else [[value]]

    def _narrows(self, term: ast.expr) -> bool:
        """Dit si un terme, par la requête, écarte des règles ou toute une branche."""
        key = self._key(term, {})
        return self._is_gate(term) if key is None else key.reads_request

    def _branch(self, terms: Sequence[ast.expr]) -> Branch:
        """Range les termes d'une conjonction : clés, requête seule, reste."""
        keys: dict[int, Key] = {}
        gate, rest = [], []
        bound = dict(filter(None, map(self._bind, terms)))
        for term in terms:
            key = self._key(term, bound)
            if key is not None and key.field not in keys:
                keys[key.field] = key
            elif self._is_gate(term):
                gate.append(term)
            elif not _is_true(term):
                rest.append(term)
        ordered = sorted(keys.values(), key=lambda key: (key.find(Probe.ROLE) is None, not key.reads_request))
        return Branch(tuple(ordered), _all_of(gate), tuple(rest))

    def _without_keys(self, tree: ast.expr) -> ast.expr:
        """Met « vrai » à la place des termes que les clés garantissent ; l'ordre et la valeur du reste sont gardés."""
        terms = self._disjunction(tree)[0]
        bound = dict(filter(None, map(self._bind, terms)))
        seen: set[int] = set()
        kept: list[ast.expr] = []
        for term in terms:
            key = self._key(term, bound)
            known = key is not None and key.field not in seen
            if key is not None:
                seen.add(key.field)
            kept.append(ast.Constant(value=True) if known else term)
        return _all_of(kept) or ast.Constant(value=True)

    def _key(self, term: ast.expr, bound: Mapping[str, int]) -> Key | None:
        """Reconnaît un terme indexable."""
        if isinstance(term, ast.Compare) and len(term.ops) == 1 and isinstance(term.ops[0], ast.Eq):
            left, right = term.left, term.comparators[0]
            return self._exact(left, right) or self._exact(right, left)
        if isinstance(term, ast.Call) and isinstance(term.func, ast.Name) and not term.keywords:
            return self._call(term.func.id, term.args, bound)
        return self._any_of(term, bound) if isinstance(term, ast.BoolOp) and isinstance(term.op, ast.Or) else None

    def _any_of(self, term: ast.BoolOp, bound: Mapping[str, int]) -> Key | None:
        """Reconnaît une disjonction de termes indexables qui portent tous sur un même champ."""
        keys = [self._key(value, bound) for value in term.values]
        choices = [choice for key in keys if key is not None for choice in key.terms]
        motifs = sum(choice.probe is Probe.KEY_MATCH for choice in choices)
        if None in keys or motifs > 1 or len({choice.field for choice in choices}) > 1:
            return None
        return Key(Probe.ANY_OF, choices[0].field, choices=tuple(choices))

    def _exact(self, left: ast.expr, right: ast.expr) -> Key | None:
        """Reconnaît `r.x == p.y` et `p.y == "texte"`."""
        place = _place(self.words.fields, right)
        if place is None:
            return None
        if isinstance(left, ast.Constant) and type(left.value) is str:
            return Key(Probe.EXACT, place, constant=left.value)
        request = _place(self.words.request, left)
        return None if request is None else Key(Probe.EXACT, place, request)

    def _call(self, name: str, arguments: Sequence[ast.expr], bound: Mapping[str, int]) -> Key | None:
        """Reconnaît `g(r.x, p.y[, domaine])` et les comparaisons de motifs."""
        if len(arguments) < 2:  # noqa: PLR2004 - une valeur et un champ
            return None
        request, place = _place(self.words.request, arguments[0]), _place(self.words.fields, arguments[1])
        if request is None or place is None:
            return None
        if name in self.words.links:
            return self._role(name, (request, place), arguments[2:], bound)
        probe = self.words.patterns.get(name)
        return Key(probe, place, request, function=name) if probe is not None and len(arguments) == 2 else None  # noqa: PLR2004 - idem

    def _role(
        self, name: str, places: tuple[int, int], domains: Sequence[ast.expr], bound: Mapping[str, int]
    ) -> Key | None:
        """Reconnaît un rôle et son domaine : une valeur de la requête, un texte, ou un champ égal à une valeur."""
        request, place = places
        if not self.words.links[name]:
            return Key(Probe.ROLE, place, request, function=name)
        if not domains:
            return Key(Probe.ROLE, place, request, function=name, domain="")
        given = domains[0]
        if isinstance(given, ast.Constant):
            return Key(Probe.ROLE, place, request, function=name, domain=str(given.value))
        domain = _place(self.words.request, given)
        if domain is None and isinstance(given, ast.Name):
            domain = bound.get(given.id)
        return None if domain is None else Key(Probe.ROLE, place, request, function=name, domain=domain)

    def _bind(self, term: ast.expr) -> tuple[str, int] | None:
        """Renvoie le champ de règle qu'un terme `r.x == p.y` rend égal à une valeur de la requête."""
        key = self._key(term, {})
        if key is None or key.probe is not Probe.EXACT or key.request is None:
            return None
        return next(name for name, place in self.words.fields.items() if place == key.field), key.request

    def _is_gate(self, term: ast.expr) -> bool:
        """Dit si un terme ne dépend que de la requête et ne peut pas échouer."""
        return self._is_harmless(term) and self._is_free(term)

    def _is_free(self, term: ast.expr) -> bool:
        """Dit si un terme ne lit rien de la règle."""
        return "eval" not in calls(term) and not any(
            _place(self.words.fields, node) is not None for node in ast.walk(term)
        )

    def _is_sure(self, term: ast.expr) -> bool:
        """Dit si un terme, sur des textes, vaut toujours vrai ou faux, et toujours le même."""
        if isinstance(term, ast.BoolOp):
            return all(map(self._is_sure, term.values))
        if isinstance(term, ast.UnaryOp):
            return isinstance(term.op, ast.Not) and self._is_sure(term.operand)
        return self._is_harmless(term) or self._is_membership(term) or _is_true(term) or _is_false(term)

    def _is_membership(self, term: ast.expr) -> bool:
        """Reconnaît `g(r.x, "rôle"[, domaine])` ou `aclMatch(r.x, "motif")`, qui ne lisent que la requête."""
        if not isinstance(term, ast.Call) or not isinstance(term.func, ast.Name) or term.keywords:
            return False
        name, is_domained = term.func.id, self.words.links.get(term.func.id)
        sizes = {2, 3} if is_domained else {2}
        known = is_domained is not None or self.words.patterns.get(name) is Probe.PATTERN
        return known and len(term.args) in sizes and all(map(self._is_asked, term.args))

    def _is_asked(self, node: ast.expr) -> bool:
        """Dit si un terme est une valeur de la requête, ou un texte."""
        is_text = isinstance(node, ast.Constant) and type(node.value) is str
        return is_text or _place(self.words.request, node) is not None

    def _texts(self, tree: ast.expr) -> tuple[int, ...]:
        """Renvoie les places des valeurs de la requête que lisent les termes sûrs."""
        sure = [node for node in ast.walk(tree) if isinstance(node, ast.expr) and self._is_sure(node)]
        places = (_place(self.words.request, node) for term in sure for node in ast.walk(term))
        return tuple(sorted({place for place in places if place is not None}))

    def _motifs(self, tree: ast.expr) -> frozenset[tuple[str, int]]:
        """Renvoie les comparaisons de motifs d'une expression, et le champ de chacune."""
        keys = [self._key(node, {}) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        motifs = [key for key in keys if key is not None and key.probe is Probe.KEY_MATCH]
        return frozenset((motif.function, motif.field) for motif in motifs)

    def _is_harmless(self, term: ast.expr) -> bool:
        """Dit si un terme vaut toujours vrai ou faux : une clé, ou une comparaison de noms et de textes."""
        if self._key(term, {}) is not None:
            return True
        if not isinstance(term, ast.Compare) or not all(isinstance(op, (ast.Eq, ast.NotEq)) for op in term.ops):
            return False
        return all(map(self._is_plain, (term.left, *term.comparators)))

    def _is_plain(self, node: ast.expr) -> bool:
        """Dit si un terme est un texte, ou un nom de la requête ou de la règle."""
        known = (_place(places, node) is not None for places in (self.words.request, self.words.fields))
        return isinstance(node, ast.Constant) or any(known)


def _place(places: Mapping[str, int], node: ast.AST) -> int | None:
    return places.get(node.id) if isinstance(node, ast.Name) else None


def _is_true(term: ast.expr) -> bool:
    return isinstance(term, ast.Constant) and term.value is True


def _is_false(term: ast.expr) -> bool:
    return isinstance(term, ast.Constant) and term.value is False


def _all_of(terms: Sequence[ast.expr]) -> ast.expr | None:
    """Joint des termes par « et »."""
    if not terms:
        return None
    return terms[0] if len(terms) == 1 else ast.BoolOp(ast.And(), list(terms))


def _product(numbers: Iterator[int]) -> int:
    """Multiplie des nombres, en s'arrêtant dès que c'est trop."""
    total = 1
    for number in numbers:
        total = min(total * number, MAX_BRANCHES + 1)
    return total


def calls(expression: ast.expr | None) -> set[str]:
    """Renvoie les noms des fonctions qu'une expression appelle."""
    nodes = ast.walk(expression) if expression is not None else ()
    return {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
