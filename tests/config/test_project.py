"""The user's project: how it is found, and how its file is read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from headrace.config import project as projects
from headrace.config import settings as module
from headrace.config.project import Project, find
from headrace.config.settings import home_folder, load_settings
from headrace.core.errors import Fatal


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, in one of whose folders somebody works."""
    (tmp_path / "shop" / "dbt" / "models").mkdir(parents=True)
    (tmp_path / "shop" / "headrace.toml").write_text("")
    monkeypatch.chdir(tmp_path / "shop" / "dbt" / "models")
    return tmp_path / "shop"


def toml(project: Path, text: str) -> None:
    (project / "headrace.toml").write_text(text)


def test_the_project_is_found_from_below_and_by_name(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_settings()
    assert found.project == Project(project)
    assert found.home == project / ".headrace"
    monkeypatch.chdir(tmp_path)
    assert load_settings().project is None
    monkeypatch.setenv("HEADRACE_PROJECT_DIR", str(project))
    assert load_settings().project == Project(project)
    assert home_folder() == project / ".headrace"


def test_a_name_of_no_project_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PROJECT_DIR", str(tmp_path / "shpo"))
    with pytest.raises(Fatal, match=r"shpo names no project: there is no headrace\.toml in it"):
        load_settings()
    (tmp_path / "shpo" / "dbt_project").mkdir(parents=True)
    assert load_settings().project is None, "the parts of a checkout, which people name for its dbt project"


def test_a_checkout_without_the_file_is_no_project_whatever_lies_above_it(project: Path) -> None:
    checkout = project / "vendor" / "headrace"
    (checkout / "tests").mkdir(parents=True)
    assert find(None, checkout / "tests", stop=checkout) is None
    assert find(None, checkout / "tests") == Project(project)
    assert find(None, project / "dbt", stop=checkout) == Project(project), "a project beside the checkout"


def test_in_the_checkout_all_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root / "tests")
    found = load_settings()
    assert (found.project, found.home, found.project_dir) == (None, root / ".headrace", root)
    assert found.pipeline_folders == ()


def test_settings_of_the_file_rank_below_environment_and_stack(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml(
        project,
        "[settings]\nraw_database = 'shop_raw'\nsensor_seconds = 7\nclickhouse_port = 1111\n"
        "event_time_min = 2020-01-01\nkafka_security = {security_protocol = 'SASL_SSL'}\n",
    )
    found = load_settings()
    assert (found.raw_database, found.sensor_seconds) == ("shop_raw", 7)
    assert found.event_time_min == datetime(2020, 1, 1, tzinfo=UTC)
    assert found.names_warehouse
    monkeypatch.setenv("HEADRACE_SENSOR_SECONDS", "9")
    monkeypatch.setenv("HEADRACE_KAFKA_SECURITY", '{"sasl_mechanism": "PLAIN"}')
    (project / ".headrace").mkdir()
    (project / ".headrace" / "stack.env").write_text("HEADRACE_CLICKHOUSE_PORT=2222\n")
    found = load_settings()
    assert (found.sensor_seconds, found.clickhouse_port) == (9, 2222)
    assert found.kafka_security == {"sasl_mechanism": "PLAIN"}, "one or the other, nothing mixed"
    assert load_settings(with_stack=False).clickhouse_port == 1111
    assert load_settings(sensor_seconds=3).sensor_seconds == 3


def test_paths_begin_at_the_project(project: Path) -> None:
    toml(project, "[settings]\nhome = 'state'\narchive = 'data'\nlake_uri = 's3://bucket/lake'\n")
    found = load_settings()
    assert found.home == home_folder() == project / "state"
    assert found.archive_uri == str(project / "data")
    assert found.lake == "s3://bucket/lake"


def test_pipelines_are_those_of_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_settings()
    assert found.pipeline_folders == (), "a project without any is none that is broken"
    (project / "pipelines").mkdir()
    assert found.pipeline_folders == (project / "pipelines",), "made while a process runs"
    monkeypatch.setenv("HEADRACE_PIPELINES", str(project / "others"))
    assert load_settings().pipeline_folders == (project / "others",)


WRONG = {
    "unknown": ("[settings]\n\nsensor_second = 3\n", "3: sensor_second is not a setting of Headrace; did you mean sensor_seconds?"),
    "a variable": ("[settings]\nHEADRACE_SENSOR_SECONDS = 3\n", "2: HEADRACE_SENSOR_SECONDS is not a setting of Headrace; did you mean sensor_seconds?"),
    "far off": ("[settings]\nxyz = 3\n", "2: xyz is not a setting of Headrace; see docs/operations.md for all of them"),
    "out of range": ("[settings]\nsensor_seconds = 0\n", "2: sensor_seconds = 0 is not valid: input should be greater than or equal to 1"),
    "another type": ("[settings]\nclickhouse_port = 'http'\n", "2: clickhouse_port = 'http' is not valid: input should be a valid integer"),
    "outside": ("sensor_seconds = 3\n", "1: sensor_seconds stands outside of [settings]: put it below that line"),
    "another table": ("[setting]\nsensor_seconds = 3\n", "1: 'setting' is nothing that Headrace reads; did you mean [settings]?"),
    "no table": ("settings = 3\n", "1: write [settings], with settings below it"),
    "half-written": ("[settings]\nsensor_seconds = \n", "2: it is no TOML: invalid value"),
    "no end": ("[settings]\nlake_uri = 'x", "2: it is no TOML: "),
    "project_dir": ("[settings]\nproject_dir = '.'\n", "2: project_dir cannot be set here: the project is the folder of headrace.toml"),
    "dagster_home": ("[settings]\ndagster_home = '.'\n", "2: dagster_home cannot be set here: Dagster itself reads it"),
    "a secret": ("[settings]\nclickhouse_password = 'hunter2'\n", "2: clickhouse_password is a secret"),
    "a secret option": ("[settings]\n[settings.kafka_security]\nsasl_mechanism = 'PLAIN'\nsasl_plain_password = 'hunter2'\n", "2: sasl_plain_password of kafka_security is a secret"),
    "a list of secrets": ("[settings]\nalerts = ['mailto://me:hunter2@x.io']\n", "2: alerts is a secret"),
    "a key": ("[settings]\nlake_storage_options = {AWS_ACCESS_KEY_ID = 'hunter2'}\n", "2: AWS_ACCESS_KEY_ID of lake_storage_options is a secret"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_line_is_named_with_file_and_line(project: Path, text: str, said: str) -> None:
    toml(project, text)
    with pytest.raises(Fatal) as raised:
        load_settings()
    message = str(raised.value)
    assert message.startswith(f"{project}/headrace.toml:{said}"), message
    assert "hunter2" not in message and "\n" not in message
    assert home_folder() == project / ".headrace"


def test_a_file_that_cannot_be_read_is_named(project: Path) -> None:
    (project / "headrace.toml").write_bytes(b"[settings]\n# caf\xe9\n")
    with pytest.raises(Fatal, match=r"headrace\.toml:2: byte 0xe9 is no UTF-8"):
        load_settings()


def test_references_to_secrets_are_none(project: Path) -> None:
    toml(
        project,
        "[settings]\nclickhouse_password = 'ssm:/shop/clickhouse'\n"
        "kafka_security = {sasl_plain_password = 'secretsmanager:kafka#password', ssl_cafile = 'ca.pem'}\n",
    )
    assert set(module._of_project()) == {"clickhouse_password", "kafka_security"}


def test_a_value_of_the_environment_is_told_as_that_of_the_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml(project, "[settings]\nsensor_seconds = 3\n")
    monkeypatch.setenv("HEADRACE_SENSOR_SECONDS", "no")
    with pytest.raises(Fatal, match=r"^HEADRACE_SENSOR_SECONDS='no' is not valid"):
        load_settings()


def test_an_installation_without_a_project_says_once_where_state_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "checkout", lambda: None)
    monkeypatch.chdir(tmp_path)
    module._say_once.cache_clear()
    assert load_settings().home == home_folder() == tmp_path / ".headrace"
    assert [one.message for one in caplog.records] == [
        f"there is no headrace.toml here or above, so state goes to {tmp_path}/.headrace;"
        " 'headrace init' makes a project"
    ]
    caplog.clear()
    module._say_once.cache_clear()
    (tmp_path / ".headrace").mkdir()
    home_folder()
    assert not caplog.records, "known by then"


def test_children_find_the_project_from_wherever_they_run(project: Path) -> None:
    assert module.child_environment()["HEADRACE_PROJECT_DIR"] == str(project)


def test_every_file_of_a_project_lies_below_it(project: Path) -> None:
    found = Project(project)
    assert {one.parent for one in (found.file, found.pipelines, found.dbt, found.migrations)} == {project}
    assert projects.line_of("[settings]\n[settings.alerts]\n", "alerts") == 2
