"""Extract file, line and reason from dbt's output about a project that it refuses."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CLOCK = re.compile(r"^\s*\d\d:\d\d:\d\d\s+")
_HEADING = re.compile(
    r"^(Encountered an error:?|(Compilation|Parsing|Runtime|Dependency|Validation|Database) Error( in .*)?:?)$"
)
#: Lines that dbt quotes around the place; its own words repeat their content.
_QUOTED_LINE = re.compile(
    r"^(\d+\s*\||-{5,}|line \d+$|in \"<unicode string>\"|Raw Error:|.*RuntimeWarning: )"
)
_FILE = re.compile(r"[\w./-]+\.(?:sql|ya?ml|py|md|csv)\b")
_LINE = re.compile(r"\bline (\d+)")
_MISSING = re.compile(r"""\bnamed ['"]?([\w.]*\w)""")
_NAME = re.compile(r"""['"`]([^'"`\s]+)['"`]""")
_MOST = 300
#: Files that dbt does not name when it cannot read them.
_CONFIGURATION = ("dbt_project.yml", "profiles.yml", "packages.yml")


@dataclass(frozen=True, slots=True)
class ProjectProblem:
    """A problem of the dbt project.

    Attributes:
        said: Description in one line.
        file: File, relative to the folder that holds the project; empty if unknown.
        line: Line in that file, counted from 1; None if unknown.
    """

    said: str
    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.said}" if place else self.said


def explain(output: str, project: Path, changed: Collection[str] = ()) -> ProjectProblem:
    """Find file, line and reason in dbt's output.

    Args:
        output: dbt's output.
        project: The project that dbt read.
        changed: Files, relative to the project, that have changed since it last parsed. Where dbt names no file or
            several, the problem is in one of these.
    """
    lines = [_CLOCK.sub("", _ANSI.sub("", line)).strip() for line in output.splitlines()]
    file, line = _place(lines, project, changed)
    where = f"{project.name}/{file}" if file else project.name
    return ProjectProblem(_reason(lines), where, line)


def _reason(lines: list[str]) -> str:
    kept = [line for line in lines if line and not _HEADING.match(line) and not _QUOTED_LINE.match(line)]
    if any(line.startswith("Traceback (most recent") for line in kept):
        kept = kept[-1:]
    said = " ".join(" ".join(kept).split()) or "dbt refuses the project and says nothing"
    return said if len(said) <= _MOST else said[: _MOST - 1] + "…"


def _place(lines: list[str], project: Path, changed: Collection[str]) -> tuple[str, int | None]:
    text = "\n".join(lines)
    numbered = _LINE.search(text)
    number = int(numbered[1]) if numbered else None
    named = list(dict.fromkeys(_named(text, project)))
    files = [one for one in named if one in changed] or named
    if not named and "UnicodeDecodeError" in text:
        files, number = list(_undecodable(project)), None
    if not files and number:
        files = list(_quoted(lines, number, project, changed))
    if not files:
        files = [name for name in _CONFIGURATION if not _is_yaml(project / name)]
    if not files and len(changed) == 1:
        files = list(changed)
    if not files:
        return "", None
    return files[0], number or _mentioned(text, project / files[0])


def _named(text: str, project: Path) -> Iterator[str]:
    """Yield the project's files that the text names. dbt omits ``models/`` where it reads YAML."""
    for name in _FILE.findall(text):
        if name.startswith("/"):  # a file of dbt itself, in a traceback
            continue
        if (project / name).is_file():
            yield name
            continue
        found = [path for path in project.rglob(Path(name).name) if path.as_posix().endswith(f"/{name}")]
        if len(found) == 1:
            yield found[0].relative_to(project).as_posix()


def _quoted(lines: list[str], number: int, project: Path, changed: Collection[str]) -> Iterator[str]:
    """Yield files that have one of the quoted lines at this line number."""
    quoted = {line for line in lines if line}
    rest = sorted(path.relative_to(project).as_posix() for path in project.rglob("*.sql"))
    for name in [*sorted(changed), *rest]:
        content = _lines(project / name)
        if number <= len(content) and content[number - 1].strip() in quoted:
            yield name


def _undecodable(project: Path) -> Iterator[str]:
    """Yield files that are not UTF-8."""
    for path in sorted(
        path for path in project.rglob("*") if path.suffix in {".sql", ".yml", ".yaml", ".md"}
    ):
        try:
            path.read_bytes().decode()
        except UnicodeDecodeError:
            yield path.relative_to(project).as_posix()


def _is_yaml(file: Path) -> bool:
    import yaml  # type: ignore[import-untyped]

    try:
        yaml.safe_load("\n".join(_lines(file)))
    except yaml.YAMLError:
        return False
    return True


def _mentioned(text: str, file: Path) -> int | None:
    """Return the line of the first name that the message quotes and the file contains."""
    content = _lines(file)
    for name in [*_MISSING.findall(text), *_NAME.findall(text)]:
        word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        for number, line in enumerate(content, 1):
            if word.search(line):
                return number
    return None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def changed_files(before: Iterable[tuple[str, str]], now: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the names of new and changed files, from names and checksums."""
    known = dict(before)
    return frozenset(name for name, checksum in now if known.get(name) != checksum)
