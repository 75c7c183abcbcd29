"""Parse the little SQL that the endpoint must understand: a statement's kind, and where its data begins.

The engine parses every statement itself. This scanner only splits text into tokens as ClickHouse's lexer does
(``src/Parsers/Lexer.cpp``), so that keywords inside strings, comments and names do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

from headrace.local.clickhouse.errors import ClickHouseError

_TOKEN = re.compile(
    r"""(?P<space>[\s\ufeff\u200b-\u200d\u2060]+|--[^\n]*|//[^\n]*|\#[ !][^\n]*)
      |(?P<comment>/\*)
      |(?P<string>'(?:[^'\\]|\\.|'')*'|\u2018[^\u2019]*\u2019)
      |(?P<quoted>"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`|\u201c[^\u201d]*\u201d)
      |(?P<dollar>\$)
      |(?P<word>[A-Za-z_][A-Za-z0-9_$]*)
      |(?P<number>[0-9](?:[A-Za-z0-9_]|\.(?=[0-9]))*)
      |(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
_DOLLAR_WORD = re.compile(r"\$[A-Za-z0-9_][A-Za-z0-9_$]*")
_ESCAPE = re.compile(r"\\x([0-9A-Fa-f]{2})|\\(.)|''|\"\"|``", re.DOTALL)
_CONTROL = dict(zip("abefnrtv0", "\a\b\x1b\f\n\r\t\v\0", strict=True))
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_AFTER_COLUMN = ("FROM", "WHERE", "GROUP", "ORDER", "LIMIT", "UNION", "SETTINGS", "FORMAT")
_USERS = frozenset({"currentuser", "current_user", "user"})
_READS = frozenset({"SELECT", "WITH", "FROM", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"})


class Token(NamedTuple):
    """One token. ``depth`` counts the brackets around it."""

    kind: str
    text: str
    start: int
    end: int
    depth: int

    def is_word(self, *words: str) -> bool:
        """Tell whether this is one of these bare keywords (upper case)."""
        return self.kind == "word" and self.text.upper() in words

    @property
    def name(self) -> str | None:
        """The identifier that this token spells, quoted or not; None for anything else."""
        if self.kind == "word":
            return self.text
        return unquote(self.text) if self.kind == "quoted" else None


class Kind(Enum):
    """Ways to run a statement."""

    READ = "read"  # has a result: streamed
    INSERT = "insert"  # carries data after its head: the data is streamed in
    COMMAND = "command"  # everything else


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, taken apart as far as running it requires.

    Attributes:
        kind: How to run it.
        verb: Its first word, upper case.
        head: Text up to FORMAT (or VALUES), without either.
        format: Format that the text names, if any.
        tail: Text after the format's name (``SETTINGS ...``), for reads and commands.
        data_at: Index into the text at which an INSERT's data begins.
        tokens: Tokens of head and tail, without an INSERT's data.
    """

    kind: Kind
    verb: str
    head: str
    format: str | None
    tail: str
    data_at: int
    tokens: tuple[Token, ...]


def unquote(literal: str) -> str:
    """Return the content of a quoted string or name, with ClickHouse's escapes resolved."""
    mark, content = literal[0], literal[1:-1]
    if mark not in "'\"`":  # typographic quotes have no escapes; heredocs may keep their tags
        return content

    def plain(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        if match[2]:
            return _CONTROL.get(match[2], match[2])
        return mark if match[0][0] == mark else match[0]

    return _ESCAPE.sub(plain, content)


def as_user(statement: Statement, user: str) -> str:
    """Return the head of a read in which ``currentUser()`` is the user who logged in.

    The engine knows one user alone. Drivers ask for it, and one of them logs in by the answer from then on.
    """
    words, head = statement.tokens, statement.head
    for index in range(len(words) - 3, -1, -1):
        name, opening, closing = words[index : index + 3]
        called = opening.text == "(" and closing.text == ")" and name.kind == "word"
        if called and name.text.lower() in _USERS and closing.end <= len(head):
            before = words[index - 1] if index else None
            after = words[index + 3] if index + 3 < len(words) else None
            column = before is not None and (before.is_word("SELECT", "DISTINCT") or before.text == ",")
            ends = after is None or after.text in ",)" or after.is_word(*_AFTER_COLUMN)
            title = (
                f" AS {quote_name(head[name.start : closing.end])}"
                if column and ends and not name.depth
                else ""
            )
            head = f"{head[: name.start]}{quote(user)}{title}{head[closing.end :]}"
    return head


def quote(value: str) -> str:
    """Quote a string as a literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(name: str) -> str:
    """Quote an identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def tokens(sql: str) -> Iterator[Token]:
    """Split ``sql`` into tokens without space and comments. Text that the lexer would refuse becomes signs."""
    position, depth = 0, 0
    while position < len(sql):
        match = _TOKEN.match(sql, position)
        assert match is not None and match.lastgroup is not None  # the last alternative takes anything
        kind, text, end = match.lastgroup, match.group(), match.end()
        if kind == "comment":
            kind, end = "space", _end_of_comment(sql, end)
        elif kind == "dollar":
            kind, end = _dollar(sql, position)
            text = sql[position:end]
        if kind != "space":
            if text in _CLOSING:
                depth -= 1
            yield Token(kind, text, position, end, depth)
            if text in _OPENING:
                depth += 1
        position = end


def _end_of_comment(sql: str, position: int) -> int:
    """Return the end of the comment that began before ``position``. Comments nest."""
    depth = 1
    while depth and (mark := _COMMENT_MARK.search(sql, position)):
        depth += 1 if mark.group() == "/*" else -1
        position = mark.end()
    return len(sql) if depth else position


def _dollar(sql: str, position: int) -> tuple[str, int]:
    """Return kind and end of a token that begins with a dollar sign. A heredoc's tag may be any text."""
    tag_end = sql.find("$", position + 1) + 1
    if tag_end:
        tag = sql[position:tag_end]
        closing = sql.find(tag, tag_end)
        if closing >= 0:
            return "string", closing + len(tag)
    word = _DOLLAR_WORD.match(sql, position)
    return ("word", word.end()) if word else ("sign", position + 1)


def analyse(sql: str) -> Statement:
    """Take one statement apart.

    Raises:
        ClickHouseError: Code 62 for an empty text and for more than one statement.
    """
    stream = tokens(sql)
    seen: list[Token] = []
    for token in stream:
        seen.append(token)
        if token.text != "(":
            break
    verb = seen[-1].text.upper() if seen else ""
    if verb in ("", "("):
        raise ClickHouseError(62, "Syntax error: Empty query", "SYNTAX_ERROR")
    if verb == "INSERT":
        return _analyse_insert(sql, seen, stream)
    seen.extend(stream)
    end = _end_of_statement(sql, seen)
    seen = [token for token in seen if token.end <= end]
    kind = Kind.READ if verb in _READS else Kind.COMMAND
    if any(a.is_word("INSERT") and b.is_word("INTO") and not a.depth for a, b in pairwise(seen)):
        kind = Kind.COMMAND  # WITH ... INSERT INTO ... SELECT
    for before, token, name in zip(seen, seen[1:], seen[2:], strict=False):
        if token.is_word("FORMAT") and not token.depth and name.kind == "word" and before.text not in ".,":
            after = seen[seen.index(name) + 1 :]
            if not after or after[0].is_word("SETTINGS"):
                head, tail = sql[: token.start], sql[name.end : end]
                return Statement(kind, verb, head, name.text, tail, end, tuple(seen))
    return Statement(kind, verb, sql[:end], None, "", end, tuple(seen))


def _analyse_insert(sql: str, seen: list[Token], stream: Iterator[Token]) -> Statement:
    """Take an INSERT apart. It ends where its data begins: after VALUES or FORMAT at the outermost level."""
    for token in stream:
        if not token.depth and seen[-1].text != ".":
            if token.is_word("VALUES"):
                return Statement(
                    Kind.INSERT, "INSERT", sql[: token.start], "Values", "", token.end, tuple(seen)
                )
            if token.is_word("FORMAT") and (name := next(stream, None)) is not None:
                return Statement(
                    Kind.INSERT, "INSERT", sql[: token.start], name.text, "", name.end, tuple(seen)
                )
            query = token.is_word("SELECT", "WITH", "FROM", "WATCH")
        else:
            query = token.is_word("SELECT", "WITH") and seen[-1].text == "("
        if query or token.text == ";":
            seen += [token, *stream]
            end = _end_of_statement(sql, seen)
            kept = tuple(t for t in seen if t.end <= end)
            return Statement(Kind.COMMAND, "INSERT", sql[:end], None, "", end, kept)
        seen.append(token)
    return Statement(Kind.INSERT, "INSERT", sql, None, "", len(sql), tuple(seen))


def _end_of_statement(sql: str, found: list[Token]) -> int:
    for index, token in enumerate(found):
        if token.text == ";" and token.kind == "sign":
            if any(later.text != ";" for later in found[index + 1 :]):
                raise ClickHouseError(
                    62,
                    f"Syntax error (Multi-statements are not allowed): failed at position {token.start + 1}",
                    "SYNTAX_ERROR",
                )
            return token.start
    return len(sql)
