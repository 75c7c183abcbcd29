"""Several workers in front of one log: each is as good as any other, and may die."""

from __future__ import annotations

import json
import re
import signal
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from builders import event, eventually
from collector.server import PATIENCE, Server, collector
from collector.test_kill import EACH, SENDERS, lost, send, verdict
from collector.test_reload import order, write
from headrace.collector.keys import Keys
from headrace.collector.workers import processes
from headrace.core.errors import Fatal

pytestmark = pytest.mark.long
WORKERS = 2


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("workers")
    (folder / "own").mkdir()
    with collector(folder / "home", workers=WORKERS, HEADRACE_PIPELINES=str(folder / "own")) as server:
        yield server


def each(server: Server) -> list[HTTPConnection]:
    """A connection to each worker: the system divides them, so this takes some attempts."""
    found: dict[int, HTTPConnection] = {}
    spare = []
    host = server.url.removeprefix("http://")
    for _ in range(200):
        one = HTTPConnection(host, timeout=PATIENCE)
        one.connect()
        assert one.sock is not None
        port = one.sock.getsockname()[1]
        for worker in server.workers:
            if any(at.raddr and at.raddr.port == port for at in worker.net_connections("tcp")):
                spare.append(found.setdefault(worker.pid, one))
        if len(found) == WORKERS:
            break
    assert len(found) == WORKERS, "the system does not divide connections"
    return list(found.values())


def asked(
    one: HTTPConnection, server: Server, method: str, path: str, body: bytes = b"", key: str = ""
) -> tuple[int, bytes]:
    one.request(method, path, body, {"authorization": f"Bearer {key or server.key}"})
    answer = one.getresponse()
    return answer.status, answer.read()


def taken(one: HTTPConnection, server: Server, body: bytes, key: str = "") -> tuple[int, list[str]]:
    """Send events; returns the status of the answer and what became of each."""
    status, said = asked(
        one, server, "POST", "/v1/batch" if b"streams" in body else "/v1/analytics", body, key
    )
    return status, [each["status"] for each in json.loads(said).get("events", [])] if status < 300 else []


def test_an_id_is_taken_once_whichever_worker_it_reaches(both: Server) -> None:
    first, second = each(both)
    assert taken(first, both, event(event_id="once")) == (202, ["accepted"])
    assert taken(second, both, event(event_id="once")) == (202, ["repeated"])
    assert taken(second, both, event(event_id="once", user_id="other"))[0] == 422
    beside = [
        threading.Thread(target=both.post, args=("/v1/analytics", event(event_id="beside")))
        for _ in range(16)
    ]
    for one in beside:
        one.start()
    for one in beside:
        one.join()
    ids = [one["event_id"] for one in both.records()]
    assert (ids.count("once"), ids.count("beside")) == (1, 1)


def test_each_worker_answers_for_all(both: Server) -> None:
    first, second = each(both)

    def counted(one: HTTPConnection) -> int:
        text = asked(one, both, "GET", "/metrics")[1].decode()
        return int(re.findall(r'requests_total{route="track",status="202"} (\d+)', text)[0])

    def more(one: HTTPConnection, most: int) -> bool:
        return counted(one) >= most

    assert (
        taken(first, both, event(event_id="m-0"))[0] == taken(second, both, event(event_id="m-1"))[0] == 202
    )
    before = counted(first)
    for n in range(3):
        assert taken(first, both, event(event_id=f"m1-{n}"))[0] == 202
    for n in range(4):
        assert taken(second, both, event(event_id=f"m2-{n}"))[0] == 202
    for one in (first, second):
        eventually(partial(more, one, before + 7), 30, "what both have counted")
        text = asked(one, both, "GET", "/metrics")[1].decode()
        assert (
            "headrace_collector_waiting_entries " in text
            and "headrace_collector_commit_seconds_count " in text
        )
        assert asked(one, both, "GET", "/readyz")[0] == asked(one, both, "GET", "/healthz")[0] == 200
    receipt = json.loads(asked(first, both, "POST", "/v1/analytics", event(event_id="r"))[1])["receipt"]
    said = json.loads(asked(second, both, "GET", f"/v1/receipts/{receipt}")[1])
    assert said["durable"] and not said["lake"]


def test_keys_and_their_rates_are_the_same_for_all(both: Server) -> None:
    keys = Keys(both.home / "collector" / "keys.json")
    key = keys.create("slow", rate=1)
    first, second = each(both)
    eventually(lambda: taken(first, both, event(event_id="k-0"), key)[0] == 202, 30, "the key")
    many = b"[" + b",".join(event(event_id=f"k-{n}") for n in range(1, 200)) + b"]"
    eventually(lambda: taken(first, both, many, key)[0] in (202, 429), 30, "the key")
    eventually(
        lambda: taken(second, both, event(event_id="k-s"), key)[0] == 429, 30, "the other worker's rate"
    )
    assert taken(first, both, event(event_id="k-f"), key)[0] == 429

    def refused(one: HTTPConnection) -> bool:
        return taken(one, both, event(event_id="k-x"), key)[0] == 401

    keys.revoke("slow")
    for one in (first, second):
        eventually(partial(refused, one), 30, "the end of the key")


def test_a_new_stream_is_there_in_all(both: Server) -> None:
    def sent(one: HTTPConnection, number: int) -> int:
        return taken(one, both, json.dumps({"streams": {"orders": [order(number)]}}).encode())[0]

    def is_taken(one: HTTPConnection, number: int) -> bool:
        return sent(one, number) == 202

    several = each(both)
    assert [sent(one, 0) for one in several] == [400, 400]
    file = write(both.home.parent / "own")
    for number, one in enumerate(several):
        eventually(partial(is_taken, one, number), PATIENCE, "the new stream")
    file.write_text("pipeline = oops\n")
    eventually(lambda: "does not load" in both.said.read_text(), PATIENCE, "the name of the broken file")
    assert [sent(one, 2 + number) for number, one in enumerate(several)] == [202, 202]
    assert both.said.read_text().count("does not load") == 1, "the process with the log says it, once"


def test_a_worker_that_dies_is_started_again_and_its_connections_wait(both: Server) -> None:
    before = {one.pid for one in both.workers}
    both.workers[0].kill()
    statuses = [both.post("/v1/analytics", event(event_id=f"d-{n}"))[0] for n in range(20)]
    assert statuses == [202] * 20, "nobody who comes meanwhile is refused"
    eventually(
        lambda: len(both.workers) == WORKERS and {one.pid for one in both.workers} != before, PATIENCE, "it"
    )
    assert len(each(both)) == WORKERS


def test_a_worker_that_is_stopped_is_replaced(both: Server) -> None:
    frozen = both.workers[0]
    frozen.suspend()
    eventually(
        lambda: not frozen.is_running() or frozen.status() == psutil.STATUS_ZOMBIE, PATIENCE, "the end of it"
    )
    eventually(lambda: len(both.workers) == WORKERS, PATIENCE, "another one")
    assert [both.post("/v1/analytics", event(event_id=f"z-{n}"))[0] for n in range(10)] == [202] * 10


@pytest.mark.parametrize("window", ["before_hand_over", "after_hand_over", "before_told"])
def test_a_worker_killed_in_a_window_loses_and_doubles_nothing(tmp_path: Path, window: str) -> None:
    with collector(tmp_path / "home", window=window, nth=3, workers=WORKERS) as server:
        first = server.workers[0].pid
        told: dict[str, str] = {}
        rounds = [f"{window}{n}" for n in range(3)]
        for one in rounds:
            told |= send(server, one)
        eventually(
            lambda: first not in {one.pid for one in server.workers}, PATIENCE, "the end of the first worker"
        )
        assert lost(server, told) == [] and len(told) < len(rounds) * SENDERS * EACH
        assert verdict(server, told, *rounds) == []


def test_a_worker_that_answers_by_itself_is_found(tmp_path: Path) -> None:
    """The control: what it answered before the owner had it is lost with it."""
    with collector(tmp_path / "home", window="answers_itself", nth=3, workers=WORKERS) as server:
        first = server.workers[0].pid
        told = {name: said for n in range(3) for name, said in send(server, f"control{n}").items()}
        eventually(
            lambda: first not in {one.pid for one in server.workers}, PATIENCE, "the end of the first worker"
        )
        assert lost(server, told)


def test_no_worker_outlives_the_process_with_the_log(tmp_path: Path) -> None:
    """Killed with -9 while one worker is stopped: all are gone, and the next collector has port and log."""
    with collector(tmp_path / "home", workers=WORKERS) as server:
        workers = server.workers
        workers[0].suspend()
        assert server.stop(signal.SIGKILL) == -9
        eventually(lambda: not any(map(runs, workers)), 30, "the end of the workers")
        port = int(server.url.rpartition(":")[2])
        for some in processes.listening("127.0.0.1", port, 1):
            processes.close([some])


def test_a_process_with_the_log_that_hangs_or_is_killed_is_started_again(tmp_path: Path) -> None:
    with collector(tmp_path / "home", workers=WORKERS) as server:
        assert server.post("/v1/analytics", event(event_id="e-0"))[0] == 202
        for number, strike in enumerate((psutil.Process.suspend, psutil.Process.kill), 1):
            owner = server.owner
            assert owner.pid != server.process.pid
            strike(owner)
            eventually(lambda: not runs(owner), PATIENCE, "the end of it")  # noqa: B023
            eventually(lambda: server.owner.pid != server.process.pid, PATIENCE, "another one")
            eventually(lambda: ready(server), PATIENCE, "its answer")
            for name, became in ((f"e-{number - 1}", "repeated"), (f"e-{number}", "accepted")):
                status, said = server.post("/v1/analytics", event(event_id=name))
                assert (status, json.loads(said)["events"][0]["status"]) == (202, became)
        assert "gives no sign of life" in server.said.read_text()
        assert server.stop() == 0


def ready(server: Server) -> bool:
    try:
        return bool(server.get("/readyz"))
    except OSError:
        return False


def runs(process: psutil.Process) -> bool:
    return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE


def test_an_address_that_somebody_has_is_refused() -> None:
    (taken_,) = processes.listening("127.0.0.1", 0, 1)
    with pytest.raises(Fatal, match="cannot listen"):
        processes.listening("127.0.0.1", taken_[0].getsockname()[1], 2)
    processes.close([taken_])


def test_nobody_hears_of_an_owner_that_is_killed_between_sync_and_answer(tmp_path: Path) -> None:
    """What is durable and was not answered is a repeat when it comes again."""
    home = tmp_path / "home"
    with collector(home, window="before_answer", nth=1, workers=WORKERS) as server:
        with pytest.raises(OSError):
            server.post("/v1/analytics", event(event_id="quiet"))
        assert server.process.wait(60) == -9
    with collector(home, workers=WORKERS) as again:
        status, said = again.post("/v1/analytics", event(event_id="quiet"))
        assert (status, json.loads(said)["events"][0]["status"]) == (202, "repeated")
        with urllib.request.urlopen(again.url + "/readyz") as answer:
            assert answer.status == 200
