"""Make the folder of a project from the templates beside this file."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.version import Version

from headrace.core.errors import Fatal
from headrace.scaffold import git

_TEMPLATES = Path(__file__).parent / "templates"
_ENDING = ".tmpl"
_PROJECT_FILE = "headrace.toml"
#: Names of packages that dbt loads beside the project.
_TAKEN = ("headrace", "dbt", "dbt_clickhouse")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
#: A folder that holds only these counts as empty: a repository that was just made or cloned.
_OVERLOOKED = (".git",)
#: Entries of a folder that a message names.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Created:
    """What became of a folder.

    Attributes:
        root: The project's root.
        name: The project's name.
        written: Files that were written, relative to the root.
        kept: Files that were there, and are as they were.
        repository: What became of the git repository.
    """

    root: Path
    name: str
    written: tuple[str, ...]
    kept: tuple[str, ...]
    repository: git.Outcome


def create(folder: Path, name: str | None = None, *, example: bool = True, force: bool = False) -> Created:
    """Make a project.

    Args:
        folder: Its root; made if it does not exist.
        name: Name of the project and of its dbt project; default: from the folder's name.
        example: Add a stream with a sample and models, which shows how everything fits together.
        force: Add what is missing to a folder that holds something; nothing is ever overwritten.

    Raises:
        Fatal: The name does not do, the folder is not empty or cannot be written, or it is in another project.
    """
    root = folder.expanduser().absolute()
    own_name = _checked(name, root)
    there = _present(root)
    if there and not force:
        raise Fatal(
            f"{folder} is not empty: it holds {_listed(there)}; choose another folder, or give --force, which adds"
            " what is missing and overwrites nothing"
        )
    outer = next((up for up in root.parents if (up / _PROJECT_FILE).is_file()), None)
    if outer is not None:
        raise Fatal(
            f"{folder} is inside the project {outer}: add streams to that one, or choose another folder"
        )
    written, kept = [], []
    try:
        for relative, text in _rendered(own_name, example):
            path = root / relative
            if path.exists() or path.is_symlink():
                kept.append(relative)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
            written.append(relative)
    except OSError as error:
        raise Fatal(
            f"{error.filename or root} cannot be written: {(error.strerror or str(error)).lower()}"
        ) from error
    if example:
        written += _sources(root)
    repository = git.begin(root, written, f"{own_name}: a project on Headrace") if not there else git.NOTHING
    return Created(root, own_name, tuple(written), tuple(kept), repository)


def _sources(root: Path) -> list[str]:
    """Write dbt's sources of the example; gives their paths below the root."""
    from headrace.models.sources import write
    from headrace.pipelines import discover  # takes a second

    stale = write(root / "dbt", discover(root / "pipelines"))
    return [one.path.relative_to(root).as_posix() for one in stale]


def _checked(name: str | None, root: Path) -> str:
    """Return the project's name, which is that of its dbt project, too."""
    found = name if name is not None else re.sub(r"[\s.-]+", "_", root.name.lower())
    whose = f"{root.name!r} makes the name {found!r}" if name is None else f"the name is {name!r}"
    if not _NAME.fullmatch(found):
        raise Fatal(
            f"{whose}, which is none that dbt takes: up to 63 lower-case letters, digits and _, a letter first;"
            " give another with --name"
        )
    if found in _TAKEN or keyword.iskeyword(found):
        raise Fatal(f"{whose}, which is taken by {_whose(found)}; give another with --name")
    return found


def _whose(name: str) -> str:
    return "Python" if keyword.iskeyword(name) else "a package that dbt loads beside the project"


def _present(root: Path) -> list[str]:
    """List what a folder holds; nothing for one that does not exist.

    Raises:
        Fatal: It is no folder, or cannot be read.
    """
    if root.is_symlink() and not root.exists():
        raise Fatal(f"{root} is a link to nowhere")
    if not root.exists():
        return []
    try:
        return sorted(entry.name for entry in root.iterdir() if entry.name not in _OVERLOOKED)
    except NotADirectoryError:
        raise Fatal(f"{root} is a file: name a folder") from None
    except OSError as error:
        raise Fatal(f"{root} cannot be read: {(error.strerror or str(error)).lower()}") from error


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _rendered(name: str, example: bool) -> Iterator[tuple[str, str]]:
    """Yield each file of a project: its path, and its text."""
    requirement, sources = _installed()
    words = {"project": name, "requirement": requirement, "sources": sources}
    for part in ("base", "example" if example else "empty"):
        for path in sorted((_TEMPLATES / part).rglob(f"*{_ENDING}")):
            relative = path.relative_to(_TEMPLATES / part).as_posix().removesuffix(_ENDING)
            yield re.sub(r"(^|/)dot-", r"\1.", relative), _filled(path.read_text(encoding="utf-8"), words)
    # what every dbt project of one's own holds, and the package cannot bring along
    from headrace.models import composition

    for relative, text in composition.scaffold():
        yield f"dbt/{relative}", text


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text


def _installed() -> tuple[str, str]:
    """Return the requirement of this version of Headrace, and where uv finds it if that is no package index."""
    try:
        package = distribution("headrace")
    except PackageNotFoundError:  # on a path, not installed
        return "", ""
    version = Version(package.version)
    minor = f"{version.major}.{version.minor}"
    upper = f"{version.major}.{version.minor + 1}" if not version.major else f"{version.major + 1}"
    return f">={minor},<{upper}", _uv_source(json.loads(package.read_text("direct_url.json") or "{}"))


def _uv_source(direct: Mapping[str, Any]) -> str:
    """Return uv's table of sources for a package that was installed from an address (PEP 610)."""
    url = str(direct.get("url", ""))
    if not url:
        return ""
    if "vcs_info" in direct:
        where = f'git = "{url}", rev = "{direct["vcs_info"]["commit_id"]}"'
    elif url.startswith("file://"):
        editable = ", editable = true" if direct.get("dir_info", {}).get("editable") else ""
        where = f'path = "{_path_of(url)}"{editable}'
    else:
        where = f'url = "{url}"'
    return (
        "\n# as it was installed where this project was made; remove this where a package index has it\n"
        f"[tool.uv.sources]\nheadrace = {{ {where} }}\n"
    )


def _path_of(url: str) -> str:
    from urllib.parse import unquote, urlsplit

    return unquote(urlsplit(url).path)
