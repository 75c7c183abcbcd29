"""Share the terminal, common options and open streams between commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from headrace.streams.stream import Stream

console = Console(highlight=False)
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
StreamName = Annotated[str | None, typer.Argument(metavar="STREAM", help="Only this stream; default: all.")]


def emit(value: Any, as_json: bool, lines: list[str]) -> None:
    """Print ``value`` as JSON, or ``lines``, which may hold Rich markup."""
    if as_json:
        print(json.dumps(value, default=str))
        return
    for line in lines:
        console.print(line, soft_wrap=True)


@contextmanager
def opened(only: str | None = None, *, retry: bool = True) -> Iterator[dict[str, Stream]]:
    """Open all streams of this installation, or ``only`` one, by name; close them afterwards."""
    from headrace.config.settings import settings
    from headrace.streams.stream import streams

    found = streams(settings(), only, retry=retry)
    try:
        yield found
    finally:
        for stream in found.values():
            stream.close()


def say(line: str) -> None:
    """Print a line without markup."""
    console.print(escape(line), soft_wrap=True)
