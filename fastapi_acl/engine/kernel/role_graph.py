"""Liens entre rôles : fermetures gardées à jour ; cycles et profondeur, refusés à l'écriture."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from fastapi_acl.engine.kernel.pacing import drain, iterate_by_doses
from fastapi_acl.engine.kernel.sequence import SequenceLock
from fastapi_acl.shared.exceptions import InvalidRuleError
from fastapi_acl.shared.identity import EVERY_DOMAIN

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    DomainMatch = Callable[[str, str], bool]

MAX_LINKS: Final = 9
"""Nombre de liens qu'une chaîne peut compter : au-delà, Casbin refuse en silence.

Source: https://casbin.org/docs/rbac (max hierarchy level 10)
"""

MANY_DOMAINS: Final = 64
"""Au-delà de tant de domaines touchés, tout oublier coûte moins que chercher."""

MAX_KEPT: Final = 16_384
"""Fermetures gardées ; au-delà, on recommence : refaire celle d'un membre coûte moins qu'en garder un million."""

RETURNED_AT_ONCE: Final = 8
"""Fermetures mises de côté qu'un calcul rend en passant."""

Graph = dict[str, list[str]]


class Upward(Protocol):
    """Des liens que l'on remonte."""

    def get(self, name: str, default: Sequence[str] = ()) -> Sequence[str]:
        """Renvoie les rôles directs d'un nom."""


def check_links(links: Collection[Sequence[str]], *, shares_domains: bool = True) -> None:
    """Refuse un cycle ou une chaîne trop longue, dans chaque domaine où les liens se combinent.

    Args:
        links: les liens d'un même type `g…` (membre, rôle, domaine…).
        shares_domains: un lien dans le domaine `*` vaut dans tous.

    Raises:
        InvalidRuleError: avec `reason` valant `role_cycle` ou `role_depth`, et les noms en cause.
    """
    roles = {link[1] for link in links}
    among_roles = [link for link in links if link[0] in roles]
    check = partial(_check_every_domain, shares_domains=shares_domains)
    check(among_roles, MAX_LINKS)
    try:
        check(among_roles, MAX_LINKS - 1)
    except InvalidRuleError:
        check(links, MAX_LINKS)  # une chaîne de rôles est pleine : un compte au bout serait de trop


def _check_every_domain(links: Collection[Sequence[str]], limit: int, *, shares_domains: bool) -> None:
    """Mesure les chaînes de chaque domaine."""
    by_domain: dict[tuple[str, ...], Graph] = defaultdict(lambda: defaultdict(list))
    for member, role, *place in links:
        by_domain[tuple(place)][member].append(role)
    for domain, graph in by_domain.items():
        _check_graph(_with_shared(domain, graph, by_domain) if shares_domains else graph, limit)


def _with_shared(domain: tuple[str, ...], graph: Graph, by_domain: Mapping[tuple[str, ...], Graph]) -> Graph:
    """Ajoute aux liens d'un domaine ceux du domaine `*`, qui valent partout."""
    shared = by_domain.get((EVERY_DOMAIN,))
    if shared is None or domain == (EVERY_DOMAIN,):
        return graph
    return {name: [*graph.get(name, ()), *shared.get(name, ())] for name in {*graph, *shared}}


def _check_graph(graph: Mapping[str, Sequence[str]], limit: int) -> None:
    """Mesure la plus longue chaîne depuis chaque nœud, sans récursion : la profondeur vient d'un client."""
    depth: dict[str, int] = {}
    for start in graph:
        measure(start, graph, depth, limit)


def measure(start: str, graph: Mapping[str, Sequence[str]] | Upward, depth: dict[str, int], limit: int) -> None:
    """Remplit `depth` pour tout ce que `start` atteint."""
    path: list[str] = [start]
    on_path = {start}
    while path:
        name = path[-1]
        waiting = next((parent for parent in graph.get(name, ()) if parent not in depth), None)
        if waiting is None:
            depth[name] = max((depth[parent] + 1 for parent in graph.get(name, ())), default=0)
            if depth[name] > limit:
                raise _too_deep(_longest(name, graph, depth), limit)
            on_path.discard(path.pop())
        elif waiting in on_path:
            cycle = [*path[path.index(waiting) :], waiting]
            message = f"Règle refusée : les rôles formeraient un cycle ({' → '.join(cycle)}) ; rien n’a été changé."
            raise InvalidRuleError(message, reason="role_cycle", cycle=cycle)
        else:
            path.append(waiting)
            on_path.add(waiting)


def _too_deep(chain: list[str], limit: int) -> InvalidRuleError:
    """Fait l'erreur d'une chaîne plus longue que Casbin n'en suit."""
    message = f"Règle refusée : au-dessus de « {chain[0]} », la chaîne de rôles dépasserait {limit} liens."
    return InvalidRuleError(message, reason="role_depth", subject=chain[0], chain=chain)


def read_chain(fault: InvalidRuleError) -> Sequence[str]:
    """Renvoie les noms du cycle, ou de la chaîne trop longue, dont parle une erreur."""
    found = fault.evidence.get("cycle") or fault.evidence.get("chain")
    return found if isinstance(found, list) else []


def _longest(name: str, graph: Mapping[str, Sequence[str]] | Upward, depth: Mapping[str, int]) -> list[str]:
    """Renvoie la plus longue chaîne mesurée au-dessus d'un nom."""
    chain = [name]
    while parents := graph.get(chain[-1], ()):
        chain.append(max(parents, key=lambda parent: depth[parent]))
    return chain


class RoleGraph:
    """Les liens d'un type `g`, et ce que chaque membre en tient.

    La fermeture d'un membre est calculée une fois et gardée ; un lien n'oublie que ce qu'il touche. Un nom ou un
    domaine sans lien n'y laisse rien : demander ne coûte pas de mémoire.

    Attributes:
        links: rôles directs, par domaine puis par membre.
        nested: rôles qui en tiennent peut-être d'autres ; un membre dont aucun rôle n'en est se lit dans `links` seul.
    """

    def __init__(self, *, shares_domains: bool = False, sequence: SequenceLock | None = None) -> None:
        """Part vide.

        Args:
            shares_domains: un lien dans le domaine `*` vaut dans tous.
            sequence: verrou de l'enforcer.
        """
        self._shares_domains = shares_domains
        self._sequence = sequence or SequenceLock()
        self._matches: DomainMatch | None = None
        self.links: dict[str, dict[str, tuple[str, ...]]] = {}
        self._members: dict[str, dict[str, dict[str, None]]] = {}
        self._held: Counter[str] = Counter()
        self.nested: set[str] = set()
        self._closures: dict[str, dict[str, tuple[str, ...]]] = {}
        self._kept = 0
        self._retired: list[dict[str, tuple[str, ...]]] = []

    @property
    def closures(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """Fermetures connues, par domaine puis par membre : ce qu'une décision regarde d'abord."""
        return self._closures

    @property
    def is_exact(self) -> bool:
        """Vrai si un lien ne vaut que dans son domaine."""
        return not self._shares_domains and self._matches is None

    def join(self, sequence: SequenceLock) -> None:
        """Prend le verrou d'un enforcer."""
        self._sequence = sequence

    @property
    def lock(self) -> threading.RLock:
        """Verrou à tenir pour lire plusieurs choses d'un même état."""
        return self._sequence.lock

    def match_domains(self, matches: DomainMatch | None) -> None:
        """Fait valoir un lien dans tout domaine que cette fonction accepte, comme `add_domain_matching_func`.

        Args:
            matches: reçoit le domaine demandé et celui du lien.
        """
        with self._sequence:
            self._matches = matches
            self._retire()

    # --- écriture -------------------------------------------------------------------------------------------------

    def add(self, member: str, role: str, domain: str = "") -> None:
        """Ajoute un lien ; un lien déjà là reste unique."""
        if role in self.links.get(domain, {}).get(member, ()):
            return
        with self._sequence:
            links = self.links.setdefault(domain, {})
            links[member] = (*links.get(member, ()), role)
            self._members.setdefault(domain, {}).setdefault(role, {})[member] = None
            self._note(member, role)
            self._forget(member, domain)

    def _note(self, member: str, role: str) -> None:
        """Compte un lien de plus vers un rôle, et retient qui est à la fois rôle et membre."""
        self._held[role] += 1
        if member in self._held:
            self.nested.add(member)
        if self._held[role] == 1 and any(role in links for links in self.links.values()):
            self.nested.add(role)

    def fill(self, links: Iterable[Sequence[str]]) -> None:
        """Ajoute d'un coup des liens distincts à un graphe encore vide."""
        alone: dict[str, tuple[str, ...]] = {}  # un n-uplet par rôle sert à tous ceux qui ne tiennent que lui
        for member, role, *place in iterate_by_doses(links):
            domain = place[0] if place else ""
            if domain not in self.links:
                self.links[domain], self._members[domain] = {}, {}
            roles, members = self.links[domain], self._members[domain]
            if member in roles:
                roles[member] = (*roles[member], role)
            else:
                roles[member] = alone.setdefault(role, (role,))
            if role in members:
                members[role][member] = None
            else:
                members[role] = {member: None}
        self._note_all()

    def _note_all(self) -> None:
        """Compte les liens vers chaque rôle, et retient qui est à la fois rôle et membre."""
        for members in self._members.values():
            self._held.update({role: len(found) for role, found in members.items()})
        for roles in self.links.values():
            self.nested.update(roles.keys() & self._held.keys())

    def dismantle(self) -> None:
        """Libère peu à peu la mémoire de liens qui ne servent plus."""
        for domains in (self.links, self._members, self._closures):
            drain(*domains.values())
        drain(*self._retired)

    def remove(self, member: str, role: str, domain: str = "") -> bool:
        """Retire un lien ; False s'il n'y était pas."""
        links = self.links.get(domain, {})
        if role not in links.get(member, ()):
            return False
        with self._sequence:
            links[member] = tuple(known for known in links[member] if known != role)
            del self._members[domain][role][member]
            self._held[role] -= 1
            self._sweep(member, role, domain)
            self._forget(member, domain)
        return True

    def clear(self) -> None:
        """Retire tous les liens."""
        with self._sequence:
            self.links, self._members, self._held, self.nested = {}, {}, Counter(), set()
            self._retire()

    def _sweep(self, member: str, role: str, domain: str) -> None:
        """Ne laisse ni nom ni domaine sans lien."""
        if not self.links[domain][member]:
            del self.links[domain][member]
        if not self._members[domain][role]:
            del self._members[domain][role]
        if not self.links[domain]:
            del self.links[domain], self._members[domain]
        if not self._held[role]:
            del self._held[role]
            self.nested.discard(role)

    def _forget(self, member: str, domain: str) -> None:
        """Oublie les fermetures que ce lien change : celles du membre, ou toutes s'il est lui-même un rôle."""
        if self._matches is None and not (self._shares_domains and domain == EVERY_DOMAIN):
            touched = [domain]
        else:
            touched = list(self._closures)
        if self._held.get(member) or len(touched) > MANY_DOMAINS:
            self._retire()
            return
        for place in touched:
            self._closures.get(place, {}).pop(member, None)

    def _retire(self) -> None:
        """Met toutes les fermetures de côté, sans attendre : elles seront rendues à la mémoire peu à peu."""
        self._retired.extend(known for known in self._closures.values() if known)
        self._closures = {}
        self._kept = 0

    # --- lecture --------------------------------------------------------------------------------------------------

    def closure(self, member: str, domain: str = "") -> tuple[str, ...]:
        """Renvoie le membre et tous les rôles qu'il tient, du plus proche au plus lointain."""
        known = self._closures.get(domain)
        found = known.get(member) if known is not None else None
        return found if found is not None else self.walk(member, domain)

    def walk(self, member: str, domain: str = "") -> tuple[str, ...]:
        """Calcule une fermeture, et la garde si le membre tient un rôle dans un domaine connu."""
        version, links = self._sequence.version, self.links.get(domain)
        if not self.is_exact:
            return self._walk_everywhere(member, domain, version)
        roles = links.get(member) if links is not None else None
        if links is None or roles is None:
            return (member,)
        if self.nested.isdisjoint(roles):
            return (member, *roles) if member not in roles else roles
        return self._keep(member, domain, _breadth_first(member, [links]), version)

    def _walk_everywhere(self, member: str, domain: str, version: int) -> tuple[str, ...]:
        """Calcule une fermeture dont les liens peuvent venir d'autres domaines."""
        graphs = self._graphs(domain)
        if not any(member in graph for graph in graphs):
            return (member,)
        if self._matches is None and domain not in self.links:
            return self.closure(member, EVERY_DOMAIN)
        return self._keep(member, domain, _breadth_first(member, graphs), version)

    def _graphs(self, domain: str) -> list[dict[str, tuple[str, ...]]]:
        return [self.links[place] for place in self.places_of(domain) if place in self.links]

    def has(self, member: str, role: str, domain: str = "") -> bool:
        """Dit si un membre tient un rôle, ou est ce rôle.

        Raises:
            TypeError: le membre ne se hache pas : l'égalité d'un objet quelconque ne donne pas de rôle.
        """
        hash(member)
        return role in self.closure(member, domain)

    def roles_of(self, member: str, domain: str = "") -> list[str]:
        """Renvoie les rôles directs d'un membre."""
        links = (self.links.get(place, {}).get(member, ()) for place in self.places_of(domain))
        return list(dict.fromkeys(role for roles in links for role in roles))

    def members_of(self, role: str, domain: str = "") -> list[str]:
        """Renvoie les membres directs d'un rôle."""
        known = (self._members.get(place, {}).get(role, {}) for place in self.places_of(domain))
        return list(dict.fromkeys(member for members in known for member in members))

    def everyone(self, role: str, domain: str = "") -> list[str]:
        """Renvoie un rôle et tous ceux qui le tiennent, directement ou par héritage."""
        found, edge = {role: None}, [role]
        for _ in range(MAX_LINKS):
            reached = (member for name in edge for member in self.members_of(name, domain))
            edge = [name for name in dict.fromkeys(reached) if name not in found]
            found.update(dict.fromkeys(edge))
        return list(found)

    def path(self, member: str, role: str, domain: str = "") -> list[str]:
        """Renvoie la plus courte suite de noms qui mène d'un membre à un rôle ; vide s'il ne le tient pas."""
        came_from = self._origins(member, domain)
        return _unwind(role, came_from) if role in came_from else []

    def paths(self, member: str, domain: str = "") -> dict[str, tuple[str, ...]]:
        """Renvoie la plus courte suite de noms qui mène d'un membre à lui-même, et à chacun des rôles qu'il tient."""
        came_from = self._origins(member, domain)
        return {name: tuple(_unwind(name, came_from)) for name in self.closure(member, domain) if name in came_from}

    def _origins(self, member: str, domain: str) -> dict[str, str | None]:
        """Renvoie, pour chaque nom qu'un membre atteint, celui d'où on l'atteint d'abord."""
        came_from: dict[str, str | None] = {member: None}
        edge = [member]
        for _ in range(MAX_LINKS):
            links = [(held, name) for name in edge for held in self.roles_of(name, domain)]
            fresh = {held: name for held, name in reversed(links) if held not in came_from}
            came_from.update(fresh)
            edge = list(fresh)
        return came_from

    def reach(self, name: str, accepts: Callable[[str], bool]) -> list[str]:
        """Renvoie un nom et tous les rôles qu'il atteint par des liens de domaines acceptés, quels qu'ils soient."""
        graphs = [links for domain, links in self.links.items() if accepts(domain)]
        found, waiting = {name: None}, [name]
        while waiting:
            member = waiting.pop()
            fresh = [role for links in graphs for role in links.get(member, ()) if role not in found]
            found.update(dict.fromkeys(fresh))
            waiting.extend(dict.fromkeys(fresh))
        return list(found)

    def links_of(self, name: str) -> list[tuple[str, ...]]:
        """Renvoie les liens où un nom est membre ou rôle, comme les règles les écrivent."""
        held = [(name, role, domain) for domain, links in self.links.items() for role in links.get(name, ())]
        given = [(member, name, domain) for domain, links in self._members.items() for member in links.get(name, ())]
        return [link if link[2] else link[:2] for link in dict.fromkeys([*held, *given])]

    def under(self, name: str) -> list[str]:
        """Renvoie un nom et tous ceux qui le tiennent, par des liens de n'importe quels domaines."""
        found, waiting = {name: None}, [name]
        while waiting:
            held = waiting.pop()
            known = [members[held] for members in self._members.values() if held in members]
            fresh = [member for members in known for member in members if member not in found]
            found.update(dict.fromkeys(fresh))
            waiting += [member for member in fresh if member in self._held]
        return list(found)

    def is_role(self, name: str) -> bool:
        """Dit si quelqu'un tient ce nom comme rôle."""
        return name in self._held

    def count_links(self, role: str) -> int:
        """Renvoie le nombre des liens directs vers un rôle, tous domaines confondus."""
        return self._held.get(role, 0)

    def has_direct(self, member: str, role: str, domain: str = "") -> bool:
        """Dit si ce lien-là existe."""
        return role in self.links.get(domain, {}).get(member, ())

    def survey_members(self, role: str, domain: str = "") -> tuple[int, list[str]]:
        """Compte les membres directs d'un rôle, dans ce domaine seul, et énumère ceux d'entre eux qui sont des rôles.

        Les autres ne sont pas énumérés, sauf s'ils sont moins nombreux que les rôles emboîtés.
        """
        members = self._members.get(domain, {}).get(role, {})
        few, many = (members, self.nested) if len(members) <= len(self.nested) else (self.nested, members)
        return len(members), [name for name in few if name in many and name in self._held]

    def height(self, name: str, domain: str = "") -> int:
        """Renvoie la longueur de la plus longue suite de membres sous un nom, dans ce domaine seul ; 0 sans membre."""
        return self._links_below(name, (domain,))

    def _links_below(self, name: str, places: Sequence[str]) -> int:
        """Renvoie la longueur de la plus longue suite de membres sous un nom, dans des domaines."""
        links, edge = 0, [name]
        while edge and links <= MAX_LINKS:
            known = (self._members.get(place, {}).get(held, {}) for held in edge for place in places)
            members = {member for found in known for member in found}
            links += bool(members)
            edge = [member for member in members if member in self._held]
        return links

    def places_of(self, domain: str) -> tuple[str, ...]:
        """Renvoie les domaines dont les liens valent dans celui-ci."""
        if self._matches is not None:
            return (domain, *(place for place in self.links if place != domain and self._accepts(domain, place)))
        return (domain, EVERY_DOMAIN) if self._shares_domains and domain != EVERY_DOMAIN else (domain,)

    def _accepts(self, domain: str, place: str) -> bool:
        """Interroge la fonction de l'application ; une erreur vaut un refus, comme dans Casbin."""
        try:
            return self._matches is not None and bool(self._matches(domain, place))
        except Exception:  # noqa: BLE001 - la fonction est de l'application
            return False

    def _keep(self, member: str, domain: str, closure: tuple[str, ...], version: int) -> tuple[str, ...]:
        """Garde une fermeture, si aucun lien n'a changé depuis le début du calcul, et la renvoie."""
        with self._sequence.lock:
            if self._sequence.version == version and not version & 1:
                if self._kept >= MAX_KEPT:
                    self._retire()
                known = self._closures.get(domain)
                if known is None:
                    known = self._closures[domain] = {}
                known[member] = closure
                self._kept += 1
        if self._retired:
            self._give_back()
        return closure

    def _give_back(self) -> None:
        """Libère quelques fermetures mises de côté : en libérer un million d'un coup arrêterait le processus."""
        for _ in range(RETURNED_AT_ONCE):
            if not self._retired:
                return
            try:
                self._retired[-1].popitem()
            except (KeyError, IndexError):
                self._retired = [known for known in self._retired if known]


def _breadth_first(member: str, graphs: Sequence[Mapping[str, Sequence[str]]]) -> tuple[str, ...]:
    """Parcourt les liens, en largeur, sur `MAX_LINKS` liens au plus."""
    found, edge = {member: None}, [member]
    for _ in range(MAX_LINKS):
        reached = (role for name in edge for graph in graphs for role in graph.get(name, ()))
        edge = [role for role in dict.fromkeys(reached) if role not in found]
        if not edge:
            break
        found.update(dict.fromkeys(edge))
    return tuple(found)


def _unwind(role: str, came_from: Mapping[str, str | None]) -> list[str]:
    """Refait le chemin d'un rôle à son membre, puis le retourne."""
    path: list[str] = []
    name: str | None = role
    while name is not None:
        path.append(name)
        name = came_from[name]
    return path[::-1]
