"""What could be wrong with an installation, and what to do about it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from headrace import alerts
from headrace.clients.postgres import described
from headrace.clients.s3 import require_bucket
from headrace.config.settings import Settings, load_settings
from headrace.config.stack_env import Damaged
from headrace.core.errors import BadData, HeadraceError
from headrace.core.guard import Guard
from headrace.health.freshness import unpublished_versions
from headrace.health.status import torn_ends
from headrace.models import versions as dbt_versions
from headrace.models.project import untagged
from headrace.pipelines import discover
from headrace.streams.stream import Stream, streams
from headrace.warehouse.clickhouse import ClickHouse

_ENOUGH_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    said: str


def examine() -> list[Finding]:
    """Look at everything; what fails does not keep the rest from being looked at."""
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
    return [
        Finding("settings", True, f"home {config.home}"),
        *damaged,
        _python(),
        _disk(config.home),
        *_pipelines(config),
        _dbt(config),
        _tried("alerts", lambda: _alerts(config)),
        *_dagster(config),
        _migrations(config),
        *_services(config),
    ]


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding(
        "Python", ok, f"{sys.version.split()[0]}" + ("" if ok else "; Headrace needs 3.11 to 3.13")
    )


def _disk(home: Path) -> Finding:
    existing = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    said = f"{free / 2**30:,.1f} GB free in {existing}"
    return Finding(
        "disk", free >= _ENOUGH_BYTES, said if free >= _ENOUGH_BYTES else f"only {said}: free some"
    )


def _pipelines(config: Settings) -> Iterator[Finding]:
    found = discover(*config.pipeline_folders, seconds=config.pipeline_seconds)
    yield Finding("pipelines", bool(found.pipelines), ", ".join(found.pipelines) or "none found")
    for name, why in found.broken.items():
        yield Finding(name, False, why)


def _dbt(config: Settings) -> Finding:
    project = dbt_versions.current(config)
    said = [project.complaint] if project.problem else []
    if project.usable is not None:
        found = discover(*config.pipeline_folders, seconds=config.pipeline_seconds)
        wrong = untagged(project.usable.manifest, found.pipelines)
        said += [f"{found.files[name].name}: {why}" for name, why in wrong.items()]
    good = f"version {project.usable.id} parses" if project.usable else "there is none"
    return Finding("dbt project", not said, "; ".join(said) or good)


def _alerts(config: Settings) -> str:
    alerts.verify(config)
    channels = ", ".join(one.label for one in alerts.addresses(config))
    return channels or "to the log alone; set HEADRACE_ALERTS for more"


def _dagster(config: Settings) -> Iterator[Finding]:
    """Where Dagster keeps its records, as far as that is not a folder."""
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


def _migrations(config: Settings) -> Finding:
    try:
        warehouse = ClickHouse(
            config.with_warehouse(), Guard("warehouse", config.retry_policy.without_retries())
        )
    except HeadraceError as error:
        return Finding("migrations", False, str(error))
    try:
        found = warehouse.migrations.status()
    except HeadraceError as error:
        return Finding("migrations", False, str(error))
    finally:
        warehouse.close()
    wrong = [one for one in found if one.refused or one.state == "failed"]
    if wrong:
        return Finding("migrations", False, f"{wrong[0].name} {wrong[0].state}: {wrong[0].said}")
    waiting = [one.name for one in found if one.to_do]
    if waiting:
        return Finding("migrations", True, f"{', '.join(waiting)} pending; run by whatever publishes first")
    return Finding("migrations", True, f"all {len(found)} applied")


def _services(config: Settings) -> Iterator[Finding]:
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
