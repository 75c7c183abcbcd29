"""The sensor that looks for trouble, on Dagster instances with runs and checks that really fail."""

# no `from __future__ import annotations`: Dagster reads the annotations of assets as objects

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetKey,
    AssetSelection,
    DagsterInstance,
    Definitions,
    ResourceDefinition,
    asset,
    asset_check,
    build_sensor_context,
    define_asset_job,
    in_process_executor,
)
from dagster_shared.error import SerializableErrorInfo
from pytest_httpserver import HTTPServer

from headrace.config.settings import Settings, load_settings
from headrace.core.errors import Fatal, Retriable
from headrace.orchestration import alerts, backoff
from headrace.pipelines import Pipeline, Thresholds, discover

FOUND = discover().pipelines


@dataclass
class Fate:
    """What becomes of runs and checks, set by a test."""

    error: str | None = None
    checks: dict[str, bool] = field(default_factory=dict)
    latest: dict[str, datetime | None] = field(default_factory=dict)
    looked: int = 0

    @contextmanager
    def look(self, pipeline: Pipeline) -> Iterator[Any]:
        """In the place of the streams: when a stream last got anything."""
        self.looked += 1
        fate = self

        class Table:
            def latest(self) -> datetime | None:
                if fate.error:
                    raise Retriable(fate.error)
                return fate.latest.get(pipeline.name)

        yield SimpleNamespace(lake=SimpleNamespace(good=Table(), rejected=Table()))


@dataclass
class Installation:
    """Dagster with two assets, three checks and the sensor; ``told`` is what a webhook received."""

    fate: Fate
    instance: DagsterInstance
    defs: Definitions
    webhook: HTTPServer

    def run(self, job: str = "ingest_events") -> bool:
        """Whether a real run of a job succeeded."""
        tags = {"headrace/source": "kafka/e"} if job == "ingest_events" else {}
        return bool(
            self.defs.get_job_def(job)
            .execute_in_process(instance=self.instance, raise_on_error=False, tags=tags)
            .success
        )

    def tick(self) -> str:
        """What the sensor says, evaluated as by Dagster."""
        sensor = self.defs.get_sensor_def("alerts")
        with build_sensor_context(
            instance=self.instance, repository_def=self.defs.get_repository_def()
        ) as context:
            return str(sensor.evaluate_tick(context).skip_message)

    @property
    def told(self) -> list[tuple[str, str]]:
        """Kind and title of every message since the last call."""
        said = [request.get_json() for request, _ in self.webhook.log]
        self.webhook.clear_log()
        return [(one["kind"], one["title"].rpartition(": ")[2]) for one in said]


def definitions(fate: Fate, settings: Settings, silence: Any = None) -> Definitions:
    @asset(key=["lake", "events"], owners=["team:analytics"])
    def lake() -> None:
        if fate.error:
            raise RuntimeError(fate.error + "\nsecond line")

    @asset(key=["warehouse", "metrics"], owners=["team:platform"])
    def warehouse() -> None:
        pass

    def check(name: str, severity: AssetCheckSeverity, blocking: bool) -> Any:
        @asset_check(asset=["lake", "events"], name=name, blocking=blocking)
        def checked() -> AssetCheckResult:
            passed = fate.checks.get(name, True)
            return AssetCheckResult(
                passed=passed, severity=severity, description="12 of 100 rows" if not passed else None
            )

        return checked

    checks = [
        check("warns", AssetCheckSeverity.WARN, False),
        check("errs", AssetCheckSeverity.ERROR, False),
        check("blocks", AssetCheckSeverity.ERROR, True),
    ]
    return Definitions(
        assets=[lake, warehouse],
        asset_checks=checks,
        jobs=[
            define_asset_job("ingest_events", AssetSelection.assets(lake).without_checks()),
            define_asset_job("health", AssetSelection.checks(*checks)),
        ],
        sensors=[alerts.alerts_sensor(FOUND, fate, settings, silence)],  # type: ignore[arg-type]
        resources={"unused": ResourceDefinition.none_resource()},
        executor=in_process_executor,
    )


@pytest.fixture
def here(httpserver: HTTPServer, tmp_path: Path) -> Iterator[Installation]:
    httpserver.expect_request("/hook").respond_with_data("ok")
    settings = load_settings(
        home=tmp_path,
        ui_url="https://ui.example.org/",
        alerts=(httpserver.url_for("/hook").replace("http", "json"),),
    )
    fate = Fate()
    with DagsterInstance.ephemeral() as instance:
        yield Installation(fate, instance, definitions(fate, settings), httpserver)


def test_no_alert_while_all_is_well(here: Installation) -> None:
    for _ in range(3):
        assert here.tick() == "all is well"
        assert here.run()
        assert here.run("health")
    assert here.told == []


def test_a_run_that_fails_is_told_once_and_its_recovery_too(here: Installation) -> None:
    here.tick()
    here.fate.error = "disk full"
    for _ in range(3):
        assert not here.run()
        assert here.tick() == "1 open"
    [(request, _)] = here.webhook.log
    alert = request.get_json()
    assert alert["title"] == "Headrace: run of ingest_events (kafka/e) failed"
    assert alert["message"].startswith("RuntimeError: disk full\nsecond line")
    first = here.instance.get_runs()[-1].run_id
    assert (alert["owner"], alert["stream"], alert["asset"], alert["severity"], alert["link"]) == (
        "team:analytics", "events", "lake/events", "error", f"https://ui.example.org/runs/{first}",
    )  # fmt: skip
    here.webhook.clear_log()
    assert here.run("health")  # another job's success is no recovery
    assert (here.tick(), here.told) == ("1 open", [])
    here.fate.error = None
    assert here.run()
    assert (here.tick(), here.told) == (
        "all is well",
        [("recovered", "run of ingest_events (kafka/e) failed")],
    )
    assert (here.tick(), here.told) == ("all is well", [])


def test_what_failed_before_the_first_look_is_history(here: Installation) -> None:
    here.fate.error = "long ago"
    assert not here.run()
    assert [here.tick(), here.tick()] == ["all is well"] * 2
    assert here.told == []


def test_a_run_that_is_tried_again_is_not_told(here: Installation) -> None:
    here.tick()
    here.fate.error = "hiccup"
    assert not here.run()
    [run] = here.instance.get_runs()
    here.instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
    assert (here.tick(), here.told) == ("all is well", [])


def test_a_failure_waits_until_dagster_has_said_whether_it_is_tried_again(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.tick()
    here.fate.error = "hiccup"
    assert not here.run()
    [run] = here.instance.get_runs()
    monkeypatch.setattr(DagsterInstance, "run_retries_enabled", True)
    assert (here.tick(), here.told) == ("all is well", [])
    here.instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})
    assert here.tick() == "1 open"
    here.fate.error = None
    assert here.run()
    assert here.tick() == "all is well"
    here.instance.add_run_tags(run.run_id, {"dagster/did_retry": "true"})  # which updates the old run
    assert here.tick() == "all is well"


@pytest.mark.parametrize(("name", "severity"), [("warns", "warning"), ("errs", "error")])
def test_a_check_that_fails_in_a_run_that_succeeds_is_told_and_its_recovery_too(
    here: Installation, name: str, severity: str
) -> None:
    here.tick()
    here.fate.checks[name] = False
    assert here.run("health")
    assert here.tick() == "1 open"
    [(request, _)] = here.webhook.log
    alert = request.get_json()
    assert alert["title"] == f"Headrace: check {name} of lake/events failed"
    assert alert["message"].startswith("12 of 100 rows")
    assert (alert["owner"], alert["stream"], alert["asset"], alert["severity"], alert["link"]) == (
        "team:analytics", "events", "lake/events", severity,
        f"https://ui.example.org/assets/lake/events?view=checks&checkDetail={name}",
    )  # fmt: skip
    here.webhook.clear_log()
    assert here.run()  # of the asset alone: the check did not run
    assert (here.tick(), here.told) == ("1 open", [])
    here.fate.checks.clear()
    assert here.run("health")
    assert (here.tick(), here.told) == ("all is well", [("recovered", f"check {name} of lake/events failed")])


def test_a_blocking_check_that_ends_its_run_is_one_alert(here: Installation) -> None:
    here.tick()
    here.fate.checks["blocks"] = False
    assert not here.run("health")
    here.tick()
    assert here.told == [("new", "check blocks of lake/events failed")]


def test_a_check_that_is_no_longer_there_is_over(here: Installation, tmp_path: Path) -> None:
    here.fate.checks["errs"] = False
    here.run("health")
    here.tick()
    gone = definitions(here.fate, load_settings(home=tmp_path))
    here.defs = Definitions(sensors=gone.sensors, executor=in_process_executor)
    assert here.tick() == "all is well"


def test_silence_is_told_and_ends_when_something_lands(
    here: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [datetime.now(UTC)]

    class At(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return clock[0]

    monkeypatch.setattr(alerts, "datetime", At)
    settings = load_settings(home=tmp_path, alerts=(here.webhook.url_for("/hook").replace("http", "json"),))
    here.defs = definitions(here.fate, settings, lambda p: 600.0 if p.name == "events" else 0.0)
    assert here.tick() == "all is well"
    assert here.fate.looked == 0, "it cannot be silent yet"
    clock[0] += timedelta(seconds=601)
    here.fate.latest["events"] = clock[0] - timedelta(seconds=300)
    assert (here.tick(), here.fate.looked) == ("all is well", 1)
    clock[0] += timedelta(hours=2)
    here.fate.error = "the lake is away"
    assert (here.tick(), here.told) == ("all is well", [])
    here.fate.error = None
    assert [here.tick(), here.tick()] == ["1 open"] * 2
    assert here.told == [("new", "nothing has landed in events for 2 h 5 min")]
    here.fate.latest["events"] = clock[0]
    assert (here.tick(), len(here.told)) == ("all is well", 1)


def test_silence_is_as_the_pipeline_declares_it_or_the_setting() -> None:
    events, config = FOUND["events"], load_settings(silence_seconds=600)
    assert alerts.declared_silence(events, config) == 600
    for own in (timedelta(), timedelta(hours=1)):
        declared = replace(events, thresholds=Thresholds(silence=own))
        assert alerts.declared_silence(declared, config) == own.total_seconds()


def test_a_failed_run_is_read_once(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    here.tick()
    here.fate.error = "disk full"
    here.run()
    asked: list[str] = []
    read = here.instance.get_records_for_run
    monkeypatch.setattr(
        here.instance, "get_records_for_run", lambda run_id, **k: asked.append(run_id) or read(run_id, **k)
    )
    for _ in range(3):
        here.tick()
    assert asked == [here.instance.get_runs()[0].run_id]


def test_a_wrong_address_stops_the_definitions(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=r"channel 1 \(smoke\)"):
        definitions(Fate(), load_settings(home=tmp_path, alerts=("smoke://x",)))


def test_streams_and_owners_are_those_that_an_asset_is_made_of(here: Installation) -> None:
    @asset(deps=[["lake", "events"]])
    def of_one() -> None:
        pass

    @asset(deps=[["lake", "events"], ["warehouse", "metrics"]])
    def of_both() -> None:
        pass

    both = Definitions.merge(here.defs, Definitions(assets=[of_one, of_both]))
    places = alerts.Places(both.get_repository_def(), FOUND, "http://ui")
    one, two, none = AssetKey("of_one"), AssetKey("of_both"), AssetKey("unknown")
    assert (places.stream([one]), places.owners([one])) == ("events", ("team:analytics",))
    assert (places.stream([two]), places.owners([two])) == ("", ("team:analytics", "team:platform"))
    assert (places.stream([none]), places.owners([none])) == ("", ("team:analytics", "team:platform"))
    assert places.stream([AssetKey(["warehouse", "metrics"])]) == "metrics"


def test_what_dbt_says_is_the_reason() -> None:
    told = "The dbt CLI process failed.\n\nErrors parsed from dbt logs:\n\n  FAIL 1 rows_hold\n\n  Got 1 result\n"
    cause = SerializableErrorInfo(told, [], "DagsterDbtCliRuntimeError")
    assert (
        backoff.first_lines(SerializableErrorInfo("op failed", [], "X", cause))
        == "FAIL 1 rows_hold\nGot 1 result"
    )
    assert backoff.first_lines(SerializableErrorInfo("a\n\nb\nc\nd", [], "X")) == "a\nb\nc"


def test_headraces_own_error_is_the_reason_and_a_librarys_has_no_colours() -> None:
    of_library = SerializableErrorInfo("OSError: copy \x1b[31m↳\x1b[0m No space (28)\n", [], "OSError")
    own = SerializableErrorInfo(
        "headrace.core.errors.Fatal: no space left for x: free some\n", [], "Fatal", of_library
    )
    step = SerializableErrorInfo("dagster.StepError: in op\n", [], "StepError", own)
    assert (backoff.first_lines(step), backoff.told(step).cls_name) == (
        "no space left for x: free some",
        "Fatal",
    )
    step = SerializableErrorInfo("dagster.StepError: in op\n", [], "StepError", of_library)
    assert backoff.first_lines(step) == "OSError: copy ↳ No space (28)"
