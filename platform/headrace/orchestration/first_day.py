"""The first day of a stream's partitions.

Dagster fixes partitions when it loads the definitions, and a run over days before them fails. So they may begin late
only if no row can be of an earlier day:

- a pipeline declares ``start``: events from before it are rejected;
- or the first day with rows is known, and this code location is loaded again by itself as soon as an earlier day comes.
  The known day is in a file, which is a hint and may be lost: loading the definitions asks no service, because one may
  be away.

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

#: Whether the server of these definitions watches for ``ask_to_load_again``; the code server sets it.
watched = False


def first_day(pipeline: Pipeline, settings: Settings) -> date:
    """Give the first day of a stream's partitions."""
    earliest = earliest_accepted(pipeline, settings)
    if pipeline.start is not None or not watched:
        return earliest
    return max(earliest, seen(settings).get(pipeline.name, earliest))


def earliest_accepted(pipeline: Pipeline, settings: Settings) -> date:
    """Give the earliest day of which a row of a stream can be."""
    least = settings.event_time_min.date()
    return least if pipeline.start is None else max(least, pipeline.start)


def _file(settings: Settings) -> Path:
    return settings.home / "first_days.json"


def seen(settings: Settings) -> Mapping[str, date]:
    """Read the first day with rows of each stream that was noted; none if the file is unreadable."""
    try:
        read = json.loads(_file(settings).read_text())
        return {str(name): date.fromisoformat(day) for name, day in read.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def note(settings: Settings, stream: str, day: date) -> None:
    """Note the first day with rows of a stream."""
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
    """Tell whether somebody has asked to load the definitions again; true once."""
    try:
        _asked(settings).unlink()
    except OSError:
        return False
    return True
