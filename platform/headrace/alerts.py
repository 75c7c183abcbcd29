"""Who is told that something is wrong, once, and that it is well again.

A ``Problem`` has a key, its cause. The ``Desk`` keeps an alert for each cause that is not over, with what every channel
has been told of it, in a file below ``HEADRACE_HOME`` that is written after each message. So an alert is sent once to
each channel, again after a while if nobody mended it, and its end once; a channel that is down gets its message when
it is back, and the others get nothing twice. A process that is killed between a message and its note repeats that one.

Channels are addresses of Apprise (https://github.com/caronc/apprise), which knows webhooks, Slack, e-mail and more.
They hold secrets: what is said of a channel is its place in ``HEADRACE_ALERTS`` and its scheme.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from headrace.errors import Fatal
from headrace.locks import file_lock
from headrace.settings import Settings

log = logging.getLogger(__name__)

#: One message each, up to so many at a time; beyond that one message tells them all.
_ONE_BY_ONE = 5
#: Seconds for one message.
_PATIENCE = 10


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
    began: datetime
    stream: str = ""
    asset: str = ""


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


class Log:
    """The log of the process. It takes everything."""

    id = label = "log"

    def send(self, notices: Sequence[Notice], /) -> str | None:
        """A line and what belongs to it, at the level of the severity."""
        for notice in notices:
            levels = {"error": logging.ERROR, "warning": logging.WARNING}
            level = logging.WARNING if notice.kind == "recovered" else levels[notice.problem.severity]
            log.log(level, "%s\n%s", notice.title, notice.body)
        return None


class Address:
    """A channel that Apprise serves. Nothing is imported or opened before it is needed."""

    def __init__(self, place: int, url: str) -> None:
        """Args:
        place: In the setting, counted from 1.
        url: Apprise's URL of it.
        """
        self._url = url
        self._scheme = url.partition("://")[0].lower() if "://" in url else "no scheme"
        self.id = f"{self._scheme}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
        self.label = f"channel {place} ({self._scheme})"

    def verify(self) -> None:
        """See whether it is an address at all; nothing is sent.

        Raises:
            Fatal: It is none; names it by place and scheme.
        """
        if self._service([]) is None:
            raise Fatal(
                f"HEADRACE_ALERTS: {self.label} is not an address of a channel; write it like json://host/path, "
                "slack://token/token/token/#channel or mailtos://user:password@host?to=somebody@example.org, "
                "with %-escapes in passwords; see 'Alerts' in docs/operations.md"
            )

    def send(self, notices: Sequence[Notice], /) -> str | None:
        """Send one message; a webhook gets the fields of a single notice as keys of their own too."""
        import apprise

        service = self._service(notices)
        if service is None:
            return "it is no address of a channel"
        sender = apprise.Apprise(asset=_asset())
        sender.add(service)
        recovered = all(n.kind == "recovered" for n in notices)
        worst = "failure" if any(n.problem.severity == "error" for n in notices) else "warning"
        with _quiet_apprise() as said:
            went = sender.notify(
                title=notices[0].title if len(notices) == 1 else f"Headrace: {len(notices)} alerts",
                body=notices[0].body
                if len(notices) == 1
                else "\n\n".join(f"{n.title}\n{n.body}" for n in notices),
                notify_type=apprise.NotifyType.SUCCESS if recovered else apprise.NotifyType(worst),
                body_format=apprise.NotifyFormat.TEXT,
                timeout=_PATIENCE,
            )
        return None if went else self._without_secrets(said)

    def _service(self, notices: Sequence[Notice]) -> Any:
        import apprise
        from apprise.plugins import url_to_dict

        with _quiet_apprise():
            try:
                parts = url_to_dict(self._url, secure_logging=True)  # type: ignore[no-untyped-call]
                if parts is None:
                    return None
                if parts["schema"] in ("json", "jsons") and len(notices) == 1:
                    parts["payload"] = {**notices[0].fields, **parts.get("payload", {})}
                return apprise.Apprise.instantiate(parts, asset=_asset(), suppress_exceptions=False)
            except Exception:  # each of its plugins refuses in its own way, and may quote what it refuses
                return None

    def _without_secrets(self, said: list[str]) -> str:
        """What Apprise said, without any part of the address that might be a secret."""
        text = " ".join(" ".join(said).split())[:300] or "it did not take the message"
        parts = {self._url}
        for separator in "/:@?&=#":
            parts = {piece for part in parts for piece in part.split(separator)}
        for part in sorted(parts, key=len, reverse=True):
            if len(part) > 3 and part != self._scheme:
                text = text.replace(part, "***")
        return text


def _asset() -> Any:
    import apprise

    return apprise.AppriseAsset(app_id="Headrace", app_desc="Headrace", storage_mode="memory")


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def _quiet_apprise() -> Iterator[list[str]]:
    """What Apprise would log is kept instead: it may name addresses."""
    logger, kept = logging.getLogger("apprise"), _Kept()
    before = logger.propagate
    logger.propagate = False
    logger.addHandler(kept)
    try:
        yield kept.said
    finally:
        logger.removeHandler(kept)
        logger.propagate = before


def length(time: timedelta) -> str:
    """A time in its two largest units: ``2 h 5 min``."""
    left, found = int(time.total_seconds()), []
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, left = divmod(left, seconds)
        if number > 0:
            found.append(f"{number} {unit}")
    return " ".join(found[:2]) or "0 s"


def addresses(settings: Settings) -> list[Address]:
    """The channels of the settings, besides the log."""
    return [Address(n, url.get_secret_value()) for n, url in enumerate(settings.alerts, 1)]


def verify(settings: Settings) -> None:
    """See whether every channel's address is one.

    Raises:
        Fatal: One is not; names it by place and scheme.
    """
    for address in addresses(settings):
        address.verify()


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
