"""Good records, and messages made of them."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from headrace.contracts import Contract

T = TypeVar("T")

EVENT = {
    "event_id": "e-1",
    "event_type": "page_view",
    "occurred_at": "2026-01-02T03:04:05.678901Z",
    "session_id": "s-1",
    "channel": "web",
}
METRIC = {
    "metric_id": "m-1",
    "name": "cpu",
    "kind": "gauge",
    "value": 1.5,
    "source": "host-1",
    "dimensions": {"zone": "a"},
    "occurred_at": "2026-01-02T03:04:05Z",
}
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def event(**changes: Any) -> bytes:
    """A good event as a message, with changes."""
    return json.dumps({**EVENT, **changes}).encode()


def metric(**changes: Any) -> bytes:
    """A good measurement as a message, with changes."""
    return json.dumps({**METRIC, **changes}).encode()


def contract_in(path: Path, text: str) -> Contract:
    """The contract that a new module declares; its name must not repeat in a process."""
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    found: Contract = module.contract
    return found


def eventually(look: Callable[[], T], within: float, what: str) -> T:
    """Poll until what ``look`` finds is true, and give it; fails the test after ``within`` seconds."""
    deadline, never = time.monotonic() + within, threading.Event()
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {within} s"
        never.wait(0.25)
    return found
