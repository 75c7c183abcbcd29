"""A collector as a worker's job: dies in a window of ``tests/collector``, or has a fault that the judge must find."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from collector import dying, sending
from headrace.collector import reload, serve
from headrace.collector.log import DurableLog, segments
from headrace.collector.workers import owner
from headrace.pipelines.discovery import Discovered

if TYPE_CHECKING:
    from chaos.worker import Run

#: Bytes of a segment, so that there are several to be removed.
_SEGMENT_BYTES = 32_768
#: Windows between a request and its answer; all others are on the way to the lake.
_OF_REQUESTS = (
    *("before_append", "before_sync", "before_index", "before_answer", "answers_first", "forgets"),
    *dying.OF_WORKERS,
)


def collect(run: Run) -> None:
    """Serve until SIGTERM."""
    job = run.job
    defaults = DurableLog.__init__.__kwdefaults__
    assert defaults and "segment_bytes" in defaults, "logs are divided otherwise: adapt the chaos suite"
    defaults["segment_bytes"] = _SEGMENT_BYTES
    _arm(job["window"], job["nth"])
    found = Discovered({"events": run.stream.pipeline}, {"events": Path(__file__)}, {})
    assert hasattr(reload, "discover_for"), "streams are found elsewhere: adapt the chaos suite"
    reload.discover_for = lambda settings: found
    if workers := job.get("workers", 0):
        with owner.opened(run.stream.settings) as own:
            owner.run(own, run.stream.settings, "127.0.0.1", job["port"], workers)
        return
    with serve.opened(run.stream.settings) as opened:
        serve.run(opened, "127.0.0.1", job["port"])


def _arm(window: str, nth: int) -> None:
    if window == "unsynced":
        segments.Disk.sync = lambda *_: None  # type: ignore[method-assign]
    elif window in _OF_REQUESTS:
        dying.arm(window, nth)
    elif window:
        sending.arm(window, nth)
