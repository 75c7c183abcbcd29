"""Two homes on one warehouse, as two machines have them: one ingests, one replaces days; nothing is lost or doubled."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from builders import NOW, event, eventually
from conftest import Stack
from headrace.contracts import EVENTS, Limits, check_batch
from headrace.core.batch import MicroBatch
from headrace.core.errors import HistoryGone, Retriable
from headrace.lake import LakeVersion
from headrace.streams.stream import Stream, streams

DAY = date(2026, 1, 1)
COMMITS, ROWS = 25, 20

Homes = Callable[[], Stream]
Work = Callable[[Stream], None]


@pytest.fixture
def homes(stack: Stack, tmp_path: Path) -> Iterator[Homes]:
    """Each call is the stream ``events`` on another machine, of one lake and one warehouse."""
    shared = {
        "raw_database": f"raw_{uuid.uuid4().hex[:8]}",
        "lake_uri": str(tmp_path / "lake"),
        "lake_sync": False,
    }
    opened: list[Stream] = []

    def another() -> Stream:
        home = tmp_path / f"home {len(opened)}"
        opened.append(streams(stack.settings.model_copy(update={**shared, "home": home}))["events"])
        return opened[-1]

    yield another
    for one in opened:
        one.close()


def land(stream: Stream, batch_of: Callable[..., MicroBatch], number: int) -> None:
    ids = range(number * ROWS, (number + 1) * ROWS)
    payloads = [event(event_id=str(n), occurred_at=f"{DAY}T10:00:00Z") for n in ids]
    name = str(uuid.uuid4())
    batch = batch_of(payloads, start=ids.start)
    good = check_batch(EVENTS, batch, batch_id=name, now=NOW, limits=Limits()).good
    stream.lake.good.open().append(good, {"test/0": ids.stop}, name)


def live_view(stream: Stream) -> None:
    """Feed a view by what is inserted, as the speed layer's are."""
    stream.prepare()
    raw = stream.settings.raw_database
    for statement in (
        f"CREATE TABLE {raw}.live (day Date, rows UInt64) ENGINE = SummingMergeTree ORDER BY day"
        " SETTINGS non_replicated_deduplication_window = 10000",
        f"CREATE MATERIALIZED VIEW {raw}.live_view TO {raw}.live AS"
        f" SELECT event_date AS day, count() AS rows FROM {raw}.events GROUP BY day",
    ):
        stream.warehouse._server.command(statement)


def found(stream: Stream) -> dict[str, int]:
    raw = stream.settings.raw_database
    [(rows, ids)] = stream.warehouse.query(f"SELECT count(), uniqExact(event_id) FROM {raw}.events")
    [(live,)] = stream.warehouse.query(f"SELECT sum(rows) FROM {raw}.live")
    return {"rows": int(rows), "ids": int(ids), "live": int(live)}


class Killed(BaseException):
    """The process dies here."""


class Frozen:
    """A home that stops before one of the statements that it sends, without a sign of life, and goes on later.

    Args:
        stream: The home's stream.
        before: Number of the statement, or what is in its text.
        then_dies: Whether the process is killed once that statement has been answered.
    """

    def __init__(self, stream: Stream, before: int | str, then_dies: bool = False) -> None:
        self._server = stream.warehouse._server
        self._before, self._then_dies, self._sent = before, then_dies, 0
        self._dead = False
        self.stands, self._goes_on = threading.Event(), threading.Event()

    def __enter__(self) -> Frozen:
        send, text = self._server._tried, ""

        def named(method: Callable[..., Any]) -> Callable[..., Any]:
            def called(*arguments: Any, **more: Any) -> Any:
                nonlocal text
                text = " ".join([method.__name__, *map(str, arguments[:2])])
                return method(*arguments, **more)

            return called

        def sent(call: Any) -> Any:
            number, self._sent = self._sent, self._sent + 1
            if self._dead:
                raise Killed
            if self.stands.is_set() or not (
                number == self._before if isinstance(self._before, int) else self._before in text
            ):
                return send(call)
            self.stands.set()
            assert self._goes_on.wait(60)
            self._dead = self._then_dies
            return send(call)

        self._server._tried = sent  # type: ignore[method-assign]
        for name in ("insert", "command", "once", "query"):
            setattr(self._server, name, named(getattr(self._server, name)))
        return self

    def go_on(self) -> None:
        self._goes_on.set()

    def __exit__(self, *_: object) -> None:
        for name in ("_tried", "insert", "command", "once", "query"):
            delattr(self._server, name)


def publishes(stream: Stream) -> None:
    stream.publish()


def replaces_the_day(stream: Stream) -> None:
    dict(stream.replace_days([DAY]))


def publishes_whole(stream: Stream) -> None:
    """Replace every day, as where the log is gone: without the tokens of the versions that are in."""

    def gone(version: int) -> LakeVersion:
        raise HistoryGone(f"version {version} is gone")

    stream.lake.good.describe = gone  # type: ignore[method-assign]
    stream.publish()
    del stream.lake.good.describe


@dataclass
class Race:
    """Two homes, one of which is frozen while the other works.

    Args:
        homes: Opens them.
        batch_of: Makes micro-batches.
        fenced: Whether there are leases; if not, each home has its file locks alone.
    """

    homes: Homes
    batch_of: Callable[..., MicroBatch]
    fenced: bool
    landed: int = 0

    def __post_init__(self) -> None:
        self.here, self.there = self.homes(), self.homes()
        for one, stale in ((self.here, 60.0), (self.there, 0.1)):
            one.warehouse._unfenced = not self.fenced
            one.warehouse._leases._stale, one.warehouse._leases._beat = stale, 1_000
        live_view(self.here)
        self.land(self.here)
        self.here.publish()

    def land(self, stream: Stream) -> None:
        land(stream, self.batch_of, self.landed)
        self.landed += 1

    def run(
        self, frozen_at: int | str, work: Work, meanwhile: Work, then_dies: bool
    ) -> tuple[bool, dict[str, int]]:
        """Land, let one home work and freeze, and the other work; tell whether it froze, and what is there."""
        self.land(self.there)
        with Frozen(self.here, frozen_at, then_dies) as frozen, ThreadPoolExecutor(1) as pool:

            def working() -> None:
                with suppress(Retriable, Killed):
                    work(self.here)

            other = pool.submit(working)
            eventually(lambda: frozen.stands.is_set() or other.done(), 60, "a frozen home")
            if meanwhile is publishes:
                self.land(self.there)
            meanwhile(self.there)
            frozen.go_on()
            other.result(60)
        self.there.publish()
        return frozen.stands.is_set(), found(self.there)

    @property
    def right(self) -> dict[str, int]:
        """What must be there."""
        return dict.fromkeys(("rows", "ids", "live"), self.landed * ROWS)


CELLS = {
    "insert beside whole days": ("insert ", publishes, publishes_whole, False),
    "swap beside a publisher": (" PARTITION ", replaces_the_day, publishes, True),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("fenced", [True, False], ids=["lease", "file locks"])
def test_a_home_that_was_frozen_before_it_writes(
    homes: Homes, batch_of: Callable[..., MicroBatch], cell: str, fenced: bool
) -> None:
    """File locks of two homes keep nobody apart, which is the negative control."""
    race = Race(homes, batch_of, fenced)
    stood, state = race.run(*CELLS[cell])
    assert stood
    if fenced:
        assert (state["rows"], state["ids"]) == (race.right["rows"], race.right["ids"])
    elif "insert" in cell:
        assert state["rows"] > race.right["rows"], "nothing is doubled"
    else:
        assert state["rows"] < race.right["rows"], "nothing is lost"


@pytest.mark.long
@pytest.mark.parametrize("then_dies", [False, True], ids=["goes on", "dies then"])
@pytest.mark.parametrize(
    ("work", "meanwhile"),
    [(publishes, replaces_the_day), (publishes, publishes_whole), (replaces_the_day, publishes)],
    ids=["publisher beside replacer", "publisher beside whole days", "replacer beside publisher"],
)
def test_a_home_that_was_frozen_before_any_statement(
    homes: Homes, batch_of: Callable[..., MicroBatch], work: Work, meanwhile: Work, then_dies: bool
) -> None:
    race = Race(homes, batch_of, fenced=True)
    wrong: dict[int, dict[str, int]] = {}
    for number in range(100):
        stood, state = race.run(number, work, meanwhile, then_dies)
        # whole days do not go through the views
        checked = ("rows", "ids") if meanwhile is publishes_whole else ("rows", "ids", "live")
        if any(state[name] != race.right[name] for name in checked):
            wrong[number] = state
        if not stood:
            break
    assert number > 5, "it sent no statements"
    assert wrong == {}


def side_by_side(homes: Homes, batch_of: Callable[..., MicroBatch], commits: int) -> dict[str, int]:
    """Ingest in one home and replace the day in another one, over and over; return what is there in the end."""
    here, there = homes(), homes()
    live_view(here)

    def ingest() -> None:
        for number in range(commits):
            land(here, batch_of, number)
            here.publish()

    with ThreadPoolExecutor(1) as pool:
        ingesting = pool.submit(ingest)
        while not ingesting.done():
            dict(there.replace_days([DAY]))
        ingesting.result(120)
    there.publish()
    return found(there)


@pytest.mark.long
def test_one_ingests_and_one_replaces_days(homes: Homes, batch_of: Callable[..., MicroBatch]) -> None:
    total = COMMITS * ROWS
    assert side_by_side(homes, batch_of, COMMITS) == {"rows": total, "ids": total, "live": total}
