"""Lay out source code as ``ruff format`` does, for the few kinds of expressions that contracts are made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from headrace.contracts.inference.proposal import quoted

WIDTH = 110


@dataclass(frozen=True, slots=True)
class Code:
    """Source text that is used as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call: its function, and its arguments with their names, empty for positional ones."""

    function: str
    arguments: tuple[tuple[str, Any], ...]


def flat(value: Any) -> str:
    """Return a value as source text on one line."""
    match value:
        case Code(text):
            return text
        case Call(function, arguments):
            return (
                f"{function}({', '.join(f'{name}={flat(v)}' if name else flat(v) for name, v in arguments)})"
            )
        case str():
            return quoted(value)
        case tuple():
            inner = ", ".join(map(flat, value))
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        case list():
            return f"[{', '.join(map(flat, value))}]"
        case dict():
            return f"{{{', '.join(f'{flat(name)}: {flat(one)}' for name, one in value.items())}}}"
        case bool() | None:
            return repr(value)
        case int():
            return f"{value:_}" if abs(value) > 9_999 else str(value)
    return repr(value)


def laid_out(before: str, value: Any, after: str = "", indent: int = 0) -> list[str]:
    """Return the lines of ``before``, a value and ``after``, broken where they are too long."""
    space = " " * indent
    line = f"{space}{before}{flat(value)}{after}"
    if len(line) <= WIDTH:
        return [line]
    match value:
        case Call(function, arguments) if arguments:
            inner = flat(Call("", arguments))[1:-1]
            if indent + 4 + len(inner) <= WIDTH:
                return [f"{space}{before}{function}(", f"{space}    {inner}", f"{space}){after}"]
            lines = [f"{space}{before}{function}("]
            if len(arguments) == 1 and not arguments[0][0]:  # which gets no comma
                return [*lines, *laid_out("", arguments[0][1], "", indent + 4), f"{space}){after}"]
            for name, argument in arguments:
                lines += laid_out(f"{name}=" if name else "", argument, ",", indent + 4)
            return [*lines, f"{space}){after}"]
        case tuple() | list() if value:
            begin, end = ("(", ")") if isinstance(value, tuple) else ("[", "]")
            lines = [f"{space}{before}{begin}"]
            for one in value:
                lines += laid_out("", one, ",", indent + 4)
            return [*lines, f"{space}{end}{after}"]
        case dict() if value:
            lines = [f"{space}{before}{{"]
            for name, one in value.items():
                lines += laid_out(f"{flat(name)}: ", one, ",", indent + 4)
            return [*lines, f"{space}}}{after}"]
    return [line]


def comment(text: str, indent: int = 0) -> list[str]:
    """Return a comment of as many lines as it takes; ``text`` is one line and holds no unquoted data."""
    space = " " * indent
    room = WIDTH - indent - 2
    return [
        f"{space}# {line}"
        for line in textwrap.wrap(text, room, break_long_words=True, break_on_hyphens=False)
    ]


def blocks(parts: Iterable[list[str]]) -> str:
    """Join lines to a file."""
    return "\n".join(line for part in parts for line in part).rstrip("\n") + "\n"
