"""Define the channels: the log, and addresses that Apprise serves, such as webhooks, Slack or e-mail.

Addresses hold secrets. So messages name a channel by its place in ``HEADRACE_ALERTS`` and its scheme. Apprise:
https://github.com/caronc/apprise.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from headrace.alerts.base import Notification
from headrace.config.settings import Settings
from headrace.core.errors import Fatal

log = logging.getLogger("headrace.alerts")

#: Longest time for one message, s.
_PATIENCE = 10


class Log:
    """The log of this process. It accepts every notification."""

    id = label = "log"

    def send(self, notices: Sequence[Notification], /) -> str | None:
        """Log each notification at the level of its severity."""
        for notice in notices:
            levels = {"error": logging.ERROR, "warning": logging.WARNING}
            level = logging.WARNING if notice.kind == "recovered" else levels[notice.problem.severity]
            log.log(level, "%s\n%s", notice.title, notice.body)
        return None


class Address:
    """A channel that Apprise serves. Nothing is imported or opened before its first use."""

    def __init__(self, place: int, url: str) -> None:
        """Create the channel.

        Args:
            place: Place in the setting, counted from 1.
            url: Apprise's URL of the channel.
        """
        self._url = url
        self._scheme = url.partition("://")[0].lower() if "://" in url else "no scheme"
        self.id = f"{self._scheme}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
        self.label = f"channel {place} ({self._scheme})"

    def verify(self) -> None:
        """Check that the URL is a valid address, without sending anything.

        Raises:
            Fatal: It is not. The message names the channel by place and scheme.
        """
        if self._service([]) is None:
            raise Fatal(
                f"HEADRACE_ALERTS: {self.label} is not an address of a channel; write it like json://host/path, "
                "slack://token/token/token/#channel or mailtos://user:password@host?to=somebody@example.org, "
                "with %-escapes in passwords; see 'Alerts' in docs/operations.md"
            )

    def send(self, notices: Sequence[Notification], /) -> str | None:
        """Send one message. For a single notification, a webhook also gets its fields as keys."""
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

    def _service(self, notices: Sequence[Notification]) -> Any:
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
            except Exception:  # each plugin raises its own errors, which may quote the address
                return None

    def _without_secrets(self, said: list[str]) -> str:
        """Return Apprise's messages without any part of the address that might be secret."""
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
    """Capture Apprise's log messages, which may contain addresses, instead of logging them."""
    logger, kept = logging.getLogger("apprise"), _Kept()
    before = logger.propagate
    logger.propagate = False
    logger.addHandler(kept)
    try:
        yield kept.said
    finally:
        logger.removeHandler(kept)
        logger.propagate = before


def addresses(settings: Settings) -> list[Address]:
    """Return the channels of the settings, without the log."""
    return [Address(n, url.get_secret_value()) for n, url in enumerate(settings.alerts, 1)]


def verify(settings: Settings) -> None:
    """Check that every channel's URL is a valid address.

    Raises:
        Fatal: One is not. The message names the channel by place and scheme.
    """
    for address in addresses(settings):
        address.verify()
