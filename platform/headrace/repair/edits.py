"""Repair the payloads of rejected rows: by a jq expression, or in a file that a person edits."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from headrace.core.batch import Unwrapped
from headrace.core.errors import BadData
from headrace.repair.selection import PAGE_BYTES, PAGE_ROWS, Selection, in_pages

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.repair.index import RejectIndex

#: Levels of arrays and objects that every JSON library writes back; Python's and msgspec's own limits are near 1,000.
_DEEPEST = 200
_BRACKET = re.compile(rb"[\[{\]}]")


@dataclass(frozen=True, slots=True)
class Repair:
    """Rejected rows after a repair.

    Attributes:
        rows: The rows with their new payloads.
        failed: Short id and reason of each row that could not be repaired; it is left alone.
    """

    rows: pl.DataFrame
    failed: tuple[tuple[str, str], ...] = ()


class _Line(msgspec.Struct):
    id: str
    record: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET


def exported(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Export rows for editing: id, reasons, and the payload as ``record`` (JSON), ``text`` or ``base64``."""
    for row in rows.select("id", "origin", "reasons", "payload").iter_rows(named=True):
        yield {
            "id": row["id"],
            "origin": row["origin"],
            "reasons": row["reasons"],
            **_editable(row["payload"]),
        }


def _editable(payload: bytes | None) -> dict[str, Any]:
    payload = payload or b""
    if not _is_deep(payload):
        try:
            return {"record": msgspec.json.decode(payload)}
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    try:
        return {"text": payload.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode()}


def _is_deep(payload: bytes) -> bool:
    """Tell whether a payload may be nested deeper than ``_DEEPEST``; brackets in its texts count, too."""
    if payload.count(b"[") + payload.count(b"{") <= _DEEPEST:
        return False
    level = deepest = 0
    for bracket in _BRACKET.findall(payload):
        level += 1 if bracket in b"[{" else -1
        deepest = max(deepest, level)
    return deepest > _DEEPEST


def edited(path: Path, page_rows: int = 4 * PAGE_ROWS) -> Iterator[pl.DataFrame]:
    """Read a file of ``exported`` lines that somebody has edited.

    Args:
        path: The file.
        page_rows: Lines from which a page is full; twice ``PAGE_BYTES`` of payloads fill one, too.

    Yields:
        Pages of ``name`` and ``payload``.

    Raises:
        BadData: A line is not what ``exported`` gives; the message names it.
    """
    decode = msgspec.json.Decoder(_Line).decode
    names: list[str] = []
    payloads: list[bytes] = []
    size = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                one = decode(line)
                payload = _payload(one)
            except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors, but for one
                raise BadData(
                    f"{path}, line {number}: expected an object with id and one of record, text, base64 ({error})"
                ) from error
            names.append(one.id)
            payloads.append(payload)
            size += len(payload)
            if len(names) >= page_rows or size >= 2 * PAGE_BYTES:
                yield _page(names, payloads)
                names, payloads, size = [], [], 0
    if names:
        yield _page(names, payloads)


def _payload(one: _Line) -> bytes:
    if one.record is not msgspec.UNSET:
        return bytes(one.record)
    if one.text is not msgspec.UNSET:
        return one.text.encode()
    if one.base64 is not msgspec.UNSET:
        return base64.b64decode(one.base64, validate=True)
    raise ValueError("it has none of them")


def _page(names: list[str], payloads: list[bytes]) -> pl.DataFrame:
    return pl.DataFrame({"name": names, "payload": payloads}, {"name": pl.String, "payload": pl.Binary})


def replaced(
    index: RejectIndex,
    edits: Iterable[pl.DataFrame],
    *,
    skip_redriven: bool = False,
    page_rows: int = PAGE_ROWS,
) -> Iterator[pl.DataFrame]:
    """Read rejected rows with the payloads of an edited file, page by page.

    Args:
        index: Index of the stream.
        edits: Pages of ``edited``.
        skip_redriven: Leave out rows that were redriven.
        page_rows: As of ``in_pages``.

    Raises:
        BadData: An id names no rejected row, or more than one.
    """
    for part in edits:
        rows = index.rows(part, Selection(every=True), skip_redriven=skip_redriven)
        yield from in_pages(rows, page_rows)


def transformed(
    rows: pl.DataFrame, expression: str, unwrap: Callable[[pl.Series], Unwrapped] | None = None
) -> Repair:
    """Replace each payload by the value that a jq expression makes of it.

    Args:
        rows: Rejected rows.
        expression: The expression.
        unwrap: Reads payloads that are no JSON by their schemas; what it makes of them is repaired.

    Raises:
        BadData: The expression is not jq.
    """
    import jq

    try:
        program = jq.compile(expression)
    except ValueError as error:
        raise BadData(f"{expression!r} is not a jq expression: {error}") from error
    payloads: list[bytes | None] = []
    failed = []
    read = unwrap(rows["payload"]) if unwrap else Unwrapped(rows["payload"])
    for n, (name, payload) in enumerate(zip(rows["id"], read.payloads, strict=True)):
        try:
            if n in read.unread:
                raise ValueError(": ".join(read.unread[n]))
            made = program.input_text((payload or b"").decode()).text()
            if "\n" in made or not made:
                raise ValueError("the expression must give exactly one value")
            payloads.append(made.encode())
        except ValueError as error:  # invalid UTF-8 is one, too
            payloads.append(None)
            failed.append((name, str(error).splitlines()[0]))
    rows = rows.with_columns(payload=pl.Series(payloads, dtype=pl.Binary))
    return Repair(rows.filter(~pl.col("id").is_in([name for name, _ in failed])), tuple(failed))
