"""Find the pipelines. A broken file is reported by name and does not take the others down."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.pipelines.base import Pipeline, Spec, Sqs

HERE = Path(__file__).parent
_PATTERN = "*_pipeline.py"


@dataclass(frozen=True, slots=True)
class Discovered:
    """What was found.

    Attributes:
        pipelines: By stream name, in the order of their folders and file names.
        files: Where each is declared.
        broken: What is wrong, by file name.
    """

    pipelines: dict[str, Pipeline]
    files: dict[str, Path]
    broken: dict[str, str]


def discover(*folders: Path) -> Discovered:
    """Load every ``*_pipeline.py``: Headrace's own, then those of these folders.

    Each file defines ``pipeline = Pipeline(...)``. A folder's files may import the modules beside them, such as a
    contract.
    """
    found = Discovered({}, {}, {})
    for folder in (HERE, *folders):
        if not folder.is_dir():
            found.broken[str(folder)] = "HEADRACE_PIPELINES names no folder"
            continue
        with _importable(folder):
            for path in sorted(folder.glob(_PATTERN)):
                _add(found, path)
    return found


def _add(found: Discovered, path: Path) -> None:
    try:
        pipeline = _load(path)
    except Exception as error:  # whatever a person's file raises
        found.broken[path.name] = f"{type(error).__name__}: {error}"
        return
    taken = {table.name: other.name for other in found.pipelines.values() for table in other.tables}
    twin = next((table.name for table in pipeline.tables if table.name in taken), None)
    read: dict[Spec, str] = {
        s: other.name for other in found.pipelines.values() for s in other.sources if isinstance(s, Sqs)
    }
    shared = next((spec for spec in pipeline.sources if spec in read), None)
    if pipeline.name in found.pipelines:
        other = found.files[pipeline.name].name
        found.broken[path.name] = f"stream {pipeline.name!r} is already declared by {other}"
    elif twin is not None:
        found.broken[path.name] = f"table {twin!r} is already that of stream {taken[twin]!r}"
    elif shared is not None:
        # a queue hands each message to one reader, who deletes it
        found.broken[path.name] = f"{shared.name} is already read by stream {read[shared]!r}"
    else:
        found.pipelines[pipeline.name] = pipeline
        found.files[pipeline.name] = path


def _load(path: Path) -> Pipeline:
    name = f"headrace.pipelines.{path.stem}" if path.parent == HERE else f"headrace_pipeline_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    pipeline = getattr(module, "pipeline", None)
    if not isinstance(pipeline, Pipeline):
        raise TypeError("define `pipeline = Pipeline(...)` at the top level")
    return pipeline


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The modules of a folder can be imported by their names meanwhile, after everything that is installed."""
    if folder == HERE:
        yield
        return
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
