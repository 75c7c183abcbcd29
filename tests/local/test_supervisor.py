"""Starting, failing, restarting and stopping, with small programs in place of real services."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from headrace.core.errors import Fatal, Retriable
from headrace.local import processes
from headrace.local.service import levels, log_tail
from headrace.local.supervisor import Service, ServiceFailed, State, Supervisor, stop_on_signals

from .conftest import Marked, eventually

Script = Callable[..., list[str]]
Make = Callable[..., Service]

SERVER = """
import signal, socket, sys
server = socket.create_server((sys.argv[2], int(sys.argv[1])))
print("listening", flush=True)
signal.pause()
"""


@pytest.fixture
def make(script: Script, tmp_path: Path) -> Make:
    """A service that is ready when its log says something."""

    def service(name: str, source: str, *args: str, **options: object) -> Service:
        log = tmp_path / "logs" / f"{name}.log"
        return Service(
            name=name,
            argv=tuple(script(source, *args)),
            env={},
            log=log,
            **{"ready": lambda: log.read_bytes() != b"", "ready_within": 15.0, "stop_grace": 0.4} | options,  # type: ignore
        )

    return service


def guard_of(supervisor: Supervisor, name: str) -> int:
    (pid,) = [status.guard for status in supervisor.status() if status.name == name]
    assert pid
    return pid


def service_of(supervisor: Supervisor, name: str) -> int:
    pid: int = processes.tree(guard_of(supervisor, name))[2].pid
    return pid


def state_of(supervisor: Supervisor, name: str) -> State:
    return next(status.state for status in supervisor.status() if status.name == name)


WAITS = "import signal; print('up', flush=True); signal.pause()"


def test_ready_services_run_and_end_with_the_block(make: Make, mark: Marked) -> None:
    with Supervisor([make("a", WAITS, mark.word), make("b", WAITS, mark.word)]) as supervisor:
        assert [status.state for status in supervisor.status()] == [State.RUNNING] * 2
        assert len(mark.alive()) == 2
    assert mark.gone()
    assert [status.state for status in supervisor.status()] == [State.STOPPED] * 2


def test_services_start_after_and_stop_before_what_they_need(make: Make, tmp_path: Path) -> None:
    story = tmp_path / "story"
    teller = """
import signal, sys
def tell(what):
    with open(sys.argv[2], "a") as story: story.write(f"{what} {sys.argv[1]}\\n")
def bye(*_): tell("stop"); sys.exit()
signal.signal(signal.SIGTERM, bye)
tell("start"); print("up", flush=True)
signal.pause()
"""
    web = make("web", teller, "web", str(story), needs=("database",))
    database = make("database", teller, "database", str(story))
    with Supervisor([web, database]):
        pass
    assert story.read_text().split("\n")[:-1] == ["start database", "start web", "stop web", "stop database"]


def test_independent_services_start_together(make: Make) -> None:
    """Each is ready only once the other runs: one after the other would never end."""
    one = make("one", WAITS)
    two = make("two", WAITS, ready=lambda: one.log.read_bytes() != b"")
    one = replace(one, ready=lambda: two.log.read_bytes() != b"")
    with Supervisor([one, two]):
        pass


def test_end_before_ready_names_service_log_and_next_step(make: Make, mark: Marked) -> None:
    broken = make("broken", "print('first'); raise SystemExit('no such volume')", ready=lambda: False)
    with pytest.raises(ServiceFailed) as failed, Supervisor([make("fine", WAITS, mark.word), broken]):
        pytest.fail("must not be entered")
    message = str(failed.value)
    assert message.startswith("broken ended with exit status 1 before it was ready")
    assert "first | no such volume" in message or "no such volume | first" in message
    assert str(broken.log) in message
    assert "\n" not in message
    assert mark.gone(), "the others must be stopped"


def test_never_ready_fails_at_its_deadline(make: Make, mark: Marked) -> None:
    slow = make("slow", WAITS, mark.word, ready=lambda: False, ready_within=0.3)
    with pytest.raises(ServiceFailed, match=r"slow was not ready within 0.3 s; .* up"):
        Supervisor([slow]).start()
    assert mark.gone()


def test_dead_service_is_started_and_prepared_again(make: Make) -> None:
    prepared: list[int] = []
    told: list[str] = []
    service = make("flaky", WAITS, prepare=lambda: prepared.append(1))
    with Supervisor([service], report=told.append) as supervisor:
        first = service_of(supervisor, "flaky")
        os.kill(first, signal.SIGKILL)
        eventually(lambda: len(prepared) == 2, what="the second start")
        eventually(lambda: state_of(supervisor, "flaky") is State.RUNNING)
        assert service_of(supervisor, "flaky") != first
        assert service.log.with_name("flaky.log.1").exists(), "the log of the first life"
    assert "flaky was ended by SIGKILL; starting it again in 0.25 s (start 1 of 5)" in told
    assert "flaky is ready again" in told


def test_killed_guard_is_a_dead_service(make: Make, mark: Marked) -> None:
    with Supervisor([make("a", WAITS, mark.word)]) as supervisor:
        before = guard_of(supervisor, "a")
        os.kill(before, signal.SIGKILL)
        eventually(lambda: guard_of(supervisor, "a") != before, what="another guard")
        eventually(lambda: state_of(supervisor, "a") is State.RUNNING)
        eventually(lambda: len(mark.alive()) == 1, what="exactly one service")
    assert mark.gone()


def test_dying_too_often_stops_everything_and_says_so(make: Make, mark: Marked) -> None:
    crashes = make("crashes", "print('out of luck', flush=True)", restarts=1, ready=lambda: True)
    fine = make("fine", WAITS, mark.word)
    supervisor = Supervisor([fine, crashes])
    with pytest.raises(ServiceFailed, match=r"crashes (died 2 times in a row|ended)"), supervisor:
        supervisor.watch()
    assert mark.gone()
    assert state_of(supervisor, "crashes") is State.FAILED


def test_library_use_without_watch_still_stops_the_others(make: Make, mark: Marked) -> None:
    doomed = make("doomed", WAITS, restarts=0)
    with Supervisor([make("fine", WAITS, mark.word), doomed]) as supervisor:
        os.kill(service_of(supervisor, "doomed"), signal.SIGKILL)
        eventually(mark.gone, what="the end of the other service")


def test_failing_preparation_is_a_failed_start(make: Make, mark: Marked) -> None:
    def refuse() -> None:
        raise Retriable("the broker refused the topic")

    with pytest.raises(ServiceFailed, match="could not be prepared: the broker refused the topic"):
        Supervisor([make("a", WAITS, mark.word, prepare=refuse)]).start()
    assert mark.gone()


def test_a_service_that_is_not_vital_fails_alone(make: Make, mark: Marked) -> None:
    told: list[str] = []
    door = make("door", "raise SystemExit('no room')", vital=False, ready=lambda: False)
    with Supervisor([make("a", WAITS, mark.word), door], report=told.append) as supervisor:
        assert state_of(supervisor, "door") is State.FAILED
        assert state_of(supervisor, "a") is State.RUNNING
        assert not mark.gone()
    assert len(told) == 1 and "no room" in told[0]
    with pytest.raises(ServiceFailed, match="no room"):  # the control: a vital one ends all
        Supervisor([make("a", WAITS, mark.word), replace(door, vital=True)]).start()


def test_a_service_that_is_not_vital_comes_back_however_often_it_died(
    make: Make, mark: Marked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.local.supervisor.AGAIN_SECONDS", 0.1)
    told: list[str] = []
    broken = tmp_path / "broken"
    source = f"import pathlib, sys; pathlib.Path({str(broken)!r}).exists() and sys.exit('broken'); {WAITS}"
    log = tmp_path / "logs" / "door.log"
    door = make("door", source, vital=False, restarts=1, ready=lambda: log.read_bytes() == b"up\n")
    with Supervisor([make("a", WAITS, mark.word), door], report=told.append) as supervisor:
        broken.touch()
        os.kill(service_of(supervisor, "door"), signal.SIGKILL)
        eventually(lambda: any("started again every" in line for line in told), what="giving up")
        eventually(lambda: supervisor.status()[1].restarts >= 1)
        said = len(told)
        broken.unlink()
        eventually(lambda: told[-1:] == ["door is ready again"], what="the door")
        assert len(told) == said + 1, "what goes on failing is not said again and again"
        assert "was ended by SIGKILL; starting it again" in told[0]
        assert state_of(supervisor, "door") is State.RUNNING
        assert state_of(supervisor, "a") is State.RUNNING
        os.kill(service_of(supervisor, "door"), signal.SIGKILL)
        eventually(lambda: told[-1] == "door is ready again" and len(told) == said + 3, what="the door again")
    assert mark.gone()


def test_a_service_that_hangs_is_started_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lives and answers nobody; the one after it does."""
    monkeypatch.setattr("headrace.local.supervisor.LOOK_SECONDS", 0.05)
    hangs, asked = threading.Event(), threading.Event()

    def alive() -> bool:
        asked.set()
        return not hangs.is_set()

    hanging = make("a", WAITS, alive=alive)
    with Supervisor([hanging]) as supervisor:
        first = service_of(supervisor, "a")
        assert asked.wait(20)
        assert state_of(supervisor, "a") == State.RUNNING and service_of(supervisor, "a") == first
        hangs.set()
        os.kill(first, signal.SIGSTOP)
        eventually(lambda: not psutil.pid_exists(first), 20, "its end")
        hangs.clear()
        log = hanging.log
        eventually(lambda: log.with_name("a.log.1").exists() and log.read_text(), 20, "another one")
        eventually(lambda: state_of(supervisor, "a") == State.RUNNING, 20, "that it is ready")
        assert service_of(supervisor, "a") != first


def test_a_service_that_is_not_vital_and_never_came_up_does_later(
    make: Make, mark: Marked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.local.supervisor.AGAIN_SECONDS", 0.1)
    told: list[str] = []
    room = tmp_path / "room"
    source = f"import pathlib, sys; pathlib.Path({str(room)!r}).exists() or sys.exit('no room'); {WAITS}"
    door = make("door", source, vital=False, ready=room.exists)
    with Supervisor([make("a", WAITS, mark.word), door], report=told.append) as supervisor:
        assert state_of(supervisor, "a") is State.RUNNING
        assert len(told) == 1 and "no room" in told[0]
        room.touch()
        eventually(lambda: told[1:] == ["door is ready again"], what="the door")


def test_port_must_be_the_services_own(make: Make, free_port: int, mark: Marked) -> None:
    """A stranger on the port answers the probe; that is not readiness."""
    with socket.create_server(("127.0.0.1", free_port)):
        impostor = make("impostor", WAITS, mark.word, port=free_port, ready=lambda: True, ready_within=0.5)
        with pytest.raises(ServiceFailed, match="was not ready"):
            Supervisor([impostor]).start()
    own = make("own", SERVER, str(free_port), "127.0.0.1", port=free_port)
    with Supervisor([own]):
        pass


def test_listening_beyond_loopback_is_refused(make: Make, free_port: int) -> None:
    exposed = make("exposed", SERVER, str(free_port), "0.0.0.0", port=free_port)
    with pytest.raises(ServiceFailed, match=r"listens on 0\.0\.0\.0 and not only on loopback"):
        Supervisor([exposed]).start()


def test_stop_can_be_asked_for_during_start_and_watch(make: Make, mark: Marked) -> None:
    never = make("never", WAITS, mark.word, ready=lambda: False)
    supervisor = Supervisor([never])
    threading.Timer(0.2, supervisor.request_stop).start()
    with pytest.raises(Fatal, match="stopped before every service was ready"):
        supervisor.start()
    assert mark.gone()

    with Supervisor([make("a", WAITS, mark.word)]) as supervisor:
        threading.Timer(0.1, supervisor.request_stop).start()
        supervisor.watch()
    assert mark.gone()


def test_stop_does_not_wait_for_a_preparation_that_hangs(make: Make, mark: Marked) -> None:
    hangs, begun = threading.Event(), threading.Event()

    def prepare() -> None:
        begun.set()
        hangs.wait(60)

    supervisor = Supervisor([make("a", WAITS, mark.word, prepare=prepare)])

    def ask() -> None:
        begun.wait(15)
        supervisor.request_stop()

    threading.Thread(target=ask).start()
    try:
        with pytest.raises(Fatal, match="stopped before"):
            supervisor.start()
        assert not hangs.is_set()
        assert mark.gone()
    finally:
        hangs.set()


def test_signals_ask_for_a_stop() -> None:
    asked = []
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals(lambda: asked.append(1)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert len(asked) == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_kill_9_of_the_supervisor_leaves_nothing(tmp_path: Path, script: Script, mark: Marked) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import signal
from pathlib import Path
from headrace.local.supervisor import Service, Supervisor
log = Path({str(tmp_path)!r}) / "stubborn.log"
ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)"
source = ignores + "\\nwhile True: signal.pause()"
argv = ({sys.executable!r}, "-I", "-S", "-c", source, {mark.word!r})
service = Service(name="a", argv=argv, env={{}}, log=log, ready=lambda: log.read_bytes(), stop_grace=0.3)
with Supervisor([service]):
    print("ready", flush=True)
    signal.pause()
"""
    )
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    assert len(mark.alive()) == 1
    process.kill()
    process.wait()
    eventually(mark.gone)


def test_unknown_and_circular_needs_are_refused(make: Make) -> None:
    with pytest.raises(Fatal, match=r"'a' needs .*'b'"):
        levels([make("a", WAITS, needs=("b",))])
    with pytest.raises(Fatal, match="circle"):
        levels([make("a", WAITS, needs=("b",)), make("b", WAITS, needs=("a",))])


def test_unwritable_log_folder_is_one_clear_line(make: Make, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with pytest.raises(Fatal, match=r"cannot start a: .*logs; check free space and permissions"):
        Supervisor([make("a", WAITS)]).start()


def test_log_tail_is_one_plain_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n\x1b[31mERROR\x1b[0m   disk\n\nfull\nlast\n")
    assert log_tail(log) == "ERROR disk | full | last"
    assert log_tail(tmp_path / "none") == ""
