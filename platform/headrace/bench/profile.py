"""Profile the hot path: py-spy samples a process that drains a topic, a hundred times a second.

``python -m headrace.bench.profile TOPIC MESSAGES`` is that process.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from headrace.bench.load import Seeded
from headrace.bench.tasks import own_stream
from headrace.config.settings import Settings, child_environment, settings
from headrace.core.errors import Fatal
from headrace.pipelines import Kafka
from headrace.streams.drain import drain

_PER_SECOND = 100
#: Stage of a frame, by a part of its file's path. The innermost frame with a stage decides.
STAGES = {
    "fetch: network, CRC, decompression": (" (kafka/", " (lz4/"),
    "record batches to columns": ("/sources/",),
    "decode JSON": ("/contracts/wire/",),
    "check against the contract": ("/contracts/", " (pandera/"),
    "Delta: open, write, commit": ("/lake/", " (deltalake/"),
    "publish: read the lake": ("headrace/flow/publish.py",),
    "publish: insert into ClickHouse": ("/warehouse/", " (clickhouse_connect/"),
    "drop what has landed before": ("headrace/flow/commit.py",),
}
_OTHER = "everything else"
_WAITING = "waiting for another thread, or for the next batch"
_WAITS = (" (threading.py", " (selectors.py", " (queue.py", " (concurrent/futures/")
_RUN = "drain (headrace/streams/drain.py"


@dataclass(frozen=True, slots=True)
class Stage:
    """Share of the run's time that one stage takes, s/s.

    Attributes:
        name: Name for people.
        leading: Share in the thread that leads the run. The stages add up to 1.
        others: Share in all other threads, which work at the same time.
    """

    name: str
    leading: float
    others: float


def profile(settings: Settings, seeded: Seeded) -> tuple[Stage, ...]:
    """Drain the topic to Delta and ClickHouse under py-spy.

    Raises:
        Fatal: py-spy is not installed, or the system does not let it sample other processes.
    """
    assert isinstance(seeded.place, Kafka)
    spy, out = Path(sys.executable).with_name("py-spy"), settings.home / "profile.txt"
    if not spy.exists():
        raise Fatal("py-spy is not installed; 'make bench' does that, in an environment of its own")
    command = [str(spy), "record", "--format", "raw", "--rate", str(_PER_SECOND), "--idle", "--threads"]
    command += ["--nonblocking", "--output", str(out), "--", sys.executable, "-m", __name__]
    command += [seeded.place.topic, str(seeded.acknowledged)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=False)
    if done.returncode or not out.exists():
        raise Fatal(f"py-spy ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
    return summarised(out.read_text().splitlines())


def summarised(stacks: Iterable[str]) -> tuple[Stage, ...]:
    """Attribute py-spy's samples to stages, the longest first.

    Args:
        stacks: ``thread;outermost (file:line);...;innermost (file:line) samples``, as py-spy writes them.

    Raises:
        Fatal: No stack contains the run.
    """
    leading: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for line in stacks:
        stack, _, samples = line.rpartition(" ")
        _, *frames = stack.split(";")
        if any(_RUN in frame for frame in frames):
            leading[_stage(frames)] += int(samples)
        elif frames and "Thread._bootstrap (" in frames[0] and not _waits(frames):
            others[_stage(frames)] += int(samples)
    whole = leading.total()
    if not whole:
        raise Fatal("py-spy saw nothing of the run: give it more events")
    both = leading + others
    return tuple(Stage(name, leading[name] / whole, others[name] / whole) for name, _ in both.most_common())


def _stage(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, files in STAGES.items():
            if any(file in frame for file in files):
                idle = _waits(frames) and name == "drop what has landed before"
                return _WAITING if idle else name
    return _WAITING if _waits(frames) else _OTHER


def _waits(frames: list[str]) -> bool:
    return any(wait in frames[-1] for wait in _WAITS)


def drained(topic: str, messages: int) -> None:
    """Drain the topic. This is the run to sample."""
    enough = Event()
    with own_stream(settings(), Kafka(topic)) as stream:
        pace = replace(stream.pace, max_seconds=None)
        for step in drain(stream, f"kafka/{topic}", pace, stopping=enough.is_set):
            if step.landed.messages >= messages:
                enough.set()


if __name__ == "__main__":
    drained(sys.argv[1], int(sys.argv[2]))
