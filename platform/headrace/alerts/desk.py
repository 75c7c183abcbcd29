"""Keeps what every channel has been told, so that each is told once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from headrace.alerts.base import Channel, Moment, Notice, Problem
from headrace.alerts.channels import Log, addresses
from headrace.config.settings import Settings
from headrace.core.atomic import write_atomically
from headrace.core.errors import Fatal
from headrace.core.locks import Patience, file_lock

log = logging.getLogger("headrace.alerts")

#: One message each, up to so many at a time; beyond that one message tells them all.
_ONE_BY_ONE = 5
_PATIENCE = Patience(silent_seconds=30, max_seconds=300)


@dataclass(slots=True)
class Alert:
    """A problem that is not over for every channel.

    Attributes:
        problem: As it was seen last, with the time when it began.
        told: When each channel was last told of it, by the channel's id.
        recovered: When it ended (UTC); None while it goes on.
    """

    problem: Problem
    told: dict[str, Moment] = field(default_factory=dict)
    recovered: Moment | None = None


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
    marks: dict[str, Moment] = field(default_factory=dict)

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

    def __init__(
        self,
        path: Path,
        channels: Iterable[Channel],
        remind_after: timedelta,
        patience: Patience = _PATIENCE,
    ) -> None:
        """Args:
        path: File of the book.
        channels: Whom to tell.
        remind_after: How long a channel is left in peace about what it knows; zero for ever.
        patience: How long to wait for another process that tells the channels.
        """
        self._patience = patience
        self._path = path
        self._channels = list(channels)
        self._remind_after = remind_after

    def book(self) -> Book:
        """What was known last. A file that cannot be read is an empty book, and said so in the log."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Book)
        except FileNotFoundError:
            return Book()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
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

        Raises:
            Busy: Another process tells the channels, for longer than it is worth waiting.
        """
        now = now or datetime.now(UTC)
        with self._alone("telling alerts"):
            book = self.book()
            before = msgspec.json.encode(book)
            _not_ahead(book, now)
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
        with self._alone(f"dismissing {key}"):
            book = self.book()
            if key not in book.alerts:
                known = ", ".join(sorted(book.alerts)) or "none"
                raise Fatal(f"there is no alert {key!r}; open are: {known}")
            del book.alerts[key]
            self._save(book)

    def _alone(self, purpose: str) -> AbstractContextManager[None]:
        return file_lock(self._path.with_suffix(".lock"), purpose, self._patience)

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
        """Raises:
        Fatal: It cannot be written; nobody is told then, because everybody would be told again and again.
        """
        try:
            write_atomically(self._path, msgspec.json.encode(book), 0o600)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise Fatal(f"{self._path} cannot be written, so no channel is told of alerts: {why}") from error


def _not_ahead(book: Book, now: datetime) -> None:
    """Take times of a clock that was wrong for now, or reminders would wait until then."""
    book.marks = {mark: min(at, now) for mark, at in book.marks.items()}
    for alert in book.alerts.values():
        alert.told = {channel: min(at, now) for channel, at in alert.told.items()}
        if alert.problem.began > now:
            alert.problem = replace(alert.problem, began=now)


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
    return Desk(
        settings.home / "alerts.json", [Log(), *addresses(settings)], reminder, settings.lock_patience
    )
