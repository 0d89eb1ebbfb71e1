"""Dépendances FastAPI de la tranche « permissions »."""

from typing import Annotated

from fastapi import Depends

from fastapi_acl.permissions.application.interface.policy_rules import IPolicyRules, IRulePages
from fastapi_acl.permissions.application.usecases.check_permissions import CheckPermissionsUseCase
from fastapi_acl.permissions.application.usecases.explain import ExplainUseCase
from fastapi_acl.permissions.application.usecases.list_permissions import ListPermissionsUseCase
from fastapi_acl.shared.http.security import provided

PolicyRulesDep = Annotated[IPolicyRules, Depends(provided(IPolicyRules))]
RulePagesDep = Annotated[IRulePages, Depends(provided(IRulePages))]
CheckPermissionsDep = Annotated[CheckPermissionsUseCase, Depends(provided(CheckPermissionsUseCase))]
ListPermissionsDep = Annotated[ListPermissionsUseCase, Depends(provided(ListPermissionsUseCase))]
ExplainDep = Annotated[ExplainUseCase, Depends(provided(ExplainUseCase))]
