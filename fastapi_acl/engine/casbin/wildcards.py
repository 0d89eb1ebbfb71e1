"""Pourquoi la règle « * » de l'administrateur ne permet rien sous un modèle : les termes du matcher qui l'excluent."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from fastapi_acl.engine.kernel.acl_match import ANY
from fastapi_acl.engine.kernel.checked import restore_dots
from fastapi_acl.engine.kernel.plan import Probe
from fastapi_acl.engine.kernel.schema import DOMAIN_NAMES, SUBJECT_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi_acl.engine.kernel.plan import Key
    from fastapi_acl.engine.kernel.policy import Policy
    from fastapi_acl.engine.kernel.schema import PolicySchema
    from fastapi_acl.shared.exceptions import DecisionFailedError

OTHERWISE: Final = (
    "ou réglez ACL_CREATE_DEFAULT_ADMIN=false, et donnez à un compte créé par /auth/register d’autres règles, que "
    "« fastapi-acl policy apply » lit du fichier ACL_POLICY_PATH."
)
"""Ce qui mène à un administrateur sans règle « * »."""


def explain_closed(policy: Policy) -> str:
    """Dit pourquoi une règle « * » ne permet rien, et que faire.

    Args:
        policy: politique du modèle.
    """
    schema = policy.schema
    closed = list(dict.fromkeys(key for key in _keys_of(policy) if _excludes(key, schema)))
    terms = [key.describe(schema.request, schema.fields["p"]) for key in closed] or _list_evaluated(policy)
    cause = f" Ce qui l’exclut : {_quote(terms)}." if terms else ""
    mends = list(filter(None, (_mend(key, schema) for key in closed)))
    mend = f"Comparez par {' et '.join(mends)}" if mends else "Corrigez le matcher"
    fact = "sous ce modèle, une règle « * » ne permet rien : l’administrateur ne pourrait rien faire."
    return f"{fact}{cause} {mend}, {OTHERWISE}"


def explain_failed(rule: Iterable[str], error: DecisionFailedError) -> str:
    """Dit pourquoi la règle de l'administrateur fait échouer la décision, et que faire.

    Args:
        rule: la règle que le premier démarrage écrit, type en tête.
        error: l'échec ; la règle qu'il nomme l'emporte.
    """
    written = ", ".join(error.rule or rule)
    return (
        f"sous ce modèle, la règle « {written} », que le premier démarrage écrit pour l’administrateur, fait échouer "
        f"la décision : {error.reason or 'le matcher ne s’évalue pas'}. Corrigez le matcher, qui doit admettre « * » "
        f'(« p.act == "*" || regexMatch(r.act, p.act) », par exemple) et un objet sans attribut, {OTHERWISE}'
    )


def _keys_of(policy: Policy) -> list[Key]:
    return [key for leaf in policy.plan.leaves for branch in leaf.branches for key in branch.keys]


def _list_evaluated(policy: Policy) -> list[str]:
    """Renvoie les termes qui s'évaluent, sur la requête seule ou sur les règles trouvées."""
    leaves = policy.plan.leaves
    gates = [ast.unparse(branch.gate) for leaf in leaves for branch in leaf.branches if branch.gate is not None]
    return list(dict.fromkeys(map(restore_dots, [*gates, *(leaf.residual for leaf in leaves if leaf.residual)])))


def _excludes(key: Key, schema: PolicySchema) -> bool:
    """Dit si un terme exclut la règle de l'administrateur : tout lui est `*`, hormis le sujet et l'effet.

    Ce qui administre se demande dans le domaine `*` : l'y comparer à celui de la règle n'exclut rien.
    """
    name = schema.fields["p"][key.field]
    if name in SUBJECT_NAMES:
        return key.probe is Probe.EXACT and "g" in schema.links
    if name in DOMAIN_NAMES:
        return False
    return all(term.probe is Probe.EXACT and term.constant != ANY for term in key.terms)


def _mend(key: Key, schema: PolicySchema) -> str:
    """Renvoie le terme qui admettrait la règle ; rien si le champ n'est comparé à aucune valeur de la requête."""
    name = schema.fields["p"][key.field]
    asked = next((term.request for term in key.terms if term.request is not None), None)
    if asked is None:
        return ""
    if name in SUBJECT_NAMES:
        domain = "" if schema.links["g"] == 2 else ", r.dom"  # noqa: PLR2004 - membre et rôle
        return f"g(r.{schema.request[asked]}, p.{name}{domain})"
    return f"aclMatch(r.{schema.request[asked]}, p.{name})"


def _quote(terms: Iterable[str]) -> str:
    return ", ".join(f"« {term} »" for term in terms)
