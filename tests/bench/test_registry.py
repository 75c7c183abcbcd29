"""``headrace bench registry``, small, on the tests' own stack."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from rich.console import Console

from conftest import Stack
from headrace.bench import registry
from headrace.core.batch import Unwrapped


def here(task: Any, *arguments: Any) -> Any:
    return task(*arguments)


@pytest.mark.long
def test_both_ways_land_the_same_events(stack: Stack) -> None:
    found = registry.measure(stack.settings, Console(quiet=True), events=500, repetitions=1, run=here)
    assert found.wrong == []
    shown = found.as_dict()
    assert set(shown["series"]) == set(registry.NAMES)
    assert shown["reconciles"]
    assert 100 < shown["message_bytes"] < 400


def test_rows_that_are_missing_are_told(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: Any, payloads: pl.Series) -> Unwrapped:
        return Unwrapped(pl.Series([None], dtype=pl.Binary).new_from_index(0, len(payloads)))

    monkeypatch.setattr(registry.MessageByMessage, "__call__", nothing)
    found = registry.measure(stack.settings, Console(quiet=True), events=100, repetitions=1, run=here)
    assert found.wrong == ["fastavro: 0 rows of 100 events landed"]
