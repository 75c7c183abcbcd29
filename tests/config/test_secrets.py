"""Settings that name their secrets, against ministack's Secrets Manager and Parameter Store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from headrace.config import secrets as secret_store
from headrace.config.settings import load_settings
from headrace.core.errors import Fatal
from headrace.local import queue
from headrace.local.processes import LOOPBACK, pick_port
from headrace.local.supervisor import Supervisor

VALUE = "s3cr3t/@:#"
AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """ministack with other services than the embedded stack's; yields its URL."""
    home, port = tmp_path_factory.mktemp("aws"), pick_port(0, {0})
    (home / "logs").mkdir()
    service = queue.queue_service(home, port, dict(os.environ))
    service = replace(
        service, env={**service.env, "SERVICES": "secretsmanager,ssm", "MINISTACK_REGION": "eu-west-1"}
    )
    with Supervisor([service]):
        url = f"http://{LOOPBACK}:{port}"
        session = boto3.Session("test", "test", region_name="eu-west-1")
        secrets, parameters = (session.client(n, endpoint_url=url) for n in ("secretsmanager", "ssm"))
        secrets.create_secret(Name="headrace/clickhouse", SecretString=VALUE)
        secrets.create_secret(
            Name="headrace/kafka", SecretString=json.dumps({"user": "ada", "password": VALUE})
        )
        secrets.create_secret(Name="headrace/binary", SecretBinary=b"\xff")
        parameters.put_parameter(Name="/headrace/slack", Value="slack://a/b/c", Type="SecureString")
        yield url


@pytest.fixture
def aws(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual chain's variables, and nothing remembered."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**AWS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    secret_store.resolve.cache_clear()


@pytest.mark.usefixtures("aws")
def test_secrets_come_from_where_the_settings_point(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = {
        "sasl_plain_username": "secretsmanager:headrace/kafka#user",
        "sasl_plain_password": "secretsmanager:headrace/kafka#password",
        "sasl_mechanism": "PLAIN",
    }
    monkeypatch.setenv("HEADRACE_KAFKA_SECURITY", json.dumps(kafka))
    monkeypatch.setenv("HEADRACE_CLICKHOUSE_PASSWORD", "secretsmanager:headrace/clickhouse")
    monkeypatch.setenv("HEADRACE_ALERTS", "json://127.0.0.1/x ssm:/headrace/slack")
    settings = load_settings()
    assert settings.clickhouse_password.get_secret_value() == VALUE
    assert settings.kafka_security == {
        "sasl_plain_username": "ada", "sasl_plain_password": VALUE, "sasl_mechanism": "PLAIN",
    }  # fmt: skip
    assert [one.get_secret_value() for one in settings.alerts] == ["json://127.0.0.1/x", "slack://a/b/c"]
    assert VALUE not in repr(settings)


@pytest.mark.usefixtures("aws")
def test_a_secret_is_asked_for_once_and_by_its_arn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("secretsmanager")
    arn = client.describe_secret(SecretId="headrace/clickhouse")["ARN"]
    assert arn.split(":")[3] == "eu-west-1"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    reference = f"secretsmanager:{arn}"
    assert load_settings(clickhouse_password=reference).clickhouse_password.get_secret_value() == VALUE
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{LOOPBACK}:1")  # nobody answers
    assert load_settings(clickhouse_password=reference).clickhouse_password.get_secret_value() == VALUE


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("secretsmanager:nothing", "Secrets Manager in eu-west-1 has no 'nothing': create it"),
        ("ssm:/nothing", "Parameter Store in eu-west-1 has no '/nothing': create it"),
        ("secretsmanager:headrace/kafka#pasword", "'headrace/kafka' has no key 'pasword'"),
        ("secretsmanager:headrace/clickhouse#user", "'headrace/clickhouse' is no JSON object"),
        ("secretsmanager:headrace/binary", "is binary: store it as text"),
    ],
)
def test_a_secret_that_cannot_be_had_is_one_clear_line(reference: str, said: str) -> None:
    with pytest.raises(Fatal) as raised:
        load_settings(clickhouse_password=reference)
    assert str(raised.value).startswith("HEADRACE_CLICKHOUSE_PASSWORD: ")
    assert said in str(raised.value)
    assert VALUE not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("aws")
def test_without_credentials_or_an_answer_the_next_step_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{LOOPBACK}:1")
    with pytest.raises(Fatal, match="cannot be asked for '/a'"):
        load_settings(clickhouse_password="ssm:/a")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Fatal, match="there are no AWS credentials; set AWS_PROFILE"):
        load_settings(clickhouse_password="ssm:/a")


def test_what_may_not_be_read_says_which_permission_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    class Refusing:
        region_name = "eu-west-1"

        def client(self, *_: Any, **__: Any) -> Any:
            raise ClientError(
                {"Error": {"Code": "AccessDeniedException", "Message": VALUE}}, "GetSecretValue"
            )

    monkeypatch.setattr(boto3, "Session", Refusing)
    secret_store.resolve.cache_clear()
    with pytest.raises(Fatal, match=r"read 'x': grant them secretsmanager:GetSecretValue") as raised:
        load_settings(clickhouse_password="secretsmanager:x")
    assert VALUE not in str(raised.value)


@pytest.mark.parametrize(
    "value", ["s3cret", "ssm", "ssm:", "secretsmanager:", "x ssm:/a", "arn:aws:secretsmanager:x"]
)
def test_any_other_value_is_the_secret_itself(value: str) -> None:
    assert load_settings(clickhouse_password=value).clickhouse_password.get_secret_value() == value


def test_without_a_reference_nothing_of_aws_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from headrace.config.settings import load_settings; load_settings(clickhouse_password='x');"
        "print(sorted({'boto3', 'botocore', 'dagster_aws'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "[]"


def test_a_secret_is_what_a_mounted_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret_store.resolve.cache_clear()
    plain, several = tmp_path / "password", tmp_path / "several.json"
    plain.write_text(f"{VALUE}\n")
    several.write_text(json.dumps({"user": "ada", "password": VALUE}))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"file:{plain}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ada")
    monkeypatch.setenv(
        "HEADRACE_LAKE_STORAGE_OPTIONS", json.dumps({"aws_secret_access_key": f"file:{plain}"})
    )
    settings = load_settings(clickhouse_password=f"file:{several}#password", cache_url=f"file:{plain}")
    assert settings.clickhouse_password.get_secret_value() == VALUE
    assert settings.cache_url.get_secret_value() == VALUE
    assert settings.lake_storage_options == {"aws_secret_access_key": VALUE}
    assert settings.exported_variables()["AWS_SECRET_ACCESS_KEY"] == VALUE, (
        "for what asks the environment alone"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory; mount it"),
        (b"\n", "is empty"),
        (b"\xff", "it is not text"),
    ],
)
def test_a_file_without_a_secret_is_one_clear_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    secret_store.resolve.cache_clear()
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Fatal, match=said) as raised:
        load_settings(clickhouse_password=f"file:{file}")
    assert str(raised.value).startswith(f"HEADRACE_CLICKHOUSE_PASSWORD: the secret {file} ")
