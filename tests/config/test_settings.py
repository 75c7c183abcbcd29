from __future__ import annotations

from pathlib import Path

import pytest

from headrace.config.settings import Settings, load_settings
from headrace.core.errors import Fatal


def test_defaults_are_on_this_machine_and_take_no_service_for_ours() -> None:
    settings = load_settings()
    assert settings.kafka_bootstrap_servers == ""
    assert settings.clickhouse_host == "127.0.0.1"
    assert not settings.names_warehouse
    assert settings.lake == str(settings.home / "lake")
    assert settings.archive_uri == str(settings.home / "archive")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HEADRACE_CLICKHOUSE_PORT", "http", "HEADRACE_CLICKHOUSE_PORT='http' is not valid"),
        ("HEADRACE_CLICKHOUSE_PORT", "0", "greater than or equal to 1"),
        ("HEADRACE_RAW_DATABASE", "raw; DROP DATABASE raw", "HEADRACE_RAW_DATABASE"),
        ("HEADRACE_KAFKA_BOOTSTRAP", "x:1", "did you mean HEADRACE_KAFKA_BOOTSTRAP_SERVERS?"),
        ("HEADRACE_KAFKA_SECURITY", "not json", "kafka_security"),
        ("HEADRACE_ARCHIVE", "gs://bucket/a", "HEADRACE_ARCHIVE='gs://bucket/a' is not valid"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Fatal) as raised:
        load_settings()
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_running_stack_is_found_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "stack.env").write_text("HEADRACE_CLICKHOUSE_PORT=1111\nAWS_ACCESS_KEY_ID=key\n")
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    assert load_settings().clickhouse_port == 1111
    assert load_settings().aws_access_key_id == "key"
    monkeypatch.setenv("HEADRACE_CLICKHOUSE_PORT", "2222")
    assert load_settings().clickhouse_port == 2222


def test_secrets_do_not_show() -> None:
    settings = load_settings(clickhouse_password="s3cret", kafka_security={"sasl_plain_password": "s3cret"})
    assert "s3cret" not in repr(settings)


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    missing = [
        n
        for n in Settings.model_fields
        if f"`{'' if n.startswith(('aws', 'dagster_home')) else 'HEADRACE_'}{n.upper()}`" not in text
    ]
    assert not missing
