"""Le stockage en mémoire passe aussi la suite des dépôts : ce qu'elle demande ne tient pas à une base."""

from __future__ import annotations

import pytest

from fastapi_acl.runtime.storage import Storage
from tests.auth.test_repositories import *  # noqa: F403 - la suite entière
from tests.support.memory import memory_storage


@pytest.fixture
def storage() -> Storage:
    return memory_storage()
