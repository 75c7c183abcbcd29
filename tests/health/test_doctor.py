"""What ``headrace doctor`` finds besides services, which ``test_cli.py`` takes away from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.health import doctor
from headrace.pipelines.discovery import Discovered

SECRET = "s3cretT0ken"


@pytest.fixture(autouse=True)
def _without_services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "_services", lambda _: iter(()))
    monkeypatch.setattr(doctor, "_migrations", lambda _: doctor.Finding("migrations", True, "not asked"))
    monkeypatch.setattr(doctor, "_dbt", lambda _: doctor.Finding("dbt project", True, "not asked"))


def wrong() -> dict[str, str]:
    found = doctor.examine()
    assert SECRET not in str(found)
    return {one.what: one.said for one in found if not one.ok}


def test_nothing_is_wrong_without_settings_and_nothing_of_aws_or_postgres_is_looked_at() -> None:
    assert wrong() == {}
    assert not {"Dagster's storage", "compute logs"} & {one.what for one in doctor.examine()}


@pytest.mark.parametrize(
    ("name", "value", "what", "said"),
    [
        ("HEADRACE_ALERTS", f"json://h/x slack://{SECRET}", "alerts", "channel 2 (slack) is not an address"),
        ("HEADRACE_DAGSTER_POSTGRES", f"postgresql://u:{SECRET}@127.0.0.1:1/d", "Dagster's storage", "1:1/d as u"),
        ("HEADRACE_COMPUTE_LOGS", "s3://bucket/logs", "compute logs", "bucket 'bucket' cannot be asked for"),
        ("HEADRACE_CLICKHOUSE_PASSWORD", "ssm:/nothing", "settings", "HEADRACE_CLICKHOUSE_PASSWORD: Parameter Store"),
        ("HEADRACE_ALERT", "x", "settings", "did you mean HEADRACE_ALERTS?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, what: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # nobody answers
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    found = wrong()
    assert list(found) == [what]
    assert said in found[what]
    assert "\n" not in found[what]


def test_channels_are_named_without_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_ALERTS", f"json://u:{SECRET}@127.0.0.1/x mailto://h?to=a@b.org&from=c@d.org")
    said = {one.what: one.said for one in doctor.examine()}
    assert said["alerts"] == "channel 1 (json), channel 2 (mailto)"


def test_a_broken_pipeline_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Discovered({}, {}, broken={"orders_pipeline.py": "ImportError: no module 'x'"})
    monkeypatch.setattr(doctor, "discover", lambda *_, **__: broken)
    assert wrong() == {"pipelines": "none found", "orders_pipeline.py": "ImportError: no module 'x'"}
