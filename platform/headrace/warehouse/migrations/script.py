"""Split an SQL script into its statements, at the semicolons that ClickHouse's lexer sees.

A semicolon inside a literal, a quoted name, a comment or a heredoc is text.
https://github.com/ClickHouse/ClickHouse/blob/master/src/Parsers/Lexer.cpp
"""

from __future__ import annotations

import re

from headrace.core.errors import Fatal

_PIECE = re.compile(
    r"""(?P<comment>--[^\n]*|//[^\n]*|\#[ !][^\n]*)
      |(?P<block>/\*)
      |(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`|‘[^’]*’|“[^”]*”)
      |(?P<heredoc>(?<![A-Za-z0-9_$])\$(?P<tag>[A-Za-z0-9_]*)\$.*?\$(?P=tag)\$)
      |(?P<open>['"`‘“])
      |(?P<end>;)
      |(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_BLOCK_MARK = re.compile(r"/\*|\*/")


def statements(sql: str) -> list[str]:
    """Return the statements of a script in order, without comments, semicolons and empty statements.

    Raises:
        Fatal: A literal, a quoted name or a comment has no end.
    """
    found: list[str] = []
    current: list[str] = []
    at = 0
    while at < len(sql):
        piece = _PIECE.match(sql, at)
        assert piece is not None  # the last alternative takes anything
        end, kept = piece.end(), piece[0]
        if piece["open"]:
            raise Fatal(f"line {_line(sql, at)}: {piece[0]} is never closed")
        if piece["block"]:
            end, kept = _end_of_comment(sql, at), " "
        elif piece["comment"]:
            kept = " "
        elif piece["end"]:
            found.append("".join(current))
            current, kept = [], ""
        current.append(kept)
        at = end
    found.append("".join(current))
    return [text.strip() for text in found if text.strip()]


def _end_of_comment(sql: str, at: int) -> int:
    """Return the place just after the comment that begins at ``at``; comments nest."""
    depth = 0
    for mark in _BLOCK_MARK.finditer(sql, at):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    raise Fatal(f"line {_line(sql, at)}: the comment is never closed")


def _line(sql: str, at: int) -> int:
    return sql.count("\n", 0, at) + 1
