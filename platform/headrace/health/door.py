"""Ask the collector of an installation whether it takes events."""

from __future__ import annotations

from dataclasses import dataclass

import urllib3

from headrace.config.settings import Settings
from headrace.core.errors import Retriable

_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Door:
    """The collector as others find it.

    Attributes:
        open: Whether it takes events.
        expected: Whether it is to run: the settings, or the stack, name its address.
        said: One line about it.
    """

    open: bool
    expected: bool
    said: str

    @property
    def well(self) -> bool:
        """Whether nothing needs a person."""
        return self.open or not self.expected


def look(config: Settings) -> Door | None:
    """Look at the collector; None where none is to run, and none ever ran with this home folder."""
    expected = bool(config.collector_url)
    if not expected and not (config.collector_folder / "log").is_dir():
        return None
    try:
        return Door(True, expected, asked(config))
    except Retriable as error:
        return Door(False, expected, str(error))


def address(config: Settings) -> str:
    """Return where the collector is to be: the address that the settings name, or host and port of its own."""
    host = "127.0.0.1" if config.collector_host in ("0.0.0.0", "::") else config.collector_host
    return config.collector_url.rstrip("/") or f"http://{host}:{config.collector_port}"


def asked(config: Settings) -> str:
    """Ask whether it takes events; returns a line that says so.

    Raises:
        Retriable: It does not answer, or takes none.
    """
    url = address(config)
    try:
        told = urllib3.request("GET", f"{url}/readyz", timeout=_SECONDS, retries=False)
        status, why = told.status, str(told.json().get("message", "")) if told.status != 200 else ""
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise Retriable(
            f"nothing takes events on {url}; start it with 'headrace collect', or with 'headrace up'"
        ) from error
    if status != 200:
        raise Retriable(f"the collector on {url} takes no events: {why or status}; its log says more")
    return f"takes events on {url}"
