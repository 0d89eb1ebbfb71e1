"""Corps de la demande et de la réponse d'une explication."""

import math
import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema
from typing_extensions import Self

from fastapi_acl.permissions.domain.dtos.explanation import ExplanationDTO
from fastapi_acl.permissions.interface.schemas import RuleSchema
from fastapi_acl.shared.decisions import Question
from fastapi_acl.shared.http.json_body import STRICT
from fastapi_acl.shared.identity import MAX_REQUEST_VALUE, USER_PREFIX
from fastapi_acl.shared.policy import PolicyChange, PolicyRule

MAX_ATTRIBUTES: Final = 64

_NAME: Final = re.compile(r"[^\W\d_]\w{0,63}")

Asked = Annotated[str, Field(min_length=1, max_length=MAX_REQUEST_VALUE)]


def _check_scalars(given: Any) -> dict[str, Any]:  # noqa: ANN401 - ce que JSON a donné
    """Vérifie les attributs d'un objet d'un bloc : une erreur n'en nomme aucun, l'appelant ayant choisi leurs noms."""
    known = isinstance(given, dict) and len(given) <= MAX_ATTRIBUTES
    if not known or not all(_NAME.fullmatch(name) and _is_scalar(value) for name, value in given.items()):
        message = f"{MAX_ATTRIBUTES} attributs publics au plus, chacun un texte, un nombre, un booléen ou null"
        raise ValueError(message)
    return dict(given)


def _is_scalar(value: object) -> bool:
    """Dit si une valeur peut être celle d'un attribut."""
    if isinstance(value, str):
        return len(value) <= MAX_REQUEST_VALUE
    return value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))


_SCALAR: Final[dict[str, Any]] = {"anyOf": [{"type": name} for name in ("string", "number", "boolean", "null")]}

Attributes = Annotated[
    dict[str, Any],
    PlainValidator(_check_scalars),
    WithJsonSchema({"type": "object", "maxProperties": MAX_ATTRIBUTES, "additionalProperties": _SCALAR}),
]


class ExplainQuestion(BaseModel):
    """Une question : ce sujet peut-il faire cette action sur cette ressource ?"""

    model_config = STRICT

    subject: Annotated[str, Field(min_length=1, max_length=MAX_REQUEST_VALUE - len(USER_PREFIX))] = Field(
        description="Sujet de politique.", examples=["user:<id>"]
    )
    resource: Asked = Field(description="Ressource ; le gabarit de la route sous un modèle de routes.")
    action: Asked = Field(description="Action ; la méthode HTTP sous un modèle de routes.")
    domain: Asked | None = Field(None, description="Domaine (locataire), si le modèle en a.")
    attributes: Attributes = Field(
        default_factory=dict, description="Attributs scalaires de l'objet, tels que `resource=` les donnerait."
    )

    def to_question(self) -> Question:
        """Renvoie la question pour le cas d'usage."""
        return Question(
            subject=self.subject,
            resource=self.resource,
            action=self.action,
            domain=self.domain,
            attributes=self.attributes,
        )


class ExplainDenial(BaseModel):
    """Un refus, par son numéro."""

    model_config = STRICT

    decision_id: Annotated[str, Field(min_length=1, max_length=64, description="Numéro que porte le 403.")]


class NearestRule(RuleSchema):
    """Une règle à ajouter ou à retirer."""

    change: Literal["add", "remove"]


class Explanation(BaseModel):
    """La réponse de la politique, et pourquoi."""

    allowed: bool
    revision: int = Field(description="Révision à laquelle la réponse vaut.")
    rule: RuleSchema | None = Field(description="La règle décisive ; null si aucune ne l'est.")
    role_path: list[str] = Field(description="Du sujet à celui de la règle, rôle par rôle.")
    denied_because: Literal["no_rule", "denied_by_rule", "inactive", "evaluation_failed"] | None
    nearest_rules: list[NearestRule] = Field(
        description="Le plus petit changement trouvé qui, d'un bloc, retournerait le refus ; vide si aucun ne l'a été."
    )

    @classmethod
    def of(cls, found: ExplanationDTO) -> Self:
        """Fait la réponse d'une explication."""
        verdict = found.verdict
        return cls.model_validate(
            {
                "allowed": verdict.allowed,
                "revision": found.revision,
                "rule": None if verdict.rule is None else verdict.rule.as_json(),
                "role_path": list(verdict.role_path),
                "denied_because": verdict.denied_because,
                "nearest_rules": _list_changes(verdict.nearest or PolicyChange()),
            }
        )


def _list_changes(change: PolicyChange) -> list[dict[str, object]]:
    """Énumère les règles d'un changement, celles qui partent d'abord."""

    def tell(way: str, rules: tuple[PolicyRule, ...]) -> list[dict[str, object]]:
        return [{"change": way, **rule.as_json()} for rule in rules]

    return tell("remove", change.removed) + tell("add", change.added)
