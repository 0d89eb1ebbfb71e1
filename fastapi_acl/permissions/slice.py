"""La tranche « permissions », faite de ses ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi_acl.permissions.application.interface.policy_rules import IPolicyRevision, IPolicyRules, IRulePages
from fastapi_acl.permissions.application.usecases.check_permissions import CheckPermissionsUseCase
from fastapi_acl.permissions.application.usecases.explain import ExplainUseCase
from fastapi_acl.permissions.application.usecases.list_permissions import ListPermissionsUseCase
from fastapi_acl.permissions.infrastructure.cached_grants import CachedGrants
from fastapi_acl.shared.http.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import APIRouter

    from fastapi_acl.permissions.application.interface.explanations import IActiveAccounts, IDenials, IExplanations
    from fastapi_acl.permissions.application.interface.grants import IGrants
    from fastapi_acl.shared.cache.base import CacheBackend
    from fastapi_acl.shared.config import ACLConfig
    from fastapi_acl.shared.identity import Authorizer


def make_slice(  # noqa: PLR0913 - un argument par port
    config: ACLConfig,
    *,
    authorizer: Authorizer,
    rules: IPolicyRules,
    pages: IRulePages,
    revisions: IPolicyRevision,
    grants: IGrants,
    cache: CacheBackend,
    explanations: IExplanations,
    denials: IDenials,
    accounts: IActiveAccounts | None,
) -> Slice:
    """Construit les cas d'usage ; rien n'est encore lu.

    Args:
        config: réglages.
        authorizer: ce qui décide.
        rules: le chemin des changements de règles.
        pages: les règles de la base.
        revisions: ce que ce processus sait du journal.
        grants: les droits d'un appelant.
        cache: ce qui les garde, si `enable_cache` le veut.
        explanations: les raisons d'une décision.
        denials: les refus dont ce processus se souvient.
        accounts: les comptes, s'ils sont à nous.
    """
    kept = CachedGrants(grants, cache) if config.enable_cache else grants
    return Slice(
        components={
            IPolicyRules: rules,
            IRulePages: pages,
            CheckPermissionsUseCase: CheckPermissionsUseCase(authorizer=authorizer, revisions=revisions),
            ListPermissionsUseCase: ListPermissionsUseCase(authorizer=authorizer, grants=kept),
            ExplainUseCase: ExplainUseCase(
                explanations=explanations,
                denials=denials,
                accounts=accounts,
                authorizer=authorizer,
                revisions=revisions,
            ),
        },
        routers=load_routers,
        is_served=config.enable_permissions_feature,
    )


def load_routers() -> Iterator[APIRouter]:
    """Charge les routes de la tranche."""
    from fastapi_acl.permissions.interface import api  # noqa: PLC0415 - ce que la configuration coupe ne se charge pas
    from fastapi_acl.permissions.interface.admin import api as administration  # noqa: PLC0415 - idem
    from fastapi_acl.permissions.interface.admin import explain  # noqa: PLC0415 - idem

    yield from (api.router, administration.router, explain.router)
