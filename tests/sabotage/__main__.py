"""``make sabotage``: every mistake in a platform that runs, one after the other, and what it does to all the others."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from headrace.core.errors import HeadraceError
from sabotage.installation import Installation, planted, until
from sabotage.mistakes import (
    BUILDS,
    CONTRACTS,
    DATA,
    LIVE_MIGRATIONS,
    MIGRATIONS,
    MODELS,
    PIPELINES,
    STATE,
    UNTAGGED,
    Mistake,
)

OTHERS = ("events", "metrics", "well")
#: What is wrong must be named within this, s.
NAMED_WITHIN = 60.0
#: What is repaired must be well within this, s.
WELL_WITHIN = 180.0
#: Rows of every other stream must land and be published within this, s, at any time.
FRESH_WITHIN = 60.0


@dataclass
class Round:
    """One or more mistakes that are there at the same time.

    Attributes:
        name: For people.
        mistake: Makes them, and repairs them at its end.
        named: Regular expressions by mistake.
        where: Where a person looks for them.
        others: Streams that must go on.
        published: Whether what they land is published meanwhile.
        own: A regular expression of jobs whose runs may fail meanwhile.
    """

    name: str
    mistake: Callable[[Installation], AbstractContextManager[None]]
    named: dict[str, str] = field(default_factory=dict)
    where: tuple[str, ...] = ("status", "doctor", "ui")
    others: tuple[str, ...] = OTHERS
    published: bool = True
    own: str = "^$"


@dataclass
class Outcome:
    """What a round did.

    Attributes:
        name: Of the round.
        mistakes: How many it had.
        named: After how many seconds all were named everywhere; None for never.
        well: After how many seconds nothing of them was left; None for never.
        wrong: What should not have been, a line each.
    """

    name: str
    mistakes: int
    named: float | None = None
    well: float | None = None
    wrong: list[str] = field(default_factory=list)


def files(mistake: Mistake) -> Callable[[Installation], AbstractContextManager[None]]:
    """The files of one mistake."""
    return lambda there: planted(there.place(mistake.place), mistake.files)


def together(mistakes: tuple[Mistake, ...]) -> Callable[[Installation], AbstractContextManager[None]]:
    """The files of several."""
    content = {path: data for one in mistakes for path, data in one.files.items()}
    return lambda there: planted(there.place(mistakes[0].place), content)


def frozen(words: str) -> Callable[[Installation], AbstractContextManager[None]]:
    """A service that does not answer."""

    @contextmanager
    def enter(there: Installation) -> Iterator[None]:
        process = there.service(words)
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    return enter


def killed(words: str) -> Callable[[Installation], AbstractContextManager[None]]:
    """A service that dies."""

    @contextmanager
    def enter(there: Installation) -> Iterator[None]:
        there.service(words).send_signal(signal.SIGKILL)
        yield

    return enter


@contextmanager
def full_disk(there: Installation) -> Iterator[None]:
    """No space left where the lake is."""
    lake = there.lake
    free = shutil.disk_usage(lake).free
    filler = lake / "filler"
    with filler.open("wb", buffering=0) as file:  # a buffer would be written once more when it is closed
        os.posix_fallocate(file.fileno(), 0, max(1, free - (4 << 20)))  # others go on writing
        try:
            while True:
                file.seek(0, os.SEEK_END)
                file.write(b"\0" * 4096)
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()


def sent(mistake: Mistake) -> Callable[[Installation], AbstractContextManager[None]]:
    """Messages that are wrong, in the topic of one stream."""

    def enter(there: Installation) -> AbstractContextManager[None]:
        producer = there.producer("well")
        producer.send([content for content in mistake.files.values() if content is not None])
        producer.flush()
        producer.close()
        return nullcontext()

    return enter


def rounds() -> Iterator[Round]:
    """Every mistake, those of files that do not touch each other together."""
    both = (*PIPELINES, *UNTAGGED, *CONTRACTS)
    yield Round("pipeline files", together(both), {one.name: one.named for one in both})
    for one in MODELS:
        yield Round(f"models: {one}", files(one), {one.name: one.named})
    for one in BUILDS:
        own = "deploy_views|refresh_events|rebuild_events"
        yield Round(f"models: {one}", files(one), {one.name: one.named}, ("status", "ui"), own=own)
    for one in (*MIGRATIONS, *LIVE_MIGRATIONS):
        where = ("status", "doctor")
        yield Round(f"migrations: {one}", files(one), {one.name: one.named}, where, published=False)
    for one in STATE:
        yield Round(f"state: {one}", files(one))
    for one in DATA:
        yield Round(f"data: {one}", sent(one), {one.name: one.named}, ("rejects",))
    warehouse, queue = "headrace.local.clickhouse", "queue_server"
    where, named = ("status", "doctor"), {"warehouse": "warehouse|ClickHouse"}
    yield Round("service: warehouse frozen", frozen(warehouse), named, where, published=False)
    yield Round("service: warehouse killed", killed(warehouse), published=False)
    yield Round("service: queue frozen", frozen(queue), {"queue": "sqs"}, where, others=("events", "well"))
    yield Round("service: queue killed", killed(queue), others=("events", "well"))
    yield Round("disk: full", full_disk, {"disk": "space|free some"}, where, others=(), own=".*")


class Judge:
    """Plays rounds on one installation."""

    def __init__(self, there: Installation) -> None:
        self.there = there

    def play(self, one: Round) -> Outcome:
        """One round, from a platform that is well to one that is well again."""
        found = Outcome(one.name, max(1, len(one.named)))
        began = time.time()
        try:
            with one.mistake(self.there):
                planted_at = time.monotonic()
                found.named = self._named(one, planted_at, found)
                self._go_on(one, found)
            repaired_at = time.monotonic()
            found.well = self._well(one, repaired_at, found)
            self._go_on(Round(one.name, one.mistake), found)
        except (HeadraceError, LookupError, subprocess.TimeoutExpired) as error:
            found.wrong.append(f"{type(error).__name__}: {error}")
        failed = {run.job for run in self.there.failures(began) if not re.search(one.own, run.job)}
        found.wrong += [f"a run of {job} failed" for job in sorted(failed)]
        return found

    def _named(self, one: Round, since: float, found: Outcome) -> float | None:
        if not one.named:
            return 0.0
        missing: list[str] = []

        def look() -> bool:
            missing[:] = self._not_named(one)
            return not missing

        try:
            until(look, NAMED_WITHIN, "named")
        except TimeoutError:
            found.wrong += [f"not named within {NAMED_WITHIN:.0f} s: {what}" for what in missing]
            return None
        return time.monotonic() - since

    def _not_named(self, one: Round) -> list[str]:
        if one.where == ("rejects",):
            said = self.there.headrace("rejects", "list", "well").stdout
            return [what for what, named in one.named.items() if not re.search(named, said)]
        said = self.there.said()
        return [
            f"{what} in {where}"
            for what, named in one.named.items()
            for where, is_there in said.named(named).items()
            if where in one.where and not is_there
        ]

    def _well(self, one: Round, since: float, found: Outcome) -> float | None:
        left: list[str] = []

        def look() -> bool:
            said = self.there.said()
            left[:] = [
                f"{what} in {where}"
                for what, named in one.named.items()
                for where, is_there in said.named(named).items()
                if where in one.where and is_there
            ]
            if re.search(r"Traceback|gRPC", said.status + said.doctor + said.ui):
                left.append("a traceback")
            return not left

        if one.where != ("rejects",) and not one.name.startswith("service"):
            try:
                until(look, WELL_WITHIN, "well")
            except TimeoutError:
                found.wrong += [f"still named {WELL_WITHIN:.0f} s after the repair: {what}" for what in left]
                return None
        return time.monotonic() - since

    def _go_on(self, one: Round, found: Outcome) -> None:
        """Every other stream lands, and is published."""
        looks: list[tuple[str, Callable[[str], int]]] = [("lands", self.there.landed)]
        if one.published:
            looks.append(("is published", self.there.rows))
        before = {(stream, what): look(stream) for stream in one.others for what, look in looks}
        for stream in one.others:
            for what, look in looks:
                try:
                    until(
                        lambda s=stream, w=what, f=look: f(s) > before[s, w],  # type: ignore[misc]
                        FRESH_WITHIN,
                        f"{stream} {what}",
                    )
                except TimeoutError as error:
                    found.wrong.append(str(error))


def show(outcomes: list[Outcome], console: Console) -> None:
    """A table, and what went wrong below it."""
    table = Table("", "round", "mistakes", "named after", "well after", box=box.SIMPLE)
    for one in outcomes:
        times = ["never" if at is None else f"{at:.0f} s" for at in (one.named, one.well)]
        table.add_row("✗" if one.wrong else "✓", one.name, str(one.mistakes), *times)
    console.print(table)
    for one in outcomes:
        for wrong in one.wrong:
            console.print(f"✗ {one.name}: {wrong}", highlight=False, markup=False, soft_wrap=True)


def main() -> int:
    """Exit status 0 only if each mistake was named, stopped nobody else, and was over after its repair."""
    parser = argparse.ArgumentParser(prog="sabotage", description=__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help="only rounds whose name it matches")
    parser.add_argument("--list", action="store_true", help="list the rounds and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes here as JSON too")
    given = parser.parse_args()
    chosen = [one for one in rounds() if re.search(given.only, one.name)]
    if given.list:
        print(*(one.name for one in chosen), sep="\n")
        return 0
    logging.getLogger("headrace").setLevel(logging.CRITICAL)
    console = Console(width=None if sys.stdout.isatty() else 160)
    outcomes: list[Outcome] = []

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    with (
        tempfile.TemporaryDirectory(prefix="headrace-sabotage-", ignore_cleanup_errors=True) as root,
        small_disk(Path(root)) as lake,
    ):
        there = Installation(Path(root), {"HEADRACE_LAKE_URI": str(lake)} if lake else {})
        try:
            there.start()
            judge = Judge(there)
            say("up; waiting until all streams are published")
            until(lambda: all(there.rows(stream) > 0 for stream in OTHERS), 300, "rows of every stream")
            for n, one in enumerate(chosen, 1):
                if one.mistake is full_disk and lake is None:
                    say(f"{n:3}/{len(chosen)} - {one.name}: left out, no disk can be mounted here")
                    continue
                outcomes.append(judge.play(one))
                mark = "✗" if outcomes[-1].wrong else "✓"
                say(f"{n:3}/{len(chosen)} {mark} {one.name} {'; '.join(outcomes[-1].wrong)}")
        finally:
            there.stop()
    show(outcomes, console)
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1))
    return 1 if any(one.wrong for one in outcomes) else 0


@contextmanager
def small_disk(root: Path) -> Iterator[Path | None]:
    """A disk of 3 GB for the lake; None where none can be mounted (it takes root)."""
    place = root / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3g", "headrace", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        yield None
        return
    try:
        yield place / "lake"
    finally:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
