"""Say what is known of a client: browser, system and device, by its User-Agent, and its address or network."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec
import ua_parser

from headrace.collector.access import network

_encode = msgspec.json.Encoder().encode
#: Longer ones are not looked at: patterns take their time.
_MOST_AGENT = 1_024


class Client:
    """Describes clients as the settings want it.

    Attributes:
        about: Returns a JSON object about a client, by User-Agent and address; empty if there is nothing to say.
    """

    def __init__(self, address: Literal["drop", "truncate", "keep"], user_agent: bool) -> None:
        """Describe nothing yet.

        Args:
            address: What to say of the address: nothing, its network, or all of it.
            user_agent: Whether to say what the User-Agent tells.
        """
        self._address, self._user_agent = address, user_agent
        self.about = lru_cache(8_192)(self._about)
        self._agent = lru_cache(2_048)(_agent)
        if user_agent:
            _agent(
                "Mozilla/5.0"
            )  # loads the patterns, which takes half a second: the first request need not wait

    def _about(self, agent: str, address: str) -> bytes:
        shown = self._shown(address)
        found = {"ip": shown} if shown else {}
        if self._user_agent and agent:
            found |= self._agent(agent)
        return _encode(found) if found else b""

    def _shown(self, address: str) -> str:
        if self._address == "keep":
            return address
        return network(address) if self._address == "truncate" else ""


def _agent(agent: str) -> dict[str, str]:
    """Return what a User-Agent tells."""
    if len(agent) > _MOST_AGENT:
        return {}
    found = {}
    parsed = ua_parser.parse(agent)
    for name, part in (("browser", parsed.user_agent), ("os", parsed.os), ("device", parsed.device)):
        if part is not None and part.family != "Other":
            version = getattr(part, "major", None)
            found[name] = f"{part.family} {version}" if version else part.family
    return found
