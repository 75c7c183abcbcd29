"""Find the pipelines. A broken file is reported by name and does not take the others down."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from headrace.pipelines.base import Pipeline

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Discovered:
    """What was found.

    Attributes:
        pipelines: By stream name, in the order of their file names.
        broken: What is wrong, by file name.
    """

    pipelines: dict[str, Pipeline]
    broken: dict[str, str]


def discover(folder: Path = HERE) -> Discovered:
    """Load every ``*_pipeline.py`` of a folder; each defines ``pipeline = Pipeline(...)``."""
    pipelines: dict[str, Pipeline] = {}
    broken: dict[str, str] = {}
    for path in sorted(folder.glob("*_pipeline.py")):
        try:
            pipeline = _load(path)
        except Exception as error:  # whatever a person's file raises
            broken[path.name] = f"{type(error).__name__}: {error}"
            continue
        if pipeline.name in pipelines:
            broken[path.name] = f"stream {pipeline.name!r} is already declared by another file"
        else:
            pipelines[pipeline.name] = pipeline
    return Discovered(pipelines, broken)


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
