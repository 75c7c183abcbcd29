"""Find the pipelines. A broken file is reported by name and does not stop the others."""

from __future__ import annotations

import ast
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Protocol

from headrace.pipelines.base import Pipeline, Spec, Sqs
from headrace.pipelines.loading import BrokenFile, load, reason
from headrace.pipelines.modules import forget, importable, written

HERE = Path(__file__).parent
#: Headrace's own streams; each is declared by the file ``<stream>_pipeline.py`` here.
BUILTIN = ("events", "metrics")
#: Default time in seconds that a file may take to load.
LOAD_SECONDS = 20.0
_PATTERN = "*_pipeline.py"
_one_at_a_time = Lock()


@dataclass(frozen=True, slots=True)
class Discovered:
    """The pipelines found, and the files that are broken.

    Attributes:
        pipelines: By stream name, in the order of their folders and file names.
        files: File that declares each stream.
        broken: Reasons by file name; a reason begins with the line if it is known.
    """

    pipelines: dict[str, Pipeline]
    files: dict[str, Path]
    broken: dict[str, str]

    def without(self, wrong: dict[str, str]) -> Discovered:
        """Return a copy in which more streams are broken.

        Args:
            wrong: Reasons by stream name.
        """
        more = {self.files[name].name: why for name, why in wrong.items()}
        return Discovered(
            {name: one for name, one in self.pipelines.items() if name not in wrong},
            {name: file for name, file in self.files.items() if name not in wrong},
            {**self.broken, **more},
        )


def discover(*folders: Path, builtin: Collection[str] = BUILTIN, seconds: float = LOAD_SECONDS) -> Discovered:
    """Load every ``*_pipeline.py``: Headrace's own, then those of these folders.

    Each file defines ``pipeline = Pipeline(...)``. Files may import the modules beside them, such as a
    contract, and in a project those at its root (``headrace.pipelines.modules``). A process loads the files
    again only after one of them has changed, and then with everything that they import.

    Args:
        folders: The user's folders.
        builtin: Headrace's own streams to load, by name.
        seconds: Time that one file may take to load.
    """
    with _one_at_a_time:
        found = _discovered(folders, frozenset(builtin), seconds, written(folders))
    return Discovered(dict(found.pipelines), dict(found.files), dict(found.broken))


class Configured(Protocol):
    """What the settings say of pipelines."""

    @property
    def pipeline_folders(self) -> tuple[Path, ...]:
        """The user's folders."""

    @property
    def builtin_streams(self) -> tuple[str, ...]:
        """Headrace's own streams to load."""

    @property
    def pipeline_seconds(self) -> float:
        """Time that one file may take to load."""


def discover_for(settings: Configured) -> Discovered:
    """Load the pipelines that the settings name; see ``discover``."""
    return discover(
        *settings.pipeline_folders, builtin=settings.builtin_streams, seconds=settings.pipeline_seconds
    )


@lru_cache(maxsize=8)
def _discovered(
    folders: tuple[Path, ...], builtin: frozenset[str], seconds: float, _written: object
) -> Discovered:
    found = Discovered({}, {}, {})
    forget()
    for folder in (HERE, *folders):
        if not folder.is_dir():
            found.broken[str(folder)] = "HEADRACE_PIPELINES names no folder"
            continue
        for path in sorted(folder.glob(_PATTERN)):
            if folder == HERE and path.stem.removesuffix("_pipeline") not in builtin:
                continue
            with nullcontext() if folder == HERE else importable(folder):
                _add(found, path, seconds)
    return found


def _add(found: Discovered, path: Path, seconds: float) -> None:
    module = f"headrace.pipelines.{path.stem}" if path.parent == HERE else f"headrace_pipeline_{path.stem}"
    try:
        pipeline = load(path, module, seconds)
        wrong = _taken(found, pipeline)
    except BrokenFile as error:
        found.broken[path.name] = str(error)
    except (Exception, SystemExit) as error:  # a class of the user's own raises only when it is used
        found.broken[path.name] = reason(error, path)
    else:
        if wrong:
            found.broken[path.name] = _declared_at(path) + wrong
        else:
            found.pipelines[pipeline.name] = pipeline
            found.files[pipeline.name] = path


def _taken(found: Discovered, pipeline: Pipeline) -> str | None:
    """Name what this stream declares although another stream has it already."""
    if pipeline.name in found.pipelines:
        return f"stream {pipeline.name!r} is already declared by {found.files[pipeline.name].name}"
    tables = {table.name: other.name for other in found.pipelines.values() for table in other.tables}
    for table in pipeline.tables:
        if table.name in tables:
            return f"table {table.name!r} is already that of stream {tables[table.name]!r}"
    read: dict[Spec, str] = {
        s: other.name for other in found.pipelines.values() for s in other.sources if isinstance(s, Sqs)
    }
    for spec in pipeline.sources:
        if spec in read:  # a queue delivers each message to one reader, which deletes it
            return f"{spec.name} is already read by stream {read[spec]!r}"
    return None


def _declared_at(path: Path) -> str:
    """Return the line that defines ``pipeline``, as the beginning of a reason."""
    lines = [
        statement.lineno
        for statement in ast.parse(path.read_bytes()).body
        for target in (statement.targets if isinstance(statement, ast.Assign) else [])
        if isinstance(target, ast.Name) and target.id == "pipeline"
    ]
    return f"line {lines[-1]}: " if lines else ""
