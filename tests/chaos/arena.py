"""Where a cell is played: a topic or queue, a lake and a database of its own on a shared embedded stack."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient

from chaos.door import Door, HttpPort
from chaos.durable import Durable, Durables
from chaos.faults import kill_service
from chaos.judge import Evidence, Judgement, Message, Records, Row, judge
from chaos.launcher import Launcher, Worker
from chaos.matrix import DURABLE, QUEUES, Cell
from chaos.producer import PARTITIONS, KafkaPort, Port, Sender, SqsPort, held, waiting
from chaos.reader import Lake, Reader, Warehouse
from chaos.rows import TABLES, Naming, by_id, by_origin
from chaos.windows import INSIDE
from headrace.local.broker import create_topics
from headrace.local.embedded import EmbeddedStack
from headrace.local.queue import create_queues

#: Kills that one embedded stack gets: its supervisor gives up after six deaths within a minute each.
_KILLS_PER_STACK = 4
_POLL = 0.05


@dataclass(frozen=True)
class Size:
    """How large a cell is.

    Attributes:
        messages: Acknowledged messages at least.
        batches: Micro-batches that these need at least.
        visibility_seconds: Of a received SQS message, instead of the product's minutes: it is what a killed
            receiver costs. The same for every worker.
        commit_batches: Micro-batches of one commit at most, so that there are several commits. The same for every
            worker.
        chunk_rows: Rows of one insert, so that a lake version has several: fewer than a version has of one day, so that
            a file is one. The same for every worker.
        patience: Seconds that anything may take before it counts as failed.
    """

    messages: int = 1_500
    batches: int = 10
    visibility_seconds: int = 3
    commit_batches: int = 3
    chunk_rows: int = 20
    patience: float = 60.0

    @property
    def batch_messages(self) -> int:
        return self.messages // self.batches


class Bench:
    """Context manager: embedded stack, launcher and a folder, shared by all cells.

    Args:
        root: Folder for everything.
        keep: Folder for the workers' logs of cells that are worth a look.
    """

    def __init__(self, root: Path, *, size: Size | None = None, keep: Path | None = None) -> None:
        self.root, self.size, self.keep = root, size or Size(), keep
        self._kept = ExitStack()
        self._stack = ExitStack()
        self._kills = 0
        self._cells = 0
        self.home = root
        self.settings: dict[str, Any] = {}

    def __enter__(self) -> Bench:
        self.launcher = self._kept.enter_context(Launcher())
        self.durables = self._kept.enter_context(Durables(self.root / "durable"))
        self._kept.callback(self._stop)
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def _stop(self) -> None:
        self._stack.close()

    def _start(self) -> None:
        self.home = self.root / f"stack-{self._cells}"
        endpoints = self._stack.enter_context(EmbeddedStack(self.home, topics={}, queues=()))
        self.settings = {name.removeprefix("HEADRACE_").lower(): value for name, value in endpoints.items()}
        self._kills = 0

    def kill(self, service: str) -> None:
        """kill -9 of a service of the stack."""
        kill_service(self.home, service)
        self._kills += 1

    @contextmanager
    def arena(self, cell: Cell) -> Iterator[Arena]:
        """A new arena; a new stack where the present one has been through too much.

        Raises:
            Missing: The cell's broker or queue is not at hand.
        """
        if self._kills >= _KILLS_PER_STACK:
            self._stop()
            self._stack = ExitStack()
            self._start()
        durable = self.durables.get(cell.broker) if cell.broker in DURABLE else None
        self._cells += 1
        arena = Arena(self, cell, self._cells, durable)
        try:
            yield arena
        finally:
            arena.close()


class Arena:
    """One cell's own topic or queue, lake, database and processes."""

    def __init__(self, bench: Bench, cell: Cell, number: int, durable: Durable | None) -> None:
        self.bench, self.cell, self.size, self.durable = bench, cell, bench.size, durable
        self.folder = bench.root / f"cell-{number}"
        self.folder.mkdir(parents=True)
        self.name = f"chaos_{number}"
        self.kafka = cell.broker not in QUEUES
        self.source = f"{'kafka' if self.kafka else 'sqs'}/{self.name}"
        self.lake = self.folder / "lake"
        self.lake.mkdir()
        self.database = f"raw_{number}"
        #: Where everything really is, whatever a scenario puts before it for Headrace.
        self.services = {**bench.settings, **(durable.settings if durable else {})}
        self.warehouse = bench.settings  # how who judges reaches it
        self.settings = {**self.services, "lake_uri": str(self.lake), "raw_database": self.database}
        self.launcher = bench.launcher
        self.contract = "old"  # of workers that are started from now on
        self.job: dict[str, Any] = {}  # what their jobs have besides
        self.hits_file = self.folder / "hits"
        self.hits: list[str] = []
        self.objections: list[str] = []
        self.notes: list[str] = []  # worth a look, and no breach
        self.unreadable: list[str] = []
        self.forgotten: frozenset[Message] = frozenset()
        self.offsets: int | None = None  # end minus begin, where it must be asked early
        self.whole = False  # several incarnations of the topic
        self._jobs = 0
        self.door = Door(self.folder / "door") if cell.door else None
        self.sender: Sender | None = None
        self.reader: Reader | None = None
        self._seen: tuple[dict[str, list[Row]], dict[str, list[Row]]] | None = None

    def open(self, *, watch_lake: bool = True) -> None:
        """Create topic or queue, and begin to send and to watch."""
        self.create()
        self.sender = self.produce(self.size.messages)
        self.watch(lake=watch_lake)

    def watch(self, *, lake: bool = True) -> None:
        """Watch warehouse and lake, anew if that was done before."""
        if self.reader:
            self.reader.finish()
            self.objections += self.reader.objections
        naming = by_id() if self.door else None
        self.reader = Reader(self.lake if lake else None, self.warehouse, self.database, naming)
        self.reader.start()

    def create(self) -> None:
        """The topic or the queue."""
        if self.kafka:
            create_topics(self.settings["kafka_bootstrap_servers"], {self.name: PARTITIONS})
        else:
            create_queues(self.services["sqs_endpoint_url"], [self.name])

    def topic_id(self) -> str:
        """The broker's id of the topic."""
        admin = KafkaAdminClient(bootstrap_servers=self.settings["kafka_bootstrap_servers"])
        try:
            return str(admin.describe_topics([self.name])[0]["topic_id"])
        finally:
            admin.close()

    def produce(self, messages: int) -> Sender:
        """A producer that has begun to send."""
        port: Port
        if self.door:
            port = HttpPort(self.door.url, self.door.key)
        elif self.kafka:
            port = KafkaPort(self.settings["kafka_bootstrap_servers"], self.name)
        else:
            port = SqsPort(self.services["sqs_endpoint_url"], self.name)
        sender = Sender(port, messages, tombstones=self.kafka and not self.door)
        sender.start()
        return sender

    def start(
        self,
        op: str,
        *,
        failpoint: dict[str, Any] | None = None,
        home: str = "here",
        stop: str = "stop",
        strict: bool = False,
        launcher: Launcher | None = None,
        **more: Any,
    ) -> Worker:
        """Start a worker. ``home`` names a machine: locks reach no further. ``stop`` names its stop file."""
        self._jobs += 1
        base = self.folder / f"job-{self._jobs}"
        quick = {"breaker_seconds": 1.0, "retry_max_seconds": 0.5}  # what is struck here is back soon
        settings = {**self.settings, **quick, "home": str(self.folder / home), "sqs_receivers": 4}
        job = {
            "op": op,
            "source": self.source,
            "settings": settings,
            "failpoint": failpoint,
            "hits": str(self.hits_file),
            "stop": str(self.folder / stop),
            "result": f"{base}.json",
            "log": f"{base}.log",
            "strict": strict,
            "patience": self.size.patience,
            "batch_messages": self.size.batch_messages,
            "idle_seconds": 0.3,
            "visibility_seconds": self.size.visibility_seconds,
            "commit_batches": self.size.commit_batches,
            "chunk_rows": self.size.chunk_rows,
            "contract": self.contract,
            **self.job,
            **more,
        }
        return (launcher or self.launcher).start(job)

    def failpoint(self) -> dict[str, Any]:
        """The cell's: the n-th passing, of as many as there are at least."""
        # a batch of a queue is a commit; one for each of five days, the first aside, are the chunks of a commit
        together = 1 if self.cell.source == "sqs" else self.size.commit_batches
        commits = 1 + -(-(self.size.batches - 1) // together)
        passings = {
            "between_tables": commits,
            "mid_write": commits,
            "written_not_acknowledged": commits,
            "mid_publish": 4 * commits,
            "published_not_recorded": 2 * commits,
            "swap_staged": 4,
            "swapped": 4,
        }
        if self.cell.window == "growing":
            return {"window": "growing", "nth": 1, "action": self.cell.action}
        least = 4 if self.cell.window == "compaction" else passings.get(self.cell.window, self.size.batches)
        nth = max(1, round(self.cell.at / 100 * least))
        return {"window": self.cell.window, "nth": nth, "action": self.cell.action}

    def until(self, holds: Callable[[], object], what: str) -> bool:
        """Poll until true; an objection after ``patience``."""
        deadline, never = time.monotonic() + self.size.patience, threading.Event()
        while not holds():
            if time.monotonic() > deadline:
                self.objections.append(f"{what} did not happen within {self.size.patience} s")
                return False
            never.wait(_POLL)
        return True

    def strike(self) -> Worker | None:
        """Start the victim and wait until its window is hit; try again if delta-rs was quicker than the fault."""
        for _ in range(8):
            seen = len(self._hit_lines())
            victim = self.start(self.cell.op, failpoint=self.failpoint())
            struck = self.until(
                lambda v=victim, n=seen: len(self._hit_lines()) > n or v.state == "exit",  # type: ignore[misc]
                f"the window {self.cell.window}",
            )
            lines = self._hit_lines()[seen:]
            if not struck or not lines:
                self.objections.append(
                    f"the victim ended with {victim.code} before its window: {_last(victim)}"
                )
                return None
            if self.cell.action in ("kill", "freeze") and not victim.wait("exit", "stopped"):
                self.objections.append("the victim survived")
            if (
                self.cell.window not in INSIDE
                or "file" not in lines[0]
                or self._uncommitted(lines[0]["file"])
            ):
                self.hits.append(f"{lines[0]['window']} #{lines[0]['passing']}")
                return victim
            self.thaw(victim, kill=True)
        return None

    def _hit_lines(self) -> list[dict[str, Any]]:
        if not self.hits_file.exists():
            return []
        return [json.loads(line) for line in self.hits_file.read_text().splitlines()]

    def _uncommitted(self, file: str) -> bool:
        lake = Lake(self.lake)
        present = [t for t in TABLES if (self.lake / t / file).exists()]
        return bool(present) and not any(lake.committed(table, file) for table in TABLES)

    def thaw(self, victim: Worker, *, kill: bool = False) -> None:
        """Let a frozen process go on, or end it."""
        victim.send(signal.SIGKILL if kill else signal.SIGCONT)
        if kill:
            victim.wait("exit")

    def settle(self, *workers: Worker | None) -> None:
        """End the producer, let every worker finish, and finish what they left; errors become objections."""
        if self.sender:
            self.sender.finish()
            if self.sender.failure:
                self.unreadable.append(f"the producer failed: {self.sender.failure!r}")
        self.stop()
        clean = False
        for worker in workers:
            if worker is not None:
                clean = self.ended(worker) and worker.job["op"] == "keep"
        attempts = 0
        while not clean and attempts < 3:
            attempts += 1
            worker = self.start("keep")
            clean = worker.wait("exit", within=2 * self.size.patience) and worker.code == 0
        if not clean:
            self.objections.append(f"not even a fresh worker finishes: {_last(worker)}")
        if self.reader:
            self.reader.finish()

    def stop(self, name: str = "stop") -> None:
        """Tell workers to finish."""
        (self.folder / name).touch()

    def ended(self, worker: Worker) -> bool:
        """Whether it ended well; anything else than a service that was away is an objection."""
        if not worker.wait("exit", within=2 * self.size.patience):
            self.objections.append(f"{worker.job['op']} does not end: {_last(worker)}")
            self.thaw(worker, kill=True)
            return False
        if worker.code not in (0, 75):
            self.objections.append(f"{worker.job['op']} ended with {worker.code}: {_last(worker)}")
        elif worker.code:
            self.notes.append(f"{worker.job['op']} gave up, a fresh one finished: {_last(worker)}")
        return worker.code == 0

    def ask_offsets(self) -> None:
        """End minus begin offsets from the broker, once."""
        assert self.sender is not None
        if self.offsets is None:
            servers = self.settings["kafka_bootstrap_servers"]
            self.offsets = held(servers, self.name, self.sender.acknowledged)

    @property
    def naming(self) -> Naming:
        """What tells rows apart."""
        return by_id() if self.door else by_origin(whole=self.whole)

    def landed_whole(self, known: Mapping[Message, Records]) -> set[Message]:
        """Messages of which the lake holds every record."""
        lake = Lake(self.lake, self.naming)
        good, rejected = (Counter(row[:2] for row in set(lake.rows(table))) for table in TABLES)
        return {m for m, r in known.items() if (good[m], rejected[m]) == (r.good, r.rejected)}

    def collect(self) -> None:
        """Collect the evidence, once: a scenario does so before it takes away what holds it."""
        if self._seen is not None:
            return
        lake: dict[str, list[Row]] = {table: [] for table in TABLES}
        there: dict[str, list[Row]] = {table: [] for table in TABLES}
        try:
            if self.kafka and not (self.whole or self.door):
                self.ask_offsets()
            elif not self.kafka and (left := waiting(self.services["sqs_endpoint_url"], self.name)):
                self.objections.append(f"{left} messages are still in the queue")
            lake = {table: Lake(self.lake, self.naming).rows(table) for table in TABLES}
            warehouse = Warehouse(self.warehouse, self.database, self.naming)
            there = {table: warehouse.rows(table) for table in TABLES}
            warehouse.drop()
            warehouse.close()
        except Exception as error:
            self.unreadable.append(f"{type(error).__name__}: {error}")
        self._seen = lake, there

    def judged(self) -> Judgement:
        """Collect the evidence and judge it."""
        assert self.sender is not None and self.reader is not None
        self.collect()
        assert self._seen is not None
        lake, there = self._seen
        if not self.reader.looks:
            self.unreadable.append("the concurrent reader never saw anything")
        return judge(
            Evidence(
                self.sender.acknowledged,
                self.offsets,
                *lake.values(),
                *there.values(),
                forgotten=self.forgotten,
                objections=[*self.objections, *self.sender.objections, *self.reader.objections],
                unreadable=self.unreadable,
                window_hit=bool(self.hits),
            )
        )

    def keep_logs(self) -> None:
        """Copy what the workers said to the bench's ``keep``, if there is one."""
        if self.bench.keep:
            into = self.bench.keep / re.sub(r"\W+", "-", self.cell.name)
            into.mkdir(parents=True, exist_ok=True)
            for file in (*self.folder.glob("job-*"), self.hits_file):
                if file.is_file():
                    shutil.copy(file, into)

    def close(self) -> None:
        """End every process of the cell, whatever happened, and remove its files."""
        for thread in (self.sender, self.reader):
            if thread and thread.is_alive():
                thread.finish(now=True) if isinstance(thread, Sender) else thread.finish()
        self.launcher.end_all()
        shutil.rmtree(self.folder, ignore_errors=True)


def _last(worker: Worker) -> str:
    lines = [line for line in re.split(r"\n+", worker.said.strip()) if line]
    return lines[-1][:300] if lines else "it said nothing"
