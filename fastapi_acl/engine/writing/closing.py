"""Dans un fichier de règles, la ligne dont le lien ferme un cycle de rôles, ou fait une chaîne trop longue."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from fastapi_acl.engine.kernel.role_graph import check_links, read_chain
from fastapi_acl.shared.exceptions import InvalidRuleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastapi_acl.engine.writing.rule_files import NumberedRule
    from fastapi_acl.shared.policy import PolicyRule


def links_fault(rules: Iterable[PolicyRule], *, shares_domains: bool) -> InvalidRuleError | None:
    """Renvoie ce qui ne va pas dans les liens de ces règles ; None si tout va bien.

    Args:
        rules: règles, liens ou non.
        shares_domains: un lien dans le domaine `*` vaut dans tous.
    """
    links: dict[str, dict[Sequence[str], None]] = defaultdict(dict)
    for rule in rules:
        if rule.section == "g":
            links[rule.ptype][rule.values] = None
    try:
        for known in links.values():
            check_links(known, shares_domains=shares_domains)
    except InvalidRuleError as error:
        return error
    return None


def closing_line(
    fault: InvalidRuleError, present: Iterable[PolicyRule], numbered: Iterable[NumberedRule], *, shares_domains: bool
) -> tuple[int, InvalidRuleError] | None:
    """Renvoie la première ligne avec laquelle les liens ne se tiennent plus, et ce qu'on peut en dire.

    Seuls comptent les liens entre les noms en cause : le fichier entier peut être aussi grand que l'on veut.

    Args:
        fault: ce qui ne va pas, les règles du fichier ajoutées.
        present: règles auxquelles le fichier s'ajoute.
        numbered: règles du fichier, avec leur ligne.
        shares_domains: un lien dans le domaine `*` vaut dans tous.
    """
    names = set(read_chain(fault))
    kept = {rule: None for rule in present if rule.section == "g" and names.issuperset(rule.values[:2])}
    for line, rule in numbered:
        if rule in kept or rule.section != "g" or not names.issuperset(rule.values[:2]):
            continue
        kept[rule] = None
        found = links_fault(kept, shares_domains=shares_domains)
        if found is not None:
            return line, found
    return None
