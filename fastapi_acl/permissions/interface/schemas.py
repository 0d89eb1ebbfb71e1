"""Corps des requêtes et des réponses de la tranche « permissions »."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self

from fastapi_acl.permissions.domain.dtos.check import CheckDTO, CheckResultDTO
from fastapi_acl.shared.http.json_body import STRICT
from fastapi_acl.shared.policy import Grant, PolicyRule, PolicyStamp

Value = Annotated[str, Field(min_length=1, max_length=250)]

Asked = Annotated[str, Field(min_length=1)]
"""Valeur d'une question : trop longue pour le moteur, elle a sa réponse (`value_too_long`) et n'ôte pas les autres."""


class CheckItem(BaseModel):
    """Une question : puis-je faire cette action sur cette ressource ?"""

    model_config = STRICT

    resource: Asked = Field(description="Ressource.", examples=["document"])
    action: Asked = Field(description="Action.", examples=["read"])
    domain: Asked | None = Field(None, description="Domaine (locataire), si le modèle en a.")

    def to_dto(self) -> CheckDTO:
        """Renvoie la question pour le cas d'usage."""
        return CheckDTO(self.resource, self.action, self.domain)


class CheckRequest(BaseModel):
    """De 1 à 1 000 questions."""

    model_config = STRICT

    checks: Annotated[list[CheckItem], Field(min_length=1, max_length=1000)]


class CheckError(BaseModel):
    """Une question qui n'a pas pu être décidée."""

    index: int = Field(description="Place de la question, à partir de 0.")
    code: str = Field(
        description="`decision_failed` si l'évaluation a échoué, `value_too_long` au-delà de 4 096 caractères."
    )


class CheckResponse(BaseModel):
    """Réponses, dans l'ordre des questions."""

    revision: int = Field(description="Révision à laquelle toutes les réponses valent.")
    results: list[bool] = Field(description="Une réponse par question ; faux si elle n'a pas pu être décidée.")
    errors: list[CheckError] = Field(description="Questions qui n'ont pas pu être décidées ; vide s'il n'y en a pas.")

    @classmethod
    def of(cls, result: CheckResultDTO) -> Self:
        """Fait la réponse du résultat."""
        errors = [CheckError.model_validate(error, from_attributes=True) for error in result.errors]
        return cls(revision=result.revision, results=result.results, errors=errors)


class PermissionSchema(BaseModel):
    """Ce qu'une règle accorde ou refuse à l'appelant."""

    resource: str = Field(description="Ressource, joker compris ; le gabarit de la route sous un modèle de routes.")
    action: str
    effect: str = Field(description="`allow` ou `deny` : un refus l'emporte, si le modèle le veut.")
    via: list[str] = Field(description="Rôles qui y mènent, du plus proche au plus lointain ; vide si en propre.")
    conditions: dict[str, str] = Field(description="Ce que la règle dit de plus : domaine, portée, priorité…")


class PermissionList(BaseModel):
    """Les permissions de l'appelant, et la politique qui les donne."""

    revision: int = Field(description="Dernière révision appliquée.")
    policy_revision: int = Field(description="Dernière révision qui a changé les règles.")
    permissions: list[PermissionSchema]

    @classmethod
    def of(cls, stamp: PolicyStamp, grants: Sequence[Grant]) -> Self:
        """Fait la réponse des droits."""
        permissions = [PermissionSchema.model_validate(grant, from_attributes=True) for grant in grants]
        return cls(revision=stamp.revision, policy_revision=stamp.policy_revision, permissions=permissions)


class RuleSchema(BaseModel):
    """Une règle de politique, comme liste de valeurs.

    Les bornes d'ici ne protègent que la mémoire : c'est le modèle qui dit ce qu'est une règle, et `invalid_rule`
    pourquoi elle est refusée.
    """

    model_config = STRICT

    ptype: str = Field(max_length=64, description="Type de règle : `p`, `g`…")
    values: list[Annotated[str, Field(max_length=4096)]] = Field(
        max_length=64, description="Valeurs, dans l'ordre du modèle, de 1 à 250 caractères chacune."
    )

    def to_rule(self) -> PolicyRule:
        """Renvoie la règle."""
        return PolicyRule.of(self.ptype, self.values)

    @classmethod
    def of(cls, rule: PolicyRule) -> Self:
        """Fait la représentation d'une règle."""
        return cls(ptype=rule.ptype, values=list(rule.values))


class RulesRequest(BaseModel):
    """De 1 à 1 000 règles, ajoutées ou retirées toutes ou aucune."""

    model_config = ConfigDict(
        **STRICT,
        json_schema_extra={
            "examples": [
                {
                    "rules": [
                        {"ptype": "p", "values": ["role:reader", "document", "read", "allow"]},
                        {"ptype": "g", "values": ["user:<id>", "role:reader"]},
                    ]
                }
            ]
        },
    )

    rules: Annotated[list[RuleSchema], Field(min_length=1, max_length=1000)]

    def to_rules(self) -> tuple[PolicyRule, ...]:
        """Renvoie les règles."""
        return tuple(rule.to_rule() for rule in self.rules)


class ReplaceRuleRequest(BaseModel):
    """Une règle à remplacer par une autre."""

    model_config = STRICT

    old: RuleSchema
    new: RuleSchema


class RulesAdded(BaseModel):
    """Ce qui a été ajouté, et la révision après laquelle c'est en vigueur."""

    revision: int
    added: int


class RulesRemoved(BaseModel):
    """Ce qui a été retiré, et la révision après laquelle c'est en vigueur."""

    revision: int
    removed: int


class RuleReplaced(BaseModel):
    """La révision après laquelle le remplacement est en vigueur."""

    revision: int


class RulePage(BaseModel):
    """Une page de règles."""

    items: list[RuleSchema]
    next_cursor: str | None = Field(None, description="À passer dans `cursor` pour la suite ; null à la fin.")
