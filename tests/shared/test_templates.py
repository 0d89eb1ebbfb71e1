"""Ce qu'une garde porte se vérifie quand elle s'écrit : une faute de frappe n'attend pas la première requête."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends

from fastapi_acl import ConfigurationError, require, require_all, require_any, require_role

BRACES = [
    "document:{id",
    "document:id}",
    "document:{}",
    "document:{id!r}",
    "document:{id:int}",
    "document:{{id}}",
    "document:{a{b}}",
    "document:{1}",
    "document:{é}",
    "document:{ id }",
    "{",
    "}",
    "{a}{",
]


def load() -> dict[str, str]:
    return {}


@pytest.mark.parametrize("resource", BRACES)
def test_a_brace_that_encloses_no_parameter_name_is_refused_in_every_template(resource: str) -> None:
    writings: list[Any] = [
        lambda: require(f"{resource}:read"),
        lambda: require_all("a:b", f"{resource}:read"),
        lambda: require_any(f"{resource}:read", "a:b"),
        lambda: require("a:b", domain=resource),
        lambda: require_any("a:b", domain=resource),
        lambda: require_role("admin", domain=resource),
    ]

    for write in writings:
        with pytest.raises(ConfigurationError, match="accolade"):
            write()


@pytest.mark.parametrize("permission", ["a:{action}", "a:re}ad", "a:{", "a:b:re{ad", None, 3, b"a:b"])
def test_an_action_has_no_brace_and_a_permission_is_a_text(permission: Any) -> None:
    with pytest.raises(ConfigurationError, match="ressource:action"):
        require(permission)


@pytest.mark.parametrize("template", ["document", "document:{id}", "{kind}", "{a}:{b}", "a:{_x1}:c", "{a}{b}"])
def test_a_well_formed_template_is_accepted(template: str) -> None:
    assert require(f"{template}:read", domain=template) == require(f"{template}:read", domain=template)


@pytest.mark.parametrize("domain", ["", 5, Depends(load), object()])
def test_a_domain_is_a_template_or_a_function(domain: Any) -> None:
    for write in (require, require_all, require_any):
        with pytest.raises(ConfigurationError, match="domain"):
            write("a:b", domain=domain)


@pytest.mark.parametrize("resource", ["document", Depends(load), 5, ""])
def test_what_loads_the_object_is_a_function(resource: Any) -> None:
    with pytest.raises(ConfigurationError, match="resource="):
        require("a:b", resource=resource)


def test_a_role_is_asked_by_its_bare_name() -> None:
    with pytest.raises(ConfigurationError, match=r'écrivez require_role\("admin"\)'):
        require_role("role:admin")
    assert require_role("admin") == require_role("admin")


@pytest.mark.parametrize("role", ["", "user:ada", "role:", "role:role:admin", "-a", "a b", "a" * 65, "é", "*", None, 3])
def test_what_no_role_can_be_called_is_refused(role: Any) -> None:
    with pytest.raises(ConfigurationError, match="n’est pas un nom"):
        require_role(role)


@pytest.mark.parametrize("domain", ["", load, 5])
def test_the_domain_of_a_role_is_a_template(domain: Any) -> None:
    with pytest.raises(ConfigurationError, match="domaine"):
        require_role("admin", domain=domain)
