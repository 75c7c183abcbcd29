"""The sensor that looks for trouble: failed runs, failed checks, silent streams. ``headrace.alerts`` tells people.

It is one sensor rather than a ``run_failure_sensor`` and others. Dagster hands a failure to such a sensor once, whether
or not the channel took it, and has none for checks or for recovery. This one compares the troubles with what channels
were told, so a tick that is lost or comes twice changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

from dagster import (
    AssetCheckSeverity,
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    RepositoryDefinition,
    RunRecord,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from headrace import alerts
from headrace.alerts import AlertState, Findings, Problem, length
from headrace.config.settings import Settings
from headrace.core.errors import Retriable
from headrace.health.freshness import last_landed
from headrace.health.run_history import WELL
from headrace.orchestration import backoff
from headrace.orchestration.keys import STREAM, lake_key, warehouse_key
from headrace.orchestration.resources import Streams
from headrace.orchestration.runtime.types import AssetCheckExecutionRecord
from headrace.orchestration.sensors import SOURCE, instance_of
from headrace.pipelines import Pipeline

#: Runs that one look reads; the next look reads the rest.
_RUNS = 200
#: Looks overlap by so much: the end of a run has a time before it is written.
_AGAIN = timedelta(seconds=60)
_SETTLED = timedelta(seconds=10)
#: Error of a run that a blocking check ended: the check's own alert tells of it.
_CHECKS_ERROR = "DagsterAssetCheckFailedError"

#: Dagster's names, as its database and the UI show them.
_WILL_RETRY = "dagster/will_retry"
_ANONYMOUS_JOB = "__anonymous_asset_job"
_IMPLICIT_JOB = "__ASSET_JOB"
#: Stands for the job that Dagster makes of the assets that somebody chooses.
_ANY_ASSETS = "assets"

Silence = Callable[[Pipeline], float]


def alerts_sensor(
    pipelines: Mapping[str, Pipeline], streams: Streams, settings: Settings, silence: Silence | None = None
) -> SensorDefinition:
    """Make the sensor that finds troubles and recoveries, and tells the channels.

    Args:
        pipelines: Pipelines by stream.
        streams: Opens a stream, to see when anything last landed in it.
        settings: Channels, UI and default thresholds.
        silence: Seconds without a landing after which a stream is silent, 0 for never. By default as the pipeline
            declares it, or else the setting.

    Raises:
        Fatal: The address of a channel is invalid.
    """
    alerts.verify(settings)
    desk = alerts.notifier(settings)
    silent_after = silence or (lambda pipeline: declared_silence(pipeline, settings))

    @sensor(
        name="alerts",
        minimum_interval_seconds=max(10, settings.sensor_seconds),
        default_status=DefaultSensorStatus.RUNNING,
        description="Tells of failed runs, failed checks and silent streams, once, and when they are well again.",
    )
    def watch(context: SensorEvaluationContext) -> SkipReason:
        repository = context.repository_def
        assert repository is not None  # Dagster gives it to every sensor of a code location
        instance, now = instance_of(context), datetime.now(UTC)
        places = Places(repository, pipelines, settings.ui_url)

        def look(book: AlertState) -> Findings:
            news = Findings()
            look_at_runs(news, book, instance, places, now)
            _look_at_checks(news, book, instance, places)
            _look_at_streams(news, book, streams, places, silent_after, now)
            return news

        failures = desk.update(look, now)
        open_now = len(desk.state().open)
        return SkipReason("; ".join([f"{open_now} open" if open_now else "all is well", *failures]))

    return watch


def declared_silence(pipeline: Pipeline, settings: Settings) -> float:
    """Take the seconds after which a stream is silent, as its pipeline declares them, or else the setting."""
    own = pipeline.thresholds.silence
    return settings.silence_seconds if own is None else own.total_seconds()


class Places:
    """Owners and UI pages of assets, checks and runs.

    Attributes:
        repository: Dagster's definitions.
        pipelines: Pipelines by stream.
        graph: Graph of the assets.
    """

    def __init__(
        self, repository: RepositoryDefinition, pipelines: Mapping[str, Pipeline], ui_url: str
    ) -> None:
        self.repository, self.pipelines, self._ui = repository, pipelines, ui_url
        self.graph = repository.asset_graph

    def run(self, run: DagsterRun) -> str:
        """Give the page of a run."""
        return f"{self._ui}/runs/{run.run_id}"

    def asset(self, key: AssetKey, check: str | None = None) -> str:
        """Give the page of an asset, or of one of its checks."""
        page = f"{self._ui}/assets/{'/'.join(quote(part, safe='') for part in key.path)}"
        return f"{page}?{urlencode({'view': 'checks', 'checkDetail': check})}" if check else page

    def owners(self, keys: Iterable[AssetKey]) -> tuple[str, ...]:
        """Name the owners of assets and of the streams they are made of; all streams' owners if there are none."""
        known = [key for key in keys if self.graph.has(key)]
        named = {owner for key in known for owner in self.graph.get(key).owners}
        named |= {self.pipelines[name].owner for key in known for name in self.streams(key)}
        return tuple(sorted(named or {pipeline.owner for pipeline in self.pipelines.values()}))

    def streams(self, key: AssetKey) -> list[str]:
        """Name the streams that an asset is made of."""
        behind = {key, *(self.graph.get_ancestor_asset_keys(key) if self.graph.has(key) else ())}
        return [name for name, one in self.pipelines.items() if {lake_key(one), warehouse_key(one)} & behind]

    def stream(self, keys: Iterable[AssetKey]) -> str:
        """Name the stream that assets are made of; empty if there is not exactly one."""
        named = {name for key in keys for name in self.streams(key)}
        return named.pop() if len(named) == 1 else ""

    def assets_of(self, run: DagsterRun) -> list[AssetKey]:
        """List the assets that a run was launched for."""
        chosen = {*(run.asset_selection or ()), *(c.asset_key for c in run.asset_check_selection or ())}
        if not chosen and run.job_name in self.repository.job_names:
            chosen = set(self.repository.get_job(run.job_name).asset_layer.selected_asset_keys)
        return sorted(chosen)


def look_at_runs(
    news: Findings, book: AlertState, instance: DagsterInstance, places: Places, now: datetime
) -> None:
    """Look at the runs that ended since the last look: a failure opens its cause's alert, a success ends it.

    Runs that ended before the first look are history.
    """
    first, since = "runs" not in book.marks, book.marks.get("runs", now)
    records = instance.get_run_records(
        RunsFilter(
            statuses=[DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS], updated_after=since - _AGAIN
        ),
        limit=_RUNS,
        order_by="update_timestamp",
        ascending=True,
    )
    oldest = since - _AGAIN
    ends: dict[str, datetime] = {}
    last: dict[str, RunRecord] = {}  # by cause
    for record in records:
        run, ended = record.dagster_run, _ended(record)
        # a run is also updated when it gets a tag, however long after its end
        if ended <= oldest or _undecided(run, instance, now - ended):
            continue
        mark = f"run/{run.run_id}"
        ends[mark] = ended
        if mark not in book.marks and not first:
            last[_cause(run)] = record
    for key, record in last.items():
        if record.dagster_run.status is DagsterRunStatus.SUCCESS:
            if not _fails_elsewhere(record.dagster_run, instance):
                news.recovered.add(key)
        elif problem := _failed(key, record, instance, places):
            news.problems.append(problem)
    if any(key.startswith("run/") for key in book.open):
        failing = {problem.key for problem in news.problems}
        news.recovered |= {_cause(run) for run in _well(instance)} - failing
    for key in book.open:
        job = key.removeprefix("run/").partition(" ")[0]
        if key.startswith("run/") and job not in places.repository.job_names and job != _ANY_ASSETS:
            news.recovered.add(key)  # the job is gone
    since = max([since, *ends.values()])
    others = {mark: at for mark, at in book.marks.items() if not mark.startswith("run/")}
    book.marks = {**others, "runs": since, **{mark: at for mark, at in ends.items() if at > since - _AGAIN}}


def _well(instance: DagsterInstance) -> list[DagsterRun]:
    """Return the runs under way that have landed what waited."""
    filters = RunsFilter(statuses=[DagsterRunStatus.STARTED], tags={WELL: "true"})
    return [record.dagster_run for record in instance.get_run_records(filters)]


def _ended(record: RunRecord) -> datetime:
    if record.end_time is None:
        return record.update_timestamp.astimezone(UTC)
    return datetime.fromtimestamp(record.end_time, UTC)


def _undecided(run: DagsterRun, instance: DagsterInstance, age: timedelta) -> bool:
    """Tell whether Dagster has yet to decide on a retry of a failed run, which it does right after the failure."""
    failed = run.status is DagsterRunStatus.FAILURE
    return failed and instance.run_retries_enabled and _WILL_RETRY not in run.tags and age < _SETTLED


def _chosen_assets(run: DagsterRun) -> bool:
    """Whether somebody chose assets, for which Dagster then made the job."""
    return run.job_name == _IMPLICIT_JOB or run.job_name.startswith(_ANONYMOUS_JOB)


def _cause(run: DagsterRun) -> str:
    """Make the key under which a run's failures are one: the same job on the same source, or the same assets."""
    if _chosen_assets(run):
        chosen = [key.to_user_string() for key in run.asset_selection or ()]
        chosen += [f"{c.asset_key.to_user_string()}:{c.name}" for c in run.asset_check_selection or ()]
        return f"run/{_ANY_ASSETS} {hashlib.sha256(repr(sorted(chosen)).encode()).hexdigest()[:12]}"
    return f"run/{run.job_name} {run.tags.get(SOURCE, '')}".rstrip()


def _failed(key: str, record: RunRecord, instance: DagsterInstance, places: Places) -> Problem | None:
    """Make the problem of a failed run; None if it is retried, or if checks ended it, which have their own alerts."""
    run = record.dagster_run
    if run.tags.get(_WILL_RETRY) == "true":
        return None
    events = [r.event_log_entry.dagster_event for r in instance.get_records_for_run(
        run.run_id, of_type={DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
    ).records]  # fmt: skip
    steps = [e for e in events if e and e.event_type is DagsterEventType.STEP_FAILURE]
    errors = [e.step_failure_data.error for e in steps if e.step_failure_data.error]
    if errors and all(error.cls_name == _CHECKS_ERROR for error in errors):
        return None
    more = f" (and {len(errors) - 1} more steps)" if len(errors) > 1 else ""
    said = (
        backoff.first_lines(errors[0]) + more if errors else next((e.message or "" for e in events if e), "")
    )
    assets = places.assets_of(run)
    stream = run.tags.get(STREAM) or places.stream(assets)
    owners = (places.pipelines[stream].owner,) if stream in places.pipelines else places.owners(assets)
    source = f" ({run.tags[SOURCE]})" if SOURCE in run.tags else ""
    implicit = _chosen_assets(run)
    shown = ", ".join(a.to_user_string() for a in assets[:3]) + (", ..." if len(assets) > 3 else "")
    return Problem(
        key=key,
        what="run",
        title=f"run of {shown if implicit else run.job_name}{source} failed",
        reason=said or "the run says no reason; see its log",
        severity="error",
        owners=owners,
        link=places.run(run),
        began=_ended(record),
        stream=stream,
        asset=shown,
    )


def _fails_elsewhere(run: DagsterRun, instance: DagsterInstance) -> bool:
    """Tell whether the job of a run that succeeded still fails for other days, so that its alert stays open."""
    return STREAM in run.tags and backoff.still_failing(instance, run, {STREAM: run.tags[STREAM]})


def _look_at_checks(news: Findings, book: AlertState, instance: DagsterInstance, places: Places) -> None:
    """Look at the last evaluation of every check; an evaluation that is only planned changes nothing."""
    checks = sorted(places.graph.asset_check_keys)
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    names = {key: f"check/{key.asset_key.to_user_string()}:{key.name}" for key in checks}
    for key, record in records.items():
        if key not in names:  # Dagster also answers for the same name on another asset
            continue
        if record.status.value == "SUCCEEDED":
            news.recovered.add(names[key])
        elif record.status.value == "FAILED":
            news.problems.append(_red(names[key], record, places))
    known = set(names.values())
    book.checks = sorted(known)
    news.recovered |= {key for key in book.open if key.startswith("check/") and key not in known}


def _red(key: str, record: AssetCheckExecutionRecord, places: Places) -> Problem:
    asset, name, found = record.key.asset_key, record.key.name, record.evaluation
    asked = places.graph.get(record.key).description
    reason = (
        found.description if found and found.description else f"it says no more than: {asked or 'failed'}"
    )
    warns = found is not None and found.severity is AssetCheckSeverity.WARN
    return Problem(
        key=key,
        what="check",
        title=f"check {name} of {asset.to_user_string()} failed",
        reason="\n".join(reason.strip().splitlines()[:3])[:500],
        severity="warning" if warns else "error",
        owners=places.owners([asset]),
        link=places.asset(asset, name),
        began=datetime.fromtimestamp(record.create_timestamp, UTC),
        stream=places.stream([asset]),
        asset=asset.to_user_string(),
    )


def _look_at_streams(
    news: Findings, book: AlertState, streams: Streams, places: Places, silent_after: Silence, now: datetime
) -> None:
    """Look for streams in which nothing has landed for longer than they may be silent.

    A stream in which nothing ever landed counts from the first look. The lake is not opened before a stream can be
    silent at all.
    """
    for pipeline in places.pipelines.values():
        key, mark, limit = f"silence/{pipeline.name}", f"landed/{pipeline.name}", silent_after(pipeline)
        if not limit:
            news.recovered.add(key)
            book.marks.pop(mark, None)
            continue
        landed = book.marks.setdefault(mark, now)
        if (now - landed).total_seconds() > limit:
            try:
                with streams.look(pipeline) as stream:
                    landed = max(landed, last_landed(stream) or landed)
            except Retriable:
                continue  # unknown for now; runs that read or write the lake fail and are heard of
            book.marks[mark] = landed
        if (now - landed).total_seconds() <= limit:
            news.recovered.add(key)
            continue
        news.problems.append(
            Problem(
                key=key,
                what="silence",
                title=f"nothing has landed in {pipeline.name} for {length(now - landed)}",
                reason=f"it may be silent for {length(timedelta(seconds=limit))}; look at its producers first",
                severity="error",
                owners=(pipeline.owner,),
                link=places.asset(lake_key(pipeline)),
                began=landed,
                stream=pipeline.name,
                asset=lake_key(pipeline).to_user_string(),
            )
        )
