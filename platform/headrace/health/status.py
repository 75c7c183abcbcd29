"""The health of an installation on one screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from headrace import alerts
from headrace.alerts import Problem, length
from headrace.collector.held import Held, held
from headrace.config.settings import Settings
from headrace.core.errors import Fatal, HeadraceError, NotSet, Retriable
from headrace.core.guard import Circuit, circuits
from headrace.health import verdicts
from headrace.health.backoff import Pause
from headrace.health.check_history import Evaluation, last_evaluations
from headrace.health.checks import max_behind, reject_rate
from headrace.health.door import Door, look
from headrace.health.freshness import last_landed, unpublished_versions
from headrace.health.parity import parity
from headrace.health.run_history import pauses
from headrace.lake.delta.durable import SET_ASIDE
from headrace.models import versions as dbt_versions
from headrace.models.project import missing_tags
from headrace.pipelines import discover_for
from headrace.streams.stream import Stream

#: Failed checks, and alerts, that the screen shows; ``--json`` has them all.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """The health of one stream, as ``headrace status`` shows it.

    A figure that could not be read is None, and a problem says why.

    Attributes:
        stream: Its name.
        sources: Messages waiting by source, or the state of a source that gives no number: ``away``, ``not set``, or
            ``wrong`` if it answers otherwise than it should.
        lake_version: Version of the table of good rows.
        lake_rows: Good rows in the lake.
        rejected_rows: Rejected rows in the lake.
        last_landed: Time of the last landing (UTC); None also if nothing ever landed.
        warehouse_rows: Rows in the raw table.
        unpublished_versions: Lake versions that are not in the warehouse yet.
        touched_days: Stale days: days whose models are older than their rows.
        touched_since: Time since which the oldest of them is stale (UTC).
        held: What the collector's log holds that the lake does not have; None if there is no such log.
        set_aside: Torn ends of the lake's logs that a power cut left; empty for none.
        problems: Faults that need a person, one line each.
        warnings: Faults that can wait, one line each.
        unread: State of lake or warehouse if it could not be read: ``away``, ``not set`` or ``wrong``.
    """

    stream: str
    sources: dict[str, int | str] = field(default_factory=dict)
    lake_version: int | None = None
    lake_rows: int | None = None
    rejected_rows: int | None = None
    last_landed: datetime | None = None
    warehouse_rows: int | None = None
    unpublished_versions: int | None = None
    touched_days: int | None = None
    touched_since: datetime | None = None
    held: Held | None = None
    set_aside: str = ""
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether nothing needs a person."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Health:
    """The health of an installation.

    Attributes:
        streams: Health of each stream.
        services: Circuits of the services that were ever called.
        checks: The last evaluation of every asset check; None if Dagster has not run here.
        alerts: Open alerts that are not about checks.
        problems: Faults that belong to no stream, one line each.
        failing: Jobs that fail and are tried again after pauses.
        project: Root of the user's project; empty if there is none.
        door: The collector; None where there is none.
    """

    streams: list[StreamStatus]
    services: list[Circuit]
    checks: list[Evaluation] | None
    alerts: list[Problem]
    problems: list[str] = field(default_factory=list)
    failing: list[Pause] = field(default_factory=list)
    project: str = ""
    door: Door | None = None

    @property
    def failed(self) -> list[Evaluation]:
        """Failed checks, errors first, the newest of each first."""
        failed = [check for check in self.checks or [] if not check.passed]
        return sorted(failed, key=lambda check: (check.severity, -check.at.timestamp()))

    @property
    def healthy(self) -> bool:
        """Whether nothing needs a person; warnings do not."""
        return not (
            self.problems
            or self.failing
            or any(not stream.healthy for stream in self.streams)
            or (self.door is not None and not self.door.well)
            or any(one.state == "open" for one in self.services)
            or any(check.severity == "error" for check in self.failed)
            or any(alert.severity == "error" for alert in self.alerts)
        )


def examine(streams: Iterable[Stream], config: Settings, *, only: str | None = None) -> Health:
    """Examine an installation. A service that does not answer is a problem of the report, not an exception.

    Args:
        streams: Streams to inspect.
        config: Settings of the installation.
        only: Keep only the checks and alerts of this stream.
    """
    found = discover_for(config)
    problems = [f"{name} does not load: {why}" for name, why in found.broken.items()]
    project = dbt_versions.current_if_parsed(config)
    if project.complaint:
        problems.append(project.complaint)
    if project.usable is not None:
        wrong = missing_tags(project.usable.manifest, found.pipelines)
        problems += [f"{found.files[name].name}: {why}" for name, why in wrong.items()]
    book = alerts.notifier(config).state()
    checks: list[Evaluation] | None = None
    failing: list[Pause] = []
    try:
        checks = present_checks(config, book)
        failing = pauses(config)
    except Fatal as error:
        problems.append(str(error))
    others = [one for one in book.open.values() if one.what != "check"]
    if only is not None:
        checks = [c for c in checks if only in c.asset.split("/")] if checks is not None else None
        others = [one for one in others if one.stream == only]
        failing = [one for one in failing if one.job.endswith(f"_{only}")]
    return Health(
        [inspect(one) for one in streams],
        circuits(config.retry_policy),
        checks,
        others,
        problems,
        failing,
        str(config.project.root) if config.project else "",
        look(config),
    )


def present_checks(config: Settings, book: alerts.AlertState) -> list[Evaluation] | None:
    """Read the last evaluation of every check that the code has; None if Dagster has not run here.

    Args:
        config: Settings of the installation.
        book: Names the checks of the code; one that names none leaves all of them in.

    Raises:
        Fatal: Dagster's tables cannot be read.
    """
    checks = last_evaluations(config)
    if checks is None or not book.checks:  # a check that the code no longer has is history
        return checks
    return [check for check in checks if check.key in book.checks]


def inspect(stream: Stream) -> StreamStatus:
    """Inspect one stream. A part that does not answer is a problem of the report, not an exception."""
    problems: list[str] = []
    warnings: list[str] = []
    found: dict[str, object] = {}
    sources: dict[str, int | str] = {}
    for spec in stream.pipeline.sources:
        try:
            backlog = stream.backlog(spec.name)
            sources[spec.name] = backlog.waiting
            problems += backlog.problems
        except HeadraceError as error:
            sources[spec.name] = _state(error)
            problems.append(str(error))
    part, unread = "lake", {}
    try:
        found["lake_version"] = stream.lake.good.open().version
        found["lake_rows"] = sum(stream.lake.good.counts_by_day().values())
        found["rejected_rows"] = sum(stream.lake.rejected.counts_by_day().values())
        found["last_landed"] = last_landed(stream)
        found["set_aside"] = torn_ends(stream)
        rate = reject_rate(stream)
        if not rate.passed:
            said = f"{rate.description}; see 'headrace rejects list {stream.name}'"
            (problems if rate.severity == "error" else warnings).append(said)
        part = "warehouse"
        found["warehouse_rows"] = sum(stream.warehouse_counts().values())
        found["unpublished_versions"] = unpublished_versions(stream)
        stale = stream.stale_days()
        found["touched_days"] = len(stale)
        found["touched_since"] = min((one.since for one in stale), default=None)
        if restored := stream.restored():
            problems.append(restored)
        elif not (equal := verdicts.parity_with_lake(parity(stream))).passed:
            problems.append(f"{equal.description}, or run 'headrace backfill'")
    except HeadraceError as error:
        unread[part] = _state(error)
        if str(error) not in problems:
            problems.append(str(error))
    try:
        found["held"] = waits = held(stream)
        landing = verdicts.acknowledged_events_land(waits, max_behind(stream), datetime.now(UTC))
        if not landing.passed:
            problems.append(landing.description)
    except HeadraceError as error:
        if str(error) not in problems:
            problems.append(str(error))
    return StreamStatus(
        stream.name,
        sources,
        **found,  # type: ignore[arg-type]
        problems=tuple(problems),
        warnings=tuple(warnings),
        unread=unread,
    )


def _state(error: HeadraceError) -> str:
    """Name the state of a service that could not be read."""
    return "away" if isinstance(error, Retriable) else "not set" if isinstance(error, NotSet) else "wrong"


def torn_ends(stream: Stream) -> str:
    """Describe the torn ends of a stream's lake that were set aside after a power cut; empty for none."""
    found = {table.uri: table.set_aside() for table in (stream.lake.good, stream.lake.rejected)}
    count = sum(len(names) for names in found.values())
    if not count:
        return ""
    folders = " and ".join(f"{uri}/{SET_ASIDE}" for uri, names in found.items() if names)
    noun = "a torn commit" if count == 1 else f"{count} torn commits"
    return (
        f"{noun} set aside after a power cut, nobody was told of what they held; delete {folders} to forget"
    )


Line = tuple[str, str, str]  # mark, what, said; mark and what are empty where a line goes on

WELL, WRONG, WARNING = "✓", "✗", "•"


def lines(health: Health, now: datetime | None = None) -> Iterator[Line]:
    """Render the report for a terminal."""
    now = now or datetime.now(UTC)
    if health.project:
        yield "", "project", health.project
    for stream in health.streams:
        said = _of_stream(stream, now)
        yield (WELL if stream.healthy else WRONG, stream.stream, next(said))
        yield from (("", "", one) for one in said)
        yield from ((WRONG, "", problem) for problem in stream.problems)
        yield from ((WARNING, "", warning) for warning in stream.warnings)
    if health.door is not None:
        yield (
            (WELL if health.door.open else WRONG if health.door.expected else WARNING),
            "collector",
            health.door.said,
        )
    yield from _of_checks(health, now)
    yield from _of_runs(health.failing)
    yield from _of_alerts(health.alerts, now)
    yield from _of_services(health.services)
    yield from ((WRONG, "", problem) for problem in health.problems)


def _of_stream(stream: StreamStatus, now: datetime) -> Iterator[str]:
    waiting = (f"{name} {w:,}" if isinstance(w, int) else f"{name} {w}" for name, w in stream.sources.items())
    yield "waiting    " + ", ".join(waiting)
    if stream.lake_version is None:
        yield f"lake       {_unread(stream, 'lake')}"
        return
    landed = f", landed {length(now - stream.last_landed)} ago" if stream.last_landed else ""
    yield (
        f"lake       version {stream.lake_version}, {stream.lake_rows or 0:,} rows, "
        f"{stream.rejected_rows or 0:,} rejected{landed}"
    )
    if stream.held is not None:
        yield f"over HTTP  {_held(stream.held, now)}"
    if stream.set_aside:
        yield f"           {stream.set_aside}"
    if stream.warehouse_rows is None:
        yield f"warehouse  {_unread(stream, 'warehouse')}"
        return
    behind = stream.unpublished_versions
    yield f"warehouse  {stream.warehouse_rows:,} rows, " + (
        f"{behind} versions behind" if behind else "up to date"
    )
    waits = f", the oldest waits for {length(now - stream.touched_since)}" if stream.touched_since else ""
    yield "marts      " + (
        f"{_count(stream.touched_days, 'day')} to refresh{waits}" if stream.touched_days else "up to date"
    )


def _held(found: Held, now: datetime) -> str:
    if found.since is None:
        return "all that was acknowledged is in the lake"
    waits = "1 request waits" if found.entries == 1 else f"{found.entries:,} requests wait"
    return f"{waits} for the lake, the oldest for {length(now - found.since)}"


def _unread(stream: StreamStatus, part: str) -> str:
    how = stream.unread.get(part, "away")
    return how if how == "away" else f"{how}, see below"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _of_checks(health: Health, now: datetime) -> Iterator[Line]:
    if health.checks is None:
        yield "", "checks", "none yet: Dagster has not run here"
        return
    if not health.checks:
        yield "", "checks", "none evaluated yet; 'hourly_health' does, or the job 'health'"
        return
    failed, latest = health.failed, max(check.at for check in health.checks)
    errors = any(check.severity == "error" for check in failed)
    mark = WRONG if errors else WARNING if failed else WELL
    yield (
        mark,
        "checks",
        (
            f"{len(health.checks) - len(failed)} passed, {len(failed)} failed; the last {length(now - latest)} ago"
        ),
    )
    for check in failed[:_SHOWN]:
        said = f": {check.said}" if check.said else ""
        mark = WRONG if check.severity == "error" else WARNING
        yield mark, "", f"{check.name} of {check.asset}, {length(now - check.at)} ago{said}"
    if len(failed) > _SHOWN:
        yield "", "", f"and {len(failed) - _SHOWN} more"


def _of_runs(failing: list[Pause]) -> Iterator[Line]:
    for number, one in enumerate(failing):
        yield WRONG, "" if number else "runs", f"{one.job}{f' ({one.what})' if one.what else ''} {one}"


def _of_alerts(found: list[Problem], now: datetime) -> Iterator[Line]:
    for number, alert in enumerate(found[:_SHOWN]):
        mark = WRONG if alert.severity == "error" else WARNING
        reason = alert.reason.splitlines()[0] if alert.reason else ""
        said = f"{alert.title}, since {length(now - alert.began)}: {reason}"
        yield mark, "" if number else "alerts", said
    if len(found) > _SHOWN:
        yield "", "", f"and {len(found) - _SHOWN} more; see 'headrace alerts list'"


def _of_services(found: list[Circuit]) -> Iterator[Line]:
    troubled = [one for one in found if one.state != "closed" or one.failures]
    if not troubled:
        yield WELL, "services", "none has failed of late"
    for number, one in enumerate(troubled):
        when = f", tried again at {one.next_try:%H:%M:%S} UTC" if one.next_try else ""
        circuit = f"{one.service}: circuit {one.state}, " if one.state != "closed" else f"{one.service}: "
        mark = WRONG if one.state == "open" else WARNING
        yield mark, "" if number else "services", f"{circuit}{one.failures} failures in a row{when}"
