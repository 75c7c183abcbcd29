"""Start services together, wait until they answer, restart them when they die, and stop them together.

Every service runs below a guard (see ``guard.py``), so no process outlives this one, however it ends. One thread per
service does everything for it in order: wait for its needs, start, probe, prepare, wait for its end, and repeat. The
threads report by one queue, which is also safe to use in signal handlers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

import tenacity

from headrace.core.errors import Fatal, HeadraceError
from headrace.local import probes
from headrace.local.service import Service, ServiceFailed, State, Status, levels

__all__ = [
    "Service",
    "ServiceFailed",
    "State",
    "Status",
    "Supervisor",
    "stop_on_signals",
]

GUARD = Path(__file__).with_name("guard.py")
SETTLED_SECONDS = 60.0  # a service that lived this long restarts with a new count
AGAIN_SECONDS = 30.0  # between two starts of a service that is not vital and does not come up
#: Seconds between two looks whether a service still lives, and looks in vain after which it is ended.
LOOK_SECONDS, SILENT_LOOKS = 5.0, 12
_NOTICE_SECONDS = 0.5
_JOIN_SECONDS = 0.5  # a thread whose service has ended may still wait in a client's connect
_STOP_MARGIN = 15.0  # the guard's own bounds are shorter; beyond this the guard itself is stuck


class _Died(HeadraceError):
    """A service ended by itself after it had been ready; the supervisor starts it again."""


@dataclass
class _Run:
    service: Service
    state: State = State.WAITING
    process: subprocess.Popen[bytes] | None = None
    since: float | None = None
    restarts: int = 0
    was_ready: bool = False
    given_up: bool = False  # not vital, and down; said so
    settled: threading.Event = field(default_factory=threading.Event)  # was ready once, or failed for good


class Supervisor:
    """Context manager over a set of services.

    Args:
        services: Started as soon as the services that they need are ready, and stopped in reverse order.
        report: Receives one line whenever a service dies or returns.
        changed: Called from any thread after every change of a service's state.
        keep_open: File descriptors that every guard holds while it lives, such as a lock that must stay locked until
            the last process has ended.

    Raises:
        ServiceFailed: On entry: a service does not become ready. Everything is stopped again.
    """

    def __init__(
        self,
        services: Sequence[Service],
        *,
        report: Callable[[str], None] = lambda _: None,
        changed: Callable[[], None] = lambda: None,
        keep_open: Sequence[int] = (),
    ) -> None:
        self._runs = {service.name: _Run(service) for service in services}
        self._levels = levels(services)
        self._report, self._changed, self._keep_open = report, changed, tuple(keep_open)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._events: SimpleQueue[HeadraceError | str | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all services and return when all that are awaited are ready, or down without being vital."""
        pending = {name for name, run in self._runs.items() if run.service.awaited}
        try:
            for run in self._runs.values():
                thread = threading.Thread(target=self._care, args=(run,), name=f"care-{run.service.name}")
                thread.daemon = True  # must not block a crashed main thread: the guards clean up
                thread.start()
                self._threads.append(thread)
            while pending:
                pending.discard(self._next_event("stopped before every service was ready"))
        except BaseException:
            self.stop()
            raise

    def watch(self) -> None:
        """Block until ``request_stop``.

        Raises:
            ServiceFailed: A service died too often; the others are being stopped.
        """
        with contextlib.suppress(_Asked):
            while True:
                self._next_event("")

    def request_stop(self, *_: object) -> None:
        """Make ``start`` or ``watch`` return. Safe in a signal handler and from any thread."""
        self._events.put(None)

    def stop(self) -> None:
        """Stop all services, dependants first, and return when no process is left. Idempotent."""
        self._stopping.set()
        for level in reversed(self._levels):
            runs = [self._runs[name] for name in level]
            for run in runs:
                self._release(run)
            for run in runs:
                _wait_for_end(run)
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    def status(self) -> list[Status]:
        """Return the present status of every service."""
        with self._lock:
            return [
                Status(name, run.state, run.process.pid if run.process else None, run.since, run.restarts)
                for name, run in self._runs.items()
            ]

    def _next_event(self, when_asked: str) -> str:
        # With a timeout: libraries in this process may install signal handlers that restart the wait, and Ctrl-C
        # would then be noticed only after it.
        while True:
            with contextlib.suppress(Empty):
                event = self._events.get(timeout=_NOTICE_SECONDS)
                break
        if event is None:
            raise _Asked(when_asked)
        if isinstance(event, HeadraceError):
            raise event
        return event

    # The methods below run in the thread of one service.

    def _care(self, run: _Run) -> None:
        try:
            for need in run.service.needs:
                self._runs[need].settled.wait()
            while not self._stopping.is_set():
                try:
                    self._retrying(run)(self._live, run)
                except HeadraceError as error:
                    if run.service.vital or self._stopping.is_set():
                        raise
                    self._give_up(run, error)
        except Exception as error:  # any error must be reported, because nobody else catches it
            self._fail(run, error)
        else:
            self._set(run, State.STOPPED)
        finally:
            run.settled.set()

    def _retrying(self, run: _Run) -> tenacity.Retrying:
        starts = 1 if run.given_up else run.service.restarts + 1
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Died),
            stop=tenacity.stop_after_attempt(starts) | tenacity.stop_when_event_set(self._stopping),
            wait=tenacity.wait_exponential(multiplier=0.25, max=10),
            sleep=tenacity.sleep_using_event(self._stopping),
            before_sleep=lambda state: self._tell_restart(run, state),
            reraise=True,
        )

    def _give_up(self, run: _Run, error: HeadraceError) -> None:
        """Leave a service that is not vital down for a while, and the others alone."""
        if not run.given_up:
            self._report(
                f"{_failure(run, error)}; it is started again every {AGAIN_SECONDS:g} s until it stays"
            )
        run.given_up = True
        self._set(run, State.FAILED)
        run.settled.set()
        self._events.put(run.service.name)
        self._stopping.wait(AGAIN_SECONDS)

    def _live(self, run: _Run) -> None:
        """Run the service once. Return when it is to stop, or when it died after a life that was long enough."""
        service = run.service
        if not self._launch(run):
            return
        self._await_ready(run)
        if service.prepare and not self._stopping.is_set():
            try:
                service.prepare()
            except HeadraceError as error:
                self._end(run)
                if run.was_ready:
                    raise _Died(f"could not be prepared: {error}") from error
                raise ServiceFailed(service, f"started, but could not be prepared: {error}") from error
        if self._stopping.is_set():
            return
        self._set(run, State.RUNNING)
        if run.was_ready or run.given_up:
            self._report(f"{service.name} is ready again")
        run.was_ready, run.given_up = True, False
        run.settled.set()
        self._events.put(service.name)
        born = time.monotonic()
        how = self._ended(run)
        if self._stopping.is_set():
            return
        if time.monotonic() - born < SETTLED_SECONDS:
            raise _Died(how)
        self._tell(run, f"{how}; starting it again")

    def _ended(self, run: _Run) -> str:
        """Wait until a service ends, or end it once it hangs; returns how it ended."""
        process, silent = run.process, 0
        assert process is not None
        while True:
            try:
                process.wait(LOOK_SECONDS if run.service.alive else None)
                return _how_it_ended(process)
            except subprocess.TimeoutExpired:
                silent = 0 if self._stopping.is_set() or probes.answers(run.service.alive) else silent + 1
            if silent > SILENT_LOOKS:
                self._end(run)
                return f"gave no sign of life for {silent * LOOK_SECONDS:g} s and was ended"

    def _launch(self, run: _Run) -> bool:
        service = run.service
        guard = (sys.executable, "-I", "-S", str(GUARD), "--grace", str(service.stop_grace))
        with self._lock:  # stop() sees either no process or the one that it must end
            if self._stopping.is_set():
                return False
            try:
                with _open_log(service.log) as log:
                    run.process = subprocess.Popen(
                        (*guard, "--log", str(service.log), "--", *service.argv),
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=log,
                        env=dict(service.env),
                        cwd=service.cwd,
                        start_new_session=True,
                        pass_fds=self._keep_open,
                    )
            except OSError as error:
                raise Fatal(
                    f"cannot start {service.name}: {error.strerror}: {error.filename}; "
                    "check free space and permissions there"
                ) from error
            run.since = time.time()
            run.state = State.RESTARTING if run.was_ready else State.STARTING
        self._changed()
        return True

    def _await_ready(self, run: _Run) -> None:
        service, process = run.service, run.process
        assert process is not None

        def failed(what: str) -> HeadraceError:
            return _Died(what) if run.was_ready else ServiceFailed(service, what)

        deadline, pause = time.monotonic() + service.ready_within, 0.01
        while not self._stopping.wait(pause):
            pause = min(pause * 1.4, 0.25)
            if process.poll() is not None:
                raise failed(f"{_how_it_ended(process)} before it was ready")
            if probes.answers(service.ready) and probes.listens(service, process.pid):
                return
            if time.monotonic() > deadline:
                self._end(run)
                raise failed(f"was not ready within {service.ready_within:g} s")

    def _end(self, run: _Run) -> None:
        self._release(run)
        _wait_for_end(run)

    def _release(self, run: _Run) -> None:
        with self._lock:
            if run.process and run.process.stdin:
                run.process.stdin.close()  # the guard's lifeline

    def _tell_restart(self, run: _Run, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        attempt = f"start {state.attempt_number} of {run.service.restarts}"
        self._tell(run, f"{error}; starting it again in {pause:.2g} s ({attempt})")

    def _tell(self, run: _Run, what: str) -> None:
        run.restarts += 1
        self._set(run, State.RESTARTING)
        self._report(f"{run.service.name} {what}")

    def _fail(self, run: _Run, error: Exception) -> None:
        if isinstance(error, _Died) and self._stopping.is_set():
            self._set(run, State.STOPPED)
            return
        self._set(run, State.FAILED)
        failure = _failure(run, error)
        if not run.service.vital:  # a defect: its own failures are dealt with in _care
            self._report(str(failure))
            self._events.put(run.service.name)
            return
        self._events.put(failure)
        self._stopping.set()  # no more restarts anywhere; the owner joins in stop()
        for other in self._runs.values():
            self._release(other)

    def _set(self, run: _Run, state: State) -> None:
        with self._lock:
            run.state = state
        self._changed()


def _failure(run: _Run, error: Exception) -> HeadraceError:
    if isinstance(error, _Died):
        return ServiceFailed(run.service, f"died {run.service.restarts + 1} times in a row: it {error}")
    if isinstance(error, HeadraceError):
        return error
    return ServiceFailed(run.service, f"could not be supervised: {error!r}")


class _Asked(Fatal):
    """A stop was requested."""


@contextlib.contextmanager
def stop_on_signals(request_stop: Callable[..., None]) -> Iterator[None]:
    """Request an orderly stop on Ctrl-C, a closed terminal or SIGTERM within the block. Main thread only."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        request_stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, ask) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.replace(path.with_name(path.name + ".1"))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _wait_for_end(run: _Run) -> None:
    if run.process is None:
        return
    try:
        run.process.wait(run.service.stop_grace + _STOP_MARGIN)
    except subprocess.TimeoutExpired:
        run.process.kill()  # the inner guard then kills the rest
        run.process.wait()


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
