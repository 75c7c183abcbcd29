"""Notify every channel once of each problem, and remember what each channel knows.

The state is in a file that is written after each message. So each channel gets an alert once, a reminder after a while
if the problem lasts, and its end once. A channel that is down gets its messages when it is back, and the others get
nothing twice. A process that is killed between a message and the write repeats that message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from headrace.alerts.base import Channel, Notification, Problem, ZonedTime
from headrace.alerts.channels import Log, addresses
from headrace.config.settings import Settings
from headrace.core.atomic import write_atomically
from headrace.core.errors import Fatal
from headrace.core.locks import Patience, file_lock

log = logging.getLogger("headrace.alerts")

#: Up to this number, each alert is a message of its own; more are one message.
_ONE_BY_ONE = 5
_PATIENCE = Patience(silent_seconds=30, max_seconds=300)


@dataclass(slots=True)
class Alert:
    """A problem whose end not every channel knows.

    Attributes:
        problem: The problem as last seen, with the time of its start.
        told: Time of each channel's last notification, by the channel's id.
        recovered: Time of recovery (UTC); None while the problem lasts.
    """

    problem: Problem
    told: dict[str, ZonedTime] = field(default_factory=dict)
    recovered: ZonedTime | None = None


@dataclass(slots=True)
class AlertState:
    """State of all alerts.

    Attributes:
        alerts: Alerts by key.
        checks: Keys of the asset checks in the code, as of the last look.
        marks: Times that the caller of ``update`` wants to keep, unchanged.
    """

    alerts: dict[str, Alert] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    marks: dict[str, ZonedTime] = field(default_factory=dict)

    @property
    def open(self) -> dict[str, Problem]:
        """Problems that last, by key."""
        return {key: alert.problem for key, alert in self.alerts.items() if alert.recovered is None}


@dataclass(slots=True)
class Findings:
    """Result of a look. The state of all other keys is unknown and stays.

    Attributes:
        problems: Problems found.
        recovered: Keys that are well. They may include keys that never had a problem.
    """

    problems: list[Problem] = field(default_factory=list)
    recovered: set[str] = field(default_factory=set)


class Notifier:
    """Keep the state and notify the channels."""

    def __init__(
        self,
        path: Path,
        channels: Iterable[Channel],
        remind_after: timedelta,
        patience: Patience = _PATIENCE,
    ) -> None:
        """Create the notifier.

        Args:
            path: File of the state.
            channels: Channels to notify.
            remind_after: Interval of reminders to a channel; zero for none.
            patience: How long to wait for another process that notifies the channels.
        """
        self._patience = patience
        self._path = path
        self._channels = list(channels)
        self._remind_after = remind_after

    def state(self) -> AlertState:
        """Return the last known state. A file that cannot be read is logged and counts as empty."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=AlertState)
        except FileNotFoundError:
            return AlertState()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.error("%s cannot be read, so all alerts are sent again: %s", self._path, error)
            return AlertState()

    def update(self, look: Callable[[AlertState], Findings], now: datetime | None = None) -> list[str]:
        """Look for problems, and send each channel the notifications that it lacks.

        Args:
            look: Finds problems. It may change ``marks`` and ``checks`` of the state. If it raises, the state stays as
                it was.
            now: The time (UTC).

        Returns:
            Failures of channels, one line each. The next call sends their messages again.

        Raises:
            Busy: Another process notifies the channels for longer than ``patience``.
        """
        now = now or datetime.now(UTC)
        with self._alone("telling alerts"):
            state = self.state()
            before = msgspec.json.encode(state)
            _not_ahead(state, now)
            _note(state, look(state), now)
            for alert in state.alerts.values():  # a removed channel does not get the end
                alert.told = {
                    c: at for c, at in alert.told.items() if c in {one.id for one in self._channels}
                }
            if msgspec.json.encode(state) != before:
                self._save(state)
            failures = [why for channel in self._channels if (why := self._tell(channel, state, now))]
            over = [key for key, alert in state.alerts.items() if alert.recovered and not alert.told]
            for key in over:
                del state.alerts[key]
            if over:
                self._save(state)
        return failures

    def dismiss(self, key: str) -> None:
        """Forget an alert without a message. It returns if its cause is found again.

        Raises:
            Fatal: There is no alert of that key.
        """
        with self._alone(f"dismissing {key}"):
            state = self.state()
            if key not in state.alerts:
                known = ", ".join(sorted(state.alerts)) or "none"
                raise Fatal(f"there is no alert {key!r}; open are: {known}")
            del state.alerts[key]
            self._save(state)

    def _alone(self, purpose: str) -> AbstractContextManager[None]:
        return file_lock(self._path.with_suffix(".lock"), purpose, self._patience)

    def _tell(self, channel: Channel, state: AlertState, now: datetime) -> str | None:
        due = {
            key: notice for key, alert in state.alerts.items() if (notice := self._due(channel, alert, now))
        }
        keys = list(due)
        for some in [keys] if len(keys) > _ONE_BY_ONE else [[key] for key in keys]:
            why = channel.send([due[key] for key in some])
            if why:
                return f"{channel.label} did not take {len(some)} of {len(keys)}, sent again soon: {why}"
            for key in some:
                told = state.alerts[key].told
                if due[key].kind == "recovered":
                    told.pop(channel.id)
                else:
                    told[channel.id] = now
            self._save(state)
        return None

    def _due(self, channel: Channel, alert: Alert, now: datetime) -> Notification | None:
        last = alert.told.get(channel.id)
        if alert.recovered:
            return Notification("recovered", alert.problem, alert.recovered) if last else None
        if last is None:
            return Notification("new", alert.problem, now)
        if self._remind_after and now - last >= self._remind_after:
            return Notification("reminder", alert.problem, now)
        return None

    def _save(self, state: AlertState) -> None:
        """Write the state.

        Raises:
            Fatal: It cannot be written. Nobody is notified then, or everybody would be notified again and again.
        """
        try:
            write_atomically(self._path, msgspec.json.encode(state), 0o600)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise Fatal(f"{self._path} cannot be written, so no channel is told of alerts: {why}") from error


def _not_ahead(state: AlertState, now: datetime) -> None:
    """Replace future times of a wrong clock by now. Reminders would wait until then otherwise."""
    state.marks = {mark: min(at, now) for mark, at in state.marks.items()}
    for alert in state.alerts.values():
        alert.told = {channel: min(at, now) for channel, at in alert.told.items()}
        if alert.problem.began > now:
            alert.problem = replace(alert.problem, began=now)


def _note(state: AlertState, findings: Findings, now: datetime) -> None:
    """Update the state with the findings."""
    for key in findings.recovered:
        alert = state.alerts.get(key)
        if alert and not alert.recovered:
            alert.recovered = now
    for problem in findings.problems:
        alert = state.alerts.get(problem.key)
        if alert is None or alert.recovered:
            # a channel that does not know the end yet does not get the new start either
            state.alerts[problem.key] = Alert(problem, dict(alert.told) if alert else {})
        else:
            alert.problem = replace(problem, began=alert.problem.began)


def notifier(settings: Settings) -> Notifier:
    """Make this installation's notifier: the log, and the channels of the settings."""
    reminder = timedelta(seconds=settings.alert_reminder_seconds)
    return Notifier(
        settings.home / "alerts.json", [Log(), *addresses(settings)], reminder, settings.lock_patience
    )
