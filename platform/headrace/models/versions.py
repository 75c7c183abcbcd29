"""Versions of the dbt project: models run from the last one that parsed, whatever a person is editing.

Each version is a folder below ``<home>/dbt/versions``, named by the checksum of what it is made of. It holds a copy of
the project with its manifest and the lineage of its columns, or, if dbt refuses it, what is wrong. So ingestion needs
no dbt, a run never reads a file that is being edited, and a project that is repaired is found again. All of it may be
lost: the project is parsed anew then.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headrace.config.settings import Settings, child_environment
from headrace.core.locks import try_lock
from headrace.models import lineage
from headrace.models.messages import Problem, changed_files, understand

if TYPE_CHECKING:
    from headrace.core.batch import Table

log = logging.getLogger(__name__)

#: Versions that stay: runs that began with an older one may still use it.
_KEPT = 5
#: A failure that is not the project's (a full disk, a killed process) is tried again after this, s.
_AGAIN_SECONDS = 60.0
_LEFT_OUT = ("target", "logs", "__pycache__", ".*", "*~", "#*", "*.swp", "*.tmp")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the project that dbt has parsed."""

    id: str
    folder: Path

    @property
    def project(self) -> Path:
        """The copy of the project, for dbt to run in."""
        return self.folder / "dbt_project"

    @property
    def manifest(self) -> Path:
        """Its manifest, with the lineage of the columns beside it."""
        return self.folder / "manifest.json"


@dataclass(frozen=True, slots=True)
class Project:
    """The project as it can be used now.

    Attributes:
        usable: The version to run: what is on disk, or the last one before it that parsed. None if there is none.
        problem: Why that is not what is on disk.
    """

    usable: Version | None
    problem: Problem | None = None

    @property
    def complaint(self) -> str:
        """The problem with what it means, in one line; empty if there is none."""
        if self.problem is None:
            return ""
        means = (
            "models go on as of the last version that was good"
            if self.usable
            else "there are no models until it is repaired; ingestion goes on"
        )
        return f"{self.problem}; {means}"


class _Failure(msgspec.Struct):
    """Why a version cannot be used; ``lasting`` if the same files will be refused again."""

    said: str
    file: str
    line: int | None
    at: float
    lasting: bool

    @property
    def problem(self) -> Problem:
        return Problem(self.said, self.file, self.line)


def dbt_folder(settings: Settings) -> Path:
    """The dbt project as people edit it."""
    return settings.project_dir / "dbt_project"


def target_folder(settings: Settings) -> Path:
    """Where dbt writes; never into the project."""
    return settings.home / "dbt" / "target"


def variables(settings: Settings) -> list[str]:
    """dbt's ``--vars`` of this installation: the same for each invocation.

    dbt parses the whole project anew when its vars are not those of the last time, which costs seconds; hence the
    days of a build are environment variables, see ``models.building``.
    """
    names = ("window_time", "window_seconds", "slow_ms", "lateness_seconds", "speed_days")
    return ["--vars", json.dumps({name: getattr(settings, name) for name in names})]


def current(settings: Settings) -> Project:
    """The project as it can be used now; parses what is on disk if nobody has. Never raises for what is in it."""
    try:
        found = digest(settings)
    except OSError as error:
        return _fallback(settings, _unreadable(error, settings))
    if found is None:
        why = f"there is no dbt project in {dbt_folder(settings)}; set HEADRACE_PROJECT_DIR to the checkout"
        return _fallback(settings, Problem(why))
    if known := _known(settings, found):
        return known
    with try_lock(settings.home / "locks" / "dbt-parse.lock", settings.parse_seconds) as alone:
        if known := _known(settings, found):
            return known
        if not alone:
            return _fallback(
                settings, Problem("another process has been parsing the dbt project for too long")
            )
        try:
            return _parse(settings)
        except OSError as error:
            return _fallback(settings, _unreadable(error, settings))


def known(settings: Settings) -> Project:
    """The same for those who only look: a home in which nothing was parsed yet is left so."""
    if not _versions(settings).is_dir():
        return Project(None)
    return current(settings)


def refuse(settings: Settings, version: Version, why: str) -> Project:
    """Note that a version which dbt has parsed cannot be used, and give what can."""
    before = _last(settings, but=version.id)
    changed = changed_files(_checksums(before.project), _checksums(version.project)) if before else ()
    problem = understand(why, version.project, changed)
    _note(version.folder, problem, lasting=True)
    return _fallback(settings, problem)


def digest(settings: Settings) -> str | None:
    """Checksum of all that the manifest is made of; None if there is no project.

    Raises:
        OSError: A file cannot be read.
    """
    folder = dbt_folder(settings)
    if not folder.is_dir():
        return None
    found = _checksums(folder)
    return _identity(found, settings) if found else None


def _identity(checksums: list[tuple[str, str]], settings: Settings) -> str:
    made_of = [
        checksums,
        variables(settings),
        [settings.raw_database, settings.dbt_schema, settings.warehouse_cluster],
        [installed("dbt-core"), installed("dbt-clickhouse")],
    ]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _checksums(project: Path) -> list[tuple[str, str]]:
    return [
        (path.relative_to(project).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(files(project))
    ]


def files(project: Path) -> Iterator[Path]:
    """What a project is made of: not what dbt, editors and systems leave in it."""
    ignored = shutil.ignore_patterns(*_LEFT_OUT)
    for folder, folders, names in os.walk(project):
        out = ignored(folder, [*folders, *names])
        folders[:] = [name for name in folders if name not in out]
        yield from (Path(folder, name) for name in names if name not in out)


def _versions(settings: Settings) -> Path:
    return settings.home / "dbt" / "versions"


def _known(settings: Settings, found: str) -> Project | None:
    """What is known of a version already; None if it has to be parsed."""
    version = Version(found, _versions(settings) / found)
    failure = _failure(version.folder)
    if failure is None:
        if not version.manifest.exists():
            return None
        version.folder.touch()  # the last good one is the one that was used last
        return Project(version)
    if not failure.lasting and time.time() - failure.at > _AGAIN_SECONDS:
        return None
    return _fallback(settings, failure.problem)


def _fallback(settings: Settings, problem: Problem) -> Project:
    return Project(_last(settings), problem)


def _last(settings: Settings, but: str = "") -> Version | None:
    """The version that was used last among those that are good."""
    with contextlib.suppress(FileNotFoundError):
        folders = sorted(_versions(settings).iterdir(), key=lambda one: one.stat().st_mtime, reverse=True)
        for folder in folders:
            version = Version(folder.name, folder)
            if folder.name != but and version.manifest.exists() and _failure(folder) is None:
                return version
    return None


def _failure(folder: Path) -> _Failure | None:
    try:
        return msgspec.json.decode((folder / "problem.json").read_bytes(), type=_Failure)
    except (OSError, msgspec.MsgspecError):
        return None


def _note(folder: Path, problem: Problem, *, lasting: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"problem.json.{os.getpid()}"
    failure = _Failure(problem.said, problem.file, problem.line, time.time(), lasting)
    fresh.write_bytes(msgspec.json.encode(failure))
    fresh.replace(folder / "problem.json")


def _unreadable(error: OSError, settings: Settings) -> Problem:
    file = str(error.filename or dbt_folder(settings))
    named = (
        Path(file).relative_to(settings.project_dir) if file.startswith(str(settings.project_dir)) else file
    )
    return Problem(f"it cannot be read or copied: {error.strerror or error}", str(named))


def _parse(settings: Settings) -> Project:
    """Copy the project, and have dbt parse the copy: what is edited meanwhile is another version.

    Raises:
        OSError: A file cannot be read, or the disk is full.
    """
    root = _versions(settings)
    copy = Version("", root / f"new-{os.getpid()}")
    shutil.rmtree(copy.folder, ignore_errors=True)
    try:
        shutil.copytree(dbt_folder(settings), copy.project, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        made_of = _checksums(copy.project)
        found = _identity(made_of, settings)
        version = Version(found, root / found)
        if known := _known(settings, found):
            return known
        before = _last(settings)
        changed = changed_files(_checksums(before.project), made_of) if before else frozenset()
        if failure := _compile(copy, settings, changed):
            _note(version.folder, failure.problem, lasting=failure.lasting)
            _tidy(settings)
            return _fallback(settings, failure.problem)
        shutil.copyfile(target_folder(settings) / "manifest.json", copy.manifest)
        _follow(copy, settings)
        shutil.rmtree(version.folder, ignore_errors=True)  # a failure that was none of the project's
        copy.folder.rename(version.folder)
        _tidy(settings)
        return Project(version)
    except shutil.Error as error:  # copytree tells all that it could not copy at once
        name, _, why = error.args[0][0]
        raise OSError(0, str(why).partition("] ")[2] or str(why), name) from None
    finally:
        shutil.rmtree(copy.folder, ignore_errors=True)


def _tidy(settings: Settings) -> None:
    """Remove all but the versions that were used last; good ones and others apart."""
    good: list[Path] = []
    bad: list[Path] = []
    for folder in sorted(_versions(settings).iterdir(), key=lambda one: one.stat().st_mtime, reverse=True):
        if not folder.name.startswith("new-"):
            (bad if _failure(folder) else good).append(folder)
    for folder in [*good[_KEPT:], *bad[_KEPT:]]:
        shutil.rmtree(folder, ignore_errors=True)


def _compile(copy: Version, settings: Settings, changed: frozenset[str]) -> _Failure | None:
    """Parse a project and render its models; asks no warehouse, which need not be there yet."""
    settings.export()
    try:
        done = _dbt(copy, settings)
        if done.returncode in (
            1,
            2,
        ):  # where dbt reads only what has changed, it may blame another file, or fail
            done = _dbt(copy, settings, "--no-partial-parse")
    except subprocess.TimeoutExpired:
        said = (
            f"dbt did not parse the project within {settings.parse_seconds:g} s and was stopped; look for a loop in "
            "Jinja, or raise HEADRACE_PARSE_SECONDS"
        )
        return _failed(understand(said, copy.project, changed), lasting=True)
    if not done.returncode:
        return None
    said = (done.stdout + done.stderr).strip()
    own_fault = done.returncode in (1, 2) and "Error" in said and "[Errno " not in said
    if done.returncode < 0:
        said = f"dbt was ended by signal {-done.returncode} while it parsed the project"
    return _failed(understand(said, copy.project, changed), lasting=own_fault)


def _dbt(copy: Version, settings: Settings, *options: str) -> subprocess.CompletedProcess[str]:
    target = target_folder(settings)
    target.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "dbt.cli.main"]
    command += ["--quiet", "--no-use-colors", *options, "--log-path", str(target), "compile"]
    command += ["--no-introspect", "--no-populate-cache", "--select", "resource_type:model"]
    command += ["--project-dir", str(copy.project), "--profiles-dir", str(copy.project)]
    command += ["--target-path", str(target), *variables(settings)]
    return subprocess.run(
        command, capture_output=True, text=True, env=child_environment(), check=False,
        timeout=settings.parse_seconds,
    )  # fmt: skip


def _failed(problem: Problem, *, lasting: bool) -> _Failure:
    return _Failure(problem.said, problem.file, problem.line, time.time(), lasting)


def _follow(copy: Version, settings: Settings) -> None:
    """Work out the lineage of the columns; a project of which it cannot be found has none."""
    try:
        lineage.write_beside(copy.manifest, _raw_tables(settings))
    except subprocess.CalledProcessError as error:
        log.warning("no lineage of columns: %s", error)
        copy.manifest.with_name(lineage.FILE).write_text("{}")


def _raw_tables(settings: Settings) -> list[Table]:
    from headrace.pipelines import discover

    pipelines = discover(*settings.pipeline_folders, seconds=settings.pipeline_seconds).pipelines.values()
    return [table for pipeline in pipelines for table in pipeline.tables]
