"""The log, and the addresses that Apprise serves (https://github.com/caronc/apprise): webhooks, Slack, e-mail and more.

Addresses hold secrets: what is said of a channel is its place in ``HEADRACE_ALERTS`` and its scheme.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from headrace.alerts.base import Notice
from headrace.config.settings import Settings
from headrace.core.errors import Fatal

log = logging.getLogger("headrace.alerts")

#: Seconds for one message.
_PATIENCE = 10


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
