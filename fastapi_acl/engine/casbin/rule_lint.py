"""Ce que les règles ont de suspect : des noms que rien d'autre ne connaît, avec le plus proche de ceux qui existent.

Une règle mal écrite ne se voit pas : elle n'accorde, ou ne refuse, simplement rien. Chaque recherche passe par les
valeurs distinctes d'une colonne, et ne revient aux règles que pour citer celles qui les portent.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from fastapi_acl.engine.kernel.acl_match import ANY
from fastapi_acl.engine.kernel.key_match import compile_pattern
from fastapi_acl.engine.kernel.schema import ACTION_NAMES, RESOURCE_NAMES, SUBJECT_NAMES
from fastapi_acl.shared.identity import ACL_NAMESPACE, ROLE_PREFIX, USER_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from fastapi_acl.engine.kernel.policy import Policy

MAX_FINDINGS: Final = 50
"""Valeurs suspectes citées par colonne ; les autres sont comptées."""

MAX_CANDIDATES: Final = 1_000
"""Noms parmi lesquels le plus proche est cherché."""

CLOSE: Final = 0.8
"""Ressemblance à partir de laquelle un nom qui pourrait être voulu passe pour une faute de frappe."""

PAGE: Final = 500
"""Comptes demandés à la fois à la base."""

_PARAMETER: Final = re.compile(r"\{[^{}]*\}")
_LITERAL: Final = re.compile(r"\bp_(\w+)\s*==\s*(?:\"([^\"]*)\"|'([^']*)')|(?:\"([^\"]*)\"|'([^']*)')\s*==\s*p_(\w+)")


class KnownAccounts(Protocol):
    """Ce que la relecture demande aux comptes."""

    async def existing_ids(self, ids: Sequence[str]) -> set[str]:
        """Renvoie, parmi ces identifiants, ceux des comptes qui existent."""

    async def like(self, name: str) -> dict[str, str]:
        """Renvoie quelques comptes dont le nom ressemble à celui-ci : leur identifiant, par nom."""


class Declared(NamedTuple):
    """Ce que les routes d'une application demandent.

    Attributes:
        resources: ressources, gabarits de chemin compris (`document:{document_id}`) ; ou gabarits de routes.
        actions: actions ; ou méthodes HTTP.
        are_filled: vrai si une requête remplit ces gabarits ; un modèle de routes les compare tels quels.
    """

    resources: frozenset[str]
    actions: frozenset[str]
    are_filled: bool = True


@dataclass(frozen=True)
class RuleLint:
    """Relit les règles en service.

    Attributes:
        policy: politique en service.
        accounts: les comptes ; None s'ils ne sont pas à nous.
        declared: ce que les routes demandent ; None si on ne le sait pas.
    """

    policy: Policy
    accounts: KnownAccounts | None = None
    declared: Declared | None = None

    async def findings(self) -> list[str]:
        """Renvoie une phrase par nom suspect, qui cite une règle et le nom le plus proche ; aucune si tout va bien."""
        found = [*await self._about_accounts(), *self._about_roles(), *self._about_literals()]
        return found + (list(self._about_routes(self.declared)) if self.declared is not None else [])

    # --- comptes ----------------------------------------------------------------------------------------------------

    async def _about_accounts(self) -> list[str]:
        """Dit quels comptes n'existent pas."""
        if self.accounts is None:
            return []
        ids = [name[len(USER_PREFIX) :] for name in self._subjects if name.startswith(USER_PREFIX)]
        known = set[str]()
        for start in range(0, len(ids), PAGE):
            known |= await self.accounts.existing_ids(ids[start : start + PAGE])
        missing = [account for account in ids if account not in known]
        said = [await self._about_account(account, self.accounts) for account in missing[:MAX_FINDINGS]]
        return said + list(_more(missing, "comptes inconnus"))

    async def _about_account(self, account: str, accounts: KnownAccounts) -> str:
        """Dit qu'un compte n'existe pas, et lequel était peut-être voulu."""
        named = await accounts.like(account)
        near = difflib.get_close_matches(account.casefold(), {name.casefold() for name in named}, n=1)
        likely = [name for name in named if name.casefold() in near]
        hint = f" ; le compte « {likely[0]} » est {USER_PREFIX}{named[likely[0]]}" if likely else ""
        return f"{self._cite_subject(f'{USER_PREFIX}{account}')} : aucun compte n’a l’identifiant « {account} »{hint}."

    # --- rôles ------------------------------------------------------------------------------------------------------

    def _about_roles(self) -> Iterator[str]:
        """Dit quels rôles sont donnés sans rien permettre, ou ressemblent trop à un autre pour être voulus."""
        if "g" not in self.policy.schema.links:
            return
        given = self._column("g", 1)
        members = self._column("g", 0)
        ruled = {name for name in self._ruled if name.startswith(ROLE_PREFIX)}
        empty = [role for role in given if role not in ruled and role not in members]
        for role in empty[:MAX_FINDINGS]:
            yield f"{self._cite_subject(role)} : le rôle « {role} » n’a aucune règle{_nearest(role, ruled) or '.'}"
        yield from _more(empty, "rôles sans règle")
        yield from self._about_unused(ruled - set(given), set(given) - set(empty))

    def _about_unused(self, unused: Collection[str], given: Collection[str]) -> Iterator[str]:
        """Dit quels rôles, donnés à personne, ressemblent à un rôle qui l'est."""
        for role in islice(sorted(unused), MAX_FINDINGS):
            hint = _nearest(role, given, CLOSE)
            if hint:
                yield f"{self._cite_subject(role)} : le rôle « {role} » n’est donné à personne{hint}"

    # --- valeurs que le matcher nomme ---------------------------------------------------------------------------------

    def _about_literals(self) -> Iterator[str]:
        """Dit quelles valeurs ne sont aucune de celles auxquelles le matcher compare leur colonne."""
        names = self.policy.schema.fields["p"]
        for name, admitted in self._literals().items():
            if name in names:
                wrong = [value for value in self._column("p", names.index(name)) if value not in admitted]
                said = " ou ".join(f"« {value} »" for value in sorted(admitted))
                yield from self._all(name, wrong, admitted, f"le modèle n’y connaît que {said}")

    def _literals(self) -> dict[str, set[str]]:
        """Renvoie, pour chaque colonne que le matcher ne compare qu'à des textes, ces textes."""
        matcher, found = self.policy.schema.matcher, dict[str, set[str]]()
        for match in _LITERAL.finditer(matcher):
            left, *texts, right = match.groups()
            found.setdefault(left or right, set()).add(next(text for text in texts if text is not None))
        compared = [match.group(1) or match.group(6) for match in _LITERAL.finditer(matcher)]
        return {name: texts for name, texts in found.items() if compared.count(name) == _uses(matcher, name)}

    # --- routes -----------------------------------------------------------------------------------------------------

    def _about_routes(self, declared: Declared) -> Iterator[str]:
        """Dit quelles ressources et quelles actions aucune route ne demande."""
        for names, known, is_exempt in (
            (RESOURCE_NAMES, declared.resources, self._is_ours),
            (ACTION_NAMES, declared.actions, _is_any),
        ):
            place = self.policy.schema.position("p", names)
            if place is None or not known:
                continue
            name = self.policy.schema.fields["p"][place]
            asked = _Asked(known, self._matcher_of(name), are_filled=declared.are_filled)
            wrong = [value for value in self._column("p", place) if not is_exempt(value) and not asked.covers(value)]
            yield from self._all(name, wrong, known, "aucune route ne le demande")

    def _matcher_of(self, name: str) -> str:
        """Renvoie la fonction par laquelle le matcher compare une colonne ; rien s'il la compare par égalité."""
        schema = self.policy.schema
        return "aclMatch" if name in schema.patterns else schema.motifs.get(name, "")

    def _is_ours(self, value: str) -> bool:
        """Dit si une ressource est de la bibliothèque, dont les routes peuvent ne pas être montées."""
        return _is_any(value) or (value.startswith(ACL_NAMESPACE) and not self._asks_ours)

    # --- règles -----------------------------------------------------------------------------------------------------

    @cached_property
    def _asks_ours(self) -> bool:
        """Vrai si une route demande une ressource de la bibliothèque."""
        return self.declared is not None and any(one.startswith(ACL_NAMESPACE) for one in self.declared.resources)

    @cached_property
    def _ruled(self) -> dict[str, None]:
        """Sujets des règles, dans leur ordre."""
        schema = self.policy.schema
        places = {ptype: schema.position(ptype, SUBJECT_NAMES) for ptype in schema.fields}
        return dict.fromkeys(
            name for ptype, place in places.items() if place is not None for name in self._column(ptype, place)
        )

    @cached_property
    def _subjects(self) -> dict[str, None]:
        """Sujets des règles, puis membres des liens."""
        members = self._column("g", 0) if "g" in self.policy.schema.links else {}
        return {**self._ruled, **members}

    def _column(self, ptype: str, place: int) -> dict[str, None]:
        """Renvoie les valeurs distinctes d'une colonne, dans leur ordre."""
        return dict.fromkeys(self.policy.rows(ptype).values_of(place))

    def _all(self, name: str, wrong: Sequence[str], known: Collection[str], reason: str) -> Iterator[str]:
        """Dit, pour chaque valeur suspecte d'une colonne de `p`, ce qu'elle a de suspect."""
        place = self.policy.schema.fields["p"].index(name)
        for value in wrong[:MAX_FINDINGS]:
            cited = _cite("p", self.policy.rows("p").matching(place, [value]))
            yield f"{cited} : « {name} » vaut « {value} », {reason}{_nearest(value, known) or '.'}"
        yield from _more(wrong, f"valeurs de « {name} »")

    def _cite_subject(self, subject: str) -> str:
        """Cite une règle qui nomme un sujet, et compte les autres."""
        schema = self.policy.schema
        for ptype in (*schema.fields, *(["g"] if "g" in schema.links else [])):
            places = (0, 1) if ptype == "g" else (schema.position(ptype, SUBJECT_NAMES),)
            for place in places:
                rows = self.policy.rows(ptype).matching(place, [subject]) if place is not None else []
                if rows:
                    return _cite(ptype, rows)
        return subject


class _Asked:
    """Ce que les routes demandent dans une colonne, rangé pour qu'une valeur s'y cherche vite."""

    def __init__(self, known: Iterable[str], function: str, *, are_filled: bool) -> None:
        self._known = frozenset(known)
        self._function = function
        self._fits_part = _fits_segment if are_filled else str.__eq__
        self._split: dict[str, list[list[str]]] = {}
        for text in self._known:
            parts = text.split(":")
            self._split.setdefault("" if are_filled and "{" in parts[0] else parts[0], []).append(parts)

    def covers(self, value: str) -> bool:
        """Dit si une valeur de règle peut concerner quelque chose qu'une route demande."""
        if value in self._known:
            return True
        if self._function not in {"aclMatch", ""}:
            return self._by_motif(compile_pattern(self._function, value))
        parts = value.split(":")
        is_open = self._function == "aclMatch" and len(parts) > 1 and parts[-1] == ANY
        near = (*self._split.get(parts[0], ()), *self._split.get("", ()))
        return any(self._fits(parts[:-1] if is_open else parts, one, is_open=is_open) for one in near)

    def _fits(self, parts: Sequence[str], template: Sequence[str], *, is_open: bool) -> bool:
        """Compare une valeur à un gabarit, segment par segment ; ouverte, elle couvre ce qui la suit."""
        is_long = len(template) > len(parts) if is_open else len(template) == len(parts)
        return is_long and all(map(self._fits_part, parts, template))

    def _by_motif(self, matches: Callable[[str], bool] | None) -> bool:
        """Dit si un motif couvre un texte demandé."""
        return matches is None or any(map(matches, self._known))


def _fits_segment(part: str, template: str) -> bool:
    """Compare un segment à celui d'un gabarit, qui peut porter un paramètre."""
    if "{" not in template:
        return part == template
    return re.fullmatch(".+".join(map(re.escape, _PARAMETER.split(template))), part) is not None


def _uses(matcher: str, name: str) -> int:
    """Compte les fois qu'un matcher lit une colonne des règles."""
    return len(re.findall(rf"\bp_{name}\b", matcher))


def _is_any(value: str) -> bool:
    return value == ANY


def _nearest(value: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """Propose le nom le plus proche, s'il y en a un ; parmi trop de noms, ceux qui commencent de même d'abord."""
    prefix = value[: value.find(":") + 3] if len(known) > MAX_CANDIDATES else ""
    same = (name for name in known if name.startswith(prefix))
    near = difflib.get_close_matches(value, list(islice(same, MAX_CANDIDATES)), n=1, cutoff=cutoff)
    return f" ; vouliez-vous « {near[0]} » ?" if near else ""


def _cite(ptype: str, rows: Sequence[Sequence[str]]) -> str:
    """Cite la première de quelques règles, et compte les autres."""
    others = f" (et {len(rows) - 1} autre(s))" if len(rows) > 1 else ""
    return ", ".join((ptype, *rows[0])) + others


def _more(found: Collection[object], kind: str) -> Iterator[str]:
    if len(found) > MAX_FINDINGS:
        yield f"… et {len(found) - MAX_FINDINGS} autres {kind}."
