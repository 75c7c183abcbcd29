"""Read web servers' access logs as ``events``: the Common and the Combined Log Format.

https://httpd.apache.org/docs/2.4/logs.html and mod_log_config describe the formats and their escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import IO

import msgspec

from headrace.formats.base import Record, lines, malformed

#: Seconds of silence after which a visitor begins a new session; the usual gap of web analytics.
SESSION_GAP = 30 * 60
#: Seconds after which a visitor is forgotten. Servers write a line when a request ends, so lines are out of order.
_FORGET = 4 * SESSION_GAP
_VISITORS = 100_000  # with more than this, old ones are looked for and forgotten

_QUOTED = rb'"((?:[^"\\]|\\.)*)"'
_LINE = re.compile(
    rb"(\S+) \S+ ([^\[\]]+) \[([^\[\]]{1,40})\] " + _QUOTED + rb" (\d{3}) (\d{1,18}|-)"
    rb"(?: " + _QUOTED + rb" " + _QUOTED + rb")?\s*"
)
_TIME = re.compile(rb"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")
_MONTHS = {m: n for n, m in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_REQUEST = re.compile(r"([A-Z]{1,20}) (\S(?:.*\S)?) (HTTP/\d(?:\.\d)?)")
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"v": b"\v", b"f": b"\f"}
#: Suffixes of files that a page loads, as opposed to documents that a person opens.
_ASSETS = frozenset({
    ".avif", ".bmp", ".css", ".eot", ".gif", ".ico", ".jpeg", ".jpg", ".js", ".json", ".map",
    ".mjs", ".mp3", ".mp4", ".ogg", ".otf", ".png", ".svg", ".swf", ".ttf", ".wasm", ".wav",
    ".webm", ".webmanifest", ".webp", ".woff", ".woff2",
})  # fmt: skip


def read(file: IO[bytes]) -> Iterator[Record]:
    """Read every line as an event, keyed by its session."""
    log = AccessLog()
    for number, line, overlong in lines(file):
        if overlong:
            yield overlong
            continue
        found = log.parse(number, line)
        yield malformed(number, found, line) if isinstance(found, str) else (*found, None)


def is_access_log(line: bytes) -> bool:
    """Tell whether a line belongs to an access log."""
    return _LINE.fullmatch(line) is not None


@dataclass(slots=True)
class AccessLog:
    """Parses the lines of one file in order.

    The same file gives the same ids every time. The id of an event comes from its line and its place; the id of
    a session comes from client, agent and the session's first line.
    """

    _seen: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)
    _newest: float = 0.0
    _look_over: int = _VISITORS

    def parse(self, number: int, line: bytes) -> tuple[bytes, bytes] | str:
        """Parse one line.

        Args:
            number: Number of the line in the file, from 1.
            line: The line without its end.

        Returns:
            The event and its session id, or the reason why the line is none. ``event_type`` is
                ``request_error`` for status 4xx and 5xx, ``asset_request`` for a GET of a style sheet, script,
                picture, font or film, ``page_view`` for any other GET, and ``request`` for other methods.
        """
        found = _LINE.fullmatch(line)
        if found is None:
            return "no line of the Common or Combined Log Format"
        client, user, time, request, status, size, referrer, agent = found.groups()
        at = _time(time)
        if at is None:
            return f"no such time: {time.decode('ascii', 'replace')}"
        parts = _REQUEST.fullmatch(_text(request) or "")
        method, target, protocol = parts.groups() if parts else (None, None, None)
        path, _, query = (target or "").partition("?")
        visitor = (client.decode("utf-8", "replace"), _text(agent) or "")
        session = self._session(visitor, at.timestamp(), number, line)
        who = _text(user)
        properties = {
            "status": int(status),
            "bytes": 0 if size == b"-" else int(size),
            "method": method,
            "query": query or None,
            "referrer": _text(referrer),
            "agent": _text(agent),
            "protocol": protocol,
            "client": visitor[0],
        }
        event = {
            "event_id": _digest(number, line),
            "event_type": _event_type(int(status), method, path),
            "occurred_at": at.isoformat(),
            "session_id": session,
            "channel": "web",
            "page_url": path or None,
            "user_id": who,
            "properties": {k: v for k, v in properties.items() if v is not None},
        }
        return msgspec.json.encode({k: v for k, v in event.items() if v is not None}), session.encode()

    def _session(self, visitor: tuple[str, str], at: float, number: int, line: bytes) -> str:
        last, session = self._seen.get(visitor, (float("-inf"), ""))
        if abs(at - last) > SESSION_GAP:
            session = _digest(number, line, *visitor)
            last = at
        self._seen[visitor] = (max(at, last), session)
        self._newest = max(self._newest, at)
        if len(self._seen) > self._look_over:
            self._seen = {v: s for v, s in self._seen.items() if s[0] > self._newest - _FORGET}
            self._look_over = max(_VISITORS, 2 * len(self._seen))
        return session


def _digest(number: int, line: bytes, *more: str) -> str:
    text = "\0".join(more).encode("utf-8", "replace")
    return blake2b(b"%d:%s\0%s" % (number, line, text), digest_size=16).hexdigest()


def _event_type(status: int, method: str | None, path: str) -> str:
    if status >= 400:
        return "request_error"
    if method != "GET":
        return "request"
    return "asset_request" if PurePosixPath(path).suffix.lower() in _ASSETS else "page_view"


def _time(text: bytes) -> datetime | None:
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = found.groups()
    if int(zone_minutes) > 59:
        return None
    offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    try:
        zone = timezone(-offset if sign == b"-" else offset)
        # a leap second is written as 60, which Python's datetime lacks
        seconds = 59 if second == b"60" else int(second)
        return datetime(int(year), _MONTHS[month], int(day), int(hour), int(minute), seconds, tzinfo=zone)
    except (KeyError, ValueError):
        return None


def _text(part: bytes | None) -> str | None:
    """Return a field without its escapes; None for a hyphen or an empty field."""
    if part is None or part in (b"-", b""):
        return None
    if b"\\" in part:
        part = _ESCAPE.sub(_unescaped, part)
    return part.decode("utf-8", "replace")


def _unescaped(found: re.Match[bytes]) -> bytes:
    code, letter = found.groups()
    return bytes([int(code, 16)]) if code else _ESCAPED.get(letter, letter)
