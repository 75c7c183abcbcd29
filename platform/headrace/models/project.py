"""The dbt project as data: its manifest, what that says, and building it. Nothing here imports Dagster."""

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
from headrace.models.versions import Version, target_folder, variables

if TYPE_CHECKING:
    from headrace.pipelines import Pipeline


def manifest(settings: Settings) -> Path:
    """Path of the manifest of the project as it can be used now, see ``dbt_versions``.

    Raises:
        Fatal: The project does not parse and never did; the message holds what dbt says, with file and line.
    """
    return usable(settings).manifest


def usable(settings: Settings) -> Version:
    """The version of the project to run.

    Raises:
        Fatal: There is none.
    """
    project = dbt_versions.current(settings)
    if project.usable is None:
        raise Fatal(f"the dbt project cannot be used: {project.problem}")
    return project.usable


def read(path: Path) -> dict[str, Any]:
    """The content of a manifest; not to be changed. Read once for as long as the file stays as it is."""
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read(path: Path, _written: int) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


def views_version(path: Path, settings: Settings) -> str:
    """Checksum over what is deployed once, so that a changed view is deployed again.

    Over the models, the SQL that they become (vars of the project are in there) and the macros they are made with.
    """
    manifest = read(path)
    views = [
        f"{n['unique_id']}:{n['checksum']['checksum']}:{n.get('compiled_code')}"
        for n in manifest["nodes"].values()
        if n["resource_type"] == "model" and "daily" not in n["tags"]
    ]
    macros = [m["macro_sql"] for m in manifest["macros"].values() if m["package_name"] == "headrace"]
    made_of = [*sorted(views), *sorted(macros), *variables(settings)]
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]


def reach(path: Path, pipeline: Pipeline) -> tuple[int, int]:
    """How many days before and after a changed day the marts of a stream change too.

    Each model declares it in its yml (``meta: days_back, days_ahead``), and nobody else does.
    """
    nodes = read(path)["nodes"].values()
    metas = [
        n["config"]["meta"] for n in nodes if n["resource_type"] == "model" and pipeline.models in n["tags"]
    ]
    back = max((int(m.get("days_back", 0)) for m in metas), default=0)
    ahead = max((int(m.get("days_ahead", 0)) for m in metas), default=0)
    return back, ahead


def untagged(path: Path, pipelines: Mapping[str, Pipeline]) -> dict[str, str]:
    """What is wrong with ``models`` of a pipeline, by stream: a tag that no dbt model has."""
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
    """Build a stream's models and test them, the marts for the days from ``first`` to ``last``.

    Args:
        settings: Of this installation.
        pipeline: The stream.
        first: First UTC day.
        last: Last UTC day.
        marts_only: Leave out what the marts are made of, as an asset run does: it is deployed already.

    Raises:
        Fatal: A model or a test failed; the message holds what dbt says.
    """
    project = usable(settings).project
    target = target_folder(settings).with_name(f"{pipeline.name}-by-hand")
    command = [sys.executable, "-m", "dbt.cli.main", "--quiet", "--no-use-colors", "--log-path", str(target)]
    chosen = f"tag:daily,tag:{pipeline.models}" if marts_only else f"+tag:{pipeline.models}"
    command += ["build", "--select", chosen, "--indirect-selection", "cautious"]
    command += ["--exclude-resource-type", "unit_test"]
    command += ["--project-dir", str(project), "--profiles-dir", str(project), "--target-path", str(target)]
    command += variables(settings)
    settings.export()
    share_parsing(settings, target)
    with alone(settings, pipeline), building((first, last)):
        done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise Fatal(f"the models of {pipeline.name} for {first} to {last} failed: " + " ".join(said[-12:]))


def share_parsing(settings: Settings, target: Path) -> None:
    """Bring what dbt parsed last into another target folder, if that holds something older or nothing.

    dbt parses the whole project anew where its profile changed, and a warehouse on another port is such a change.
    """
    known, own = (folder / "partial_parse.msgpack" for folder in (target_folder(settings), target))
    if known.exists() and not (own.exists() and own.stat().st_mtime >= known.stat().st_mtime):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(known, own)


def alone(settings: Settings, pipeline: Pipeline) -> AbstractContextManager[None]:
    """While entered, nobody else on this machine builds the marts of this stream."""
    lock = settings.home / "locks" / f"models-{pipeline.name}.lock"
    return file_lock(lock, f"building the models of {pipeline.name}", settings.lock_patience)


def building(days: Sequence[date], arriving: Iterable[date] = ()) -> AbstractContextManager[None]:
    """While entered, dbt processes that are started build these days (see ``rebuilt_days.sql``).

    Args:
        days: The first and the last of them count.
        arriving: Days of which rows are on their way to the warehouse (see ``arriving.sql``).
    """
    return exported(
        {
            "DBT_START_DATE": min(days).isoformat(),
            "DBT_END_DATE": max(days).isoformat(),
            "DBT_ARRIVING_DAYS": ",".join(day.isoformat() for day in sorted(arriving)),
        }
    )
