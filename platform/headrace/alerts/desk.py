"""Keeps what every channel has been told, so that each is told once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from headrace.alerts.base import Channel, Notice, Problem
from headrace.alerts.channels import Log, addresses
from headrace.errors import Fatal
from headrace.locks import file_lock
from headrace.settings import Settings

log = logging.getLogger("headrace.alerts")

#: One message each, up to so many at a time; beyond that one message tells them all.
_ONE_BY_ONE = 5


@dataclass(slots=True)
class Alert:
    """A problem that is not over for every channel.

    Attributes:
        problem: As it was seen last, with the time when it began.
        told: When each channel was last told of it, by the channel's id.
        recovered: When it ended (UTC); None while it goes on.
    """

    problem: Problem
    told: dict[str, datetime] = field(default_factory=dict)
    recovered: datetime | None = None


@dataclass(slots=True)
class Book:
    """What the desk knows.

    Attributes:
        alerts: By key.
        checks: Keys of the asset checks that the code has, as of the last look.
        marks: Times that whoever looks for problems wants to find again; taken as they are.
    """

    alerts: dict[str, Alert] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    marks: dict[str, datetime] = field(default_factory=dict)

    @property
    def open(self) -> dict[str, Problem]:
        """Problems that go on, by key."""
        return {key: alert.problem for key, alert in self.alerts.items() if alert.recovered is None}


@dataclass(slots=True)
class News:
    """What was found by looking. A key that is in neither has not changed, as far as one can tell.

    Attributes:
        problems: What is wrong.
        recovered: Keys of what is well; may name what was never wrong.
    """

    problems: list[Problem] = field(default_factory=list)
    recovered: set[str] = field(default_factory=set)


class Desk:
    """Keeps the book and tells the channels."""

    def __init__(self, path: Path, channels: Iterable[Channel], remind_after: timedelta) -> None:
        """Args:
        path: File of the book.
        channels: Whom to tell.
        remind_after: How long a channel is left in peace about what it knows; zero for ever.
        """
        self._path = path
        self._channels = list(channels)
        self._remind_after = remind_after

    def book(self) -> Book:
        """What was known last. A file that cannot be read is an empty book, and said so in the log."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Book)
        except FileNotFoundError:
            return Book()
        except (OSError, msgspec.MsgspecError) as error:
            log.error("%s cannot be read, alerts begin anew: %s", self._path, error)
            return Book()

    def settle(self, look: Callable[[Book], News], now: datetime | None = None) -> list[str]:
        """Look, and tell each channel what it has not been told.

        Args:
            look: Finds out what is wrong; may change what the book remembers for it. What it raises leaves the book
                as it was.
            now: The time (UTC).

        Returns:
            What went wrong with a channel, one line each; its messages are sent again by the next call.
        """
        now = now or datetime.now(UTC)
        with file_lock(self._path.with_suffix(".lock")):
            book = self.book()
            before = msgspec.json.encode(book)
            _note(book, look(book), now)
            for alert in book.alerts.values():  # a channel that is no longer set need not hear of its end
                alert.told = {
                    c: at for c, at in alert.told.items() if c in {one.id for one in self._channels}
                }
            if msgspec.json.encode(book) != before:
                self._save(book)
            failures = [why for channel in self._channels if (why := self._tell(channel, book, now))]
            over = [key for key, alert in book.alerts.items() if alert.recovered and not alert.told]
            for key in over:
                del book.alerts[key]
            if over:
                self._save(book)
        return failures

    def dismiss(self, key: str) -> None:
        """Forget an alert without a word; it comes back if its cause is found again.

        Raises:
            Fatal: There is none of that key.
        """
        with file_lock(self._path.with_suffix(".lock")):
            book = self.book()
            if key not in book.alerts:
                known = ", ".join(sorted(book.alerts)) or "none"
                raise Fatal(f"there is no alert {key!r}; open are: {known}")
            del book.alerts[key]
            self._save(book)

    def _tell(self, channel: Channel, book: Book, now: datetime) -> str | None:
        due = {
            key: notice for key, alert in book.alerts.items() if (notice := self._due(channel, alert, now))
        }
        keys = list(due)
        for some in [keys] if len(keys) > _ONE_BY_ONE else [[key] for key in keys]:
            why = channel.send([due[key] for key in some])
            if why:
                return f"{channel.label} did not take {len(some)} of {len(keys)}, sent again soon: {why}"
            for key in some:
                told = book.alerts[key].told
                if due[key].kind == "recovered":
                    told.pop(channel.id)
                else:
                    told[channel.id] = now
            self._save(book)
        return None

    def _due(self, channel: Channel, alert: Alert, now: datetime) -> Notice | None:
        last = alert.told.get(channel.id)
        if alert.recovered:
            return Notice("recovered", alert.problem, alert.recovered) if last else None
        if last is None:
            return Notice("new", alert.problem, now)
        if self._remind_after and now - last >= self._remind_after:
            return Notice("reminder", alert.problem, now)
        return None

    def _save(self, book: Book) -> None:
        beside = self._path.with_suffix(".tmp")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(book))
        beside.replace(self._path)


def _note(book: Book, news: News, now: datetime) -> None:
    """Bring the book up to what was found."""
    for key in news.recovered:
        alert = book.alerts.get(key)
        if alert and not alert.recovered:
            alert.recovered = now
    for problem in news.problems:
        alert = book.alerts.get(problem.key)
        if alert is None or alert.recovered:
            # whoever has not heard of the end yet need not hear of the new beginning
            book.alerts[problem.key] = Alert(problem, dict(alert.told) if alert else {})
        else:
            alert.problem = replace(problem, began=alert.problem.began)


def desk(settings: Settings) -> Desk:
    """The desk of this installation: its log and the channels of its settings."""
    reminder = timedelta(seconds=settings.alert_reminder_seconds)
    return Desk(settings.home / "alerts.json", [Log(), *addresses(settings)], reminder)
