"""Find the statement of a request, and leave an INSERT's data in place to be streamed."""

from __future__ import annotations

import re
from dataclasses import replace

from headrace.local.clickhouse.errors import ClickHouseError
from headrace.local.clickhouse.request import Request
from headrace.local.clickhouse.statement import Kind, Statement, analyse, tokens

_HEAD = 256 << 10  # an INSERT's head must fit into this
_LINE_END = re.compile(rb"[ \t\f]*\r?\n?")


def read_statement(request: Request) -> Statement | None:
    """Read the statement of a request, and leave an INSERT's data in ``request.body``.

    The statement is in the URL, in the body, or begins in the URL and ends in the body.

    Returns:
        None if there is no statement at all, which ClickHouse answers with ``Ok.``.
    """
    start = request.parameters.get("query", "")
    if start.strip():
        return _from_url(request, start)
    head = _text(request.body.peek(_HEAD)[0])
    if not head:
        return None
    statement = _inserting(head)
    if statement is None or statement.format is None:
        statement = analyse(_text(request.body.read_all()))
        if statement.kind is Kind.INSERT:
            message = "Syntax error: an INSERT needs VALUES, FORMAT with data, or SELECT"
            raise ClickHouseError(62, message, "SYNTAX_ERROR")
        return statement
    request.body.skip(len(_bytes(head[: statement.data_at])))
    if statement.format != "Values":
        request.body.skip(len(_line_end(request.body.peek(64)[0])))
    return statement


def _from_url(request: Request, start: str) -> Statement:
    statement = _inserting(start)
    if statement is None:
        rest = _text(request.body.read_all())
        return analyse(f"{start}\n{rest}" if rest else start)
    inline = _bytes(start[statement.data_at :])
    if statement.format is None:
        statement = replace(statement, format=request.default_format or "Values")
    if statement.format != "Values":
        inline = inline[len(_line_end(inline)) :]
    request.body.prepend(inline)
    return statement


def _inserting(text: str) -> Statement | None:
    """Return the statement if it is an INSERT with data. Any bytes may follow its head."""
    first = next(tokens(text), None)
    if first is None or not first.is_word("INSERT"):
        return None
    statement = analyse(text)
    return statement if statement.kind is Kind.INSERT else None


def _line_end(data: bytes) -> bytes:
    """Return the end of the head's line, which is not part of the data."""
    found = _LINE_END.match(data)
    return found.group() if found else b""


def _text(data: bytes) -> str:
    """Decode bytes so that those outside UTF-8 reach the engine unchanged."""
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
