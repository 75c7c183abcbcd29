"""Pandera's built-in checks are recognised, and pandera itself asks them where they cannot be."""

from __future__ import annotations

from collections.abc import Callable

import pandera.polars as pa
import pytest

from builders import NOW, event
from headrace.contracts import EVENTS, Limits, builtin_checks, check_batch
from headrace.core.batch import MicroBatch


def test_a_check_has_its_registered_name_and_arguments() -> None:
    assert builtin_checks.builtin(pa.Check.isin(["a"])) == ("isin", {"allowed_values": frozenset({"a"})})
    assert builtin_checks.builtin(pa.Check(lambda data: data.lazyframe)) is None


def test_without_them_the_same_rows_are_rejected_and_one_warning_says_so(
    batch_of: Callable[..., MicroBatch], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch = batch_of([event(), event(channel="?"), event(event_id="")])

    def rejected() -> list[object]:
        return (
            check_batch(EVENTS, batch, batch_id="b", now=NOW, limits=Limits()).rejected["reasons"].to_list()
        )

    known = rejected()
    builtin_checks._readable.cache_clear()
    monkeypatch.setattr(builtin_checks, "_read", lambda check: check.of_another_pandera)
    try:
        assert rejected() == known
        assert len(known) == 2
        [said] = [record for record in caplog.records if "keeps its checks otherwise" in record.getMessage()]
        assert said.levelname == "WARNING"
    finally:
        monkeypatch.undo()
        builtin_checks._readable.cache_clear()
