"""Keep versions of the dbt project: models run from the last one that parsed, whatever is being edited.

A version is a folder below ``<home>/dbt/versions``, named by the checksum of its content. It holds a copy of the
project with manifest and column lineage, or dbt's reason to refuse it. So ingestion does not depend on dbt, a run
never reads a file that is being edited, and a repaired project is recognised. All versions may be lost: the project is
then parsed again.
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
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headrace.config.settings import Settings, child_environment
from headrace.config.shipped import DBT
from headrace.core.locks import try_lock
from headrace.models import composition, lineage
from headrace.models.composition import checksums, dbt_folder, files
from headrace.models.dbt_errors import ProjectProblem, changed_files, explain

if TYPE_CHECKING:
    from headrace.core.batch import Table

__all__ = [
    "GLOBAL_OPTIONS",
    "Project",
    "Version",
    "current",
    "current_if_parsed",
    "dbt_folder",
    "files",
    "last_parsed",
    "profile",
    "refuse",
    "target_folder",
    "variables",
]
log = logging.getLogger(__name__)

#: Versions to keep. Runs that began with an older one may still use it.
_KEPT = 5
#: Retry interval after a failure whose cause is not the project (a full disk, a killed process), s.
_AGAIN_SECONDS = 60.0
#: Variables with the days of a build (``project.build_days``).
_DAYS = frozenset({"DBT_START_DATE", "DBT_END_DATE", "DBT_ARRIVING_DAYS"})
#: Options of every dbt command, which a project of the user's own may set otherwise.
GLOBAL_OPTIONS = ("--no-use-colors", "--no-send-anonymous-usage-stats")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the project that dbt has parsed."""

    id: str
    folder: Path

    @property
    def project(self) -> Path:
        """Copy of the project in which dbt runs: the user's own, or Headrace's."""
        own = self.folder / "dbt"
        return own if own.is_dir() else self.folder / DBT

    @property
    def profiles(self) -> Path:
        """Folder of the profile, which is Headrace's in any project."""
        package = self.project / composition.PACKAGE
        return package if package.is_dir() else self.project

    @property
    def manifest(self) -> Path:
        """Manifest of the version. The lineage of its columns lies beside it."""
        return self.folder / "manifest.json"


@dataclass(frozen=True, slots=True)
class Project:
    """The project as it can be used now.

    Attributes:
        usable: Version to run: the project on disk, or the last version before it that parsed. None if there is none.
        problem: Why the project on disk cannot be used.
    """

    usable: Version | None
    problem: ProjectProblem | None = None

    @property
    def complaint(self) -> str:
        """The problem and its effect, in one line; empty if there is none."""
        if self.problem is None:
            return ""
        means = (
            "models go on as of the last version that was good"
            if self.usable
            else "there are no models until it is repaired; ingestion goes on"
        )
        return f"{self.problem}; {means}"


class _Failure(msgspec.Struct):
    """Why a version cannot be used. ``lasting`` means that dbt will refuse the same files again."""

    said: str
    file: str
    line: int | None
    at: float
    lasting: bool

    @property
    def problem(self) -> ProjectProblem:
        return ProjectProblem(self.said, self.file, self.line)


def target_folder(settings: Settings) -> Path:
    """Return dbt's target folder, which is never in the project."""
    return settings.home / "dbt" / "target"


def variables(settings: Settings) -> list[str]:
    """Return dbt's ``--vars`` of this installation, the same for each invocation.

    dbt parses the whole project again when its vars have changed, which takes seconds. So the days of a build are
    environment variables instead, see ``models.build_days``.
    """
    return ["--vars", json.dumps({name: getattr(settings, name) for name in composition.SETTINGS})]


def profile(version: Version) -> list[str]:
    """Return the options that name dbt's connection, for a project of the user's own, too."""
    return ["--profiles-dir", str(version.profiles), "--profile", "headrace"]


def current(settings: Settings) -> Project:
    """Return the project as it can be used now, and parse the project on disk if it is new.

    Never raises for the project's content.
    """
    try:
        found = digest(settings)
        if settings.project is not None and not composition.package_folder(settings).is_dir():
            composition.keep_package(settings)
    except OSError as error:
        return _fallback(settings, _unreadable(error, settings))
    if found is None:
        why = f"there is no dbt project in {dbt_folder(settings)}; set HEADRACE_PROJECT_DIR to the checkout"
        return _fallback(settings, ProjectProblem(why))
    if known := _known(settings, found):
        return known
    with try_lock(settings.home / "locks" / "dbt-parse.lock", settings.parse_seconds) as alone:
        if known := _known(settings, found):
            return known
        if not alone:
            return _fallback(
                settings, ProjectProblem("another process has been parsing the dbt project for too long")
            )
        try:
            return _parse(settings)
        except OSError as error:
            return _fallback(settings, _unreadable(error, settings))


def current_if_parsed(settings: Settings) -> Project:
    """Return the project as it can be used now, unless this home has no version yet: then it stays empty."""
    if not _versions(settings).is_dir():
        return Project(None)
    return current(settings)


def last_parsed(settings: Settings) -> Version | None:
    """Return the version that was last used here; None if none has parsed. Nothing is parsed, nothing compared."""
    return _last(settings)


def refuse(settings: Settings, version: Version, why: str) -> Project:
    """Record that a parsed version cannot be used, and return the usable project."""
    before = _last(settings, but=version.id)
    changed = changed_files(checksums(before.project), checksums(version.project)) if before else ()
    problem = explain(why, version.project, changed)
    _note(version.folder, problem, lasting=True)
    return _fallback(settings, problem)


def digest(settings: Settings) -> str | None:
    """Return the checksum of everything that determines the manifest; None if there is no project.

    Raises:
        OSError: A file cannot be read.
    """
    found = composition.parts(settings).checksums()
    return _identity(found, settings) if found else None


def _identity(checksums: list[tuple[str, str]], settings: Settings) -> str:
    made_of = [
        checksums,
        variables(settings),
        [settings.raw_database, settings.dbt_schema, settings.warehouse_cluster, *settings.builtin_streams],
        [installed("dbt-core"), installed("dbt-clickhouse")],
    ]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _versions(settings: Settings) -> Path:
    return settings.home / "dbt" / "versions"


def _known(settings: Settings, found: str) -> Project | None:
    """Return the project if this version is known; None if it must be parsed."""
    version = Version(found, _versions(settings) / found)
    failure = _failure(version.folder)
    if failure is None:
        if not version.manifest.exists():
            return None
        version.folder.touch()  # marks it as the most recently used one
        return Project(version)
    if not failure.lasting and time.time() - failure.at > _AGAIN_SECONDS:
        return None
    return _fallback(settings, failure.problem)


def _fallback(settings: Settings, problem: ProjectProblem) -> Project:
    return Project(_last(settings), problem)


def _last(settings: Settings, but: str = "") -> Version | None:
    """Return the most recently used version among the good ones."""
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


def _note(folder: Path, problem: ProjectProblem, *, lasting: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"problem.json.{os.getpid()}"
    failure = _Failure(problem.said, problem.file, problem.line, time.time(), lasting)
    fresh.write_bytes(msgspec.json.encode(failure))
    fresh.replace(folder / "problem.json")


def _unreadable(error: OSError, settings: Settings) -> ProjectProblem:
    root = dbt_folder(settings).parent
    file = str(error.filename or dbt_folder(settings))
    named = Path(file).relative_to(root) if file.startswith(str(root)) else file
    return ProjectProblem(f"it cannot be read or copied: {error.strerror or error}", str(named))


def _parse(settings: Settings) -> Project:
    """Copy the project and let dbt parse the copy. Edits made meanwhile are another version.

    Raises:
        OSError: A file cannot be read, or the disk is full.
    """
    root = _versions(settings)
    copy = Version("", root / f"new-{os.getpid()}")
    shutil.rmtree(copy.folder, ignore_errors=True)
    try:
        composition.keep_package(settings)
        composition.parts(settings).copy(copy.folder)
        made_of = checksums(copy.project)
        found = _identity(made_of, settings)
        version = Version(found, root / found)
        if known := _known(settings, found):
            return known
        before = _last(settings)
        changed = changed_files(checksums(before.project), made_of) if before else frozenset()
        if failure := _compile(copy, settings, changed):
            _note(version.folder, failure.problem, lasting=failure.lasting)
            _tidy(settings)
            return _fallback(settings, failure.problem)
        shutil.copyfile(target_folder(settings) / "manifest.json", copy.manifest)
        _follow(copy, settings)
        shutil.rmtree(
            version.folder, ignore_errors=True
        )  # an earlier failure whose cause was not the project
        copy.folder.rename(version.folder)
        _tidy(settings)
        return Project(version)
    except shutil.Error as error:  # copytree reports all failed copies at once
        name, _, why = error.args[0][0]
        raise OSError(0, str(why).partition("] ")[2] or str(why), name) from None
    finally:
        shutil.rmtree(copy.folder, ignore_errors=True)


def _tidy(settings: Settings) -> None:
    """Remove all but the most recently used versions, good ones and others separately."""
    good: list[Path] = []
    bad: list[Path] = []
    for folder in sorted(_versions(settings).iterdir(), key=lambda one: one.stat().st_mtime, reverse=True):
        if not folder.name.startswith("new-"):
            (bad if _failure(folder) else good).append(folder)
    for folder in [*good[_KEPT:], *bad[_KEPT:]]:
        shutil.rmtree(folder, ignore_errors=True)


def _compile(copy: Version, settings: Settings, changed: frozenset[str]) -> _Failure | None:
    """Parse a project and render its models, without a warehouse, which need not exist yet."""
    settings.export()
    own = copy.project != copy.profiles  # a project of the user's, with Headrace's as a package
    if own and (problem := composition.wrong_vars(copy.project)):
        return _failed(problem, lasting=True)
    try:
        done = _dbt(copy, settings)
        if done.returncode in (1, 2):  # partial parsing may blame another file, or fail
            done = _dbt(copy, settings, "--no-partial-parse")
    except subprocess.TimeoutExpired:
        said = (
            f"dbt did not parse the project within {settings.parse_seconds:g} s and was stopped; look for a loop in "
            "Jinja, or raise HEADRACE_PARSE_SECONDS"
        )
        return _failed(explain(said, copy.project, changed), lasting=True)
    if not done.returncode:
        manifest = json.loads((target_folder(settings) / "manifest.json").read_bytes()) if own else {}
        problem = composition.lacks_overrides(manifest, copy.project) if own else None
        return _failed(problem, lasting=True) if problem else None
    said = (done.stdout + done.stderr).strip()
    own_fault = done.returncode in (1, 2) and "Error" in said and "[Errno " not in said
    if done.returncode < 0:
        said = f"dbt was ended by signal {-done.returncode} while it parsed the project"
    return _failed(explain(said, copy.project, changed), lasting=own_fault)


def _dbt(copy: Version, settings: Settings, *options: str) -> subprocess.CompletedProcess[str]:
    target = target_folder(settings)
    target.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "dbt.cli.main"]
    command += ["--quiet", *GLOBAL_OPTIONS, *options, "--log-path", str(target), "compile"]
    command += ["--no-introspect", "--no-populate-cache", "--select", "resource_type:model"]
    command += ["--project-dir", str(copy.project), *profile(copy)]
    command += ["--target-path", str(target), *variables(settings)]
    # days are those of a build; a model that is rendered for some would ask for tables that are not there yet
    env = {name: value for name, value in child_environment().items() if name not in _DAYS}
    return subprocess.run(
        command, capture_output=True, text=True, env=env, check=False, timeout=settings.parse_seconds
    )  # fmt: skip


def _failed(problem: ProjectProblem, *, lasting: bool) -> _Failure:
    return _Failure(problem.said, problem.file, problem.line, time.time(), lasting)


def _follow(copy: Version, settings: Settings) -> None:
    """Trace the lineage of the columns. A project that cannot be traced has none."""
    try:
        lineage.write_beside(copy.manifest, _raw_tables(settings))
    except subprocess.CalledProcessError as error:
        log.warning("no lineage of columns: %s", error)
        copy.manifest.with_name(lineage.FILE).write_text("{}")


def _raw_tables(settings: Settings) -> list[Table]:
    from headrace.pipelines import discover_for

    pipelines = discover_for(settings).pipelines
    return [table for pipeline in pipelines.values() for table in pipeline.tables]
