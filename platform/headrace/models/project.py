"""Read the dbt project's manifest, and build its models."""

from __future__ import annotations

import difflib
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.config.settings import Settings, child_environment, exported
from headrace.core.errors import Fatal
from headrace.core.locks import file_lock
from headrace.models import versions as dbt_versions
from headrace.models.versions import GLOBAL_OPTIONS, Version, profile, target_folder, variables

if TYPE_CHECKING:
    from headrace.pipelines import Pipeline


def manifest(settings: Settings) -> Path:
    """Return the path of the manifest of the usable version; see ``models.versions``.

    Raises:
        Fatal: The project does not parse and never did. The message holds dbt's reason, with file and line.
    """
    return usable(settings).manifest


def usable(settings: Settings) -> Version:
    """Return the version of the project to run.

    Raises:
        Fatal: There is none.
    """
    project = dbt_versions.current(settings)
    if project.usable is None:
        raise Fatal(f"the dbt project cannot be used: {project.problem}")
    return project.usable


def read(path: Path) -> dict[str, Any]:
    """Return a manifest's content, which must not be changed. It is read again only when the file changes."""
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read(path: Path, _written: int) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


#: Packages of macros that come with dbt itself.
_DBTS = ("dbt", "dbt_clickhouse")


def views_version(path: Path, settings: Settings) -> str:
    """Return the checksum of everything that is deployed once, so that a changed view is deployed again.

    It covers the models, their compiled SQL (which contains the project's vars) and the macros.
    """
    manifest = read(path)
    views = [
        f"{n['unique_id']}:{n['checksum']['checksum']}:{n.get('compiled_code')}"
        for n in manifest["nodes"].values()
        if n["resource_type"] == "model" and "daily" not in n["tags"]
    ]
    macros = [m["macro_sql"] for m in manifest["macros"].values() if m["package_name"] not in _DBTS]
    made_of = [*sorted(views), *sorted(macros), *variables(settings)]
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]


def reach(path: Path, pipeline: Pipeline) -> tuple[int, int]:
    """Return how many days before and after a changed day a stream's marts change, too.

    Each model declares them in its yml (``meta: days_back, days_ahead``). No other code knows them.
    """
    nodes = read(path)["nodes"].values()
    metas = [
        n["config"]["meta"] for n in nodes if n["resource_type"] == "model" and pipeline.models in n["tags"]
    ]
    back = max((int(m.get("days_back", 0)) for m in metas), default=0)
    ahead = max((int(m.get("days_ahead", 0)) for m in metas), default=0)
    return back, ahead


def missing_tags(path: Path, pipelines: Mapping[str, Pipeline]) -> dict[str, str]:
    """Return, by stream, the problem of a pipeline whose ``models`` names a tag that no dbt model has."""
    nodes = read(path)["nodes"].values()
    tags = sorted({tag for node in nodes if node["resource_type"] == "model" for tag in node["tags"]})
    wrong = {}
    for name, one in pipelines.items():
        if one.models is not None and one.models not in tags:
            near = difflib.get_close_matches(one.models, tags, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(tags)}"
            wrong[name] = f"no dbt model has the tag {one.models!r}, which models= names; {hint}"
    return wrong


def build(
    settings: Settings, pipeline: Pipeline, first: date, last: date, *, marts_only: bool = False
) -> None:
    """Build and test a stream's models, with its marts for the days from ``first`` to ``last``.

    Args:
        settings: Settings of this installation.
        pipeline: The stream.
        first: First UTC day.
        last: Last UTC day.
        marts_only: Skip the marts' parents, as an asset run does, because they are deployed already.

    Raises:
        Fatal: A model or a test failed. The message holds dbt's output.
    """
    chosen = f"tag:daily,tag:{pipeline.models}" if marts_only else f"+tag:{pipeline.models}"
    command = ["build", "--select", chosen, "--indirect-selection", "cautious"]
    command += ["--exclude-resource-type", "unit_test"]
    usable(settings)  # parsed for any day, before there are days
    with build_days((first, last)):
        _run(command, f"the models of {pipeline.name} for {first} to {last} failed", settings, pipeline)


def unit_test(settings: Settings, pipeline: Pipeline) -> None:
    """Run the unit tests of a stream's models, whose days are any. The models must have been built before.

    Raises:
        Fatal: A test failed. The message holds dbt's output.
    """
    command = ["test", "--select", f"+tag:{pipeline.models},test_type:unit"]
    _run(command, f"unit tests of the models of {pipeline.name} failed", settings, pipeline)


def _run(arguments: list[str], failed: str, settings: Settings, pipeline: Pipeline) -> None:
    version = usable(settings)
    target = target_folder(settings).with_name(f"{pipeline.name}-by-hand")
    command = [sys.executable, "-W", "ignore", "-m", "dbt.cli.main"]
    command += ["--quiet", *GLOBAL_OPTIONS, "--log-path", str(target), *arguments]
    command += ["--project-dir", str(version.project), *profile(version), "--target-path", str(target)]
    command += variables(settings)
    settings.export()
    share_parsing(settings, target)
    with build_lock(settings, pipeline):
        done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise Fatal(f"{failed}: " + " ".join(said[-12:]))


def share_parsing(settings: Settings, target: Path) -> None:
    """Copy dbt's last parsing to another target folder, unless that has a newer one.

    dbt parses the whole project again when its profile has changed, for example to another port of the warehouse.
    """
    known, own = (folder / "partial_parse.msgpack" for folder in (target_folder(settings), target))
    if known.exists() and not (own.exists() and own.stat().st_mtime >= known.stat().st_mtime):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(known, own)


def build_lock(settings: Settings, pipeline: Pipeline) -> AbstractContextManager[None]:
    """Lock the marts of this stream against other builds on this machine."""
    lock = settings.home / "locks" / f"models-{pipeline.name}.lock"
    return file_lock(lock, f"building the models of {pipeline.name}", settings.lock_patience)


def build_days(days: Sequence[date], arriving: Iterable[date] = ()) -> AbstractContextManager[None]:
    """Set the days that dbt processes started in this block build (see ``rebuilt_days.sql``).

    Args:
        days: Days to build; only the first and the last count.
        arriving: Days with rows on their way to the warehouse (see ``arriving.sql``).
    """
    return exported(
        {
            "DBT_START_DATE": min(days).isoformat(),
            "DBT_END_DATE": max(days).isoformat(),
            "DBT_ARRIVING_DAYS": ",".join(day.isoformat() for day in sorted(arriving)),
        }
    )
