from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from fastapi_acl import ACLConfig, ConfigurationError
from fastapi_acl.cli.reference import name_variable, read_descriptions, write_env_example, write_markdown
from fastapi_acl.shared.config import unknown_variables

ROOT = Path(__file__).parents[2]
SECRET = "s" * 48

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"jwt_secret_key": "court"}, "au moins 32"),
    ({"jwt_secret_key": "s" * 16}, "au moins 32"),
    ({"jwt_secret_key": "s" * 31}, "au moins 32"),
    ({"jwt_previous_keys": f"{SECRET},court"}, "au moins 32"),
    ({"jwt_previous_keys": f"{SECRET},{'s' * 31}"}, "au moins 32"),
    ({"database_type": "postgresql"}, "ACL_POSTGRESQL_URI"),
    ({"database_type": "mysql"}, "ACL_MYSQL_URI"),
    ({"database_type": "mongodb"}, "ACL_MONGODB_URI"),
    ({"database_type": "oracle"}, "postgresql"),
    ({"postgresql_uri": "mysql://ada:s3cret@hote/base"}, "postgresql://"),
    ({"sqlite_uri": "fichier.db"}, "sqlite://"),
    ({"redis_url": "http://hote"}, "redis://"),
    ({"enable_cache": True, "cache_backend": "redis"}, "ACL_REDIS_URL"),
    ({"environment": "production"}, "ACL_JWT_SECRET_KEY"),
    ({"environment": "production", "jwt_secret_key": SECRET, "disable_auth_for_dev": True}, "DISABLE_AUTH_FOR_DEV"),
    ({"environment": "production", "jwt_secret_key": SECRET, "create_default_admin": True}, "DEFAULT_ADMIN_PASSWORD"),
    ({"environment": "production", "jwt_secret_key": SECRET, "bcrypt_rounds": 9}, "BCRYPT_ROUNDS"),
    ({"model_path": "absent.conf"}, "n’existe pas"),
    ({"policy_path": "absent.csv"}, "n’existe pas"),
    ({"api_prefix": "/{tenant}"}, "chemin simple"),
    ({"password_min_length": 7}, "de 8 à 128"),
    ({"jwt_leeway_seconds": 61}, "de 0 à 60"),
    ({"jwt_algorithm": "none"}, "admises : 'HS256', 'HS384' ou 'HS512'"),
    ({"postgresql_schema": ""}, "de 1 à 63 caractères"),
    ({"postgresql_schema": "é" * 32}, "63 octets au plus"),
    ({"postgresql_schema": "a[b]"}, "ni crochet"),
    ({"bcrypt_rounds": "douze"}, "nombre entier attendu"),
    ({"enable_cache": "peut-être"}, "« true » ou « false »"),
    ({"policy_poll_seconds": "vite"}, "nombre attendu"),
    ({"shared_domain": "public"}, "shared_domain"),
    ({"default_admin_password": ""}, "ne peut pas être vide"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_a_wrong_setting_is_refused_with_a_sentence_that_says_what_to_set(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        ACLConfig(_env_file=None, **settings)


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_no_english_is_left_in_what_a_setting_is_told(settings: dict[str, Any], message: str) -> None:  # noqa: ARG001
    with pytest.raises(ValidationError) as refused:
        ACLConfig(_env_file=None, **settings)

    for item in refused.value.errors():
        assert not re.search(r"\b(should|input|value|error|or|valid|string)\b", item["msg"], re.IGNORECASE)
        assert item["input"] is None


def test_an_empty_schema_is_not_taken_for_an_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACL_POSTGRESQL_SCHEMA", "")

    with pytest.raises(ValidationError, match="postgresql_schema"):
        ACLConfig(_env_file=None)


@pytest.mark.parametrize("key", ["s" * 32, "é" * 16])
def test_a_key_is_measured_in_bytes(key: str) -> None:
    found = ACLConfig(_env_file=None, jwt_secret_key=key, jwt_previous_keys=key)

    assert found.jwt_secret_key == SecretStr(key)
    assert found.jwt_previous_keys == [SecretStr(key)]


def test_no_secret_is_in_the_repr_nor_in_an_error() -> None:
    secrets = {
        "jwt_secret_key": "planted-" + "a" * 40,
        "jwt_previous_keys": ["planted-" + "b" * 40],
        "postgresql_uri": "postgresql://ada:planted@hote/base",
        "default_admin_password": "planted",
    }

    shown = repr(ACLConfig(_env_file=None, **secrets)) + str(ACLConfig(_env_file=None, **secrets))
    with pytest.raises(ValidationError) as refused:
        ACLConfig(
            _env_file=None, **{**secrets, "postgresql_uri": "http://ada:planted@hote", "jwt_secret_key": "planted"}
        )

    assert "planted" not in shown
    assert "planted" not in str(refused.value)


def test_an_unknown_argument_is_refused_and_the_nearest_is_named() -> None:
    with pytest.raises(ConfigurationError, match="« database_type »"):
        ACLConfig(_env_file=None, databse_type="sqlite")


def test_an_unknown_variable_is_named_with_the_nearest() -> None:
    sentences = unknown_variables(["ACL_JWT_SECRET", "ACL_JWT_SECRET_KEY", "ACL_TEST_X", "PATH"])

    assert sentences == ["« ACL_JWT_SECRET » n’est pas un réglage ; vouliez-vous « ACL_JWT_SECRET_KEY » ?"]


def test_settings_come_from_the_environment_and_from_a_shared_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"OTHER_APP=1\nACL_JWT_SECRET_KEY={SECRET}\nACL_API_PREFIX=/a/\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACL_API_PREFIX", "acl/v1")
    monkeypatch.setenv("ACL_TRUSTED_PROXIES", "10.0.0.1, 10.0.0.2")

    config = ACLConfig()

    assert config.jwt_secret_key == SecretStr(SECRET)
    assert config.api_prefix == "/acl/v1"
    assert config.trusted_proxies == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize(("value", "read"), [("*", "*"), ("", ""), (None, None)])
def test_an_empty_shared_domain_is_a_choice_and_not_an_absence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None, read: str | None
) -> None:
    file = tmp_path / ".env"
    file.write_text("ACL_LOG_LEVEL=\n" + (f"ACL_SHARED_DOMAIN={value}\n" if value is not None else ""), "utf-8")

    in_file = ACLConfig(_env_file=file)
    if value is not None:
        monkeypatch.setenv("ACL_SHARED_DOMAIN", value)
    monkeypatch.setenv("ACL_LOG_LEVEL", "")
    in_environment = ACLConfig(_env_file=None)

    assert (in_file.shared_domain, in_environment.shared_domain) == (read, read)
    assert (in_file.log_level, in_environment.log_level) == ("INFO", "INFO")
    assert ACLConfig(_env_file=None, shared_domain=value).shared_domain == read


def test_the_environment_empty_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("ACL_SHARED_DOMAIN=*\n", "utf-8")
    monkeypatch.setenv("ACL_SHARED_DOMAIN", "")

    assert ACLConfig(_env_file=file).shared_domain == ""


def test_the_token_form_is_on_in_development_and_off_in_production() -> None:
    production = {"environment": "production", "jwt_secret_key": SECRET}

    assert ACLConfig(_env_file=None).token_form_enabled
    assert not ACLConfig(_env_file=None, **production).token_form_enabled
    assert ACLConfig(_env_file=None, enable_token_form=True, **production).token_form_enabled


def test_every_setting_is_described_in_the_example_and_in_the_documentation() -> None:
    assert read_descriptions().keys() == ACLConfig.model_fields.keys()
    assert (ROOT / ".env.example").read_text("utf-8") == write_env_example()
    assert (ROOT / "docs/configuration.md").read_text("utf-8").endswith(write_markdown())


def test_the_example_is_a_valid_env_file_once_uncommented(tmp_path: Path) -> None:
    lines = (line.removeprefix("# ") for line in write_env_example().splitlines() if line.startswith("# ACL_"))
    (tmp_path / ".env").write_text("\n".join(lines), "utf-8")

    config = ACLConfig(_env_file=tmp_path / ".env")

    assert config == ACLConfig(_env_file=None, shared_domain="*"), "ce que montre l'exemple ; vide serait un choix"
    assert all(name_variable(name) in write_env_example() for name in ACLConfig.model_fields)


def test_a_setting_without_effect_yet_is_named() -> None:
    config = ACLConfig(_env_file=None, rate_limit_enabled=True, log_level="INFO")

    assert config.ineffective_settings() == ["rate_limit_enabled"]
