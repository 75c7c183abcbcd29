"""Keep the process with the log alive: whoever started it stays behind, and starts it again if it hangs or is killed.

Without this a stopped or hanging owner would keep its workers waiting for ever: they answer, and nothing is committed.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from headrace.core.orphans import die_with

log = logging.getLogger(__name__)

#: Looks in a row without a sign of life after which the process is killed. One that starts may take any time: it may
#: have a long log to read.
SILENT_LOOKS = 30
_LOOK_SECONDS = 1.0
#: First and longest pause before the next start, and seconds of life after which the pause is short again.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 15.0
_WELL_SECONDS = 60.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: Tells who watches that this process lives; false if nobody watches any more.
Alive = Callable[[], bool]


def watched() -> Alive:
    """Fork; return in the new process, while this one watches it, and ends when it ends by itself.

    Call it before anything has threads. The new process dies with this one, where the system can do that (Linux);
    elsewhere what is returned tells it.
    """
    pause = _FIRST_PAUSE
    keeper = _Keeper()
    while True:
        began, owner = time.monotonic(), os.getpid()
        reading, writing = os.pipe()
        keeper.child = os.fork()
        if not keeper.child:
            for one in _SIGNALS:
                signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL)
            os.close(reading)
            os.set_blocking(writing, False)
            die_with(owner)
            return lambda: _beat(writing)
        os.close(writing)
        code = keeper.watch(reading)
        os.close(reading)
        if code >= 0 or keeper.stopped:
            logging.shutdown()
            sys.stdout.flush()
            os._exit(
                code if code >= 0 else 128 - code
            )  # what is to be said at an end, the other one has said
        pause = _FIRST_PAUSE if time.monotonic() - began > _WELL_SECONDS else min(2 * pause, _LONGEST_PAUSE)
        log.error("the process with the log was killed (signal %d); another one is started", -code)
        keeper.wait(pause)


def _beat(writing: int) -> bool:
    try:
        os.write(writing, b".")
    except BlockingIOError:  # who watches is stopped itself
        return True
    except OSError:
        return False
    return True


class _Keeper:
    """Watches one process after the other.

    Attributes:
        child: Process id of the present one.
        stopped: Whether the end was asked for.
    """

    def __init__(self) -> None:
        self.child, self.stopped = 0, False
        for one in _SIGNALS:
            signal.signal(one, self._stop)

    def _stop(self, number: int, frame: object) -> None:
        self.stopped = True
        if self.child:
            with suppress(ProcessLookupError):
                os.kill(self.child, number)

    def watch(self, reading: int) -> int:
        """Wait for the end of the process, and kill it if it hangs; returns its code, or minus the signal."""
        silent, ever = 0, False
        if self.stopped:  # while it was forked
            os.kill(self.child, signal.SIGTERM)
        while True:
            if not select.select([reading], [], [], _LOOK_SECONDS)[0]:
                silent += ever and not self.stopped
            elif os.read(reading, 4_096):
                silent, ever = 0, True
            else:  # closed: it has ended
                break
            if silent > SILENT_LOOKS:
                log.error("the process with the log gives no sign of life, and is killed")
                os.kill(self.child, signal.SIGKILL)
                break
        _, status = os.waitpid(self.child, 0)
        self.child = 0
        return os.waitstatus_to_exitcode(status)

    def wait(self, seconds: float) -> None:
        """Wait for the next start; end if that is asked for meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.stopped:
                os._exit(0)
            time.sleep(min(left, 0.1))
