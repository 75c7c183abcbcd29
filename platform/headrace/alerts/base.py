"""Define problems, their notifications, and the protocol of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal, Protocol

import msgspec

#: A time with its zone. A time without one, in a file, is damage.
ZonedTime = Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem that needs a person.

    Attributes:
        key: Identifies the cause. Problems with the same key are the same problem.
        what: Kind of the problem.
        title: Summary in one line.
        reason: First lines of the error, or the check's description.
        severity: ``error``, or ``warning`` if data keeps flowing.
        owners: Owners of the affected streams.
        link: Address with details.
        began: Start (UTC).
        stream: Name of the stream; empty if no single stream is affected.
        asset: Name of the asset; empty if no single asset is affected.
    """

    key: str
    what: Literal["run", "check", "silence"]
    title: str
    reason: str
    severity: Literal["error", "warning"]
    owners: tuple[str, ...]
    link: str
    began: ZonedTime
    stream: str = ""
    asset: str = ""


@dataclass(frozen=True, slots=True)
class Notification:
    """Message to a channel about one problem."""

    kind: Literal["new", "reminder", "recovered"]
    problem: Problem
    at: datetime

    @property
    def title(self) -> str:
        """Title in one line."""
        before = {"new": "", "reminder": "still: ", "recovered": "recovered: "}[self.kind]
        return f"Headrace: {before}{self.problem.title}"

    @property
    def fields(self) -> dict[str, str]:
        """Fields of the message by name, without empty ones."""
        problem = self.problem
        named = {
            "kind": self.kind,
            "what": problem.what,
            "stream": problem.stream,
            "asset": problem.asset,
            "owner": ", ".join(problem.owners),
            "severity": problem.severity,
            "began": f"{problem.began:%Y-%m-%d %H:%M:%S} UTC",
            "ended": f"{self.at:%Y-%m-%d %H:%M:%S} UTC" if self.kind == "recovered" else "",
            "link": problem.link,
        }
        return {name: value for name, value in named.items() if value}

    @property
    def body(self) -> str:
        """The reason, then one field per line."""
        lines = [f"{name}: {value}" for name, value in self.fields.items() if name not in ("kind", "what")]
        return "\n".join([self.problem.reason, "", *lines])


class Channel(Protocol):
    """A way to notify people."""

    @property
    def id(self) -> str:
        """Identity of the address, independent of its place in the setting."""

    @property
    def label(self) -> str:
        """Place and scheme of the address, without secrets."""

    def send(self, notices: Sequence[Notification], /) -> str | None:
        """Send notifications in one message. Return None on success, else the reason without secrets."""


def length(time: timedelta) -> str:
    """Format a duration in its two largest units: ``2 h 5 min``."""
    left, found = int(time.total_seconds()), []
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, left = divmod(left, seconds)
        if number > 0:
            found.append(f"{number} {unit}")
    return " ".join(found[:2]) or "0 s"
