"""La clé de développement et les fichiers de SQLite : à leur seul propriétaire, ou refusés par leur nom."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastapi_acl import ACLConfig, ACLManager, ConfigurationError
from fastapi_acl.shared.development_key import FILE_NAME, development_key
from tests.support.app import PASSWORD, config, protected

SECRET = "s" * 48

START = """
import sys
from fastapi_acl import ACLConfig
from fastapi_acl.runtime.environment import with_secret
sys.stdin.readline()
print(with_secret(ACLConfig(_env_file=None)).jwt_secret_key.get_secret_value())
"""


@pytest.fixture(params=[0o000, 0o022, 0o277, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Le masque du processus, du plus ouvert au plus fermé."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def developed(folder: Path, **settings: Any) -> ACLConfig:
    return config(**{"jwt_secret_key": None, "sqlite_uri": f"sqlite:///{folder}/acl.db", **settings})


def key_of(folder: Path, **settings: Any) -> str:
    secret = ACLManager(developed(folder, **settings)).config.jwt_secret_key
    assert secret is not None
    return secret.get_secret_value()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_tokens_survive_a_restart_in_development(tmp_path: Path) -> None:
    settings = {"sqlite_uri": f"sqlite:///{tmp_path}/acl.db", "jwt_secret_key": None}
    async with protected(**settings) as visitor:
        ada = await visitor.newcomer("ada")
    async with protected(**settings) as visitor:
        answer = await visitor.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {ada.token}"})
        renewed = await visitor.post("/api/v1/auth/refresh", json={"refresh_token": ada.refresh_token})

    assert (answer.status_code, renewed.status_code) == (200, 200)
    assert {path.name for path in tmp_path.iterdir()} >= {"acl.db", FILE_NAME}


def test_the_key_is_its_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    first, again = key_of(tmp_path), key_of(tmp_path)

    assert first == again == (tmp_path / FILE_NAME).read_text("ascii")
    assert len(first) >= 64
    assert mode_of(tmp_path / FILE_NAME) == 0o600, umask
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_the_key_stands_beside_the_sqlite_file_or_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)

    beside, relative = key_of(tmp_path / "base"), key_of(tmp_path, sqlite_uri="sqlite:///base/autre.db")
    uri = key_of(tmp_path, sqlite_uri="sqlite:///file:base/autre.db?uri=true")
    here = key_of(tmp_path, database_type="postgresql", postgresql_uri="postgresql://hote/base")

    assert beside == relative == uri != here
    assert (tmp_path / FILE_NAME).read_text("ascii") == here


@pytest.mark.parametrize(
    "settings",
    [
        {"sqlite_uri": "sqlite://"},
        {"sqlite_uri": "sqlite:///:memory:"},
        {"sqlite_uri": "sqlite:///file:x?mode=memory&uri=true"},
        {"sqlite_uri": "sqlite:////dossier/absent/acl.db"},
        {"sqlite_uri": "sqlite:////dev/null/acl.db"},
        {"sqlite_uri": "sqlite:////proc/self/acl.db"},
        {"environment": "production", "enable_auth_feature": False, "bcrypt_rounds": 10},
    ],
)
def test_without_a_place_for_it_the_key_lasts_as_long_as_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)

    with caplog.at_level(logging.WARNING, "fastapi_acl"):
        first, second = key_of(tmp_path, **settings), key_of(tmp_path, **settings)

    assert first != second
    assert caplog.text.count("jwt_secret_generated") == 2
    assert list(tmp_path.iterdir()) == []


def test_a_given_key_leaves_no_file(tmp_path: Path) -> None:
    assert key_of(tmp_path, jwt_secret_key=SECRET) == SECRET
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("others", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666, 0o644])
def test_a_key_that_others_can_reach_is_refused_by_name(tmp_path: Path, others: int) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(SECRET, "ascii")
    path.chmod(others)

    with pytest.raises(ConfigurationError, match="ACL_JWT_SECRET_KEY") as refused:
        ACLManager(developed(tmp_path))

    assert str(path) in refused.value.detail
    assert SECRET not in str(refused.value)
    assert path.read_text("ascii") == SECRET, "rien n'est réparé en silence"


@pytest.mark.parametrize(
    "content", [b"", b"x" * 31, b"\n" * 40, b"x" * 20 + b" " + b"x" * 20, b"\xff" * 64, b"\x00" * 64]
)
def test_a_key_that_is_not_whole_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(ConfigurationError, match="clé entière") as refused:
        ACLManager(developed(tmp_path))

    assert str(path) in refused.value.detail


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_what_is_not_a_plain_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / FILE_NAME, tmp_path / "ailleurs"
    if kind == "link":
        target.write_text(SECRET, "ascii")
        target.chmod(0o600)
    if kind == "folder":
        path.mkdir(0o700)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.symlink_to(target)

    with pytest.raises(ConfigurationError, match="n’est pas crue") as refused:
        ACLManager(developed(tmp_path))

    assert str(path) in refused.value.detail
    assert kind == "link" or not target.exists()


def test_a_key_of_another_account_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(SECRET, "ascii")
    path.chmod(0o600)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)

    with pytest.raises(ConfigurationError, match="autre compte") as refused:
        ACLManager(developed(tmp_path))

    assert str(path) in refused.value.detail


def test_a_key_written_by_hand_may_end_with_a_newline(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(f"{SECRET}\n", "ascii")
    path.chmod(0o600)

    assert key_of(tmp_path) == SECRET


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", START], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]

    for process in started:
        assert process.stdin is not None
        process.stdin.write("partez\n")
        process.stdin.flush()
    found = [process.communicate()[0].strip() for process in started]

    assert len(set(found)) == 1
    assert len(found[0]) >= 64
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_who_loses_the_race_takes_the_winners_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def beaten(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        key_of(tmp_path)
        link(source, target)

    monkeypatch.setattr(os, "link", beaten)
    loser = key_of(tmp_path)

    assert loser == key_of(tmp_path) == (tmp_path / FILE_NAME).read_text("ascii")
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_a_folder_where_nothing_can_be_linked_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)

    assert development_key(developed(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


async def test_the_files_of_sqlite_are_their_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    async with protected(sqlite_uri=f"sqlite:///{tmp_path}/acl.db") as visitor:
        assert (await visitor.register("ada", PASSWORD)).status_code == 201
        async with visitor.manager._parts.database.transaction():  # une connexion ouverte : -wal et -shm sont là
            modes = {path.name: mode_of(path) for path in tmp_path.iterdir()}

    assert modes == {"acl.db": 0o600, "acl.db-wal": 0o600, "acl.db-shm": 0o600}, umask


@pytest.mark.parametrize("uri", ["file:{}/acl.db?uri=true", "file:{}/acl.db?mode=rwc&uri=true", "{}/lien.db"])
async def test_a_file_named_otherwise_is_its_owners_alone(tmp_path: Path, uri: str) -> None:
    (tmp_path / "lien.db").symlink_to(tmp_path / "acl.db")

    async with protected(sqlite_uri=f"sqlite:///{uri.format(tmp_path)}"):
        assert mode_of(tmp_path / "acl.db") == 0o600


async def test_a_file_that_is_there_keeps_its_mode_and_is_named_when_others_open_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "acl.db").touch()
    said = []
    for mode in (0o644, 0o640, 0o600):
        (tmp_path / "acl.db").chmod(mode)
        caplog.clear()
        async with protected(sqlite_uri=f"sqlite:///{tmp_path}/acl.db"):
            said.append((mode_of(tmp_path / "acl.db"), f"chmod 600 {tmp_path}/acl.db" in caplog.text))

    assert said == [(0o644, True), (0o640, True), (0o600, False)]
