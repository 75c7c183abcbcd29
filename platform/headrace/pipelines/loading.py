"""Load one pipeline file. Whatever it does, the caller gets a pipeline or one line with file and line number.

The file runs in a thread of its own, because only a thread can be left behind when it hangs: whatever the
caller is (a command, the code server, another thread), and whatever the file waits for. So the file cannot set
signal handlers. If the file ends the process itself (``os._exit``) or crashes in compiled code, nothing can
prevent that from within.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType

from headrace.core.errors import HeadraceError
from headrace.pipelines.base import Pipeline
from headrace.pipelines.modules import FromText, module_files, root_of

_HERE = Path(__file__).parent
#: Most characters of a reason, which is one line on a screen.
_LONGEST = 600
#: Seconds for a loop to end once it has been told to.
_LAST_SECONDS = 0.2


_left: list[threading.Thread] = []


class BrokenFile(Exception):
    """A pipeline file does not load; the message says where and why, in one line."""


def load(path: Path, module: str, seconds: float) -> Pipeline:
    """Return the pipeline that a file declares.

    Args:
        path: The file.
        module: Name under which it is imported.
        seconds: Time after which loading is given up.

    Raises:
        BrokenFile: The file fails, exits, takes longer, or declares no pipeline.
    """
    loading = _Loading(path, module)
    with _apart():
        loading.start()
        try:
            loading.join(seconds)
        finally:
            stuck = loading.is_alive()
            if stuck:
                _left.append(loading)
                at = _frame_place(sys._current_frames().get(loading.ident or 0), path)
                _interrupt(loading)
    if isinstance(loading.found, Pipeline) and not stuck:
        return loading.found
    sys.modules.pop(module, None)
    if stuck:
        raise BrokenFile(
            f"{at}it still loads after {seconds:g} s (HEADRACE_PIPELINE_SECONDS); what waits or takes long belongs"
            " into a function that is called later"
        )
    if loading.failed is not None:
        raise BrokenFile(reason(loading.failed, path))
    was = "" if loading.found is None else f"; it is {type(loading.found).__name__} {loading.found!r:.60}"
    raise BrokenFile(_one_line(f"define `pipeline = Pipeline(...)` at the top level{was}"))


def left_behind() -> int:
    """Count the threads whose files were given up and that could not be ended."""
    return sum(thread.is_alive() for thread in _left)


def reason(error: BaseException, path: Path) -> str:
    """Explain an error in one line that begins with its place in the user's own files, if it has one there."""
    if isinstance(error, SyntaxError) and _own(error.filename, path):
        said, at = f"{type(error).__name__}: {error.msg}", _place(str(error.filename), error.lineno, path)
    else:
        frames = reversed(traceback.extract_tb(error.__traceback__))
        own = next((frame for frame in frames if _own(frame.filename, path)), None)
        said, at = _said(error), _place(own.filename, own.lineno, path) if own else ""
    return _one_line(at + said)


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # the error's own __str__ fails
        text = ""
    if isinstance(error, SystemExit):
        return f"it ends the process: SystemExit({text})"
    if isinstance(error, HeadraceError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."


def _place(file: str, line: int | None, path: Path) -> str:
    """Name a place: the line, preceded by the file's name unless it is the pipeline's own."""
    number = f"line {line}" if line else ""
    other = "" if _same(file, path) else _relative(Path(file).resolve(), path)
    said = " ".join(part for part in (other, number) if part)
    return f"{said}: " if said else ""


def _frame_place(frame: FrameType | None, path: Path) -> str:
    while frame is not None:
        if _own(frame.f_code.co_filename, path):
            return _place(frame.f_code.co_filename, frame.f_lineno, path)
        frame = frame.f_back
    return ""


def _own(file: str | None, path: Path) -> bool:
    """Tell whether a file is among those that a pipeline may import; ``<string>`` and ``<frozen os>`` are nowhere."""
    if not file or file.startswith("<"):
        return False
    found = Path(file).resolve()
    return found.is_relative_to(path.parent.resolve()) or found in _of_project(path.parent)


def _relative(file: Path, path: Path) -> str:
    """Name a file as seen from the folder of the pipeline files or, in a project, from its root."""
    folder = path.parent.resolve()
    return str(file.relative_to(folder if file.is_relative_to(folder) else folder.parent))


def _of_project(folder: Path) -> set[Path]:
    return {one.resolve() for one in module_files(folder)} if root_of(folder) is not None else set()


def _same(file: str, path: Path) -> bool:
    return Path(file).resolve() == path.resolve()


class _Loading(threading.Thread):
    """The execution of one file; sets ``found`` or ``failed``."""

    def __init__(self, path: Path, module: str) -> None:
        super().__init__(name=f"load {path.name}", daemon=True)
        self._path, self._module = path, module
        self.found: object = None
        self.failed: BaseException | None = None

    def run(self) -> None:
        try:
            loader = None if self._path.parent == _HERE else FromText(self._module, str(self._path))
            spec = importlib.util.spec_from_file_location(self._module, self._path, loader=loader)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[self._module] = module
            spec.loader.exec_module(module)
            self.found = getattr(module, "pipeline", None)
        except BaseException as error:  # also SystemExit; Ctrl-C is the main thread's
            self.failed = error


def _interrupt(thread: threading.Thread) -> None:
    """End a thread at its next line of Python; one that waits in compiled code ends with the process."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
    )
    thread.join(_LAST_SECONDS)


@contextmanager
def _apart() -> Iterator[None]:
    """Keep a file away from the terminal: its output goes to stderr, and its input is empty.

    Programs read a command's output (``--json``), and a forgotten ``breakpoint()`` would wait for ever.
    """
    before = sys.stdin
    with Path(os.devnull).open(encoding="utf-8") as nobody, redirect_stdout(sys.stderr):
        sys.stdin = nobody
        try:
            yield
        finally:
            sys.stdin = before
