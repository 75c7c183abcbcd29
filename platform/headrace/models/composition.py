"""Compose the dbt project that runs: the user's own, with Headrace's as its package ``headrace``.

dbt looks for packages in ``dbt_packages/`` of the project, where ``dbt deps`` would put them. Headrace puts its own
there by itself, in the copy that runs, so that neither network nor lock file is needed. For people who call dbt in
their own folder, ``<home>/dbt/headrace`` holds the package as this project uses it; their ``packages.yml`` names it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.config.settings import Settings
from headrace.config.shipped import DBT, checkout, shipped
from headrace.models.dbt_errors import ProjectProblem

#: Where the package lies in a project that uses it.
PACKAGE = "dbt_packages/headrace"
#: Macros that a project of the user's own must hold, see ``root/headrace.sql`` of the package.
_OVERRIDES = "root/headrace.sql"
#: Vars of the package whose values Python needs, too; they are settings, and Headrace hands them to dbt.
SETTINGS = (
    "window_time",
    "window_seconds",
    "slow_ms",
    "lateness_seconds",
    "speed_days",
    "repeat_days",
    "speed_repeat_days",
)
_LEFT_OUT = ("target", "logs", "__pycache__", ".*", "*~", "#*", "*.swp", "*.tmp")
_IGNORED = shutil.ignore_patterns(*_LEFT_OUT)


@dataclass(frozen=True, slots=True)
class Parts:
    """The folders of which the project that runs is made.

    Attributes:
        root: The dbt project.
        package: Headrace's own, as a package of it; None where ``root`` is Headrace's own.
    """

    root: Path
    package: Path | None = None

    def checksums(self) -> list[tuple[str, str]]:
        """Return names and checksums of all files, as ``checksums`` does for the copy.

        Raises:
            OSError: A file cannot be read.
        """
        if self.package is None:
            return checksums(self.root)
        own = _checksums(self.root, edited(self.root))
        return sorted([*own, *((f"{PACKAGE}/{name}", found) for name, found in checksums(self.package))])

    def copy(self, folder: Path) -> None:
        """Copy the project into a folder, under its name.

        Raises:
            OSError: A file cannot be read, or the disk is full.
        """
        target = folder / self.root.name
        ignored = _without_package(self.root) if self.package else _IGNORED
        shutil.copytree(self.root, target, ignore=ignored)
        if self.package is not None:
            shutil.copytree(self.package, target / PACKAGE, ignore=_IGNORED)


def dbt_folder(settings: Settings) -> Path:
    """Return the folder in which people edit the dbt project; in a project, it may not exist yet."""
    if settings.project is not None:
        return settings.project.dbt
    own = checkout() is not None or "project_dir" in settings.model_fields_set
    return settings.project_dir / DBT if own else shipped(DBT)


def parts(settings: Settings) -> Parts:
    """Return the folders of this installation's dbt project. A project without models runs Headrace's own alone."""
    folder = dbt_folder(settings)
    if settings.project is None:
        return Parts(folder)
    return Parts(folder, shipped(DBT)) if any(edited(folder)) else Parts(shipped(DBT))


def folder_of(package: str, settings: Settings) -> Path:
    """Return the folder in which the files of a dbt package lie, for links to the code."""
    found = parts(settings)
    if found.package is None:
        return found.root
    if package == "headrace":
        return found.package
    installed = found.root / "dbt_packages" / package
    return installed if installed.is_dir() else found.root


def files(project: Path) -> Iterator[Path]:
    """Yield a project's files, without those that dbt, editors and systems leave in it."""
    for folder, folders, names in os.walk(project):
        out = _IGNORED(folder, [*folders, *names])
        folders[:] = [name for name in folders if name not in out]
        yield from (Path(folder, name) for name in names if name not in out)
    for package in sorted((project / "dbt_packages").glob("*")):
        if package.is_symlink() and package.is_dir() and package.name != "headrace":
            yield from files(package)  # as `dbt deps` installs a local one


def edited(project: Path) -> Iterator[Path]:
    """Yield the files of a project that people edit: all but those of the package, whatever `dbt deps` left of it."""
    package = project / PACKAGE
    yield from (path for path in files(project) if path != package and package not in path.parents)


def checksums(project: Path) -> list[tuple[str, str]]:
    """Return the names of a project's files, relative to it, and their checksums."""
    return _checksums(project, files(project))


def _checksums(project: Path, found: Iterable[Path]) -> list[tuple[str, str]]:
    return [
        (path.relative_to(project).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(found)
    ]


def _without_package(root: Path) -> Callable[[str, list[str]], set[str]]:
    def ignored(folder: str, names: list[str]) -> set[str]:
        own = {"headrace"} if Path(folder) == root / "dbt_packages" else set()
        return {*_IGNORED(folder, names), *own}

    return ignored


def wrong_vars(project: Path) -> ProjectProblem | None:
    """Find a var of Headrace in ``dbt_project.yml`` that does not exist or is set elsewhere; dbt passes over both.

    Args:
        project: The user's dbt project.
    """
    import yaml  # type: ignore[import-untyped]

    file = project / "dbt_project.yml"
    try:
        text = file.read_text()
        given = yaml.safe_load(text).get("vars") or {}
        own = given.get("headrace", {})
        if not isinstance(own, dict):  # dbt ends with a TypeError
            said = (
                f"below vars, 'headrace' is {json.dumps(own)}; write vars of Headrace below it, or remove it"
            )
            return ProjectProblem(said, f"{project.name}/dbt_project.yml", _yaml_line(text, "headrace"))
        package = yaml.safe_load((shipped(DBT) / "dbt_project.yml").read_text())["vars"]
        names = [*own, *(name for name in given if name in package)]
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError):
        return None  # dbt says what is wrong with the file itself
    for name in names:
        if name in SETTINGS:
            value = json.dumps(own.get(name, given.get(name)))
            said = (
                f"var '{name}' is a setting of Headrace: write {name} = {value} below [settings] of headrace.toml,"
                " and remove it here"
            )
        elif name not in package:
            near = difflib.get_close_matches(str(name), package, n=1)
            said = f"there is no var '{name}' of Headrace; " + (
                f"did you mean '{near[0]}'?" if near else f"there are {', '.join(package)}"
            )
        else:
            continue
        return ProjectProblem(said, f"{project.name}/dbt_project.yml", _yaml_line(text, str(name)))
    return None


def _yaml_line(text: str, name: str) -> int | None:
    sets = re.compile(rf"[\s{{,]*[\"']?{re.escape(name)}[\"']?\s*:")
    return next((number for number, line in enumerate(text.splitlines(), 1) if sets.match(line)), None)


def lacks_overrides(manifest: dict[str, Any], project: Path) -> ProjectProblem | None:
    """Find out whether models of the user's own would be built without Headrace's way to replace days.

    Args:
        manifest: The parsed project.
        project: The user's dbt project.
    """
    root = manifest["metadata"]["project_name"]
    built = ("incremental", "distributed_incremental")
    own = [
        node["name"]
        for node in manifest["nodes"].values()
        if node["package_name"] == root
        and node["resource_type"] == "model"
        and node["config"]["materialized"] in built
    ]
    if not own or f"macro.{root}.clickhouse__incremental_insert_overwrite" in manifest["macros"]:
        return None
    text = f"model {own[0]} is rebuilt by day, which takes macros that this project lacks: copy "
    return ProjectProblem(f"{text}{shipped(DBT) / _OVERRIDES} into it", f"{project.name}/macros/headrace.sql")


def scaffold() -> Iterator[tuple[str, str]]:
    """Yield the files of the package that every dbt project of the user's own holds: path below ``dbt/``, and text."""
    package = shipped(DBT)
    yield "macros/headrace.sql", (package / _OVERRIDES).read_text()
    yield "profiles.yml", (package / "profiles.yml").read_text()


def package_folder(settings: Settings) -> Path:
    """Return the folder of the package as this project uses it, for people's own dbt commands."""
    return settings.home / "dbt" / "headrace"


def keep_package(settings: Settings) -> None:
    """Bring the package for people's own dbt commands up to date, with the settings of this project as its defaults.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    if settings.project is None:
        return
    target = package_folder(settings)
    fresh, old = (target.with_name(f"{word}-{os.getpid()}") for word in ("fresh", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(shipped(DBT), fresh, ignore=_IGNORED)
    for path in files(fresh):
        path.write_text(_with_settings(path.read_text(), settings))
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _with_settings(text: str, settings: Settings) -> str:
    for name in SETTINGS:
        line = re.compile(rf"(?m)^(?P<before>\s+'?{name}'?: )[^\s,]+(?P<after>,?)$")
        text = line.sub(rf"\g<before>{json.dumps(getattr(settings, name))}\g<after>", text)
    builtin = f"'HEADRACE_BUILTIN_STREAMS', '{' '.join(settings.builtin_streams)}'"
    return text.replace("'HEADRACE_BUILTIN_STREAMS', 'events metrics'", builtin)
