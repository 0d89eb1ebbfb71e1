"""Dépendances FastAPI de la tranche « permissions »."""

from typing import Annotated

from fastapi import Depends

from fastapi_acl.permissions.application.interface.policy_rules import IPolicyRules, IRulePages
from fastapi_acl.permissions.application.usecases.check_permissions import CheckPermissionsUseCase
from fastapi_acl.permissions.application.usecases.explain import ExplainUseCase
from fastapi_acl.permissions.application.usecases.list_permissions import ListPermissionsUseCase
from fastapi_acl.shared.http.security import provide

PolicyRulesDep = Annotated[IPolicyRules, Depends(provide(IPolicyRules))]
RulePagesDep = Annotated[IRulePages, Depends(provide(IRulePages))]
CheckPermissionsDep = Annotated[CheckPermissionsUseCase, Depends(provide(CheckPermissionsUseCase))]
ListPermissionsDep = Annotated[ListPermissionsUseCase, Depends(provide(ListPermissionsUseCase))]
ExplainDep = Annotated[ExplainUseCase, Depends(provide(ExplainUseCase))]
