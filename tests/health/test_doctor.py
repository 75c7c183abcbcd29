"""What ``headrace doctor`` finds besides services, for which ``test_cli.py`` asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.config.settings import load_settings
from headrace.health import doctor
from headrace.models import sources
from headrace.models.versions import dbt_folder
from headrace.pipelines import discover
from pipelines.test_modules import project

SECRET = "s3cretT0ken"
#: Probes that need neither services nor dbt.
LOCAL = (doctor.python, doctor.disk, doctor.pipelines, doctor.alert_channels, doctor.dagster_storage)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))


def wrong() -> dict[str, str]:
    found = doctor.examine(LOCAL)
    assert SECRET not in str(found)
    return {one.what: one.said for one in found if not one.ok}


def test_nothing_is_wrong_without_settings_and_nothing_of_aws_or_postgres_is_looked_at() -> None:
    assert wrong() == {}
    assert not {"Dagster's storage", "compute logs"} & {one.what for one in doctor.examine(LOCAL)}


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


def test_each_local_disk_is_looked_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def disks(**settings: str) -> list[str]:
        for name, value in settings.items():
            monkeypatch.setenv(f"HEADRACE_{name}", value)
        return [one.what for one in doctor.examine([doctor.disk])][1:]

    assert disks(LAKE_URI=str(tmp_path / "lake")) == ["disk"]
    assert disks(LAKE_URI="/proc/lake", ARCHIVE="/sys/archive") == [
        "disk",
        "disk of the lake",
        "disk of the archive",
    ]
    assert wrong() == {
        "disk of the lake": "only 0.0 GB free in /proc: free some",
        "disk of the archive": "only 0.0 GB free in /sys: free some",
    }
    assert disks(LAKE_URI="s3://bucket/lake") == ["disk", "disk of the archive"]


def test_channels_are_named_without_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_ALERTS", f"json://u:{SECRET}@127.0.0.1/x mailto://h?to=a@b.org&from=c@d.org")
    said = {one.what: one.said for one in doctor.examine(LOCAL)}
    assert said["alerts"] == "channel 1 (json), channel 2 (mailto)"


def test_a_broken_pipeline_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "orders_pipeline.py").write_text("import no_such_module\n")
    monkeypatch.setenv("HEADRACE_PIPELINES", str(folder))
    found = wrong()
    assert list(found) == ["orders_pipeline.py"]
    assert "No module named 'no_such_module'" in found["orders_pipeline.py"]


def test_every_part_is_looked_at_in_the_order_in_which_it_is_shown() -> None:
    assert [probe.__name__ for probe in doctor.PROBES] == [
        "python", "disk", "pipelines", "dbt_project", "dbt_sources", "alert_channels",
        "dagster_storage", "machines", "migrations", "collector", "services",
    ]  # fmt: skip


def test_a_stale_source_of_a_project_is_named_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project(tmp_path / "shop")
    monkeypatch.setenv("HEADRACE_PROJECT_DIR", str(tmp_path / "shop"))

    def said() -> tuple[bool, str]:
        [found] = doctor.dbt_sources(load_settings())
        return found.ok, found.said

    config = load_settings()
    folder = dbt_folder(config)
    place = folder.relative_to(config.project_dir)
    assert said() == (False, f"{place}/models/sources/orders.yml is missing; run 'headrace dbt sources'")
    sources.write(folder, discover(*config.pipeline_folders))
    assert said() == (True, "as the contracts of orders")


def test_outside_of_a_project_nobody_asks_for_sources() -> None:
    assert list(doctor.dbt_sources(load_settings())) == []


SHARED = {
    "HEADRACE_DAGSTER_POSTGRES": "postgresql://u:p@db:5432/d",
    "HEADRACE_LAKE_URI": "s3://bucket/lake",
    "HEADRACE_CLICKHOUSE_HOST": "warehouse",
    "HEADRACE_MACHINES": "several",
}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HEADRACE_DAGSTER_POSTGRES", "", "HEADRACE_DAGSTER_POSTGRES is not set"),
        ("HEADRACE_LAKE_URI", "/data/lake", "HEADRACE_LAKE_URI is the folder /data/lake"),
        ("HEADRACE_CLICKHOUSE_HOST", "localhost", "HEADRACE_CLICKHOUSE_HOST is localhost"),
        ("HEADRACE_WAREHOUSE_CLUSTER", "main", "HEADRACE_WAREHOUSE_CLUSTER is main"),
    ],
)
def test_what_is_one_machines_is_refused_where_there_are_several(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    for one, good in {**SHARED, name: value}.items():
        if good:
            monkeypatch.setenv(one, good)
    [found] = doctor.machines(load_settings())
    assert not found.ok
    assert said in found.said
    assert "HEADRACE_MACHINES to one" in found.said
    monkeypatch.setenv("HEADRACE_MACHINES", "one")
    assert list(doctor.machines(load_settings())) == []


def test_machines_are_several_where_nothing_ties_the_installation_to_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not load_settings().several_machines
    for name in ("HEADRACE_DAGSTER_POSTGRES", "HEADRACE_LAKE_URI"):
        monkeypatch.setenv(name, SHARED[name])
    assert load_settings().several_machines


@pytest.mark.parametrize(("version", "ok"), [("26.5.1.833", True), ("26.4.9.1", False)])
def test_an_old_server_is_refused_where_there_are_several_machines(
    monkeypatch: pytest.MonkeyPatch, version: str, ok: bool
) -> None:
    for one, good in SHARED.items():
        monkeypatch.setenv(one, good)
    monkeypatch.setattr("headrace.warehouse.clickhouse.ClickHouse.query", lambda *_: [(version, 1)])
    [found] = doctor.machines(load_settings())
    assert (found.ok, version in found.said) == (ok, True)
