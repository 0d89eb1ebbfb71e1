"""L'empreinte d'un modèle, et ce que le journal en garde."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fastapi_acl import ACLConfig, ACLManager, ConfigurationError
from fastapi_acl.engine.casbin.models import load_model, model_digest, read_packaged_model
from fastapi_acl.shared.config import PackagedModel
from fastapi_acl.shared.identity import SYSTEM
from fastapi_acl.shared.sync.changes import MODEL_ADOPTED
from tests.support.app import config, started

MODELS: tuple[PackagedModel, ...] = ("rbac", "rbac_with_domains", "abac", "acl", "rest")
PRODUCTION: dict[str, Any] = {"environment": "production", "bcrypt_rounds": 10}


def digest(tmp_path: Path, text: str) -> str:
    file = tmp_path / "model.conf"
    file.write_text(text, "utf-8")
    return model_digest(load_model(ACLConfig(_env_file=None, model_path=file)))


async def kinds(manager: ACLManager) -> list[str]:
    return [change.kind for change in await manager.get_policy_history().changes(limit=100)]


@pytest.mark.parametrize("model", MODELS)
def test_comments_blanks_and_order_do_not_count(tmp_path: Path, model: PackagedModel) -> None:
    sections = read_packaged_model(model).replace("\n[", "\0[").split("\0")[1:]
    *others, matchers = sections
    again = [matchers.replace(" && ", "  &&\t").replace("(r.", "( r."), *reversed(others), "# autre commentaire\n"]

    assert digest(tmp_path, "\n\n".join(again).replace(", ", " ,  ")) == model_digest(
        load_model(ACLConfig(_env_file=None, model=model))
    )


def test_models_that_differ_have_different_digests(tmp_path: Path) -> None:
    base = read_packaged_model("rbac")
    texts = [
        *map(read_packaged_model, MODELS),
        base.replace("aclMatch(r.act, p.act)", "r.act == p.act"),
        base.replace("p.act)", 'p.act) && p.obj != "a b"'),
        base.replace("p.act)", 'p.act) && p.obj != "a  b"'),
        base.replace("some(where (p.eft == allow)) && !some(where (p.eft == deny))", "some(where (p.eft == allow))"),
        base.replace("p = sub, obj, act, eft", "p = sub, obj, act, note, eft"),
    ]

    digests = [digest(tmp_path, text) for text in texts]

    assert all(first != second for first, second in itertools.combinations(digests, 2))


async def test_the_first_start_notes_the_model_once_and_a_compaction_keeps_it(
    database_settings: dict[str, Any],
) -> None:
    async with started(**database_settings) as manager:
        first = await kinds(manager)
    async with started(**database_settings) as manager:
        again = await kinds(manager)
        await manager.get_policy_history().compact(older_than=timedelta(0))
        assert "model_adopted" in await kinds(manager)

    assert first.count("model_adopted") == 1
    assert again == first


async def test_a_changed_model_is_adopted_in_development_with_a_word(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(sqlite_uri=sqlite_uri, create_default_admin=False):
        pass

    async with started(sqlite_uri=sqlite_uri, create_default_admin=False, model="abac") as manager:
        assert (await kinds(manager)).count("model_adopted") == 2
        assert not manager.health().model_differs

    assert "model_adopted: abac (fourni)" in caplog.text


async def test_a_changed_model_waits_in_production_and_health_says_so(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"sqlite_uri": sqlite_uri, "create_default_admin": False, **PRODUCTION}
    async with started(**settings):
        pass

    async with started(**settings, model="abac") as manager, started(**settings) as other:
        waiting = manager.health()
        assert (await kinds(manager)).count("model_adopted") == 1
        adopted = await manager.adopt_model()
        await other.get_replica().refresh()

        assert (waiting.model_differs, waiting.status) == (True, "degraded")
        assert adopted
        assert (manager.health().model_differs, manager.health().status) == (False, "ok")
        assert other.health().model_differs, "les autres processus l'apprennent du journal"
    assert "règles écrites sous rbac (fourni)" in caplog.text


async def test_an_administrator_is_not_written_in_rules_that_the_model_in_place_cannot_read(sqlite_uri: str) -> None:
    async with started(sqlite_uri=sqlite_uri, create_default_admin=False, model="rbac_with_domains"):
        pass
    manager = ACLManager(config(sqlite_uri=sqlite_uri, create_default_admin=False))

    with pytest.raises(ConfigurationError, match=r"rbac_with_domains.*--app"):
        await manager.create_administrator("ada", "un mot de passe assez long")

    assert (await manager.get_auth_repository().list_users(limit=10)).items == []
    await manager.close()


async def test_a_tool_does_not_adopt_the_model_under_which_it_was_launched(sqlite_uri: str, tmp_path: Path) -> None:
    file = tmp_path / "model.conf"
    file.write_text(read_packaged_model("rbac").replace("p.act)", 'p.act) && r.sub != "user:x"'), "utf-8")
    async with started(sqlite_uri=sqlite_uri):
        pass
    tool = ACLManager(config(sqlite_uri=sqlite_uri, model_path=file))

    await tool.create_administrator("ada", "un mot de passe assez long")

    assert (await kinds(tool)).count("model_adopted") == 1
    await tool.close()


@pytest.mark.parametrize("payload", [{}, {"digest": 1, "source": "x", "widths": {}}, {"digest": "x", "source": "y"}])
async def test_a_damaged_note_stops_nothing_and_is_replaced(
    sqlite_uri: str, payload: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with started(sqlite_uri=sqlite_uri) as manager:
        replica = manager.get_replica()
        async with replica.writing() as transaction:
            await replica.record(transaction, MODEL_ADOPTED, payload, actor=SYSTEM)

    async with started(sqlite_uri=sqlite_uri) as manager:
        assert (manager.health().status, manager.health().model_differs) == ("ok", False)
    assert "model_note_unreadable" in caplog.text
