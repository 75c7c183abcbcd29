"""The process beside the server: its answers, its failures, and that it is ended when it takes too long."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psutil
import pytest

from builders import eventually
from headrace.core.errors import BadData, Fatal, Retriable
from headrace.serving.page.beside import Busy, Overdue, Worker, Workers

#: Seconds that an answer may take on a busy machine.
LONG = 60.0


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("serving.page.slow", "state")
    yield made
    made.close()


def test_it_starts_when_it_is_needed_and_stays(worker: Worker) -> None:
    assert worker.pid is None
    first = worker.call("pid", seconds=LONG)
    assert first == worker.pid == worker.call("pid", seconds=LONG)
    assert worker.call("echo", {"a": (1, None)}, seconds=LONG) == ("state", {"a": (1, None)})


def test_what_takes_too_long_is_ended_and_the_next_is_answered(worker: Worker) -> None:
    first = worker.call("pid", seconds=LONG)
    with pytest.raises(Overdue):
        worker.call("hang", seconds=0.1)
    assert not psutil.pid_exists(first)
    assert worker.call("pid", seconds=LONG) != first


def test_errors_are_those_of_the_functions(worker: Worker) -> None:
    with pytest.raises(BadData, match="there is no such table"):
        worker.call("wrong", seconds=LONG)
    with pytest.raises(Fatal, match="ZeroDivisionError"):
        worker.call("defect", seconds=LONG)
    with pytest.raises(Retriable):
        worker.call("die", seconds=LONG)
    assert worker.call("pid", seconds=LONG)


def test_pieces_come_one_by_one_and_an_early_leave_ends_it(worker: Worker) -> None:
    assert sum(map(len, worker.stream("pieces", 10, 1000, seconds=LONG))) == 10_000
    first = worker.call("pid", seconds=LONG)
    long = worker.stream("pieces", 10**9, 1000, seconds=LONG)
    assert len(long.take()) == 1000
    long.leave()
    eventually(lambda: not psutil.pid_exists(first), LONG, "the end of the worker")
    with pytest.raises(BadData, match="the second is missing"):
        list(worker.stream("breaks", seconds=LONG))


def test_a_second_who_asks_waits_and_is_told(worker: Worker) -> None:
    worker.call("pid", seconds=LONG)
    held = worker.stream("pieces", 2, 10, seconds=LONG)
    held.take()
    with pytest.raises(Overdue):
        worker.call("pid", seconds=0.1)
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(worker.call("pid", seconds=LONG)))
    waiting.start()
    list(held)
    waiting.join(LONG)
    assert answers


def test_who_leaves_while_a_piece_is_made_ends_it_at_once(worker: Worker) -> None:
    first = worker.call("pid", seconds=LONG)
    pieces = worker.stream("stops", seconds=LONG)
    assert pieces.take() == b"first"
    told: list[Exception] = []

    def take() -> None:
        try:
            pieces.take()
        except Retriable as error:
            told.append(error)

    waiting = threading.Thread(target=take)
    waiting.start()
    eventually(pieces.taking, LONG, "the wait for a piece")
    pieces.leave()
    waiting.join(LONG)
    assert told and not psutil.pid_exists(first) and pieces.take() == b""
    assert worker.call("pid", seconds=LONG) != first, "its turn is over"


def test_as_many_as_may_be_are_written_beside_each_other_and_one_more_is_refused() -> None:
    both = Workers(2, "serving.page.slow", "state")
    try:
        held = [both.stream("pieces", 2, 10, seconds=LONG) for _ in range(2)]
        assert [len(one.take()) for one in held] == [10, 10]
        with pytest.raises(Busy, match="2 exports are being written"):
            both.stream("pieces", 2, 10, seconds=LONG)
        assert [sum(map(len, one)) for one in held] == [10, 10]
        assert sum(map(len, both.stream("pieces", 2, 10, seconds=LONG))) == 20
        with pytest.raises(BadData):
            list(both.stream("breaks", seconds=LONG))
        held = [both.stream("pieces", 2, 10, seconds=LONG) for _ in range(2)]
        assert [sum(map(len, one)) for one in held] == [20, 20], "who failed has left its turn"
    finally:
        both.close()
