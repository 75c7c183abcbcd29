"""Find the user's project and read its file ``headrace.toml``.

A project is a folder with ``headrace.toml``: the user's own repository, in which Headrace is an installed package.
``[settings]`` there holds settings by their names in lower case. Files are found by their place: ``pipelines/``,
``contracts/``, ``dbt/``, ``metrics/`` and ``migrations/`` beside ``headrace.toml``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.core.errors import Fatal

FILE = "headrace.toml"
_TABLE = "settings"
#: Settings that hold a path; a relative one in ``headrace.toml`` begins at the project's root.
_PATHS = frozenset({"home", "pipelines", "archive", "lake_uri"})
#: Settings that no project may set, with the reason and the next step.
_ELSEWHERE = {
    "project_dir": f"the project is the folder of {FILE}; remove it",
    "dagster_home": "Dagster itself reads it from the environment; set DAGSTER_HOME there",
}
_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Project:
    """The user's project.

    Attributes:
        root: Folder of ``headrace.toml``.
    """

    root: Path

    @property
    def file(self) -> Path:
        """Path of ``headrace.toml``."""
        return self.root / FILE

    @property
    def pipelines(self) -> Path:
        """Folder of the pipeline files, unless ``HEADRACE_PIPELINES`` names another."""
        return self.root / "pipelines"

    @property
    def dbt(self) -> Path:
        """Folder of the user's dbt project."""
        return self.root / "dbt"

    @property
    def migrations(self) -> Path:
        """Folder of the user's own migrations of raw tables."""
        return self.root / "migrations"

    @property
    def metrics(self) -> Path:
        """Folder of the definitions of metrics."""
        return self.root / "metrics"

    @property
    def samples(self) -> Path:
        """Folder of the samples, one folder below it for each stream."""
        return self.root / "data"

    @property
    def home(self) -> Path:
        """Folder of state, logs and the local lake, unless ``HEADRACE_HOME`` names another."""
        return self.root / ".headrace"


def find(named: str | None, start: Path, stop: Path | None = None) -> Project | None:
    """Find the project.

    Args:
        named: Folder that ``HEADRACE_PROJECT_DIR`` names; empty or None for none.
        start: Folder at which to begin, from which the way goes up.
        stop: Folder above which not to look, if the way passes it: a checkout of Headrace.

    Returns:
        The project; None if the named folder, or no folder on the way up, holds ``headrace.toml``.
    """
    if named:
        root = Path(named).expanduser().absolute()
        return Project(root) if (root / FILE).is_file() else None
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return Project(folder)
        if folder == stop:
            break
    return None


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting of ``headrace.toml``.

    Attributes:
        value: Value as TOML has it; a relative path is made absolute.
        line: Line number, counted from 1; 0 if unknown.
    """

    value: Any
    line: int


def refused(project: Project, line: int, said: str) -> Fatal:
    """Make the error of a line, or of the whole file where ``line`` is 0."""
    return Fatal(f"{project.file}:{line}: {said}" if line else f"{project.file}: {said}")


def entries(project: Project, known: Collection[str]) -> dict[str, Entry]:
    """Read the settings of a project by their names.

    Args:
        project: The project.
        known: Names of all settings whose variables begin with ``HEADRACE_``.

    Raises:
        Fatal: The file is no TOML, or a name in it is unknown. The message names file, line and the next step.
    """
    text, content = _read(project)
    for name, value in content.items():
        if name != _TABLE:
            raise refused(project, line_of(text, name), _misplaced(name, known))
        if not isinstance(value, dict):
            raise refused(project, line_of(text, name), f"write [{_TABLE}], with settings below it")
    found: dict[str, Any] = content.get(_TABLE, {})
    for name in found:
        if name not in known or name in _ELSEWHERE:
            raise refused(project, line_of(text, name), _unknown(name, known))
    return {name: Entry(_rooted(name, value, project), line_of(text, name)) for name, value in found.items()}


def home_in(project: Project) -> Path:
    """Return the home of a project even when other lines of its file are wrong."""
    try:
        home = _read(project)[1].get(_TABLE, {}).get("home")
    except (Fatal, AttributeError):
        home = None
    return project.root / Path(home).expanduser() if isinstance(home, str) and home else project.home


def _read(project: Project) -> tuple[str, dict[str, Any]]:
    try:
        text = project.file.read_bytes().decode()
        return text, tomllib.loads(text)
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise refused(project, 0, f"it cannot be read: {said}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise refused(project, line, f"byte 0x{error.object[error.start]:02x} is no UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        at = _AT_LINE.search(said)
        line = int(at[1]) if at and at[1] else text.count("\n") + 1
        said = _AT_LINE.sub("", said)
        raise refused(project, line, f"it is no TOML: {said[:1].lower()}{said[1:]}") from None


def line_of(text: str, name: str) -> int:
    """Return the line at which a TOML text sets a name, counted from 1; 0 if it is not found."""
    key = rf"[\"']?{re.escape(name)}[\"']?"
    sets = re.compile(
        rf"\s*(?:{key}\s*[=.]|(?:{_TABLE}\.){key}\s*[=.]|\[+\s*(?:{_TABLE}\s*\.\s*)?{key}\s*[\].])"
    )
    return next((number for number, line in enumerate(text.splitlines(), 1) if sets.match(line)), 0)


def _misplaced(name: str, known: Collection[str]) -> str:
    if name in known:
        return f"{name} stands outside of [{_TABLE}]: put it below that line"
    near = difflib.get_close_matches(name, [_TABLE], n=1)
    hint = f"; did you mean [{near[0]}]?" if near else f"; there is [{_TABLE}] alone"
    return f"{name!r} is nothing that Headrace reads{hint}"


def _unknown(name: str, known: Collection[str]) -> str:
    if name in _ELSEWHERE:
        return f"{name} cannot be set here: {_ELSEWHERE[name]}"
    plain = name.lower().removeprefix("headrace_")
    if plain in known:
        return f"{name} is not a setting of Headrace; did you mean {plain}?"
    near = difflib.get_close_matches(plain, _offered(known), n=1)
    hint = f"did you mean {near[0]}?" if near else "see docs/operations.md for all of them"
    return f"{name} is not a setting of Headrace; {hint}"


def _offered(known: Iterable[str]) -> list[str]:
    return sorted(set(known) - set(_ELSEWHERE))


def _rooted(name: str, value: Any, project: Project) -> Any:
    if name not in _PATHS or not isinstance(value, str) or not value or "://" in value:
        return value
    return str(project.root / Path(value).expanduser())


#: Names of options that hold a secret, in a table such as ``kafka_security``.
_SECRET_OPTION = re.compile(
    r"password|secret|token|credential|(access|account|private|sas|api)_?key", re.IGNORECASE
)


def secret_in(value: Any, is_reference: Callable[[str], bool]) -> str | None:
    """Name the secret that a value of a secret setting holds in plain text.

    References to a secret store are no secrets, nor are other options in a table of options.

    Args:
        value: Text, list or table of options.
        is_reference: Tells whether a text refers to a secret store.

    Returns:
        The option's name, or empty if it is the value itself; None if there is no secret in it.
    """
    if isinstance(value, Mapping):
        named = (
            str(key)
            for key, one in value.items()
            if _SECRET_OPTION.search(str(key)) and not is_reference(str(one))
        )
        return next(named, None)
    if isinstance(value, list):
        return "" if any(not is_reference(str(one)) for one in value) else None
    return None if value == "" or is_reference(str(value)) else ""
