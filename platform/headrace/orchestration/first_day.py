"""The day with which a stream's partitions begin.

Dagster fixes partitions when it loads the definitions, and a run over days before them fails. So they may begin late
only where nothing comes before that:

- a pipeline declares ``start``: what happened before is rejected;
- or the first day with rows has been seen, and this code location can be loaded again without a hand as soon as
  an earlier one comes. What was seen is in a file, which is a hint and may be lost: loading the definitions asks no
  service, because one may be away.

Otherwise they begin with ``HEADRACE_EVENT_TIME_MIN``, the earliest that is accepted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path

from headrace.config.settings import Settings
from headrace.pipelines import Pipeline

#: Whether whoever serves these definitions watches for ``ask_to_load_again``; the code server says so.
watched = False


def first_day(pipeline: Pipeline, settings: Settings) -> date:
    """The day with which the partitions of a stream begin."""
    earliest = earliest_accepted(pipeline, settings)
    if pipeline.start is not None or not watched:
        return earliest
    return max(earliest, seen(settings).get(pipeline.name, earliest))


def earliest_accepted(pipeline: Pipeline, settings: Settings) -> date:
    """No row of a stream is of an earlier day."""
    least = settings.event_time_min.date()
    return least if pipeline.start is None else max(least, pipeline.start)


def _file(settings: Settings) -> Path:
    return settings.home / "first_days.json"


def seen(settings: Settings) -> Mapping[str, date]:
    """The first day with rows of each stream, as far as anybody has noted it; nothing where that is unreadable."""
    try:
        read = json.loads(_file(settings).read_text())
        return {str(name): date.fromisoformat(day) for name, day in read.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def note(settings: Settings, stream: str, day: date) -> None:
    """Remember the first day with rows of a stream."""
    found = dict(seen(settings))
    if found.get(stream) == day:
        return
    shown = {name: one.isoformat() for name, one in sorted({**found, stream: day}.items())}
    with suppress(OSError):  # a full disk: the partitions begin where they began before
        _write(_file(settings), json.dumps(shown))


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    own = file.with_name(f"{file.name}.{os.getpid()}")
    own.write_text(text)
    own.replace(file)


def _asked(settings: Settings) -> Path:
    return settings.home / "load_again"


def ask_to_load_again(settings: Settings) -> None:
    """Ask the code server to load the definitions again."""
    with suppress(OSError):
        _write(_asked(settings), "")


def asked_to_load_again(settings: Settings) -> bool:
    """Whether somebody has asked; true once."""
    try:
        _asked(settings).unlink()
    except OSError:
        return False
    return True
