"""Run functions in a process beside the server: what takes memory, and what must be ended when it takes too long.

A worker does one thing at a time. Its answers are plain values; bytes come piece by piece, and it waits until each has
been taken, so that neither side holds more than a few of them.
"""

from __future__ import annotations

import importlib
import multiprocessing
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from headrace.core import errors
from headrace.core.errors import HeadraceError, Retriable

#: Seconds after which a worker that nobody needs ends, and for which a new one may take to start.
IDLE_SECONDS = 300.0
_START_SECONDS = 60.0


class Overdue(Retriable):
    """An answer did not come in time; the worker was ended."""


class Busy(Retriable):
    """All that may be under way at a time is under way."""


class Pieces:
    """Bytes of a function, piece by piece. One thread takes them; any may leave them."""

    def __init__(self, worker: Worker, made: Generator[bytes]) -> None:
        """Take what is made, in the turn of a worker."""
        self._worker, self._made = worker, made
        self._taking, self._state = threading.Lock(), threading.Lock()
        self._left = self._over = False

    def take(self) -> bytes:
        """Return the next piece; empty at the end, and once they have been left.

        Raises:
            Overdue: It took too long.
            HeadraceError: As the function raises it.
        """
        with self._taking:
            if self._over:
                return b""
            try:
                piece = next(self._made, b"")
            except BaseException:
                self._end()
                raise
            if not piece:
                self._end()
        if self._left:
            self.leave()
        return piece

    def taking(self) -> bool:
        """Tell whether a piece is awaited now."""
        return self._taking.locked()

    def leave(self) -> None:
        """End the process unless all has been taken, also while a piece is awaited. Does not wait for it."""
        with self._state:
            self._left = True
            if self._over:
                return
            if not self._taking.acquire(blocking=False):
                self._worker.kill()  # whoever takes a piece now is told, and ends it
                return
        try:
            self._end()
        finally:
            self._taking.release()

    def _end(self) -> None:
        self._made.close()
        with self._state:
            if not self._over:
                self._over = True
                self._worker.release()

    def __iter__(self) -> Iterator[bytes]:
        """Take all pieces; leave them where the loop is left."""
        try:
            while piece := self.take():
                yield piece
        finally:
            self.leave()


class Workers:
    """Some workers that stream beside each other; one more than there are is refused at once."""

    def __init__(self, most: int, module: str, *arguments: Any) -> None:
        """Start nothing yet; arguments as of ``Worker``."""
        self._workers = [Worker(module, *arguments) for _ in range(most)]

    def stream(self, name: str, *arguments: Any, seconds: float) -> Pieces:
        """Return the bytes that a function yields, as ``Worker.stream`` does, of the first worker that is free.

        Raises:
            Busy: None is.
        """
        for one in sorted(
            self._workers, key=lambda worker: worker.pid is None
        ):  # those that run already first
            with suppress(Busy):
                return one.stream(name, *arguments, seconds=seconds)
        raise Busy(
            f"{len(self._workers)} exports are being written, as many as may be at a time; try again when one is done"
        )

    def close(self) -> None:
        """End all processes."""
        for one in self._workers:
            one.close()


class Worker:
    """A process that runs functions of one module, started on first use. For several threads, one at a time."""

    def __init__(self, module: str, *arguments: Any) -> None:
        """Start nothing yet.

        Args:
            module: Name of the module; its function ``opened`` gets the arguments, and its result goes to each call.
            arguments: Can be pickled.
        """
        self._module, self._arguments = module, arguments
        self._busy = threading.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def call(self, name: str, *arguments: Any, seconds: float) -> Any:
        """Return what a function returns.

        Args:
            name: Of the function.
            arguments: Can be pickled.
            seconds: For which it may take, once the worker runs.

        Raises:
            Overdue: It took longer, or the worker was busy for as long.
            HeadraceError: As the function raises it.
        """
        if not self._busy.acquire(timeout=seconds):
            raise Overdue(f"others are being answered; try again (after {seconds:.0f} s)")
        try:
            self._send(name, arguments)
            _, value = self._received(seconds)
            return value
        finally:
            self._busy.release()

    def stream(self, name: str, *arguments: Any, seconds: float) -> Pieces:
        """Return the bytes that a function yields, piece by piece; leaving them ends the process.

        Args:
            name: Of the function.
            arguments: Can be pickled.
            seconds: For which each piece may take.

        Raises:
            Busy: Something else is under way.
        """
        if not self._busy.acquire(blocking=False):
            raise Busy("others are being written; try again when they are done")
        return Pieces(self, self._streamed(name, arguments, seconds))

    def _streamed(self, name: str, arguments: tuple[Any, ...], seconds: float) -> Generator[bytes]:
        whole = False
        try:
            self._send(name, arguments)
            while True:
                kind, value = self._received(seconds)
                if kind == "end":
                    whole = True
                    return
                yield value
                assert self._pipe is not None
                self._pipe.send("more")
        except OSError:  # it was ended while a piece was taken
            raise Retriable("the process that reads the lake ended; try again") from None
        finally:
            if not whole:
                self.close()

    def kill(self) -> None:
        """End the process; for another thread than the one that waits for it, which is told."""
        process = self._process
        if process is not None:
            with suppress(ValueError):  # it has been closed in this moment
                process.kill()

    def release(self) -> None:
        """Let the next one in."""
        self._busy.release()

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process, pipe, self._pipe = self._process, None, self._pipe, None
        if process is not None:
            process.kill()
            process.join()
            process.close()
        if pipe is not None:
            pipe.close()

    @property
    def pid(self) -> int | None:
        """Id of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    def _send(self, name: str, arguments: tuple[Any, ...]) -> None:
        for fresh in (False, True):
            if fresh or self._process is None or not self._process.is_alive():
                self._start()
            assert self._pipe is not None
            try:
                self._pipe.send((name, arguments))
                return
            except OSError:  # it went idle in this moment
                if fresh:
                    raise Retriable("the process that reads the lake ended; try again") from None

    def _start(self) -> None:
        self.close()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._module, self._arguments), daemon=True)
        process.start()
        theirs.close()
        self._process, self._pipe = process, ours
        self._received(_START_SECONDS)

    def _received(self, seconds: float) -> tuple[str, Any]:
        assert self._pipe is not None
        try:
            if not self._pipe.poll(seconds):
                self.close()
                raise Overdue(
                    f"there was no answer within {seconds:.0f} s; ask for fewer days, or of one day"
                )
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            self.close()
            raise Retriable("the process that reads the lake ended; try again") from None
        if kind == "error":
            name, message = value
            raise getattr(errors, name, HeadraceError)(message)
        return kind, value


def _work(pipe: Connection, module: str, arguments: tuple[Any, ...]) -> None:
    """Serve calls until nobody has called for long, or the server is gone."""
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        functions = importlib.import_module(module)
        state = functions.opened(*arguments)
        pipe.send(("ready", None))
        while pipe.poll(IDLE_SECONDS):
            name, given = pipe.recv()
            _answer(pipe, getattr(functions, name), state, given)


def _answer(pipe: Connection, function: Any, state: Any, given: tuple[Any, ...]) -> None:
    try:
        value = function(state, *given)
        if not isinstance(value, Iterator):
            pipe.send(("value", value))
            return
        for piece in value:
            pipe.send(("piece", piece))
            if pipe.recv() != "more":
                return
        pipe.send(("end", None))
    except HeadraceError as error:
        pipe.send(("error", (type(error).__name__, str(error))))
    except (EOFError, BrokenPipeError):
        raise
    except Exception as error:  # a defect: the server lives on and says so
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        pipe.send(("error", ("Fatal", f"this cannot be shown: {said}")))


def within(seconds: float) -> float:
    """Return the time of a monotonic clock at which so many seconds are over."""
    return time.monotonic() + seconds
