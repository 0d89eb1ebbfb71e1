"""Ce qu'un modèle de Casbin définit pour une politique : sa forme, ses fonctions, et de quoi la compiler."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, final

from casbin.model import FunctionMap

from fastapi_acl.engine.casbin.compiler import ModelCompiler
from fastapi_acl.engine.casbin.domains import spread
from fastapi_acl.engine.casbin.functions import MatcherFunctions, check_function, strict_functions
from fastapi_acl.engine.casbin.model import IndexedModel
from fastapi_acl.engine.casbin.role_manager import ReadOnlyRoleManager
from fastapi_acl.engine.casbin.trial import Lexicon
from fastapi_acl.engine.kernel.acl_match import OWNER
from fastapi_acl.engine.kernel.policy import Definitions
from fastapi_acl.engine.kernel.schema import PolicySchema
from fastapi_acl.shared.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from casbin.model import Model

    from fastapi_acl.engine.casbin.model_source import ModelSource
    from fastapi_acl.engine.kernel.rule_set import RuleSet


@final
class ModelDefinitions(Definitions):
    """Un modèle que le mode strict admet, et les fonctions que ses matchers appellent.

    Attributes:
        schema: forme des règles et des requêtes.
        model: les définitions, sans règle.
        functions: fonctions des matchers, celles de l'application comprises.
        source: d'où vient le modèle, pour que les erreurs en citent la ligne.
    """

    def __init__(  # noqa: PLR0913 - ce que la configuration en dit, par nom
        self,
        model: Model,
        *,
        allow_eval: bool = False,
        raw_subjects: bool = False,
        share_domains: bool | None = False,
        owner_attribute: str = OWNER,
        source: ModelSource | None = None,
    ) -> None:
        """Lit la forme d'un modèle, et refuse ce que le mode strict n'admet pas.

        Args:
            model: modèle chargé.
            allow_eval: admet `eval()` dans le matcher.
            raw_subjects: n'exige pas de préfixe aux sujets.
            share_domains: une règle ou un lien dans le domaine `*` vaut dans tous les domaines ; None si rien ne le
                dit, et qu'aucune règle n'est admise dans `*`.
            owner_attribute: attribut qui porte le propriétaire d'un objet pour `aclOwns`.
            source: d'où vient le modèle.

        Raises:
            ConfigurationError: le matcher emploie `eval()` sans que ce soit admis, le modèle a des rôles conditionnels,
                ou `*` ne peut pas y valoir dans tous les domaines.
        """
        self.source = source
        self.model = IndexedModel.over(model).blank()
        self.model.sort_policies_by_priority()
        known = {**FunctionMap.load_function_map().fm, **strict_functions(owner_attribute)}
        self.functions = MatcherFunctions(known, self._forget_compiled, self._check_function)
        self._forgetting: list[Callable[[], None]] = []
        if share_domains:
            spread(self.model, partial(_replace_matcher, self.model))
        self.schema = PolicySchema.of(
            self.model,
            Lexicon.of(self.model, self.functions, is_whole=True),
            raw_subjects=raw_subjects,
            shares_domains=share_domains,
        )
        self._check_model(allow_eval=allow_eval)
        self.model.listener = self._forget_compiled

    def _check_model(self, *, allow_eval: bool) -> None:
        """Refuse un modèle que le mode strict n'admet pas.

        Raises:
            ConfigurationError: il emploie `eval()` sans que ce soit admis, ou a des rôles conditionnels.
        """
        if self.schema.uses_eval and not allow_eval:
            message = (
                "le matcher emploie eval(), qui exécute des expressions lues dans les règles : réécrivez-le, "
                "ou réglez ACL_ALLOW_EVAL=true si toutes les règles sont de confiance."
            )
            raise ConfigurationError(message)
        if any(assertion.params_tokens for assertion in (self.model["g"] or {}).values()):
            message = "le modèle a des rôles conditionnels, que seul l’enforcer nu (PolicyEnforcer) sait employer."
            raise ConfigurationError(message)

    def _check_function(self, name: str, function: object) -> None:
        """Refuse une fonction qui ne saurait répondre, ou qui en remplacerait une de la décision."""
        check_function(name, function, self.model["g"] or ())

    @property
    def matchers(self) -> Mapping[str, str]:
        """Le texte de chaque matcher."""
        return {name: assertion.value for name, assertion in self.model["m"].items()}

    def compiler(self, rules: RuleSet) -> ModelCompiler:
        """Renvoie de quoi compiler le modèle sur des règles."""
        return ModelCompiler(self.show(rules), self.functions)

    def show(self, rules: RuleSet) -> IndexedModel:
        """Renvoie le modèle de Casbin dont ces règles sont celles, et dont seules elles changent les liens."""
        shown = self.model.showing(rules.rows)
        for ptype, graph in rules.graphs.items():
            has_domains = self.schema.links[ptype] > 2  # noqa: PLR2004 - membre et rôle
            shown["g"][ptype].rm = ReadOnlyRoleManager(graph, has_domains=has_domains, on_change=self._forget_compiled)
        shown.listener = self._forget_compiled  # une fois fait : le faire n'est pas un changement
        return shown

    def listen(self, forget: Callable[[], None]) -> None:
        """Retient ce qu'il faut appeler quand une fonction ou une définition change."""
        self._forgetting.append(forget)

    def _forget_compiled(self) -> None:
        for forget in self._forgetting:
            forget()


def _replace_matcher(model: IndexedModel, name: str, matcher: str) -> None:
    """Met un matcher à la place d'un autre, dans ce modèle et dans aucun autre."""
    replaced = model["m"][name].copy_without_rules(model.sequence, model.listener)
    replaced.value = matcher
    model["m"][name] = replaced
