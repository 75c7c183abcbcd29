"""What is told, and to whom it can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal, Protocol

import msgspec

#: A time with its zone: one without, in a file, is damage.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that needs a person.

    Attributes:
        key: Its cause: what has the same key is the same trouble.
        what: Of which kind it is.
        title: One line.
        reason: The first lines of the error, or what the check says.
        severity: ``error``, or ``warning`` where data goes on.
        owners: Whom it concerns; more than one where several streams are concerned.
        link: Where to look.
        began: When (UTC).
        stream: Name of the stream, empty if it is none's alone.
        asset: Name of the asset, empty if it is none's alone.
    """

    key: str
    what: Literal["run", "check", "silence"]
    title: str
    reason: str
    severity: Literal["error", "warning"]
    owners: tuple[str, ...]
    link: str
    began: Moment
    stream: str = ""
    asset: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to be told."""

    kind: Literal["new", "reminder", "recovered"]
    problem: Problem
    at: datetime

    @property
    def title(self) -> str:
        """One line."""
        before = {"new": "", "reminder": "still: ", "recovered": "recovered: "}[self.kind]
        return f"Headrace: {before}{self.problem.title}"

    @property
    def fields(self) -> dict[str, str]:
        """What an alert carries, by name; what is empty is left out."""
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
        """The reason, and the fields one to a line."""
        lines = [f"{name}: {value}" for name, value in self.fields.items() if name not in ("kind", "what")]
        return "\n".join([self.problem.reason, "", *lines])


class Channel(Protocol):
    """A way to tell people."""

    @property
    def id(self) -> str:
        """The same for the same address, at whatever place of the setting."""

    @property
    def label(self) -> str:
        """Its place and scheme: no secrets."""

    def send(self, notices: Sequence[Notice], /) -> str | None:
        """Tell them in one message; None if that went well, else why not, without secrets."""


def length(time: timedelta) -> str:
    """A time in its two largest units: ``2 h 5 min``."""
    left, found = int(time.total_seconds()), []
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, left = divmod(left, seconds)
        if number > 0:
            found.append(f"{number} {unit}")
    return " ".join(found[:2]) or "0 s"
