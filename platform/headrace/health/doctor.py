"""Examine an installation: find what is wrong with it, and say what to do.

A probe looks at one part and gives findings. ``PROBES`` has all of them, in the order in which they are shown.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from headrace import alerts
from headrace.clients.postgres import described
from headrace.clients.s3 import require_bucket
from headrace.config.project import FILE
from headrace.config.settings import Settings, load_settings
from headrace.config.shipped import checkout
from headrace.config.stack_env import Damaged
from headrace.core.errors import BadData, HeadraceError
from headrace.core.guard import Guard
from headrace.health import door
from headrace.health.freshness import unpublished_versions
from headrace.health.status import torn_ends
from headrace.models import sources
from headrace.models import versions as dbt_versions
from headrace.models.project import missing_tags
from headrace.pipelines import discover_for
from headrace.streams.adapters import warehouse as adapter
from headrace.streams.stream import Stream, streams
from headrace.warehouse.lease import LEASES_SINCE

_ENOUGH_BYTES = 2 << 30
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Finding:
    """Outcome of one look.

    Attributes:
        what: The part that was looked at.
        ok: Whether it is well.
        said: What was found, and the next step where it is not well.
    """

    what: str
    ok: bool
    said: str


#: Looks at one part of an installation.
Probe = Callable[[Settings], Iterator[Finding]]


def examine(probes: Sequence[Probe] | None = None) -> list[Finding]:
    """Run the probes. A part that is broken does not keep the others from being looked at.

    Args:
        probes: Probes to run; all of them by default.
    """
    damaged: list[Finding] = []
    try:
        config = load_settings()
    except Damaged as error:  # all but the services of the stack can be looked at without it
        damaged = [Finding("stack.env", False, str(error))]
    except HeadraceError as error:
        return [Finding("settings", False, str(error))]
    if damaged:
        try:
            config = load_settings(with_stack=False)
        except HeadraceError as error:
            return [*damaged, Finding("settings", False, str(error))]
    found = [Finding("settings", True, f"home {config.home}"), *_project(config), *damaged]
    for probe in PROBES if probes is None else probes:
        found += probe(config)
    return found


def _project(config: Settings) -> Iterator[Finding]:
    """Name the user's project, or say that this is none."""
    if config.project is not None:
        yield Finding("project", True, str(config.project.root))
    elif checkout() is None:
        yield Finding(
            "project", True, f"none: there is no {FILE} here or above; 'headrace init DIR' makes one"
        )


def python(_: Settings) -> Iterator[Finding]:
    """Look at the version of Python."""
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding("Python", ok, f"{sys.version.split()[0]}" + ("" if ok else "; Headrace needs 3.11 to 3.13"))


def disk(config: Settings) -> Iterator[Finding]:
    """Look at the free room on each disk that holds the home folder, the lake or the archive."""
    seen: set[int] = set()
    for what, uri in (
        ("", str(config.home)),
        (" of the lake", config.lake),
        (" of the archive", config.archive_uri),
    ):
        if "://" in uri:
            continue
        existing = next(p for p in (Path(uri), *Path(uri).parents) if p.exists())
        if existing.stat().st_dev in seen:
            continue
        seen.add(existing.stat().st_dev)
        free = shutil.disk_usage(existing).free
        said = f"{free / 2**30:,.1f} GB free in {existing}"
        enough = free >= _ENOUGH_BYTES
        yield Finding(f"disk{what}", enough, said if enough else f"only {said}: free some")


def pipelines(config: Settings) -> Iterator[Finding]:
    """Look for pipelines, and for files that do not load."""
    found = discover_for(config)
    yield Finding("pipelines", bool(found.pipelines), ", ".join(found.pipelines) or "none found")
    for name, why in found.broken.items():
        yield Finding(name, False, why)


def dbt_project(config: Settings) -> Iterator[Finding]:
    """Look at the dbt project: whether it parses, and whether its tags are those of the pipelines."""
    project = dbt_versions.current(config)
    said = [project.complaint] if project.problem else []
    if project.usable is not None:
        found = discover_for(config)
        wrong = missing_tags(project.usable.manifest, found.pipelines)
        said += [f"{found.files[name].name}: {why}" for name, why in wrong.items()]
    good = f"version {project.usable.id} parses" if project.usable else "there is none"
    yield Finding("dbt project", not said, "; ".join(said) or good)


def dbt_sources(config: Settings) -> Iterator[Finding]:
    """Look, in a project, whether dbt's sources are as the contracts of its streams."""
    if config.project is not None:
        yield _tried("dbt sources", lambda: _sources(config))


def _sources(config: Settings) -> str:
    found = discover_for(config)
    stale = sources.compare(dbt_versions.dbt_folder(config), found)
    if stale:
        said = ", ".join(f"{one.path.relative_to(config.project_dir)} is {one.why}" for one in stale)
        raise BadData(f"{said}; run '{sources.COMMAND}'")
    return f"as the contracts of {', '.join(sources.own_streams(found)) or 'no stream yet'}"


def alert_channels(config: Settings) -> Iterator[Finding]:
    """Look at the addresses of the alert channels."""
    yield _tried("alerts", lambda: _channels(config))


def _channels(config: Settings) -> str:
    alerts.verify(config)
    channels = ", ".join(one.label for one in alerts.addresses(config))
    return channels or "to the log alone; set HEADRACE_ALERTS for more"


def dagster_storage(config: Settings) -> Iterator[Finding]:
    """Look at Dagster's storage, unless it is a folder."""
    if config.dagster_postgres or config.compute_logs:
        yield _tried("Dagster's storage", lambda: _storage(config))
        yield _tried("compute logs", lambda: _compute_logs(config))


def _storage(config: Settings) -> str:
    if config.dagster_postgres is None:
        return "in SQLite, below DAGSTER_HOME"
    return f"in Postgres, {described(config.dagster_postgres.get_secret_value())}"


def _compute_logs(config: Settings) -> str:
    bucket = urlsplit(config.compute_logs).netloc
    if not bucket:
        return "below DAGSTER_HOME"
    require_bucket(bucket, "HEADRACE_COMPUTE_LOGS")
    return f"on S3, in bucket {bucket!r}"


def machines(config: Settings) -> Iterator[Finding]:
    """Look, where several machines run this installation, for what would let two of them disagree."""
    if not config.several_machines:
        return
    wrong = list(_of_one_machine(config))
    if not wrong:
        yield _tried("several machines", lambda: _leases(config))
    for said in wrong:
        yield Finding("several machines", False, said)


def _of_one_machine(config: Settings) -> Iterator[str]:
    """Name the settings whose value is another thing on another machine."""
    if config.dagster_postgres is None:
        yield (
            "HEADRACE_DAGSTER_POSTGRES is not set, so each machine has runs, schedules and limits of its own; set it to"
            " one database, or HEADRACE_MACHINES to one"
        )
    if "://" not in config.lake:
        yield (
            f"HEADRACE_LAKE_URI is the folder {config.lake}, so each machine has a lake of its own; set it to s3://...,"
            " or HEADRACE_MACHINES to one"
        )
    if config.clickhouse_host in _LOOPBACK:
        yield (
            f"HEADRACE_CLICKHOUSE_HOST is {config.clickhouse_host}, which is another server on each machine; set it to"
            " one that all of them reach, or HEADRACE_MACHINES to one"
        )
    if config.warehouse_cluster:
        yield (
            f"HEADRACE_WAREHOUSE_CLUSTER is {config.warehouse_cluster}: on a cluster there is no lease that keeps"
            " publishers of two machines apart; publish from one machine and set HEADRACE_MACHINES to one there, or use"
            " one server"
        )


def _leases(config: Settings) -> str:
    warehouse = adapter(config, Guard("warehouse", config.retry_policy.without_retries()))
    try:
        [(version, doors)] = warehouse.query(
            "SELECT version(), (SELECT count() FROM system.table_engines WHERE name = 'Alias')"
        )
    finally:
        warehouse.close()
    if not doors or tuple(map(int, str(version).split(".")[:2])) < LEASES_SINCE:
        since = ".".join(map(str, LEASES_SINCE))
        raise BadData(
            f"ClickHouse {version} has no leases that keep publishers of two machines apart; update it to {since} or"
            " later, or set HEADRACE_MACHINES to one"
        )
    return f"kept apart by leases in ClickHouse {version}"


def migrations(config: Settings) -> Iterator[Finding]:
    """Look for migrations of the warehouse that failed, were refused or are pending."""
    yield _tried("migrations", lambda: _migrated(config))


def _migrated(config: Settings) -> str:
    warehouse = adapter(config, Guard("warehouse", config.retry_policy.without_retries()))
    try:
        found = warehouse.migrations.status()
    finally:
        warehouse.close()
    wrong = [one for one in found if one.refused or one.state == "failed"]
    if wrong:
        raise BadData(f"{wrong[0].name} {wrong[0].state}: {wrong[0].said}")
    waiting = [one.name for one in found if one.to_do]
    if waiting:
        return f"{', '.join(waiting)} pending; run by whatever publishes first"
    return f"all {len(found)} applied"


def collector(config: Settings) -> Iterator[Finding]:
    """Ask the collector whether it takes events, where one is to run or has run with this home folder."""
    if found := door.look(config):
        yield Finding("collector", found.well, found.said)


def services(config: Settings) -> Iterator[Finding]:
    """Look at every stream's sources, lake and warehouse."""
    for stream in streams(config, retry=False).values():
        for spec in stream.pipeline.sources:
            yield _tried(spec.name, partial(_waiting, stream, spec.name))
        yield _tried(f"lake of {stream.name}", partial(_lake, stream))
        yield _tried(f"warehouse of {stream.name}", partial(_behind, stream))
        stream.close()


def _behind(stream: Stream) -> str:
    return f"{unpublished_versions(stream)} versions behind"


def _lake(stream: Stream) -> str:
    version = stream.lake.good.open().version
    torn = torn_ends(stream)
    return f"version {version}" + (f"; {torn}" if torn else "")


def _waiting(stream: Stream, source: str) -> str:
    backlog = stream.backlog(source)
    if backlog.problems:
        raise BadData("; ".join(backlog.problems))
    return f"{backlog.waiting:,} messages wait"


def _tried(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except HeadraceError as error:
        return Finding(what, False, str(error))


PROBES: tuple[Probe, ...] = (
    python,
    disk,
    pipelines,
    dbt_project,
    dbt_sources,
    alert_channels,
    dagster_storage,
    machines,
    migrations,
    collector,
    services,
)
