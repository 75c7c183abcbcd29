"""The cells: what is struck, where, how, and how far on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chaos.judge import Verdict

SOURCES = ("kafka", "sqs")
INGEST = ("before_write", "between_tables", "mid_write", "written_not_acknowledged")
PUBLISH = ("mid_publish", "published_not_recorded")
PLACES = (10, 50, 90)
#: Of a collector, in the order in which a request passes them.
DOOR_WINDOWS = (
    "before_append",
    "before_sync",
    "before_index",
    "before_answer",
    "before_dispatch",
    "after_dispatch",
    "before_look",
    "before_index_sync",
    "before_removal",
    "in_removal",
)
#: The same in a worker in front of the process with the log, and of that process.
WORKER_WINDOWS = ("before_hand_over", "after_hand_over", "before_told")
OWNER_WINDOWS = ("before_append", "before_sync", "before_index", "before_answer")
#: Brokers and queues that keep what they acknowledged (``durable.py``): their own kill -9 must cost nothing.
DURABLE = {"apache": "broker", "tansu-s3": "broker", "elasticmq": "queue"}
QUEUES = ("sqs", "elasticmq")


@dataclass(frozen=True)
class Cell:
    """One run of the chaos suite.

    Attributes:
        source: ``kafka`` or ``sqs``, the embedded ones; a key of ``DURABLE``; ``http`` for a collector in front of
            the embedded broker, ``http/apache`` for one in front of that.
        window: Where the fault strikes: a name of ``windows.WINDOWS``, or a service.
        action: What happens there.
        at: Per cent of the way.
        op: What the victim does (``worker.OPS``).
        beside: What other workers do meanwhile.
        scenario: The function of ``runner.py`` that plays it.
        contract: The victim's, where processes of two versions land: ``old`` or ``new``; empty elsewhere.
        expect: VIOLATED for negative controls, whose breach the judge must see.
    """

    source: str
    window: str
    action: str
    at: int = 50
    op: str = "keep"
    beside: tuple[str, ...] = ()
    scenario: str = "fault"
    contract: str = ""
    expect: Verdict = Verdict.VERIFIED

    @property
    def door(self) -> bool:
        """Whether producers send to a collector."""
        return self.source.startswith("http")

    @property
    def workers(self) -> int:
        """How many processes speak HTTP in front of the one with the log; 0 if that does it itself."""
        return 2 if self.action in ("kill_worker", "freeze_worker", "kill_owner", "kill_all") else 0

    @property
    def broker(self) -> str:
        """Where what was sent is read from."""
        return (self.source.partition("/")[2] or "kafka") if self.door else self.source

    @property
    def name(self) -> str:
        """As the report shows it, and ``--only`` selects it."""
        parts = [self.source, self.window, self.action, str(self.at)]
        if self.op != "keep":
            parts[1] += f"({self.op})"
        if self.contract:
            parts[1] += f"(rolling,{self.contract})"
        if self.beside and self.op == "keep":
            parts[1] += f"(beside {','.join(self.beside)})"
        return " ".join(parts)


def matrix() -> list[Cell]:
    """All cells, in the order of running: kills of one service are far apart."""
    return [
        *_kills(),
        *_errors(),
        *_zombies(),
        *_rolling(),
        *_restores(),
        *_services(),
        *_door(),
        *_durable(),
        *controls(),
    ]


def _kills() -> Iterator[Cell]:
    for source in SOURCES:
        for at in PLACES:
            for window in INGEST:
                yield Cell(source, window, "kill", at)
            for window in PUBLISH:
                yield Cell(source, window, "kill", at, op="publish", beside=("land",))
            yield Cell(source, "clickhouse", "kill", at, scenario="service_kill")
        yield Cell(source, "compaction", "kill", 50, op="compact", beside=("keep",))
        yield Cell(source, "mid_write", "kill", 50, beside=("compact",))
        for window in ("swap_staged", "swapped"):
            yield Cell(source, window, "kill", 50, op="swap", beside=("keep",))


def _errors() -> Iterator[Cell]:
    for source in SOURCES:
        for window in ("before_write", "between_tables", "written_not_acknowledged", *PUBLISH):
            yield Cell(source, window, "error")


def _zombies() -> Iterator[Cell]:
    for source in SOURCES:
        for window in INGEST:
            yield Cell(source, window, "freeze", scenario="zombie")
        for window in PUBLISH:
            yield Cell(source, window, "freeze", op="publish", beside=("land",), scenario="zombie")
        for window in ("swap_staged", "swapped"):
            yield Cell(source, window, "freeze", op="swap", beside=("keep",), scenario="thaw")
        yield Cell(source, "compaction", "freeze", op="compact", beside=("keep",), scenario="thaw")


def _rolling() -> Iterator[Cell]:
    """Processes of a new contract replace those of an old one; one of either is struck, the others land on."""
    for source in SOURCES:
        for contract in ("old", "new"):
            for window in INGEST:
                yield Cell(source, window, "kill", 50, scenario="rolling", contract=contract)
            yield Cell(source, "mid_write", "freeze", 50, scenario="rolling", contract=contract)
        yield Cell(source, "growing", "kill", 1, scenario="rolling", contract="new")
        yield Cell(source, "growing", "freeze", 1, scenario="rolling", contract="new")


def _restores() -> Iterator[Cell]:
    """A restore is struck between the two tables of a stream, run again, and undone."""
    for source in SOURCES:
        for action in ("kill", "freeze"):
            yield Cell(source, "between_restores", action, 1, op="restore", scenario="restored")


def _services() -> Iterator[Cell]:
    for source in SOURCES:
        for service in ("clickhouse", source):
            for action in ("reset", "slow"):
                yield Cell(source, service, action, 10, scenario="network")
        for at in (10, 50):
            yield Cell(source, "lake", "full_disk", at, scenario="full_disk")
        yield Cell(source, source, "forgets", 50, scenario="forgetful")
        for at in PLACES:
            yield Cell(source, "machine", "power_cut", at, scenario="power_cut")
        yield Cell(source, "between_tables", "freeze_stricter", 1, scenario="stricter")
    yield Cell("sqs", "written_not_acknowledged", "kill_clock_behind", 50, scenario="wrong_clock")
    yield Cell("kafka", "between_tables", "kill_then_later", 10, scenario="clock")


def _durable() -> Iterator[Cell]:
    yield Cell("http/apache", "broker", "kill", 50, scenario="door_broker_kill")
    for source, service in DURABLE.items():  # one after the other: they do not all fit beside each other
        for at in PLACES:
            yield Cell(source, service, "kill", at, scenario="source_kill")
        for window in INGEST:
            yield Cell(source, window, "kill", 50)
            if source == "apache":
                yield Cell(source, window, "freeze", 50, scenario="zombie")


def _door() -> Iterator[Cell]:
    """A collector is struck, or what it needs; a fifth of the requests come twice or three times."""
    for window in DOOR_WINDOWS:
        yield Cell("http", window, "kill", 50, scenario="door_fault")
    for at in PLACES:
        yield Cell("http", "collector", "kill", at, scenario="door_kill")
        yield Cell("http", "machine", "power_cut", at, scenario="door_power_cut")
    yield Cell("http", "collector", "freeze", 50, scenario="door_freeze")
    yield Cell("http", "broker", "forgets", 50, scenario="door_forgetful")
    yield Cell("http", "broker", "away", 10, scenario="door_outage")
    yield Cell("http", "broker", "away", 600, scenario="door_outage")
    yield Cell("http", "log", "full_disk", 50, scenario="door_full_disk")
    for window in WORKER_WINDOWS:
        yield Cell("http", window, "kill_worker", 50, scenario="workers_fault")
    yield Cell("http", "hangs", "freeze_worker", 50, scenario="workers_fault")
    for window in OWNER_WINDOWS:
        yield Cell("http", window, "kill_owner", 50, scenario="door_fault")
    yield Cell("http", "owner", "kill_owner", 50, scenario="door_kill")
    yield Cell("http", "owner and workers", "kill_all", 50, scenario="door_kill")


def door_controls() -> Iterator[Cell]:
    """A collector that breaks its word."""
    yield Cell("http", "answers_first", "kill", 50, scenario="door_fault", expect=Verdict.VIOLATED)
    yield Cell("http", "answers_first", "kill_owner", 50, scenario="door_fault", expect=Verdict.VIOLATED)
    yield Cell("http", "answers_itself", "kill_worker", 50, scenario="workers_fault", expect=Verdict.VIOLATED)
    yield Cell("http", "before_index", "kill_and_forget", 50, scenario="door_fault", expect=Verdict.VIOLATED)
    yield Cell(
        "http", "broker", "forgets_what_was_cut", 50, scenario="door_forgetful", expect=Verdict.VIOLATED
    )
    yield Cell("http", "machine", "unsynced", 50, scenario="door_power_cut", expect=Verdict.VIOLATED)


def controls() -> Iterator[Cell]:
    """Negative controls: what a broken protocol would do, injected below it."""
    for source in SOURCES:
        for action in ("double_lake", "drop_lake"):
            yield Cell(source, "mid_write", action, expect=Verdict.VIOLATED)
        for action in ("double_warehouse", "drop_warehouse"):
            yield Cell(source, "published_not_recorded", action, expect=Verdict.VIOLATED)
        for action in ("double_lake", "drop_lake"):
            yield Cell(
                source, "mid_write", action, scenario="rolling", contract="new", expect=Verdict.VIOLATED
            )
    yield Cell("sqs", "machine", "unsynced", 50, scenario="power_cut", expect=Verdict.VIOLATED)
    yield from door_controls()


#: The short form: one of each kind.
SHORT = (
    Cell("kafka", "between_tables", "kill", 50),
    Cell("sqs", "written_not_acknowledged", "kill", 50),
    Cell("kafka", "mid_write", "kill", 10),
    Cell("sqs", "before_write", "freeze", scenario="zombie"),
    Cell("kafka", "mid_publish", "kill", 50, op="publish", beside=("land",)),
    Cell("sqs", "published_not_recorded", "error"),
    Cell("kafka", "swap_staged", "kill", 50, op="swap", beside=("land",)),
    Cell("kafka", "clickhouse", "kill", 10, scenario="service_kill"),
    Cell("kafka", "growing", "kill", 1, scenario="rolling", contract="new"),
    Cell("http", "before_index", "kill", 50, scenario="door_fault"),
    Cell("http", "machine", "power_cut", 50, scenario="door_power_cut"),
)
SHORT_CONTROLS = (
    Cell("kafka", "mid_write", "double_lake", expect=Verdict.VIOLATED),
    Cell("kafka", "mid_write", "drop_lake", expect=Verdict.VIOLATED),
    Cell("sqs", "published_not_recorded", "double_warehouse", expect=Verdict.VIOLATED),
    Cell("sqs", "published_not_recorded", "drop_warehouse", expect=Verdict.VIOLATED),
    *(control for control in door_controls() if not control.workers),
)
#: What is done by controls that lose; the others double.
LOSES = (
    "drop_lake",
    "drop_warehouse",
    "kill",
    "kill_owner",
    "kill_worker",
    "forgets_what_was_cut",
    "unsynced",
)
