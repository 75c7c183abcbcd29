"""Compiled code runs where nothing of it can be kept, too."""

from __future__ import annotations

import pytest
from numba.core.caching import CacheImpl

from headrace.compiled import compiled


def twice(number: int) -> int:
    return 2 * number


def test_nowhere_to_keep_machine_code_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for locator in CacheImpl._locator_classes:
        monkeypatch.setattr(locator, "from_function", lambda *_: None)
    assert compiled(twice)(21) == 42
