"""The system under test in processes that can be killed: ``python -m chaos.worker``.

The process itself only forks. It has imported everything once; each line on its standard input is a job, for which
it forks a child, and each line on its standard output says what became of one (started, stopped, exit). It ends,
and takes its children along, when its input is closed.

With ``--room FOLDER BYTES`` it first gives itself a file system of that size on FOLDER, which nobody else sees: a
disk that runs full.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import selectors
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

import headrace.flow.validate
import headrace.lake.delta.chunks
from chaos.collecting import collect
from chaos.contracts import CONTRACTS
from chaos.windows import ChaosStream, Failpoint, watch_growth, watch_restores, watch_swaps
from headrace.config.settings import load_settings
from headrace.contracts import EVENTS, Contract
from headrace.core.errors import Fatal, HeadraceError, Retriable
from headrace.flow.commit import Landed
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.pipelines import Kafka, Pipeline, Sqs
from headrace.repair.restore import restore_stream
from headrace.sources.sqs import SqsSource
from headrace.streams.drain import drain

EXIT_RETRIABLE, EXIT_FATAL, EXIT_DEFECT = 75, 65, 70
#: A round of a loop that has nothing to do.
_PAUSE = 0.05
_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWUSER, _REMOUNT, _PRIVATE = 0x20000, 0x10000000, 32, 0x4000 | 0x40000
_PDEATHSIG = 1


@dataclass
class Run:
    """A job within its process."""

    job: dict[str, Any]
    stream: ChaosStream
    points: Failpoint
    landed: Landed

    @property
    def stopping(self) -> bool:
        return Path(self.job["stop"]).exists()

    def retrying(self, work: Callable[[], object]) -> None:
        """Again and again while services are away, as an orchestrator would; then the error is final."""
        deadline = time.monotonic() + self.job["patience"]
        while True:
            try:
                work()
                return
            except Retriable as error:
                logging.warning("again after: %s", error)
                if self.job["strict"] or time.monotonic() > deadline:
                    raise
                self.stream.close()  # as between two runs; the next call connects anew
                threading.Event().wait(_PAUSE)


def keep(run: Run) -> None:
    """Land and publish until told to stop, and then until nothing waits and nothing is in flight."""

    def until_idle() -> None:
        before = run.landed
        for step in drain(run.stream, run.job["source"], _pace(run)):
            run.landed = before + step.landed

    _until_empty(run, until_idle)


def land(run: Run) -> None:
    """Land without publishing, as ``keep`` otherwise."""

    def until_idle() -> None:
        stream = run.stream
        source = stream.source(run.job["source"])
        for landed in ingest(source, stream.contract, stream.lake, stream.limits, _pace(run)):
            run.landed += landed

    _until_empty(run, until_idle)


def _pace(run: Run) -> Pace:
    return Pace(
        run.job["batch_messages"], run.job["idle_seconds"], None, commit_batches=run.job["commit_batches"]
    )


def _until_empty(run: Run, drain: Callable[[], None]) -> None:
    deadline = None
    while True:
        stopping = run.stopping  # before the drain: what was sent by then is in it
        run.retrying(drain)
        if not stopping:
            continue
        deadline = deadline or time.monotonic() + run.job["patience"]
        waits = run.stream.backlog(run.job["source"])
        if not waits.waiting and not waits.in_flight:
            return
        if time.monotonic() > deadline:
            raise Retriable(f"{waits} still waits after {run.job['patience']} s")
        threading.Event().wait(_PAUSE)


def publish(run: Run) -> None:
    """Publish until told to stop, and once more."""
    while True:
        stopping = run.stopping
        run.retrying(run.stream.publish)
        if stopping:
            return


def swap(run: Run) -> None:
    """Rebuild one day after the other until told to stop."""
    while not run.stopping:
        for day in sorted(run.stream.lake.good.counts_by_day()):
            if not run.stopping:
                run.retrying(lambda one=day: dict(run.stream.replace_days([one])))  # type: ignore[misc]
                logging.info("%s is rebuilt", day)
        threading.Event().wait(_PAUSE)


def compact(run: Run) -> None:
    """Compact both tables until told to stop; a compaction that lost a race is simply tried again."""
    while not run.stopping:
        for table in (run.stream.lake.good, run.stream.lake.rejected):
            table.open()
            with suppress(DeltaError), run.points.inside("compaction", Path(table.uri)):
                DeltaTable(table.uri).optimize.compact()
        threading.Event().wait(_PAUSE)


def restore(run: Run) -> None:
    """Take the stream back to a moment, or undo that."""
    to = run.job.get("to")
    run.retrying(lambda: restore_stream(run.stream, datetime.fromisoformat(to) if to else None))


def enlarge(run: Run) -> None:
    """The disk has room again."""
    _mount(Path(run.job["room"]), run.job["bytes"], _REMOUNT)


OPS: dict[str, Callable[[Run], None]] = {
    f.__name__: f for f in (keep, land, publish, swap, compact, restore, enlarge, collect)
}


def pipeline(source: str, contract: Contract = EVENTS) -> Pipeline:
    """The events stream with one source, e.g. ``kafka/<topic>``."""
    kind, _, name = source.partition("/")
    spec = Kafka(name) if kind == "kafka" else Sqs(name)
    return Pipeline(contract, (spec,), "team:chaos", "events under chaos", models="events")


def _tune(names: dict[str, Any], name: str, value: int) -> None:
    assert name in names, f"{name} is gone from the product: adapt the chaos suite"
    names[name] = value


def _set_clock(days: int) -> None:
    """Have the clock that rows are landed by wrong by so many days."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=days)

    assert hasattr(headrace.flow.validate, "datetime"), (
        "the product reads its clock elsewhere: adapt the chaos suite"
    )
    headrace.flow.validate.datetime = Wrong if days else datetime  # type: ignore[attr-defined]


def perform(job: dict[str, Any]) -> int:
    """Do a job in this process; returns its exit status."""
    defaults = SqsSource.__init__.__kwdefaults__
    assert defaults
    _tune(defaults, "visibility_seconds", job["visibility_seconds"])
    _tune(vars(headrace.lake.delta.chunks), "CHUNK_ROWS", job["chunk_rows"])
    point = job.get("failpoint") or {"window": "", "nth": 1, "action": ""}
    _set_clock(int(job["settings"].pop("chaos_clock_days", 0)))
    points = Failpoint(point["window"], point["nth"], point["action"], Path(job["hits"]))
    watch_swaps(points)
    watch_growth(points)
    watch_restores(points)
    result: dict[str, Any] = {"error": "", "kind": ""}
    run: Run | None = None
    code = 0
    try:
        stream = ChaosStream(
            pipeline(job["source"], CONTRACTS[job["contract"]]), load_settings(**job["settings"])
        )
        stream.points = points
        run = Run(job, stream, points, Landed())
        OPS[job["op"]](run)
        stream.close()
    except HeadraceError as error:
        code = EXIT_FATAL if isinstance(error, Fatal) else EXIT_RETRIABLE
        result |= {"error": str(error), "kind": type(error).__name__}
    except Exception as error:
        traceback.print_exc()
        code = EXIT_DEFECT
        result |= {"error": repr(error), "kind": "defect"}
    landed = run.landed if run else Landed()
    gaps = [[g.cursor, g.first, g.end] for g in landed.gaps]
    result |= {"messages": landed.messages, "repeated": landed.repeated, "gaps": gaps, "code": code}
    Path(job["result"]).write_text(json.dumps(result))
    return code


def _child(job: dict[str, Any]) -> int:
    _LIBC.prctl(_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    logging.getLogger("kafka").setLevel(logging.ERROR)
    try:
        return perform(job)
    except BaseException:
        traceback.print_exc()
        return EXIT_DEFECT
    finally:
        sys.stderr.flush()


def _mount(folder: Path, size: int, flags: int = 0) -> None:
    if _LIBC.mount(b"none", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))


def _own_disk(folder: Path, size: int) -> None:
    user, group = os.getuid(), os.getgid()
    if _LIBC.unshare(_NEWNS if user == 0 else _NEWNS | _NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "unshare")
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _LIBC.mount(b"none", b"/", None, _PRIVATE, None)
    _mount(folder, size)


def serve() -> None:
    """Fork a child for each job; tell what becomes of the children."""
    out = os.dup(1)
    os.dup2(2, 1)

    def tell(**event: object) -> None:
        os.write(out, json.dumps(event).encode() + b"\n")

    woken, waker = os.pipe()
    for fd in (woken, waker):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    children: set[int] = set()
    tell(event="ready")
    pending = b""
    while True:
        for key, _ in selector.select():
            if key.fd == woken:
                os.read(woken, 4096)
                _reap(children, tell)
                continue
            data = os.read(0, 1 << 16)
            if not data:
                for pid in children:
                    os.kill(pid, signal.SIGKILL)  # our own children, not yet waited for
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    os._exit(_child(json.loads(line)))
                children.add(pid)
                tell(event="started", pid=pid)


def _reap(children: set[int], tell: Callable[..., None]) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                tell(event="stopped", pid=pid)
            elif os.WIFCONTINUED(status):
                tell(event="running", pid=pid)
            else:
                children.discard(pid)
                tell(event="exit", pid=pid, code=os.waitstatus_to_exitcode(status))


def main() -> int:
    parser = argparse.ArgumentParser(description="forks workers of the chaos suite")
    parser.add_argument("--room", nargs=2, metavar=("FOLDER", "BYTES"))
    given = parser.parse_args()
    if given.room:
        try:
            _own_disk(Path(given.room[0]), int(given.room[1]))
        except OSError as error:
            print(json.dumps({"event": "refused", "why": str(error)}), flush=True)
            return 1
    serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
