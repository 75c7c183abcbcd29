"""Own one service: keep its whole process tree, and end it when the starting process ends.

Run as ``python -I -S guard.py [--grace S] [--log FILE] [--log-bytes N] -- COMMAND...``. Standard input is the
lifeline: a pipe whose other end only the parent holds and never writes to. The kernel closes it when the parent ends,
even by ``kill -9``. Closing it is the only way to ask for a stop, so no process signals a pid that may belong to
another process by now. Standard output and error are the service's log.

Two processes run this file, one inside the other, because either may be killed, too. The inner one starts the service
in a session of its own; the outer one watches the inner one. Both are child subreapers on Linux, so that detached
daemons (run workers, builds) remain their descendants. If the outer one is killed, the inner one sees its own lifeline
close. If the inner one is killed, the kernel kills the service (``PR_SET_PDEATHSIG``), and the outer one inherits the
rest of the tree and ends it. On other systems than Linux, a process that detaches *and* outlives its parent escapes;
everything else holds.

The file imports only the standard library, and little of it, because it starts once for every service.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36

_TICK = 2.0  # seconds between looks at the parent's pid and the log's size
_PATIENCE_AFTER_KILL = 10.0  # a process in uninterruptible sleep must not keep the guard for ever
_OUTER_MARGIN = 2.0  # the outer guard waits this much longer than the inner one, which does the work

_USAGE = "usage: guard.py [--grace SECONDS] [--log FILE] [--log-bytes N] -- COMMAND...\n"


class Waker:
    """Turn signals into a file descriptor for ``select``."""

    def __init__(self) -> None:
        self.asked = False
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def wait(self, seconds: float, lifeline: int | None = None) -> bool:
        """Wait at most ``seconds`` for a signal or the lifeline's end; return whether the lifeline ended."""
        watched = [self._read] if lifeline is None else [self._read, lifeline]
        readable, _, _ = select.select(watched, [], [], seconds)
        if self._read in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)
        return lifeline is not None and lifeline in readable and not os.read(lifeline, 4096)


class Log:
    """Cut a log to its newest half when it exceeds its bound.

    The service appends by a descriptor of its own, so the file may be cut at any time. Lines written during the cut
    may be lost.
    """

    def __init__(self, path: str, bound: int) -> None:
        self.path, self.bound = path, bound

    def cut(self) -> None:
        """Cut the log if it is too long."""
        try:
            size = os.stat(self.path).st_size
            if size <= self.bound:
                return
            fd = os.open(self.path, os.O_RDWR)
            try:
                newest = os.pread(fd, self.bound // 2, size - self.bound // 2)
                os.ftruncate(fd, 0)
                os.pwrite(fd, b"[older lines were cut]\n" + newest, 0)
            finally:
                os.close(fd)
        except OSError:
            pass  # a full disk or a removed folder must not end the service


def prctl(option: int, value: int) -> None:
    """Set a process attribute on Linux; do nothing elsewhere."""
    if _LIBC is not None:
        _LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0)


_LIBC = (
    ctypes.CDLL(None) if sys.platform == "linux" else None
)  # loaded before any fork, because a child should not load it


def descendants(root: int) -> list[int]:
    """Return living processes below ``root``, without ``root`` itself and without zombies."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _parents() -> list[tuple[int, int]]:
    pairs = []
    if os.path.exists("/proc/self/stat"):
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat", "rb") as stat:
                        fields = stat.read().rpartition(b")")[2].split()
                except OSError:
                    continue
                if fields[0] not in (b"Z", b"X"):
                    pairs.append((int(name), int(fields[1])))
        return pairs
    import subprocess  # imported here because it is slow to import

    listing = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=False
    ).stdout
    for line in listing.splitlines():
        pid, parent, state = line.split()[:3]
        if not state.startswith("Z") and int(parent) != 0:
            pairs.append((int(pid), int(parent)))
    return pairs


def send(pids: list[int], number: int) -> None:
    """Send a signal to processes; ignore those that have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


class Keeper:
    """Watch one child, and end everything below this process when the child or the parent ends."""

    def __init__(self, child: int, waker: Waker, parent: int, grace: float, log: Log | None) -> None:
        self.child, self.waker, self.parent, self.grace, self.log = child, waker, parent, grace, log
        self.status: int | None = None

    def keep(self, lifeline: int, inner_lifeline: int | None) -> int:
        """Return the child's wait status once no process is left below this one."""
        self._reap()
        while self.status is None and not self.waker.asked:
            if self.waker.wait(_TICK, lifeline) or os.getppid() != self.parent:
                break
            self._reap()
            if self.log:
                self.log.cut()
        if inner_lifeline is not None:  # ask the inner guard to end the service
            os.close(inner_lifeline)
        if inner_lifeline is None or self.status is not None:
            send(self._left(), signal.SIGTERM)
        self._outlast()
        return self.status if self.status is not None else signal.SIGKILL

    def _outlast(self) -> None:
        kill_at = time.monotonic() + self.grace
        give_up_at = kill_at + _PATIENCE_AFTER_KILL
        pause = 0.005
        while left := self._left():
            now = time.monotonic()
            if now >= give_up_at:
                return
            if now >= kill_at:
                send(left, signal.SIGKILL)
            self.waker.wait(pause)
            pause = min(pause * 1.5, 0.1)
        self._reap()

    def _left(self) -> list[int]:
        self._reap()
        return descendants(os.getpid())

    def _reap(self) -> None:
        """Collect every ended child, including those that this subreaper inherited."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                self.status = status


def start_service(command: list[str], guard: int) -> int:
    """Fork and execute the service, which dies with ``guard``. Exit status 127: it cannot be executed."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == guard:  # otherwise the guard died before the line above took effect
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def main(argv: list[str]) -> int:
    """Run the guards and return the service's wait status."""
    grace, path, bound = 5.0, "", 16 * 1024 * 1024
    words = iter(argv)
    for word in words:
        if word == "--":
            break
        value = next(words, "")
        if word == "--grace":
            grace = float(value)
        elif word == "--log":
            path = value
        elif word == "--log-bytes":
            bound = int(value)
        else:
            raise SystemExit(_USAGE)
    command = list(words)
    if not command:
        raise SystemExit(_USAGE)

    parent = os.getppid()
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    inner_read, inner_write = os.pipe()
    outer = os.getpid()
    inner = os.fork()
    if inner:
        os.close(inner_read)
        log = Log(path, bound) if path else None
        return Keeper(inner, Waker(), parent, grace + _OUTER_MARGIN, log).keep(0, inner_write)

    os.close(inner_write)
    os.setsid()
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    waker = Waker()
    service = start_service(command, os.getpid())
    return Keeper(service, waker, outer, grace, None).keep(inner_read, None)


def mirror(status: int) -> None:
    """End as the service ended, so that the parent sees the service's own status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    mirror(main(sys.argv[1:]))
